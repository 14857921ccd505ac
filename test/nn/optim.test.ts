import { compile, init, manualSeed, randn, type Tensor, tensor } from "hinode";
import { Linear, optim, parameter } from "hinode/nn";
import { beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { devices } from "../support/devices.ts";

describe.each(devices)("optimizers on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
  });

  const make: Record<string, (p: Tensor[]) => optim.Optimizer> = {
    SGD: (p) => new optim.SGD(p, { lr: 0.1, momentum: 0.9, dampening: 0.1, weightDecay: 0.01 }),
    Adam: (p) => new optim.Adam(p, { lr: 0.01, weightDecay: 0.01 }),
    AdamW: (p) => new optim.AdamW(p, { lr: 0.01 }),
  };

  test.each(Object.keys(make))("%s: a compiled step trains as the eager one", async (name) => {
    const train = async (compiled: boolean): Promise<number[]> => {
      manualSeed(3);
      const model = new Linear(4, 3);
      const optimizer = make[name](model.parameters());
      const step = (x: Tensor, y: Tensor): Tensor => {
        const loss = model.forward(x).sub(y).square().mean();
        optimizer.zeroGrad();
        loss.backward();
        optim.clipGradNorm(model.parameters(), 1);
        optimizer.step();
        return loss;
      };
      const run = compiled ? compile(step) : step;
      const [x, y] = [randn([8, 4]), randn([8, 3])];
      const losses: number[] = [];
      for (let i = 0; i < 5; i++) {
        optimizer.setLearningRate(0.05 / (i + 1));
        losses.push(Number(await run(x, y).item()));
      }
      return losses;
    };
    const [compiled, eager] = [await train(true), await train(false)];
    expect(difference(compiled, eager, { rtol: 1e-5, atol: 1e-6 })).toBeNull();
    expect(compiled[4]).toBeLessThan(compiled[0]);
  });

  test("parameters without a gradient stay", async () => {
    const [a, b] = [parameter(tensor([1])), parameter(tensor([1]))];
    const adamw = new optim.AdamW([a, b], { lr: 0.1 });
    a.mul(2).sum().backward();
    adamw.step();
    expect(await a.item()).toBeLessThan(1);
    expect(await b.item()).toBe(1);
    adamw.zeroGrad();
    expect(a.grad).toBeNull();
  });

  test("a parameter that joins late starts its own count", async () => {
    for (const compiled of [false, true]) {
      const [a, b] = [parameter(tensor([1])), parameter(tensor([1]))];
      const adam = new optim.Adam([a, b], { lr: 0.01 });
      const part = () => {
        adam.zeroGrad();
        a.mul(2).sum().backward();
        adam.step();
      };
      const run = compiled ? compile(part) : part;
      for (let i = 0; i < 20; i++) await run();
      adam.zeroGrad();
      a.add(b).sum().backward();
      adam.step();
      // The first update is lr·g/|g|, whenever it comes.
      expect(await b.item()).toBeCloseTo(0.99, 6);
      expect([...(await adam.steps.data())]).toEqual([21, 1]);
      adam.zeroGrad();
      adam.step();
      expect([...(await adam.steps.data())]).toEqual([21, 1]);
    }
  });

  test("clipping leaves a small gradient alone and scales a large one to the norm", async () => {
    const p = parameter(tensor([3, 4]));
    p.square().sum().mul(0.5).backward(); // gradient = p, norm 5
    expect(await optim.clipGradNorm([p], 10).item()).toBeCloseTo(5, 5);
    expect(difference(await p.grad!.data(), [3, 4], { rtol: 1e-6, atol: 0 })).toBeNull();
    optim.clipGradNorm([p], 1);
    expect(difference(await p.grad!.data(), [0.6, 0.8], { rtol: 1e-5, atol: 0 })).toBeNull();
  });

  test("norms of any kind, and clipping by value", async () => {
    const params = [tensor([3, -4]), tensor([[12]])].map(parameter);
    const give = () => {
      for (const p of params) p.grad = p.detach();
    };
    const norms: [number, number][] = [
      [1, 19],
      [2, 13],
      [3, (27 + 64 + 1728) ** (1 / 3)],
      [Infinity, 12],
    ];
    for (const [normType, want] of norms) {
      give();
      const norm = optim.clipGradNorm(params, want / 2, { normType });
      expect(Number(await norm.item()) / want).toBeCloseTo(1, 5);
      expect(await params[1].grad!.item()).toBeCloseTo(6, 4);
    }
    give();
    optim.clipGradValue(params, 3.5);
    expect([...(await params[0].grad!.data())]).toEqual([3, -3.5]);
    expect(await params[1].grad!.item()).toBe(3.5);
  });

  test("errorIfNonfinite: the norm is read, and nothing is clipped if it is not finite", async () => {
    const p = parameter(tensor([3, 4]));
    p.grad = tensor([3, 4]);
    const options = { errorIfNonfinite: true } as const;
    expect(await (await optim.clipGradNorm([p], 1, options)).item()).toBeCloseTo(5, 5);
    expect(difference(await p.grad!.data(), [0.6, 0.8], { rtol: 1e-5, atol: 0 })).toBeNull();
    p.grad = tensor([3, Number.NaN]);
    await expect(optim.clipGradNorm([p], 1, options)).rejects.toThrow(/finite norm, got NaN/);
    expect([...(await p.grad!.data())]).toEqual([3, Number.NaN]);
  });

  test("mistakes are named", () => {
    expect(() => optim.getTotalNorm([tensor([1])], { normType: 0 })).toThrow(/normType > 0/);
    expect(() => optim.clipGradValue([parameter(tensor([1]))], 1)).toThrow(/backward/);
    expect(() => optim.clipGradNorm([parameter(tensor([1]))], -1)).toThrow(/a limit ≥ 0/);
    expect(() => new optim.AdamW([])).toThrow(/at least one parameter/);
    expect(() => new optim.AdamW([tensor([1])])).toThrow(/require a gradient/);
    expect(() => new optim.SGD([parameter(tensor([1]))], { lr: -1 })).toThrow(/lr ≥ 0/);
    expect(() => new optim.Adam([parameter(tensor([1]))], { betas: [1, 0.9] })).toThrow(
      /betas\[0\]/,
    );
    expect(() => optim.clipGradNorm([parameter(tensor([1]))], 1)).toThrow(/backward/);
  });
});
