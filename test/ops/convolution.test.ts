import fc from "fast-check";
import { expect, test } from "vitest";
import * as h from "../../core/index.ts";
import { numRuns, onEachDevice } from "../support/devices.ts";

/** A convolution by its definition, one window at a time. */
function naive(
  x: Float32Array,
  w: Float32Array,
  [N, C, H, W]: number[],
  [O, KH, KW]: number[],
  {
    stride,
    padding,
    dilation,
    groups,
  }: { stride: number; padding: number; dilation: number; groups: number },
): { data: number[]; shape: number[] } {
  const out = (d: number, k: number) =>
    Math.floor((d + 2 * padding - dilation * (k - 1) - 1) / stride) + 1;
  const [OH, OW] = [out(H, KH), out(W, KW)];
  const data: number[] = [];
  const per = C / groups;
  for (let n = 0; n < N; n++)
    for (let o = 0; o < O; o++)
      for (let i = 0; i < OH; i++)
        for (let j = 0; j < OW; j++) {
          let sum = 0;
          for (let c = 0; c < per; c++)
            for (let a = 0; a < KH; a++)
              for (let b = 0; b < KW; b++) {
                const [y, z] = [
                  i * stride + a * dilation - padding,
                  j * stride + b * dilation - padding,
                ];
                if (y < 0 || y >= H || z < 0 || z >= W) continue;
                const channel = Math.floor(o / (O / groups)) * per + c;
                sum +=
                  x[((n * C + channel) * H + y) * W + z] * w[((o * per + c) * KH + a) * KW + b];
              }
          data.push(sum);
        }
  return { data, shape: [N, O, OH, OW] };
}

const problem = fc.record({
  N: fc.integer({ min: 1, max: 2 }),
  perGroup: fc.integer({ min: 1, max: 3 }),
  outPerGroup: fc.integer({ min: 1, max: 4 }),
  groups: fc.integer({ min: 1, max: 3 }),
  H: fc.integer({ min: 5, max: 9 }),
  W: fc.integer({ min: 5, max: 11 }),
  KH: fc.integer({ min: 1, max: 3 }),
  KW: fc.integer({ min: 1, max: 3 }),
  stride: fc.integer({ min: 1, max: 3 }),
  padding: fc.integer({ min: 0, max: 2 }),
  dilation: fc.integer({ min: 1, max: 2 }),
});

