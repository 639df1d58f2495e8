import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
  base: "/assets/",
  plugins: [svelte()],
  build: {
    outDir: "../sememe/web/assets",
    assetsDir: "",
    emptyOutDir: true,
    target: ["chrome123", "firefox121", "safari17.5"],
    modulePreload: { polyfill: false },
    // One script without imports, which a site opened from files can run too.
    rollupOptions: { output: { codeSplitting: false } },
  },
});
