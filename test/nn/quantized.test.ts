/**
 * @file int8 and int4 weights: the error bound of the format, no float copy of the weights, files,
 * training around them.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  autocast,
  compile,
  explain,
  grad,
  manualSeed,
  noGrad,
  rand,
  randn,
  ShapeError,
  type Tensor,
  tensor,
} from "hinode";
import {
  Linear,
  loadModel,
  Module,
  ModuleDict,
  MultiheadAttention,
  optim,
  QuantizedLinear,
  quantize,
  Sequential,
  saveModel,
} from "hinode/nn";
import { beforeAll, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const close = { rtol: 1e-4, atol: 1e-5 };
const top = { 8: 127, 4: 7 };

onEachDevice("quantised Linear", (device) => {
  beforeAll(() => {
    manualSeed(21);
  });

  // 21 inputs: an odd number, and a last group that is smaller.
  test.each([
    { bits: 8, groupSize: 8 },
    { bits: 4, groupSize: 8 },
    { bits: 4, groupSize: 128 },
  ] as const)(
    "$bits bits in groups of $groupSize: each weight within half a scale",
    async (format) => {
      const layer = new Linear(21, 5);
      noGrad(() => layer.weight.assign(layer.weight.mul(tensor([1, 10, 0, 1, 1]).unsqueeze(1))));
      const q = QuantizedLinear.from(layer, format);
      const want = (await layer.weight.tolist()) as number[][];
      const got = (await q.dequantize().tolist()) as number[][];
      for (const [r, row] of want.entries())
        for (const [i, w] of row.entries()) {
          const from = i - (i % format.groupSize);
          const largest = Math.max(...row.slice(from, from + format.groupSize).map(Math.abs));
          // Half a step, and the rounding of the quotient near a tie.
          const bound = (largest / top[format.bits]) * 0.5 * (1 + 1e-4);
          expect(Math.abs(got[r][i] - w), `${r}, ${i}`).toBeLessThanOrEqual(bound);
        }
      // The layer is that matrix, and so is its gradient.
      const x = randn([3, 21]);
      const plain = (x: Tensor) => x.matmul(q.dequantize().T).add(layer.bias!);
      expect(difference(await q.forward(x).data(), await plain(x).data(), close)).toBeNull();
      expect(
        difference(await q.part(x, 1, 2).data(), await plain(x).narrow(-1, 1, 2).data(), close),
      ).toBeNull();
      const slope = (f: (x: Tensor) => Tensor) => grad((x: Tensor) => f(x).square().sum())(x);
      const gradient = await slope((x) => q.forward(x)).data();
      expect(
        difference(gradient, await slope(plain).data(), { rtol: 1e-3, atol: 1e-4 }),
      ).toBeNull();
    },
  );

  test.each([
    [8, 1],
    [4, 1],
    [8, 20],
    [4, 20],
  ] as const)("%d bits, %d rows: no kernel writes the weights as floats", async (bits, rows) => {
    if (device === "reference") return;
    const [inputs, outputs] = [64, 48];
    const q = QuantizedLinear.from(new Linear(inputs, outputs), { bits, groupSize: 16 });
    await Promise.all([q.weightQ.data(), q.scales.data()]);
    const run = compile((x: Tensor) => noGrad(() => q.forward(x)));
    const x = randn([rows, inputs]);
    const { kernels } = explain(run, x);
    const written = kernels.flatMap((k) => k.writes.map((w) => w.shape));
    // With 4 bits one product for each half of the bits, and their sum.
    const results = bits === 8 ? [[rows, outputs]] : [[2, rows, outputs], [rows, outputs]]; // biome-ignore format: one line
    expect(written).toEqual(results);
    const want = x.matmul(q.dequantize().T).add(q.bias!);
    expect(difference(await run(x).data(), await want.data(), close)).toBeNull();
  });

  test("the error of a product with Gaussian weights: 0.7 % with 8 bits, 11 % with 4", async () => {
    const layer = new Linear(256, 32, { bias: false });
    noGrad(() => layer.weight.assign(randn([32, 256])));
    const x = randn([8, 256]);
    const want = layer.forward(x);
    for (const [bits, low, high] of [
      [8, 0.003, 0.01],
      [4, 0.06, 0.15],
    ] as const) {
      const off = QuantizedLinear.from(layer, { bits, groupSize: 64 }).forward(x).sub(want);
      const error = (await off.norm().div(want.norm()).item()) as number;
      expect(error).toBeGreaterThan(low);
      expect(error).toBeLessThan(high);
    }
  });

  // Training makes too many kernels for SwiftShader, and none that only this needs.
  test.skipIf(device === "webgpu")(
    "a trained model keeps its accuracy, in a fraction of the memory, also from a file",
    async () => {
      const build = () =>
        new Sequential(
          new Linear(2, 64),
          (x) => x.tanh(),
          new Linear(64, 64),
          (x) => x.relu(),
          new Linear(64, 1),
        );
      const model = build();
      const x = rand([128, 2]).mul(4).sub(2);
      const label = x.square().sum(-1, true).lt(2).float();
      const adamw = new optim.AdamW(model.parameters(), { lr: 1e-2 });
      const step = compile(() => {
        const loss = model.forward(x).sub(label).square().mean();
        adamw.zeroGrad();
        loss.backward();
        adamw.step();
        return loss;
      });
      for (let i = 0; i < 60; i++) await step().item();
      const run = compile((m: Tensor) => noGrad(() => model.forward(m)));
      const accuracy = async (): Promise<number> =>
        (await run(x).gt(0.5).eq(label.bool()).float().mean().item()) as number;
      const before = await accuracy();
      expect(before).toBeGreaterThan(0.9);

      const report = await quantize(model, { bits: 4, groupSize: 32, targets: ["2"] });
      expect([...report.layers.keys()]).toEqual(["2"]);
      // 64 × 64 weights: four bytes each before; half a byte, and four bytes for each 32, after.
      expect([report.bytesBefore, report.bytesAfter]).toEqual([16384, 2048 + 512]);
      // The compiled function is traced again.
      const after = await accuracy();
      expect(after).toBeGreaterThan(before - 0.05);

      const folder = await mkdtemp(join(tmpdir(), "hinode-"));
      try {
        const path = join(folder, "q.safetensors");
        await saveModel(path, model);
        const other = build();
        await quantize(other, { bits: 4, groupSize: 32, targets: ["2"] });
        await loadModel(path, other);
        expect([...(await other.forward(x).data())]).toEqual([...(await model.forward(x).data())]);
      } finally {
        await rm(folder, { recursive: true });
      }
    },
  );

  test.each([8, 4] as const)("%d bits: shapes and types are Linear's", async (bits) => {
    const layer = new Linear(16, 3);
    const q = QuantizedLinear.from(layer, { bits, groupSize: 8 });
    const x = randn([2, 16]);
    const [rows, first] = [q.forward(x), q.forward(x.select(0, 0))];
    expect(first.shape).toEqual([3]);
    expect(difference(await first.data(), await rows.select(0, 0).data(), close)).toBeNull();
    const half = autocast({ dtype: "bf16" }, () => [layer.forward(x), q.forward(x)]);
    expect(half.map((y) => y.dtype)).toEqual(["bf16", "bf16"]);
    expect(difference(await half[1].float().data(), await rows.data(), { rtol: 0, atol: 0.05 })).toBeNull(); // biome-ignore format: one line
    // Halves and a bias in f32 do not go together, as in Linear.
    expect(() => q.forward(x.to("f16"))).toThrow(/a bias \[3\] of f16, got f32\[3\]/);
    expect(() => q.forward(tensor(1))).toThrow(ShapeError);
    // Who thinks that it is a Linear is told.
    expect(() => (q as unknown as Linear).weight).toThrow(/floats, got integers of \d bits/);
  });

  test("layers in lists, maps and attention; mistakes are named", async () => {
    class Net extends Module {
      list = [new Linear(4, 4)];
      table = new ModuleDict({ a: new Linear(4, 4) });
      attention = new MultiheadAttention(4, 2, { kvHeads: 1 });
      forward(x: Tensor): Tensor {
        const y = this.table.get("a").forward(this.list[0].forward(x));
        return this.attention.forward(y, y.mul(1));
      }
    }
    const net = new Net();
    const x = randn([1, 3, 4]);
    const want = await net.forward(x).data();
    const { layers } = await quantize(net);
    expect([...layers.keys()]).toEqual(["list.0", "table.a", "attention.qkv", "attention.out"]);
    expect(net.list[0]).toBeInstanceOf(QuantizedLinear);
    expect(difference(await net.forward(x).data(), want, { rtol: 0, atol: 0.05 })).toBeNull();
    expect(`${net.list[0]}`).toBe(
      "QuantizedLinear(inFeatures=4, outFeatures=4, bits=8, groupSize=4, bias=true)",
    );
    await expect(quantize(net)).rejects.toThrow(/Linear layers inside a module, got none/);
    const { list } = new Net();
    await expect(quantize(new Sequential(...list), { targets: ["up"] })).rejects.toThrow(
      /among 0, got up/,
    );
    expect(() => new QuantizedLinear(2, 2, { bits: 5 as 4 })).toThrow(/8 or 4 bits, got 5/);
  });
});
