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
    ["MultiStepLR", (o) => new optim.MultiStepLR(o, { milestones: [1, 3], gamma: 0.5 }), [0.1, 0.05, 0.05, 0.025]],
    ["PolynomialLR", (o) => new optim.PolynomialLR(o, { totalIters: 4, power: 2 }), [0.1, 0.05625, 0.025, 0.00625, 0, 0]],
    ["CosineAnnealingWarmRestarts", (o) => new optim.CosineAnnealingWarmRestarts(o, { t0: 2, tMult: 2, etaMin: 0.02 }), [0.1, 0.06, 0.1, 0.06 + 0.04 * Math.SQRT1_2, 0.06, 0.06 - 0.04 * Math.SQRT1_2, 0.1]],
    ["OneCycleLR", (o) => new optim.OneCycleLR(o, { maxLr: [1, 2], epochs: 2, stepsPerEpoch: 3, pctStart: 0.5, divFactor: 10, finalDivFactor: 10, annealStrategy: "linear", cycleMomentum: false }), [0.1, 0.55, 1, 0.67, 0.34, 0.01]],
    ["CyclicLR, slower down", (o) => new optim.CyclicLR(o, { baseLr: 1, maxLr: 4, stepSizeUp: 1, stepSizeDown: 3, cycleMomentum: false }), [1, 4, 3, 2, 1, 4]],
    ["CyclicLR, shrinking by step", (o) => new optim.CyclicLR(o, { baseLr: 0, maxLr: 2, stepSizeUp: 2, mode: "exp_range", gamma: 0.5, cycleMomentum: false }), [0, 0.5, 0.5, 0.125, 0]],
    ["CyclicLR with its own height", (o) => new optim.CyclicLR(o, { baseLr: 0, maxLr: 2, stepSizeUp: 1, scaleFn: (cycle) => 1 / cycle, cycleMomentum: false }), [0, 2, 0, 1, 0]],
    ["SequentialLR", (o) => new optim.SequentialLR(o, { schedulers: [new optim.ConstantLR(o, { factor: 0.1 }), new optim.ExponentialLR(o, { gamma: 0.5 })], milestones: [2] }), [0.01, 0.01, 0.1, 0.05, 0.025]],
    ["ChainedScheduler", (o) => new optim.ChainedScheduler(o, { schedulers: [new optim.ConstantLR(o, { factor: 0.1, totalIters: 2 }), new optim.ExponentialLR(o, { gamma: 0.5 })] }), [0.01, 0.005, 0.025, 0.0125]],
    ["constant after a warm-up", (o) => optim.getConstantScheduleWithWarmup(o, { numWarmupSteps: 2 }), [0, 0.05, 0.1, 0.1]],
    ["inverse square root, later", (o) => optim.getInverseSqrtSchedule(o, { numWarmupSteps: 1, timescale: 3 }), [0, 0.1, 0.1 * Math.sqrt(3 / 4), 0.1 * Math.sqrt(3 / 5)]],
    ["down to minLr", (o) => optim.getCosineWithMinLrScheduleWithWarmup(o, { numWarmupSteps: 0, numTrainingSteps: 2, minLr: 0.04 }), [0.1, 0.07, 0.04]],
    ["warm-up, stable, decay by roots", (o) => optim.getWsdSchedule(o, { numWarmupSteps: 2, numStableSteps: 2, numDecaySteps: 4, warmupType: "1-sqrt", decayType: "1-sqrt", minLrRatio: 0.2 }), [0.02, 0.02 + 0.08 * (1 - Math.SQRT1_2), 0.1, 0.1, 0.1, 0.06, 0.02 + 0.08 * (1 - Math.SQRT1_2), 0.02 + 0.08 * (1 - Math.sqrt(0.75)), 0.02, 0.02]],
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

