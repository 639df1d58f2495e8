/** The notebook widget: one script and one style sheet that touch nothing outside the widget. */
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

/** The pages' own styles, but for print, held inside the widget by nesting. */
const nested: Plugin = {
  name: "nested-styles",
  enforce: "pre",
  transform(code, id) {
    if (!id.endsWith("/app.css")) return null;
    const screen = code.slice(0, code.indexOf("@page"));
    return `.sememe {\n${screen.replaceAll(":root", "&").replace(/^body/m, "&")}\n}`;
  },
};

export default defineConfig({
  plugins: [nested, svelte()],
  publicDir: false,
  build: {
    outDir: "../sememe/web/assets",
    emptyOutDir: false,
    target: ["chrome123", "firefox121", "safari17.5"],
    lib: { entry: "src/widget.ts", formats: ["es"], fileName: () => "widget.js", cssFileName: "widget" },
  },
});
