/** @file Averages of weights: formulas, swapping in and out, compiled, with a scaler's dtype, in a saved run. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compile, noGrad, type Tensor, tensor } from "hinode";
import { loadTraining, Module, optim, parameter, saveTraining } from "hinode/nn";
import { afterAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const folder = mkdtempSync(join(tmpdir(), "hinode-average-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

class Net extends Module {
  weight = parameter(tensor([1, 2]));
  running = tensor([0]);
}

/** Weights and buffer of update t, from 0 on. */
const values = (t: number) => ({ weight: [t + 2, 2 * t - 3], running: 10 * (t + 1) });

const assign = (net: Net, t: number): void =>
  noGrad(() => {
    net.weight.assign(tensor(values(t).weight));
    net.running.assign(tensor(values(t).running));
  });

onEachDevice("averages", () => {
  const numbers = async (x: Tensor) => [...(await x.data())].map(Number);
  const close = (got: number[], want: number[]) =>
    expect(difference(got, want, { rtol: 1e-5, atol: 1e-6 })).toBeNull();

  const cases: [string, optim.AveragingOptions, (t: number) => number][] = [
    ["equal weights", { useBuffers: true }, (t) => 1 / (t + 1)],
    ["exponential", { decay: 0.75, useBuffers: true }, (t) => (t === 0 ? 1 : 0.25)],
    // min(0.3, (1 + t) / (10 + t)) reaches 0.3 at t = 3.
    [
      "warmed up",
      { decay: 0.3, warmup: true, useBuffers: true },
      (t) => (t === 0 ? 1 : Math.max(0.7, 9 / (10 + t))),
    ],
  ];
  test.each(cases)("%s: eager and compiled", async (_, options, share) => {
    for (const compiled of [false, true]) {
      const net = new Net();
      const average = new optim.AveragedModel(net, options);
      const update = compiled
        ? compile(() => average.updateParameters())
        : () => average.updateParameters();
      let want = [Number.NaN, Number.NaN, Number.NaN];
      for (let t = 0; t < 5; t++) {
        assign(net, t);
        update();
        const now = [...values(t).weight, values(t).running];
        want = t === 0 ? now : want.map((x, i) => x + (now[i] - x) * share(t));
      }
      const got = [...average.averages.values()];
      close([...(await numbers(got[0])), ...(await numbers(got[1]))], want);
      expect(await average.updates.item()).toBe(5);
    }
  });

  test("the model has them for a while, also when that fails; buffers stay its own", async () => {
    const net = new Net();
    const average = new optim.AveragedModel(net, { decay: 0.5 });
    for (let t = 0; t < 2; t++) {
      assign(net, t);
      average.updateParameters();
    }
    const inside = await average.averaged(async () => [
      await numbers(net.weight),
      await numbers(net.running),
    ]);
    expect(inside).toEqual([[2.5, -2], [20]]);
    expect(await numbers(net.weight)).toEqual([3, -1]);
    expect(net.weight.requiresGrad).toBe(true);
    await expect(average.averaged(() => Promise.reject(new Error("no")))).rejects.toThrow("no");
    expect(await numbers(net.weight)).toEqual([3, -1]);
    expect(() => average.restore()).toThrow(/store\(\) before/);
    average.copyTo();
    expect(await numbers(net.weight)).toEqual([2.5, -2]);
  });

  test("the average of halves has more digits than they do", async () => {
    const net = new Net().to("bf16");
    const average = new optim.AveragedModel(net, { decay: 0.999 });
    noGrad(() => net.weight.assign(tensor([1, 1])));
    average.updateParameters();
    noGrad(() => net.weight.assign(tensor([2, 2])));
    average.updateParameters();
    close(await numbers(average.averages.get("weight")!), [1.001, 1.001]);
    average.copyTo();
    expect(net.weight.dtype).toBe("bf16");
  });

  test("a saved run has the average", async () => {
    const start = () => {
      const net = new Net();
      const optimizer = new optim.SGD([net.weight], { lr: 0.1 });
      const average = new optim.AveragedModel(net, { decay: 0.9 });
      const step = () => {
        optimizer.zeroGrad();
        net.weight.square().sum().backward();
        optimizer.step();
        average.updateParameters();
      };
      return { parts: { model: net, optimizer, average }, step };
    };
    const path = join(folder, "run.safetensors");
    const first = start();
    for (let t = 0; t < 3; t++) first.step();
    await saveTraining(path, { ...first.parts, step: 3 });
    const second = start();
    await loadTraining(path, second.parts);
    for (const { step } of [first, second]) step();
    const [a, b] = [first, second].map(({ parts }) => parts.average.averages.get("weight")!);
    expect(await numbers(b)).toEqual(await numbers(a));
    const { model, optimizer } = start().parts;
    await expect(loadTraining(path, { model, optimizer })).rejects.toThrow(
      /no state of an average, got one/,
    );
  });
});

describe("mistakes", () => {
  test("are named", () => {
    expect(() => new optim.AveragedModel(new Net(), { decay: 1.5 })).toThrow(/decay ≤ 1/);
    expect(() => new optim.AveragedModel(new Net(), { warmup: true })).toThrow(
      /warmup only with it/,
    );
    const average = new optim.AveragedModel(new Net());
    expect(() => average.loadStateDict({})).toThrow(/AveragedModel\.loadStateDict/);
  });
});
