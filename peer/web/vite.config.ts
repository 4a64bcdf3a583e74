import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [svelte({ compilerOptions: { discloseVersion: false, runes: true } })],
  // Nothing inline: the page's policy allows no script, style or worker that is not a file of the daemon's.
  build: {
    outDir: "../http/page",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    reportCompressedSize: true,
  },
  worker: { format: "es" },
  // `npx vite` beside a daemon or `python -m benchmarks.page_swarm`, to work on the page.
  server: { proxy: { "^/(status|view|stream|curves|rounds|answers|share|metrics|health|paths|limits|ask|pause|resume|leave)": "http://127.0.0.1:8080" } },
});
