/** How many kernels canonical programs are, and of which kind: a change in fusion is seen here. */

import {
  compile,
  crossEntropy,
  explain,
  grad,
  init,
  layerNorm,
  ones,
  randint,
  randn,
  rmsNorm,
  scaledDotProductAttention,
  type Tensor,
  tensor,
  zeros,
} from "hinode";
import { optim } from "hinode/nn";
import { beforeAll, describe, expect, test } from "vitest";

beforeAll(() => init({ device: "wasm" }));

async function kinds(fn: (...args: Tensor[]) => unknown, ...args: Tensor[]): Promise<string[]> {
  return (await explain(compile(fn as never), ...(args as never[]))).kernels.map((k) => k.kind);
}

const x = randn([6, 10]);
const a = randn([10]);
const b = randn([10]);

describe("forward", () => {
  test("gelu(x·a + b) is one map", async () => {
    expect(await kinds((t) => t.mul(a).add(b).gelu(), x)).toEqual(["map"]);
  });
  test("softmax and log-softmax are one row each", async () => {
    expect(await kinds((t) => t.softmax(-1), x)).toEqual(["row"]);
    expect(await kinds((t) => t.logSoftmax(-1), x)).toEqual(["row"]);
    expect(await kinds((t) => t.softmax(0), x)).toEqual(["row"]);
  });
  test("layerNorm and rmsNorm are one row each", async () => {
    expect(await kinds((t) => layerNorm(t, [10], a, b), x)).toEqual(["row"]);
    expect(await kinds((t) => rmsNorm(t, [10], a), x)).toEqual(["row"]);
  });
  test("cross-entropy is two kernels at most", async () => {
    const target = randint(0, 10, [6]);
    expect((await kinds((t) => crossEntropy(t, target), x)).length).toBeLessThanOrEqual(2);
    const ignoring = (t: Tensor) => crossEntropy(t, target, { ignoreIndex: -100 });
    expect((await kinds(ignoring, x)).length).toBeLessThanOrEqual(2);
  });
  test("matmul + bias + gelu is one kernel, whatever the layout", async () => {
    const [w, bias] = [randn([10, 8]), randn([8])];
    expect(await kinds((t) => t.matmul(w).add(bias).gelu(), x)).toEqual(["matmul"]);
    expect(await kinds((t) => t.matmul(w).add(bias).gelu().T, x)).toEqual(["matmul"]);
    const [v, images] = [randn([8, 10]), randn([2, 3, 10])];
    expect(await kinds((t) => t.matmul(v.T).add(bias).gelu(), images)).toEqual(["matmul"]);
  });
  test("attention is three kernels at most, also from heads inside one projection", async () => {
    const [q, k, v] = [randn([2, 3, 5, 4]), randn([2, 3, 5, 4]), randn([2, 3, 5, 4])];
    const run = (isCausal: boolean) =>
      kinds((...t) => scaledDotProductAttention(t[0], t[1], t[2], { isCausal }), q, k, v);
    expect((await run(false)).length).toBeLessThanOrEqual(3);
    expect((await run(true)).length).toBeLessThanOrEqual(3);
    const qkv = randn([2, 5, 36]);
    const heads = (t: Tensor, i: number) =>
      t
        .narrow(2, 12 * i, 12)
        .reshape([2, 5, 3, 4])
        .transpose(1, 2);
    const attend = (t: Tensor) =>
      scaledDotProductAttention(heads(t, 0), heads(t, 1), heads(t, 2))
        .transpose(1, 2)
        .reshape([2, 5, 12]);
    expect((await kinds(attend, qkv)).length).toBeLessThanOrEqual(3);
  });
  test("a reduction takes the element-wise work before and after it along", async () => {
    expect(await kinds((t) => t.mul(2).exp().sum(1).log(), x)).toEqual(["reduce"]);
    expect(await kinds((t) => t.square().mean().sqrt(), x)).toEqual(["reduce"]);
    expect(await kinds((t) => t.sum(0), x)).toEqual(["reduce"]);
  });
  test("an embedding look-up and what follows are one kernel", async () => {
    const [table, ids] = [randn([20, 4]), tensor([3, 1, 4], { dtype: "i32" })];
    expect(await kinds((t) => t.indexSelect(0, ids).mul(2).relu(), table)).toEqual(["gather"]);
  });
});

