/** @file The sample that the design starts from, word for word: its imports, its class, its loop. */
import { compile, grad, nn, optim, random, type Tensor } from "hinode";
import { expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";

class Mlp extends nn.Module {
  up = new nn.Linear(784, 256);
  down = new nn.Linear(256, 10);
  forward(x: Tensor) {
    return this.down.forward(this.up.forward(x).gelu());
  }
}

onEachDevice("the design's sample", () => {
  test("trains", async () => {
    random.manualSeed(0);
    /** One batch, again and again: it can be learned by heart. */
    async function* repeated(times: number) {
      const x = random.randn([16, 784]);
      const y = random.randint(0, 10, [16]);
      for (let i = 0; i < times; i++) yield { x, y };
    }
    const batches = repeated(8);
    const losses: number[] = [];
    const log = (loss: number | boolean) => losses.push(Number(loss));

    const model = new Mlp();
    const adamw = new optim.AdamW(model.parameters(), { lr: 3e-4, weightDecay: 0.1 });

    const trainStep = compile((x: Tensor, y: Tensor) => {
      const loss = nn.crossEntropy(model.forward(x), y);
      adamw.zeroGrad();
      loss.backward();
      adamw.step();
      return loss;
    });

    for await (const { x, y } of batches) log(await trainStep(x, y).item());

    expect(losses.length).toBe(8);
    expect(losses[0]).toBeGreaterThan(2);
    expect(losses[7]).toBeLessThan(losses[0] / 2);
  });

  test("transforms nest beside it", async () => {
    const cube = (x: Tensor) => x.pow(3).sum();
    const second = grad((x: Tensor) => grad(cube)(x).sum());
    expect(await second(random.rand([2]).mul(0).add(2)).tolist()).toEqual([12, 12]);
  });
});
