/** @file The benchmark's programs with Hinode, each one compiled function. */
import {
  cat,
  compile,
  conv2d,
  crossEntropy,
  defaultDevice,
  embedding,
  init,
  layerNorm,
  realize,
  rmsNorm,
  scaledDotProductAttention,
  sort,
  type Tensor,
  tensor,
  topk,
  vjp,
} from "hinode";
import { optim } from "hinode/nn";
import type { Device, Framework, Prepared } from "./framework.ts";
import { valuesOf } from "./inputs.ts";
import type { Ops } from "./ops.ts";
import { adamw, decodingFeeds, type Program } from "./programs.ts";

export const hinodeOps: Ops<Tensor> = {
  matmul: (a, b, transposed) => a.matmul(transposed ? b.transpose(-1, -2) : b),
  add: (a, b) => a.add(b),
  mul: (a, b) => a.mul(b),
  affine: (x, scale, shift) => x.mul(scale).add(shift),
  gelu: (x) => x.gelu(),
  silu: (x) => x.silu(),
  softmax: (x) => x.softmax(-1),
  layerNorm: (x, weight, bias) => layerNorm(x, weight.shape, weight, bias),
  rmsNorm: (x, weight) => rmsNorm(x, weight.shape, weight, 1e-5),
  reshape: (x, shape) => x.reshape(shape),
  transpose: (x, permutation) => x.permute([...permutation]),
  slice: (x, axis, start, length) => x.narrow(axis, start, length),
  concat: (a, b, axis) => cat([a, b], axis),
  mean: (x, axis) => x.mean(axis),
  embedding: (table, ids) => embedding(ids, table),
  attention: (q, k, v, isCausal) => scaledDotProductAttention(q, k, v, { isCausal }),
  conv2d: (x, weight, stride, padding) => conv2d(x, weight, null, { stride, padding }),
  crossEntropy: (logits, targets) => crossEntropy(logits, targets),
  sort: (x) => sort(x).values,
  topk: (x, k) => topk(x, k).values,
};

type Named = Record<string, Tensor>;

/** One step of training with AdamW, compiled. */
export function trainingStep({ wrt, forward }: Program, x: Named): () => Tensor[] {
  const parameters = wrt.map((name) => x[name]);
  for (const p of parameters) p.requiresGrad = true;
  const optimizer = new optim.AdamW(parameters, { lr: adamw.lr });
  return compile(() => {
    const [loss] = forward(hinodeOps, x);
    optimizer.zeroGrad();
    loss.backward();
    optimizer.step();
    return [loss];
  });
}

/** A program's inputs as tensors. */
export const tensorsOf = ({ inputs }: Program): Named =>
  Object.fromEntries(
    Object.entries(inputs).map(([name, input]) => [
      name,
      tensor(valuesOf(name, input), { shape: [...input.shape], dtype: input.dtype }),
    ]),
  );

/** The function that is measured, over tensors in `x`, as one that takes nothing. */
function stepOf(program: Program, x: Named): () => Tensor[] {
  const { wrt } = program;
  const parameters = wrt.map((name) => x[name]);
  switch (program.kind) {
    case "gradient": {
      const fn = compile((inputs: Named) => {
        const [out, pull] = vjp(
          (chosen: Tensor[]) => {
            const named = Object.fromEntries(wrt.map((name, i) => [name, chosen[i]]));
            return program.forward(hinodeOps, { ...inputs, ...named })[0];
          },
          wrt.map((name) => inputs[name]),
        );
        return [out, ...pull(inputs.g)[0]];
      });
      return () => fn(x);
    }
    case "training":
      return trainingStep(program, x);
    case "update": {
      for (const p of parameters) p.requiresGrad = true;
      const optimizer = new optim.AdamW(parameters, { lr: adamw.lr });
      parameters.forEach((p, i) => {
        p.grad = x[`grad.${wrt[i]}`];
      });
      const fn = compile(() => {
        optimizer.step();
        return [] as Tensor[];
      });
      return () => fn();
    }
    default: {
      const fn = compile((inputs: Named) => program.forward(hinodeOps, inputs));
      return () => fn(x);
    }
  }
}

/** Greedy decoding from token 0, all positions. */
function decoder(program: Program, x: Named): () => Promise<number[]> {
  const length = program.inputs.at.shape[0];
  const feeds = decodingFeeds(length, (data, shape) => tensor(data, { shape }));
  const device = defaultDevice();
  const step = compile((inputs: Named) => {
    const [scores, cache] = program.forward(hinodeOps, inputs);
    return [scores.argmax(-1).to("i32"), cache];
  });
  return async () => {
    const tokens: Tensor[] = [];
    let [id, cache] = [x.id, x.cache];
    for (const [i, feed] of feeds.entries()) {
      const [next, grown] = step({ ...x, ...feed, id, cache });
      if (cache !== x.cache) cache.dispose();
      [id, cache] = [next, grown];
      tokens.push(next);
      // So many steps may wait, and twice as many are refused.
      if (i % 32 === 31) await device.ready();
    }
    cache.dispose();
    const found = await Promise.all(tokens.map((t) => t.data()));
    for (const t of tokens) t.dispose();
    return found.map((t) => Number(t[0]));
  };
}

export async function prepare(program: Program): Promise<Prepared> {
  const x = tensorsOf(program);
  await realize(...Object.values(x));
  const dispose = () => {
    for (const t of Object.values(x)) t.dispose();
  };
  if (program.kind === "decode") {
    const decode = decoder(program, x);
    return {
      run: async () => void (await decode()),
      outputs: async () => [await decode()],
      dispose,
    };
  }
  const device = defaultDevice();
  const step = stepOf(program, x);
  const run = async (): Promise<void> => {
    const results = step();
    await device.ready();
    for (const t of results) t.dispose();
  };
  const read = async (list: readonly Tensor[]) => Promise.all(list.map((t) => t.data()));
  const outputs = async (): Promise<ArrayLike<number>[]> => {
    if (program.kind === "update") {
      await run();
      return (await read(program.wrt.map((name) => x[name]))) as ArrayLike<number>[];
    }
    if (program.kind !== "training") return (await read(step())) as ArrayLike<number>[];
    const losses: number[] = [];
    for (let i = 0; i < 3; i++) losses.push(Number(await step()[0].item()));
    return [losses];
  };
  return { run, outputs, dispose };
}

export async function open(threads: number, device: Device = "wasm"): Promise<Framework> {
  await init({ device, threads });
  return { name: "Hinode", version: "", prepare };
}
