/** Numbers as people read them. */

const whole = new Intl.NumberFormat("en");

export function count(value: number): string {
  return whole.format(value);
}

/** 1,234,567 as 1.23 million, small numbers in full. */
export function large(value: number): string {
  if (value >= 1e9) return `${(value / 1e9).toPrecision(3)} billion`;
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)} million`;
  return count(value);
}

/** Three significant digits, without exponents in the range that activations have. */
export function figure(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return count(Math.round(value));
  if (size < 0.001) return value.toExponential(1).replace("e", " × 10^");
  return Number(value.toPrecision(3)).toFixed(Math.max(0, 2 - Math.floor(Math.log10(size))));
}

/** Two significant digits, for where there is little room. */
export function short(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 100) return count(Math.round(value));
  return Number(value.toPrecision(2)).toFixed(size >= 10 ? 0 : size >= 1 ? 1 : 2);
}

export function percent(value: number, digits = 1): string {
  const scaled = value * 100;
  if (scaled !== 0 && Math.abs(scaled) < 10 ** -digits / 2) return `${scaled.toPrecision(1)} %`;
  return `${scaled.toFixed(digits)} %`;
}

/** A share of tokens: in percent where common, one in so many where rare. */
export function rate(share: number): string {
  if (share <= 0) return "never";
  if (share >= 0.01) return percent(share);
  return `1 in ${count(Number((1 / share).toPrecision(2)))}`;
}

export function signed(value: number): string {
  return `${value < 0 ? "−" : "+"}${figure(Math.abs(value))}`;
}
