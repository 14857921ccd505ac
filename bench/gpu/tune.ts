/**
 * @file `npm run tune:gpu [-- 4096x4096x4096 577x1024x3072:bt:f16 …] [--json tiles.json] [--quick]`: measures every form that a
 * matrix product (m×k×n; `at`, `bt`: a, b stored transposed; b8 in front: a batch of 8) could take on this GPU, and stores
 * the fastest. `init({ tiles })` uses the file's contents on the adapters that it knows.
 */
import { existsSync, writeFileSync } from "node:fs";
import type { CanonicalGraph } from "../../core/backend/backend.ts";
import { observe, type RunTime } from "../../core/backend/observe.ts";
import { describeAdapter } from "../../core/backend/webgpu/adapter.ts";
import type { WebGpuBackend } from "../../core/backend/webgpu/backend.ts";
import { defaultDevice } from "../../core/device.ts";
import { type DType, dtypes } from "../../core/dtype.ts";
import * as g from "../../core/graph/build.ts";
import { placeholder, type Storage } from "../../core/graph/primitives.ts";
import {
  candidates,
  chooseForm,
  type Form,
  fitTile,
  type ProductShape,
} from "../../core/kernel/gpu/matmul-tile.ts";
import { shapeKey, type Tiles } from "../../core/kernel/gpu/tuned.ts";
import { cases } from "./cases.ts";
import { openGpu, readArguments, readTiles } from "./options.ts";

interface Product {
  readonly text: string;
  readonly batch: number;
  readonly m: number;
  readonly k: number;
  readonly n: number;
  readonly aTransposed: boolean;
  readonly bTransposed: boolean;
  readonly dtype: DType;
}

const { values, positionals } = readArguments({});
const runs = values.quick ? 2 : 15;

function parse(text: string): Product {
  const found = /^(?:b(\d+):)?(\d+)x(\d+)x(\d+)((?::(?:at|bt|f16|f32))*)$/.exec(text);
  if (!found) {
    console.error(`expected products like 577x1024x3072, b8:64x64x64:bt:f16, got ${text}`);
    process.exit(2);
  }
  const [batch, m, k, n] = found.slice(1, 5).map((s) => Number(s ?? 1));
  const flags = found[5].split(":");
  return {
    text,
    batch,
    m,
    k,
    n,
    aTransposed: flags.includes("at"),
    bTransposed: flags.includes("bt"),
    dtype: flags.includes("f16") ? "f16" : "f32",
  };
}

function graphOf(p: Product): CanonicalGraph {
  const { batch, m, k, n, dtype } = p;
  const a = placeholder(dtype, [batch, ...(p.aTransposed ? [k, m] : [m, k])], "webgpu");
  const b = placeholder(dtype, [batch, ...(p.bTransposed ? [n, k] : [k, n])], "webgpu");
  const swapped = [0, 2, 1];
  const left = p.aTransposed ? g.permute(a, swapped) : a;
  const right = p.bTransposed ? g.permute(b, swapped) : b;
  return { key: p.text, inputs: [a, b], randoms: [], outputs: [g.dot(left, right)] };
}

/** What might be worth measuring: the candidates, and their tiles with other depths, paddings and stages. */
function forms(shape: ProductShape, backend: WebGpuBackend): Form[] {
  const { target } = backend;
  const found = new Map<string, Form>();
  const add = (form: Form) => void found.set(JSON.stringify(form), form);
  const known = candidates(shape, target);
  for (const form of known) add(form);
  if (values.quick) return [...found.values()].slice(0, 3);
  for (const form of known) {
    if (form.form !== "tiled") continue;
    for (const k of [8, 16, 32])
      for (const pad of [0, 4])
        for (const stages of [1, 2] as const)
          for (const prefetch of [true, false]) {
            const wanted = { ...form.tile, k, pad, stages, prefetch };
            const tile = fitTile(wanted, shape, target);
            // A tile that was cut would be measured twice.
            if (tile?.k === k) add({ ...form, tile });
          }
  }
  return [...found.values()];
}

