/** @file A steady training loop plans nothing after its first steps, whatever changes that is no shape: rates, masks, values. */
import {
  compile,
  crossEntropy,
  defaultDevice,
  manualSeed,
  noGrad,
  randint,
  randn,
  type Tensor,
} from "hinode";
import { Dropout, LayerNorm, Linear, Module, optim } from "hinode/nn";
import { expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";

class Classifier extends Module {
  up = new Linear(6, 12);
  norm = new LayerNorm([12]);
  drop = new Dropout(0.1);
  down = new Linear(12, 3);

  forward(x: Tensor): Tensor {
    return this.down.forward(this.drop.forward(this.norm.forward(this.up.forward(x)).gelu()));
  }
}

onEachDevice("steady loops", () => {
  test.each(["compiled", "eager"])("%s training plans in its first steps only", async (how) => {
    manualSeed(5);
    const model = new Classifier();
    const parameters = model.parameters();
    const adamw = new optim.AdamW(parameters, { lr: 0.01 });
    const body = (x: Tensor, y: Tensor): Tensor => {
      const loss = crossEntropy(model.forward(x), y);
      adamw.zeroGrad();
      loss.backward();
      optim.clipGradNorm(parameters, 1);
      adamw.step();
      return loss;
    };
    const evaluate = (x: Tensor): Tensor => noGrad(() => model.eval().forward(x)).argmax(-1);
    const [step, guess] =
      how === "compiled" ? [compile(body), compile(evaluate)] : [body, evaluate];
    const device = defaultDevice();
    const counts: { plans: number; runs: number }[] = [];
    for (let i = 0; i < 8; i++) {
      adamw.setLearningRate(0.01 / (i + 1));
      model.train();
      await step(randn([4, 6]), randint(0, 3, [4])).item();
      await guess(randn([2, 6])).data();
      // Another program's values, as after loading a checkpoint.
      if (i === 5) noGrad(() => parameters.forEach((p) => void p.assign(p.mul(0.5))));
      const { plansPrepared: plans, runs } = device.statistics();
      counts.push({ plans, runs });
    }
    // The first step makes the state; the one after loading runs one plan more.
    expect(counts[5].plans).toBe(counts[1].plans);
    expect(counts[7].plans).toBe(counts[6].plans);
    expect(counts[7].runs).toBeGreaterThan(counts[6].runs);
  });
});
