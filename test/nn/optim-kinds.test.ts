/**
 * @file What holds for every optimizer: compiled as eager, skipped steps change nothing, a loaded state goes on with the same
 * bits, halves stay halves. And options that no golden case has, against formulas in plain JavaScript.
 */
import { compile, manualSeed, noGrad, randn, type Tensor, tensor } from "hinode";
import { optim, parameter } from "hinode/nn";
import { describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

type Make = (p: Tensor[]) => optim.Optimizer;

/** One of one's own, as the class Optimizer tells. */
class SignMomentum extends optim.Optimizer<{ lr: number; momentum: number }> {
  readonly velocity = this.cells("velocity");
  constructor(params: Iterable<Tensor>) {
    super(params, { lr: 0.01, momentum: 0.9 }, {});
  }
  protected rule({ options, lr }: optim.Group<this["options"]>, _: Tensor, write: optim.Write) {
    return ({ i, w, g }: optim.Due) => {
      const v = write(this.velocity[i], this.velocity[i].float().mul(options.momentum).add(g));
      return w.sub(v.sign().mul(lr));
    };
  }
}

const makers: Readonly<Record<string, Make>> = {
  SGD: (p) => new optim.SGD(p, { lr: 0.1, momentum: 0.9, dampening: 0.1, weightDecay: 0.01 }),
  Adam: (p) => new optim.Adam(p, { lr: 0.01, amsgrad: true, maximize: true }),
  AdamW: (p) => new optim.AdamW(p, { lr: 0.01 }),
  NAdam: (p) => new optim.NAdam(p, { lr: 0.01, weightDecay: 0.01 }),
  RAdam: (p) => new optim.RAdam(p, { lr: 0.01, betas: [0.9, 0.8], decoupledWeightDecay: true }),
  Adamax: (p) => new optim.Adamax(p, { lr: 0.01 }),
  RMSprop: (p) => new optim.RMSprop(p, { lr: 0.01, centered: true, momentum: 0.5 }),
  Adagrad: (p) => new optim.Adagrad(p, { lr: 0.1, lrDecay: 0.1, initialAccumulatorValue: 1 }),
  Adadelta: (p) => new optim.Adadelta(p),
  ASGD: (p) => new optim.ASGD(p, { t0: 1, lambd: 0.1 }),
  Rprop: (p) => new optim.Rprop(p),
  Adafactor: (p) => new optim.Adafactor(p, { weightDecay: 0.1 }),
  FairseqAdafactor: (p) => new optim.FairseqAdafactor(p, { beta1: 0.9, warmupInit: true }),
  Muon: (p) => new optim.Muon(p.slice(0, 1), { lr: 0.05 }),
  Lion: (p) => new optim.Lion(p, { lr: 0.01, weightDecay: 0.1, caution: true }),
  Lamb: (p) => new optim.Lamb(p, { lr: 0.01 }),
  SignMomentum: (p) => new SignMomentum(p),
};

const bits = async (tensors: Iterable<Tensor>): Promise<number[]> => {
  const all: number[] = [];
  for (const t of tensors) all.push(...((await t.data()) as Float32Array));
  return all;
};

/** A matrix and a vector, with a step that minimises a function of both. */
function start(make: Make, { compiled = false, bf16 = false } = {}) {
  manualSeed(5);
  const dtype = bf16 ? "bf16" : "f32";
  const params = [randn([3, 2]), randn([3])].map((t) => parameter(t.to(dtype).detach()));
  const optimizer = make(params);
  const step = (scale: Tensor): Tensor => {
    const [w, b] = params;
    const loss = w.mul(scale).sum(1).add(b).square().mean().add(w.square().sum()).float();
    optimizer.zeroGrad();
    loss.backward();
    optimizer.step();
    return loss;
  };
  return { params, optimizer, step: compiled ? compile(step) : step };
}

onEachDevice("every optimizer", (device) => {
  // Each kernel takes SwiftShader 0.2 s: there, one.
  const names = device === "webgpu" ? ["Lion"] : Object.keys(makers);

  test.each(names)("%s: compiled as eager, also with a rate that changes", async (name) => {
    const results: number[][] = [];
    for (const compiled of [true, false]) {
      const { params, optimizer, step } = start(makers[name], { compiled });
      for (let t = 0; t < 4; t++) {
        step(tensor(1 + t / 4));
        if (optimizer.options.lr !== null) optimizer.setLearningRate(0.05 / (t + 1));
      }
      results.push(await bits(params));
      expect(results.at(-1)!.every(Number.isFinite)).toBe(true);
    }
    expect(difference(results[0], results[1], { rtol: 1e-4, atol: 1e-5 })).toBeNull();
    const before = await bits(start(makers[name]).params);
    expect(results[0].slice(0, 6)).not.toEqual(before.slice(0, 6));
  });

  test.each(names)(
    "%s: a skipped step changes no bit, a loaded state goes on with the same",
    async (name) => {
      const { params, optimizer, step } = start(makers[name]);
      step(tensor(1));
      const cells = () => [...optimizer.stateCells()].map(([, t]) => t);
      const before = await bits([...params, ...cells()]);
      for (const p of params) p.grad = p.detach().add(1);
      optimizer.step({ skip: tensor(true) });
      expect(await bits([...params, ...cells()])).toEqual(before);

      const other = start(makers[name]);
      noGrad(() => {
        for (const [i, p] of other.params.entries()) p.assign(params[i]);
      });
      other.optimizer.loadStateDict(optimizer.stateDict());
      for (const run of [step, other.step]) run(tensor(2));
      expect(await bits(other.params)).toEqual(await bits(params));
      expect(await bits(other.params)).not.toEqual(before.slice(0, 9));
    },
  );

  test.each(device === "webgpu" ? [] : names)("%s: halves stay halves", async (name) => {
    const { params, step } = start(makers[name], { bf16: true });
    const exact = start(makers[name]);
    for (const run of [step, exact.step]) for (let t = 0; t < 2; t++) run(tensor(1));
    expect(params.map((p) => p.dtype)).toEqual(["bf16", "bf16"]);
    // Two steps, rounded to 8 bits each; the sign of an update may turn where it is near 0.
    const tolerance = { rtol: 2 ** -6, atol: 0.05 };
    expect(difference(await bits(params), await bits(exact.params), tolerance)).toBeNull();
  });
});

onEachDevice("formulas", () => {
  /** One step from a given state: the numbers of a state dict by name; the parameter after it. */
  async function stepFrom(
    make: Make,
    p: number[],
    grad: number[],
    state: Record<string, number[]>,
  ) {
    const param = parameter(tensor(p));
    const optimizer = make([param]);
    const cells = optimizer.stateDict();
    for (const [name, values] of Object.entries(state))
      cells[name] = tensor(values).reshape(cells[name].shape);
    optimizer.loadStateDict(cells);
    param.grad = tensor(grad);
    optimizer.step();
    return [...(await param.data())].map(Number);
  }
  const close = (got: number[], want: number[], rtol = 1e-5) =>
    expect(difference(got, want, { rtol, atol: 1e-7 })).toBeNull();

  const p = [0.5, -1.5, 2];
  const g = [0.3, 0.02, -1];
  const m = [0.1, -0.05, 0.4];
  const v = [0.04, 0.001, 0.3];
  const all = (f: (i: number) => number) => p.map((_, i) => f(i));

  test("RAdam's rectification keeps its digits at every step", async () => {
    for (const [beta2, lr] of [[0.999, 0.1], [0.9999, 0.1], [0.9, 0.1]]) // biome-ignore format: pairs
      for (const t of [5, 6, 7, 40, 999, 5000]) {
        const [m1, v1] = [
          all((i) => 0.9 * m[i] + 0.1 * g[i]),
          all((i) => beta2 * v[i] + (1 - beta2) * g[i] ** 2),
        ];
        const limit = 2 / (1 - beta2) - 1;
        // With numbers of 53 bits the textbook's formula does.
        const rho = limit - (2 * t * beta2 ** t) / (1 - beta2 ** t);
        const r = Math.sqrt(((rho - 4) * (rho - 2) * limit) / ((limit - 4) * (limit - 2) * rho));
        const rate = lr / (1 - 0.9 ** t);
        const want = all((i) => {
          const factor = rho > 5 ? (r * Math.sqrt(1 - beta2 ** t)) / (Math.sqrt(v1[i]) + 1e-8) : 1;
          return p[i] - rate * m1[i] * factor;
        });
        const state = { steps: [t - 1], "mean.0": m, "square.0": v };
        const make: Make = (x) => new optim.RAdam(x, { lr, betas: [0.9, beta2] });
        close(await stepFrom(make, p, g, state), want);
      }
  });

  test("LAMB's options", async () => {
    const norm = (x: number[]) => Math.hypot(...x);
    const [lr, wd, eps, t] = [0.1, 0.2, 1e-6, 3];
    const variants: optim.LambOptions[] = [
      {},
      { maxGradNorm: null, trustClip: true },
      { maxGradNorm: 0.5, biasCorrection: false, gradAveraging: false },
      { decoupledDecay: true, caution: true },
      { weightDecay: 0 },
      { weightDecay: 0, alwaysAdapt: true },
    ];
    for (const options of variants) {
      const o = {
        maxGradNorm: 1,
        biasCorrection: true,
        gradAveraging: true,
        weightDecay: wd,
        ...options,
      };
      const clip = o.maxGradNorm === null ? 1 : Math.max(1, norm(g) / o.maxGradNorm);
      const grad = all((i) => g[i] / clip);
      const m1 = all((i) => 0.9 * m[i] + (o.gradAveraging ? 0.1 : 1) * grad[i]);
      const v1 = all((i) => 0.999 * v[i] + 0.001 * grad[i] ** 2);
      const [c1, c2] = o.biasCorrection ? [1 - 0.9 ** t, 1 - 0.999 ** t] : [1, 1];
      let update = all((i) => m1[i] / c1 / (Math.sqrt(v1[i] / c2) + eps));
      if (o.caution) {
        const mask = all((i) => (update[i] * grad[i] > 0 ? 1 : 0));
        const mean = mask.reduce((a, b) => a + b) / 3;
        update = all((i) => (update[i] * mask[i]) / mean);
      }
      const w = o.decoupledDecay ? all((i) => p[i] * (1 - lr * o.weightDecay)) : p;
      if (!o.decoupledDecay) update = all((i) => update[i] + o.weightDecay * p[i]);
      let trust = o.weightDecay > 0 || o.alwaysAdapt ? norm(w) / norm(update) : 1;
      if (o.trustClip) trust = Math.min(1, trust);
      const state = { steps: [t - 1], "mean.0": m, "square.0": v };
      const make: Make = (x) => new optim.Lamb(x, { lr, ...o });
      close(
        await stepFrom(make, p, g, state),
        all((i) => w[i] - lr * trust * update[i]),
      );
    }
  });

  test("Rprop grows and shrinks its steps, and forgets a gradient that turned", async () => {
    const state = { steps: [4], "previous.0": [1, -1, 0], "stepSize.0": [0.1, 0.1, 0.1] };
    const got = await stepFrom((x) => new optim.Rprop(x), p, g, state);
    close(got, [0.5 - 0.12, -1.5, 2 + 0.1]);
  });

  test("Muon makes singular values alike, of tall and wide matrices", async () => {
    for (const adjustLrFn of ["original", "match_rms_adamw"] as const) {
      const w = parameter(tensor([[0, 0], [0, 0], [0, 0]])); // biome-ignore format: a matrix
      const muon = new optim.Muon([w], { lr: 1, weightDecay: 0, adjustLrFn });
      // Orthogonal columns of lengths 5 and ½: both become about 1, times the factor of the shape.
      w.grad = tensor([[3, 0], [0, 0.5], [4, 0]]); // biome-ignore format: a matrix
      muon.step();
      const factor = adjustLrFn === "original" ? Math.sqrt(3 / 2) : 0.2 * Math.sqrt(3);
      const [a, b, c, d, e, f] = [...(await w.data())].map((x) => -Number(x) / factor);
      // Newton–Schulz in numbers: the polynomial is applied to each singular value.
      const iterate = (s: number) => {
        for (let k = 0; k < 5; k++) s = 3.4445 * s - 4.775 * s ** 3 + 2.0315 * s ** 5;
        return s;
      };
      const length = Math.hypot(5, 0.5);
      const [first, second] = [iterate(5 / length), iterate(0.5 / length)];
      expect(
        difference([a, b, c, d, e, f], [0.6 * first, 0, 0, second, 0.8 * first, 0], {
          rtol: 1e-4,
          atol: 1e-5,
        }),
      ).toBeNull();
    }
  });
});

describe("options", () => {
  const p = () => [parameter(tensor([[1, 2]]))];
  test("what is left out, or undefined, is PyTorch's default", () => {
    expect(new optim.SGD(p()).options.lr).toBe(1e-3);
    expect(new optim.AdamW(p(), { weightDecay: undefined }).options.weightDecay).toBe(0.01);
    expect(new optim.Adam(p(), { eps: undefined }).options.eps).toBe(1e-8);
    const groups = new optim.RMSprop([{ params: p(), alpha: 0.5 }, { params: p() }], { alpha: 0.7 })
      .groups;
    expect(groups.map((group) => group.options.alpha)).toEqual([0.5, 0.7]);
  });
  test("mistakes are named", () => {
    const unknown = { momentun: 0.9 } as optim.SgdOptions;
    expect(() => new optim.SGD(p(), unknown)).toThrow(
      /SGD: expected options among lr, momentum.*got momentun/,
    );
    expect(() => new optim.SGD(p(), { nesterov: true })).toThrow(/momentum > 0 and no dampening/);
    expect(() => new optim.SGD(p(), { lr: Number.NaN })).toThrow(/lr ≥ 0, got NaN/);
    expect(() => new optim.SGD(p(), { lr: null as never })).toThrow(/lr: a number/);
    expect(() => new optim.SGD(p()).setLearningRate(Number.NaN)).toThrow(/NaN for group 0/);
    expect(() => new optim.Rprop(p(), { etas: [1.5, 1.2] })).toThrow(/etas\[0\] < 1/);
    expect(() => new optim.Adafactor(p(), { d: 0.5 })).toThrow(/d ≥ 1/);
    expect(() => new optim.FairseqAdafactor(p(), { lr: 0.1 })).toThrow(/either lr or relativeStep/);
    expect(() => new optim.Muon([parameter(tensor([1]))])).toThrow(/expected matrices/);
    expect(() => new optim.Muon(p(), { adjustLrFn: "none" as never })).toThrow(/match_rms_adamw/);
    expect(() => new optim.Lamb([{ params: p(), maxGradNorm: 2 }])).toThrow(
      /maxGradNorm 1 for all groups/,
    );
  });
});
