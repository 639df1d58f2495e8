/** Plots as files: SVG with every style written out, or the same drawn as PNG. */

import { brief, spoken } from "./text";

const STYLES = [
  "fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size",
  "font-weight", "text-anchor", "dominant-baseline",
];
const FONT = "system-ui, sans-serif";

function escaped(text: string): string {
  // What XML 1.0 cannot hold at all is left out; `spoken` has made it visible where it matters.
  return text
    .replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "")
    .replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** A colour of this page, as other programs write it. */
function plain(color: string): string {
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  if (!pen || !color || color === "none" || color.startsWith("url")) return color;
  pen.fillStyle = color;
  pen.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha = 255] = pen.getImageData(0, 0, 1, 1).data;
  return alpha === 255 ? `rgb(${red}, ${green}, ${blue})` : `rgba(${red}, ${green}, ${blue}, ${(alpha / 255).toFixed(3)})`;
}

/** The plot as a file of its own: the page's styles are written into it, areas for the pointer left out. */
export function standalone(svg: SVGSVGElement): string {
  const copy = svg.cloneNode(true) as SVGSVGElement;
  const originals = [svg, ...svg.querySelectorAll("*")];
  const copies = [copy, ...copy.querySelectorAll("*")];
  for (const [n, element] of copies.entries()) {
    const style = getComputedStyle(originals[n] as Element);
    for (const name of STYLES) {
      const value = style.getPropertyValue(name);
      element.setAttribute(name, name === "fill" || name === "stroke" ? plain(value) : value);
    }
    for (const { name } of [...element.attributes]) {
      if (name === "class" || name === "style" || name.startsWith("data-") || name.startsWith("on")) element.removeAttribute(name);
    }
  }
  originals.forEach((element, n) => { if (element.matches(".hit")) copies[n]?.remove(); });
  const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
  title.textContent = svg.getAttribute("aria-label");
  const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  paper.setAttribute("width", "100%");
  paper.setAttribute("height", "100%");
  paper.setAttribute("fill", named("--panel", svg));
  copy.prepend(title, paper);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("font-family", FONT);
  return new XMLSerializer().serializeToString(copy);
}

export interface Bar {
  text: string;
  value: number;
  written: string;
}

export interface Ink {
  paper: string;
  ink: string;
  bar: string;
}

/** Horizontal bars with their texts; bars of negative values are hollow. */
export function barChart(title: string, bars: Bar[], colors: Ink, width = 480): string {
  const [row, left, right, top] = [22, 150, 70, 34];
  const height = top + bars.length * row + 8;
  const most = Math.max(...bars.map((bar) => Math.abs(bar.value)), 1e-9);
  const lines = bars.map((bar, n) => {
    const y = top + n * row;
    const size = ((width - left - right) * Math.abs(bar.value)) / most;
    const look = bar.value < 0 ? `fill="none" stroke="${colors.bar}" stroke-width="1.5"` : `fill="${colors.bar}"`;
    const shown = brief(spoken(bar.text.slice(0, 100)), 20);
    return `<text x="${left - 8}" y="${y + 15}" text-anchor="end" xml:space="preserve">${escaped(shown)}</text>`
      + `<rect x="${left}" y="${y + 6}" width="${size.toFixed(1)}" height="10" rx="2" ${look}/>`
      + `<text x="${width - 8}" y="${y + 15}" text-anchor="end">${escaped(bar.written)}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="${FONT}" font-size="12" fill="${colors.ink}">`
    + `<title>${escaped(title)}</title><rect width="100%" height="100%" fill="${colors.paper}"/>`
    + `<text x="8" y="20" font-size="13" font-weight="600">${escaped(title)}</text>${lines.join("")}</svg>`;
}

/** The colours that `beside` is shown in now. */
export function inks(beside: Element, bar: "hot" | "cool"): Ink {
  return { paper: named("--panel", beside), ink: named("--ink", beside), bar: named(`--${bar}`, beside) };
}

function named(variable: string, beside: Element): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${variable})`;
  beside.after(probe);
  const color = plain(getComputedStyle(probe).color);
  probe.remove();
  return color;
}

async function drawn(svg: string, scale = 2): Promise<Blob> {
  const address = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.width * scale;
    canvas.height = image.height * scale;
    canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve, reject) => canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the plot is too large for a picture"))), "image/png"));
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** A file's name made of a plot's title. */
export function fileName(title: string): string {
  return title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 80) || "plot";
}

/** Save a plot, given as SVG, under its title. */
export async function savePlot(svg: string, title: string, kind: "svg" | "png"): Promise<void> {
  const blob = kind === "png" ? await drawn(svg) : new Blob([svg], { type: "image/svg+xml" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${fileName(title)}.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
