import { describe, expect, it } from "vitest";
import * as views from "./view";

const bounds = { left: -10, right: 30, bottom: 5, top: 15 };
const size = { width: 800, height: 600 };

describe("a view", () => {
  it("shows the whole map, as large as fits, the right way up", () => {
    const view = views.whole(bounds);
    const corner = views.toScreen({ x: -10, y: 15 }, view, bounds, size);
    const other = views.toScreen({ x: 30, y: 5 }, view, bounds, size);
    expect(corner.x).toBeCloseTo(24);
    expect(other.x).toBeCloseTo(776);
    expect(corner.y).toBeLessThan(other.y);
    expect((other.y - corner.y) / (other.x - corner.x)).toBeCloseTo(10 / 40);
  });
  it("leads from pixels to the map and back", () => {
    const view = { x: 3, y: 8, zoom: 7 };
    const place = views.toMap({ x: 123, y: 456 }, view, bounds, size);
    const back = views.toScreen(place, view, bounds, size);
    expect(back.x).toBeCloseTo(123);
    expect(back.y).toBeCloseTo(456);
  });
  it("moves with the pointer", () => {
    const view = { x: 3, y: 8, zoom: 7 };
    const under = views.toMap({ x: 400, y: 300 }, view, bounds, size);
    const after = views.toScreen(under, views.pan(view, 30, -20, bounds, size), bounds, size);
    expect(after.x).toBeCloseTo(430);
    expect(after.y).toBeCloseTo(280);
  });
  it("keeps its middle on the map", () => {
    expect(views.pan({ x: 3, y: 8, zoom: 1 }, 1e6, 1e6, bounds, size)).toEqual({ x: -10, y: 15, zoom: 1 });
  });
  it("keeps what is under the pointer when it is enlarged", () => {
    const pixel = { x: 200, y: 410 };
    const view = { x: 3, y: 8, zoom: 2 };
    const under = views.toMap(pixel, view, bounds, size);
    const after = views.toScreen(under, views.enlarge(view, 3, pixel, bounds, size), bounds, size);
    expect(after.x).toBeCloseTo(200);
    expect(after.y).toBeCloseTo(410);
  });
  it("is the whole map again when reduced, and never enlarged without end", () => {
    const view = { x: 3, y: 8, zoom: 2 };
    expect(views.enlarge(view, 0.1, { x: 0, y: 0 }, bounds, size)).toEqual(views.whole(bounds));
    expect(views.enlarge(view, 1e9, { x: 0, y: 0 }, bounds, size).zoom).toBe(views.MAX_ZOOM);
  });
  it("stands in an address", () => {
    expect(views.read(views.written({ x: 1.5, y: -2.25, zoom: 4 }))).toEqual({ x: 1.5, y: -2.25, zoom: 4 });
    for (const wrong of [null, "", "1,2", "1,2,x", "1,2,0.5", "1,2,3,4", "1,,3", "Infinity,1,2"]) expect(views.read(wrong)).toBeNull();
  });
});

describe("a drawn line", () => {
  const circle = Array.from({ length: 500 }, (_, n) => ({
    x: 100 + 80 * Math.cos((n / 500) * 2 * Math.PI), y: 100 + 80 * Math.sin((n / 500) * 2 * Math.PI),
  }));
  it("keeps its corners", () => {
    const square = [0, 1, 2, 3].flatMap((side) =>
      Array.from({ length: 10 }, (_, n) => [
        { x: n * 10, y: 0 }, { x: 100, y: n * 10 }, { x: 100 - n * 10, y: 100 }, { x: 0, y: 100 - n * 10 },
      ][side]!),
    );
    expect(views.simplified(square, 0.5)).toEqual([
      { x: 0, y: 0 }, { x: 100, y: 0 }, { x: 100, y: 100 }, { x: 0, y: 100 }, { x: 0, y: 10 },
    ]);
  });
  it("becomes a polygon of few corners that strays little", () => {
    const shape = views.polygon(circle, 64)!;
    expect(shape.length).toBeLessThanOrEqual(64);
    const area = Math.abs(shape.reduce((sum, { x, y }, n) => {
      const next = shape[(n + 1) % shape.length]!;
      return sum + (x * next.y - next.x * y) / 2;
    }, 0));
    expect(area).toBeGreaterThan(0.97 * Math.PI * 80 ** 2);
    expect(area).toBeLessThanOrEqual(Math.PI * 80 ** 2);
    expect(views.polygon(circle, 8)!.length).toBeLessThanOrEqual(8);
  });
  it("that ends where it began keeps its shape", () => {
    const closed = [...circle, { x: circle[0]!.x + 1e-13, y: circle[0]!.y }];
    expect(views.polygon(closed, 64)!.length).toBeGreaterThan(12);
  });
  it("that encloses nothing is none", () => {
    expect(views.polygon([{ x: 1, y: 1 }], 64)).toBeNull();
    expect(views.polygon([{ x: 1, y: 1 }, { x: 5, y: 5 }, { x: 9, y: 9 }], 64)).toBeNull();
  });
  it("stands in an address", () => {
    const shape = [{ x: 1.25, y: -3 }, { x: 1e-7, y: 2 }, { x: 5, y: 6 }];
    expect(views.corners(shape)).toMatch(/^-?\d+(\.\d+)?([eE][+-]?\d+)?,-3( \S+,\S+){2}$/);
    expect(views.readCorners(views.corners(shape))).toEqual(shape);
    expect(views.readCorners(null)).toEqual([]);
  });
});
