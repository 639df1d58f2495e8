/**
 * Draws points into an image on the CPU. A million take some milliseconds, a machine without a
 * graphics card loses nothing, and the pages need no code that is made at run time (which the
 * server's content security policy forbids, and WebGL libraries like regl ask for).
 */
import type { Points } from "./points";
import { OTHER } from "./tints";
import { scale, shown, type Size, type View } from "./view";

/** How much ink the middle of a point leaves on a pixel. */
const FULL = 16;
const MOST = 1024;

interface Stamp {
  dx: Int32Array;
  dy: Int32Array;
  ink: Uint8Array;
  reach: number;
}

/** A disc's pixels around its middle, those at its edge with less ink. */
export function stamp(radius: number): Stamp {
  const reach = radius < 0.75 ? 0 : Math.ceil(radius);
  const found: [number, number, number][] = [];
  for (let dy = -reach; dy <= reach; dy += 1) {
    for (let dx = -reach; dx <= reach; dx += 1) {
      const cover = reach ? Math.min(Math.max(radius + 0.5 - Math.hypot(dx, dy), 0), 1) : 1;
      if (cover > 0.05) found.push([dx, dy, Math.max(Math.round(cover * FULL), 1)]);
    }
  }
  return {
    dx: Int32Array.from(found, (item) => item[0]),
    dy: Int32Array.from(found, (item) => item[1]),
    ink: Uint8Array.from(found, (item) => item[2]),
    reach,
  };
}

/** The radius at which points cover a fair share of the picture, in pixels. */
export function radiusOf(points: number, view: View, size: Size, ratio: number): number {
  const room = Math.sqrt((size.width * size.height * view.zoom ** 1.5) / Math.max(points, 1));
  return Math.min(Math.max(0.3 * room, 0.5), 4.5 * ratio);
}

export interface Scene {
  points: Points;
  view: View;
  /** For each point (in their order) the entry of the palette that colours it. */
  tints: Uint8Array;
  /** For each point whether it is among those found; null where all are. */
  found: Uint8Array | null;
  /** How many those are. */
  amount: number;
  /** Another dictionary's points in the same bounds, which lie under these. */
  other: Points | null;
  /** Colours as the image holds them; entry 0 is that of points that are not among those found. */
  palette: Uint32Array;
  /** Draw one point of so many. */
  every: number;
  /** Pixels of the image for one of the page. */
  ratio: number;
}

export class Raster {
  image = new ImageData(1, 1);
  #ink = new Uint16Array(1);
  #tint = new Uint8Array(1);
  #alpha = new Uint8Array(MOST);
  #opacity = -1;

  /** Draw the points of a scene into `image`, which gets the size. */
  draw(scene: Scene, size: Size): void {
    const { width, height } = size;
    if (this.image.width !== width || this.image.height !== height) {
      this.image = new ImageData(width, height);
      this.#ink = new Uint16Array(width * height);
      this.#tint = new Uint8Array(width * height);
    }
    this.#ink.fill(0);
    const radius = radiusOf(scene.points.count, scene.view, size, scene.ratio);
    if (scene.other) {
      const tints = new Uint8Array(scene.other.count).fill(OTHER);
      this.#stamp({ ...scene, points: scene.other, tints, found: null }, size, stamp(Math.max(radius * 0.6, 0.5)), null);
    }
    if (scene.found) {
      this.#stamp(scene, size, stamp(Math.max(radius * 0.8, 0.5)), 0);
      const larger = radiusOf(4 * scene.amount, scene.view, size, scene.ratio);
      this.#stamp(scene, size, stamp(Math.max(larger, radius)), 1);
    } else {
      this.#stamp(scene, size, stamp(radius), null);
    }
    this.#resolve(scene.palette, radius < 0.75 ? 0.45 : 0.85);
  }

  /** Leave the ink of the points that are not among those found (0), that are (1), or of all. */
  #stamp({ points, view, tints, found, every }: Scene, size: Size, disc: Stamp, which: 0 | 1 | null): void {
    const { width, height } = size;
    const by = scale(view, points.bounds, size);
    const { bounds } = points;
    const ax = (by * (bounds.right - bounds.left)) / 65534;
    const ay = (-by * (bounds.top - bounds.bottom)) / 65534;
    const bx = width / 2 + (bounds.left - view.x) * by;
    const byy = height / 2 - (bounds.bottom - view.y) * by;
    const part = shown(view, bounds, size);
    const edge = (disc.reach + 1) / by;
    const near = { left: part.left - edge, right: part.right + edge, bottom: part.bottom - edge, top: part.top + edge };
    const [ink, tint, xs, ys] = [this.#ink, this.#tint, points.x, points.y];
    const amount = disc.ink.length;
    const reach = disc.reach;
    const offset = disc.dy.map((dy, k) => dy * width + disc.dx[k]!);
    for (const [first, last] of points.runs(near)) {
      for (let n = Math.ceil(first / every) * every; n < last; n += every) {
        if (which !== null && found![n] !== which) continue;
        const x = (xs[n]! * ax + bx) | 0;
        const y = (ys[n]! * ay + byy) | 0;
        const color = which === 0 ? 0 : tints[n]!;
        if (amount === 1) {
          if (x < 0 || y < 0 || x >= width || y >= height) continue;
          const place = y * width + x;
          if (ink[place]! < MOST) ink[place]! += FULL;
          tint[place] = color;
          continue;
        }
        if (x >= reach && y >= reach && x < width - reach && y < height - reach) {
          const middle = y * width + x;
          for (let k = 0; k < amount; k += 1) {
            const place = middle + offset[k]!;
            const left = disc.ink[k]!;
            if (ink[place]! < MOST) ink[place]! += left;
            if (left > FULL / 2 || ink[place] === left) tint[place] = color;
          }
          continue;
        }
        for (let k = 0; k < amount; k += 1) {
          const px = x + disc.dx[k]!;
          const py = y + disc.dy[k]!;
          if (px < 0 || py < 0 || px >= width || py >= height) continue;
          const place = py * width + px;
          if (ink[place]! < MOST) ink[place]! += disc.ink[k]!;
          if (disc.ink[k]! > FULL / 2 || ink[place] === disc.ink[k]) tint[place] = color;
        }
      }
    }
  }

  /** Turn ink into colour: the more points on a pixel, the less shows through. */
  #resolve(palette: Uint32Array, opacity: number): void {
    if (opacity !== this.#opacity) {
      this.#opacity = opacity;
      for (let n = 0; n < MOST; n += 1) this.#alpha[n] = Math.round(255 * (1 - (1 - opacity) ** (n / FULL)));
    }
    const out = new Uint32Array(this.image.data.buffer);
    const [ink, tint, alpha] = [this.#ink, this.#tint, this.#alpha];
    for (let n = 0; n < out.length; n += 1) {
      const amount = ink[n]!;
      if (!amount) {
        out[n] = 0;
        continue;
      }
      const color = palette[tint[n]!]!;
      const opaque = (alpha[amount < MOST ? amount : MOST - 1]! * (color >>> 24) + 127) / 255;
      out[n] = ((color & 0xffffff) | (opaque << 24)) >>> 0;
    }
  }
}
