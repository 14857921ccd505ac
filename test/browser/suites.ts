/** @file The bundle of the page that runs test files of the other folders. */
import { globSync, readFileSync } from "node:fs";
import { relative, resolve } from "node:path";
import type { Plugin } from "vite";
import { bundle, type Site } from "./bundle.ts";

const page = resolve(import.meta.dirname, "page");

const tests = resolve(page, "../..");

/** All test files of these folders that ask nothing of Node, and the page's own. */
function testFiles(): string[] {
  const folders = "backend,golden,graph,nn,ops,runtime,transform";
  const found = globSync([`{${folders}}/**/*.test.ts`, "webgpu/{faults,random-graphs,runtime}.test.ts"], { cwd: tests }); // biome-ignore format: one line
  const portable = found.filter(
    (file) => !/ from "node:|\bprocess\.(?!env)/.test(readFileSync(resolve(tests, file), "utf8")),
  );
  return [...portable, ...globSync("browser/page/*.page.ts", { cwd: tests })];
}

const suites: Plugin = {
  name: "suites",
  enforce: "pre",
  resolveId(id, importer) {
    if (id === "virtual:tests") return id;
    // What reads files in Node has a stand-in that fetches them.
    if (id === "./files.ts" && importer && relative(tests, importer).startsWith("golden/"))
      return resolve(page, "files.ts");
  },
  load(id) {
    if (id !== "virtual:tests") return;
    const entries = testFiles().map((file) => {
      const path = JSON.stringify(resolve(tests, file));
      return `${JSON.stringify(file)}: () => import(${path})`;
    });
    return `export const files = { ${entries.join(", ")} };`;
  },
};

export const suitePage = (): Promise<Site> =>
  bundle({
    root: page,
    plugins: [suites],
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
