import { beforeAll, describe, expect, it } from "vitest";
import { Points, type Column } from "./points";
import { Raster, radiusOf, stamp, type Scene } from "./raster";
import { toScreen, whole } from "./view";

// What browsers have: pixels of an image.
beforeAll(() => {
  globalThis.ImageData = class {
    data: Uint8ClampedArray;
    constructor(readonly width: number, readonly height: number) {
      this.data = new Uint8ClampedArray(width * height * 4);
    }
  } as unknown as typeof ImageData;
});

const column = (values: number[]): Column => ({ values: Uint16Array.from(values), none: 0xffff, low: 0, step: 1 / 65534 });
const size = { width: 120, height: 90 };
const RED = 0xff0000ff;
const BLUE = 0xffff0000;
const GREY = 0x80808080;

function scene(x: number[], y: number[], changes: Partial<Scene> = {}): Scene {
  const points = new Points(column(x), column(y));
  const palette = new Uint32Array(256).fill(RED);
  palette[0] = GREY;
  palette[3] = BLUE;
  return { points, view: whole(points.bounds), tints: new Uint8Array(points.count).fill(2), found: null, other: null, amount: x.length, palette, every: 1, ratio: 1, ...changes };
}
function drawn(shown: Scene): (place: { x: number; y: number }) => number[] {
  const raster = new Raster();
  raster.draw(shown, size);
  return ({ x, y }) => {
    const start = (Math.floor(y) * size.width + Math.floor(x)) * 4;
    return [...raster.image.data.slice(start, start + 4)];
  };
}

describe("a picture of points", () => {
  it("has another dictionary's points under these, in a colour of their own", () => {
    const palette = new Uint32Array(256).fill(RED);
    palette[255] = GREY;
    const other = new Points(column([0, 30000, 65534]), column([0, 60000, 65534]));
    const shown = scene([0, 65534], [0, 65534], { other, palette });
    const at = drawn(shown);
    const pixel = (points: Points, feature: number) => at(toScreen(points.at(feature)!, shown.view, shown.points.bounds, size));
    expect(pixel(other, 1).slice(0, 3)).toEqual([128, 128, 128]);
    expect(pixel(shown.points, 0).slice(0, 3)).toEqual([255, 0, 0]);
  });
  const x = [0, 65534, 30000];
  const y = [0, 65534, 10000];
  it("has ink where points lie, and none elsewhere", () => {
    const shown = scene(x, y);
    const at = drawn(shown);
    for (const feature of [0, 1, 2]) {
      const [red, green, , alpha] = at(toScreen(shown.points.at(feature)!, shown.view, shown.points.bounds, size));
      expect([red, green]).toEqual([255, 0]);
      expect(alpha).toBeGreaterThan(150);
    }
    expect(at({ x: 20, y: 20 })[3]).toBe(0);
  });
  it("shows those found over the others, which are pale", () => {
    const { points } = scene(x, y);
    const shown = scene(x, y, { points, found: points.inOrder(Uint8Array.from([0, 0, 1])), amount: 1 });
    const at = drawn(shown);
    const place = (feature: number) => toScreen(shown.points.at(feature)!, shown.view, shown.points.bounds, size);
    expect(at(place(2)).slice(0, 3)).toEqual([255, 0, 0]);
    expect(at(place(0)).slice(0, 3)).toEqual([128, 128, 128]);
    expect(at(place(0))[3]).toBeLessThan(at(place(2))[3]!);
  });
  it("is darker where more points lie on each other", () => {
    const many = 4000;
    const shown = scene(
      Array.from({ length: many }, (_, n) => (n ? 65534 : 0)),
      Array.from({ length: many }, (_, n) => (n ? 65534 : 0)),
    );
    const at = drawn(shown);
    const place = (feature: number) => toScreen(shown.points.at(feature)!, shown.view, shown.points.bounds, size);
    expect(radiusOf(many, shown.view, size, 1)).toBeLessThan(0.75);
    expect(at(place(0))[3]).toBeGreaterThan(90);
    expect(at(place(5))[3]).toBe(255);
  });
  it("leaves out points that are not shown", () => {
    const shown = scene(x, y);
    const raster = new Raster();
    raster.draw({ ...shown, view: { x: 0, y: 0.9, zoom: 400 } }, size);
    expect(raster.image.data.some((value) => value > 0)).toBe(false);
  });
  it("of one in so many points has some of them", () => {
    const places = Array.from({ length: 900 }, (_, n) => n);
    const shown = scene(places.map((n) => (n % 30) * 2184), places.map((n) => Math.floor(n / 30) * 2184));
    const inked = (every: number): number => {
      const raster = new Raster();
      raster.draw({ ...shown, every }, size);
      return raster.image.data.filter((value, n) => n % 4 === 3 && value > 0).length;
    };
    expect(inked(3)).toBeGreaterThan(inked(1) / 5);
    expect(inked(3)).toBeLessThan(inked(1) / 2);
  });
});

describe("a stamp", () => {
  it("is one pixel where points are small", () => {
    expect([...stamp(0.5).ink]).toEqual([16]);
  });
  it("has the ink of a disc", () => {
    for (const radius of [1.5, 2.5, 4]) {
      const ink = stamp(radius).ink.reduce((sum, value) => sum + value, 0) / 16;
      expect(ink / (Math.PI * radius ** 2)).toBeGreaterThan(0.85);
      expect(ink / (Math.PI * radius ** 2)).toBeLessThan(1.15);
    }
  });
});
