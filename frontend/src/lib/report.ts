/** The evaluation's reports: their shape, and how figures and details are laid out. */
import type { Histogram } from "./api";
import { count, figure } from "./format";

export interface Estimate {
  value: number | null;
  low: number | null;
  high: number | null;
}

export interface Arm {
  name: string;
  what: string;
  role: "subject" | "control" | "replicate";
  features: number;
  /** Hash of what it is made of; a dictionary's own. */
  key: string;
}

export interface MetricRow {
  metric: string;
  title: string;
  what: string;
  units: string;
  better: "higher" | "lower" | "neither";
  /** The controls that the dictionary is held to. */
  against: string[];
  figures: Record<string, Estimate>;
  left_out: Record<string, string>;
  verdict: string | null;
}

export interface Section {
  name: string;
  title: string;
  /** What to know before the figures are believed; empty or missing where there is nothing. */
  caution?: string;
  seconds: Record<string, number>;
  rows: MetricRow[];
  details: Record<string, Record<string, unknown>>;
}

export interface Report {
  suite: string;
  seed: number;
  draws: number;
  level: number;
  command: string;
  arms: Arm[];
  arms_left_out: Record<string, string>;
  sections: Section[];
}

/** The dictionary first, then controls, then replicates. */
export function inOrder(arms: Arm[]): Arm[] {
  return (["subject", "control", "replicate"] as const).flatMap((role) => arms.filter((arm) => arm.role === role));
}

const EQUAL = "no better than ";

/** The controls that the dictionary does not beat. */
export function unbeaten(row: MetricRow): string[] {
  return row.verdict?.startsWith(EQUAL) ? row.verdict.slice(EQUAL.length).split(", ") : [];
}

function ends(figures: Estimate[]): number[] {
  return figures.flatMap(({ value, low, high }) => [value, low, high].filter((end) => end !== null));
}

/** The part of the number line that holds all figures and their intervals. */
export function extent(figures: Estimate[]): [low: number, high: number] {
  const all = ends(figures);
  return all.length ? [Math.min(...all), Math.max(...all)] : [0, 0];
}

const MOST = 4;

/** How many decimals the intervals bear out: as many as half of the narrowest needs for a digit. */
export function decimals(figures: Estimate[]): number {
  const largest = Math.max(...ends(figures).map(Math.abs), 0);
  const widths = figures.flatMap(({ low, high }) =>
    low !== null && high !== null && high - low > 1e-5 * largest ? [high - low] : [],
  );
  const places = widths.length
    ? -Math.floor(Math.log10(Math.min(...widths) / 2))
    : ends(figures).every(Number.isInteger) ? 0 : 2 - Math.floor(Math.log10(largest || 1));
  return Math.max(0, Math.min(places, MOST));
}

/** A figure with so many decimals; what rounds to zero is zero. */
export function fixed(value: number | null, places: number): string {
  if (value === null) return "–";
  const text = Math.abs(value) >= 1000 && places === 0 ? count(Math.round(value)) : value.toFixed(places);
  return Number(text.replaceAll(",", "")) === 0 ? "0" : text.replace("-", "−");
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isNumber(value: unknown): value is number | null {
  return value === null || typeof value === "number";
}

export function isEstimate(value: unknown): value is Estimate {
  return isRecord(value) && Object.keys(value).length === 3 && ["value", "low", "high"].every((key) => key in value && isNumber(value[key]));
}

function isTokens(value: unknown): value is string[] {
  return Array.isArray(value) && value.length > 0 && value.every((token) => typeof token === "string");
}

export function isNumbers(value: unknown): value is number[] {
  return Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === "number");
}

/** Counts of shares from 0 to 1 come without edges. */
const SHARES = "token_share_histogram";

const EDGES = /^(log10_)?edges$/;

/** Counts between edges, and whether those are logarithms to base 10. */
function histogram(value: unknown): { data: Histogram; log: boolean } | null {
  if (!isRecord(value) || !Array.isArray(value["counts"])) return null;
  const edges = Object.keys(value).find((key) => EDGES.test(key));
  if (!edges || !Array.isArray(value[edges])) return null;
  return { data: { edges: value[edges] as number[], counts: value["counts"] as number[] }, log: edges !== "edges" };
}

/** A key as words. */
export function words(key: string): string {
  return key.replaceAll("_", " ");
}

/** Anything as a short text. */
export function plain(value: unknown): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return Number.isInteger(value) ? count(value) : figure(Math.abs(value)).replace(/^/, value < 0 ? "−" : "");
  if (typeof value === "string") return value;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (isEstimate(value)) {
    const places = decimals([value]);
    return value.low === null ? plain(value.value) : `${fixed(value.value, places)} (${fixed(value.low, places)} to ${fixed(value.high, places)})`;
  }
  if (Array.isArray(value) && value.length && value.every(isTokens)) return value.map((tokens) => `“${tokens.join("")}”`).join("  ");
  if (Array.isArray(value)) return value.map(plain).join(value.some(Array.isArray) ? "; " : ", ");
  return Object.entries(value).map(([key, part]) => `${words(key)} ${plain(part)}`).join("; ");
}

