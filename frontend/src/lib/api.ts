/** What the server answers, and how to ask it; `/openapi.json` has the same in full. */
import { answerOf, bytesOf, isSite } from "./site";

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
  /** The search looked at its best candidates only: there are more. */
  more: boolean;
  rows: Row[];
  /** How many of all that match, by status, source and cluster. */
  facets: Record<string, Record<string, number>>;
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
  /** How it was made can be asked for. */
  job: boolean;
  /** Evaluations that have a report, the fullest first. */
  suites: string[];
  /** What `by` may be. */
  searches: string[];
  sorts: string[];
  /** Columns that can be filtered, with their lowest and highest value. */
  ranges: Record<string, [low: number, high: number]>;
  sources: string[];
  map: boolean;
  neurons: number | null;
  /** Identifies the atlas. */
  atlas: string;
}

export interface Note {
  feature: number;
  note: string;
  tags: string[];
  changed: string;
}

export interface Notes {
  total: number;
  offset: number;
  tags: Record<string, number>;
  rows: Note[];
}

/** Arrays of one number a feature, little-endian; the largest number of a type stands for none. */
export interface Layer {
  name: string;
  features: number;
  arrays: { name: string; dtype: "uint8" | "uint16"; offset: number; low: number; step: number }[];
}

export interface MapLayout extends Layer {
  bytes: number;
  /** The dictionary on whose map these features lie. */
  other: Layer | null;
}

/** A feature of the dictionary on whose map these lie. */
export interface Other {
  dictionary: string;
  feature: number;
  tokens: string[];
}

export interface Cluster {
  cluster: number;
  name: string;
  size: number;
  x: number;
  y: number;
}

export interface Neuron {
  neuron: number;
  neurons: number;
  total: number;
  /** Participation ratio of the weights' squares: 1 where one feature has all. */
  effective: number;
  positive: number;
  offset: number;
  rows: (Name & { weight: number })[];
  previous: number | null;
  next: number | null;
}

/** What one unit of a feature adds to logits, by token, of the tokens on its page. */
export type Effects = Record<string, number>;

export interface Contrasted extends Name {
  positive: number;
  negative: number;
  difference: number;
}

export interface Contrast {
  positive_tokens: number;
  negative_tokens: number;
  positive: Contrasted[];
  negative: Contrasted[];
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
  mean_square: number | null;
  /** Of its decoder row. */
  norm: number | null;
  /** Cosine of encoder and decoder row. */
  alignment: number | null;
  /** Share of the neurons that its decoder row is spread over. */
  neurons: number | null;
  logits: Histogram | null;
  before: TokenShare[];
  after: TokenShare[];
  /** The nearest of the dictionary on whose map these lie. */
  other: (Other & { cosine: number }) | null;
  cofiring: (Name & { strength: number })[];
  basis: { neuron: number; weight: number }[];
  correlated: { neuron: number; correlation: number }[];
  /** Text on which it does not fire. */
  inactive: Example[];
  note: Note | null;
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
  /** What one unit of it adds to the logit of the chosen next token. */
  effect: number | null;
}

export interface PromptAnswer {
  tokens: number;
  pieces: PromptPiece[];
  features: PromptFeature[];
  next: { token: number; text: string } | null;
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
  const value = await draw<T>(url);
  cache.set(url, value);
  const oldest = cache.keys().next().value;
  if (cache.size > CACHED && oldest !== undefined) cache.delete(oldest);
  return value;
}

/** As `get`, but always anew. */
export async function draw<T>(url: string): Promise<T> {
  return isSite ? ((await answerOf(url)) as T) : answer<T>(await ask(url));
}

/** Bytes in a layout of their own, such as the map's. */
export async function bytes(url: string): Promise<ArrayBuffer> {
  if (isSite) return bytesOf(url);
  const response = await ask(url);
  return response.ok ? response.arrayBuffer() : answer<ArrayBuffer>(response);
}

/** Send `body`; without one only the method is sent. */
export async function send<T>(method: "POST" | "PUT" | "DELETE", url: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const init: RequestInit = { method, signal: signal ?? null };
  if (body !== undefined) {
    init.headers = { "content-type": "application/json" };
    init.body = JSON.stringify(body);
  }
  if (method !== "POST") cache.clear();
  return answer<T>(await ask(url, init));
}

export async function runPrompt(text: string, signal: AbortSignal, next?: string): Promise<PromptAnswer> {
  return send("POST", "/prompt.json", next ? { text, next } : { text }, signal);
}

export async function contrast(positive: string[], negative: string[], signal: AbortSignal): Promise<Contrast> {
  return send("POST", "/contrast.json", { positive, negative }, signal);
}

/** The very text of an answer. */
export async function read(url: string): Promise<string> {
  if (isSite) return JSON.stringify(await answerOf(url));
  const response = await ask(url);
  return response.ok ? response.text() : answer<string>(response);
}

/** Keep a note and tags on a feature; without either there is none. */
export async function keepNote(feature: number, note: string, tags: string[]): Promise<Note | null> {
  const url = `/feature/${feature}/note.json`;
  if (note || tags.length) return send("PUT", url, { note, tags });
  await send("DELETE", url);
  return null;
}
