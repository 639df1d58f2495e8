/** Which features the home page shows: the part of its address that the server's lists take too. */

export const SEARCHES: Record<string, { title: string; hint: string }> = {
  tokens: { title: "Tokens", hint: "a token or a number" },
  fires: { title: "Fires on", hint: "a token that it fires on" },
  promotes: { title: "Promotes", hint: "a token that it makes likelier" },
  label: { title: "Label", hint: "words of a label" },
  meaning: { title: "Meaning", hint: "what it is about, in your words" },
  example: { title: "Examples", hint: "words of its examples" },
};

export const GROUPS = ["status", "source", "cluster"] as const;
export type Group = (typeof GROUPS)[number];

export interface Range {
  title: string;
  /** Spread over its axis by powers of ten. */
  logarithmic: boolean;
}

/** The columns with a filter by range, in order. */
export const RANGES: Record<string, Range> = {
  other_cosine: { title: "Cosine with the other dictionary", logarithmic: false },
  frequency: { title: "Frequency", logarithmic: true },
  maximum: { title: "Maximum", logarithmic: false },
  token_share: { title: "Share of the first token", logarithmic: false },
  source_share: { title: "Share of the main source", logarithmic: false },
  mean: { title: "Mean where it fires", logarithmic: false },
  alignment: { title: "Cosine of encoder and decoder", logarithmic: false },
  neurons: { title: "Share of the neurons", logarithmic: false },
  norm: { title: "Norm of the decoder row", logarithmic: false },
  mean_square: { title: "Mean square", logarithmic: false },
};

export const STATUS_NAMES: Record<string, string> = {
  alive: "Alive", dense: "Dense", ultralow: "Rare", dead: "Dead",
};

const KEYS = ["search", "by", ...GROUPS, "tag", "noted", "lasso", ...Object.keys(RANGES), "x", "y"];

/** The filters of a page's address, in one order; `without` leaves one out. */
export function filters(query: URLSearchParams, without?: string): URLSearchParams {
  const found = new URLSearchParams();
  for (const key of KEYS) {
    if (key === without || (key === "by" && !query.get("search"))) continue;
    for (const value of query.getAll(key)) if (value) found.append(key, value);
  }
  return found;
}

/** The order of a page's address, as the server's lists take it. */
export function order(query: URLSearchParams): Record<"sort" | "order", string> {
  return { sort: query.get("sort") ?? "relevance", order: query.get("order") ?? "desc" };
}

/** A home page's address after changes: null and an empty list remove. */
export function changed(query: URLSearchParams, changes: Record<string, string | string[] | null>): string {
  const next = new URLSearchParams(query);
  for (const [key, value] of Object.entries(changes)) {
    next.delete(key);
    for (const item of Array.isArray(value) ? value : value ? [value] : []) next.append(key, item);
  }
  return next.size ? `/?${next}` : "/";
}

/** The values of a group after one is put in or taken out. */
export function toggled(query: URLSearchParams, group: string, value: string): string[] {
  const now = query.getAll(group);
  return now.includes(value) ? now.filter((item) => item !== value) : [...now, value];
}

/** Ends of `low..high`; null where there is none. */
export function ends(text: string | null): [low: number | null, high: number | null] {
  const [low, high] = (text ?? "").split("..");
  return [low ? Number(low) : null, high ? Number(high) : null];
}

/** `low..high`; null where neither end is there. */
export function range(low: number | null, high: number | null): string | null {
  const written = (value: number | null): string => (value === null ? "" : String(Number(value.toPrecision(3))));
  return low === null && high === null ? null : `${written(low)}..${written(high)}`;
}
