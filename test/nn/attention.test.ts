/** @file MultiheadAttention against the formula written out in plain loops; rotary positions. PyTorch's cases are in golden. */
import { grad, manualSeed, ones, randn, type Tensor, tensor } from "hinode";
import { type AttendOptions, type AttentionOptions, MultiheadAttention, rotate } from "hinode/nn";
import { beforeAll, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

type Rows = number[][];
const close = { rtol: 1e-4, atol: 1e-5 };
const [B, L, S, D, H] = [2, 3, 4, 8, 4];
const d = D / H;

/** x Wᵀ + b, one row per position. */
const apply = (x: Rows, w: Rows, b: number[]): Rows =>
  x.map((row) => w.map((r, o) => r.reduce((sum, v, i) => sum + v * row[i], b[o])));

/** What is added to the score of query i and key j in head h of example b; -Infinity hides the key. */
type Bias = (b: number, h: number, i: number, j: number) => number;

/** [output, weights] of one example, with the module's weights. */
async function byHand(
  m: MultiheadAttention,
  [query, key, value]: Tensor[],
  bias: Bias,
): Promise<{ output: number[]; weights: number[] }> {
  const rows = async (t: Tensor) => (await t.tolist()) as Rows;
  const K = m.kvHeads;
  const whole = m.qkv
    ? [await rows(m.qkv.weight), (await m.qkv.bias!.tolist()) as number[]]
    : [
        (await Promise.all([m.q!, m.k!, m.v!].map((l) => rows(l.weight)))).flat(),
        (await Promise.all([m.q!, m.k!, m.v!].map((l) => l.bias!.tolist()))).flat() as number[],
      ];
  const cut = [0, D, D + K * d, D + 2 * K * d];
  const part = (i: number) => whole.map((x) => x.slice(cut[i], cut[i + 1])) as [Rows, number[]];
  const [ow, ob] = [await rows(m.out.weight), (await m.out.bias!.tolist()) as number[]];
  const inputs = await Promise.all(
    [query, key, value].map(async (t) => (await t.tolist()) as number[][][]),
  );
  const output: number[] = [];
  const weights: number[] = [];
  for (let b = 0; b < inputs[0].length; b++) {
    const [q, k, v] = inputs.map((x, i) => apply(x[b], ...part(i)));
    const mixed: Rows = q.map(() => []);
    for (let h = 0; h < H; h++) {
      const shared = Math.floor(h / (H / K));
      for (const [i, row] of q.entries()) {
        const scores = k.map((other, j) => {
          let dot = 0;
          for (let c = 0; c < d; c++) dot += row[h * d + c] * other[shared * d + c];
          return Math.exp(dot / Math.sqrt(d) + bias(b, h, i, j));
        });
        const total = scores.reduce((a, x) => a + x, 0);
        const p = scores.map((x) => (total > 0 ? x / total : 0));
        weights.push(...p);
        for (let c = 0; c < d; c++)
          mixed[i].push(p.reduce((sum, x, j) => sum + x * v[j][shared * d + c], 0));
      }
    }
    output.push(...apply(mixed, ow, ob).flat());
  }
  return { output, weights };
}

const none: Bias = () => 0;
const bool = (data: boolean[][]) => tensor(data, { dtype: "bool" });
const [T, F] = [true, false];

onEachDevice("attention", () => {
  beforeAll(() => {
    manualSeed(11);
  });

  const blocked = [
    [F, T, F, F],
    [F, F, F, T],
    [T, F, T, F],
  ];
  const padding = [
    [F, F, F, T],
    [F, F, T, T],
  ];
  const hide = (on: boolean): number => (on ? -Infinity : 0);
  // One number per head, query and key, so that a mix-up of axes shows.
  const additive = randn([B * H, L, S]);
  const added = async (): Promise<Bias> => {
    const all = (await additive.tolist()) as number[][][];
    return (b, h, i, j) => all[b * H + h][i][j];
  };

  // biome-ignore format: a table
  const cases: [string, AttentionOptions, () => AttendOptions, () => Bias | Promise<Bias>][] = [
    ["plain", {}, () => ({}), () => none],
    ["bool mask: true is not seen", {}, () => ({ attnMask: bool(blocked) }), () => (_, __, i, j) => hide(blocked[i][j])],
    ["padding", {}, () => ({ keyPaddingMask: bool(padding) }), () => (b, _, __, j) => hide(padding[b][j])],
    ["both, and causal", {}, () => ({ attnMask: bool(blocked), keyPaddingMask: bool(padding), isCausal: true }),
      () => (b, _, i, j) => hide(blocked[i][j] || padding[b][j] || j > i)],
    ["causal alone", { causal: true }, () => ({}), () => (_, __, i, j) => hide(j > i)],
    ["causal off for a call", { causal: true }, () => ({ isCausal: false }), () => none],
    ["float mask per head", {}, () => ({ attnMask: additive }), added],
    ["float mask and bool padding", {}, () => ({ attnMask: additive, keyPaddingMask: bool(padding) }),
      async () => { const a = await added(); return (b, h, i, j) => a(b, h, i, j) + hide(padding[b][j]); }],
    ["grouped queries", { kvHeads: 2 }, () => ({}), () => none],
    ["one head of keys, all masks", { kvHeads: 1, causal: true }, () => ({ attnMask: additive, keyPaddingMask: bool(padding) }),
      async () => { const a = await added(); return (b, h, i, j) => a(b, h, i, j) + hide(padding[b][j] || j > i); }],
    ["other widths of keys and values", { kdim: 5, vdim: 6 }, () => ({}), () => none],
    ["other widths, grouped", { kdim: 5, vdim: 6, kvHeads: 2 }, () => ({ keyPaddingMask: bool(padding) }),
      () => (b, _, __, j) => hide(padding[b][j])],
  ];

  test.for(cases)("%s", async ([, options, attend, bias]) => {
    const m = new MultiheadAttention(D, H, options);
    const inputs = [
      randn([B, L, D]),
      randn([B, S, options.kdim ?? D]),
      randn([B, S, options.vdim ?? D]),
    ];
    const want = await byHand(m, inputs, await bias());
    const [query, key, value] = inputs;
    const plain = m.forward(query, key, value, attend());
    expect(plain.shape).toEqual([B, L, D]);
    expect(difference(await plain.data(), want.output, close)).toBeNull();
    const [output, weights] = m.forward(query, key, value, {
      ...attend(),
      needWeights: true,
      averageAttnWeights: false,
    });
    expect(weights.shape).toEqual([B, H, L, S]);
    expect(difference(await weights.data(), want.weights, close)).toBeNull();
    expect(difference(await output.data(), want.output, close)).toBeNull();
    const [, mean] = m.forward(query, key, value, { ...attend(), needWeights: true });
    expect(difference(await mean.data(), await weights.mean(1).data(), close)).toBeNull();
  });

  test.each([H, 2])(
    "of a sequence to itself with %d key heads: as with keys and values given",
    async (kvHeads) => {
      const m = new MultiheadAttention(D, H, { kvHeads });
      const x = randn([B, L, D]);
      const want = await byHand(m, [x, x, x], none);
      for (const y of [m.forward(x), m.forward(x, x), m.forward(x, x.mul(1), x.mul(1))])
        expect(difference(await y.data(), want.output, close)).toBeNull();
      // Any leading axes, also none.
      const single = m.forward(x.select(0, 0));
      expect(difference(await single.data(), want.output.slice(0, L * D), close)).toBeNull();
      const deep = m.forward(x.unsqueeze(1));
      expect(deep.shape).toEqual([B, 1, L, D]);
      expect(difference(await deep.data(), want.output, close)).toBeNull();
    },
  );

  test("a query that sees nothing gets the bias, and its gradient is finite", async () => {
    const m = new MultiheadAttention(D, H);
    const x = randn([1, 2, D]);
    const attend = {
      attnMask: bool([
        [T, T],
        [F, F],
      ]),
    };
    const f = (z: Tensor) => m.forward(z, z, z, attend);
    const y = f(x);
    expect(difference(await y.select(1, 0).data(), await m.out.bias!.data(), close)).toBeNull();
    for (const g of await grad((z: Tensor) => f(z).square().sum())(x).data())
      expect(Number.isFinite(g)).toBe(true);
  });

  test("dropout of weights while training only", async () => {
    const m = new MultiheadAttention(D, H, { dropout: 0.5 });
    const x = randn([1, 16, D]);
    const weights = async () =>
      await m.forward(x, x, x, { needWeights: true, averageAttnWeights: false })[1].data();
    const zeros = (await weights()).filter((w) => w === 0).length / (H * 256);
    expect(zeros).toBeGreaterThan(0.3);
    expect(zeros).toBeLessThan(0.7);
    m.eval();
    expect((await weights()).every((w) => w > 0)).toBe(true);
  });

  test("rotary: given positions, another base, pairs side by side", async () => {
    const x = randn([2, 3, 8]);
    const first = rotate(x.narrow(1, 1, 2), { positions: tensor([1, 2]) });
    expect(
      difference(await first.data(), await rotate(x).narrow(1, 1, 2).data(), close),
    ).toBeNull();
    const each = rotate(x, {
      positions: tensor([
        [0, 1, 2],
        [5, 6, 7],
      ]),
    });
    const moved = rotate(x, { positions: tensor([5, 6, 7], { dtype: "i32" }) });
    expect(
      difference(await each.select(0, 0).data(), await rotate(x).select(0, 0).data(), close),
    ).toBeNull();
    expect(
      difference(await each.select(0, 1).data(), await moved.select(0, 1).data(), close),
    ).toBeNull();
    // At position 1 the first pair turns by one radian, the second by base^(-1/4).
    const unit = tensor([1, 0, 0, 0, 1, 0, 0, 0]).reshape([1, 8]);
    const at1 = { positions: tensor([1]), base: 16 };
    const [c, s, c2, s2] = [Math.cos(1), Math.sin(1), Math.cos(0.5), Math.sin(0.5)];
    const halves = await rotate(unit, at1).data();
    expect(difference(halves, [c - s, 0, 0, 0, c + s, 0, 0, 0], close)).toBeNull();
    const pairs = await rotate(tensor([1, 0, 0, 1, 0, 0, 0, 0]).reshape([1, 8]), {
      ...at1,
      interleaved: true,
    }).data();
    expect(difference(pairs, [c, s, -s2, c2, 0, 0, 0, 0], close)).toBeNull();
  });

  test("rotary attention depends on distances: moved positions change nothing", async () => {
    for (const rotary of [true, { base: 100, interleaved: true }]) {
      const m = new MultiheadAttention(D, H, { rotary, kvHeads: 2, causal: true });
      const x = randn([B, L, D]);
      const want = await m.forward(x).data();
      const positions = tensor([
        [7, 8, 9],
        [20, 21, 22],
      ]);
      const moved = m.forward(x, x, x, { positions });
      expect(difference(await moved.data(), want, { rtol: 1e-3, atol: 1e-4 })).toBeNull();
    }
  });

  test("mistakes are named", () => {
    expect(() => new MultiheadAttention(8, 3)).toThrow(/8 \/ 3/);
    expect(() => new MultiheadAttention(8, 4, { kvHeads: 3 })).toThrow(/4 \/ 3/);
    const m = new MultiheadAttention(D, H);
    const x = ones([B, L, D]);
    expect(() => m.forward(x, x, x, { keyPaddingMask: bool([[T, F]]) })).toThrow(
      /keyPaddingMask \[2, 3\], got \[1, 2\]/,
    );
    expect(() => m.forward(ones([B, L, 5]))).toThrow(/in qkv \(Linear\) of MultiheadAttention/);
    expect(() => rotate(ones([2, 3]))).toThrow(/an even head width of at most 3, got 3/);
  });
});
