/**
 * @file The worker threads of a loader's iteration, from the main thread's side. Node's module is asked for at run time. A
 * thread keeps the process alive only while someone waits for its answer.
 */
import { ArgumentError, DataError, describe } from "../core/errors.ts";
import type { WorkerReply, WorkerRequest, WorkerSetup } from "./worker.ts";

type Worker = InstanceType<ReturnType<typeof threads>["Worker"]>;

interface Waiting {
  readonly resolve: (batch: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** Beside this file, in the package's sources as in what is published. */
const SERVER = import.meta.url.replace(/pool\.(ts|js)$/, "worker.$1");

export class WorkerPool {
  readonly #workers: Worker[];
  /** Requests in order, per worker: answers come in the same order. */
  readonly #waiting: Waiting[][];
  /** Why a worker is gone. */
  readonly #failures: unknown[] = [];

  /** Starts `count` threads that import the dataset's module. */
  constructor(count: number, module: string, setup: WorkerSetup) {
    const { Worker } = threads();
    // A module of two imports, so that no bundler sees an import that it cannot follow.
    const text =
      `import * as dataset from ${JSON.stringify(module)};\n` +
      `import { serve } from ${JSON.stringify(SERVER)};\nserve(dataset);`;
    const code = new URL(`data:text/javascript,${encodeURIComponent(text)}`);
    this.#waiting = Array.from({ length: count }, () => []);
    this.#workers = this.#waiting.map((waiting, i) => {
      const worker = new Worker(code, { workerData: setup });
      worker.unref();
      worker.on("message", ({ batch, error }: WorkerReply) => {
        const { resolve, reject } = waiting.shift()!;
        if (error === undefined) resolve(batch);
        else reject(wrapped(i, error));
      });
      worker.on("error", (error) => this.#fail(i, wrapped(i, error)));
      worker.on("exit", (status) =>
        this.#fail(i, wrapped(i, new Error(`it ended with status ${status}`))),
      );
      return worker;
    });
  }

  /** A worker's answer to one request. */
  ask(worker: number, request: WorkerRequest): Promise<unknown> {
    if (this.#failures[worker]) return Promise.reject(this.#failures[worker]);
    return new Promise((resolve, reject) => {
      this.#waiting[worker].push({ resolve, reject });
      this.#workers[worker].postMessage(request);
    });
  }

  /** Whether the process should wait for the threads. */
  hold(on: boolean): void {
    for (const worker of this.#workers)
      if (on) worker.ref();
      else worker.unref();
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #fail(worker: number, error: unknown): void {
    this.#failures[worker] ??= error;
    for (const { reject } of this.#waiting[worker].splice(0)) reject(this.#failures[worker]);
  }
}

function threads() {
  const found = globalThis.process?.getBuiltinModule?.("node:worker_threads");
  if (found) return found;
  throw new ArgumentError(
    describe(
      "DataLoader",
      "numWorkers: 0 outside of Node",
      "worker threads",
      "prefetch works there",
    ),
  );
}

const wrapped = (worker: number, error: unknown): DataError => {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return new DataError(describe(`worker ${worker}`, "a batch", text), { cause: error });
};
