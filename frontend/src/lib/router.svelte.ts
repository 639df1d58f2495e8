/** The address of the page, its history, and where each page was scrolled to. */
import { tick } from "svelte";
import { isSite } from "./site";

export type Route =
  | { page: "home" }
  | { page: "feature"; feature: string }
  | { page: "neuron"; neuron: string }
  | { page: "prompt" }
  | { page: "compare" }
  | { page: "contrast" }
  | { page: "steer" }
  | { page: "job" }
  | { page: "report" }
  | { page: "missing" };

export function parse(path: string): Route {
  if (path === "/") return { page: "home" };
  if (path === "/prompt" || path === "/compare" || path === "/contrast" || path === "/steer" || path === "/job" || path === "/report") return { page: path.slice(1) as "prompt" | "compare" | "contrast" | "steer" | "job" | "report" };
  const [, noun, number] = /^\/(feature|neuron)\/([^/]+)$/.exec(path) ?? [];
  if (!number) return { page: "missing" };
  return noun === "feature" ? { page: noun, feature: number } : { page: "neuron", neuron: number };
}

/** The address of the page: on a site it stands behind the document's own. */
function here(): URL {
  return isSite ? new URL(location.hash.slice(1) || "/", "http://site") : new URL(location.href);
}

/** An address of a page as the browser shows it. */
function written(address: string): string {
  return isSite ? `#${address}` : address;
}

/** Make a link of a site one that can be opened elsewhere too. */
function localise(event: Event): void {
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  const to = link?.getAttribute("href");
  if (to?.startsWith("/")) link?.setAttribute("href", written(to));
}

class Router {
  path = $state(here().pathname);
  query = $state.raw(new URLSearchParams(here().search));
  hash = $state(here().hash);
  /** Whether the page that is shown says that there is none. */
  missing = $state(false);
  readonly route = $derived(parse(this.path));
  #key = 0;
  #scrolled = new Map<number, number>();

  constructor() {
    history.scrollRestoration = "manual";
    this.#key = Date.now();
    history.replaceState({ key: this.#key }, "");
    addEventListener("popstate", (event) => {
      this.#scrolled.set(this.#key, scrollY);
      const state: unknown = event.state;
      this.#key = state && typeof state === "object" && "key" in state ? Number(state.key) : 0;
      this.#read();
      void this.#scroll(this.#scrolled.get(this.#key) ?? 0);
    });
    addEventListener("click", (event) => this.#follow(event));
    if (isSite) for (const kind of ["pointerover", "focusin"]) addEventListener(kind, localise);
  }

  #read(): void {
    const url = here();
    this.path = url.pathname;
    this.query = new URLSearchParams(url.search);
    this.hash = url.hash;
  }

  async #scroll(top: number): Promise<void> {
    await tick();
    requestAnimationFrame(() => scrollTo({ top, behavior: "instant" }));
  }

  #follow(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    if (!link || link.target || link.hasAttribute("data-plain")) return;
    const url = new URL(link.getAttribute("href")?.replace(/^#\//, "/") ?? "", isSite ? here() : location.href);
    if (url.origin !== here().origin || url.pathname.endsWith(".json")) return;
    if (url.hash && url.pathname === this.path) return;
    event.preventDefault();
    this.go(url.pathname + url.search + url.hash);
  }

  /** Go to a page of this site, as a link does. */
  go(address: string): void {
    const moved = new URL(address, here()).pathname !== this.path;
    this.#scrolled.set(this.#key, scrollY);
    this.#key += 1;
    history.pushState({ key: this.#key }, "", written(address));
    this.#read();
    if (moved) void this.#scroll(0);
  }

  /** Change the query or hash in place: a view of the same page. */
  amend(address: string): void {
    history.replaceState({ key: this.#key }, "", written(address));
    this.#read();
  }
}

export const router = new Router();

/** Where reading goes on after a move to another page: its title, unless something has the focus. */
export function land(title: HTMLElement): void {
  if (document.activeElement === document.body && history.length > 1) title.focus({ preventScroll: true });
}
