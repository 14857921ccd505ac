import { grad, init, manualSeed, noGrad, ones, randn, type Tensor, tensor } from "hinode";
import {
  Dropout,
  Embedding,
  init as initial,
  LayerNorm,
  Linear,
  MultiheadAttention,
  RMSNorm,
  rotate,
  SwiGLU,
} from "hinode/nn";
import { beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { devices } from "../support/devices.ts";

const close = { rtol: 1e-5, atol: 1e-5 };

describe.each(devices)("layers on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
    manualSeed(7);
  });

  test("Linear is x Wᵀ + b on any leading axes", async () => {
    const linear = new Linear(3, 2);
    const w = (await linear.weight.tolist()) as number[][];
    const b = (await linear.bias!.tolist()) as number[];
    const x = [
      [1, 2, 3],
      [-1, 0, 0.5],
    ];
    const want = x.flatMap((row) => w.map((r, o) => r.reduce((s, v, i) => s + v * row[i], b[o])));
    expect(difference(await linear.forward(tensor(x)).data(), want, close)).toBeNull();
    expect(linear.forward(ones([2, 5, 3])).shape).toEqual([2, 5, 2]);
    expect(linear.forward(ones([0, 3])).shape).toEqual([0, 2]);
  });

  test("initial weights have PyTorch's bound", async () => {
    const values = await initial.kaimingUniform([64, 100], 100).data();
    const largest = Math.max(...values.map(Math.abs));
    expect(largest).toBeLessThanOrEqual(0.1);
    expect(largest).toBeGreaterThan(0.099);
  });

  test("Embedding looks up rows and refuses others", async () => {
    const embedding = new Embedding(5, 2);
    const rows = (await embedding.weight.tolist()) as number[][];
    const index = tensor([[4, 0, 4]], { dtype: "i32" });
    expect(await embedding.forward(index).tolist()).toEqual([[rows[4], rows[0], rows[4]]]);
    await expect(embedding.forward(tensor([5], { dtype: "i32" })).data()).rejects.toThrow(/5/);
  });

  test("norms over several axes, and without weights", async () => {
    const x = randn([2, 3, 4]);
    const whole = new LayerNorm([3, 4]);
    expect(whole.weight!.shape).toEqual([3, 4]);
    const plain = new LayerNorm([3, 4], { elementwiseAffine: false });
    expect(plain.parameters()).toEqual([]);
    expect(await plain.forward(x).data()).toEqual(await whole.forward(x).data());
    const of = (y: Tensor) => y.select(0, 0);
    expect(await of(plain.forward(x)).mean().item()).toBeCloseTo(0, 5);
    expect(new LayerNorm(4, { bias: false }).parameters().length).toBe(1);
    const rms = new RMSNorm([3, 4], { elementwiseAffine: false, eps: 1e-6 });
    expect(await of(rms.forward(x)).square().mean().item()).toBeCloseTo(1, 3);
    expect(String(rms)).toBe("RMSNorm([3, 4], eps=0.000001)");
  });

  test("Dropout keeps the mean while training and is the identity in evaluation", async () => {
    const dropout = new Dropout(0.25);
    const y = await dropout.forward(ones([10_000])).data();
    const kept = y.filter((v) => v !== 0);
    expect(kept.length / y.length).toBeCloseTo(0.75, 1);
    expect(kept[0]).toBeCloseTo(4 / 3, 5);
    dropout.eval();
    expect(await dropout.forward(ones([3])).data()).toEqual(new Float32Array([1, 1, 1]));
    expect(() => new Dropout(1.5)).toThrow(/0 … 1/);
  });

  test("SwiGLU is down(silu(gate) · up)", async () => {
    const layer = new SwiGLU(2, 3);
    const x = tensor([[0.5, -1]]);
    const [g, u] = [x.matmul(layer.gate.weight.T), x.matmul(layer.up.weight.T)];
    const want = g.mul(g.sigmoid()).mul(u).matmul(layer.down.weight.T);
    expect(difference(await layer.forward(x).data(), await want.data(), close)).toBeNull();
  });

  test("attention agrees with softmax(QKᵀ/√d)V written out", async () => {
    const [B, T, D, H] = [2, 5, 8, 2];
    const d = D / H;
    const attention = new MultiheadAttention(D, H);
    const x = randn([B, T, D]);
    const qkv = (await attention.qkv!.forward(x).tolist()) as number[][][];
    const rows: number[] = [];
    for (let b = 0; b < B; b++)
      for (let t = 0; t < T; t++) {
        const row: number[] = [];
        for (let h = 0; h < H; h++) {
          const part = (kind: number, s: number) =>
            qkv[b][s].slice(kind * D + h * d, kind * D + (h + 1) * d);
          const scores = Array.from({ length: T }, (_, s) => {
            const [q, k] = [part(0, t), part(1, s)];
            return Math.exp(q.reduce((sum, v, i) => sum + v * k[i], 0) / Math.sqrt(d));
          });
          const total = scores.reduce((a, v) => a + v, 0);
          for (let i = 0; i < d; i++)
            row.push(scores.reduce((sum, e, s) => sum + (e / total) * part(2, s)[i], 0));
        }
        rows.push(...row);
      }
    const want = attention.out.forward(tensor(rows).reshape([B, T, D]));
    expect(difference(await attention.forward(x).data(), await want.data(), close)).toBeNull();
  });

  test("causal attention does not look ahead", async () => {
    const attention = new MultiheadAttention(8, 2, { causal: true, rotary: true });
    const x = randn([1, 4, 8]);
    const sensitivity = grad((z: Tensor) => attention.forward(z).narrow(1, 1, 1).sum())(x);
    const perPosition = await sensitivity.abs().sum([0, 2]).data();
    expect(perPosition[0]).toBeGreaterThan(0);
    expect(perPosition[1]).toBeGreaterThan(0);
    expect([perPosition[2], perPosition[3]]).toEqual([0, 0]);
  });

  test("rotary positions: lengths stay, and products depend on the distance only", async () => {
    const q = randn([1, 1, 1, 8]).expand([1, 1, 6, 8]);
    const k = randn([1, 1, 1, 8]).expand([1, 1, 6, 8]);
    const turned = noGrad(() => rotate(q).matmul(rotate(k).transpose(-1, -2)));
    const products = (await turned.reshape([6, 6]).tolist()) as number[][];
    for (let t = 0; t < 4; t++) expect(products[t + 2][t + 1]).toBeCloseTo(products[2][1], 4);
    const lengths = await rotate(q).square().sum(-1).data();
    const length = Number(await q.square().sum(-1).amax().item());
    for (const l of lengths) expect(l).toBeCloseTo(length, 4);
  });
});
