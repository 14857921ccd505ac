/** @file The bundle of the page that runs test files of the other folders. */
import { resolve } from "node:path";
import type { Plugin } from "vite";
import { bundle, type Site } from "./bundle.ts";

const page = resolve(import.meta.dirname, "page");

/** What reads files in Node has a stand-in that fetches them. */
const standIns: Plugin = {
  name: "stand-ins",
  enforce: "pre",
  resolveId(id, importer) {
    if (id === "./files.ts" && importer?.includes("/test/golden/"))
      return resolve(page, "files.ts");
  },
};

export const suitePage = (): Promise<Site> =>
  bundle({
    root: page,
    plugins: [standIns],
    resolve: { conditions: ["source"] },
    define: { "process.env": "globalThis.testEnvironment" },
    build: {
      minify: false,
      rolldownOptions: {
        input: resolve(page, "index.html"),
        // package.json says that modules have no side effects; test files are nothing else.
        treeshake: false,
      },
    },
  });
