/** @file Tensors of f16 and bf16: making and reading them, promotion, operators that round once, gradients, training. */
import * as h from "hinode";
import {
  arange,
  bernoulli,
  cat,
  compile,
  crossEntropy,
  type DType,
  dropout,
  embedding,
  eye,
  full,
  grad,
  linspace,
  manualSeed,
  noGrad,
  rand,
  randint,
  randn,
  scan,
  type Tensor,
  tensor,
  uniform,
  vmap,
  zeros,
} from "hinode";
import { Linear, optim, parameter } from "hinode/nn";
import { describe, expect, test } from "vitest";
import { dtypes, floatLimits, roundTo } from "../../core/dtype.ts";
import { onEachDevice } from "../support/devices.ts";

const halves = ["f16", "bf16"] as const;
const list = async (t: Tensor) => [...(await t.data())];

onEachDevice("halves", (device) => {
  test("making and reading", async () => {
    const f16 = tensor([0.1, 1 / 3, 65520, -0], { dtype: "f16" });
    const data = await f16.data();
    expect(data).toBeInstanceOf(Float16Array);
    expect([...data]).toEqual([0.0999755859375, 0.333251953125, Infinity, -0]);
    const bf16 = tensor(Float32Array.of(0.1, -1e10, NaN), { dtype: "bf16" });
    expect(await bf16.data()).toBeInstanceOf(Float32Array);
    expect(await bf16.tolist()).toEqual([0.10009765625, -9999220736, NaN]);
    // A Float16Array has a type; a Float32Array may be asked to become one.
    const typed = tensor(Float16Array.of(0.5, 2), { shape: [2, 1] });
    expect([typed.dtype, await typed.tolist()]).toEqual(["f16", [[0.5], [2]]]);
    expect(await list(tensor(Float32Array.of(0.1), { dtype: "f16" }))).toEqual([0.0999755859375]);
    expect(await list(tensor(Float64Array.of(1 + 2 ** -11 + 2 ** -40), { dtype: "f16" }))).toEqual([
      1 + 2 ** -10,
    ]);
    expect(await tensor(7, { dtype: "bf16" }).item()).toBe(7);
    if (device !== "webgpu")
      expect(f16.toString()).toMatch(/^Tensor\(\[.*inf.*\], shape \[4\], f16, /s);
    expect(bf16.toString()).toContain("bf16");
  });

  test.each(halves)("creation functions, %s", async (dtype) => {
    const made = [
      zeros([3], { dtype }),
      full([2], 0.1, { dtype }),
      arange(0, 1, 0.3, { dtype }),
      linspace(-1, 1, 5, { dtype }),
      eye(2, 2, { dtype }),
      h.logspace(0, 1, 3, { dtype }),
      h.onesLike(zeros([2], { dtype })),
    ];
    expect(made.map((t) => t.dtype)).toEqual(made.map(() => dtype));
    const at = (x: number) => roundTo(dtype, x);
    expect(await list(made[1])).toEqual([at(0.1), at(0.1)]);
    expect(await list(made[2])).toEqual([0, 0.3, 0.6, 0.9].map((x) => at(Math.fround(x))));
    expect(await list(made[3])).toEqual([-1, -0.5, 0, 0.5, 1]);
    expect(await list(made[5])).toEqual([1, at(Math.sqrt(10)), 10]);
    // Counted in f32: 257 is no bf16, but its neighbours do not drift.
    expect(await list(arange(255, 260, { dtype }))).toEqual([255, 256, 257, 258, 259].map(at));
  });

  test.each(halves)("random tensors are those of f32, rounded, %s", async (dtype) => {
    for (const draw of [
      (o: object) => rand([40], o),
      (o: object) => randn([40], o),
      (o: object) => uniform([40], -2, 5, o),
      (o: object) => h.normal([40], 1, 2, o),
    ]) {
      manualSeed(5);
      const want = await list(draw({}));
      manualSeed(5);
      const got = draw({ dtype });
      expect(got.dtype).toBe(dtype);
      expect(await list(got)).toEqual(want.map((x) => roundTo(dtype, x)));
    }
    expect(() => rand([2], { dtype: "i32" })).toThrow(/rand: expected a float dtype, got i32/);
    const p = full([2000], 0.25, { dtype });
    const drawn = bernoulli(p);
    expect(drawn.dtype).toBe(dtype);
    expect(Number(await drawn.float().mean().item())).toBeCloseTo(0.25, 1);
    const dropped = dropout(full([500], 1, { dtype }), 0.1);
    // 1/0.9 is rounded once, as a product.
    expect([...new Set(await list(dropped))].sort()).toEqual([0, roundTo(dtype, 1 / 0.9)]);
    expect(randint(0, 9, [3], { dtype }).dtype).toBe(dtype);
    expect((await list(h.multinomial(full([4], 0.5, { dtype }), 4))).sort()).toEqual([0, 1, 2, 3]);
  });

  test("conversions", async () => {
    const x = tensor([1.2, -2.7, 300, 70000]);
    expect(x.half().dtype).toBe("f16");
    expect(x.bfloat16().dtype).toBe("bf16");
    expect(x.to("bf16").float().dtype).toBe("f32");
    expect(await list(x.half())).toEqual([1.2001953125, -2.69921875, 300, Infinity]);
    expect(await list(x.half().to("i32"))).toEqual([1, -2, 300, 2147483647]);
    expect(await list(x.bfloat16().to("f16"))).toEqual([1.203125, -2.703125, 300, Infinity]);
    expect(await list(tensor([0, 1, -3], { dtype: "i32" }).half())).toEqual([0, 1, -3]);
    expect(await list(tensor([0, 0.5, NaN], { dtype: "bf16" }).bool())).toEqual([0, 1, 1]);
    expect(await list(tensor([true, false]).bfloat16())).toEqual([1, 0]);
    // Integers reach halves by way of f32.
    expect(await list(tensor([2 ** 24 + 1, 257], { dtype: "i32" }).bfloat16())).toEqual([
      2 ** 24,
      256,
    ]);
  });

  test("promotion", async () => {
    const t = (dtype: DType, shape: number[] = [2]) => zeros(shape, { dtype });
    const type = (a: Tensor, b: Tensor) => [a.add(b).dtype, b.mul(a).dtype];
    expect(type(t("f16"), t("bf16"))).toEqual(["f32", "f32"]);
    expect(type(t("f16"), t("f32"))).toEqual(["f32", "f32"]);
    for (const half of halves) {
      for (const other of ["i32", "u32", "i8", "u8", "bool", half] as DType[])
        expect(type(t(half), t(other))).toEqual([half, half]);
      // 0-d tensors of the same category widen nothing; of a higher one they do.
      expect(type(t(half), t("f32", []))).toEqual([half, half]);
      expect(type(t("i32"), t(half, []))).toEqual([half, half]);
      const x = t(half);
      for (const y of [x.add(1), x.mul(0.1), x.div(3), x.pow(2.5), x.maximum(0.3), x.sub(1e9)])
        expect(y.dtype).toBe(half);
      expect(x.lt(0.1).dtype).toBe("bool");
      expect(x.div(t("i32").add(1)).dtype).toBe(half);
      expect(t("i32").add(1).div(t("i32").add(2)).dtype).toBe("f32");
    }
    expect(() => t("f16", [2, 2]).matmul(t("bf16", [2, 2]))).toThrow(/operands of one dtype/);
  });

  test.each(halves)("numbers and f32 scalars keep their digits, %s", async (dtype) => {
    const values = [0.7, -1.3, 100, 3e-4].map((v) => roundTo(dtype, v));
    const x = tensor(values, { dtype });
    const f = Math.fround;
    const once = (op: (v: number) => number) => values.map((v) => roundTo(dtype, f(op(v))));
    expect(await list(x.mul(0.1))).toEqual(once((v) => v * f(0.1)));
    expect(await list(x.mul(tensor(0.1)))).toEqual(once((v) => v * f(0.1)));
    expect(await list(x.add(1e-3))).toEqual(once((v) => v + f(1e-3)));
    expect(await list(x.div(0.3))).toEqual(once((v) => v / f(0.3)));
    expect(await list(x.rsub(0.3))).toEqual(once((v) => f(0.3) - v));
    expect(await list(x.add(x, { alpha: 0.1 }))).toEqual(once((v) => f(v + f(v * f(0.1)))));
    expect(await list(x.pow(3))).toEqual(once((v) => f(v * v) * v));
  });

  /** What is computed in several steps is rounded after the last. */
  const composite: Record<string, (x: Tensor, y: Tensor) => Tensor> = {
    gelu: (x) => x.gelu(),
    geluTanh: (x) => x.gelu({ approximate: "tanh" }),
    silu: (x) => x.silu(),
    sigmoid: (x) => x.sigmoid(),
    selu: (x) => x.selu(),
    softplus: (x) => x.softplus(),
    log1p: (x) => x.abs().log1p(),
    expm1: (x) => x.expm1(),
    asin: (x) => x.mul(0.25).asin(),
    atan2: (x, y) => x.atan2(y),
    hypot: (x, y) => x.hypot(y),
    logaddexp: (x, y) => x.logaddexp(y),
    lgamma: (x) => x.lgamma(),
    tan: (x) => x.tan(),
    round: (x) => x.round({ decimals: 1 }),
    lerp: (x, y) => x.lerp(y, 0.3),
    addcmul: (x, y) => x.addcmul(y, x, { value: 0.7 }),
    addcdiv: (x, y) => x.addcdiv(y, x, { value: 0.7 }),
    floorDivide: (x, y) => x.floorDivide(y),
    remainder: (x, y) => x.remainder(y),
    pow: (x, y) => x.abs().pow(y),
    mean: (x) => x.mean(1),
    sum: (x) => x.sum(0),
    var: (x) => x.var(1),
    std: (x) => x.std(),
    norm: (x) => x.norm(),
    norm3: (x) => x.norm(3, 1),
    prod: (x) => x.prod(1),
    softmax: (x) => x.softmax(1),
    logSoftmax: (x) => x.logSoftmax(0),
    logsumexp: (x) => x.logsumexp(1),
    layerNorm: (x, y) => x.layerNorm([7], y.select(0, 0), y.select(0, 1)),
    rmsNorm: (x, y) => x.rmsNorm(7, y.select(0, 0)),
    normalize: (x) => x.normalize(),
    batchNorm: (x, y) => x.batchNorm(null, null, y.select(0, 0), null, { training: true }),
    groupNorm: (x) => x.unsqueeze(0).groupNorm(5),
    cumsum: (x) => x.cumsum(1),
    cumprod: (x) => x.cumprod(0),
    cummax: (x) => x.cummax(1).values,
    logcumsumexp: (x) => x.logcumsumexp(1),
    quantile: (x) => x.quantile(0.3, 1),
    median: (x) => x.median(1).values,
    sort: (x) => x.sort({ dim: 1 }).values,
    topk: (x) => x.topk(3, 1).values,
    max: (x) => x.max(1).values,
    matmul: (x, y) => x.matmul(y.mT),
    einsum: (x, y) => h.einsum("ij,kj->ik", x, y),
    avgPool: (x) => h.avgPool1d(x.unsqueeze(0), 3),
    maxPool: (x) => h.maxPool1d(x.unsqueeze(0), 3),
    conv1d: (x, y) => h.conv1d(x.unsqueeze(0), y.narrow(1, 0, 3).unsqueeze(0)),
    cosine: (x, y) => h.cosineSimilarity(x, y),
    cdist: (x, y) => x.cdist(y),
    mse: (x, y) => h.mseLoss(x, y),
    bce: (x, y) => h.binaryCrossEntropyWithLogits(x, y.sigmoid()),
    smoothL1: (x, y) => h.smoothL1Loss(x, y),
    kl: (x, y) => h.klDiv(x.logSoftmax(1), y.softmax(1), { reduction: "sum" }),
    crossEntropy: (x) => crossEntropy(x, tensor([0, 3, 6, 1, 2], { dtype: "i32" })),
    attention: (x, y) =>
      h.scaledDotProductAttention(x.unsqueeze(0), y.unsqueeze(0), y.unsqueeze(0)),
    indexAdd: (x, y) => x.indexAdd(0, tensor([1, 1, 0, 2, 1], { dtype: "i32" }), y),
    embedding: (x) => embedding(tensor([3, 3, 0], { dtype: "i32" }), x),
  };
  // Their arguments are halves already, so that f32 sees the same ones.
  const inner = new Set(["log1p", "asin", "pow", "bce", "kl"]);

  test.each(halves)("operators give f32's result, rounded once, %s", async (dtype) => {
    const values = (seed: number) =>
      Array.from({ length: 35 }, (_, i) => roundTo(dtype, 2.5 * Math.sin(seed + 1.7 * i)));
    const [x, y] = [1, 2].map((s) => tensor(values(s), { dtype, shape: [5, 7] }));
    // A software GPU takes a second to compile each of these.
    const all = Object.entries(composite);
    const tested = device === "webgpu" ? all.filter((_, i) => i % 8 === 0) : all;
    for (const [name, f] of tested) {
      const [got, want] = [f(x, y), f(x.float(), y.float())];
      expect([name, got.dtype]).toEqual([name, dtype]);
      const [a, b] = [await list(got), await list(want)];
      const slack = inner.has(name) ? 2 * floatLimits[dtype].eps : 0;
      a.forEach((v, i) => {
        const exact = roundTo(dtype, b[i]);
        if (Object.is(v, exact) || (v === exact && v === 0)) return;
        expect(Math.abs(v - exact), `${name}[${i}]: ${v}, ${exact}`).toBeLessThanOrEqual(
          slack * Math.max(1, Math.abs(exact)),
        );
      });
    }
  });

  test.each(halves)("what is not a number, %s", async (dtype) => {
    const { max } = floatLimits[dtype];
    const x = tensor([NaN, Infinity, -Infinity, max, -0, 1], { dtype });
    expect(await list(x.isnan())).toEqual([1, 0, 0, 0, 0, 0]);
    expect(await list(x.isinf())).toEqual([0, 1, 1, 0, 0, 0]);
    expect(await list(x.isfinite())).toEqual([0, 0, 0, 1, 1, 1]);
    expect(await list(x.nanToNum())).toEqual([0, max, -max, max, -0, 1]);
    expect(await list(x.mul(2))).toEqual([NaN, Infinity, -Infinity, Infinity, -0, 2].map((v) => roundTo(dtype, v))); // biome-ignore format: one line
    expect(await list(x.nansum().isinf())).toEqual([0]);
    // 50 000 · 4 overflows f16, the mean does not.
    expect(await full([4], 50_000, { dtype }).mean().item()).toBe(roundTo(dtype, 50_000));
    expect(await full([9], 30_000, { dtype }).norm().item()).toBe(roundTo(dtype, 90_000));
  });

  test.each(halves)("gradients have the type of what they belong to, %s", async (dtype) => {
    const x = tensor([0.3, -1.2, 2, 0.7], { dtype, requiresGrad: true });
    const w = tensor([1, 2, 3, 4], { requiresGrad: true });
    const loss = x.gelu().mul(w).sum();
    expect(loss.dtype).toBe("f32");
    loss.backward();
    expect([x.grad!.dtype, w.grad!.dtype]).toEqual([dtype, "f32"]);
    const exact = grad((v: Tensor) => v.gelu().mul(w.detach()).sum())(x.detach().float());
    const [got, want] = [await list(x.grad!), await list(exact)];
    got.forEach((g, i) => {
      expect(Math.abs(g - want[i])).toBeLessThanOrEqual(4 * floatLimits[dtype].eps);
    });
    const half = (v: Tensor) => v.softmax(0).mul(v).sum();
    const seed = tensor([0.5, 1, -1], { dtype });
    const gradient = grad(half)(seed);
    expect(gradient.dtype).toBe(dtype);
    const rows = vmap(grad(half))(seed.expand([3, 3]).add(0));
    expect([rows.dtype, rows.shape]).toEqual([dtype, [3, 3]]);
    expect(await list(rows)).toEqual((await list(gradient)).concat(await list(gradient), await list(gradient))); // biome-ignore format: one line
    const second = grad((v: Tensor) => grad(half)(v).square().sum())(seed);
    expect((await list(second)).every(Number.isFinite)).toBe(true);
    const [tangentOut] = [h.jvp((v: Tensor) => v.tanh(), [seed], [seed])].map(([, t]) => t);
    expect(tangentOut.dtype).toBe(dtype);
  });

  test.each(halves)("a scan carries them, %s", async (dtype) => {
    const xs = tensor([1, 2, 3, 4], { dtype });
    const [last, all] = scan(
      (carry: Tensor, x: Tensor) => [carry.mul(0.5).add(x), carry] as [Tensor, Tensor],
      tensor(0, { dtype }),
      xs,
    );
    expect([last.dtype, all.dtype]).toEqual([dtype, dtype]);
    expect([await list(last), await list(all)]).toEqual([[6.125], [0, 1, 2.5, 4.25]]);
  });

  test.each(halves)("views, joins and writes, %s", async (dtype) => {
    const x = tensor([1, 2, 3, 4, 5, 6], { dtype, shape: [2, 3] });
    expect(await cat([x, x.flip(0)], 1).tolist()).toEqual([
      [1, 2, 3, 4, 5, 6],
      [4, 5, 6, 1, 2, 3],
    ]);
    expect(await x.T.reshape([6]).tolist()).toEqual([1, 4, 2, 5, 3, 6]);
    expect(await x.maskedFill(x.gt(4), 0.1).sum().item()).toBe(
      roundTo(dtype, 10 + 2 * roundTo(dtype, 0.1)),
    );
    const cell = zeros([3], { dtype }).add(0);
    cell.assign(tensor([0.1, 2, 3e5]));
    expect(await list(cell)).toEqual([0.1, 2, 3e5].map((v) => roundTo(dtype, v)));
    expect(await x.where(x.lt(3), -1).tolist()).toEqual([
      [1, 2, -1],
      [-1, -1, -1],
    ]);
  });

  const make: Record<string, (p: Tensor[]) => optim.Optimizer> = {
    SGD: (p) => new optim.SGD(p, { lr: 0.1, momentum: 0.9, weightDecay: 0.01 }),
    Adam: (p) => new optim.Adam(p, { lr: 0.01, weightDecay: 0.01 }),
    AdamW: (p) => new optim.AdamW(p, { lr: 0.01 }),
  };

  test.each(halves)(
    "optimizers update them in f32, their state is of their type, %s",
    async (dtype) => {
      for (const [name, build] of Object.entries(make)) {
        const start = [0.5, -1, 2].map((v) => roundTo(dtype, v));
        const step = [0.25, -0.125, 1];
        const half = parameter(tensor(start, { dtype }));
        const wide = parameter(tensor(start));
        for (const p of [half, wide]) {
          const optimizer = build([p]);
          const types = [...optimizer.stateCells()].map(([key, t]) => [key, t.dtype]);
          for (const [key, type] of types)
            expect(type).toBe(/^(steps|lr)/.test(key) ? "f32" : p.dtype);
          p.mul(tensor(step, { dtype: p.dtype }))
            .sum()
            .backward();
          expect(p.grad!.dtype).toBe(p.dtype);
          optimizer.step();
        }
        // The first update: moments start at zero, so rounding them changes nothing yet.
        const want = (await list(wide)).map((v) => roundTo(dtype, v));
        expect([name, await list(half)]).toEqual([name, want]);
      }
    },
  );

  test("the common norm of gradients of f16 does not overflow", async () => {
    const p = parameter(zeros([100], { dtype: "f16" }));
    p.mul(400).sum().backward();
    const norm = optim.clipGradNorm([p], 1);
    expect(Number(await norm.item())).toBeCloseTo(4000, 0);
    expect(p.grad!.dtype).toBe("f16");
    expect(Number(await p.grad!.float().norm().item())).toBeCloseTo(1, 2);
  });
});

onEachDevice("training", (device) => {
  test.each(halves)("of %s parameters converges", { timeout: 60_000 }, async (dtype) => {
    manualSeed(11);
    const [up, down] = [new Linear(2, 16), new Linear(16, 3)];
    up.to(dtype);
    down.to(dtype);
    const parameters = [...up.parameters(), ...down.parameters()];
    expect(parameters.map((p) => p.dtype)).toEqual(parameters.map(() => dtype));
    const optimizer = new optim.AdamW(parameters, { lr: 0.02, weightDecay: 0 });
    // Three classes by angle.
    const n = 60;
    const angles = Array.from({ length: n }, (_, i) => (2 * Math.PI * i) / n);
    const x = tensor(angles.map((a) => [Math.cos(a), Math.sin(a)]), { dtype }); // biome-ignore format: one line
    const y = tensor(angles.map((_, i) => Math.floor((3 * i) / n)), { dtype: "i32" }); // biome-ignore format: one line
    const step = compile(() => {
      const loss = crossEntropy(down.forward(up.forward(x).gelu()), y);
      optimizer.zeroGrad();
      loss.backward();
      optim.clipGradNorm(parameters, 5);
      optimizer.step();
      return loss;
    });
    const steps = device === "webgpu" ? 20 : 150;
    const losses: number[] = [];
    for (let i = 0; i < steps; i++) losses.push(Number(await step().item()));
    expect(step().dtype).toBe(dtype);
    const last = losses[steps - 1];
    if (device === "webgpu") {
      expect(last).toBeLessThan(0.8 * losses[0]);
      return;
    }
    expect(last).toBeLessThan(0.2 * losses[0]);
    const right = noGrad(() => down.forward(up.forward(x).gelu()).argmax(1).eq(y).float().mean());
    expect(Number(await right.item())).toBeGreaterThan(0.95);
  });
});

describe("types", () => {
  test("two bytes each, and what the host sees", () => {
    expect(halves.map((d) => dtypes[d].bytes)).toEqual([2, 2]);
    expect(halves.map((d) => dtypes[d].array)).toEqual([Float16Array, Float32Array]);
  });
});