/** Milliseconds in the kernels of a run; null for one that is much slower than `best`. */
async function time(
  backend: WebGpuBackend,
  graph: CanonicalGraph,
  inputs: readonly Storage[],
  best: number,
): Promise<number | null> {
  const executable = backend.prepare(graph);
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
    observe({ kernels: true, run: (run) => void seen.push(run) });
    try {
      const outputs = executable.run(inputs, none, keep);
      await executable.ended?.();
      for (const s of outputs) backend.free(s);
    } finally {
      observe(null);
    }
    const kernels = seen.flatMap((run) => run.kernels ?? []);
    const total = kernels.reduce((sum, { start, end }) => sum + end - start, 0);
    if (i >= 2) times.push(total);
    else if (i === 1 && total > 3 * best) return null;
  }
  return times.toSorted((a, b) => a - b)[times.length >> 1];
}

function randomStorage(backend: WebGpuBackend, size: number, dtype: DType): Storage {
  const data = new dtypes[dtype].array(size).map(() => Math.random() - 0.5);
  return backend.upload(data, dtype);
}

async function tune(p: Product, backend: WebGpuBackend): Promise<[key: string, form: Form] | null> {
  const graph = graphOf(p);
  let shape: ProductShape | undefined;
  backend.choose = (s, target) => {
    shape = s;
    return chooseForm(s, target);
  };
  backend.prepare(graph);
  if (!shape) return null;
  const inputs = graph.inputs.map(({ shape: s }) =>
    randomStorage(
      backend,
      s.reduce((a, b) => a * b),
      p.dtype,
    ),
  );
  const guess = chooseForm(shape, backend.target);
  let winner: { form: Form; ms: number } | undefined;
  let guessed = Number.NaN;
  const all = forms(shape, backend);
  for (const form of all) {
    backend.choose = () => form;
    let ms: number | null;
    try {
      ms = await time(backend, graph, inputs, winner?.ms ?? Infinity);
    } catch (error) {
      console.error(`${JSON.stringify(form)}: ${(error as Error).message.split("\n")[0]}`);
      continue;
    }
    if (JSON.stringify(form) === JSON.stringify(guess)) guessed = ms ?? Number.NaN;
    if (ms !== null && !(winner && winner.ms <= ms)) winner = { form, ms };
  }
  for (const s of inputs) backend.free(s);
  if (!winner) return null;
  const rate = (2 * p.batch * p.m * p.k * p.n) / winner.ms / 1e9;
  console.log(
    `${p.text}: ${winner.ms.toPrecision(4)} ms, ${rate.toPrecision(4)} TFLOP/s, ` +
      `${(guessed / winner.ms).toFixed(2)} × as fast as the guess, best of ${all.length}\n` +
      `    ${JSON.stringify(winner.form)}`,
  );
  return [shapeKey(shape), winner.form];
}

await openGpu(values);
const backend = defaultDevice().backend as WebGpuBackend;
if (!backend.device.features.has("timestamp-query")) {
  console.error("this GPU has no timestamp-query: nothing to tune by");
  process.exit(2);
}
const own = cases({ quick: values.quick }).flatMap((c) =>
  c.kind === "matmul" ? [`${c.m}x${c.k}x${c.n}:${c.dtype}`] : [],
);
const adapter = describeAdapter(backend.info);
const winners: Record<string, Form> = {};
for (const text of positionals.length > 0 ? positionals : own) {
  const found = await tune(parse(text), backend);
  if (found) winners[found[0]] = found[1];
}
const before: Tiles = values.json && existsSync(values.json) ? readTiles(values.json) : {};
const table: Tiles = { ...before, [adapter]: { ...before[adapter], ...winners } };
const text = `${JSON.stringify(table, null, 2)}\n`;
if (values.json) writeFileSync(values.json, text);
else console.log(text);
