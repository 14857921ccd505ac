/** @file For tests of threads, in Node and in pages: backends that share every kernel, work of every kind, bits compared. */
import { WasmBackend, type WasmOptions } from "../../core/backend/wasm/backend.ts";
import { Device, registerDevice } from "../../core/device.ts";
import type { TypedArray } from "../../core/dtype.ts";
import {
  compile,
  conv2d,
  cumsum,
  grad,
  layerNorm,
  manualSeed,
  rand,
  randint,
  realize,
  scaledDotProductAttention,
  setDefaultDevice,
  softmax,
  type Tensor,
} from "../../core/index.ts";
import {
  type RandomGraph,
  randomGradientGraph,
  randomGraph,
  randomHalfGradientGraph,
  randomStateGraph,
} from "./graphs.ts";

/** A backend whose threads run, and that shares every kernel that has at least two iterations. */
export async function sharing(threads: number, options: WasmOptions = {}): Promise<WasmBackend> {
  const backend = new WasmBackend({ threads, grain: 1e-6, ...options });
  await backend.ready();
  return backend;
}

/** Makes it the device of the public interface. */
export function use(backend: WasmBackend): void {
  registerDevice(new Device(backend));
  setDefaultDevice("wasm");
}

/** How many kernels so far more than one thread was called for. */
export const sharedBy = (backend: WasmBackend): number => backend.threads?.shared ?? 0;

const bytesOf = (x: TypedArray): Uint8Array => new Uint8Array(x.buffer, x.byteOffset, x.byteLength);

/** The first result that differs in a bit, or null. */
export function differentBits(
  got: readonly TypedArray[],
  want: readonly TypedArray[],
): string | null {
  for (const [i, value] of want.entries()) {
    const [a, b] = [bytesOf(got[i]), bytesOf(value)];
    const at = a.findIndex((x, j) => x !== b[j]);
    if (at >= 0) return `result ${i}: byte ${at} of ${a.length}`;
  }
  return null;
}

/** Random graphs, with gradients, halves and state, from a seed. */
export function graphsFrom(seed: number, each: number): RandomGraph[] {
  const makers = [randomGraph, randomGradientGraph, randomHalfGradientGraph, randomStateGraph];
  return makers.flatMap((make) => Array.from({ length: each }, (_, i) => make(seed + i)));
}

/** Products, maps, rows, columns, attention, convolution, lookups, sorting, running sums and state, large enough to cut. */
export async function workOfEveryKind(backend: WasmBackend): Promise<TypedArray[]> {
  use(backend);
  manualSeed(5);
  const weight = rand([70, 130]).sub(0.5);
  const [x, q, k, v] = [rand([150, 70]), rand([2, 3, 100, 16]), rand([2, 3, 90, 16]), rand([2, 3, 90, 16])]; // biome-ignore format: one line
  const [image, filter] = [rand([3, 5, 18, 18]), rand([8, 5, 3, 3])];
  const [table, words] = [rand([40, 96]), randint(0, 40, [300])];
  const [scale, bias] = [rand([130]), rand([130])];
  const map = rand([40_000]).sub(0.5);
  await realize(weight, x, q, k, v, image, filter, table, words, scale, bias, map);
  const loss = (w: Tensor, s: Tensor): Tensor => {
    const rows = layerNorm(x.matmul(w).gelu(), 130, s, bias);
    return softmax(rows, -1).mul(rows).sum();
  };
  const attention = (a: Tensor, b: Tensor, c: Tensor) =>
    scaledDotProductAttention(a, b, c, { isCausal: true }).square().sum();
  const convolution = (a: Tensor, b: Tensor) => conv2d(a, b, null, { padding: 1 }).sin().sum();
  const lookup = (t: Tensor) => t.indexSelect(0, words).tanh().sum();
  const step = compile(() => {
    const [byWeight, byScale] = grad(loss, { argnums: [0, 1] })(weight, scale);
    weight.assign(weight.sub(byWeight.mul(0.1)));
    return [
      byWeight,
      byScale,
      ...grad(attention, { argnums: [0, 1, 2] })(q, k, v),
      ...grad(convolution, { argnums: [0, 1] })(image, filter),
      grad(lookup)(table),
      map.mul(2).gelu().add(1),
      table.argsort({ dim: 1 }),
      cumsum(table, 0),
      map.sum(),
    ];
  });
  const results: TypedArray[] = [];
  for (let i = 0; i < 3; i++) {
    const values = await step();
    for (const t of [...values, weight]) results.push(await t.data());
    // From now on the workers know the kernels.
    await backend.ready();
  }
  return results;
}
