/** Where things go on a plot, and how strongly a token is shaded. */

/** Share of the way up a logarithmic count axis; an empty bin stays empty. */
export function logHeight(value: number, most: number): number {
  if (value <= 0) return 0;
  return most <= 1 ? 1 : (Math.log10(value) + 0.3) / (Math.log10(most) + 0.3);
}

/** Powers of ten to mark on a logarithmic count axis. */
export function logTicks(most: number): number[] {
  const ticks: number[] = [];
  for (let tick = 1; tick <= most; tick *= 10) ticks.push(tick);
  return ticks.length > 4 ? ticks.filter((_, place) => place % 2 === 0) : ticks;
}

/** Round numbers between two ends, about `wanted` of them. */
export function ticks(low: number, high: number, wanted = 5): number[] {
  const span = high - low;
  if (!(span > 0)) return [low];
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((item) => item >= rough) ?? power;
  const found: number[] = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place += 1) {
    found.push(Number((place * step).toPrecision(12)));
  }
  return found;
}

/** How dark a value's shade is, 0 for silent to 1 for the maximum. */
export function shade(value: number, maximum: number): number {
  if (value <= 0 || maximum <= 0) return 0;
  return Math.round(Math.min(value / maximum, 1) * 50) / 50 || 0.02;
}

/** The interval (from highest to lowest) that a value falls in. */
export function intervalOf(value: number, intervals: { low: number; high: number }[]): number {
  const found = intervals.findIndex((interval) => value > interval.low);
  return found < 0 ? intervals.length - 1 : found;
}
