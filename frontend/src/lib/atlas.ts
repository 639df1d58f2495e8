/** What the home page asks of the server beside its list: the map, who is found, counts by group. */
import { bytes, draw, get, type Cluster, type MapLayout, type Rows } from "./api";
import { filters, GROUPS, type Group } from "./filters";
import { layers, Points, type Column } from "./points";
import { isSite } from "./site";

export interface Mapped {
  columns: Map<string, Column>;
  points: Points;
  clusters: Cluster[];
  /** Of the run whose features these are. */
  name: string;
  /** The dictionary on whose map they lie. */
  other: { name: string; points: Points } | null;
}

let kept: Promise<Mapped> | undefined;

async function load(): Promise<Mapped> {
  const [layout, data, named] = await Promise.all([
    get<MapLayout>("/map.json"),
    bytes("/map.bin"),
    get<{ clusters: Cluster[] }>("/clusters.json"),
  ]);
  const { own, other: theirs } = layers(layout, data);
  const other = layout.other && { name: layout.other.name, points: points(theirs) };
  return { columns: own, points: points(own), clusters: named.clusters, name: layout.name, other };
}

function points(found: Map<string, Column>): Points {
  const [x, y] = [found.get("x"), found.get("y")];
  if (!x || !y) throw new Error("the map has no places: describe the atlas anew");
  return new Points(x, y);
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
