/** @file Saving a run and resuming it: the same bits as without the interruption, whatever the step. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CheckpointError,
  compile,
  defaultGenerator,
  Generator,
  init,
  manualSeed,
  rand,
  randn,
  type Tensor,
  tensor,
  zeros,
} from "hinode";
import {
  Dropout,
  Linear,
  loadTraining,
  Module,
  optim,
  parameter,
  saveSafetensors,
  saveTraining,
} from "hinode/nn";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { devices } from "../support/devices.ts";

const folder = mkdtempSync(join(tmpdir(), "hinode-training-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

class Net extends Module {
  first = new Linear(6, 16);
  drop = new Dropout(0.3);
  second = new Linear(16, 3);
  /** A buffer that training changes. */
  seen: Tensor = zeros([], { dtype: "i32" });

  forward(x: Tensor): Tensor {
    this.seen.assign(this.seen.add(1));
    return this.second.forward(this.drop.forward(this.first.forward(x).relu()));
  }
}

const makers: Record<string, (net: Net) => optim.Optimizer> = {
  AdamW: (net) =>
    new optim.AdamW(
      [
        { params: [net.first.weight, net.second.weight], weightDecay: 0.1 },
        { params: [net.first.bias!, net.second.bias!], weightDecay: 0, lr: 0.02 },
      ],
      { lr: 0.01 },
    ),
  SGD: (net) => new optim.SGD(net.parameters(), { lr: 0.05, momentum: 0.9, nesterov: true }),
};

const STEPS = 20;

