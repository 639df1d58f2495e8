/** Text of a model as something that can be seen: nothing invisible stays so, nothing acts. */

export interface Part {
  kind: "text" | "space" | "tab" | "newline" | "control";
  /** What to draw; for spaces the space itself. */
  shown: string;
}

const BIDI = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/u;
const INVISIBLE =
  /[\u00ad\u115f\u1160\u17b4\u17b5\u180e\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]/u;
// Joiners, selectors and tags belong to a word or an emoji; alone there is nothing to join.
const JOINING = /[\u200c\u200d\ufe00-\ufe0f\u{e0001}-\u{e007f}\u{e0100}-\u{e01ef}]/u;
const RTL = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
const LETTER = /\p{L}/u;

function codePoint(character: string): string {
  const number = character.codePointAt(0) ?? 0;
  return `U+${number.toString(16).toUpperCase().padStart(4, "0")}`;
}

function control(character: string): string | null {
  const code = character.codePointAt(0) ?? 0;
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  if (code < 0xa0 && code >= 0x80) return `\\x${code.toString(16).toUpperCase()}`;
  if (BIDI.test(character) || INVISIBLE.test(character)) return codePoint(character);
  if (code >= 0xd800 && code <= 0xdfff) return codePoint(character);
  return null;
}

function classify(character: string, joined: boolean): Part {
  if (character === "\n") return { kind: "newline", shown: "↵" };
  if (character === "\t") return { kind: "tab", shown: "⇥" };
  if (character === "\u00a0") return { kind: "control", shown: "nbsp" };
  if (/[\u2028\u2029]/u.test(character)) return { kind: "control", shown: codePoint(character) };
  if (/\p{Zs}/u.test(character)) return { kind: "space", shown: character };
  const shown = control(character) ?? (!joined && JOINING.test(character) ? codePoint(character) : null);
  return shown === null ? { kind: "text", shown: character } : { kind: "control", shown };
}

/** Cut text into runs that are drawn alike. */
export function parts(text: string): Part[] {
  const characters = Array.from(text);
  const joined = characters.some((item) => !JOINING.test(item) && /[\p{L}\p{N}\p{P}\p{S}]/u.test(item));
  const found: Part[] = [];
  for (const character of characters) {
    const part = classify(character, joined);
    const last = found.at(-1);
    if (part.kind === "text" && last?.kind === "text") last.shown += part.shown;
    else found.push(part);
  }
  return found;
}

/** A token alone, as in a name: a mark that would sit on a letter sits on a dotted circle. */
export function alone(text: string): Part[] {
  const found = parts(text);
  const first = found[0];
  if (first?.kind === "text" && /^\p{M}/u.test(first.shown)) first.shown = `◌${first.shown}`;
  return found;
}

/** One line for attributes that screen readers read. */
export function spoken(text: string): string {
  return parts(text)
    .map((part) => (part.kind === "newline" ? "line end" : part.kind === "tab" ? "tab" : part.shown))
    .join("");
}

/** The direction in which most of the letters read. */
export function direction(texts: string[]): "ltr" | "rtl" {
  let balance = 0;
  for (const text of texts) {
    for (const character of text) {
      if (RTL.test(character)) balance += 1;
      else if (LETTER.test(character)) balance -= 1;
    }
  }
  return balance > 0 ? "rtl" : "ltr";
}

const BEFORE = 14;
const AFTER = 8;

/** The part of a text that is shown first: so many pieces around its peak. */
export function clip(pieces: number, peak: number): { start: number; stop: number } {
  // A remainder of one or two pieces costs no more room than the mark that stands for it.
  const start = peak - BEFORE > 2 ? peak - BEFORE : 0;
  const stop = pieces - (peak + AFTER + 1) > 2 ? peak + AFTER + 1 : pieces;
  return { start, stop };
}

/** The tags in what somebody typed: between commas, each once, in order. */
export function splitTags(typed: string): string[] {
  return [...new Set(typed.split(",").map((tag) => tag.trim()).filter(Boolean))];
}

/** The beginning of a text that may be long. */
export function brief(text: string, most = 24): string {
  const characters = Array.from(text.slice(0, 4 * most));
  return characters.length > most ? `${characters.slice(0, most - 1).join("")}…` : text;
}