describe("ReduceLROnPlateau", () => {
  /** The rates of the first group, from before the first metric on; resumed from its state after each step. */
  function rates(options: optim.PlateauOptions, metrics: number[]): number[] {
    let scheduler = new optim.ReduceLROnPlateau(make(1).optimizer, options);
    return [
      1,
      ...metrics.map((metric) => {
        scheduler.step(metric);
        const state = JSON.parse(JSON.stringify(scheduler.stateDict()));
        scheduler = new optim.ReduceLROnPlateau(make(7).optimizer, options);
        scheduler.loadStateDict(state);
        return scheduler.getLastLr()[0];
      }),
    ];
  }
  const options = { factor: 0.5, patience: 1 };

  test("waits, reduces, and waits again", () => {
    expect(rates(options, [5, 5, 5, 5, 4, 5, 5])).toEqual([1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]);
    // A gain below the threshold is none.
    expect(rates({ ...options, threshold: 0.5 }, [4, 3, 3, 1])).toEqual([1, 1, 1, 0.5, 0.5]);
    const absolute = { ...options, threshold: 0.5, thresholdMode: "abs" } as const;
    expect(rates(absolute, [4, 3.6, 3.6, 3.4])).toEqual([1, 1, 1, 0.5, 0.5]);
  });
  test("upwards, with a cool-down and a least rate", () => {
    expect(rates({ ...options, mode: "max" }, [1, 2, 3, 3, 3])).toEqual([1, 1, 1, 1, 1, 0.5]);
    const cooled = { ...options, patience: 0, cooldown: 2 };
    expect(rates(cooled, [1, 1, 1, 1, 1])).toEqual([1, 1, 0.5, 0.5, 0.5, 0.25]);
    expect(rates({ ...options, patience: 0, minLr: 0.3 }, [1, 1, 1, 1])).toEqual([
      1, 1, 0.5, 0.3, 0.3,
    ]);
    // The first group's least rate; the second's is below.
    const scheduler = new optim.ReduceLROnPlateau(make(1).optimizer, {
      ...options,
      patience: 0,
      minLr: [0.9, 0],
    });
    for (let i = 0; i < 2; i++) scheduler.step(1);
    expect(scheduler.getLastLr()).toEqual([0.9, 0.05]);
  });
  test("mistakes are named", () => {
    const { optimizer } = make();
    const plateau = new optim.ReduceLROnPlateau(optimizer);
    expect(() => plateau.step()).toThrow(/the metric, a number, got undefined/);
    expect(() => plateau.loadStateDict({ step: 1, baseRates: [1, 1] })).toThrow(/loadStateDict/);
    expect(() => new optim.ReduceLROnPlateau(optimizer, { factor: 1 })).toThrow(/factor < 1/);
    const highest = { mode: "highest" as "max" };
    expect(() => new optim.ReduceLROnPlateau(optimizer, highest)).toThrow(/got highest, rel/);
    const misspelt = { maxLr: 1, totalSteps: 9, annealStrategy: "cosine" as "cos" };
    expect(() => new optim.OneCycleLR(optimizer, misspelt)).toThrow(
      /"cos" or "linear", got cosine/,
    );
    expect(() => new optim.ReduceLROnPlateau(optimizer, { minLr: [1] })).toThrow(
      /2 numbers, got 1/,
    );
    expect(() => new optim.ChainedScheduler(optimizer, { schedulers: [plateau] })).toThrow(
      /the step alone/,
    );
    const two = [new optim.ConstantLR(optimizer), new optim.ConstantLR(optimizer)];
    expect(() => new optim.SequentialLR(optimizer, { schedulers: two, milestones: [] })).toThrow(
      /fewer/,
    );
    const cycle = new optim.OneCycleLR(optimizer, {
      maxLr: 1,
      totalSteps: 2,
      cycleMomentum: false,
    });
    for (let i = 0; i < 2; i++) cycle.step();
    expect(() => cycle.step()).toThrow(/2 steps, got step 3/);
    expect(() => new optim.OneCycleLR(optimizer, { maxLr: 1, epochs: 3 })).toThrow(
      /totalSteps > 0/,
    );
    expect(
      () => new optim.CyclicLR(optimizer, { baseLr: 1, maxLr: 2, mode: "square" as never }),
    ).toThrow(/a mode of/);
    const turning = { maxLr: 1, totalSteps: 2 };
    expect(() => new optim.OneCycleLR(optimizer, turning)).toThrow(/betas, or a momentum > 0/);
    const adam = new optim.Adam([nn.parameter(tensor([1]))]);
    const turns = new optim.OneCycleLR(adam, turning);
    expect(() => new optim.ChainedScheduler(adam, { schedulers: [turns] })).toThrow(
      /cycleMomentum: false/,
    );
    const training = { numWarmupSteps: 1, numTrainingSteps: 2 };
    expect(() => optim.getCosineWithMinLrScheduleWithWarmup(optimizer, training)).toThrow(
      /either minLr/,
    );
    expect(() =>
      optim.getPolynomialDecayScheduleWithWarmup(optimizer, { ...training, lrEnd: 1 }),
    ).toThrow(/lrEnd below/);
    expect(() => optim.getWsdSchedule(optimizer, { numWarmupSteps: 1, numDecaySteps: 1 })).toThrow(
      /numStableSteps/,
    );
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

  test("a cycle turns the momentum of a compiled step, also if it begins after the first call", async () => {
    const p = nn.parameter(tensor([0]));
    const sgd = new optim.SGD([p], { lr: 1, momentum: 0.5 });
    const step = compile((g: Tensor) => {
      p.grad = g;
      sgd.step();
      p.grad = null;
    });
    step(tensor([1]));
    const cycle = new optim.CyclicLR(sgd, { baseLr: 1, maxLr: 3, stepSizeUp: 2 });
    let [x, v] = [-1, 1];
    for (const [rate, momentum] of [
      [1, 0.9],
      [2, 0.85],
      [3, 0.8],
      [2, 0.85],
    ]) {
      step(tensor([1]));
      v = momentum * v + 1;
      x -= rate * v;
      cycle.step();
    }
    expect(await p.item()).toBeCloseTo(x, 4);
    expect(Object.keys(sgd.stateDict())).toContain("momentum.0");
  });

  test("a cycle turns the first of Adam's betas", async () => {
    const p = nn.parameter(tensor([0]));
    const adam = new optim.Adam([p], { lr: 1, eps: 0 });
    const cycle = new optim.CyclicLR(adam, { baseLr: 1, maxLr: 1, stepSizeUp: 2 });
    let [x, m, v] = [0, 0, 0];
    for (const [t, [beta, g]] of [
      [0.9, 1],
      [0.85, -2],
      [0.8, 1],
    ].entries()) {
      p.grad = tensor([g]);
      adam.step();
      cycle.step();
      m = beta * m + (1 - beta) * g;
      v = 0.999 * v + 0.001 * g * g;
      x -= m / (1 - beta ** (t + 1)) / Math.sqrt(v / (1 - 0.999 ** (t + 1)));
    }
    expect(await p.item()).toBeCloseTo(x, 4);
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
