/** The points of the map: one a feature, in whole numbers, sorted by where they lie. */

import type { Layer, MapLayout } from "./api";

/** One number a feature; the largest of its type stands for none. */
export interface Column {
  values: Uint8Array | Uint16Array;
  none: number;
  low: number;
  step: number;
}

export interface Bounds {
  left: number;
  right: number;
  bottom: number;
  top: number;
}

/** Cells along each side of the grid. */
const CELLS = 256;
const SHIFT = 8;
const NONE = 0xffff;

/** The columns of the features in `map.bin`, and of the other dictionary's, without a copy. */
export function layers(layout: MapLayout, data: ArrayBuffer): Record<"own" | "other", Map<string, Column>> {
  if (data.byteLength !== layout.bytes) {
    throw new Error(`the map is ${data.byteLength} bytes long: expected ${layout.bytes}`);
  }
  return { own: columns(layout, data), other: layout.other ? columns(layout.other, data) : new Map() };
}

function columns(layout: Layer, data: ArrayBuffer): Map<string, Column> {
  return new Map(
    layout.arrays.map(({ name, dtype, offset, low, step }) => {
      const wide = dtype === "uint16";
      const values = wide
        ? new Uint16Array(data, offset, layout.features)
        : new Uint8Array(data, offset, layout.features);
      return [name, { values, none: wide ? 0xffff : 0xff, low, step }];
    }),
  );
}

/**
 * Points in order of the cell of a grid that they lie in, row by row: what a part of the map shows
 * is a run of them for every row of cells.
 */
export class Points {
  /** The feature of each point. */
  readonly feature: Uint32Array;
  readonly x: Uint16Array;
  readonly y: Uint16Array;
  /** Where each cell's points begin; one more entry than cells. */
  readonly start: Uint32Array;
  readonly bounds: Bounds;
  readonly #x: Column;
  readonly #y: Column;

  constructor(x: Column, y: Column) {
    this.#x = x;
    this.#y = y;
    const start = new Uint32Array(CELLS * CELLS + 1);
    const cell = (n: number): number => ((y.values[n]! >> SHIFT) * CELLS) + (x.values[n]! >> SHIFT);
    const all = x.values.length;
    for (let n = 0; n < all; n += 1) if (x.values[n] !== NONE) start[cell(n) + 1]! += 1;
    for (let n = 0; n < CELLS * CELLS; n += 1) start[n + 1]! += start[n]!;
    const placed = start[CELLS * CELLS]!;
    const next = start.slice();
    this.feature = new Uint32Array(placed);
    this.x = new Uint16Array(placed);
    this.y = new Uint16Array(placed);
    for (let n = 0; n < all; n += 1) {
      if (x.values[n] === NONE) continue;
      const place = next[cell(n)]!++;
      this.feature[place] = n;
      this.x[place] = x.values[n]!;
      this.y[place] = y.values[n]!;
    }
    this.start = start;
    this.bounds = {
      left: x.low, right: x.low + (NONE - 1) * x.step, bottom: y.low, top: y.low + (NONE - 1) * y.step,
    };
  }

  get count(): number {
    return this.feature.length;
  }

  /** Where a feature lies, null for one without a place. */
  at(feature: number): { x: number; y: number } | null {
    const x = this.#x.values[feature];
    if (x === undefined || x === NONE) return null;
    return { x: this.#x.low + x * this.#x.step, y: this.#y.low + this.#y.values[feature]! * this.#y.step };
  }

  /** A number of each feature as a number of each point. */
  inOrder(values: Uint8Array): Uint8Array {
    return Uint8Array.from(this.feature, (feature) => values[feature]!);
  }

  /** A place in the whole numbers that points are kept in. */
  whole(x: number, y: number): { x: number; y: number } {
    return { x: (x - this.#x.low) / this.#x.step, y: (y - this.#y.low) / this.#y.step };
  }

  /** Places of a run of points for each row of cells that a part of the map touches. */
  *runs(part: Bounds): Generator<[first: number, last: number]> {
    const low = this.whole(part.left, part.bottom);
    const high = this.whole(part.right, part.top);
    if (high.x < 0 || high.y < 0 || low.x > NONE || low.y > NONE) return;
    const cut = (value: number): number => Math.min(Math.max(value, 0), NONE) >> SHIFT;
    const [from, to] = [cut(low.x), cut(high.x)];
    for (let row = cut(low.y); row <= cut(high.y); row += 1) {
      const first = this.start[row * CELLS + from]!;
      const last = this.start[row * CELLS + to + 1]!;
      if (last > first) yield [first, last];
    }
  }

  /** The feature nearest to a place, no farther than `reach`, among those that `wanted` takes. */
  nearest(x: number, y: number, reach: number, wanted?: Uint8Array | null): number | null {
    const part = { left: x - reach, right: x + reach, bottom: y - reach, top: y + reach };
    const middle = this.whole(x, y);
    const [sx, sy] = [this.#x.step, this.#y.step];
    let best = reach * reach;
    let found: number | null = null;
    for (const [first, last] of this.runs(part)) {
      for (let n = first; n < last; n += 1) {
        const dx = (this.x[n]! - middle.x) * sx;
        const dy = (this.y[n]! - middle.y) * sy;
        const distance = dx * dx + dy * dy;
        if (distance <= best && (!wanted || wanted[this.feature[n]!])) {
          best = distance;
          found = this.feature[n]!;
        }
      }
    }
    return found;
  }
}