describe("along lines", () => {
  test("a running sum takes the element-wise work before it along", async () => {
    expect(await kinds((t) => t.mul(2).exp().cumsum(1), x)).toEqual(["scan"]);
    expect(await kinds((t) => t.T.cumsum(0), x)).toEqual(["scan"]);
    expect(await kinds((t) => t.cumsum(1).mul(2).relu(), x)).toEqual(["scan", "map"]);
  });
  test("a sort is a permutation and a look-up", async () => {
    expect(await kinds((t) => t.abs().argsort(), x)).toEqual(["sort"]);
    expect(await kinds((t) => t.sort().values, x)).toEqual(["sort", "gather"]);
    expect(await kinds((t) => t.topk(3).values.sum(1), x)).toEqual(["sort", "reduce"]);
  });
  test("the gradient of a running sum is a running sum", async () => {
    const w = randn([6, 10]);
    const f = grad((t: Tensor) => t.cumsum(1).mul(w).sum());
    expect(await kinds(f as never, x)).toEqual(["scan"]);
  });
});

describe("gradients", () => {
  const scalar = (f: (t: Tensor) => Tensor, weight: Tensor) =>
    grad((t: Tensor) => f(t).mul(weight).sum()) as (t: Tensor) => Tensor;
  test("softmax is one row", async () => {
    const w = randn([6, 10]);
    expect(
      await kinds(
        scalar((t) => t.softmax(-1), w),
        x,
      ),
    ).toEqual(["row"]);
  });
  test("layerNorm is three kernels at most, for the input and both parameters", async () => {
    const w = randn([6, 10]);
    const f = grad((...t: Tensor[]) => layerNorm(t[0], [10], t[1], t[2]).mul(w).sum(), {
      argnums: [0, 1, 2],
    });
    expect((await kinds(f as never, x, a, b)).length).toBeLessThanOrEqual(3);
  });
  test("cross-entropy is one row", async () => {
    const target = randint(0, 10, [6]);
    expect(await kinds(grad((t: Tensor) => crossEntropy(t, target)) as never, x)).toEqual(["row"]);
  });
  test("a linear layer is two products, and its bias one reduction", async () => {
    const [w, bias] = [randn([8, 10]), randn([8])];
    const f = grad((...t: Tensor[]) => t[0].matmul(t[1].T).add(t[2]).square().sum(), {
      argnums: [0, 1, 2],
    });
    expect((await kinds(f as never, x, w, bias)).sort()).toEqual([
      "matmul",
      "matmul",
      "matmul",
      "reduce",
    ]);
  });
});

test("a chain of shifted products does not unroll into one kernel", async () => {
  // Each level of the product's gradient reads the one before at two places: inlined, they would double every time.
  const long = randn([4, 2000]);
  for (const f of [(t: Tensor) => t.prod(1).sum(), (t: Tensor) => t.cumprod(1).sum()]) {
    const { kernels } = await explain(compile(grad(f) as never), long as never);
    expect(kernels.length).toBeLessThanOrEqual(12);
    for (const k of kernels) expect(k.source.length).toBeLessThan(4000);
  }
});

describe("optimizers", () => {
  test("AdamW for one parameter is one kernel", async () => {
    const p = randn([8, 10]);
    p.requiresGrad = true;
    const adamw = new optim.AdamW([p], { lr: 1e-3, weightDecay: 0.1 });
    const g = ones([8, 10]);
    const step = (t: Tensor) => {
      p.grad = t;
      adamw.step();
      p.grad = null;
    };
    const { kernels } = await explain(compile(step as never), g as never);
    const updates = kernels.filter((k) => k.writes.some((w) => w.shape.length === 2));
    // Parameter and both moments; the count of updates and what follows from it are vectors of their own.
    expect(updates.map((k) => k.writes.length)).toEqual([3]);
    expect(kernels.length).toBeLessThanOrEqual(2);
  });
  test("a whole training step keeps nothing for the optimizer but gradients", async () => {
    const w = zeros([4, 10]);
    w.requiresGrad = true;
    const adamw = new optim.AdamW([w], { lr: 1e-3 });
    const step = (t: Tensor) => {
      adamw.zeroGrad();
      const loss = t.matmul(w.T).square().mean();
      loss.backward();
      adamw.step();
      adamw.zeroGrad();
      return loss;
    };
    const explanation = await explain(compile(step), x);
    // Product, loss, gradient with the whole of AdamW as its epilogue, step counter.
    expect(explanation.kernels.length).toBeLessThanOrEqual(4);
  });
});