describe.each(devices)("resuming on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
  });

  /** A process's start: everything is made anew, from a seed that tells whether loading restores all. */
  function start(make: (net: Net) => optim.Optimizer, compiled: boolean, seed: number) {
    manualSeed(seed);
    const net = new Net();
    const optimizer = make(net);
    const step = (x: Tensor, y: Tensor): Tensor => {
      optimizer.zeroGrad();
      const loss = net.forward(x).sub(y).square().mean();
      loss.backward();
      optimizer.step();
      return loss;
    };
    return { net, optimizer, run: compiled ? compile(step) : step };
  }

  /** Steps `from` … STEPS − 1; data comes from the generator, the rate from the step. */
  async function train(
    { net, optimizer, run }: ReturnType<typeof start>,
    from: number,
    each?: (step: number) => Promise<void>,
  ): Promise<number[]> {
    for (let i = from; i < STEPS; i++) {
      await each?.(i);
      const rate = 0.05 / (i + 1);
      optimizer.setLearningRate(optimizer.groups.map((_, g) => rate / (g + 1)));
      // Not awaited at every step: resuming must not depend on when values are computed.
      const loss = run(randn([4, 6]), rand([4, 3]));
      if (i % 3 === 0) await loss.item();
    }
    const states = { ...net.stateDict(), ...optimizer.stateDict() };
    const all: number[] = [];
    for (const t of Object.values(states)) {
      const data = await t.data();
      all.push(...new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    }
    return all;
  }

  const path = (name: string, k: number) => join(folder, `${device}-${name}-${k}.safetensors`);

  test.each([
    ["AdamW", "compiled"],
    ["AdamW", "eager"],
    ["SGD", "compiled"],
    ["SGD", "eager"],
  ])("%s, %s: a kill at any of 20 steps changes no bit", async (name, mode) => {
    const compiled = mode === "compiled";
    const whole = await train(start(makers[name], compiled, 1), 0);
    const other = await train(start(makers[name], compiled, 2), 0);
    expect(other).not.toEqual(whole);
    // Saving every step changes nothing either.
    const saving = start(makers[name], compiled, 1);
    const saved = await train(saving, 0, (step) =>
      saveTraining(path(name + mode, step), {
        model: saving.net,
        optimizer: saving.optimizer,
        step,
        extra: { seen: [step, null, "é"] },
      }),
    );
    expect(saved).toEqual(whole);
    for (let k = 0; k < STEPS; k++) {
      const { net, optimizer, run } = start(makers[name], compiled, 99);
      const { step, extra } = await loadTraining(path(name + mode, k), { model: net, optimizer });
      expect([step, extra]).toEqual([k, { seen: [k, null, "é"] }]);
      expect(await train({ net, optimizer, run }, step), `resumed at step ${k}`).toEqual(whole);
    }
  });

  test("loading replaces what a run has done already, compiled steps included", async () => {
    const file = path("again", 0);
    const run = start(makers.AdamW, true, 1);
    const parts = { model: run.net, optimizer: run.optimizer };
    await saveTraining(file, { ...parts, step: 0 });
    const once = await train(run, 0);
    expect(await loadTraining(file, parts)).toEqual({ step: 0, extra: undefined });
    expect(await train(run, 0)).toEqual(once);
  });

  test("a generator of its own is saved with its seed and place", async () => {
    const net = new Linear(2, 2);
    const optimizer = new optim.Adam(net.parameters());
    const generator = new Generator(2 ** 40 + 7);
    await rand([3], { generator }).data();
    const file = path("generator", 0);
    await saveTraining(file, { model: net, optimizer, generator, step: 3 });
    const next = await rand([3], { generator }).data();
    const resumed = new Generator();
    const before = defaultGenerator.state;
    await loadTraining(file, { model: net, optimizer, generator: resumed });
    expect(await rand([3], { generator: resumed }).data()).toEqual(next);
    expect(defaultGenerator.state).toEqual(before);
  });

  test("a scheduler is saved and restored: the same rates, the same bits", async () => {
    const begin = (seed: number) => {
      const run = start(makers.AdamW, true, seed);
      const scheduler = new optim.WarmupCosineLR(run.optimizer, { steps: 12, warmup: 3 });
      return { ...run, scheduler, parts: { model: run.net, optimizer: run.optimizer, scheduler } };
    };
    const go = async (
      { net, run, scheduler }: ReturnType<typeof begin>,
      from: number,
      to: number,
    ) => {
      for (let i = from; i < to; i++) {
        run(randn([4, 6]), rand([4, 3]));
        scheduler.step();
      }
      return [...(await net.first.weight.data()), ...scheduler.getLastLr()];
    };
    const file = path("scheduler", 0);
    const whole = begin(1);
    await go(whole, 0, 5);
    await saveTraining(file, { ...whole.parts, step: 5 });
    const want = await go(whole, 5, 10);
    const resumed = begin(2);
    await loadTraining(file, resumed.parts);
    expect(resumed.scheduler.stateDict()).toEqual({ step: 5, baseRates: [0.01, 0.02] });
    expect(await go(resumed, 5, 10)).toEqual(want);
    // Parts that do not match are named, and nothing changes.
    const { scheduler: _, ...without } = resumed.parts;
    await expect(loadTraining(file, without)).rejects.toThrow(
      /no state of a scheduler, got one.*the same parts/s,
    );
    await saveTraining(file, { ...without, step: 1 });
    await expect(loadTraining(file, resumed.parts)).rejects.toThrow(/the state .*, got none/);
    const bad = { step: 1, baseRates: [0.5] };
    const parameters = ["first.weight", "second.weight", "first.bias", "second.bias"];
    const record = { version: 1, step: 1, generator: { seed: 1, counter: 2 }, parameters };
    await saveSafetensors(
      file,
      {},
      { "hinode.training": JSON.stringify({ ...record, scheduler: bad }) },
    );
    await expect(loadTraining(file, resumed.parts)).rejects.toThrow(/step and base rates/);
    expect(resumed.scheduler.stateDict().step).toBe(10);
  });

  test("what does not fit is an error, and then nothing changes", async () => {
    const file = path("misfit", 0);
    const { net, optimizer } = start(makers.AdamW, false, 1);
    await saveTraining(file, { model: net, optimizer, step: 3 });
    const { net: fresh } = start(makers.AdamW, false, 5);
    const before = await fresh.first.weight.data();
    const place = defaultGenerator.state;
    const load = (make: (net: Net) => optim.Optimizer, path = file) =>
      loadTraining(path, { model: fresh, optimizer: make(fresh) });
    await expect(load((n) => new optim.AdamW(n.parameters()))).rejects.toThrow(
      /an optimizer of first\.weight, second\.weight, .* got first\.weight, first\.bias/,
    );
    const sgd = load((n) => {
      const { groups } = makers.AdamW(n);
      return new optim.SGD(
        groups.map(({ params }) => ({ params })),
        { lr: 1, momentum: 0.5 },
      );
    });
    await expect(sgd).rejects.toThrow(CheckpointError);
    await expect(sgd).rejects.toThrow(
      /missing: optimizer\.velocity\.0.*\n.*unexpected: optimizer\.mean\.0/,
    );
    await expect(
      load((n) => new optim.AdamW([...makers.AdamW(n).groups.flatMap((g) => g.params)])),
    ).rejects.toThrow(/unexpected: optimizer\.lr\.1/);
    const weights = path("weights", 0);
    await saveSafetensors(weights, net.stateDict());
    await expect(load(makers.AdamW, weights)).rejects.toThrow(/a training state.*loadModel/s);
    const good = { version: 1, step: 1, generator: { seed: 1, counter: 2 }, parameters: [] };
    for (const bad of [
      "{",
      "null",
      "[]",
      JSON.stringify({ ...good, version: 2 }),
      JSON.stringify({ ...good, step: -1 }),
      JSON.stringify({ ...good, generator: { seed: 0.5, counter: 0 } }),
      JSON.stringify({ ...good, parameters: [1] }),
      JSON.stringify(good),
    ]) {
      await saveSafetensors(weights, {}, { "hinode.training": bad });
      await expect(load(makers.AdamW, weights), bad).rejects.toThrow(CheckpointError);
    }
    expect(await fresh.first.weight.data()).toEqual(before);
    expect(defaultGenerator.state).toEqual(place);
    const outside = new optim.SGD([parameter(tensor([1]))], { lr: 1 });
    await expect(saveTraining(file, { model: net, optimizer: outside, step: 0 })).rejects.toThrow(
      /parameter 0, f32\[1\], which is not in the model/,
    );
  });
});

