/**
 * @file What a device can do at most, as far as two kernels of its own show it: a large copy, and a large product of f32
 * matrices. They are measured at the first request, once per device; sizes grow until a call takes long enough to be
 * told from the clock's steps. Idea: Williams, Waterman, Patterson, "Roofline", 2009.
 */
import type { RunTime } from "./backend/observe.ts";
import type { Device } from "./device.ts";
import { arange } from "./ops/create.ts";
import { type Call, coarse, resolutionOf, typical } from "./profile.ts";
import { realize } from "./realize.ts";
import type { Tensor } from "./tensor.ts";

export interface Roofline {
  /** Read and written by a copy. */
  readonly bytesPerSecond: number;
  /** Of a product of square f32 matrices; kernels in f16 on tensor cores may well do more. */
  readonly flopsPerSecond: number;
}

type Observed = (work: () => Promise<{ start: number; end: number }>) => Promise<Call>;

const known = new WeakMap<Device, Roofline | null>();

/** The limits of a device; null where it does not tell times of kernels. */
export async function rooflineOf(device: Device, observed: Observed): Promise<Roofline | null> {
  if (!known.has(device)) known.set(device, await measure(device, observed));
  return known.get(device)!;
}

/** Measured calls (WebAssembly gets fast only after some), and the milliseconds after which there are no more of them. */
const [calls, patience] = [60, 60];
/** Milliseconds of a call that is long enough; the first size that is tried, the factor to the next, and the last. */
const [copyLongEnough, productLongEnough] = [1, 4];
const copySizes = [2 ** 20, 4, 2 ** 26] as const;
const productSizes = [64, 2, 4096] as const;

async function measure(device: Device, observed: Observed): Promise<Roofline | null> {
  // No random numbers: the program's own would be others afterwards.
  const values = async (shape: readonly number[]): Promise<Tensor> => {
    const size = shape.reduce((a, b) => a * b);
    const x = arange(size, { dtype: "f32", device: device.name }).div(size).reshape(shape);
    await realize(x);
    return x;
  };
  /** The most that one call does per second, over sizes that grow until a call is long enough. */
  const most = async (
    [first, factor, last]: readonly [number, number, number],
    enough: number,
    amount: (size: number) => number,
    make: (size: number) => Promise<{ fn: () => Tensor; inputs: Tensor[] }>,
  ): Promise<number | null> => {
    let best = 0;
    for (let size = first; size <= last; size *= factor) {
      const { fn, inputs } = await make(size);
      const time = await shortest(observed, fn);
      for (const x of inputs) x.dispose();
      if (time === null) return null;
      best = Math.max(best, (1000 * amount(size)) / time);
      if (time >= enough) break;
    }
    return best;
  };
  const bytesPerSecond = await most(
    copySizes,
    copyLongEnough,
    (n) => 8 * n,
    async (size) => {
      const x = await values([size]);
      return { fn: () => x.neg(), inputs: [x] };
    },
  );
  const flops = (n: number) => 2 * n ** 3;
  const flopsPerSecond = await most(productSizes, productLongEnough, flops, async (side) => {
    const [a, b] = [await values([side, side]), await values([side, side])];
    return { fn: () => a.matmul(b), inputs: [a, b] };
  });
  return bytesPerSecond && flopsPerSecond ? { bytesPerSecond, flopsPerSecond } : null;
}

/** Milliseconds in the kernels of one of several calls: the shortest, or the mean where the clock is coarse. */
async function shortest(observed: Observed, fn: () => Tensor): Promise<number | null> {
  const times: number[] = [];
  const seen: RunTime[] = [];
  const begin = performance.now();
  for (let i = 0; i <= calls && (i < 3 || performance.now() - begin < patience); i++) {
    const { runs } = await observed(async () => {
      const start = performance.now();
      const result = fn();
      await realize(result);
      result.dispose();
      return { start, end: performance.now() };
    });
    if (runs.some(({ kernels }) => !kernels)) return null;
    const time = runs.flatMap((r) => r.kernels!).reduce((sum, k) => sum + k.end - k.start, 0);
    // The first one compiles.
    if (i === 0) continue;
    times.push(time);
    seen.push(...runs);
  }
  const resolution = resolutionOf(seen);
  return Math.max(resolution > coarse ? typical(times, resolution) : Math.min(...times), 1e-6);
}
