/** Features of two texts, side by side. */

import type { PromptAnswer, PromptFeature } from "./api";

export interface Both {
  item: PromptFeature;
  first: number;
  second: number;
}

export interface Comparison {
  /** In the first text and not the second, strongest first. */
  first: PromptFeature[];
  second: PromptFeature[];
  /** In both, those that differ most first. */
  both: Both[];
}

export function compare(one: PromptAnswer, two: PromptAnswer): Comparison {
  const others = new Map(two.features.map((item) => [item.feature, item]));
  const both: Both[] = [];
  const first: PromptFeature[] = [];
  for (const item of one.features) {
    const other = others.get(item.feature);
    if (other) both.push({ item, first: item.value, second: other.value });
    else first.push(item);
    others.delete(item.feature);
  }
  const strongest = (a: PromptFeature, b: PromptFeature): number => b.value - a.value || a.feature - b.feature;
  both.sort((a, b) => Math.abs(b.first - b.second) - Math.abs(a.first - a.second) || a.item.feature - b.item.feature);
  return { first: first.sort(strongest), second: [...others.values()].sort(strongest), both };
}

export type Order = "value" | "share" | "effect";

export interface Fired {
  item: PromptFeature;
  value: number;
}

/** What features are ranked by: their value, its share of their maximum, or what it does to a next token's logit. */
export function weigh({ item, value }: Fired, order: Order): number {
  if (order === "share") return value / (item.maximum || 1);
  return order === "effect" ? value * (item.effect ?? 0) : value;
}

export function ranked(found: Fired[], order: Order): Fired[] {
  return [...found].sort((a, b) => weigh(b, order) - weigh(a, order) || a.item.feature - b.item.feature);
}

/** The texts in what somebody typed: one a line, or, where lines of dashes part them, the parts. */
export function texts(typed: string): string[] {
  const parts = /^-{3,}$/m.test(typed) ? typed.split(/^-{3,}$/m) : typed.split("\n");
  return parts.map((part) => part.replace(/^\n+|\n+$/g, "")).filter((part) => part.trim() !== "");
}
