/** @file summary(): shapes, counts and costs by hand, of models that are never run. */
import { defaultDevice, manualSeed, rand, randn, type Tensor, zeros } from "hinode";
import {
  BatchNorm2d,
  Conv2d,
  Dropout,
  LayerNorm,
  Linear,
  LSTM,
  MLP,
  Module,
  Sequential,
  summary,
} from "hinode/nn";
import { expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";

class Net extends Module {
  up = new Linear(4, 8);
  blocks = [new MLP(8, 16), new MLP(8, 16)];
  norm = new LayerNorm(8);
  dropout = new Dropout(0.5);
  head = new Linear(8, 4, { bias: false });

  constructor() {
    super();
    // A shared layer, used twice.
    this.blocks[1].down = this.blocks[0].down;
    this.head.requiresGrad_(false);
  }

  forward(x: Tensor): Tensor {
    let y = this.up.forward(x);
    for (const block of this.blocks) y = y.add(block.forward(y));
    return this.head.forward(this.dropout.forward(this.norm.forward(y)));
  }
}

onEachDevice("summary", () => {
  test("rows, shapes, parameters and products", () => {
    const model = new Net();
    const s = summary(model, [2, 3, 4]);
    const rows = Object.fromEntries(s.rows.map((row) => [row.path, row]));
    expect(Object.keys(rows)).toEqual(
      ["", "up", "blocks.0", "blocks.0.up", "blocks.0.down", "blocks.1", "blocks.1.up"].concat([
        "norm",
        "dropout",
        "head",
      ]),
    );
    expect(rows["blocks.0.up"]).toMatchObject({
      className: "Linear",
      depth: 2,
      outputs: [[2, 3, 16]],
      calls: 1,
    });
    expect(rows["blocks.0.down"]).toMatchObject({ outputs: [[2, 3, 8]], calls: 2 });
    const [up, wide, narrow, head] = [4 * 8 + 8, 8 * 16 + 16, 16 * 8 + 8, 8 * 4];
    const total = up + 2 * wide + narrow + 16 + head;
    expect(rows[""]).toMatchObject({
      parameters: total,
      trainable: total - head,
      outputs: [[2, 3, 4]],
    });
    // Both have the shared layer; the whole has it once.
    expect(rows["blocks.1"].parameters).toBe(wide + narrow);
    const positions = 2 * 3;
    expect(rows.up.multAdds).toBe(positions * 32);
    expect(rows["blocks.1"].multAdds).toBe(positions * 256);
    expect(rows["blocks.0.down"].multAdds).toBe(2 * positions * 128);
    expect(rows[""].multAdds).toBe(positions * (32 + 2 * 256 + 32));
    expect(rows.up.flops).toBe(2 * rows.up.multAdds + positions * 8);
    expect(rows[""].flops).toBe(s.flops);
    expect(s.parameterBytes).toBe(4 * total);
    expect(s.inputBytes).toBe(4 * positions * 4);
    // up; up and down of two blocks; norm, dropout and head.
    expect(s.activationBytes).toBe(4 * positions * (8 + 2 * (16 + 8) + 8 + 8 + 4));
  });

  test("the text is a table", () => {
    const model = new Sequential(new Linear(4, 8), (x) => x.relu(), new Linear(8, 1000));
    expect(`${summary(model, zeros([2, 4]))}`).toBe(
      [
        "layer  class       output     parameters  mult-adds    flops",
        "────────────────────────────────────────────────────────────",
        "model  Sequential  [2, 1000]       9,040    16.06 k  34.18 k",
        "  0    Linear      [2, 8]             40         64      144",
        "  2    Linear      [2, 1000]       9,000    16.00 k  34.00 k",
        "────────────────────────────────────────────────────────────",
        "parameters: 9,040, of them 9,040 trained and 0 frozen",
        "arithmetic: 16.06 k mult-adds, 34.18 kFLOP",
        "memory: parameters 36.16 kB, buffers 0 B, input 32 B, activations 8.06 kB",
      ].join("\n"),
    );
    expect(summary(model, [2, 4], { depth: 0 }).rows.length).toBe(1);
  });

  test("convolutions, loops, several arguments and results", () => {
    const conv = new Sequential(new Conv2d(3, 5, 3, { padding: 1 }), new BatchNorm2d(5));
    const s = summary(conv, [2, 3, 6, 6], { mode: "train" });
    expect(s.rows[1]).toMatchObject({ outputs: [[2, 5, 6, 6]], multAdds: 2 * 5 * 36 * 27 });
    expect(s.bufferBytes).toBeGreaterThanOrEqual(4 * 10);
    const [T, B, I, H] = [7, 2, 3, 4];
    const lstm = summary(new LSTM(I, H), [randn([T, B, I]), [randn([1, B, H]), randn([1, B, H])]]);
    expect(lstm.multAdds).toBe(T * B * 4 * H * (I + H));
    expect(lstm.rows[0].outputs).toEqual([
      [T, B, H],
      [1, B, H],
      [1, B, H],
    ]);
  });

  test("nothing runs, and nothing is left behind", async () => {
    // 160 GB of weights.
    const huge = summary(new Linear(200_000, 200_000, { bias: false }), [1, 200_000]);
    expect([huge.parameters, huge.multAdds]).toEqual([4e10, 4e10]);

    const norm = new BatchNorm2d(2);
    const model = new Sequential(norm, new Dropout(0.5)).train();
    norm.eval();
    manualSeed(1);
    const want = await rand([4]).data();
    manualSeed(1);
    summary(model, [4, 2, 3, 3], { mode: "train" });
    expect([...(await rand([4]).data())]).toEqual([...want]);
    expect([model.training, norm.training]).toEqual([true, false]);
    expect(await norm.runningMean!.tolist()).toEqual([0, 0]);
    expect(defaultDevice().name).toBe(norm.runningMean!.device);
    // A mistake leaves no hooks either.
    expect(() => summary(model, [4, 3, 3, 3])).toThrow(/BatchNorm2d/);
    expect([model.training, norm.training]).toEqual([true, false]);
    expect(() => summary(model, [])).toThrow(/a shape, a tensor, or an array of arguments/);
  });
});
