/**
 * @file A kernel with a bug, and the check that finds it: each invocation computes four neighbouring elements, and whoever wrote it
 * forgot that the number of elements need not be a multiple of four. Needs a GPU, or one that is computed on the CPU.
 *
 * npx node --conditions=source examples/testing/planted-bug.ts
 */
import { customKernel, init } from "hinode";
import { CounterexampleError, checkKernel, shapes, tensors } from "hinode/testing";

const softplus = customKernel({
  name: "softplus",
  inputs: ["x"],
  outputs: (x) => ({ y: x }),
  reference: (x) => x.softplus(),
  wgsl: ({ inputs: [{ shape }] }) => ({
    workgroups: Math.ceil(shape.reduce((n, d) => n * d, 1) / (64 * 4)),
    body: `
      let first = 4u * index;
      if (first + 3u >= x_size) { return; }
      for (var i = first; i < first + 4u; i++) {
        y[i] = max(x[i], 0.0) + log(1.0 + exp(-abs(x[i])));
      }`,
  }),
});

/** What the check has to say. */
export async function findBug(): Promise<string> {
  await init({ device: "webgpu" });
  try {
    await checkKernel(softplus, null, [tensors({ shape: shapes({ minRank: 1 }) })], { seed: 1 });
  } catch (error) {
    if (error instanceof CounterexampleError) return error.message;
    throw error;
  }
  return "no bug found";
}

if (import.meta.main) console.log(await findBug());
