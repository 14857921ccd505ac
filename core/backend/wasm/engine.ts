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
  const cores =
    builtin("node:os")?.availableParallelism() ?? globalThis.navigator?.hardwareConcurrency ?? 1;
  return wanted ?? Math.min(maxThreads, cores);
}

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

let widened = false;

/**
 * With HINODE_REVECTORIZE=1: V8 computes two neighbouring v128 operations as one of 256 bits, which speeds products up and
 * changes no bit of a result. It must be asked for before the first module is compiled. Not the default: the flag is an
 * experiment of V8's, it holds for every module of the process, and in 14.6 a valid module may end the process (neighbouring
 * stores of two calls' results do; emit-loop.ts makes none). Engines that do not know the flag say so on the terminal.
 */
export function widenRegisters(): void {
  if (widened || globalThis.process?.env?.HINODE_REVECTORIZE !== "1") return;
  widened = true;
  builtin("node:v8")?.setFlagsFromString("--experimental-wasm-revectorize");
}