export interface Table {
  kind: "table";
  name: string;
  columns: string[];
  rows: Record<string, unknown>[];
}

export interface Quantiles {
  smallest: number;
  largest: number;
  /** By share of all. */
  quantiles: Record<string, number>;
}

function isQuantiles(value: unknown): value is Quantiles {
  return isRecord(value) && typeof value["smallest"] === "number" && typeof value["largest"] === "number" && isRecord(value["quantiles"]);
}

export type Part = Table | { kind: "quantiles"; name: string; data: Quantiles } | { kind: "histogram"; name: string; data: Histogram; log: boolean };

/** Names for the first column of a table of named things. */
const NAMED: Record<string, string> = { by_source: "source", contexts: "context", sets: "set" };

function rowOf(key: string | null, value: unknown, first: string): Record<string, unknown> {
  const named = key === null ? {} : { [first]: first ? key : words(key) };
  if (isEstimate(value) || !isRecord(value)) return { ...named, value };
  if (typeof value["from"] === "number" && typeof value["to"] === "number") {
    const { from, to, ...rest } = value;
    return { position: from === to ? String(from) : `${String(from)}–${String(to)}`, ...rest };
  }
  return { ...named, ...value };
}

function largest(row: Record<string, unknown>): number {
  const found = Object.values(row).find(isEstimate);
  return found?.value ?? -Infinity;
}

function table(name: string, value: unknown): Table | null {
  let rows: Record<string, unknown>[];
  if (Array.isArray(value) && value.length && value.every(isRecord)) {
    rows = value.map((row) => rowOf(null, row, ""));
  } else if (isRecord(value) && Object.keys(value).length && Object.values(value).every(isRecord)) {
    const first = NAMED[name] ?? "";
    rows = Object.entries(value).map(([key, row]) => rowOf(key, row, first));
    if (rows.every((row) => largest(row) > -Infinity)) rows.sort((a, b) => largest(b) - largest(a));
  } else return null;
  const keys = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  // What names a row stands first, and what has a strip of its own last.
  const place = (key: string): number =>
    rows.some((row) => isEstimate(row[key])) ? 2 : rows.every((row) => typeof row[key] === "string" || key === "feature") ? 0 : 1;
  return { kind: "table", name, columns: keys.toSorted((a, b) => place(a) - place(b)), rows };
}

/** Lists of the same length as the columns of one table. */
function besideEachOther(lists: Record<string, number[]>): Table[] {
  const lengths = [...new Set(Object.values(lists).map((list) => list.length))];
  return lengths.map((length) => {
    const columns = Object.entries(lists).filter(([, list]) => list.length === length);
    const key = (name: string): string => (name === "features" ? "feature" : name);
    const rows = Array.from({ length }, (_, n) => Object.fromEntries(columns.map(([name, list]) => [key(name), list[n]])));
    return { kind: "table", name: columns.map(([name]) => name).join(", "), columns: columns.map(([name]) => key(name)).toSorted((a, b) => Number(b === "feature") - Number(a === "feature")), rows };
  });
}

/** A section's details of an arm: facts in one line each, and the tables and plots after them. */
export function laidOut(details: Record<string, unknown>): { facts: [name: string, text: string][]; parts: Part[] } {
  const facts: [string, string][] = [];
  const parts: Part[] = [];
  const columns: Record<string, number[]> = {};
  for (const [name, value] of Object.entries(details)) {
    if (name === SHARES && isNumbers(value)) {
      const edges = Array.from({ length: value.length + 1 }, (_, n) => n / value.length);
      parts.push({ kind: "histogram", name, data: { edges, counts: value }, log: false });
      continue;
    }
    if (isNumbers(value) && value.length > 2) {
      columns[name] = value;
      continue;
    }
    const drawn = histogram(value);
    const tabled = drawn || isQuantiles(value) ? null : table(name, value);
    if (isQuantiles(value)) parts.push({ kind: "quantiles", name, data: value });
    else if (drawn) parts.push({ kind: "histogram", name, ...drawn });
    else if (tabled) parts.push(tabled);
    else if (!(Array.isArray(value) && value.length === 0)) facts.push([name, plain(value)]);
  }
  parts.push(...besideEachOther(columns));
  return { facts, parts: parts.toSorted((a, b) => size(a) - size(b)) };
}

const WIDE = 5;

/** Whether a part takes the whole width of the page. */
export function isWide(part: Part): boolean {
  return part.kind === "table" && part.columns.length >= WIDE;
}

/** What is wide stands first, what is long last. */
function size(part: Part): number {
  return isWide(part) ? -1 : part.kind === "table" ? part.rows.length : 1;
}
