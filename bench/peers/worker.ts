/**
 * @file One framework with one number of threads, in a process of its own: answers requests of run.ts, a line of JSON each, on
 * standard output behind "@bench ". pytorch.py speaks the same.
 *
 *   (start)                       → {name, version}
 *   {op: "prepare", case, warm}   → {outputs, ms}: values to compare (sampled) and the time of a warm call
 *   {op: "measure", runs}         → {times}
 *   {op: "release"}               → {}
 */
import { createInterface } from "node:readline";
import type { Case } from "../suite/cases.ts";
import { slow, times, warmUp } from "../suite/clock.ts";
import { type Device, type Framework, type Prepared, Unsupported } from "../suite/framework.ts";
import { sampled } from "../suite/inputs.ts";
import { programOf } from "../suite/programs.ts";

async function open(peer: string, threads: number, device: Device): Promise<Framework> {
  switch (peer) {
    case "hinode":
    case "hinode-wide":
      return (await import("../suite/hinode.ts")).open(threads, device);
    case "jax-js":
      return (await import("./jax.ts")).open(threads, device);
    case "tfjs-cpu":
      return (await import("./tfjs.ts")).open(threads, "cpu");
    case "tfjs-wasm":
      return (await import("./tfjs.ts")).open(threads, "wasm");
    case "ort-web":
      return (await import("./ort.ts")).open(threads, "web");
    default:
      return (await import("./ort.ts")).open(threads, "node");
  }
}

type Request =
  | { readonly op: "prepare"; readonly case: Case; readonly warm: number }
  | { readonly op: "measure"; readonly runs: number }
  | { readonly op: "release" };

let prepared: Prepared | undefined;

async function answer(framework: Framework, request: Request): Promise<object> {
  switch (request.op) {
    case "prepare": {
      prepared = await framework.prepare(programOf(request.case));
      const begin = performance.now();
      const outputs = (await prepared.outputs()).map((values) => sampled(values));
      const first = performance.now() - begin;
      // What takes so long is warm after one run.
      return { outputs, ms: first > slow ? first : await warmUp(prepared, request.warm) };
    }
    case "measure":
      // One call after the other processes had the caches.
      if (request.runs > 1) await times(prepared!, 1);
      return { times: await times(prepared!, request.runs) };
    case "release":
      prepared?.dispose();
      prepared = undefined;
      (globalThis as { gc?: () => void }).gc?.();
      return {};
  }
}

const say = (message: object): void =>
  void process.stdout.write(`@bench ${JSON.stringify(message)}\n`);

/** In its own words, without what would make two runs' words differ. */
const reason = (error: unknown): string =>
  error instanceof Error ? error.message.split("\n")[0].slice(0, 160) : String(error).slice(0, 160);

// Libraries greet on standard output.
console.log = console.error;
const [peer, threads, device] = process.argv.slice(2);
try {
  const framework = await open(peer, Number(threads), device as Device);
  const { name, version } = framework;
  say({ name, version });
  for await (const line of createInterface({ input: process.stdin })) {
    try {
      say(await answer(framework, JSON.parse(line)));
    } catch (error) {
      say({ error: reason(error), unsupported: error instanceof Unsupported });
    }
  }
} catch (error) {
  say({ error: reason(error), unsupported: error instanceof Unsupported });
}
// Workers would keep the process alive.
process.stdout.write("", () => process.exit(0));
