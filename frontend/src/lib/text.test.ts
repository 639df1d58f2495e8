import { describe, expect, it } from "vitest";
import { alone, brief, clip, direction, parts, splitTags, spoken } from "./text";

describe("parts", () => {
  it("keeps words whole and spaces apart", () => {
    expect(parts(" the sea")).toEqual([
      { kind: "space", shown: " " },
      { kind: "text", shown: "the" },
      { kind: "space", shown: " " },
      { kind: "text", shown: "sea" },
    ]);
  });

  it("shows line ends, tabs and control characters", () => {
    const shown = parts("a\n\t\u0000\u001b\u007f\u0085").map((part) => part.shown);
    expect(shown).toEqual(["a", "↵", "⇥", "␀", "␛", "␡", "\\x85"]);
  });

  it("defuses marks that would turn the text around", () => {
    expect(parts("\u202eabc")).toEqual([
      { kind: "control", shown: "U+202E" },
      { kind: "text", shown: "abc" },
    ]);
  });

  it("keeps joiners where they join, shows them where they do not", () => {
    expect(parts("👩\u200d🚀")).toEqual([{ kind: "text", shown: "👩\u200d🚀" }]);
    expect(parts("می\u200cخواهم")).toHaveLength(1);
    expect(parts("\u200d")).toEqual([{ kind: "control", shown: "U+200D" }]);
  });

  it("leaves markup as text", () => {
    expect(parts("<b>")).toEqual([{ kind: "text", shown: "<b>" }]);
  });
});

describe("alone", () => {
  it("gives a lone vowel mark something to sit on", () => {
    expect(alone("\u064e")).toEqual([{ kind: "text", shown: "◌\u064e" }]);
  });
});

describe("spoken", () => {
  it("names what has no sound", () => {
    expect(spoken("a\n")).toBe("aline end");
  });
});

describe("direction", () => {
  it("follows the majority of letters, not the first", () => {
    expect(direction(["The ", "البحر في الصباح"])).toBe("rtl");
    expect(direction(["א", " is the first letter"])).toBe("ltr");
    expect(direction(["123 !"])).toBe("ltr");
  });
});

describe("examples", () => {
  it("are clipped around their peak, but not for a token or two", () => {
    expect(clip(40, 20)).toEqual({ start: 6, stop: 29 });
    expect(clip(40, 16)).toEqual({ start: 0, stop: 25 });
    expect(clip(23, 14)).toEqual({ start: 0, stop: 23 });
    expect(clip(25, 14)).toEqual({ start: 0, stop: 25 });
    expect(clip(1, 0)).toEqual({ start: 0, stop: 1 });
  });
});

describe("tags", () => {
  it("stand between commas, each once", () => {
    expect(splitTags(" check, to do ,check,,")).toEqual(["check", "to do"]);
    expect(splitTags(" , ")).toEqual([]);
  });
});

it("shortens what is long, by characters", () => {
  expect(brief("short")).toBe("short");
  expect(brief("x".repeat(100_000))).toBe(`${"x".repeat(23)}…`);
  expect(brief("🚤🚤🚤🚤", 3)).toBe("🚤🚤…");
});
