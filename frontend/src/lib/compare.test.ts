import { describe, expect, it } from "vitest";
import type { PromptAnswer, PromptFeature } from "./api";
import { compare, ranked, texts, weigh } from "./compare";

function fired(feature: number, value: number, effect: number | null = null, maximum = 10): PromptFeature {
  return {
    feature, value, effect, maximum, pieces: 1, status: "alive", frequency: 0.1, mean: 1, tokens: [], promotes: [],
    label: null, source: null, cluster: null,
  };
}

function answer(...features: PromptFeature[]): PromptAnswer {
  return { tokens: 1, pieces: [], features, next: null };
}

describe("comparing two texts", () => {
  const found = compare(answer(fired(1, 5), fired(2, 3), fired(3, 1), fired(9, 4)), answer(fired(3, 4), fired(1, 4), fired(7, 2), fired(8, 6)));

  it("puts every feature into one of three groups", () => {
    expect(found.first.map((item) => item.feature)).toEqual([9, 2]);
    expect(found.second.map((item) => item.feature)).toEqual([8, 7]);
    expect(found.both.map((item) => [item.item.feature, item.first, item.second])).toEqual([[3, 1, 4], [1, 5, 4]]);
  });

  it("of a text with itself finds no difference", () => {
    const same = answer(fired(1, 5), fired(2, 3));
    expect(compare(same, same)).toMatchObject({ first: [], second: [] });
  });
});

describe("ranking", () => {
  const items = [fired(1, 4, 0.5), fired(2, 3, -2, 3), fired(3, 1, 3), fired(4, 2)].map((item) => ({ item, value: item.value }));
  const order = (by: "value" | "share" | "effect"): number[] => ranked(items, by).map(({ item }) => item.feature);

  it("is by value, share of the maximum, or value times effect", () => {
    expect(order("value")).toEqual([1, 2, 4, 3]);
    expect(order("share")).toEqual([2, 1, 4, 3]);
    expect(order("effect")).toEqual([3, 1, 4, 2]);
    expect(items.map((item) => weigh(item, "effect"))).toEqual([2, -6, 3, 0]);
  });

  it("leaves what it ranks as it was", () => {
    ranked(items, "effect");
    expect(items.map(({ item }) => item.feature)).toEqual([1, 2, 3, 4]);
  });
});

describe("texts that are typed", () => {
  it("are lines, or what stands between lines of dashes", () => {
    expect(texts("one\n\n two \n")).toEqual(["one", " two "]);
    expect(texts("one\ntwo\n---\nthree\n----\n")).toEqual(["one\ntwo", "three"]);
    expect(texts(" \n")).toEqual([]);
  });
});
