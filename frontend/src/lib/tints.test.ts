import { describe, expect, it } from "vitest";
import { Points, type Column } from "./points";
import * as tints from "./tints";

const column = (values: number[]): Column => ({ values: Uint16Array.from(values), none: 0xffff, low: 0, step: 1 });
const points = new Points(column([9000, 0xffff, 100, 60000, 5]), column([9000, 0xffff, 100, 60000, 5]));
const byFeature = (found: Uint8Array): (number | undefined)[] =>
  [0, 1, 2, 3, 4].map((feature) => found[points.feature.indexOf(feature)]);

describe("colours of points", () => {
  it("are alike for one name, and apart for others", () => {
    const found = byFeature(tints.tints(points, column([3, 3, 3, 7, 0xffff]), true));
    expect(found[0]).toBe(found[2]);
    expect(found[0]).not.toBe(found[3]);
    expect(found[1]).toBeUndefined();
    expect(found[4]).toBe(tints.NO_VALUE);
  });
  it("run over the whole scale", () => {
    expect(byFeature(tints.tints(points, column([10, 15, 20, 30, 0xffff]), false))).toEqual([2, undefined, 128, 254, 1]);
  });
  it("leave what is far from nearly all at the ends of the scale", () => {
    const values = Array.from({ length: 1000 }, (_, n) => (n === 7 ? 60000 : 100 + (n % 100)));
    expect(tints.extent(column(values))).toEqual([105, 195]);
    expect(tints.extent(column([0xffff, 0xffff]))).toEqual([0, 0]);
  });
  it("of one value only are the first of the scale", () => {
    expect(byFeature(tints.tints(points, column([4, 4, 4, 4, 4]), false))).toEqual([2, undefined, 2, 2, 2]);
  });
  it("are offered by every column but places", () => {
    expect(tints.colourings(["x", "y", "score", "source", "cluster", "frequency"])).toEqual(["cluster", "frequency", "source", "score"]);
  });
});
