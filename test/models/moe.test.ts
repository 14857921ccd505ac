/**
 * @file Mixture of experts: the gating of GShard, dispatch with and without capacity, cost,
 * upcycling.
 */
import { cat, compile, explain, manualSeed, randn, type Tensor, tensor, where } from "hinode";
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

/**
 * Σ over a token's experts of weight · down(silu(gate x) · (up x)), in plain numbers; `kept(s, k)`:
 * whether it has a place.
 */
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
    const { kept } = dispatch(experts.unsqueeze(0), 4, { most: 3 });
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

  // 20 experts: a row for each and each sequence would be more than the choices need.
  test.each([
    { count: 4, capacityFactor: 1, T: 6 },
    { count: 20, capacityFactor: 2, T: 5 },
    { count: 64, capacityFactor: 2, T: 8 },
  ])("sequences do not compete, nor does padding, %o", async ({ T, ...config }) => {
    const layer = new MixtureOfExperts(4, 6, config);
    const lengths = [T, 1, T - 1, 2];
    // Padding of one kind, which would fill an expert.
    const real = tensor(lengths.map((n) => Array.from({ length: T }, (_, t) => t >= T - n)), { dtype: "bool" }); // biome-ignore format: one line
    const x = where(real.unsqueeze(-1), randn([4, T, 4]), 1);
    const [y] = layer.forward(x, real);
    const own = (t: Tensor) => lengths.map((n, b) => t.select(0, b).narrow(0, T - n, n));
    const alone = cat(own(x).map((row) => layer.forward(row)[0]));
    expect(difference(await cat(own(y)).data(), await alone.data(), close)).toBeNull();
    const roomy = new MixtureOfExperts(4, 6, { count: config.count });
    roomy.loadStateDict(layer.stateDict());
    const all = cat(own(x).map((row) => roomy.forward(row)[0]));
    expect(difference(await all.data(), await alone.data(), close)).not.toBeNull();
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

  test.skipIf(device === "reference").each([{ capacityFactor: 2 }, {}])(
    "a decoded token reads its own experts' weights alone, whatever their number, %o",
    (config) => {
      const [D, H] = [32, 64];
      const bytes = (count: number, tokens: number) => {
        const layer = new MixtureOfExperts(D, H, { count, ...config });
        const step = compile((x: Tensor) => layer.forward(x)[0]);
        return explain(step, randn([tokens, D])).bytes - 4 * count * D; // without the router's
      };
      // Two experts per token.
      for (const tokens of [1, 3])
        for (const count of [8, 64]) {
          const share = bytes(count, tokens) / (2 * tokens * 4 * 3 * D * H);
          expect(share).toBeGreaterThan(1);
          expect(share).toBeLessThan(1.25);
        }
    },
  );

  test.skipIf(device === "webgpu")(
    "few tokens and many experts: gradients of those that were taken",
    async () => {
      const layer = new MixtureOfExperts(4, 6, { count: 8 });
      const x = randn([2, 4]);
      layer.forward(x)[0].square().sum().backward();
      const taken = new Set(
        ((await topExperts(layer.router.forward(x), 2).experts.tolist()) as number[][]).flat(),
      );
      const sizes = (await layer.down.grad!.abs().sum([1, 2]).tolist()) as number[];
      for (const [e, size] of sizes.entries()) expect(size > 0).toBe(taken.has(e));
    },
  );

  test("few tokens and many experts: the same as many tokens at once, with a capacity too", async () => {
    const layer = new MixtureOfExperts(4, 6, { count: 16, capacityFactor: 2 });
    const x = randn([3, 4]);
    // Of three tokens an expert takes one: max(1, ⌊3 · 2 / 16⌋).
    const { experts } = topExperts(layer.router.forward(x), 2);
    const taken = new Map<number, number>();
    const places = new Map<string, boolean>();
    const chosen = (await experts.tolist()) as number[][];
    for (const k of [0, 1])
      for (let s = 0; s < 3; s++) {
        const before = taken.get(chosen[s][k]) ?? 0;
        places.set(`${s} ${k}`, before < 1);
        taken.set(chosen[s][k], before + 1);
      }
    const want = await plain(layer, x, (s, k) => places.get(`${s} ${k}`)!);
    expect(difference(await layer.forward(x)[0].data(), want, close)).toBeNull();
  });
});
