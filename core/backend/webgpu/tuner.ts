/**
 * @file Measures which form of a matrix product is the fastest on this GPU: each candidate runs on made-up operands, by the
 * GPU's own clock, and the winner takes the guess's place. Used by `init({ autotune: true })`, plan by plan before its first
 * run, and by `npm run tune:gpu`, which tries more.
 */
import { dtypes } from "../../dtype.ts";
import * as g from "../../graph/build.ts";
import { placeholder, type Storage } from "../../graph/primitives.ts";
import {
  candidates,
  chooseForm,
  type Form,
  fitTile,
  type ProductShape,
} from "../../kernel/gpu/matmul-tile.ts";
import { shapeKey } from "../../kernel/gpu/tuned.ts";
import { numel } from "../../shape.ts";
import type { CanonicalGraph, Executable } from "../backend.ts";
import { observe, observer, type RunTime } from "../observe.ts";
import type { WebGpuBackend } from "./backend.ts";

export interface TuneOptions {
  /** Timed runs of each candidate; the median counts. */
  readonly runs?: number;
  /** Which forms to measure. */
  readonly forms?: (shape: ProductShape, backend: WebGpuBackend) => readonly Form[];
  /** Told of forms that do not run. */
  readonly refused?: (form: Form, error: Error) => void;
}

export interface Tuned {
  readonly form: Form;
  readonly milliseconds: number;
  /** Of the form that would have been guessed; NaN if that was much slower. */
  readonly guessed: number;
  readonly measured: number;
}

/** The forms that a guess chooses from. */
export const usualForms = (shape: ProductShape, { target }: WebGpuBackend): readonly Form[] =>
  candidates(shape, target);

/** Those, and their tiles with other depths, paddings and stages. */
export function manyForms(shape: ProductShape, { target }: WebGpuBackend): readonly Form[] {
  const found = new Map<string, Form>();
  const add = (form: Form) => void found.set(JSON.stringify(form), form);
  const known = candidates(shape, target);
  for (const form of known) add(form);
  for (const form of known) {
    if (form.form !== "tiled") continue;
    for (const k of [8, 16, 32])
      for (const pad of [0, 4])
        for (const stages of [1, 2] as const)
          for (const prefetch of [true, false]) {
            const tile = fitTile({ ...form.tile, k, pad, stages, prefetch }, shape, target);
            // A tile that was cut would be measured twice.
            if (tile?.k === k) add({ ...form, tile });
          }
  }
  return [...found.values()];
}

/** The fastest form of a product, or null if none could be measured. Nothing else should run meanwhile. */
export async function tune(
  backend: WebGpuBackend,
  shape: ProductShape,
  { runs = 5, forms = usualForms, refused }: TuneOptions = {},
): Promise<Tuned | null> {
  const graph = productGraph(shape);
  const inputs: Storage[] = [];
  const guess = JSON.stringify(chooseForm(shape, backend.target));
  let winner: { form: Form; milliseconds: number } | undefined;
  let guessed = Number.NaN;
  const all = forms(shape, backend);
  try {
    for (const { dtype, shape: s } of graph.inputs) {
      // Any numbers of moderate size do; zeros would make some GPUs faster.
      const data = new dtypes[dtype].array(numel(s));
      for (let i = 0; i < data.length; i++) data[i] = (Math.imul(i, 0x9e3779b1) >>> 8) / 2 ** 24;
      inputs.push(backend.upload(data, dtype));
    }
    for (const form of all) {
      let time: number | null;
      try {
        const executable = backend.plan(graph, () => form);
        time = await median(backend, executable, inputs, runs, winner?.milliseconds ?? Infinity);
      } catch (error) {
        refused?.(form, error as Error);
        continue;
      }
      if (time === null) continue;
      if (JSON.stringify(form) === guess) guessed = time;
      if (!winner || time < winner.milliseconds) winner = { form, milliseconds: time };
    }
  } catch (error) {
    // No memory for the operands: the guess stays.
    refused?.(JSON.parse(guess), error as Error);
  } finally {
    for (const s of inputs) backend.free(s);
  }
  return winner ? { ...winner, guessed, measured: all.length } : null;
}

function productGraph(shape: ProductShape): CanonicalGraph {
  const { batch, m, n, k, aAlongK, bAlongK, halves } = shape;
  const dtype = halves ? "f16" : shape.dtype;
  const a = placeholder(dtype, [batch, ...(aAlongK ? [m, k] : [k, m])], "webgpu");
  const b = placeholder(dtype, [batch, ...(bAlongK ? [n, k] : [k, n])], "webgpu");
  const swapped = [0, 2, 1];
  const left = aAlongK ? a : g.permute(a, swapped);
  const right = bAlongK ? g.permute(b, swapped) : b;
  return { key: shapeKey(shape), inputs: [a, b], randoms: [], outputs: [g.dot(left, right)] };
}

/** Milliseconds in the kernels of a run; null for one that is much slower than `best`. */
async function median(
  backend: WebGpuBackend,
  executable: Executable,
  inputs: readonly Storage[],
  runs: number,
  best: number,
): Promise<number | null> {
  const none = new Uint32Array(0);
  const keep = inputs.map(() => false);
  const times: number[] = [];
  for (let i = 0; i < runs + 2; i++) {
    let waiting = executable.prepare?.(inputs, none, keep);
    while (waiting) {
      await waiting;
      waiting = executable.prepare?.(inputs, none, keep);
    }
    const seen: RunTime[] = [];
    const outer = observer;
    observe({ kernels: true, run: (run) => void seen.push(run) });
    let outputs: Storage[];
    try {
      outputs = executable.run(inputs, none, keep);
    } finally {
      observe(outer);
    }
    await executable.ended?.();
    for (const s of outputs) backend.free(s);
    const kernels = seen.flatMap((run) => run.kernels ?? []);
    const total = kernels.reduce((sum, { start, end }) => sum + end - start, 0);
    if (i >= 2) times.push(total);
    else if (i === 1 && total > 3 * best) return null;
  }
  return times.toSorted((a, b) => a - b)[times.length >> 1];
}

/** An executable that measures its products before its first run, and is planned anew with what was found. */
export class TuningExecutable implements Executable {
  #current: Executable;
  #tuning: (() => Promise<Executable>) | null;

  constructor(guessed: Executable, tuning: () => Promise<Executable>) {
    this.#current = guessed;
    this.#tuning = tuning;
  }

  get kernels() {
    return this.#current.kernels;
  }

  get scratchBytes() {
    return this.#current.scratchBytes;
  }

  footprint() {
    return this.#current.footprint!();
  }

  get mayFail() {
    return this.#current.mayFail ?? false;
  }

  prepare(...args: Parameters<NonNullable<Executable["prepare"]>>): Promise<void> | undefined {
    if (!this.#tuning) return this.#current.prepare?.(...args);
    const tuning = this.#tuning();
    this.#tuning = null;
    return tuning.then((tuned) => {
      this.#current = tuned;
    });
  }

  run(...args: Parameters<Executable["run"]>): Storage[] {
    return this.#current.run(...args);
  }

  ended(): Promise<void> | undefined {
    return this.#current.ended?.();
  }
}
