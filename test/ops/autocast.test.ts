/** @file Autocast: the table operator by operator, gradients, modes, and that compiled functions keep to the mode. */
import * as h from "hinode";
import {
  autocast,
  autocastOperators,
  compile,
  isAutocastEnabled,
  randn,
  type Tensor,
  TransformError,
  tensor,
} from "hinode";
import { Linear, MultiheadAttention } from "hinode/nn";
import { describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

type Half = "f16" | "bf16";
type Result = Tensor | Tensor[] | { values: Tensor };
type Call = (x: Tensor) => Result;
const lib = h as unknown as Record<string, (...args: unknown[]) => Result>;

/** How to call what does not take one matrix alone. `x` is [4, 4]; other floats among the operands are f32. */
const calls: Record<string, Call> = (() => {
  const f = (...shape: number[]) => h.ones(shape);
  const two =
    (name: string): Call =>
    (x) =>
      lib[name](x, f(4, 4));
  const along =
    (name: string): Call =>
    (x) =>
      lib[name](x, 1);
  const batch = (x: Tensor) => x.reshape([1, 4, 4]);
  const row = (x: Tensor) => x.select(0, 0);
  const index = () => h.zeros([4, 4], { dtype: "i32" });
  const labels = () => h.zeros([4], { dtype: "i32" });
  const pairs = (names: string[], make: (name: string) => Call) =>
    Object.fromEntries(names.map((name) => [name, make(name)]));
  const conv =
    (rank: number) =>
    (name: string): Call =>
    (x) =>
      lib[name](
        x.reshape([1, 1, 16, ...Array(rank - 1).fill(1)]),
        f(1, 1, ...Array(rank).fill(1)),
        f(1),
      );
  return {
    ...pairs(["matmul", "mm", "linear", "inner", "matrixPower", "tensordot"], two),
    matrixPower: (x) => h.matrixPower(x, 2),
    tensordot: (x) => h.tensordot(x, f(4, 4), 1),
    linear: (x) => h.linear(x, f(3, 4), f(3)),
    bmm: (x) => h.bmm(batch(x), f(1, 4, 4)),
    mv: (x) => h.mv(x, f(4)),
    einsum: (x) => h.einsum("ij,jk->ik", x, f(4, 4)),
    bilinear: (x) => h.bilinear(x, f(4, 4), f(2, 4, 4), f(2)),
    addmm: (x) => h.addmm(f(4, 4), x, f(4, 4)),
    addmv: (x) => h.addmv(f(4), x, f(4)),
    addbmm: (x) => h.addbmm(f(4, 4), batch(x), f(1, 4, 4)),
    baddbmm: (x) => h.baddbmm(f(1, 4, 4), batch(x), f(1, 4, 4)),
    addr: (x) => h.addr(f(4, 4), row(x), f(4)),
    multiDot: (x) => h.multiDot([x, f(4, 4), f(4, 4)]),
    ...pairs(["conv1d", "convTranspose1d"], conv(1)),
    ...pairs(["conv2d", "convTranspose2d"], conv(2)),
    ...pairs(["conv3d", "convTranspose3d"], conv(3)),
    scaledDotProductAttention: (x) => h.scaledDotProductAttention(x, f(4, 4), f(4, 4)),
    attentionWeights: two("attentionWeights"),
    prelu: (x) => h.prelu(x, f(1)),
    pow: (x) => h.pow(x, 3),
    ...pairs(["logaddexp", "logaddexp2", "xlogy", "cdist", "pairwiseDistance"], two),
    cosineSimilarity: two("cosineSimilarity"),
    ...pairs(["cumsum", "cumprod", "logcumsumexp", "softmax", "softmin", "logSoftmax"], along),
    layerNorm: (x) => h.layerNorm(x, 4, f(4), f(4)),
    rmsNorm: (x) => h.rmsNorm(x, 4, f(4)),
    groupNorm: (x) => h.groupNorm(x, 2, f(4), f(4)),
    instanceNorm: (x) => h.instanceNorm(batch(x), f(4), f(4)),
    localResponseNorm: (x) => h.localResponseNorm(batch(x), 2),
    crossEntropy: (x) => h.crossEntropy(x, labels()),
    nllLoss: (x) => h.nllLoss(x, labels()),
    ...pairs(["mseLoss", "l1Loss", "smoothL1Loss", "huberLoss", "klDiv"], two),
    ...pairs(["binaryCrossEntropy", "binaryCrossEntropyWithLogits", "poissonNllLoss"], two),
    gaussianNllLoss: (x) => h.gaussianNllLoss(x, f(4, 4), f(4, 4)),
    cosineEmbeddingLoss: (x) => h.cosineEmbeddingLoss(x, f(4, 4), f(4)),
    marginRankingLoss: (x) => h.marginRankingLoss(x, f(4, 4), f(4, 4)),
    tripletMarginLoss: (x) => h.tripletMarginLoss(x, f(4, 4), f(4, 4)),
    dot: (x) => h.dot(row(x), f(4)),
    outer: (x) => h.outer(row(x), f(4)),
    addcmul: (x) => h.addcmul(x, f(4, 4), f(4, 4)),
    addcdiv: (x) => h.addcdiv(x, f(4, 4), f(4, 4)),
    lerp: (x) => h.lerp(x, f(4, 4), 0.3),
    scatter: (x) => h.scatter(x, 1, index(), f(4, 4)),
    scatterAdd: (x) => h.scatterAdd(x, 1, index(), f(4, 4)),
    scatterReduce: (x) => h.scatterReduce(x, 1, index(), f(4, 4), "sum"),
    indexAdd: (x) => h.indexAdd(x, 0, labels(), f(4, 4)),
    indexCopy: (x) => h.indexCopy(x, 0, labels(), f(4, 4)),
    indexPut: (x) => h.indexPut(x, [labels()], f(4, 4)),
  };
})();

const first = (r: Result): Tensor =>
  Array.isArray(r) ? r[0] : "values" in r && !(r instanceof h.Tensor) ? r.values : (r as Tensor);
const run = (name: string, x: Tensor): Tensor => first((calls[name] ?? lib[name])(x));

describe("the table of autocast", () => {
  const rows = Object.entries(autocastOperators);

  test("names operators, each once", () => {
    const names = rows.flatMap(([, list]) => list);
    expect(names.filter((name) => typeof lib[name] !== "function")).toEqual([]);
    expect(new Set(names).size).toBe(names.length);
  });

  test.each(["f16", "bf16"] as const)("holds for %s", (dtype) => {
    const wrong: string[] = [];
    for (const [policy, names] of rows)
      for (const name of names)
        for (const given of ["f32", dtype] as const) {
          const want = policy === "half" ? dtype : "f32";
          const x = h.ones([4, 4]).to(given);
          const got = autocast({ dtype }, () => run(name, x)).dtype;
          if (got !== want) wrong.push(`${name}(${given}): ${got}, not ${want}`);
        }
    expect(wrong).toEqual([]);
  });

  test("other operators keep or promote", () => {
    autocast({ dtype: "f16" }, () => {
      const [x, y] = [h.ones([2, 4]), h.ones([2, 4]).half()];
      expect(x.add(y).dtype).toBe("f32");
      expect(h.cat([x, y]).dtype).toBe("f32");
      for (const f of [h.relu, h.gelu, h.neg, h.sqrt]) expect(f(y).dtype).toBe("f16");
      expect(h.batchNorm(y, null, null, null, null, { training: true }).dtype).toBe("f16");
      expect(y.mul(2).dtype).toBe("f16");
      expect(x.mul(2).dtype).toBe("f32");
      // Integers are nobody's business.
      expect(h.ones([2, 2], { dtype: "i32" }).matmul(h.ones([2, 2], { dtype: "i32" })).dtype).toBe(
        "i32",
      );
    });
  });

  test("nests, ends, and refuses promises", () => {
    const product = () => h.ones([2, 2]).matmul(h.ones([2, 2])).dtype;
    autocast({}, () => {
      expect(product()).toBe("f16");
      expect(autocast({ dtype: "bf16" }, product)).toBe("bf16");
      expect(autocast({ enabled: false }, product)).toBe("f32");
      expect(() =>
        autocast({ dtype: "bf16" }, () => {
          throw new Error("own");
        }),
      ).toThrow("own");
      expect(product()).toBe("f16");
    });
    expect(isAutocastEnabled()).toBe(false);
    expect(product()).toBe("f32");
    expect(() => autocast({}, async () => 1)).toThrow(TransformError);
    expect(() => autocast({ dtype: "f32" as Half }, product)).toThrow(/f16' or 'bf16/);
    expect(isAutocastEnabled()).toBe(false);
  });
});

onEachDevice("autocast", () => {
  test("layers give halves, and parameters f32 gradients near those of f32", async () => {
    h.manualSeed(1);
    const layer = new Linear(8, 4);
    const x = randn([16, 8]);
    const train = (wrap: (f: () => Tensor) => Tensor) => {
      for (const p of layer.parameters()) p.grad = null;
      wrap(() => {
        const y = layer.forward(x);
        return h.crossEntropy(y, h.zeros([16], { dtype: "i32" }));
      }).backward();
      return layer.parameters().map((p) => p.grad!);
    };
    expect(autocast({}, () => layer.forward(x).dtype)).toBe("f16");
    const exact = await Promise.all(train((f) => f()).map((g) => g.data()));
    const mixed = train((f) => autocast({}, f));
    for (const [i, g] of mixed.entries()) {
      expect(g.dtype).toBe("f32");
      expect(difference(await g.data(), exact[i], { rtol: 1e-2, atol: 1e-3 })).toBeNull();
    }
  });

  test("attention keeps an f32 mask that f16 cannot hold", async () => {
    h.manualSeed(2);
    const [q, k, v] = [randn([1, 2, 3, 4]), randn([1, 2, 3, 4]), randn([1, 2, 3, 4])];
    const attnMask = tensor([-1e9, 0, -1e9]);
    const y = autocast({}, () => h.scaledDotProductAttention(q, k, v, { attnMask }));
    expect(y.dtype).toBe("f16");
    const want = v.narrow(-2, 1, 1).expand([1, 2, 3, 4]);
    expect(difference(await y.data(), await want.data(), { rtol: 1e-3, atol: 1e-3 })).toBeNull();
    // A row of which every key has the lowest number is not a row of none.
    const low = tensor([-1e9, -1e9, -1e9]);
    const even = autocast({}, () => h.scaledDotProductAttention(q, k, v, { attnMask: low }));
    expect((await even.data()).some(Number.isNaN)).toBe(false);
  });

  test("a compiled function has a plan per mode, and gives what the eager one gives", async () => {
    h.manualSeed(3);
    const layer = new MultiheadAttention(8, 2, { causal: true });
    const x = randn([2, 4, 8]);
    let traced = 0;
    const forward = (t: Tensor) => {
      traced++;
      return layer.forward(t).softmax(-1);
    };
    const compiled = compile(forward);
    for (const wrap of [
      (f: () => Tensor) => f(),
      (f: () => Tensor) => autocast({ dtype: "f16" }, f),
      (f: () => Tensor) => autocast({ dtype: "bf16" }, f),
    ]) {
      const want = await wrap(() => forward(x)).data();
      const before = traced;
      for (let i = 0; i < 2; i++) {
        const got = await wrap(() => compiled(x)).data();
        expect(difference(got, want, { rtol: 2e-3, atol: 1e-5 })).toBeNull();
      }
      expect(traced).toBe(before + 1);
    }
  });
});
