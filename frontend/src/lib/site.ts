/**
 * Answers without a server: a site made by `sememe export --site` is opened from files, which may
 * run scripts but not fetch. Each script hands over the answer of one address; lists are made here
 * from the one script that has all features.
 */
import type { Row, Rows, Sample } from "./api";

declare global {
  interface Window {
    /** Answers by address; there only on a site. */
    __sememe__?: Record<string, unknown>;
  }
}

/** Whether these pages were opened from files. */
export const isSite = typeof window !== "undefined" && window.__sememe__ !== undefined;

/** The script that holds the answer of an address. */
export function scriptOf(path: string): string {
  return `data${path.slice(0, path.lastIndexOf("."))}.js`;
}

async function load(path: string): Promise<unknown> {
  const answers = window.__sememe__ ?? {};
  if (path in answers) return answers[path];
  const script = document.createElement("script");
  script.src = scriptOf(path);
  await new Promise((resolve, reject) => {
    script.onload = resolve;
    script.onerror = () => reject(new Error(`this site does not hold ${path}`));
    document.head.append(script);
  });
  script.remove();
  const found = answers[path];
  // Pages are kept in memory by `get` as far as they are wanted; lists stay.
  if (path.startsWith("/feature/")) delete answers[path];
  return found;
}

const NUMERIC = ["frequency", "mean", "maximum"] as const;

/** Ordinary features come first, then the very frequent, the dense, the rare and the dead. */
function after({ status, frequency }: Row): number {
  return status === "alive" ? Number(frequency > 0.01) : { dense: 2, ultralow: 3, dead: 4 }[status];
}

/** The rows that a list's arguments ask for, as the server would give them. */
export function choose(all: Row[], query: URLSearchParams): Rows {
  const wanted = (query.get("search") ?? "").toLowerCase();
  const by = query.get("by") ?? "tokens";
  const groups: [keyof Row, string[]][] = [
    ["status", query.getAll("status")],
    ["source", query.getAll("source")],
    ["cluster", query.getAll("cluster")],
  ];
  const ranges = NUMERIC.flatMap((name) => {
    const [low, high] = (query.get(name) ?? "..").split("..");
    return [{ name, low: low ? Number(low) : -Infinity, high: high ? Number(high) : Infinity }];
  });
  const found = all.filter((row) => {
    const texts = [...(by === "promotes" ? [] : row.tokens), ...(by === "fires" ? [] : row.promotes)];
    if (wanted && String(row.feature) !== wanted.trim() && !texts.some((text) => text.toLowerCase().includes(wanted)))
      return false;
    if (groups.some(([name, values]) => values.length && !values.includes(String(row[name])))) return false;
    return ranges.every(({ name, low, high }) => row[name] >= low && row[name] <= high);
  });
  const sort = query.get("sort") ?? "relevance";
  const key = (row: Row): number | string => {
    if (sort === "feature") return row.feature;
    if (sort === "relevance") return row.frequency - 2 * after(row);
    if (sort === "token") return (row.promotes[0] ?? "").trim().toLowerCase();
    return row[NUMERIC.find((name) => name === sort) ?? "frequency"];
  };
  const sign = query.get("order") === "asc" ? 1 : -1;
  found.sort((a, b) => sign * (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : a.feature - b.feature));
  const facets: Rows["facets"] = { status: {}, source: {}, cluster: {} };
  for (const row of found)
    for (const [name] of groups) {
      const value = row[name];
      const counts = facets[name];
      if (counts && value !== null) counts[String(value)] = (counts[String(value)] ?? 0) + 1;
    }
  const offset = Number(query.get("offset") ?? 0);
  const rows = found.slice(offset, offset + Number(query.get("limit") ?? 50));
  return { total: found.length, offset, more: false, rows, facets };
}

/** Rows drawn from the alive features; the same seed draws the same. */
export function sample(all: Row[], seed: number, count: number): Sample {
  const alive = all.filter((row) => row.status === "alive");
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const pool = [...alive];
  const rows: Row[] = [];
  while (rows.length < count && pool.length) rows.push(...pool.splice(Math.floor(next() * pool.length), 1));
  return { seed, of: alive.length, rows };
}

/** The answer that the server would give to an address. */
export async function answerOf(address: string): Promise<unknown> {
  const url = new URL(address, "http://site");
  const query = url.searchParams;
  if (["/features.json", "/sample.json", "/random.json"].includes(url.pathname)) {
    const all = ((await load("/features.json")) as Rows).rows;
    if (url.pathname === "/features.json") return choose(all, query);
    if (url.pathname === "/sample.json") return sample(all, Number(query.get("seed") ?? 0), Number(query.get("count") ?? 6));
    const drawn = sample(all, Math.floor(Math.random() * 2 ** 32), 1).rows[0] ?? all[0];
    return { feature: drawn?.feature ?? 0 };
  }
  return load(url.pathname);
}

/** The bytes that the server would give to an address. */
export async function bytesOf(address: string): Promise<ArrayBuffer> {
  const text = String(await load(new URL(address, "http://site").pathname));
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
}

