/** Which part of the map is shown, and shapes drawn on it. */
import type { Bounds } from "./points";

export interface Place {
  x: number;
  y: number;
}

/** The middle of what is shown, and how many times it is enlarged. */
export interface View extends Place {
  zoom: number;
}

export interface Size {
  width: number;
  height: number;
}

export const MAX_ZOOM = 500;
const MARGIN = 0.94;

/** The whole map. */
export function whole(bounds: Bounds): View {
  return { x: (bounds.left + bounds.right) / 2, y: (bounds.bottom + bounds.top) / 2, zoom: 1 };
}

/** Pixels that one unit of the map takes. */
export function scale(view: View, bounds: Bounds, size: Size): number {
  const fit = Math.min(size.width / (bounds.right - bounds.left), size.height / (bounds.top - bounds.bottom));
  return fit * MARGIN * view.zoom;
}

export function toScreen(place: Place, view: View, bounds: Bounds, size: Size): Place {
  const by = scale(view, bounds, size);
  return { x: (place.x - view.x) * by + size.width / 2, y: (view.y - place.y) * by + size.height / 2 };
}

export function toMap(pixel: Place, view: View, bounds: Bounds, size: Size): Place {
  const by = scale(view, bounds, size);
  return { x: view.x + (pixel.x - size.width / 2) / by, y: view.y - (pixel.y - size.height / 2) / by };
}

/** What is shown. */
export function shown(view: View, bounds: Bounds, size: Size): Bounds {
  const corner = toMap({ x: 0, y: size.height }, view, bounds, size);
  const other = toMap({ x: size.width, y: 0 }, view, bounds, size);
  return { left: corner.x, right: other.x, bottom: corner.y, top: other.y };
}

/** Move by pixels; the middle stays on the map. */
export function pan(view: View, dx: number, dy: number, bounds: Bounds, size: Size): View {
  const by = scale(view, bounds, size);
  return {
    x: Math.min(Math.max(view.x - dx / by, bounds.left), bounds.right),
    y: Math.min(Math.max(view.y + dy / by, bounds.bottom), bounds.top),
    zoom: view.zoom,
  };
}

/** Enlarge by a factor; what is under `pixel` stays there. */
export function enlarge(view: View, factor: number, pixel: Place, bounds: Bounds, size: Size): View {
  const zoom = Math.min(Math.max(view.zoom * factor, 1), MAX_ZOOM);
  const under = toMap(pixel, view, bounds, size);
  const by = scale({ ...view, zoom }, bounds, size);
  const moved = {
    x: under.x - (pixel.x - size.width / 2) / by,
    y: under.y + (pixel.y - size.height / 2) / by,
    zoom,
  };
  return zoom === 1 ? whole(bounds) : pan(moved, 0, 0, bounds, size);
}

/** A view as an address says it. */
export function written(view: View): string {
  return [view.x, view.y, view.zoom].map((value) => Number(value.toPrecision(5))).join(",");
}

export function read(text: string | null): View | null {
  const [x, y, zoom, ...rest] = (text ?? "").split(",").map((part) => (part.trim() ? Number(part) : NaN));
  if (x === undefined || y === undefined || zoom === undefined || rest.length) return null;
  return [x, y, zoom].every(Number.isFinite) && zoom >= 1 ? { x, y, zoom: Math.min(zoom, MAX_ZOOM) } : null;
}

/** A line with fewer corners that strays from the first by at most `stray` (Douglas and Peucker 1973). */
export function simplified(line: Place[], stray: number): Place[] {
  const [first, last] = [line[0], line.at(-1)];
  if (!first || !last || line.length < 3) return line;
  const [dx, dy] = [last.x - first.x, last.y - first.y];
  const square = dx * dx + dy * dy;
  let [far, place] = [stray, 0];
  for (let n = 1; n < line.length - 1; n += 1) {
    const { x, y } = line[n]!;
    const along = square ? Math.min(Math.max(((x - first.x) * dx + (y - first.y) * dy) / square, 0), 1) : 0;
    const away = Math.hypot(x - first.x - along * dx, y - first.y - along * dy);
    if (away > far) [far, place] = [away, n];
  }
  if (!place) return [first, last];
  return [...simplified(line.slice(0, place + 1), stray).slice(0, -1), ...simplified(line.slice(place), stray)];
}

/** A drawn line as a polygon of at most `most` corners; null where it encloses nothing. */
export function polygon(line: Place[], most: number): Place[] | null {
  let corners = line;
  for (let stray = 0.5; corners.length > most || stray === 0.5; stray *= 1.5) corners = simplified(line, stray);
  return corners.length >= 3 ? corners : null;
}

/** Corners as the server reads them. */
export function corners(shape: Place[]): string {
  return shape.map(({ x, y }) => `${Number(x.toPrecision(5))},${Number(y.toPrecision(5))}`).join(" ");
}

export function readCorners(text: string | null): Place[] {
  const found = (text ?? "").split(" ").map((corner) => corner.split(",").map(Number));
  return found.flatMap(([x, y]) => (Number.isFinite(x) && Number.isFinite(y) ? [{ x: x!, y: y! }] : []));
}
