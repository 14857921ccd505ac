/** scaledDotProductAttention: what it takes, and that it is its formula, with gradients, on every device. */
import {
  attentionWeights,
  checkpoint,
  compile,
  explain,
  grad,
  jvp,
  manualSeed,
  randn,
  scaledDotProductAttention,
  type Tensor,
  tensor,
  vmap,
  zeros,
} from "hinode";
import { expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice, useDevice } from "../support/devices.ts";

type Options = Parameters<typeof scaledDotProductAttention>[3];

async function close(got: Tensor, want: Tensor, tolerance = 1e-5): Promise<void> {
  expect(got.shape).toEqual(want.shape);
  const [a, b] = [await got.data(), await want.data()];
  expect(difference(a, b, { rtol: tolerance, atol: tolerance })).toBeNull();
}

/** The formula, of leading axes that broadcast. */
const formula = (q: Tensor, k: Tensor, v: Tensor, options: Options = {}): Tensor =>
  attentionWeights(q, k, options).matmul(v);

onEachDevice("attention", (device) => {
  /** Every shape is some new kernels, which SwiftShader compiles slowly. */
  const some = <T>(list: T[]): T[] => (device === "webgpu" ? list.slice(-1) : list);

  /** Values and gradients are those of the formula. */
  async function agree(q: Tensor, k: Tensor, v: Tensor, options: Options = {}): Promise<void> {
    const want = formula(q, k, v, options);
    const weight = randn(want.shape);
    const of =
      (f: typeof formula) =>
      (...t: Tensor[]) =>
        f(t[0], t[1], t[2], options);
    const gradients = (f: typeof formula) =>
      compile(
        (...t: Tensor[]) =>
          grad(
            (...x: Tensor[]) =>
              of(f)(...x)
                .mul(weight)
                .sum(),
            { argnums: [0, 1, 2] },
          )(...(t as [Tensor])) as unknown as Tensor[],
      )(q, k, v);
    await close(of(scaledDotProductAttention)(q, k, v), want);
    const [got, expected] = [gradients(scaledDotProductAttention), gradients(formula)];
    for (const [i, g] of got.entries()) await close(g, expected[i]);
  }

  test("leading axes are any number and broadcast", async () => {
    manualSeed(1);
    const [two, three, four] = [
      [9, 4],
      [3, 9, 4],
      [2, 3, 9, 4],
    ];
    const cases: [q: number[], k: number[], v: number[], options?: Options][] = [
      [two, [11, 4], [11, 3], { isCausal: true }],
      [[2, 9, 4], two, [2, 9, 4]],
      [three, [2, 1, 9, 4], four, { scale: 0.3 }],
      [[2, 1, 2, 9, 4], [3, 2, 9, 4], two, { isCausal: true }],
      [four, [2, 1, 9, 4], [2, 1, 9, 4], { isCausal: true }],
    ];
    for (const [q, k, v, options] of some(cases))
      await agree(randn(q), randn(k), randn(v), options);
  });

  test("masks broadcast to the scores", async () => {
    manualSeed(2);
    const [q, k, v] = [randn([2, 3, 9, 4]), randn([2, 3, 10, 4]), randn([2, 3, 10, 4])];
    const shapes = [[], [10], [9, 1], [9, 10], [3, 1, 10], [2, 1, 9, 10], [1, 3, 9, 10]];
    for (const shape of some(shapes)) {
      await agree(q, k, v, { attnMask: randn(shape) });
      await agree(q, k, v, { attnMask: randn(shape).gt(-0.5) });
    }
    const two = [randn([9, 4]), randn([10, 4]), randn([10, 4])] as const;
    if (device !== "webgpu") await agree(...two, { attnMask: randn([2, 3, 9, 10]).gt(-0.5) });
  });

  test("a query that sees no key gives zeros, and no gradient", async () => {
    const [q, k, v] = [randn([9, 4]), randn([9, 4]), randn([9, 4])];
    const attnMask = tensor([...Array(9).keys()])
      .ne(3)
      .unsqueeze(1);
    const out = scaledDotProductAttention(q, k, v, { attnMask });
    await close(out.narrow(0, 3, 1), zeros([1, 4]));
    const f = (x: Tensor) => scaledDotProductAttention(x, k, v, { attnMask }).sum();
    await close((grad(f)(q) as Tensor).narrow(0, 3, 1), zeros([1, 4]));
    await agree(q, k, v, { attnMask });
  });

  test("grouped heads", async () => {
    manualSeed(3);
    const [q, k, v] = [randn([2, 6, 9, 4]), randn([2, 2, 9, 4]), randn([2, 2, 9, 5])];
    const all = (t: Tensor) => t.repeatInterleave(3, 1);
    for (const options of [{ isCausal: true }, { attnMask: randn([6, 9, 9]).gt(0) }]) {
      const f = (...t: Tensor[]) =>
        scaledDotProductAttention(t[0], t[1], t[2], { ...options, enableGqa: true });
      await close(f(q, k, v), formula(q, all(k), all(v), options));
      const sum = (t: Tensor) => f(q, t, v).square().sum();
      const wanted = (t: Tensor) => formula(q, all(t), all(v), options).square().sum();
      await close(grad(sum)(k) as Tensor, grad(wanted)(k) as Tensor);
    }
  });

  test("transforms: vmap, jvp, checkpoint, a gradient's gradient, a learned mask", async () => {
    manualSeed(4);
    const x = randn([3, 9, 4]);
    const f = (t: Tensor) => scaledDotProductAttention(t, t, t, { isCausal: true });
    const g = (t: Tensor) => formula(t, t, t, { isCausal: true });
    await close(vmap(f)(x) as Tensor, g(x));
    const direction = randn([3, 9, 4]);
    const [, moved] = jvp(f, [x], [direction]) as unknown as [Tensor, Tensor];
    const [, wanted] = jvp(g, [x], [direction]) as unknown as [Tensor, Tensor];
    await close(moved, wanted);
    const loss = (h: typeof f) => (t: Tensor) => h(t).square().sum();
    await close(grad(loss((t) => checkpoint(f)(t)))(x) as Tensor, grad(loss(g))(x) as Tensor);
    // What comes after is inside as well, and reads the output that is computed once more.
    await close(grad(checkpoint(loss(f)))(x) as Tensor, grad(loss(g))(x) as Tensor);
    const twice = (h: typeof f) => grad((t: Tensor) => (grad(loss(h))(t) as Tensor).square().sum());
    await close(twice(f)(x) as Tensor, twice(g)(x) as Tensor, 1e-4);
    const bias = randn([9, 9]);
    const learned = (h: typeof formula) =>
      grad((m: Tensor) => h(x, x, x, { attnMask: m }).square().sum())(bias) as Tensor;
    await close(learned(scaledDotProductAttention), learned(formula));
  });

  test("what does not fit is refused by name", () => {
    const [q, k] = [zeros([2, 4, 9, 4]), zeros([2, 4, 7, 4])];
    const call =
      (...args: Parameters<typeof scaledDotProductAttention>) =>
      () =>
        scaledDotProductAttention(...args);
    expect(call(q, zeros([2, 4, 7, 5]), k)).toThrow(/query \[\.\.\., L, E\]/);
    expect(call(q, k, zeros([2, 4, 6, 4]))).toThrow(/value \[\.\.\., S, V\]/);
    expect(call(zeros([4]), k, k)).toThrow(/query \[\.\.\., L, E\]/);
    expect(call(q, zeros([3, 4, 7, 4]), zeros([3, 4, 7, 4]))).toThrow(
      /leading axes that broadcast/,
    );
    expect(call(q, k, k, { attnMask: zeros([9, 8]) })).toThrow(
      /mask that broadcasts to \[\.\.\., 9, 7\]/,
    );
    expect(call(q, k, k, { attnMask: zeros([9, 7]), isCausal: true })).toThrow(
      /attnMask or isCausal/,
    );
    expect(call(q, k, k, { attnMask: zeros([9, 7], { dtype: "i32" }) })).toThrow(/floating-point/);
    const three = zeros([2, 3, 7, 4]);
    expect(call(q, three, three, { enableGqa: true })).toThrow(/multiple of the key heads/);
    expect(call(q, k.to("f16"), k)).toThrow(/one dtype/);
  });

  test("nothing attends to nothing", async () => {
    const empty = zeros([2, 0, 4]);
    expect(scaledDotProductAttention(empty, empty, empty).shape).toEqual([2, 0, 4]);
    await close(scaledDotProductAttention(zeros([2, 3, 4]), empty, empty), zeros([2, 3, 4]));
  });
});

test("on wasm causal attention is a kernel forward, and two more kernels backward", async () => {
  await useDevice("wasm");
  const [q, k, v] = [1, 2, 3].map(() => randn([1, 2, 64, 16]));
  const f = (t: Tensor) => scaledDotProductAttention(t, k, v, { isCausal: true });
  const kinds = async (g: (t: Tensor) => unknown) =>
    (await explain(compile(g as never), q as never)).kernels.map((x) => x.kind);
  expect(await kinds(f)).toEqual(["attention"]);
  const step = (t: Tensor) => grad((x: Tensor) => f(x).square().sum())(t);
  const found = await kinds(step);
  expect(found.filter((kind) => kind === "attention")).toHaveLength(2);
  const { kernels } = await explain(compile(step as never), q as never);
  for (const { writes } of kernels)
    for (const { shape } of writes) expect(shape.slice(-2)).not.toEqual([64, 64]);
});
