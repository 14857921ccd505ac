/**
 * @file The cases with Hinode, on the default device. Kernels are timed by the GPU (profile()), where it can; steps by the clock over
 * many in a row, as training runs them, and besides it is counted what launching them costs the processor.
 */
import {
  compile,
  defaultDevice,
  layerNorm,
  ones,
  profile,
  randn,
  realize,
  scaledDotProductAttention,
  type Tensor,
  vjp,
  zeros,
} from "hinode";
import { observe, type RunTime } from "../../core/backend/observe.ts";
import type { Case } from "./cases.ts";
import { gptStep } from "./gpt.ts";

export interface Settings {
  readonly warmup: number;
  /** Measurements, of which the median counts. */
  readonly runs: number;
  /** Steps in a row that are one measurement. */
  readonly block: number;
}

export interface Measured {
  readonly milliseconds: number;
  /** "kernels": on the GPU's clock; "wall": from call to end. */
  readonly clock: "kernels" | "wall";
  readonly dispatches: number;
  /** The processor's time for one step's call and submission. */
  readonly launchMilliseconds: number | null;
}

export function measure(c: Case, settings: Settings): Promise<Measured> {
  switch (c.kind) {
    case "matmul":
      return kernels(
        [
          [c.m, c.k],
          [c.k, c.n],
        ],
        c.dtype,
        ([a, b]) => [a.matmul(b)],
        settings,
      );
    case "rows": {
      const { op, rows, columns } = c;
      const weight = ones([columns]);
      const bias = zeros([columns]);
      const fn = ([x]: Tensor[]) =>
        op === "elementwise"
          ? x.mul(1.5).add(0.5).relu()
          : op === "softmax"
            ? x.softmax(-1)
            : layerNorm(x, [columns], weight, bias);
      return kernels([[rows, columns]], "f32", (inputs) => [fn(inputs)], settings);
    }
    case "attention": {
      const shape = [c.batch, c.heads, c.length, c.width];
      const attend = (q: Tensor, k: Tensor, v: Tensor) =>
        scaledDotProductAttention(q, k, v, { isCausal: true });
      const both = ([q, k, v, g]: Tensor[]) => {
        const [out, pull] = vjp(attend, q, k, v);
        return [out, ...pull(g)];
      };
      return kernels([shape, shape, shape, shape], c.dtype, both, settings);
    }
    case "gpt":
      return steps(c, settings);
  }
}

async function kernels(
  shapes: readonly (readonly number[])[],
  dtype: "f32" | "f16",
  fn: (inputs: Tensor[]) => Tensor[],
  { warmup, runs }: Settings,
): Promise<Measured> {
  const inputs = shapes.map((shape) => randn([...shape]).to(dtype));
  await realize(...inputs);
  const compiled = compile(fn);
  const run = async () => {
    const results = compiled(inputs);
    await realize(...results);
    for (const t of results) t.dispose();
  };
  const report = await profile(run, { warmup, runs });
  for (const t of inputs) t.dispose();
  return {
    milliseconds: report.kernelMilliseconds ?? report.milliseconds,
    clock: report.kernelMilliseconds === null ? "wall" : "kernels",
    dispatches: report.calls,
    launchMilliseconds: null,
  };
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1];

async function steps(
  c: Extract<Case, { kind: "gpt" }>,
  { warmup, runs, block }: Settings,
): Promise<Measured> {
  const device = defaultDevice();
  const { step, dispose } = await gptStep(c);
  const several = async (count: number) => {
    for (let i = 0; i < count; i++) {
      step().dispose();
      // Far ahead of the device there is no room in the queue.
      if (i % 16 === 15) await device.ready();
    }
    await device.ready();
  };
  await several(warmup);
  const times: number[] = [];
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    await several(block);
    times.push((performance.now() - start) / block);
  }
  const found: RunTime[] = [];
  const launches: number[] = [];
  observe({ kernels: false, run: (run) => void found.push(run) });
  try {
    for (let i = 0; i < runs; i++) {
      found.length = 0;
      const start = performance.now();
      const loss = step();
      const called = performance.now() - start;
      await device.ready();
      loss.dispose();
      launches.push(found.reduce((sum, run) => sum + run.submitted - run.start, called));
    }
  } finally {
    observe(null);
  }
  const dispatches = found.reduce((sum, run) => sum + run.calls.length, 0);
  dispose();
  return {
    milliseconds: median(times),
    clock: "wall",
    dispatches,
    // On the processor, launching is computing.
    launchMilliseconds: device.name === "webgpu" ? median(launches) : null,
  };
}
