import * as h from "hinode";
import { ShapeError, type Tensor, TransformError, tensor } from "hinode";
import { describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const list = (t: Tensor | null | undefined) => t!.tolist();
const near = async (a: Tensor, b: Tensor, tolerance = 1e-5) => {
  expect(a.shape).toEqual(b.shape);
  expect(
    difference(await a.data(), await b.data(), { rtol: tolerance, atol: tolerance }),
  ).toBeNull();
};
const vector = () => tensor([0.3, -0.7, 1.4]);
const wave = (x: Tensor) => x.sin().mul(x).sum();

onEachDevice("backward", () => {
  test("adds to .grad of leaves until it is zeroed", async () => {
    const w = tensor([1, 2], { requiresGrad: true });
    w.mul(w).sum().backward();
    expect(await list(w.grad)).toEqual([2, 4]);
    w.sum().backward();
    expect(await list(w.grad)).toEqual([3, 5]);
    h.zeroGrad([w]);
    expect(w.grad).toBeNull();
    expect(w.requiresGrad && !w.mul(2).requiresGrad).toBe(true);
  });

  test("works after the loss was read, and twice", async () => {
    const w = tensor([1, 2], { requiresGrad: true });
    const loss = w.square().sum();
    expect(await loss.item()).toBe(5);
    loss.backward();
    loss.backward();
    expect(await list(w.grad)).toEqual([4, 8]);
  });

  test("stops at leaves: a leaf made of another tensor is a leaf", async () => {
    const a = tensor([1, 2], { requiresGrad: true });
    const b = a.mul(3);
    b.requiresGrad = true;
    b.square().sum().backward();
    expect(await list(b.grad)).toEqual([6, 12]);
    expect(a.grad).toBeNull();
  });

  test("needs a scalar or a cotangent", async () => {
    const w = tensor([1, 2], { requiresGrad: true });
    expect(() => w.mul(2).backward()).toThrow(ShapeError);
    expect(() => w.mul(2).backward()).toThrow(
      /backward: expected a scalar, got f32\[2\]\n.*\.sum\(\)/,
    );
    w.mul(2).backward(tensor([10, 1]));
    expect(await list(w.grad)).toEqual([20, 2]);
    expect(() => w.mul(2).backward(tensor([1]))).toThrow(ShapeError);
    expect(() => w.gt(0).sum().backward()).toThrow(h.DTypeError);
    const scalar = tensor(3, { requiresGrad: true });
    scalar.backward();
    expect(await list(scalar.grad)).toBe(1);
  });

  test("detach and noGrad make constants", async () => {
    const w = tensor([1, 2], { requiresGrad: true });
    w.mul(w.detach()).sum().backward();
    expect(await list(w.grad)).toEqual([1, 2]);
    const constant = h.noGrad(() => w.mul(2));
    expect(() => constant.sum().backward()).toThrow(TransformError);
    expect(() => tensor([1]).sum().backward()).toThrow(/set requiresGrad/);
    const inside = h.noGrad(() => h.enableGrad(() => w.sum()));
    inside.backward();
    expect(await list(w.grad)).toEqual([2, 3]);
    expect(h.noGrad(() => h.isGradEnabled())).toBe(false);
    const same = h.noGrad(() => w.reshape([2]));
    expect(() => same.sum().backward()).toThrow(TransformError);
  });

  test("a gradient that is zero everywhere is zeros, not an error", async () => {
    const w = tensor([1.5, -2], { requiresGrad: true });
    w.sign().sum().backward();
    expect(await list(w.grad)).toEqual([0, 0]);
    h.zeroGrad([w]);
    w.floor()
      .add(w.round())
      .add(w.div(2, { roundingMode: "floor" }))
      .sum()
      .backward();
    expect(await list(w.grad)).toEqual([0, 0]);
  });

  test("deep graphs need no stack", async () => {
    const w = tensor(1, { requiresGrad: true });
    let x: Tensor = w;
    for (let i = 0; i < 20000; i++) x = x.add(w.mul(1e-4));
    x.backward();
    expect(w.grad!.shape).toEqual([]);
  });

  test("gradients with respect to intermediate results", async () => {
    const w = tensor([1, 2], { requiresGrad: true });
    const y = w.mul(3);
    const [gy] = h.gradients(y.square().sum(), y);
    expect(await list(gy)).toEqual([6, 12]);
    expect(w.grad).toBeNull();
    const [first] = h.gradients(w.pow(3).sum(), w, { createGraph: true });
    first!.sum().backward();
    expect(await list(w.grad)).toEqual([6, 12]);
    expect(() => h.gradients(w.sum(), tensor([1]))).toThrow(/allowUnused/);
    expect(h.gradients(w.sum(), tensor([1]), { allowUnused: true })).toEqual([null]);
    const [sum] = h.gradients([w.sum(), y], w, { gradOutputs: [null, tensor([1, 10])] });
    expect(await list(sum)).toEqual([4, 31]);
  });

  test("gradients with respect to a value and to what it was computed from", async () => {
    const w = tensor([2], { requiresGrad: true });
    const y = w.mul(3);
    const [gy, gw] = h.gradients(y.square().add(w).sum(), [y, w]);
    expect([await list(gy), await list(gw)]).toEqual([[12], [37]]);
    const s = y.softmax(0).add(y);
    const found = h.gradients(s.mul(2).sum(), [w, s, y]);
    expect(await Promise.all(found.map(list))).toEqual([[6], [2], [2]]);
  });
});

onEachDevice("grad, vjp, jvp", () => {
  test("grad and valueAndGrad", async () => {
    const [value, g] = h.valueAndGrad(wave)(vector());
    await near(value, wave(vector()));
    await near(g, vector().cos().mul(vector()).add(vector().sin()));
  });

  test("argnums and trees", async () => {
    const f = (p: { w: Tensor; b: Tensor[] }, x: Tensor) => p.w.mul(x).add(p.b[0]).sum();
    const p = { w: tensor([1, 2]), b: [tensor(3)] };
    const g = h.grad(f)(p, tensor([5, 7]));
    expect([await list(g.w), await list(g.b[0])]).toEqual([[5, 7], 2]);
    const gx = h.grad(f, { argnums: 1 })(p, tensor([5, 7]));
    expect(await list(gx)).toEqual([1, 2]);
    const [gp, both] = h.grad(f, { argnums: [0, 1] })(p, tensor([5, 7]));
    expect([await list(gp.w), await list(both)]).toEqual([
      [5, 7],
      [1, 2],
    ]);
    const [last] = h.grad(f, { argnums: [-1] })(p, tensor([5, 7])) as unknown as Tensor[];
    expect(await list(last)).toEqual([1, 2]);
  });

  test("what the function captured is constant", async () => {
    const x = tensor([2, 3]);
    const y = x.mul(2);
    expect(await list(h.grad((t: Tensor) => t.mul(y).sum())(x))).toEqual([4, 6]);
    expect(await list(h.grad((t: Tensor) => t.mul(x).sum())(x))).toEqual([2, 3]);
    expect(await list(h.grad((_: Tensor) => x.sum())(x))).toEqual([0, 0]);
  });

  test("results stay differentiable, and noGrad outside cuts them", async () => {
    const w = tensor([1, 2], { requiresGrad: true });
    h.grad((x: Tensor) => x.pow(3).sum())(w)
      .sum()
      .backward();
    expect(await list(w.grad)).toEqual([6, 12]);
    const cut = h.noGrad(() => h.grad((x: Tensor) => x.pow(3).sum())(w));
    expect(await list(cut)).toEqual([3, 12]);
    expect(() => cut.sum().backward()).toThrow(TransformError);
  });

  test("what is refused", () => {
    expect(() => h.grad((x: Tensor) => x)(vector())).toThrow(
      /grad: expected a scalar, got f32\[3\]/,
    );
    expect(() => h.grad((x: Tensor) => x.float().sum())(tensor([1], { dtype: "i32" }))).toThrow(
      /argnums/,
    );
    expect(() => h.grad(((x: Tensor) => [x.sum()]) as never)(vector())).toThrow(TransformError);
    expect(() => h.grad((async (x: Tensor) => x.sum()) as never)(vector())).toThrow(/async/);
    expect(() => h.grad(wave, { argnums: 1 as 0 })(vector())).toThrow(h.ArgumentError);
  });

  test("vjp pulls any cotangent back", async () => {
    const [out, pull] = h.vjp(
      (x: Tensor, y: Tensor) => [x.mul(y), x.sum()],
      vector(),
      tensor([1, 2, 3]),
    );
    const [gx, gy] = pull([tensor([1, 0, 1]), tensor(10)]);
    expect(out.length).toBe(2);
    await near(gx, tensor([11, 10, 13]));
    await near(gy, tensor([0.3, 0, 1.4]));
    expect(() => pull([tensor([1, 0, 1])])).toThrow(h.ArgumentError);
    expect(() => pull([tensor([1, 0]), tensor(1)])).toThrow(ShapeError);
  });

  test("jvp pushes a tangent forward", async () => {
    const [out, t] = h.jvp(
      (x: Tensor, y: Tensor) => x.mul(y).sum(),
      [vector(), tensor([1, 2, 3])],
      [tensor([1, 0, 0]), tensor([0, 1, 0])],
    );
    await near(
      out,
      vector()
        .mul(tensor([1, 2, 3]))
        .sum(),
    );
    await near(t, tensor(1 - 0.7));
    const [, still] = h.jvp((_: Tensor) => tensor([1, 2]), [vector()], [vector()]);
    expect(await list(still)).toEqual([0, 0]);
    expect(() => h.jvp(wave, [vector()], [tensor([1])])).toThrow(ShapeError);
    expect(() => h.jvp(wave, [vector()], [] as never)).toThrow(h.ArgumentError);
  });

  describe("laws", () => {
    const functions: Record<string, (x: Tensor) => Tensor> = {
      softmax: (x) => x.softmax(-1),
      norm: (x) => x.layerNorm(3).mul(x),
      matmul: (x) => x.outer(x).matmul(x),
      gather: (x) => x.indexSelect(0, tensor([2, 0, 2, 1], { dtype: "i32" })).square(),
      gelu: (x) => x.gelu().mul(x.sigmoid()),
      where: (x) => h.where(x.gt(0), x.exp(), x.sin()),
      reduce: (x) => x.logsumexp().add(x.amax()).mul(x.prod()),
      cat: (x) => h.cat([x.flip(0), x.square()]).roll(1, 0),
    };

    test.for(Object.entries(functions))("⟨jvp(t), c⟩ = ⟨t, vjp(c)⟩: %s", async ([, f]) => {
      const [x, t] = [vector(), tensor([0.5, -1, 2])];
      const [out, push] = h.jvp(f, [x], [t]);
      const c = out.cos().add(0.3);
      const [, pull] = h.vjp(f, x);
      await near(push.mul(c).sum(), pull(c)[0].mul(t).sum());
    });

    test.for(Object.entries(functions))("grad of grad = grad of jvp: %s", async ([, f]) => {
      const scalar = (x: Tensor) => f(x).square().sum();
      const t = tensor([0.5, -1, 2]);
      const reverse = h.grad((x: Tensor) => h.grad(scalar)(x).mul(t).sum())(vector());
      const forward = h.jvp(h.grad(scalar), [vector()], [t])[1];
      const mixed = h.grad((x: Tensor) => h.jvp(scalar, [x], [t])[1])(vector());
      await near(forward, reverse, 1e-4);
      await near(mixed, reverse, 1e-4);
    });

    test("backward equals grad", async () => {
      const w = tensor([0.3, -0.7, 1.4], { requiresGrad: true });
      wave(w).backward();
      await near(w.grad!, h.grad(wave)(vector()));
    });

    test("third derivatives", async () => {
      const d = (f: (x: Tensor) => Tensor) => h.grad(f) as (x: Tensor) => Tensor;
      const f = (x: Tensor) => x.pow(5);
      expect(await d(d(d(f)))(tensor(2)).item()).toBeCloseTo(240, 2);
      expect(await d(d(d(d((x) => x.tanh()))))(tensor(0)).item()).toBeCloseTo(0, 5);
      expect(await d(d(d((x) => x.sin())))(tensor(0.5)).item()).toBeCloseTo(-Math.cos(0.5), 5);
    });
  });
});
