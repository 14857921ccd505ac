/**
 * @file Kernels of one's own. The first is written in the kernel language and runs on WebAssembly and on GPUs; the second is WGSL,
 * with a composition of tensor operations for where there is no GPU. Both are operations like any other: compiled,
 * differentiated and mapped over batches.
 *
 * npx node --conditions=source examples/custom-kernel.ts [wasm|webgpu]
 */
import { compile, customKernel, explain, grad, init, random, type Tensor, vmap } from "hinode";

const { name: device } = await init({
  device: (process.argv[2] ?? "auto") as "auto" | "wasm" | "webgpu",
});

/** x / √(mean(x²) + ε) · weight, along the rows of x [rows, columns], in one pass over memory (Zhang & Sennrich 2019). */
const epsilon = 1e-6;
const rmsNorm = customKernel({
  name: "rms_norm",
  inputs: ["x", "weight"],
  outputs: (x) => ({ y: x }),
  // What it means: runs on the reference device, under jvp and on empty tensors, and gives the gradient.
  reference: (x, weight) => x.mul(x.square().mean(-1, true).add(epsilon).rsqrt()).mul(weight),
  kernel: (k) => {
    const [x, weight] = k.inputs;
    const [y] = k.outputs;
    const [rows, columns] = x.shape;
    k.parallel(rows, (r) => {
      const squares = k.accumulate("sum");
      k.vector(columns, (c) => squares.update(x.at(r, c).mul(x.at(r, c))));
      const scale = k.let(k.constant("f32", 1).div(squares.value.div(columns).add(epsilon).sqrt()));
      k.vector(columns, (c) => y.set([r, c], x.at(r, c).mul(scale).mul(weight.at(c))));
    });
  },
});

/** log(1 + eˣ), without overflow, and by the way its derivative, which the gradient uses. */
const softplus = customKernel({
  name: "softplus",
  inputs: ["x"],
  outputs: (x) => ({ y: x, slope: x }),
  reference: (x) => [x.softplus(), x.sigmoid()] as const,
  wgsl: {
    body: `
      if (index >= x_size) { return; }
      let v = x[index];
      let e = exp(-abs(v));
      y[index] = max(v, 0.0) + log(1.0 + e);
      slope[index] = select(e, 1.0, v >= 0.0) / (1.0 + e);`,
  },
  gradient: ([ct, ctSlope], _inputs, [, slope]) => [
    ct.mul(slope).add(ctSlope.mul(slope).mul(slope.neg().add(1))),
  ],
  leadingAxes: true,
});

random.manualSeed(0);
const x = random.normal([4, 64]);
const weight = random.normal([64]);
const furthest = async (a: Tensor, b: Tensor) =>
  ((await a.sub(b).abs().amax().item()) as number).toExponential(1);

const block = (x: Tensor, weight: Tensor): Tensor => softplus(rmsNorm(x, weight))[0];
const composed = (x: Tensor, weight: Tensor): Tensor =>
  softplus.reference(rmsNorm.reference(x, weight))[0];

console.log(`on ${device}, the kernels that run:`);
const compiled = compile(block);
for (const { kind, name } of explain(compiled, x, weight).kernels) console.log(`  ${kind} ${name}`);

console.log("largest difference from the references");
console.log("  values:   ", await furthest(compiled(x, weight), composed(x, weight)));
const slopeOf = (f: typeof block) => grad((x: Tensor) => f(x, weight).sum())(x);
console.log("  gradients:", await furthest(slopeOf(block), slopeOf(composed)));
const batch = random.normal([3, 4, 64]);
const each = (f: typeof block) => vmap(f, { inDims: [0, null] })(batch, weight);
console.log("  batched:  ", await furthest(each(block), each(composed)));
