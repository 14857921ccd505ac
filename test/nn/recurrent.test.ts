/** @file RNN, LSTM and GRU against the equations in plain float64 loops, whose gradients are central differences. */
import { compile, explain, grad, manualSeed, noGrad, randn, type Tensor, tensor } from "hinode";
import { GRU, GRUCell, LSTM, LSTMCell, type RecurrentOptions, RNN, RNNCell } from "hinode/nn";
import { beforeAll, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

type Vec = number[];
type Mat = Vec[];
const close = { rtol: 1e-4, atol: 1e-5 };
const [T, B, I, H] = [4, 3, 2, 3];

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const affine = (w: Mat, x: Vec, b: Vec | null): Vec =>
  w.map((row, o) => row.reduce((sum, v, i) => sum + v * x[i], b ? b[o] : 0));
const at = (v: Vec, gate: number): Vec => v.slice(gate * H, (gate + 1) * H);

/** One step of one sequence: the next [h] or [h, c]. */
type Step = (gx: Vec, gh: Vec, state: Mat) => Mat;
const relu: Step = (gx, gh) => [gx.map((v, j) => Math.max(0, v + gh[j]))];
const tanh: Step = (gx, gh) => [gx.map((v, j) => Math.tanh(v + gh[j]))];
const lstm: Step = (gx, gh, [, c]) => {
  const [i, f, g, o] = [0, 1, 2, 3].map((k) => at(gx, k).map((v, j) => v + at(gh, k)[j]));
  const memory = c.map((v, j) => sigmoid(f[j]) * v + sigmoid(i[j]) * Math.tanh(g[j]));
  return [memory.map((v, j) => sigmoid(o[j]) * Math.tanh(v)), memory];
};
const gru: Step = (gx, gh, [h]) => {
  const gate = (k: number) => at(gx, k).map((v, j) => sigmoid(v + at(gh, k)[j]));
  const [r, z] = [gate(0), gate(1)];
  const n = at(gx, 2).map((v, j) => Math.tanh(v + r[j] * at(gh, 2)[j]));
  return [n.map((v, j) => (1 - z[j]) * v + z[j] * h[j])];
};

type Weights = Record<string, Mat | Vec>;

/** Outputs [T][B][D·P] and final states, each [N·D][B][width]. */
function byHand(
  step: Step,
  weights: Weights,
  input: Mat[],
  starts: Mat[][],
  options: RecurrentOptions,
  lengths: readonly number[] = new Array(B).fill(T),
): { output: Mat[]; states: Mat[][] } {
  const { numLayers = 1, bidirectional = false } = options;
  const states = starts.map((): Mat[] => []);
  let x = input;
  for (let layer = 0; layer < numLayers; layer++) {
    const next: Mat[] = x.map(() => Array.from({ length: B }, () => []));
    for (const direction of bidirectional ? ["", "Reverse"] : [""]) {
      const w = (name: string) => weights[`${name}L${layer}${direction}`];
      const pass = states[0].length;
      const ends = Array.from({ length: B }, (_, b) => {
        let state = starts.map((s) => s[pass][b]);
        const order = [...Array(lengths[b]).keys()];
        for (const t of direction ? order.reverse() : order) {
          const gx = affine(w("weightIh") as Mat, x[t][b], w("biasIh") as Vec);
          const gh = affine(w("weightHh") as Mat, state[0], w("biasHh") as Vec);
          state = step(gx, gh, state);
          if (w("weightHr")) state[0] = affine(w("weightHr") as Mat, state[0], null);
          next[t][b].push(...state[0]);
        }
        const width = starts[0][0][0].length;
        for (let t = lengths[b]; t < T; t++) next[t][b].push(...new Array(width).fill(0));
        return state;
      });
      for (const [i, all] of states.entries()) all.push(ends.map((s) => s[i]));
    }
    x = next;
  }
  return { output: x, states };
}

const flat = (nested: unknown): number[] => (nested as number[]).flat(9) as number[];
const list = async <A>(t: Tensor) => (await t.tolist()) as A;

interface Case {
  readonly name: string;
  readonly options?: RecurrentOptions & { readonly projSize?: number };
  readonly lengths?: readonly number[];
  readonly kind: "rnn" | "relu" | "lstm" | "gru";
}

// biome-ignore format: a table
const cases: Case[] = [
  { name: "tanh", kind: "rnn" },
  { name: "relu without bias, two layers", kind: "relu", options: { bias: false, numLayers: 2 } },
  { name: "LSTM, two layers, both directions, lengths", kind: "lstm", options: { numLayers: 2, bidirectional: true }, lengths: [2, 4, 1] },
  { name: "LSTM with projection", kind: "lstm", options: { projSize: 2, numLayers: 2 } },
  { name: "GRU, batch first, both directions, lengths", kind: "gru", options: { batchFirst: true, bidirectional: true }, lengths: [3, 0, 4] },
];
const steps = { rnn: tanh, relu, lstm, gru } as const;

function build({ kind, options = {} }: Case): RNN | LSTM | GRU {
  if (kind === "lstm") return new LSTM(I, H, options);
  if (kind === "gru") return new GRU(I, H, options);
  return new RNN(I, H, { ...options, nonlinearity: kind === "relu" ? "relu" : "tanh" });
}

/** Outputs and final states as one list of tensors. */
function run(m: RNN | LSTM | GRU, x: Tensor, start: Tensor[], lengths?: Case["lengths"]): Tensor[] {
  if (m instanceof LSTM) {
    const [y, [h, c]] = m.forward(x, [start[0], start[1]], { lengths });
    return [y, h, c];
  }
  return m.forward(x, start[0], { lengths });
}

onEachDevice("recurrent", (device) => {
  beforeAll(() => {
    manualSeed(5);
  });

  // On SwiftShader each kernel takes long to compile: the two with the most in them.
  const most = device === "webgpu" ? cases.filter((c) => c.lengths) : cases;
  test.for(most)("$name: values and gradients", async (c) => {
    const m = build(c);
    const { options = {}, lengths } = c;
    const { numLayers = 1, bidirectional = false, projSize = 0, batchFirst = false } = options;
    const D = bidirectional ? 2 : 1;
    const widths = c.kind === "lstm" ? [projSize || H, H] : [H];
    const x = randn([T, B, I]);
    const start = widths.map((w) => randn([numLayers * D, B, w]));
    const parameters = [...m.namedParameters()];
    const weights: Weights = Object.fromEntries(
      await Promise.all(parameters.map(async ([name, p]) => [name, await list<Mat>(p)] as const)),
    );
    const data = await list<Mat[]>(x);
    const starts = await Promise.all(start.map((s) => list<Mat[]>(s)));
    const hand = () => byHand(steps[c.kind], weights, data, starts, options, lengths);

    const want = hand();
    const [y, ...states] = run(m, batchFirst ? x.transpose(0, 1) : x, start, lengths);
    const inTime = batchFirst ? y.transpose(0, 1) : y;
    expect(inTime.shape).toEqual([T, B, D * widths[0]]);
    expect(difference(await inTime.data(), flat(want.output), close)).toBeNull();
    for (const [i, s] of states.entries()) {
      expect(s.shape).toEqual([numLayers * D, B, widths[i]]);
      expect(difference(await s.data(), flat(want.states[i]), close)).toBeNull();
    }

    // The gradient of a weighted sum of all results. Float64 differences are exact to 1e-8; ours are f32.
    const factors = [inTime, ...states].map((t) => randn([...t.shape]));
    const numbers = (await Promise.all(factors.map((f) => f.data()))).map((d) => [...d]);
    const scalar = (r: ReturnType<typeof byHand>): number =>
      [r.output, ...r.states].reduce(
        (total: number, v, k) => total + flat(v).reduce((s, e, i) => s + e * numbers[k][i], 0),
        0,
      );
    const loss = [inTime, ...states].map((t, k) => t.mul(factors[k]).sum());
    m.zeroGrad();
    loss.reduce((a, b) => a.add(b)).backward();
    for (const [name, p] of parameters) {
      const got = await p.grad!.data();
      const eps = 1e-5;
      const w = weights[name];
      const rows = (typeof w[0] === "number" ? [w] : w) as Mat;
      // Every third element: the indices differ from matrix to matrix.
      for (let e = 0; e < got.length; e += 3) {
        const row = rows[Math.floor(e / rows[0].length)];
        const j = e % rows[0].length;
        const old = row[j];
        row[j] = old + eps;
        const up = scalar(hand());
        row[j] = old - eps;
        const slope = (up - scalar(hand())) / (2 * eps);
        row[j] = old;
        expect(Math.abs(got[e] - slope), `${name}[${e}]`).toBeLessThan(
          1e-3 * (1 + Math.abs(slope)),
        );
      }
    }
  });

  test("the number of kernels does not grow with the sequence, and inputs are projected at once", async () => {
    const m = new LSTM(I, H, { numLayers: 2 });
    const step = compile((x: Tensor) => {
      m.zeroGrad();
      const loss = m.forward(x)[0].square().sum();
      loss.backward();
      return loss;
    });
    // The reference has no kernels.
    if (device !== "reference") {
      const plans = [5, 50].map((steps) => explain(step, randn([steps, B, I])));
      expect(plans[1].kernels.length).toBe(plans[0].kernels.length);
      const forward = explain(noGrad(() => m.forward(randn([50, B, I]))[0]));
      const products = forward.kernels.filter((k) => k.kind === "matmul");
      // Per layer one for all steps, and one within the loop.
      expect(products.length).toBe(4);
      const wide = products.filter((k) => k.writes.some((w) => w.shape[0] === 50));
      expect(wide.length).toBe(2);
    }
    // compiled = eager
    const x = randn([5, B, I]);
    const want = await m.forward(x)[0].square().sum().item();
    expect(await step(x).item()).toBeCloseTo(want as number, 4);
  });

  test("second derivatives pass through the loop", async () => {
    const m = new GRU(1, H);
    const f = (x: Tensor) => m.forward(x)[0].square().sum();
    const x = randn([3, 1]);
    const v = randn([3, 1]);
    const slope = (z: Tensor) => grad(f)(z);
    const got = await grad((z: Tensor) => slope(z).mul(v).sum())(x).data();
    const eps = 1e-2;
    const [up, down] = [slope(x.add(v.mul(eps))), slope(x.sub(v.mul(eps)))];
    const want = await up
      .sub(down)
      .div(2 * eps)
      .data();
    // The remainder is eps² times a fourth derivative of order 1, the rounding 1e-7 / eps.
    expect(difference(got, want, { rtol: 1e-2, atol: 2e-3 })).toBeNull();
  });

  test("without a batch, without states; lengths as a tensor; dropout between layers", async () => {
    const m = new LSTM(I, H, { numLayers: 2, bidirectional: true, dropout: 0.5 }).eval();
    const x = randn([T, 1, I]);
    const [y, [h, c]] = m.forward(x);
    const [y1, [h1, c1]] = m.forward(x.squeeze(1));
    expect([y1.shape, h1.shape, c1.shape]).toEqual([
      [T, 2 * H],
      [4, H],
      [4, H],
    ]);
    for (const [a, b] of [
      [y, y1],
      [h, h1],
      [c, c1],
    ] as const)
      expect(difference(await b.data(), await a.data(), close)).toBeNull();
    const short = m.forward(x, null, { lengths: tensor([2], { dtype: "i32" }) })[0];
    const alone = m.forward(x.narrow(0, 0, 2))[0];
    expect(difference(await short.narrow(0, 0, 2).data(), await alone.data(), close)).toBeNull();
    expect(await short.narrow(0, 2, 2).abs().sum().item()).toBe(0);
    m.train();
    expect(difference(await m.forward(x)[0].data(), await y.data(), close)).not.toBeNull();
  });

  test("cells: one step of the layers", async () => {
    const x = randn([B, I]);
    const [h, c] = [randn([B, H]), randn([B, H])];
    const layers = [new RNN(I, H, { nonlinearity: "relu" }), new LSTM(I, H), new GRU(I, H)];
    const cells = [
      new RNNCell(I, H, { nonlinearity: "relu" }),
      new LSTMCell(I, H),
      new GRUCell(I, H),
    ];
    for (const [i, cell] of cells.entries()) {
      const layer = layers[i];
      const named = Object.entries(layer.stateDict()).map(([n, t]) => [n.replace("L0", ""), t]);
      cell.loadStateDict(Object.fromEntries(named));
      const one = (t: Tensor) => t.unsqueeze(0);
      const want = run(layer, one(x), [one(h), one(c)]).slice(1);
      const got = cell instanceof LSTMCell ? cell.forward(x, [h, c]) : [cell.forward(x, h)];
      for (const [k, t] of got.entries())
        expect(difference(await t.data(), await want[k].data(), close)).toBeNull();
      const single =
        cell instanceof LSTMCell ? cell.forward(x.select(0, 0))[0] : cell.forward(x.select(0, 0));
      expect(single.shape).toEqual([H]);
    }
  });

  test("names, initial values and mistakes", async () => {
    const m = new LSTM(I, 64, { bidirectional: true, projSize: 2 });
    expect(Object.keys(m.stateDict())).toEqual(
      ["L0", "L0Reverse"].flatMap((s) =>
        ["weightIh", "weightHh", "biasIh", "biasHh", "weightHr"].map((name) => `${name}${s}`),
      ),
    );
    // PyTorch's state dict: weight_ih_l0, bias_hh_l0_reverse, …
    const torchs = Object.entries(m.stateDict()).map(([name, t]) => {
      const [, kind, part, layer, reverse] = /^([a-z]+)(..)L(\d)(Reverse)?$/.exec(name)!;
      return [`${kind}_${part.toLowerCase()}_l${layer}${reverse ? "_reverse" : ""}`, t] as const;
    });
    const other = new LSTM(I, 64, { bidirectional: true, projSize: 2 });
    other.loadStateDict(Object.fromEntries(torchs));
    const pair = [m, other].map((l) => l.biasHhL0Reverse.data());
    expect(difference(...((await Promise.all(pair)) as [never, never]), close)).toBeNull();
    const w = [...(await m.weightHhL0.data())];
    const bound = 1 / 8;
    expect(Math.max(...w.map(Math.abs))).toBeLessThanOrEqual(bound);
    // The standard error of the mean of n squares, each within bound², is below bound² · 0.3 / √n.
    const mean = w.reduce((s, v) => s + v * v, 0) / w.length;
    expect(Math.abs(mean - bound ** 2 / 3)).toBeLessThan(
      (6 * 0.3 * bound ** 2) / Math.sqrt(w.length),
    );
    expect(`${m}`).toBe("LSTM(2, 64, bidirectional=true, projSize=2)");
    expect(() => m.forward(randn([T, B, 3]))).toThrow(
      /input \[T, B, 2\] or \[T, 2\], got \[4, 3, 3\]/,
    );
    expect(() => m.forward(randn([T, B, I]), [randn([1, B, 2]), randn([2, B, 64])])).toThrow(
      /a state/,
    );
    expect(() => m.forward(randn([T, B, I]), null, { lengths: [5, 1, 1] })).toThrow(
      /within 0 … 4, got 5/,
    );
    expect(() => m.forward(randn([T, B, I]), null, { lengths: [1] })).toThrow(
      /lengths \[3\], got \[1\]/,
    );
    expect(() => new LSTM(I, H, { projSize: 3 })).toThrow(/projSize/);
    expect(() => new GRUCell(I, 0)).toThrow(/a positive integer hiddenSize, got 0/);
  });
});
