/** @file gridSample and affineGrid against the definition written out, element by element. */
import * as h from "hinode";
import { gridSample, type Tensor, tensor } from "hinode";
import { expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";
import { build, expectGradients, expectTensor, make, type Plain } from "./support.ts";

const image = build([2, 2, 3, 4], ([n, c, i, j]) =>
  Math.sin(1 + n + 3 * c + 5 * i * i + 2 * j * j),
);
/**
 * Places inside, between, beyond each border by less and by more than the image's size; none where
 * a branch changes.
 */
const grid = build(
  [2, 2, 3, 2],
  ([n, i, j, d]) => 2.7 * Math.sin(1 + 2 * n + 3 * i + 5 * j + 1.3 * d),
);

type Settings = Required<h.GridSampleOptions>;

/** One axis: the neighbours of a place, with their weights; null is outside. */
function neighbours(g: number, size: number, { mode, paddingMode, alignCorners }: Settings) {
  const raw = alignCorners ? ((g + 1) / 2) * (size - 1) : ((g + 1) * size - 1) / 2;
  const bounded = (x: number): number => {
    if (paddingMode === "zeros") return x;
    const [low, high] = alignCorners ? [0, size - 1] : [-0.5, size - 0.5];
    let y = x;
    if (paddingMode === "reflection")
      while (y < low || y > high) y = y < low ? 2 * low - y : 2 * high - y;
    return Math.min(Math.max(y, 0), size - 1);
  };
  const inside = (i: number): number | null => (i >= 0 && i < size ? i : null);
  if (mode === "nearest") {
    const x = bounded(raw);
    // Half to even, as nearbyint.
    const r = Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);
    return [[inside(r), 1] as const];
  }
  if (mode === "bilinear") {
    const x = bounded(raw);
    const f = Math.floor(x);
    return [[inside(f), f + 1 - x] as const, [inside(f + 1), x - f] as const];
  }
  const f = Math.floor(raw);
  return [-1, 0, 1, 2].map((k) => {
    const d = Math.abs(raw - f - k);
    const a = -0.75;
    const w =
      d <= 1 ? (a + 2) * d ** 3 - (a + 3) * d ** 2 + 1 : a * (d ** 3 - 5 * d ** 2 + 8 * d - 4);
    return [inside(bounded(f + k)), w] as const;
  });
}

function expected(x: Plain, at: Plain, settings: Settings): Plain {
  const [, c, height, width] = x.shape;
  const [n, oh, ow] = at.shape;
  return build([n, c, oh, ow], ([b, ch, i, j]) => {
    const place = ((b * oh + i) * ow + j) * 2;
    let sum = 0;
    for (const [row, wy] of neighbours(at.data[place + 1], height, settings))
      for (const [column, wx] of neighbours(at.data[place], width, settings))
        if (row !== null && column !== null)
          sum += wy * wx * x.data[((b * c + ch) * height + row) * width + column];
    return sum;
  });
}

const paddings = ["zeros", "border", "reflection"] as const;
const close = { rtol: 1e-5, atol: 1e-5 };

onEachDevice("gridSample", (device) => {
  const slow = device === "webgpu";

  test.for(["bilinear", "nearest", "bicubic"] as const)("%s is what it says", async (mode) => {
    for (const paddingMode of slow && mode === "bicubic" ? paddings.slice(2) : paddings)
      for (const alignCorners of slow ? [false] : [false, true]) {
        const settings = { mode, paddingMode, alignCorners };
        await expectTensor(
          gridSample(make(image), make(grid), settings),
          expected(image, grid, settings),
          close,
        );
      }
  });

  test("gradients to the input and to the grid", async () => {
    const options =
      device === "webgpu" ? (["bilinear"] as const) : (["bilinear", "bicubic"] as const);
    const small = build([1, 1, 3, 3], ([, , i, j]) => Math.sin(i * i + 2 * j));
    // Far enough from the elements, where the weights have a kink, for the step of the differences.
    const places = tensor([[[[0.1, -0.2], [-0.4, 0.45], [0.9, 1.1]]]]); // biome-ignore format: places
    const at = { shape: places.shape, data: [...(await places.data())] };
    for (const mode of options)
      await expectGradients(
        (x, g) => gridSample(x, g, { mode, paddingMode: "reflection" }),
        [small, at],
      );
  });

  test("three dimensions, and places that are not finite", async () => {
    const volume = build([1, 1, 2, 2, 2], ([, , i, j, k]) => 4 * i + 2 * j + k);
    const at = tensor([[[[[0, 0, 0], [0.5, 0.5, 0.5], [-0.5, 0, 0.5]]]]]); // biome-ignore format: places
    const want = { shape: [1, 1, 1, 1, 3], data: [3.5, 7, 4 + 1] };
    await expectTensor(gridSample(make(volume), at), want, close);
    const odd = tensor([[[[Number.NaN, 0], [Infinity, 0], [1e30, 0]]]]); // biome-ignore format: places
    await expectTensor(gridSample(make(build([1, 1, 2, 2], () => 1)), odd), {
      shape: [1, 1, 1, 3],
      data: [0, 0, 0],
    });
  });

  test("affineGrid: the identity gives the image back, in both conventions", async () => {
    const theta = tensor([[[1, 0, 0], [0, 1, 0]]]).expand([2, 2, 3]); // biome-ignore format: a matrix
    for (const alignCorners of [false, true]) {
      const all = h.affineGrid(theta, image.shape, { alignCorners });
      await expectTensor(gridSample(make(image), all, { alignCorners }), image, close);
    }
    const shift = tensor([[[1, 0, 0, 0], [0, 1, 0, 0.5], [0, 0, 2, 0]]]); // biome-ignore format: a matrix
    const volume = h.affineGrid(shift, [1, 1, 2, 2, 1]);
    const want = [[-0.5, 0, -1], [-0.5, 1, -1], [-0.5, 0, 1], [-0.5, 1, 1]].map(([, y, z]) => [0, y, z]); // biome-ignore format: places
    expect(await volume.reshape([4, 3]).tolist()).toEqual(want);
  });

  test("vmap, and what does not fit", async () => {
    const [x, g] = [make(image), make(grid)];
    const one = (a: Tensor, b: Tensor) => gridSample(a.unsqueeze(0), b.unsqueeze(0)).squeeze(0);
    const want = expected(image, grid, {
      mode: "bilinear",
      paddingMode: "zeros",
      alignCorners: false,
    });
    await expectTensor(h.vmap(one)(x, g), want, close);
    expect(() => gridSample(x, h.zeros([2, 3, 4, 3]))).toThrow(/grid \[N, h, w, 2\]/);
    expect(() => h.affineGrid(h.zeros([1, 2, 3]), [2, 1, 2, 2])).toThrow(/theta/);
  });
});
