/** @file Gradient accumulation: k micro-batches, several calls, one update, as with the whole batch at once. */
import { compile, manualSeed, nn, optim, randn, type Tensor } from "hinode";
import { expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

onEachDevice("accumulation", () => {
  const STEPS = 3;
  const MICRO = 4;

  /** Parameters after some steps. `calls`: how the micro-batches of a step are run. */
  async function train(
    calls: (parts: {
      model: nn.Sequential;
      adamw: optim.AdamW;
      backward: (x: Tensor, y: Tensor, share: number) => Tensor;
      update: () => Tensor;
    }) => (x: Tensor, y: Tensor) => void,
  ): Promise<number[]> {
    manualSeed(4);
    const model = new nn.Sequential(
      new nn.Linear(5, 16),
      (x) => x.gelu(),
      new nn.LayerNorm(16),
      new nn.Linear(16, 2),
    );
    const adamw = new optim.AdamW(model.parameters(), { lr: 0.05 });
    const backward = (x: Tensor, y: Tensor, share: number) => {
      const loss = nn.mseLoss(model.forward(x), y).mul(share);
      loss.backward();
      return loss;
    };
    const update = () => {
      const norm = optim.clipGradNorm(model.parameters(), 1);
      adamw.step();
      adamw.zeroGrad();
      return norm;
    };
    const step = calls({ model, adamw, backward, update });
    for (let i = 0; i < STEPS; i++) step(randn([8, 5]), randn([8, 2]));
    const values = await Promise.all(model.parameters().map((p) => p.data()));
    return values.flatMap((v) => [...v]);
  }

  const micro = (x: Tensor, i: number) => x.narrow(0, (8 / MICRO) * i, 8 / MICRO);

  test("over several compiled calls, in one compiled call, and eagerly equals the whole batch", async () => {
    const whole = await train(({ backward, update }) =>
      compile((x: Tensor, y: Tensor) => {
        backward(x, y, 1);
        return update();
      }),
    );
    const several = await train(({ backward, update }) => {
      const accumulate = compile((x: Tensor, y: Tensor) => backward(x, y, 1 / MICRO));
      const apply = compile(update);
      return (x, y) => {
        for (let i = 0; i < MICRO; i++) accumulate(micro(x, i), micro(y, i));
        apply();
      };
    });
    const inside = await train(({ backward, update }) =>
      compile((x: Tensor, y: Tensor) => {
        for (let i = 0; i < MICRO; i++) backward(micro(x, i), micro(y, i), 1 / MICRO);
        return update();
      }),
    );
    const eager = await train(({ backward, update }) => (x, y) => {
      for (let i = 0; i < MICRO; i++) backward(micro(x, i), micro(y, i), 1 / MICRO);
      update();
    });
    const close = { rtol: 1e-4, atol: 1e-5 };
    for (const other of [several, inside, eager])
      expect(difference(other, whole, close)).toBeNull();
  });

  test("one plan for the first micro-batch, one for the others", async () => {
    let traces = 0;
    await train(({ backward, update }) => {
      const accumulate = compile((x: Tensor, y: Tensor) => {
        traces++;
        return backward(x, y, 1 / MICRO);
      });
      const apply = compile(update);
      return (x, y) => {
        for (let i = 0; i < MICRO; i++) accumulate(micro(x, i), micro(y, i));
        apply();
      };
    });
    expect(traces).toBe(2);
  });
});
