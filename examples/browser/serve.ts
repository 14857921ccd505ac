/** @file `npm run demo`: serves the page on this machine and prints where. `--port=5173`, `--host` for other machines. */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createServer } from "vite";

const { values } = parseArgs({
  options: { port: { type: "string", default: "5173" }, host: { type: "boolean", default: false } },
});
const server = await createServer({
  configFile: join(import.meta.dirname, "vite.config.ts"),
  logLevel: "warn",
  server: { port: Number(values.port), host: values.host },
});
await server.listen();
const { local = [], network = [] } = server.resolvedUrls ?? {};
for (const url of [...local, ...network]) console.log(url);
console.log("Press Ctrl+C to end. WebGPU wants https or localhost.");
