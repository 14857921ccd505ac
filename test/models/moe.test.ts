/** @file Mixture of experts: the gating of GShard, dispatch with and without capacity, cost, upcycling. */
import { compile, explain, manualSeed, randn, type Tensor, tensor } from "hinode";
import {
  type ExpertsConfig,
  LanguageModel,
  loadBalanceLoss,
  MixtureOfExperts,
  routerZLoss,
  topExperts,
  upcycle,
} from "hinode/models";
import { beforeAll, expect, test } from "vitest";
import { dispatch } from "../../models/language/moe.ts";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const close = { rtol: 1e-4, atol: 1e-5 };

/** Σ over a token's experts of weight · down(silu(gate x) · (up x)), in plain numbers; `kept(s, k)`: whether it has a place. */
async function plain(layer: MixtureOfExperts, x: Tensor, kept = (_s: number, _k: number) => true) {
  const [xs, gate, up, down] = await Promise.all([x, layer.gate, layer.up, layer.down].map((t) => t.tolist())) as [number[][], number[][][], number[][][], number[][][]]; // biome-ignore format: one line
  const { experts, weights } = topExperts(layer.router.forward(x), layer.perToken);
  const [chosen, shares] = (await Promise.all([
    experts.tolist(),
    weights.tolist(),
  ])) as number[][][];
  const dot = (a: number[], b: number[]) => a.reduce((sum, v, i) => sum + v * b[i], 0);
  return xs.flatMap((row, s) => {
    const out = row.map(() => 0);
    for (const [k, e] of chosen[s].entries()) {
      if (!kept(s, k)) continue;
      const hidden = gate[e].map((g, h) => {
        const z = dot(g, row);
        return (z / (1 + Math.exp(-z))) * dot(up[e][h], row);
      });
      for (const [i, w] of down[e].entries()) out[i] += shares[s][k] * dot(w, hidden);
    }
    return out;
  });
}

onEachDevice("mixture of experts", (device) => {
  beforeAll(() => {
    manualSeed(2);
  });

  test("the gating of AXLearn's Top2Gating, six tokens and four experts", async () => {
    const logits = tensor(
      Array.from({ length: 24 }, (_, i) => 2 * Math.sin(1.7 * i)),
      { shape: [6, 4] },
    );
    const { experts, weights } = topExperts(logits, 2);
    expect(await experts.T.tolist()).toEqual([[1, 1, 0, 0, 0, 3], [0, 0, 1, 3, 3, 0]]); // biome-ignore format: rows
    const first = [0.879036, 0.647655, 0.716028, 0.7827, 0.552775, 0.713621];
    expect(
      difference(await weights.select(1, 0).data(), first, { rtol: 0, atol: 1e-6 }),
    ).toBeNull();
    expect(Number(await loadBalanceLoss(logits, 1).item())).toBeCloseTo(1.4177357666593606, 5);
    expect(Number(await routerZLoss(logits).item())).toBeCloseTo(5.1353652034128245, 5);
    const { kept } = dispatch(experts, 4, 3);
    expect(await kept!.reshape([2, 6]).int().tolist()).toEqual([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0]]); // biome-ignore format: rows
  });

  test.each([
    { count: 5, perToken: 1 },
    { count: 9, perToken: 3 },
  ])("no token is dropped without a capacity, %o", async (config) => {
    const layer = new MixtureOfExperts(4, 6, config);
    for (const S of [1, 7]) {
      const x = randn([S, 4]);
      const [y] = layer.forward(x);
      expect(difference(await y.data(), await plain(layer, x), close)).toBeNull();
    }
  });

  test("an expert that is full passes tokens over: the last first, second choices before", async () => {
    const layer = new MixtureOfExperts(4, 6, { count: 2, capacityFactor: 0.5 });
    const x = randn([8, 4]);
    const { experts } = topExperts(layer.router.forward(x), 2);
    const taken = [0, 0];
    const places = new Map<string, boolean>();
    const chosen = (await experts.tolist()) as number[][];
    for (const k of [0, 1])
      for (let s = 0; s < 8; s++) places.set(`${s} ${k}`, taken[chosen[s][k]]++ < 2);
    const want = await plain(layer, x, (s, k) => places.get(`${s} ${k}`)!);
    expect(difference(await layer.forward(x)[0].data(), want, close)).toBeNull();
  });

  test("a sparse model from a dense one computes the same, and all its weights learn", async () => {
    const dense = new LanguageModel({ vocabulary: 7, width: 8, depth: 2, heads: 2, hidden: 6 });
    const sparse = upcycle(dense, { count: 4, every: 2, zWeight: 0.1 });
    const kinds = sparse.blocks.map((b) => b.feedForward instanceof MixtureOfExperts);
    expect(kinds).toEqual([false, true]);
    const ids = tensor([[1, 2, 3, 4, 5, 6]], { dtype: "i32" });
    const scores = (m: LanguageModel) => m.logits(m.forward(m.embed(ids))).data();
    expect(difference(await scores(sparse), await scores(dense), close)).toBeNull();
    const targets = tensor([[2, 3, 4, 5, 6, -100]], { dtype: "i32" });
    sparse.loss(ids, targets).backward();
    const sizes = await Promise.all(sparse.parameters().map((p) => p.grad!.abs().sum().item()));
    for (const size of sizes) expect(Number(size)).toBeGreaterThan(0);
  });

  // The reference device has no kernels to count.
  test.skipIf(device === "reference")("the cost grows with the active experts", () => {
    const x = randn([64, 16]);
    const flops = (config: ExpertsConfig) => {
      const layer = new MixtureOfExperts(16, 32, config);
      const step = compile((x: Tensor) => {
        const loss = layer.forward(x)[0].square().sum();
        layer.zeroGrad();
        loss.backward();
        return layer.parameters().map((p) => p.grad!);
      });
      return explain(step, x).flops;
    };
    // Products with one expert's three matrices, forward and backward.
    const one = 3 * 2 * 3 * 64 * 16 * 32;
    for (const count of [4, 16]) {
      expect(flops({ count, capacityFactor: 2 }) / one).toBeLessThan(2.5);
      expect(flops({ count }) / one).toBeLessThan(5); // At most 2 · perToken, and the routing.
    }
  });
});
