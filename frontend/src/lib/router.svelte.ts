/** The address of the page, its history, and where each page was scrolled to. */
import { tick } from "svelte";

export type Route =
  | { page: "home" }
  | { page: "feature"; feature: string }
  | { page: "neuron"; neuron: string }
  | { page: "prompt" }
  | { page: "compare" }
  | { page: "contrast" }
  | { page: "missing" };

export function parse(path: string): Route {
  if (path === "/") return { page: "home" };
  if (path === "/prompt" || path === "/compare" || path === "/contrast") return { page: path.slice(1) as "prompt" | "compare" | "contrast" };
  const [, noun, number] = /^\/(feature|neuron)\/([^/]+)$/.exec(path) ?? [];
  if (!number) return { page: "missing" };
  return noun === "feature" ? { page: noun, feature: number } : { page: "neuron", neuron: number };
}

class Router {
  path = $state(location.pathname);
  query = $state.raw(new URLSearchParams(location.search));
  hash = $state(location.hash);
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
  }

  #read(): void {
    this.path = location.pathname;
    this.query = new URLSearchParams(location.search);
    this.hash = location.hash;
  }

  async #scroll(top: number): Promise<void> {
    await tick();
    requestAnimationFrame(() => scrollTo({ top, behavior: "instant" }));
  }

  #follow(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    if (!link || link.target || link.origin !== location.origin) return;
    if (link.hasAttribute("data-plain") || link.pathname.endsWith(".json")) return;
    if (link.hash && link.pathname === location.pathname) return;
    event.preventDefault();
    this.go(link.pathname + link.search + link.hash);
  }

  /** Go to a page of this site, as a link does. */
  go(address: string): void {
    const moved = new URL(address, location.href).pathname !== this.path;
    this.#scrolled.set(this.#key, scrollY);
    this.#key += 1;
    history.pushState({ key: this.#key }, "", address);
    this.#read();
    if (moved) void this.#scroll(0);
  }

  /** Change the query or hash in place: a view of the same page. */
  amend(address: string): void {
    history.replaceState({ key: this.#key }, "", address);
    this.#read();
  }
}

export const router = new Router();

/** Where reading goes on after a move to another page: its title, unless something has the focus. */
export function land(title: HTMLElement): void {
  if (document.activeElement === document.body && history.length > 1) title.focus({ preventScroll: true });
}
