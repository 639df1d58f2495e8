/** What the home page asks of the server beside its list: the map, who is found, counts by group. */
import { bytes, draw, get, type Cluster, type MapLayout, type Rows } from "./api";
import { filters, GROUPS, type Group } from "./filters";
import { columns, Points, type Column } from "./points";
import { isSite } from "./site";

export interface Mapped {
  columns: Map<string, Column>;
  points: Points;
  clusters: Cluster[];
}

let kept: Promise<Mapped> | undefined;

async function load(): Promise<Mapped> {
  const [layout, data, named] = await Promise.all([
    get<MapLayout>("/map.json"),
    bytes("/map.bin"),
    get<{ clusters: Cluster[] }>("/clusters.json"),
  ]);
  const found = columns(layout, data);
  const [x, y] = [found.get("x"), found.get("y")];
  if (!x || !y) throw new Error("the map has no places: describe the atlas anew");
  return { columns: found, points: new Points(x, y), clusters: named.clusters };
}

/** The map, asked for once. */
export function map(): Promise<Mapped> {
  kept ??= load().catch((error: unknown) => {
    kept = undefined;
    throw error;
  });
  return kept;
}

export interface Found {
  /** For each feature whether it passes; null where there is no filter. */
  flags: Uint8Array | null;
  amount: number;
}

/** The features that pass filters, as the server takes them. */
export async function matches(wanted: string, features: number): Promise<Found> {
  if (!wanted) return { flags: null, amount: features };
  const numbers = isSite
    ? (await draw<Rows>(`/features.json?${wanted}&limit=${features}`)).rows.map((row) => row.feature)
    : new Int32Array(await bytes(`/matches.bin?${wanted}`));
  const flags = new Uint8Array(features);
  for (const number of numbers) flags[number] = 1;
  return { flags, amount: numbers.length };
}

/** How many features each value of each group leaves, with the other groups' filters. */
export async function facets(query: URLSearchParams): Promise<Partial<Record<Group, Record<string, number>>>> {
  const urls = GROUPS.map((group) => `/features.json?${new URLSearchParams([...filters(query, group), ["limit", "0"]])}`);
  const asked = new Map([...new Set(urls)].map((url) => [url, get<Rows>(url)]));
  const found = await Promise.all(urls.map((url) => asked.get(url)));
  return Object.fromEntries(GROUPS.map((group, n) => [group, found[n]?.facets[group] ?? {}]));
}
