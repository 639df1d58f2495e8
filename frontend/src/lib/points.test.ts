import { describe, expect, it } from "vitest";
import type { MapLayout } from "./api";
import { layers, Points, type Column } from "./points";

/** Numbers between 0 and 1 that are the same in every run (mulberry32). */
export function drawn(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function scattered(amount: number, seed = 1): { points: Points; x: Column; y: Column } {
  const next = drawn(seed);
  const column = (low: number, step: number): Column => ({
    values: Uint16Array.from({ length: amount }, () => Math.floor(next() * 65535)), none: 0xffff, low, step,
  });
  const [x, y] = [column(-3, 0.001), column(10, 0.0005)];
  for (let n = 0; n < amount; n += 50) x.values[n] = y.values[n] = 0xffff;
  return { points: new Points(x, y), x, y };
}

describe("the map's bytes", () => {
  const layout: MapLayout = {
    name: "run",
    features: 3,
    bytes: 13,
    arrays: [
      { name: "x", dtype: "uint16", offset: 0, low: -1, step: 0.5 },
      { name: "status", dtype: "uint8", offset: 10, low: 0, step: 1 },
    ],
    other: { name: "demo", features: 2, arrays: [{ name: "x", dtype: "uint16", offset: 6, low: -1, step: 0.5 }] },
  };
  it("are read where the layout says", () => {
    const data = Uint8Array.from([1, 0, 0, 1, 255, 255, 2, 0, 3, 0, 0, 3, 255]).buffer;
    const { own: found, other } = layers(layout, data);
    expect([...other.get("x")!.values]).toEqual([2, 3]);
    expect(layers({ ...layout, other: null }, data).other.size).toBe(0);
    expect([...found.get("x")!.values]).toEqual([1, 256, 65535]);
    expect([...found.get("status")!.values]).toEqual([0, 3, 255]);
    expect(found.get("status")!.none).toBe(255);
  });
  it("of another length are refused", () => {
    expect(() => layers(layout, new ArrayBuffer(8))).toThrow("8 bytes long: expected 13");
  });
});

describe("points", () => {
  const { points, x, y } = scattered(3000);
  const at = (n: number): [number, number] => [x.low + x.values[n]! * x.step, y.low + y.values[n]! * y.step];
  const placed = Array.from({ length: 3000 }, (_, n) => n).filter((n) => n % 50);

  it("hold every feature that has a place once", () => {
    expect([...points.feature].sort((a, b) => a - b)).toEqual(placed);
    expect(points.at(0)).toBeNull();
    expect(points.at(7)).toEqual({ x: at(7)[0], y: at(7)[1] });
    expect(points.at(3000)).toBeNull();
  });
  it("have the values of their features", () => {
    const values = Uint8Array.from({ length: 3000 }, (_, n) => n % 251);
    expect([...points.inOrder(values)]).toEqual([...points.feature].map((n) => n % 251));
  });
  it("in a part of the map are all among its runs", () => {
    const part = { left: 5, right: 20, bottom: 15, top: 18 };
    const seen = new Set<number>();
    for (const [first, last] of points.runs(part)) for (let n = first; n < last; n += 1) seen.add(points.feature[n]!);
    const inside = placed.filter((n) => at(n)[0] >= 5 && at(n)[0] <= 20 && at(n)[1] >= 15 && at(n)[1] <= 18);
    expect(inside.length).toBeGreaterThan(10);
    expect(inside.every((n) => seen.has(n))).toBe(true);
    expect(seen.size).toBeLessThan(placed.length / 4);
  });
  it("outside the map have no runs", () => {
    expect([...points.runs({ left: 500, right: 600, bottom: 0, top: 50 })]).toEqual([]);
  });
  it("nearest to a place are those a search through all finds", () => {
    const next = drawn(2);
    for (let trial = 0; trial < 200; trial += 1) {
      const [px, py, reach] = [-5 + next() * 70, 8 + next() * 36, 0.2 + next() * 3];
      let best: number | null = null;
      let least = reach;
      for (const n of placed) {
        const distance = Math.hypot(at(n)[0] - px, at(n)[1] - py);
        if (distance < least) [best, least] = [n, distance];
      }
      expect(points.nearest(px, py, reach)).toBe(best);
    }
  });
  it("nearest among those wanted are wanted", () => {
    const wanted = new Uint8Array(3000);
    wanted[1234] = 1;
    expect(points.nearest(...at(77), 1e3, wanted)).toBe(1234);
    expect(points.nearest(...at(1234), 0.001, wanted)).toBe(1234);
  });
});
