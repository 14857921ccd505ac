/** @file Optimizers against PyTorch's trajectories: fed with the recorded gradients, and together with backward. */
import { init, type Tensor, tensor } from "hinode";
import { optim, parameter } from "hinode/nn";
import { beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { devices } from "../support/devices.ts";
import { readSafetensors } from "../support/safetensors.ts";
import { fixture } from "./files.ts";

interface OptimCase {
  readonly id: string;
  readonly kwargs: Kwargs;
  readonly steps: number;
  readonly tensors: Readonly<
    Record<string, { grads: string; clipped_grads?: string; params: string }>
  >;
  readonly loss: readonly number[];
  readonly lr: readonly number[];
  readonly total_norm: readonly number[];
  readonly clip_grad_norm: { readonly max_norm: number };
  readonly rtol: number;
  readonly atol: number;
}
/** torch.optim's arguments. */
interface Kwargs {
  readonly lr: number;
  readonly momentum?: number;
  readonly dampening?: number;
  readonly nesterov?: boolean;
  readonly maximize?: boolean;
  readonly weight_decay?: number;
  readonly betas?: [number, number];
  readonly eps?: number;
}
interface OptimFile {
  readonly cases: readonly OptimCase[];
  readonly problem: {
    readonly A: string;
    readonly Y: string;
    readonly c: string;
    readonly params: Readonly<Record<string, string>>;
  };
}

const { cases, problem }: OptimFile = JSON.parse(new TextDecoder().decode(fixture("optim.json")));
const store = readSafetensors(fixture("optim.safetensors"));

const load = (key: string): Tensor => {
  const { data, shape } = store.get(key)!;
  return tensor(data).reshape(shape);
};
/** Slice t of a stored [steps, …] tensor. */
const slice = (key: string, t: number) => {
  const { data, shape } = store.get(key)!;
  const size = shape.slice(1).reduce((a, b) => a * b, 1);
  return { data: data.slice(t * size, (t + 1) * size) as Float32Array, shape: shape.slice(1) };
};

type Make = (params: Tensor[], k: Kwargs) => optim.Optimizer;
const sgd: Make = (params, k) =>
  new optim.SGD(params, { ...k, weightDecay: k.weight_decay ?? 0, lr: k.lr });
const adam = (k: Kwargs) => ({
  lr: k.lr,
  betas: k.betas,
  ...(k.eps === undefined ? {} : { eps: k.eps }),
  ...(k.weight_decay === undefined ? {} : { weightDecay: k.weight_decay }),
});
const covered: Readonly<Record<string, Make>> = {
  sgd,
  "sgd-momentum": sgd,
  "sgd-momentum-dampening-wd": sgd,
  "sgd-nesterov-wd": sgd,
  "sgd-maximize": sgd,
  adam: (params, k) => new optim.Adam(params, adam(k)),
  adamw: (params, k) => new optim.AdamW(params, adam(k)),
  "adamw-clip-norm": (params, k) => new optim.AdamW(params, adam(k)),
  "sgd-clip-norm-big": sgd,
  "adamw-cosine-warmup": (params, k) => new optim.AdamW(params, adam(k)),
};

function lossOf(W: Tensor, u: Tensor, K: Tensor): Tensor {
  const [A, Y, c] = [load(problem.A), load(problem.Y), load(problem.c)];
  const fit = A.matmul(W.T).sub(Y).square().mean().mul(0.5);
  const wave = u.cos().mul(c).sum().add(u.pow(4).sum().mul(0.05));
  const soft = K.mul(1.5).exp().add(1).log().sum().mul(0.3);
  return fit.add(wave).add(soft).add(W.sum().mul(u.sum()).mul(0.1));
}

describe.each(devices)("optimizers on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
  });

  const named = Object.entries(covered).map(([id, make]) => ({
    id,
    make,
    c: cases.find((x) => x.id === id)!,
  }));

  test.for(named)("$id: recorded gradients", async ({ make, c }) => {
    const names = Object.keys(c.tensors);
    const params = names.map((n) => parameter(load(problem.params[n]).detach()));
    const optimizer = make(params, c.kwargs);
    for (let t = 0; t < c.steps; t++) {
      optimizer.setLearningRate(c.lr[t]);
      names.forEach((n, i) => {
        // Clipping cases record the gradients after clipping too.
        const { data, shape } = slice(c.tensors[n].clipped_grads ?? c.tensors[n].grads, t);
        params[i].grad = tensor(data).reshape(shape);
      });
      optimizer.step();
      for (const [i, n] of names.entries()) {
        const want = slice(c.tensors[n].params, t + 1);
        expect(difference(await params[i].data(), want.data, c), `${n} after step ${t}`).toBeNull();
      }
    }
  });

  test("warm-up and cosine are those of transformers' schedule", () => {
    const { lr } = cases.find((x) => x.id === "adamw-cosine-warmup")!;
    const schedule = optim.warmupCosine({ peak: 0.1, steps: 6, warmup: 2 });
    expect(
      difference(
        lr.map((_, t) => schedule(t)),
        lr,
        { rtol: 1e-12, atol: 1e-12 },
      ),
    ).toBeNull();
  });

  test.for(named)("$id: with backward", async ({ id, make, c }) => {
    const params = ["W", "u", "K"].map((n) => parameter(load(problem.params[n]).detach()));
    const optimizer = make(params, c.kwargs);
    for (let t = 0; t < c.steps; t++) {
      optimizer.setLearningRate(c.lr[t]);
      optimizer.zeroGrad();
      const loss = lossOf(params[0], params[1], params[2]);
      loss.backward();
      if (id.includes("clip-norm")) {
        const norm = optim.clipGradNorm(params, c.clip_grad_norm.max_norm);
        expect(Math.abs(Number(await norm.item()) - c.total_norm[t])).toBeLessThan(
          1e-4 * c.total_norm[t],
        );
      }
      expect(Math.abs(Number(await loss.item()) - c.loss[t])).toBeLessThan(1e-4);
      optimizer.step();
    }
    for (const [i, n] of ["W", "u", "K"].entries()) {
      const want = slice(c.tensors[n].params, c.steps);
      const tolerance = { rtol: c.rtol * 5, atol: c.atol * 5 }; // gradients of our own on top
      expect(difference(await params[i].data(), want.data, tolerance), n).toBeNull();
    }
  });
});