onEachDevice("convolution and pooling", () => {
  test("conv2d is its definition", async () => {
    await fc.assert(
      fc.asyncProperty(
        problem,
        async ({ N, perGroup, outPerGroup, groups, H, W, KH, KW, ...options }) => {
          const [C, O] = [perGroup * groups, outPerGroup * groups];
          const x = h.randn([N, C, H, W]);
          const w = h.randn([O, perGroup, KH, KW]);
          const y = h.conv2d(x, w, null, { ...options, groups });
          const want = naive(
            (await x.data()) as Float32Array,
            (await w.data()) as Float32Array,
            [N, C, H, W],
            [O, KH, KW],
            { ...options, groups },
          );
          expect(y.shape).toEqual(want.shape);
          const got = await y.data();
          want.data.forEach((v, i) => {
            expect(Math.abs(got[i] - v)).toBeLessThan(1e-4 * (1 + Math.abs(v)));
          });
        },
      ),
      numRuns(25),
    );
  });

  test("the gradients are the transpose: <conv(x), v> is linear in x and in w", async () => {
    await fc.assert(
      fc.asyncProperty(
        problem,
        async ({ N, perGroup, outPerGroup, groups, H, W, KH, KW, ...options }) => {
          const x = h.randn([N, perGroup * groups, H, W]);
          const w = h.randn([outPerGroup * groups, perGroup, KH, KW]);
          const conv = (a: h.Tensor, b: h.Tensor) => h.conv2d(a, b, null, { ...options, groups });
          const v = h.randn(conv(x, w).shape);
          const inner = (a: h.Tensor, b: h.Tensor) => conv(a, b).mul(v).sum();
          const [dx, dw] = h.grad(inner, { argnums: [0, 1] })(x, w);
          const value = Number(await inner(x, w).item());
          const tolerance = 1e-3 * (1 + Math.abs(value) + Math.sqrt(v.numel));
          expect(Math.abs(Number(await dx.mul(x).sum().item()) - value)).toBeLessThan(tolerance);
          expect(Math.abs(Number(await dw.mul(w).sum().item()) - value)).toBeLessThan(tolerance);
        },
      ),
      numRuns(15),
    );
  });

  test.each([
    ["edges and an interior, ragged", { N: 1, C: 8, H: 24, W: 27, O: 3 }, { padding: 1 }],
    ["no interior, K in blocks", { N: 1, C: 460, H: 1, W: 2, O: 2 }, { padding: 1 }],
    ["a step of 2 past the end", { N: 2, C: 7, H: 20, W: 18, O: 5 }, { padding: 1, stride: 2 }],
    ["gaps", { N: 1, C: 9, H: 19, W: 23, O: 4 }, { padding: 2, dilation: 2 }],
    ["a group per channel", { N: 1, C: 10, H: 21, W: 20, O: 10 }, { padding: 1, groups: 10 }],
  ] as const)("an input that is laid out with its padding: %s", async (_, size, given) => {
    const { N, C, H, W, O } = size;
    const options = { stride: 1, dilation: 1, groups: 1, ...given };
    const x = h.randn([N, C, H, W]);
    const w = h.randn([O, C / options.groups, 3, 3]);
    const y = h.conv2d(x.mul(2), w, null, options);
    const data = (await x.data()).map((v) => 2 * v) as Float32Array;
    const want = naive(data, (await w.data()) as Float32Array, [N, C, H, W], [O, 3, 3], options);
    expect(y.shape).toEqual(want.shape);
    const got = await y.data();
    // Each sum has this many terms, of about 2 each: rounding grows with them at most.
    const tolerance = 2 ** -24 * 40 * (9 * C) ** 1.5;
    want.data.forEach((v, i) => {
      expect(Math.abs(got[i] - v)).toBeLessThan(tolerance);
    });
  });

  test("convTranspose is the transpose of conv, and its gradients those of a bilinear map", async () => {
    await fc.assert(
      fc.asyncProperty(
        problem,
        fc.integer({ min: 0, max: 2 }),
        async ({ N, perGroup, outPerGroup, groups, H, W, KH, KW, ...options }, more) => {
          const { stride, dilation, padding } = options;
          const outputPadding = Math.min(more, Math.max(stride, dilation) - 1);
          const u = h.randn([N, outPerGroup * groups, H - 3, W - 3]);
          const w = h.randn([outPerGroup * groups, perGroup, KH, KW]);
          const size = (d: number, k: number) =>
            (d - 1) * stride + dilation * (k - 1) + 1 + outputPadding - 2 * padding;
          fc.pre(size(H - 3, KH) > 0 && size(W - 3, KW) > 0);
          const all = { ...options, groups, outputPadding };
          const convT = (a: h.Tensor, b: h.Tensor) => h.convTranspose2d(a, b, null, all);
          const x = h.randn(convT(u, w).shape);
          expect(x.shape.slice(2)).toEqual([size(H - 3, KH), size(W - 3, KW)]);
          const inner = (a: h.Tensor, b: h.Tensor) => convT(a, b).mul(x).sum();
          const value = Number(await inner(u, w).item());
          const tolerance = 1e-3 * (1 + Math.abs(value) + Math.sqrt(x.numel * KH * KW));
          const close = async (t: h.Tensor) =>
            expect(Math.abs(Number(await t.sum().item()) - value)).toBeLessThan(tolerance);
          const [du, dw] = h.grad(inner, { argnums: [0, 1] })(u, w);
          await close(du.mul(u));
          await close(dw.mul(w));
          // The windows of x are those of u, and perhaps some that outputPadding has made room for.
          const y = h.conv2d(x, w, null, { ...options, groups });
          await close(
            y
              .narrow(2, 0, H - 3)
              .narrow(3, 0, W - 3)
              .mul(u),
          );
        },
      ),
      numRuns(8),
    );
  });

  test("convTranspose2d undoes the shape of conv2d and is its transpose", async () => {
    const options = { stride: 2, padding: 1 };
    const [x, w] = [h.randn([1, 3, 7, 9]), h.randn([4, 3, 3, 3])];
    const y = h.conv2d(x, w, null, options);
    const u = h.randn(y.shape);
    const back = h.convTranspose2d(u, w, null, options);
    expect(back.shape).toEqual(x.shape);
    const left = Number(await y.mul(u).sum().item());
    expect(Number(await back.mul(x).sum().item())).toBeCloseTo(left, 2);
  });

  test.each([
    { K: 3, stride: 1, dilation: 1 },
    { K: 3, stride: 2, dilation: 1 },
    { K: 4, stride: 2, dilation: 1 },
    { K: 5, stride: 3, dilation: 1 },
    { K: 2, stride: 4, dilation: 1 },
    { K: 3, stride: 2, dilation: 3 },
  ])("an infinity reaches what it is a part of, and nothing else: %o", async (given) => {
    const { K, stride, dilation } = given;
    const values = [Number.POSITIVE_INFINITY, 1, 2];
    const weight = [1, 2, 3, 4, 5].slice(0, K);
    const want = new Array<number>(2 * stride + dilation * (K - 1) + 1).fill(0);
    values.forEach((v, i) => {
      for (const [k, w] of weight.entries()) want[i * stride + k * dilation] += v * w;
    });
    const [x, w] = [h.tensor([[values]]), h.tensor([[weight]])];
    const options = { stride, dilation };
    expect(await h.convTranspose1d(x, w, null, options).tolist()).toEqual([[want]]);
    const [, pull] = h.vjp(
      (t: h.Tensor) => h.conv1d(t, w, null, options),
      h.zeros([1, 1, want.length]),
    );
    expect(await pull(x)[0].tolist()).toEqual([[want]]);
  });

  test("an axis of nothing", async () => {
    const w = h.randn([2, 1, 3], { requiresGrad: true });
    const x = h.zeros([1, 1, 0], { requiresGrad: true });
    const y = h.conv1d(x, w, null, { padding: 2 });
    expect(await y.tolist()).toEqual([
      [
        [0, 0],
        [0, 0],
      ],
    ]);
    y.sum().backward();
    expect(x.grad!.shape).toEqual([1, 1, 0]);
    expect(await w.grad!.abs().sum().item()).toBe(0);
    expect(() => h.convTranspose1d(h.zeros([1, 2, 0]), w)).toThrow(
      /of 1 or more, got f32\[1, 2, 0\]/,
    );
  });

  test("errors name what does not fit", () => {
    const [x, w] = [h.zeros([1, 3, 5, 5]), h.zeros([4, 3, 3, 3])];
    expect(() => h.conv2d(h.zeros([1, 2, 5, 5]), w)).toThrow(/channels that fit/);
    expect(() => h.conv2d(x, w, h.zeros([3]))).toThrow(/bias of \[4\]/);
    expect(() => h.conv2d(x, h.zeros([4, 3, 7, 7]))).toThrow(/at least as large as the kernel/);
    expect(() => h.conv2d(x, w, null, { stride: 2, padding: "same" })).toThrow(/stride 1/);
    expect(() => h.conv2d(x, w, null, { stride: 0 })).toThrow(/stride/);
    expect(() => h.maxPool2d(x, 2, { padding: 2 })).toThrow(/half the kernel/);
  });

  test("pooling of an image of ones, and the maximum's gradient", async () => {
    const x = h.ones([1, 1, 4, 4]);
    expect(await h.avgPool2d(x, 3, { stride: 2, padding: 1 }).tolist()).toEqual([
      [
        [
          [4 / 9, 6 / 9],
          [6 / 9, 1],
        ].map((row) => row.map(Math.fround)),
      ],
    ]);
    const g = h.grad((t: h.Tensor) => h.maxPool2d(t, 2).sum())(x) as h.Tensor;
    // Equal maxima: the first one of each window.
    expect(await g.tolist()).toEqual([
      [
        [
          [1, 0, 1, 0],
          [0, 0, 0, 0],
          [1, 0, 1, 0],
          [0, 0, 0, 0],
        ],
      ],
    ]);
  });
});

