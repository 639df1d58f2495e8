import { describe, expect, it } from "vitest";
import { decimals, extent, fixed, inOrder, laidOut, plain, unbeaten, type Arm, type MetricRow } from "./report";

const at = (value: number | null, low: number | null = null, high: number | null = null) => ({ value, low, high });
const row = (verdict: string | null) => ({ verdict }) as MetricRow;

describe("reports", () => {
  it("put the dictionary first, then controls, then replicates", () => {
    const arms = [["seed", "replicate"], ["pca", "control"], ["dictionary", "subject"]].map(([name, role]) => ({ name, role }) as Arm);
    expect(inOrder(arms).map((arm) => arm.name)).toEqual(["dictionary", "pca", "seed"]);
  });

  it("name the controls that are not beaten", () => {
    expect(unbeaten(row("no better than pca, random directions"))).toEqual(["pca", "random directions"]);
    expect(unbeaten(row("beats its controls"))).toEqual([]);
    expect(unbeaten(row(null))).toEqual([]);
  });

  it("show as many decimals as the narrowest interval bears out", () => {
    expect(decimals([at(0.158, 0.149, 0.166), at(0.443, 0.438, 0.448)])).toBe(3);
    expect(decimals([at(0.16, 0.11, 0.21), at(3.1, 2.9, 3.3), at(0, 0, 0)])).toBe(2);
    expect(decimals([at(1, 0.99999999, 1.00000001), at(0.678, 0.677, 0.68)])).toBe(3);
    expect(decimals([at(32, 32, 32), at(576, 576, 576)])).toBe(0);
    expect(decimals([at(1e-9, 0, 2e-9)])).toBe(4);
    expect(decimals([])).toBe(0);
    expect(fixed(1e-15, 3)).toBe("0");
    expect(fixed(-0.25, 2)).toBe("−0.25");
    expect(fixed(12345, 0)).toBe("12,345");
    expect(fixed(null, 3)).toBe("–");
  });

  it("span every interval", () => {
    expect(extent([at(1, 0.5, 1.5), at(2), at(null)])).toEqual([0.5, 2]);
    expect(extent([at(null)])).toEqual([0, 0]);
  });

  it("put lists of one length beside each other, and shares into a histogram", () => {
    const { facts, parts } = laidOut({ direct_shares: [0.1, 0.2, 0.3], features: [4, 5, 6], none: [], token_share_histogram: [3, 4] });
    expect(facts).toEqual([]);
    expect(parts[0]).toMatchObject({ kind: "histogram", data: { edges: [0, 0.5, 1], counts: [3, 4] } });
    expect(parts[1]).toMatchObject({ columns: ["feature", "direct_shares"], rows: [{ feature: 4, direct_shares: 0.1 }, { feature: 5 }, { feature: 6 }] });
  });

  it("lay out details that are known and those that are not", () => {
    const { facts, parts } = laidOut({
      tokens: 1234,
      l0: { smallest: 1, largest: 64, quantiles: { "0.5": 32 } },
      loose: { deep: [1, { deeper: true }] },
      nothing: [],
      by_source: { brown: { tokens: 5, fvu: at(0.1) }, web: { tokens: 6, fvu: at(0.2, 0.1, 0.3) } },
      by_position: [{ from: 1, to: 1, fvu: at(0.1) }, { from: 2, to: 3, fvu: at(0.2) }],
      frequency_histogram: { log10_edges: [-2, -1, 0], counts: [3, 4] },
      pairs: [{ feature: 3, antipode: [7, -0.9], kind: "pair" }],
    });
    expect(facts).toEqual([["tokens", "1,234"], ["loose", "deep 1, deeper yes"]]);
    expect(parts.map((part) => part.name)).toEqual(["l0", "frequency_histogram", "pairs", "by_source", "by_position"]);
    expect(parts[0]).toMatchObject({ kind: "quantiles", data: { largest: 64 } });
    expect(parts[3]).toMatchObject({ columns: ["source", "tokens", "fvu"], rows: [{ source: "web" }, { source: "brown" }] });
    expect(parts[4]).toMatchObject({ columns: ["position", "fvu"], rows: [{ position: "1" }, { position: "2–3" }] });
    expect(parts[1]).toMatchObject({ kind: "histogram", log: true });
    expect(parts[2]).toMatchObject({ columns: ["feature", "kind", "antipode"] });
    expect(plain([["[any]", " the"], [" sea"]])).toBe("“[any] the”  “ sea”");
    expect(plain([[0, 1], [1, 2.5]])).toBe("0, 1; 1, 2.50");
    expect(plain([7, -0.9354])).toBe("7, −0.935");
    expect(plain(at(0.158, 0.149, 0.166))).toBe("0.158 (0.149 to 0.166)");
  });
});
