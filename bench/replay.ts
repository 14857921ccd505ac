/**
 * @file The host's cost of a replayed step: a compiled chain of products so small that computing takes next to
 * nothing, with state that is updated in place as in training.
 */
import { compile, defaultDevice, explain, noGrad, randn, realize, type Tensor } from "hinode";
import type { Figure } from "./measure.ts";
import { median } from "./suite/clock.ts";

export async function replay(where: Pick<Figure, "device" | "threads">): Promise<Figure[]> {
  const depth = 100;
  const weights = Array.from({ length: depth }, () => randn([4, 4]));
  const x = randn([4, 4]);
  await realize(x, ...weights);
  const step = compile((input: Tensor) =>
    noGrad(() => {
      let h = input;
      for (const w of weights) {
        h = h.matmul(w).tanh();
        w.assign(w.mul(0.999));
      }
      return h.sum();
    }),
  );
  const device = defaultDevice();
  const kernels = (await explain(step, x)).kernels.length;
  const times: number[] = [];
  for (let i = -300; i < 500; i++) {
    const start = performance.now();
    const result = step(x);
    await device.ready();
    if (i >= 0) times.push(performance.now() - start);
    result.dispose();
  }
  const ms = median(times);
  const micro = (ms * 1000) / kernels;
  const text = `${micro.toFixed(2)} µs per kernel (${kernels} kernels, ${depth} cells of state)`;
  return [
    {
      ...where,
      ...{ name: "replayed step", family: "replay", ms, gflops: null, gbs: null, roofline: null },
      other: { text, value: micro },
      // A GPU's dispatches are another matter.
      ...(where.device === "wasm" && { bar: { atMost: 5 } }),
    },
  ];
}
