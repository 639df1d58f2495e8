/** A widget for notebooks (anywidget): the kernel sends names and the chosen feature's page. */
import { mount, unmount } from "svelte";
import "./app.css";
import Widget from "./components/Widget.svelte";
import type { Model } from "./lib/kernel.svelte";

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const target = el.appendChild(document.createElement("div"));
  target.className = "sememe";
  // Notebooks choose their theme themselves; elsewhere the system's is taken.
  const { jpThemeLight } = document.body.dataset;
  const dark = jpThemeLight === "false" || document.body.classList.contains("vscode-dark");
  if (dark) target.dataset.theme = "dark";
  else if (jpThemeLight === "true" || document.body.classList.contains("vscode-light")) target.dataset.theme = "light";
  const shown = mount(Widget, { target, props: { model } });
  return () => void unmount(shown);
}

export default { render };
