import * as h from "hinode";
import { ShapeError, type Tensor, TransformError, tensor } from "hinode";
import { describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const near = async (a: Tensor, b: Tensor, tolerance = 1e-5) => {
  expect(a.shape).toEqual(b.shape);
  expect(
    difference(await a.data(), await b.data(), { rtol: tolerance, atol: tolerance }),
  ).toBeNull();
};
const matrix = () =>
  tensor([
    [0.3, -0.7, 1.4],
    [2.2, -1.9, 0.9],
  ]);
const vector = () => tensor([0.3, -0.7, 1.4]);

onEachDevice("vmap", () => {
  const positions = () => tensor([2, 0, 1, 2], { dtype: "i32" });
  const functions: Record<string, (x: Tensor) => Tensor> = {
    arithmetic: (x) => x.mul(2).add(x.sum()).sub(vector()),
    "two scalars": (x) => x.sum().mul(x.amax()),
    movement: (x) =>
      h.cat([x.flip(0), x.unsqueeze(0).expand([2, 3]).reshape([6]).slice(0, 1, 5, 2)]).pad([1, 0]),
    softmax: (x) => x.softmax(0).layerNorm(3),
    matmul: (x) =>
      x
        .outer(x)
        .matmul(x)
        .matmul(h.arange(6).float().reshape([3, 2])),
    gather: (x) => x.indexSelect(0, positions()),
    scatter: (x) => h.zeros([3]).scatterAdd(0, tensor([1, 1, 0], { dtype: "i32" }), x),
    argmax: (x) => h.where(x.argmax().eq(0), x, x.neg()),
    loss: (x) => h.crossEntropy(x, tensor(1, { dtype: "i32" })),
    attention: (x) =>
      h.scaledDotProductAttention(x.outer(x), x.outer(x), x.outer(x), { isCausal: true }),
    unbatched: (_) => vector(),
    gradient: (x) => h.grad((y: Tensor) => y.pow(3).sum())(x),
    jvp: (x) => h.jvp((y: Tensor) => y.sin(), [x], [vector()])[1],
    checkpoint: h.checkpoint((x: Tensor) => x.exp().sum().mul(x)),
    scan: (x) => h.scan((c: Tensor, y: Tensor) => [c.add(y), c.mul(y)], tensor(0), x)[1],
    vmap: (x) => h.vmap((y: Tensor) => y.mul(x))(x),
  };
  test.for(Object.entries(functions))("is the stack of the function: %s", async ([, f]) => {
    const x = matrix();
    await near(h.vmap(f)(x), h.stack(x.unbind(0).map(f)), 1e-4);
  });

  test("inDims, outDims, several arguments, trees", async () => {
    const f = (a: Tensor, b: Tensor) => a.sub(b);
    expect(
      (await h
        .vmap(f, { inDims: [1, null] })(matrix(), tensor([1, 2]))
        .tolist()) as unknown,
    ).toHaveLength(3);
    expect(h.vmap(f, { inDims: [1, null], outDims: 1 })(matrix(), tensor([1, 2])).shape).toEqual([
      2, 3,
    ]);
    expect(h.vmap(f, { inDims: -1, outDims: -1 })(matrix(), matrix()).shape).toEqual([2, 3]);
    const tree = h.vmap((p: { a: Tensor; k: number }) => ({ s: p.a.sum(), t: [p.a.mul(p.k)] }))({
      a: matrix(),
      k: 3,
    });
    expect([tree.s.shape, tree.t[0].shape]).toEqual([[2], [2, 3]]);
  });

  test("grad through vmap, vmap of grad: per-example gradients", async () => {
    const w = vector();
    const loss = (u: Tensor, x: Tensor) => u.mul(x).sum().square();
    const each = h.vmap(h.grad(loss), { inDims: [null, 0] })(w, matrix());
    const total = h.grad((u: Tensor) =>
      h
        .vmap(loss, { inDims: [null, 0] })(u, matrix())
        .sum(),
    )(w);
    await near(each.sum(0), total, 1e-4);
  });

  test("randomness must be chosen", async () => {
    const f = (x: Tensor) => x.add(h.rand([2]));
    const x = h.zeros([3, 2]);
    expect(() => h.vmap(f)(x)).toThrow(TransformError);
    const same = (await h.vmap(f, { randomness: "same" })(x).tolist()) as number[][];
    const different = (await h.vmap(f, { randomness: "different" })(x).tolist()) as number[][];
    expect(same[0]).toEqual(same[1]);
    expect(different[0]).not.toEqual(different[1]);
    const captured = h.rand([2]);
    await near(
      h
        .vmap((y: Tensor) => y.add(captured))(x)
        .select(0, 1),
      captured,
    );
  });

  test("assigning a batched value to unbatched state is refused, and leaves the state", async () => {
    const state = tensor([1, 2, 3]);
    const f = h.vmap((x: Tensor) => {
      state.assign(x);
      return x;
    });
    expect(() => f(matrix())).toThrow(/vmap: expected a function that assigns no value/);
    expect(await state.tolist()).toEqual([1, 2, 3]);
    h.vmap((x: Tensor) => {
      state.assign(vector());
      return x;
    })(matrix());
    await near(state, vector());
  });

  test("what is refused", () => {
    expect(() => h.vmap((x: Tensor) => x)(tensor(1))).toThrow(ShapeError);
    expect(() => h.vmap((x: Tensor, y: Tensor) => x.add(y))(matrix(), h.zeros([3, 2]))).toThrow(
      ShapeError,
    );
    expect(() => h.vmap((x: number) => x)(3)).toThrow(/at least one mapped tensor/);
  });
});

onEachDevice("Jacobians and Hessians", () => {
  const f = (x: Tensor) => h.stack([x.sin().sum(), x.prod()]);
  test("jacfwd = jacrev = the formula", async () => {
    const want = h.stack([vector().cos(), tensor([-0.98, 0.42, -0.21])]);
    await near(h.jacrev(f)(vector()), want);
    await near(h.jacfwd(f)(vector()), want);
    expect(h.jacfwd((x: Tensor) => x.matmul(x.T))(matrix()).shape).toEqual([2, 2, 2, 3]);
    expect(h.jacrev((x: Tensor) => x.matmul(x.T))(matrix()).shape).toEqual([2, 2, 2, 3]);
  });
  test("hessian", async () => {
    const x = vector();
    await near(h.hessian((y: Tensor) => y.pow(3).sum())(x), h.eye(3).mul(x.mul(6)));
    const a = tensor([
      [2, 1, 0],
      [1, 3, 1],
      [0, 1, 4],
    ]);
    await near(h.hessian((y: Tensor) => y.dot(a.mv(y)).div(2))(x), a);
    await near(
      h.hessian((y: Tensor) => y.logsumexp())(x),
      h.jacrev(h.grad((y: Tensor) => y.logsumexp()))(x),
      1e-4,
    );
    expect(h.hessian((y: Tensor) => y.square().sum())(matrix()).shape).toEqual([2, 3, 2, 3]);
  });
});

onEachDevice("checkpoint", () => {
  test("value and gradient of the function, captured weights included", async () => {
    const w = tensor([1, 2, 3], { requiresGrad: true });
    const body = (x: Tensor) => ({ y: x.mul(w).tanh(), z: [x.sum()] });
    const run = async (f: typeof body) => {
      const x = tensor([0.3, -0.7, 1.4], { requiresGrad: true });
      const { y, z } = f(x);
      y.mul(z[0]).sum().backward();
      const got = [await y.tolist(), await x.grad!.tolist(), await w.grad!.tolist()];
      h.zeroGrad([w]);
      return got;
    };
    expect(await run(h.checkpoint(body))).toEqual(await run(body));
  });

  test("nested, twice differentiated, without arguments", async () => {
    const inner = h.checkpoint((x: Tensor) => x.sin().mul(x));
    const outer = h.checkpoint((x: Tensor) => inner(x).exp());
    const plain = (x: Tensor) => x.sin().mul(x).exp();
    const twice = (f: (x: Tensor) => Tensor) =>
      h.grad((y: Tensor) =>
        h
          .grad((x: Tensor) => f(x).sum())(y)
          .square()
          .sum(),
      )(vector());
    await near(twice(outer), twice(plain), 1e-4);
    const w = tensor(2, { requiresGrad: true });
    h.checkpoint(() => w.square())().backward();
    expect(await w.grad!.item()).toBe(4);
  });

  test("assignments inside reach the state", async () => {
    const state = tensor(0);
    const f = h.checkpoint((x: Tensor) => {
      state.assign(x.sum().detach());
      return x.mul(2);
    });
    await f(vector()).data();
    expect(await state.item()).toBeCloseTo(1, 5);
  });
});

onEachDevice("customGradient", () => {
  const clipped = h.customGradient(
    (x: Tensor) => x.mul(10),
    (ct) => [ct.clamp(-1, 1)],
  );
  test("replaces the gradient, not the value", async () => {
    const [value, g] = h.valueAndGrad((x: Tensor) => clipped(x).mul(5).sum())(vector());
    await near(value, tensor(50));
    expect(await g.tolist()).toEqual([1, 1, 1]);
  });

  test("sees inputs and outputs, may skip arguments, and is differentiable itself", async () => {
    const f = h.customGradient(
      (x: Tensor, y: Tensor) => x.exp().mul(y),
      (ct, [, y], out) => [ct.mul(out).add(y.mul(0)), null],
    );
    const gx = h.grad((x: Tensor) => f(x, tensor(2)))(tensor(0.5));
    expect(await gx.item()).toBeCloseTo(2 * Math.exp(0.5), 5);
    const gy = h.grad((y: Tensor) => f(tensor(0.5), y))(tensor(2));
    expect(await gy.item()).toBe(0);
    const second = h.grad((x: Tensor) => h.grad((u: Tensor) => f(u, tensor(2)))(x))(tensor(0.5));
    expect(await second.item()).toBeCloseTo(2 * Math.exp(0.5), 5);
    await near(
      h.vmap((x: Tensor) => h.grad((u: Tensor) => f(u, tensor(2)))(x))(vector()),
      vector().exp().mul(2),
    );
  });

  test("what is captured is constant; wrong shapes are refused", async () => {
    const w = tensor(3, { requiresGrad: true });
    const f = h.customGradient(
      (x: Tensor) => x.mul(w),
      (ct) => [ct.mul(w)],
    );
    const x = tensor(2, { requiresGrad: true });
    f(x).backward();
    expect(await x.grad!.item()).toBe(3);
    expect(w.grad === null || (await w.grad.item()) === 0).toBe(true);
    const bad = h.customGradient(
      (y: Tensor) => y.mul(2),
      (ct) => [ct.sum()],
    );
    expect(() => bad(vector())).toThrow(/a gradient like argument 0: f32\[3\], got f32\[\]/);
    const none = h.customGradient((y: Tensor) => y.mul(2), (() => []) as never);
    expect(() => none(vector())).toThrow(/an array of 1 gradients/);
  });
});

onEachDevice("scan", () => {
  const step = (c: Tensor, x: Tensor): [Tensor, Tensor] => [c.mul(0.5).add(x), c.sin()];
  const unrolled = (init: Tensor, xs: Tensor): [Tensor, Tensor] => {
    let c = init;
    const ys: Tensor[] = [];
    for (const x of xs.unbind(0)) {
      const [next, y] = step(c, x);
      ys.push(y);
      c = next;
    }
    return [c, h.stack(ys)];
  };

  test("is the loop, with its gradients of two orders", async () => {
    const [c, ys] = h.scan(step, vector(), matrix());
    const [want, all] = unrolled(vector(), matrix());
    await near(c, want);
    await near(ys, all);
    const objective = (f: typeof unrolled) => (init: Tensor, xs: Tensor) => {
      const [last, out] = f(init, xs);
      return last.square().sum().add(out.mul(xs).sum());
    };
    const loop: typeof unrolled = (i, x) => h.scan(step, i, x);
    for (const argnums of [0, 1] as const) {
      const first = (f: typeof unrolled) => h.grad(objective(f), { argnums })(vector(), matrix());
      await near(first(loop), first(unrolled));
      const second = (f: typeof unrolled) =>
        h.grad((i: Tensor) => h.grad(objective(f), { argnums })(i, matrix()).square().sum())(
          vector(),
        );
      await near(second(loop), second(unrolled), 1e-4);
    }
  });

  test("captured weights, trees, reverse, and no xs", async () => {
    const w = tensor(2, { requiresGrad: true });
    const [c] = h.scan(
      (s: Tensor, x: Tensor) => [s.mul(w).add(x), {}],
      tensor(0),
      tensor([1, 2, 3]),
    );
    c.backward();
    expect([await c.item(), await w.grad!.item()]).toEqual([11, 6]);
    const [{ n }, { y }] = h.scan(
      (s: { n: Tensor }, x: { a: Tensor }) => [{ n: s.n.add(1) }, { y: x.a.mul(s.n) }],
      { n: tensor(0) },
      { a: tensor([5, 6, 7]) },
      { reverse: true },
    );
    expect([await n.item(), await y.tolist()]).toEqual([3, [10, 6, 0]]);
    const step = (c: Tensor, x: Tensor) => [c.add(x), c] as [Tensor, Tensor];
    const [carry, none] = h.scan(step, tensor(1), h.zeros([0]));
    expect([await carry.item(), await none.tolist()]).toEqual([1, []]);
    const [p] = h.scan((s: Tensor, _: null) => [s.mul(2), null], tensor(1), null, { length: 10 });
    expect(await p.item()).toBe(1024);
  });

  test("random numbers differ from step to step", async () => {
    const [, ys] = h.scan((c: Tensor, _: null) => [c, h.rand([2])], tensor(0), null, { length: 3 });
    const rows = (await ys.tolist()) as number[][];
    expect(new Set(rows.map(String)).size).toBe(3);
  });

  describe("what is refused", () => {
    test("carries that change, lengths that differ, leaks", () => {
      expect(() => h.scan((_: Tensor, x: Tensor) => [x, x], tensor(0), matrix())).toThrow(
        /carry 0 to stay f32\[\]/,
      );
      expect(() =>
        h.scan((c: Tensor[], x: Tensor) => [[c[0], x], x] as never, [tensor(0)], matrix()),
      ).toThrow(/structure/);
      expect(() => h.scan((c: Tensor, _: null) => [c, c], tensor(0), null)).toThrow(/a length/);
      expect(() => h.scan(((c: Tensor) => c) as never, tensor(0), matrix())).toThrow(
        /\[carry, y\]/,
      );
      const state = tensor(0);
      const leak = (c: Tensor, x: Tensor): [Tensor, Tensor] => {
        state.assign(c);
        return [c, x];
      };
      expect(() => h.scan(leak, tensor(0), matrix())).toThrow(TransformError);
    });
  });
});
