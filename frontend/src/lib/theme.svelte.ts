/** Light or dark: the system's choice until the user makes one. */

type Theme = "light" | "dark";

const system = matchMedia("(prefers-color-scheme: dark)");

class ThemeChoice {
  #chosen = $state<Theme | null>((document.documentElement.dataset.theme as Theme) ?? null);
  #system = $state<Theme>(system.matches ? "dark" : "light");
  readonly now = $derived(this.#chosen ?? this.#system);

  constructor() {
    system.addEventListener("change", (event) => {
      this.#system = event.matches ? "dark" : "light";
    });
  }

  toggle(): void {
    this.#chosen = this.now === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = this.#chosen;
    try {
      localStorage.setItem("sememe-theme", this.#chosen);
    } catch {
      // Storage is off: the choice lasts as long as the page.
    }
  }
}

export const theme = new ThemeChoice();
