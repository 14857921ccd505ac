import * as h from "hinode";
import {
  ArgumentError,
  type CustomKernelOptions,
  customKernel,
  DTypeError,
  IndexOutOfRangeError,
  KernelError,
  LimitError,
  ShapeError,
  type Tensor,
  tensor,
} from "hinode";
import { describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const near = async (a: Tensor, b: Tensor, tolerance = 1e-5) => {
  expect([a.dtype, a.shape]).toEqual([b.dtype, b.shape]);
  const found = difference(await a.data(), await b.data(), { rtol: tolerance, atol: tolerance });
  expect(found).toBeNull();
};
const kinds = (t: Tensor): string[] => h.explain(t).kernels.map((k) => k.kind);
const isCustom = (t: Tensor): boolean => kinds(t).includes("custom");
const matrix = () =>
  tensor([
    [0.5, -0.75, 1.5],
    [2.25, -1, 0.25],
  ]);
const vector = () => tensor([1, 2, -0.5]);

/** x / |x| along rows, times a weight. */
const normalize = customKernel({
  name: "normalize",
  inputs: ["x", "weight"],
  outputs: (x) => ({ y: x }),
  reference: (x, weight) => x.mul(x.mul(x).sum(-1, true).rsqrt()).mul(weight),
  kernel: (k) => {
    const [x, weight] = k.inputs;
    const [rows, columns] = x.shape;
    k.parallel(rows, (r) => {
      const squares = k.accumulate("sum");
      k.vector(columns, (c) => squares.update(x.at(r, c).mul(x.at(r, c))));
      const length = k.let(squares.value.sqrt());
      k.vector(columns, (c) => k.outputs[0].set([r, c], x.at(r, c).div(length).mul(weight.at(c))));
    });
  },
});

/** 3x², and with it the derivative that its gradient uses. */
const parabola = customKernel({
  name: "parabola",
  inputs: ["x"],
  outputs: (x) => ({ y: x, slope: x }),
  reference: (x) => [x.mul(x).mul(3), x.mul(6)] as const,
  kernel: (k) => {
    const [x] = k.inputs;
    k.each(x.shape, (...i) => {
      const v = k.let(x.at(...i));
      k.outputs[0].set(i, v.mul(v).mul(3));
      k.outputs[1].set(i, v.mul(6));
    });
  },
  gradient: ([ct, ctSlope], _, [, slope]) => [ct.mul(slope).add(ctSlope.mul(6))],
});

const wgslSquare = (options: Partial<CustomKernelOptions<Tensor>> = {}) =>
  customKernel({
    name: "square",
    inputs: ["x"],
    outputs: (x) => ({ y: x }),
    reference: (x) => x.mul(x),
    wgsl: {
      declarations: "fn square(v: f32) -> f32 { return v * v; }",
      body: "if (index < x_size) { y[index] = square(x[index]); }",
    },
    ...options,
  });

onEachDevice("custom kernels", (device) => {
  const runsKernels = device !== "reference";
  const custom = (count: number) => (runsKernels ? Array(count).fill("custom") : []);

  test("run as they are, where they can, and mean their references", async () => {
    const x = matrix();
    expect(kinds(normalize(x, vector()))).toEqual(custom(1));
    await near(normalize(x, vector()), normalize.reference(x, vector()));
    const turned = () => h.transpose(tensor([[1, 2], [0, -1], [0.5, 3]]), 0, 1); // biome-ignore format: one line
    await near(normalize(turned(), vector()), normalize.reference(turned(), vector()));
    // Of constants alone, too.
    expect(isCustom(normalize(h.ones([2, 3]), h.ones([3])))).toBe(runsKernels);
  });

  test("are nodes of compiled functions, of loops and of checkpoints", async () => {
    const weight = vector();
    const f = (x: Tensor) => normalize(x.add(1), weight).exp().sum();
    const x = matrix();
    await near(h.compile(f)(x), normalize.reference(x.add(1), weight).exp().sum());
    const loop = (g: typeof normalize.reference) =>
      h.scan((c: Tensor, _: Tensor) => [g(c, weight), c], x, h.arange(2))[0];
    await near(loop(normalize), loop(normalize.reference));
    await near(
      h.grad(h.checkpoint(f))(x),
      h.grad((y: Tensor) => normalize.reference(y.add(1), weight).exp().sum())(x),
    );
  });

  test("differentiate by their gradient, or else as the reference", async () => {
    const x = matrix();
    const slope = h.grad((y: Tensor) => parabola(y)[0].sum())(x);
    expect(isCustom(slope)).toBe(runsKernels);
    await near(slope, x.mul(6));
    const twice = h.grad((y: Tensor) =>
      h
        .grad((z: Tensor) => parabola(z)[0].sum())(y)
        .sum(),
    )(x);
    await near(twice, x.mul(0).add(6));
    const loss = (g: typeof normalize.reference) => (y: Tensor) => g(y, vector()).exp().sum();
    await near(h.grad(loss(normalize))(x), h.grad(loss(normalize.reference))(x));
    await near(h.jvp(loss(normalize), [x], [x])[1], h.jvp(loss(normalize.reference), [x], [x])[1]);
  });

  test("of which only some results are needed", async () => {
    const x = matrix();
    for (const i of [0, 1]) {
      expect(kinds(parabola(x)[i])).toEqual(custom(1));
      await near(parabola(x)[i], parabola.reference(x)[i]);
    }
  });

  test("run batched under vmap", async () => {
    const [x, weights] = [matrix(), h.stack([vector(), vector().mul(2)])];
    const xs = h.stack([x, x.mul(2).add(1), x.neg()]);
    const shared = h.vmap(normalize, { inDims: [0, null] })(xs, vector());
    expect(isCustom(shared)).toBe(runsKernels);
    await near(shared, normalize.reference(xs, vector()));
    const nested = h.vmap(h.vmap(normalize, { inDims: [0, null] }), { inDims: [null, 0] });
    const want = h.stack(weights.unbind(0).map((w) => normalize.reference(xs, w)));
    await near(nested(xs, weights), want);
    const each = h.vmap(h.grad((y: Tensor) => parabola(y)[0].sum()))(xs);
    await near(each, xs.mul(6));
  });

  test("of every kind of shape; halves are computed in f32", async () => {
    const halve = customKernel({
      name: "halve",
      inputs: ["x"],
      outputs: ({ shape }) => ({ y: { shape, dtype: "f16" } }),
      reference: (x) => x.float().mul(0.3).half(),
      kernel: (k) => {
        const [x] = k.inputs;
        k.each(x.shape, (...i) =>
          k.outputs[0].set(
            i,
            x
              .at(...i)
              .cast("f32")
              .mul(0.3),
          ),
        );
      },
    });
    for (const shape of [[], [3], [4099], [2, 3], [2, 1, 5], [0], [2, 0]]) {
      const x = h.arange(shape.reduce((n, d) => n * d, 1)).reshape(shape);
      await near(halve(x), halve.reference(x), 0);
      await near(halve(x.half()), halve.reference(x.half()), 0);
    }
  });

  test("shift, select, serial loops, scratch and masks", async () => {
    // Running sums of x shifted by one; what is outside counts as 0, negative numbers as 1.
    const running = customKernel({
      name: "running",
      inputs: ["x"],
      outputs: (x) => ({ y: x }),
      reference: (x) => h.where(x.lt(0), x.mul(0).add(1), x).pad([1, 0]).slice(1, 0, 3).cumsum(1),
      kernel: (k) => {
        const [x] = k.inputs;
        const [rows, columns] = x.shape;
        k.parallel(rows, (r) => {
          const total = k.scratch("f32", 1);
          total.set(0, 0);
          k.serial(columns, (c) => {
            const v = k.let(x.atWhere(c.ge(1), r, c.sub(1)));
            total.set(0, total.at(0).add(v.lt(0).where(k.constant("f32", 1), v)));
            k.outputs[0].set([r, c], k.select(c.ge(1), total.at(0), 0));
          });
        });
      },
    });
    await near(running(matrix()), running.reference(matrix()));
  });

  test("positions are checked when the kernel runs", async () => {
    const pick = customKernel({
      name: "pick",
      inputs: ["x", "at"],
      outputs: (x, { shape }) => ({ y: { shape, dtype: x.dtype } }),
      reference: (x, at) => x.indexSelect(0, at),
      kernel: (k) => {
        const [x, at] = k.inputs;
        k.parallel(at.shape, (i) => k.outputs[0].set([i], x.at(k.position(at.at(i), x.shape[0]))));
      },
    });
    const at = (...list: number[]) => tensor(list, { dtype: "i32" });
    await near(pick(vector(), at(2, 0, 0, 1)), tensor([-0.5, 1, 1, 2]), 0);
    await expect(pick(vector(), at(0, 3)).data()).rejects.toThrow(IndexOutOfRangeError);
  });

  test("WGSL runs on webgpu, the reference elsewhere", async () => {
    const square = wgslSquare();
    const large = h.arange(1000).float().mul(0.01);
    await near(square(large), large.mul(large), 1e-6);
    expect(isCustom(square(large))).toBe(device === "webgpu");
    const x = matrix();
    await near(h.vmap(square)(x), x.mul(x));
    const leading = wgslSquare({ leadingAxes: true });
    const mapped = h.vmap(h.vmap(leading))(x);
    if (device === "webgpu") expect(kinds(mapped)).toEqual(["custom"]);
    await near(mapped, x.mul(x));
    const tiled = wgslSquare({
      wgsl: ({ inputs: [{ shape }] }) => ({
        workgroupSize: [4, 2],
        workgroups: shape[0],
        declarations: "var<workgroup> seen: array<f32, 8>;",
        body: `
          seen[local_index] = select(0.0, x[workgroup * x_shape[1] + local_index], local_index < x_shape[1]);
          workgroupBarrier();
          if (local_id.y == 0u && local_index < x_shape[1]) {
            y[workgroup * x_shape[1] + local_index] = seen[local_index] * seen[local_index];
          }`,
      }),
    });
    await near(tiled(x), x.mul(x));
  });

  if (device === "webgpu") {
    test("WGSL that does not compile: the messages and the source", async () => {
      const wrong = wgslSquare({ wgsl: { body: "y[index] = oops;" } });
      const failed = expect(wrong(vector()).data()).rejects;
      await failed.toThrow(KernelError);
      await failed.toThrow(/kernel square does not compile[\s\S]*oops[\s\S]*fn main/);
    });

    test("more bindings than the device has", async () => {
      const names = Array.from({ length: 40 }, (_, i) => `x${i}`);
      const sum = customKernel({
        name: "sum_of_many",
        inputs: names,
        outputs: (x) => ({ y: x }),
        reference: (...xs) => xs.reduce((a, b) => a.add(b)),
        wgsl: { body: `if (index < y_size) { y[index] = x0[index]; }` },
      });
      const all = names.map((_, i) => tensor([i]));
      await expect((async () => sum(...all).data())()).rejects.toThrow(LimitError);
    });
  }
});

describe("mistakes in a custom kernel", () => {
  const simple = (options: Partial<CustomKernelOptions<Tensor>>) =>
    customKernel({
      name: "simple",
      inputs: ["x"],
      outputs: (x) => ({ y: x }),
      reference: (x) => x.neg(),
      kernel: (k) => {
        const [x] = k.inputs;
        k.each(x.shape, (...i) => k.outputs[0].set(i, x.at(...i).neg()));
      },
      ...options,
    });
  const x = () => tensor([1, 2, 3], { device: "wasm" });

  test("arguments and definitions", () => {
    expect(() => simple({})(x(), x())).toThrow(ArgumentError);
    expect(() => simple({ kernel: undefined })).toThrow(/a `kernel` or a `wgsl` body/);
    expect(() => simple({ inputs: ["x", "x"] })).toThrow(/distinct names/);
    expect(() => simple({ inputs: ["index"] })).toThrow(/mean nothing in WGSL/);
    expect(() => simple({ inputs: ["x", "x_size"] })).toThrow(/distinct names/);
    expect(() => wgslSquare({ devices: ["wasm"] })).toThrow(/devices that its bodies run on/);
    expect(() => simple({ reference: (y) => y.sum() })(x())).toThrow(ShapeError);
    expect(() => simple({ outputs: () => ({}) })(x())).toThrow(/at least one output/);
    const own = simple({ gradient: (ct) => [ct.sum()] });
    expect(() => h.grad((y: Tensor) => own(y).sum())(x())).toThrow(ShapeError);
  });

  test.for<[string, CustomKernelOptions<Tensor>["kernel"], RegExp]>([
    [
      "outside",
      (k) => k.each([3], (i) => k.outputs[0].set([i], k.inputs[0].at(i.add(1)))),
      /runs over 1 … 3, outside 0 … 2 \(at .* = 2\)/,
    ],
    [
      "shared",
      (k) => k.parallel(3, (i) => k.outputs[0].set([0], k.inputs[0].at(i))),
      /every parallel iteration stores/,
    ],
    [
      "written input's type",
      (k) => k.each([3], (i) => k.outputs[0].set([i], i.value())),
      /expected f32, got i32/,
    ],
    [
      "rank",
      (k) => k.each([3], (i) => k.outputs[0].set([i], k.inputs[0].at())),
      /expected 1 indices into \[3\], got 0/,
    ],
    [
      "types",
      (k) => k.each([3], (i) => k.outputs[0].set([i], k.inputs[0].at(i).add(i.value()))),
      /add: expected f32, got i32/,
    ],
    [
      "two ranges",
      (k) => {
        k.each([3], () => {});
        k.each([3], () => {});
      },
      /a second one/,
    ],
    ["no range", () => {}, /expected one `parallel` or `each`, got none/],
    [
      "before the range",
      (k) => {
        k.let(k.constant("f32", 1));
      },
      /"let" before it/,
    ],
  ])("are found before it runs: %s", ([, kernel, message]) => {
    // biome-ignore format: a table
    expect(() => simple({ kernel })(x())).toThrow(message);
  });

  test("WGSL of dtypes that it does not take", () => {
    expect(() => wgslSquare()(x().half())).toThrow(DTypeError);
    const none = wgslSquare({ wgsl: { body: "", workgroups: 0 } });
    expect(() => none(x())).toThrow(/at least one workgroup/);
  });
});
