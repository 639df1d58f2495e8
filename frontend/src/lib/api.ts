/** What the server answers, and how to ask it. */

export interface Piece {
  text: string;
  /** The largest activation of the piece's tokens. */
  value: number;
  tokens: number[];
  /** Bytes that are no character, written as escapes. */
  broken?: boolean;
}

export interface Example {
  pieces: Piece[];
  /** The piece that the example was chosen for. */
  peak: number;
  value: number;
  source: string;
  document: number;
  position: number;
}

export type Status = "alive" | "dead" | "dense" | "ultralow";

export interface Name {
  feature: number;
  status: Status;
  frequency: number;
  mean: number;
  maximum: number;
  tokens: string[];
  promotes: string[];
}

export interface Row extends Name {
  histogram: number[];
  /** Middles of its strongest examples, from different documents as far as there are any. */
  examples: Example[];
}

export interface Rows {
  total: number;
  offset: number;
  rows: Row[];
}

export interface Sample {
  seed: number;
  of: number;
  rows: Row[];
}

export interface Histogram {
  edges: number[];
  counts: number[];
}

export interface Index {
  version: string;
  model: string | null;
  site: string | null;
  tokens: number | null;
  width: number | null;
  features: number;
  status: Record<Status, number>;
  report: Record<string, unknown>;
  frequencies: Histogram;
  prompt: boolean;
}

export interface Interval {
  low: number;
  high: number;
  count: number;
  examples: Example[];
}

export interface TokenShare {
  token: number;
  text: string;
  share: number;
}

export interface TokenEffect {
  token: number;
  text: string;
  effect: number;
}

export interface Feature {
  feature: number;
  status: Status;
  frequency: number;
  count: number;
  mean: number;
  maximum: number;
  histogram: Histogram;
  name: Name;
  tokens: TokenShare[];
  promotes: TokenEffect[];
  suppresses: TokenEffect[];
  sources: { source: string; share: number }[];
  neighbours: (Name & { cosine: number })[];
  top: Example[];
  intervals: Interval[];
  previous: number | null;
  next: number | null;
}

export interface PromptPiece {
  text: string;
  tokens: number[];
  broken?: boolean;
  /** The dictionary never sees this token. */
  excluded: boolean;
  features: [feature: number, value: number][];
}

export interface PromptFeature extends Name {
  value: number;
  pieces: number;
}

export interface PromptAnswer {
  tokens: number;
  pieces: PromptPiece[];
  features: PromptFeature[];
}

const CACHED = 60;
const cache = new Map<string, unknown>();

async function answer<T>(response: Response): Promise<T> {
  if (response.ok) return (await response.json()) as T;
  const text = await response.text();
  let reason = text.trim() || `the server answered ${response.status}`;
  try {
    const value: unknown = JSON.parse(text);
    if (value && typeof value === "object" && "error" in value) reason = String(value.error);
  } catch {
    // Not JSON: the text itself is the reason.
  }
  throw new Error(reason);
}

async function ask(url: string, init?: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch {
    throw new Error("the server does not answer: is `sememe serve` still running?");
  }
}

/** An answer that an earlier call of `get` brought, if any. */
export function cached<T>(url: string): T | undefined {
  return cache.get(url) as T | undefined;
}

export async function get<T>(url: string): Promise<T> {
  const known = cached<T>(url);
  if (known !== undefined) return known;
  const value = await answer<T>(await ask(url));
  cache.set(url, value);
  const oldest = cache.keys().next().value;
  if (cache.size > CACHED && oldest !== undefined) cache.delete(oldest);
  return value;
}

/** As `get`, but always anew. */
export async function draw<T>(url: string): Promise<T> {
  return answer<T>(await ask(url));
}

export async function runPrompt(text: string, signal: AbortSignal): Promise<PromptAnswer> {
  const response = await fetch("/prompt.json", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ text }),
    signal,
  });
  return answer<PromptAnswer>(response);
}
