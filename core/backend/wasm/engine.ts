/** @file What the engine that runs this offers beyond WebAssembly itself: threads, shared memory, wider registers. */
import { ArgumentError, describe } from "../../errors.ts";

/** A worker, however it was made. */
export interface WorkerHandle {
  post(message: unknown): void;
  terminate(): void;
}

export interface WorkerEvents {
  ready(): void;
  failed(why: string): void;
}

const builtin = <K extends "node:worker_threads" | "node:os" | "node:v8">(name: K) =>
  globalThis.process?.getBuiltinModule?.(name);

/** More are hardly ever useful, and each costs memory. */
const maxThreads = 256;

/** Threads to compute on: as asked for, else HINODE_THREADS, else all that the machine runs at once. */
export function threadCount(asked?: number): number {
  const variable = globalThis.process?.env?.HINODE_THREADS;
  const wanted = asked ?? (variable ? Number(variable) : undefined);
  if (wanted !== undefined && !(Number.isInteger(wanted) && wanted >= 1 && wanted <= maxThreads))
    throw new ArgumentError(
      describe(
        asked === undefined ? "HINODE_THREADS" : "init",
        `threads within 1 … ${maxThreads}`,
        asked === undefined ? `"${variable}"` : `${asked}`,
      ),
    );
  if (!canShare()) return 1;
  return wanted ?? Math.min(maxThreads, coreCount());
}

/** Threads that the machine runs at once. */
export const coreCount = (): number =>
  builtin("node:os")?.availableParallelism() ?? globalThis.navigator?.hardwareConcurrency ?? 1;

/** Pages have shared memory only if they are cross-origin isolated. */
function canShare(): boolean {
  if (typeof SharedArrayBuffer === "undefined") return false;
  if (builtin("node:worker_threads")) return true;
  return globalThis.crossOriginIsolated === true && typeof Worker === "function";
}

/** Whether this thread may sleep: a page's own may not. */
export const maySleep = (): boolean => typeof window === "undefined";

/** Starts a program in a worker that keeps no process alive. Throws where a policy forbids workers. */
export function startWorker(source: string, events: WorkerEvents): WorkerHandle {
  const node = builtin("node:worker_threads");
  if (node) {
    // Nothing of the process's own options: a preloaded module would run once more in each thread.
    const worker = new node.Worker(source, { eval: true, execArgv: [], env: {}, name: "hinode" });
    worker.unref();
    worker.on("message", events.ready);
    worker.on("error", (error) => events.failed(String(error)));
    worker.on("exit", (code) => events.failed(`it ended with code ${code}`));
    // A listener holds a reference of its own.
    worker.unref();
    return { post: (m) => worker.postMessage(m), terminate: () => void worker.terminate() };
  }
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url, { name: "hinode" });
  worker.onmessage = () => {
    URL.revokeObjectURL(url);
    events.ready();
  };
  worker.onerror = (event) => {
    URL.revokeObjectURL(url);
    events.failed(event.message ?? "a policy of the page forbids it");
  };
  return { post: (m) => worker.postMessage(m), terminate: () => worker.terminate() };
}

/**
 * V8 can compute two neighbouring v128 operations as one of 256 bits ("revectorize", an experiment of V8's), which doubles the
 * speed of products and changes no bit of a result. Only in versions that were tried (November 2026): all instructions that
 * the emitter may write, in pairs and in every position, and 5,000 random graphs against the same without. One thing ends
 * the process, vectors in signatures, and the emitter makes none (emit-call.ts).
 */
const knownVersions = /^14\.6\.[\d.]+-node/;

const optimiseWide = "--experimental-wasm-revectorize --wasm-sync-tier-up --wasm-tiering-budget=1";
/** The defaults of these versions. */
const asUsual =
  "--no-experimental-wasm-revectorize --no-wasm-sync-tier-up --wasm-tiering-budget=13000000";

/**
 * Whether registers of 256 bits can be had: not if HINODE_REVECTORIZE=0 says no, or the user has set flags that concern
 * WebAssembly (they would be lost), and not in other engines and versions, on other processors, or without fused multiply-add.
 */
export function registersCanWiden(): boolean {
  const { process } = globalThis;
  const off = process?.env?.HINODE_REVECTORIZE === "0";
  if (off || process?.arch !== "x64" || !builtin("node:v8")) return false;
  const flags = `${process.execArgv} ${process.env.NODE_OPTIONS ?? ""}`;
  if (/--(?!trace)[\w-]*(wasm|liftoff|turboshaft)/.test(flags)) return false;
  return knownVersions.test(process.versions.v8 ?? "");
}

/**
 * Runs `compile`, during which functions are optimised, with registers of 256 bits, at their first calls. Flags are the process's,
 * so they are on for this synchronous moment only. Other modules keep theirs: what V8 compiles for them at another time, and
 * caches of code, which are tied to the flags. Only what V8 optimises for others in the background meanwhile (a millisecond or
 * two per kernel) has them too, which ends the process if that has vectors in its signatures: never seen, but it can be.
 */
export function withWideRegisters<T>(compile: () => T): T {
  const v8 = builtin("node:v8")!;
  v8.setFlagsFromString(optimiseWide);
  try {
    return compile();
  } finally {
    v8.setFlagsFromString(asUsual);
  }
}
