/**
 * @file Optimizers against PyTorch's trajectories: fed with the recorded gradients, and together with backward; and learning-rate
 * schedules against its tables.
 */
import { init, type Tensor, tensor } from "hinode";
import { beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { devices } from "../support/devices.ts";
import { readSafetensors } from "../support/safetensors.ts";
import { fixture } from "./files.ts";
import {
  clip,
  judgeOptimizer,
  judgeSchedule,
  makeOptimizer,
  type OptimFile,
  startCase,
} from "./optimizers.ts";

const file: OptimFile = JSON.parse(new TextDecoder().decode(fixture("optim.json")));
const { cases, schedules, problem } = file;
const store = readSafetensors(fixture("optim.safetensors"));

const load = (key: string): Tensor => {
  const { data, shape } = store.get(key)!;
  return tensor(data).reshape(shape);
};

function lossOf({ W, u, K }: Record<string, Tensor>): Tensor {
  const [A, Y, c] = [load(problem.A), load(problem.Y), load(problem.c)];
  const fit = A.matmul(W.T).sub(Y).square().mean().mul(0.5);
  const wave = u.cos().mul(c).sum().add(u.pow(4).sum().mul(0.05));
  const soft = K.mul(1.5).exp().add(1).log().sum().mul(0.3);
  return fit.add(wave).add(soft).add(W.sum().mul(u.sum()).mul(0.1));
}

test("all of the file's cases run", () => {
  expect([cases.length, schedules.length]).toEqual([36, 24]);
});

describe.each(devices)("optimizers on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
  });

  // Each kernel takes SwiftShader 0.2 s: there, the optimizers whose kernels are like nothing else's.
  const some = [
    "adam",
    "adamw-clip-norm",
    "radam-rectified",
    "torch-adafactor",
    "muon-exact",
    "ema",
  ];
  const run = cases.filter(({ id }) => device !== "webgpu" || some.includes(id));

  test.for(run)("$id: recorded gradients", async (c) => {
    const { worst, where } = await judgeOptimizer(c, store);
    expect(worst, where).toBeLessThanOrEqual(1);
  });

  const trained = run.filter((c) => c.loss);
  test.for(device === "webgpu" ? [] : trained)("$id: with backward", async (c) => {
    const { params, optimizer } = startCase(c, store);
    // Parameters that the case leaves out stay as they are.
    const all = Object.fromEntries(
      Object.entries(problem.params).map(([n, key]) => [n, params[n] ?? load(key)]),
    );
    for (let t = 0; t < c.steps; t++) {
      if (c.lr[t] !== null) optimizer.setLearningRate(c.lr[t]!);
      optimizer.zeroGrad();
      const loss = lossOf(all);
      loss.backward();
      clip(c, Object.values(params));
      expect(Math.abs(Number(await loss.item()) - c.loss[t])).toBeLessThan(1e-4 + 2 * c.atol);
      optimizer.step();
    }
    for (const [n, p] of Object.entries(params)) {
      const { data, shape } = store.get(c.tensors[n].params)!;
      const want = data.slice(-data.length / shape[0]);
      // Gradients of our own on top.
      const tolerance = { rtol: c.rtol * 5, atol: c.atol * 5 };
      expect(difference(await p.data(), want, tolerance), n).toBeNull();
    }
  });
});

describe("schedules", () => {
  test.for(schedules)("$id $kwargs", (c) => {
    const { worst, where } = judgeSchedule(c);
    expect(worst, where).toBeLessThanOrEqual(1);
  });

  test("an unknown name and an unknown argument fail", () => {
    const p = tensor([1]);
    p.requiresGrad = true;
    expect(() => makeOptimizer("torch.optim.Nonesuch", {}, [p])).toThrow(/Nonesuch/);
    expect(() => makeOptimizer("torch.optim.SGD", { momentun: 1 }, [p])).toThrow(/momentun/);
  });
});
