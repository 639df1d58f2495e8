import { describe, expect, it } from "vitest";
import { barChart, fileName } from "./picture";

const INK = { paper: "white", ink: "black", bar: "blue" };
const bars = (...values: number[]) => values.map((value, n) => ({ text: `t${n}`, value, written: String(value) }));

describe("bars as SVG", () => {
  it("are as long as their values, and hollow below zero", () => {
    const svg = barChart("Effects", bars(4, 2, -1), INK);
    const found = [...svg.matchAll(/<rect x="150" y="\d+" width="([\d.]+)" height="10" rx="2" (fill|stroke)?="?([^"]*)/g)];
    const widths = found.map((match) => Number(match[1]));
    expect(widths).toHaveLength(3);
    expect(widths.map((width) => width / (widths[0] ?? 1))).toEqual([1, 0.5, 0.25]);
    expect(found.map((match) => match[3])).toEqual(["blue", "blue", "none"]);
  });

  it("hold tokens as text, never as markup", () => {
    const svg = barChart("A & B", [{ text: "<script>x</script>", value: 1, written: "1" }, { text: "\u0000\u202e\ud800", value: 1, written: "1" }], INK);
    expect(svg).not.toContain("<script");
    expect(svg).toContain("&#60;script&#62;");
    expect(svg).toContain("A &#38; B");
    expect(svg).toContain("␀U+202EU+D800");
    expect(/[\u0000-\u0008\u202e\ud800-\udfff]/.test(svg)).toBe(false);
  });

  it("of nothing is a plot of nothing", () => {
    expect(barChart("None", [], INK)).toContain("None");
  });
});

it("names files by letters and digits of any script", () => {
  expect(fileName("Feature 12 tokens before")).toBe("feature-12-tokens-before");
  expect(fileName("../../etc/海 <b>")).toBe("etc-海-b");
  expect(fileName("…")).toBe("plot");
});
