/** Which colour each point of the map has: an entry of a palette of 256. */
import type { Column, Points } from "./points";

/** Entry 0 is for what is not among those found, 1 for what has no value. */
export const REST = 0;
export const NO_VALUE = 1;
const FIRST = 2;
const KINDS = 253;
/** The last entry is for another dictionary's points. */
export const OTHER = 255;

/** Columns whose numbers are names, in order of use; every other column is a scale. */
export const NAMED = ["cluster", "source", "status"] as const;

export function isNamed(column: string): boolean {
  return (NAMED as readonly string[]).includes(column);
}

/** What a column can be coloured by: all but places. */
export function colourings(names: Iterable<string>): string[] {
  const order = ["cluster", "frequency", "source", "status"];
  const place = (name: string): number => (order.includes(name) ? order.indexOf(name) : order.length);
  return [...names].filter((name) => name !== "x" && name !== "y").sort((a, b) => place(a) - place(b));
}

/** The entry of a name's number: after 253 of them colours come again. */
export function entry(number: number): number {
  return FIRST + (number % KINDS);
}

/** The numbers between which a column's scale runs: a twentieth lies below, a twentieth above. */
export function extent({ values, none }: Column): [low: number, high: number] {
  const counts = new Uint32Array(none);
  let there = 0;
  for (const value of values) {
    if (value === none) continue;
    counts[value]! += 1;
    there += 1;
  }
  const beyond = (share: number): number => {
    let passed = 0;
    return counts.findIndex((count) => (passed += count) > Math.round(share * (there - 1)));
  };
  return there ? [beyond(0.05), beyond(0.95)] : [0, 0];
}

/** The palette's entry of each point, in the order of the points. */
export function tints(points: Points, column: Column, named: boolean): Uint8Array {
  const found = new Uint8Array(points.count);
  const [low, high] = named ? [0, 0] : extent(column);
  const step = high > low ? (KINDS - 1) / (high - low) : 0;
  for (let n = 0; n < found.length; n += 1) {
    const value = column.values[points.feature[n]!]!;
    if (value === column.none) found[n] = NO_VALUE;
    else found[n] = named ? entry(value) : FIRST + Math.round((Math.min(Math.max(value, low), high) - low) * step);
  }
  return found;
}

const GOLDEN = 137.508;
const STATUS = {
  light: ["oklch(0.58 0.13 245)", "oklch(0.6 0.01 260)", "oklch(0.6 0.19 40)", "oklch(0.6 0.15 300)"],
  dark: ["oklch(0.72 0.11 240)", "oklch(0.55 0.01 260)", "oklch(0.72 0.17 45)", "oklch(0.74 0.13 305)"],
};

/** The colour of a name's number, as CSS. */
export function named(column: string, number: number, dark: boolean): string {
  if (column === "status") return STATUS[dark ? "dark" : "light"][number] ?? "gray";
  const turn = (40 + (number % KINDS) * GOLDEN) % 360;
  const step = Math.floor(number / 3) % 3;
  return dark ? `oklch(${0.7 + 0.06 * step} 0.14 ${turn})` : `oklch(${0.66 - 0.08 * step} 0.15 ${turn})`;
}

/** The scale from low to high, as CSS colours between which it runs. */
export function scaleStops(dark: boolean): string[] {
  return dark
    ? ["oklch(0.5 0.09 265)", "oklch(0.63 0.14 330)", "oklch(0.75 0.16 55)", "oklch(0.95 0.1 100)"]
    : ["oklch(0.77 0.09 235)", "oklch(0.66 0.15 300)", "oklch(0.58 0.19 25)", "oklch(0.38 0.12 30)"];
}

/** The colour of another dictionary's points: fainter than all others. */
export function otherColour(dark: boolean): string {
  return dark ? "rgb(150 160 175 / 0.45)" : "rgb(105 115 130 / 0.42)";
}

/** The palette as the colours of an image's pixels; the browser turns CSS into numbers. */
export function palette(column: string, dark: boolean): Uint32Array {
  const canvas = new OffscreenCanvas(256, 1);
  const pen = canvas.getContext("2d", { willReadFrequently: true })!;
  if (isNamed(column)) {
    for (let n = 0; n < KINDS; n += 1) {
      pen.fillStyle = named(column, n, dark);
      pen.fillRect(FIRST + n, 0, 1, 1);
    }
  } else {
    const gradient = pen.createLinearGradient(FIRST, 0, FIRST + KINDS, 0);
    const stops = scaleStops(dark);
    stops.forEach((stop, n) => gradient.addColorStop(n / (stops.length - 1), stop));
    pen.fillStyle = gradient;
    pen.fillRect(FIRST, 0, KINDS, 1);
  }
  pen.fillStyle = dark ? "rgb(115 122 135 / 0.4)" : "rgb(140 145 155 / 0.35)";
  pen.fillRect(REST, 0, 1, 1);
  pen.fillStyle = dark ? "rgb(120 125 135)" : "rgb(150 153 160)";
  pen.fillRect(NO_VALUE, 0, 1, 1);
  pen.fillStyle = otherColour(dark);
  pen.fillRect(OTHER, 0, 1, 1);
  return new Uint32Array(pen.getImageData(0, 0, 256, 1).data.buffer.slice(0));
}