describe.each(devices)("parameter groups and state on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
  });

  test("each group trains as an optimizer of its own would", async () => {
    const values = [
      [1, -2],
      [3, 0.5],
      [-1, 4],
    ];
    const make = () => values.map((v) => parameter(tensor(v)));
    const [a, b, c] = make();
    const [x, y, z] = make();
    const together = new optim.AdamW(
      [{ params: [a] }, { params: [b, c], lr: 0.1, weightDecay: 0.5, betas: [0.5, 0.9] }],
      { lr: 0.01 },
    );
    const apart = [
      new optim.AdamW([x], { lr: 0.01 }),
      new optim.AdamW([y, z], { lr: 0.1, weightDecay: 0.5, betas: [0.5, 0.9] }),
    ];
    const loss = (list: Tensor[]) => list.reduce((s, p) => s.add(p.square().sum()), zeros([]));
    for (let i = 0; i < 4; i++) {
      for (const o of [together, ...apart]) o.zeroGrad();
      loss([a, b, c]).backward();
      loss([x, y, z]).backward();
      for (const o of [together, ...apart]) o.step();
      if (i === 1) {
        together.setLearningRate([0.02, 0.2]);
        apart[0].setLearningRate(0.02);
        apart[1].setLearningRate(0.2);
      }
    }
    for (const [p, q] of [
      [a, x],
      [b, y],
      [c, z],
    ])
      expect(await p.data()).toEqual(await q.data());
    expect(together.params).toEqual([a, b, c]);
    together.setLearningRate(0.5);
    for (const { lr } of together.groups) expect(await lr.item()).toBe(0.5);
  });

  test("mistakes", () => {
    const p = parameter(tensor([1]));
    const groups = [{ params: [p] }, { params: [p] }];
    expect(() => new optim.Adam(groups)).toThrow(/each parameter once/);
    expect(() => new optim.Adam([{ params: [] }])).toThrow(/at least one parameter/);
    expect(() => new optim.Adam([{ params: [p], lr: -1 }])).toThrow(/lr ≥ 0, got -1/);
    expect(() => new optim.Adam([{ params: [p], betas: [1, 0] }])).toThrow(/betas\[0\]/);
    expect(() => new optim.Adam([p]).setLearningRate([1, 2])).toThrow(/1 rates, got 2/);
  });

  test("a state dict is a snapshot, loads into an equal optimizer, and refuses another's", async () => {
    const p = parameter(tensor([1, 2]));
    const adam = new optim.Adam([p], { lr: 0.1 });
    p.square().sum().backward();
    adam.step();
    const state = adam.stateDict();
    expect(Object.keys(state)).toEqual(["steps", "lr.0", "mean.0", "square.0"]);
    adam.step();
    const q = parameter(tensor([5, 5]));
    const other = new optim.Adam([q], { lr: 0.5 });
    other.loadStateDict(state);
    expect(await other.steps.tolist()).toEqual([1]);
    expect(await other.lr.item()).toBe(Math.fround(0.1));
    expect(await other.mean[0].data()).toEqual(await state["mean.0"].data());
    expect(await adam.steps.tolist()).toEqual([2]);
    const sgd = new optim.SGD([q], { lr: 1 });
    expect(() => sgd.loadStateDict(state)).toThrow(
      /SGD\.loadStateDict.*mean\.0: nothing.*f32\[2\]/,
    );
    expect(() => adam.loadStateDict({ ...state, "mean.0": zeros([3]) })).toThrow(
      /mean\.0: f32\[2\], got f32\[3\]/,
    );
  });
});