test("a convolution with bias and relu is one kernel that reads windows in place", async () => {
  await h.init({ device: "wasm" });
  const [x, w, b] = [h.randn([2, 3, 8, 8]), h.randn([4, 3, 3, 3]), h.randn([4])];
  const f = h.compile((t: h.Tensor) => h.conv2d(t, w, b, { padding: 1 }).relu());
  const { kernels } = await h.explain(f, x);
  expect(kernels.map((k) => k.kind)).toEqual(["conv"]);
  // The windows would be nine times the image.
  expect(kernels[0].bytes).toBe(4 * (2 * 3 * 64 + 4 * 27 + 4 + 2 * 4 * 64));
});

test("a large input is laid out with its padding once, by the kernel that computes it", async () => {
  await h.init({ device: "wasm" });
  const x = h.randn([2, 8, 16, 16]);
  const w = h.randn([4, 8, 3, 3]);
  const f = h.compile((t: h.Tensor) => h.conv2d(t.mul(2).relu(), w, null, { padding: 1 }).relu());
  const { kernels } = await h.explain(f, x);
  expect(kernels.map((k) => k.kind)).toEqual(["map", "conv"]);
});

test("a transposed convolution multiplies no zeros between the elements", async () => {
  await h.init({ device: "wasm" });
  for (const K of [2, 3, 4, 5]) {
    const [x, w] = [h.randn([1, 8, 16, 16]), h.randn([8, 8, K, K])];
    const f = h.compile((t: h.Tensor) => h.convTranspose2d(t, w, null, { stride: 2 }));
    const products = h.explain(f, x).kernels.filter((k) => k.kind === "conv");
    const flops = products.reduce((sum, k) => sum + k.flops, 0);
    // Every element times every tap, and what is beyond the edges for windows of two or three elements.
    const least = 2 * 64 * 16 ** 2 * K ** 2;
    expect(flops).toBeGreaterThanOrEqual(least);
    expect(flops).toBeLessThan(1.35 * least);
  }
});
