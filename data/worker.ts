/**
 * @file What a worker thread of a loader does: it has its own copy of the dataset and answers requests for batches, one after
 * the other. Stacked batches are fresh arrays, which are transferred; anything else is copied, because the dataset may
 * keep it.
 */
import { DataError, describe } from "../core/errors.ts";
import type { Dataset, PassContext, Streamed } from "./dataset.ts";
import { fetchSamples, type Pass, passBatches } from "./produce.ts";
import { isPlainObject, stack } from "./stack.ts";

/** What the user's module exports. */
interface DatasetModule {
  readonly default?: unknown;
  readonly collate?: (samples: unknown[]) => unknown;
}

/** What a thread is started with. */
export interface WorkerSetup {
  /** For the module's factory. */
  readonly data: unknown;
  /** Whether samples are sent one by one, for a collate function on the main thread. */
  readonly raw: boolean;
  /** The samples that the main thread's dataset has; null for an iterable one. */
  readonly length: number | null;
}

/** The positions of a map-style dataset's batch, or a pass over an iterable one and `null` for its next batch. */
export type WorkerRequest =
  | { readonly indices: readonly number[]; readonly pass: Pass }
  | { readonly begin: PassContext; readonly batchSize: number; readonly dropLast: boolean }
  | null;

export interface WorkerReply {
  /** Undefined at the end of a pass. */
  readonly batch?: unknown;
  readonly error?: unknown;
}

/** Answers the main thread until it ends this one. The first request makes the dataset. */
export function serve(module: DatasetModule): void {
  const threads = globalThis.process.getBuiltinModule("node:worker_threads");
  const port = threads.parentPort!;
  const setup = threads.workerData as WorkerSetup;
  let dataset: Promise<Dataset<unknown> | Streamed<unknown>> | undefined;
  let batches: AsyncIterator<unknown[]> | undefined;
  const finish = async (samples: unknown[]): Promise<[unknown, ArrayBuffer[]]> => {
    const transfer: ArrayBuffer[] = [];
    if (setup.raw || module.collate) {
      const batch = setup.raw ? samples : await module.collate!(samples);
      return [owned(batch, transfer), transfer];
    }
    const batch = stack(samples);
    buffersOf(batch, transfer);
    return [batch, transfer];
  };
  const answer = async (request: WorkerRequest): Promise<[unknown, ArrayBuffer[]]> => {
    const made = await (dataset ??= datasetOf(module, setup));
    if (request && "indices" in request) {
      if (!("get" in made)) throw mismatch("a map-style dataset", "an iterable one");
      return finish(await fetchSamples(made, request.indices, request.pass));
    }
    if (request) {
      if (!("iterate" in made)) throw mismatch("an iterable dataset", "a map-style one");
      batches = passBatches(made, request.begin, request.batchSize, request.dropLast);
      return [undefined, []];
    }
    // The first mistake was the answer to `begin`, which nobody waits for.
    if (!batches) throw mismatch("an iterable dataset", "a map-style one");
    const { done, value } = await batches.next();
    return done ? [undefined, []] : finish(value);
  };
  // One at a time: a dataset need not expect two batches at once, and an iterable one has an order.
  let before = Promise.resolve();
  port.on("message", (request: WorkerRequest) => {
    before = before.then(async () => {
      try {
        const [batch, transfer] = await answer(request);
        port.postMessage({ batch } satisfies WorkerReply, transfer);
      } catch (error) {
        port.postMessage({ error: sendable(error) } satisfies WorkerReply);
      }
    });
  });
}

const mismatch = (expected: string, got: string) =>
  new DataError(describe("worker", `${expected}, as on the main thread`, got));

async function datasetOf(module: DatasetModule, { data, length }: WorkerSetup) {
  const made = await (typeof module.default === "function" ? module.default(data) : module.default);
  if (typeof made !== "object" || made === null || !("get" in made || "iterate" in made))
    throw new DataError(
      describe("worker", "a default export: a dataset, or a function that makes one", typeof made),
    );
  if (length !== null && made.length !== length)
    throw mismatch(`a dataset of ${length} samples`, `${made.length}`);
  return made as Dataset<unknown> | Streamed<unknown>;
}

function buffersOf(batch: unknown, found: ArrayBuffer[]): void {
  if (ArrayBuffer.isView(batch)) found.push(batch.buffer as ArrayBuffer);
  else if (Array.isArray(batch)) for (const x of batch) buffersOf(x, found);
  else if (isPlainObject(batch)) for (const x of Object.values(batch)) buffersOf(x, found);
}

/** The same with arrays of its own: a view would be sent with the whole buffer behind it. */
function owned(batch: unknown, transfer: ArrayBuffer[]): unknown {
  if (ArrayBuffer.isView(batch) && !(batch instanceof DataView)) {
    const copy = new (batch.constructor as new (source: unknown) => Uint8Array<ArrayBuffer>)(batch);
    transfer.push(copy.buffer);
    return copy;
  }
  if (Array.isArray(batch)) return batch.map((x) => owned(x, transfer));
  if (!isPlainObject(batch)) return batch;
  return Object.fromEntries(Object.entries(batch).map(([k, x]) => [k, owned(x, transfer)]));
}

/** What cannot be copied to the main thread goes as its text. */
function sendable(error: unknown): unknown {
  try {
    return structuredClone(error);
  } catch {
    return new Error(String(error));
  }
}
