/**
 * @file Bundles for pages, made by Vite in memory, and a small server for them. A bundle must be whole: any module of Node,
 * or any package that was left out, is an error.
 */
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, resolve } from "node:path";
import { build, type InlineConfig, mergeConfig, type Plugin } from "vite";

/** Paths to contents. */
export type Site = ReadonlyMap<string, string | Uint8Array>;

/** Vite would replace a module of Node by an empty one and only print a line. */
const refuseNode: Plugin = {
  name: "refuse-node",
  enforce: "pre",
  resolveId(id, importer) {
    if (id.startsWith("node:")) throw new Error(`${importer} imports ${id}`);
  },
};

export async function bundle(config: InlineConfig): Promise<Site> {
  const own: InlineConfig = {
    configFile: false,
    logLevel: "warn",
    plugins: [refuseNode],
    build: { write: false, target: "esnext", rolldownOptions: { external: [] } },
  };
  const built = await build(mergeConfig(own, config));
  const site = new Map<string, string | Uint8Array>();
  for (const { output } of [built].flat() as Extract<typeof built, { output: unknown }>[])
    for (const file of output) {
      const { fileName } = file;
      if (file.type === "asset") {
        site.set(`/${fileName}`, file.source);
        continue;
      }
      const names = new Set(output.map((f) => f.fileName));
      const foreign = [...file.imports, ...file.dynamicImports].filter((name) => !names.has(name));
      if (foreign.length > 0) throw new Error(`${fileName} imports ${foreign.join(", ")}`);
      site.set(`/${fileName}`, file.code);
    }
  return site;
}

const types: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".svg": "image/svg+xml",
};

/** With these two headers a page is cross-origin isolated: it has SharedArrayBuffer and precise clocks. */
const isolation = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
};

/** Serves a site on a free port of this machine, and PyTorch's fixtures below /golden/. */
export async function serve(
  site: Site,
  { isolated }: { isolated: boolean },
): Promise<{ readonly origin: string } & AsyncDisposable> {
  const server: Server = createServer((request, response) => {
    const path = request.url!.replace(/\?.*/, "").replace(/\/$/, "/index.html");
    const golden = path.match(/^\/golden\/([\w.-]+)$/)?.[1];
    const body = golden
      ? readFileSync(join(resolve(import.meta.dirname, "../golden/data"), golden))
      : site.get(path);
    if (body === undefined) return void response.writeHead(404).end();
    response.writeHead(200, {
      "content-type": types[extname(path)] ?? "application/octet-stream",
      ...(isolated && isolation),
    });
    response.end(body);
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo;
  const close = () => new Promise<void>((closed) => void server.close(() => closed()));
  return {
    origin: `http://127.0.0.1:${port}`,
    [Symbol.asyncDispose]: () => {
      server.closeAllConnections();
      return close();
    },
  };
}
