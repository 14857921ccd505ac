/** @file How Vite serves and bundles the page. In a project that installs Hinode from npm, Vite needs none of this. */
import { defineConfig } from "vite";

export default defineConfig({
  root: import.meta.dirname,
  // "hinode" is this repository, and its TypeScript is taken as it is.
  resolve: { conditions: ["source"] },
  build: { target: "esnext" },
  server: {
    headers: {
      // Cross-origin isolation: pages without it have no shared memory, so no threads.
      "cross-origin-opener-policy": "same-origin",
      "cross-origin-embedder-policy": "require-corp",
    },
  },
});
