/** @file Learning-rate schedules: PyTorch's numbers, the effect on the optimizer, state, and mistakes. */
import { compile, nn, optim, type Tensor, tensor } from "hinode";
import { describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const make = (lr = 0.1) => {
  const [a, b] = [nn.parameter(tensor([1])), nn.parameter(tensor([1]))];
  const optimizer = new optim.SGD([{ params: [a] }, { params: [b], lr: lr / 10 }], { lr });
  return { a, b, optimizer };
};

describe("rates", () => {
  // biome-ignore format: a table
  /** The first rates of torch.optim.lr_scheduler's classes with base rate 0.1. */
  const cases: [string, (o: optim.Optimizer) => optim.LRScheduler, number[]][] = [
    ["ConstantLR", (o) => new optim.ConstantLR(o), [0.1 / 3, 0.1 / 3, 0.1 / 3, 0.1 / 3, 0.1 / 3, 0.1]],
    ["ConstantLR with factor 1", (o) => new optim.ConstantLR(o, { factor: 1 }), [0.1, 0.1, 0.1]],
    ["ConstantLR for a while", (o) => new optim.ConstantLR(o, { factor: 0.5, totalIters: 2 }), [0.05, 0.05, 0.1, 0.1]],
    ["LinearLR", (o) => new optim.LinearLR(o, { startFactor: 0.5, totalIters: 4 }), [0.05, 0.0625, 0.075, 0.0875, 0.1, 0.1]],
    ["StepLR", (o) => new optim.StepLR(o, { stepSize: 2, gamma: 0.5 }), [0.1, 0.1, 0.05, 0.05, 0.025]],
    ["ExponentialLR", (o) => new optim.ExponentialLR(o, { gamma: 0.5 }), [0.1, 0.05, 0.025]],
    ["CosineAnnealingLR", (o) => new optim.CosineAnnealingLR(o, { tMax: 4, etaMin: 0.02 }), [0.1, 0.06 + 0.04 * Math.SQRT1_2, 0.06, 0.06 - 0.04 * Math.SQRT1_2, 0.02]],
    ["WarmupCosineLR", (o) => new optim.WarmupCosineLR(o, { steps: 6, warmup: 2 }), [0, 0.05, 0.1, 0.05 * (1 + Math.SQRT1_2), 0.05, 0.05 * (1 - Math.SQRT1_2), 0, 0]],
    ["LambdaLR", (o) => new optim.LambdaLR(o, (step) => 1 / (step + 1)), [0.1, 0.05, 0.1 / 3]],
    ["LambdaLR per group", (o) => new optim.LambdaLR(o, [(step) => step, () => 1]), [0, 0.1, 0.2]],
  ];

  test.each(cases)("%s", (_, schedule, want) => {
    const { optimizer } = make();
    const scheduler = schedule(optimizer);
    const rates = want.map((_, i) => {
      if (i > 0) scheduler.step();
      return scheduler.getLastLr()[0];
    });
    expect(difference(rates, want, { rtol: 1e-12, atol: 1e-15 })).toBeNull();
  });
});

onEachDevice("schedulers", () => {
  test("set the rates of all groups, at once and at each step, also of a compiled step", async () => {
    const { a, b, optimizer } = make();
    const step = compile(() => {
      optimizer.zeroGrad();
      a.add(b).sum().backward();
      optimizer.step();
    });
    const scheduler = new optim.StepLR(optimizer, { stepSize: 1, gamma: 0.5 });
    let [want, wantB] = [1, 1];
    for (let i = 0; i < 4; i++) {
      step();
      want -= 0.1 * 0.5 ** i;
      wantB -= 0.01 * 0.5 ** i;
      scheduler.step();
    }
    expect(await a.item()).toBeCloseTo(want, 6);
    expect(await b.item()).toBeCloseTo(wantB, 6);
    expect(await optimizer.groups[1].lr.item()).toBeCloseTo(0.01 / 16, 9);
  });

  test("state: a fresh scheduler goes on where the saved one was", async () => {
    const first = make();
    const scheduler = new optim.LinearLR(first.optimizer, { totalIters: 10 });
    for (let i = 0; i < 3; i++) scheduler.step();
    const state = JSON.parse(JSON.stringify(scheduler.stateDict()));
    expect(state).toEqual({ step: 3, baseRates: [0.1, 0.01] });
    const second = make(5);
    const resumed = new optim.LinearLR(second.optimizer, { totalIters: 10 });
    second.optimizer.loadStateDict(first.optimizer.stateDict());
    resumed.loadStateDict(state);
    expect(resumed.getLastLr()).toEqual(scheduler.getLastLr());
    for (const s of [scheduler, resumed]) s.step();
    expect(await second.optimizer.lr.item()).toBe(await first.optimizer.lr.item());
    for (const bad of [null, {}, { step: -1, baseRates: [1, 1] }, { step: 1, baseRates: [1] }])
      expect(() => resumed.loadStateDict(bad as unknown as optim.SchedulerState)).toThrow(
        /LinearLR\.loadStateDict: expected a step ≥ 0 and 2 base rates/,
      );
  });

  test("a step inside a compiled function is refused: a replay would not repeat it", () => {
    const { optimizer } = make();
    const scheduler = new optim.ConstantLR(optimizer);
    const run = compile((x: Tensor) => {
      scheduler.step();
      return x;
    });
    expect(() => run(tensor([1]))).toThrow(/after the compiled step/);
    expect(() => new optim.LambdaLR(optimizer, [() => 1])).toThrow(/2 functions, got 1/);
  });
});
