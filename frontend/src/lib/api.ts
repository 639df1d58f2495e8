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
  label: string | null;
  /** The source it fires on most. */
  source: string | null;
  cluster: number | null;
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
  /** Effects on a chosen next token can be asked for. */
  effects: boolean;
  notes: boolean;
  neurons: number | null;
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

export interface Note {
  feature: number;
  note: string;
  tags: string[];
  changed: string;
}

export interface Feature {
  feature: number;
  status: Status;
  frequency: number;
  count: number;
  mean: number;
  maximum: number;
  mean_square: number | null;
  norm: number | null;
  alignment: number | null;
  /** Share of the neurons that its decoder row is spread over. */
  neurons: number | null;
  histogram: Histogram;
  logits: Histogram | null;
  name: Name;
  tokens: TokenShare[];
  before: TokenShare[];
  after: TokenShare[];
  promotes: TokenEffect[];
  suppresses: TokenEffect[];
  sources: { source: string; share: number }[];
  neighbours: (Name & { cosine: number })[];
  cofiring: (Name & { strength: number })[];
  basis: { neuron: number; weight: number }[];
  correlated: { neuron: number; correlation: number }[];
  top: Example[];
  intervals: Interval[];
  inactive: Example[];
  note: Note | null;
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
  /** What one unit of it adds to the logit of the chosen next token. */
  effect: number | null;
}

export interface PromptAnswer {
  tokens: number;
  pieces: PromptPiece[];
  features: PromptFeature[];
  next: { token: number; text: string } | null;
}

/** What one unit of a feature adds to the logits of the tokens on its page, by token. */
export type Effects = Record<string, number>;

export interface Contrasted extends Name {
  positive: number;
  negative: number;
  difference: number;
}

export interface ContrastAnswer {
  positive_tokens: number;
  negative_tokens: number;
  positive: Contrasted[];
  negative: Contrasted[];
}

export interface Neuron {
  neuron: number;
  neurons: number;
  total: number;
  effective: number;
  positive: number;
  offset: number;
  rows: (Name & { weight: number })[];
  previous: number | null;
  next: number | null;
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

/** The very text of an answer. */
export async function read(url: string): Promise<string> {
  const response = await ask(url);
  return response.ok ? response.text() : answer<string>(response);
}

async function send<T>(method: string, url: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const init: RequestInit = { method };
  if (signal) init.signal = signal;
  if (body !== undefined) {
    init.headers = { "content-type": "application/json" };
    init.body = JSON.stringify(body);
  }
  return answer<T>(await ask(url, init));
}

/** `next` is the text of a token whose logit the features' effects are wanted on. */
export async function runPrompt(text: string, next: string, signal: AbortSignal): Promise<PromptAnswer> {
  return send("POST", "/prompt.json", next ? { text, next } : { text }, signal);
}

export async function contrast(positive: string[], negative: string[], signal: AbortSignal): Promise<ContrastAnswer> {
  return send("POST", "/contrast.json", { positive, negative }, signal);
}

/** Keep a note and tags on a feature; without either there is none. */
export async function keepNote(feature: number, note: string, tags: string[]): Promise<Note | null> {
  const url = `/feature/${feature}/note.json`;
  const kept = note || tags.length
    ? await send<Note>("PUT", url, { note, tags })
    : (await send<{ deleted: boolean }>("DELETE", url, undefined), null);
  const page = `/feature/${feature}.json`;
  const known = cached<Feature>(page);
  if (known) cache.set(page, { ...known, note: kept });
  return kept;
}
