/**
 * @file torch.fft's functions against the defining sum in double precision, and against each other.
 */
import fc from "fast-check";
import * as h from "hinode";
import { fft, type Tensor } from "hinode";
import { expect, test } from "vitest";
import { numRuns, onEachDevice } from "../support/devices.ts";
import {
  build,
  expectGradients,
  expectTensor,
  filled,
  make,
  map1,
  numel,
  type Plain,
  values,
} from "./support.ts";

type Complex = [re: number, im: number];

/** Σ x[j]·e^(∓2πi·jk/n), the angle reduced before it is rounded. */
function dft(x: readonly Complex[], inverse = false): Complex[] {
  const n = x.length;
  const sign = inverse ? 1 : -1;
  return x.map((_, k) =>
    x.reduce<Complex>(
      ([re, im], [a, b], j) => {
        const angle = (sign * 2 * Math.PI * ((j * k) % n)) / n;
        const [c, s] = [Math.cos(angle), Math.sin(angle)];
        return [re + a * c - b * s, im + a * s + b * c];
      },
      [0, 0],
    ),
  );
}

const pairs = (data: readonly number[]): Complex[] =>
  data.flatMap((re, i) => (i % 2 === 0 ? [[re, data[i + 1]] as Complex] : []));

/** The rounding of n products per stage, of factors and of sums: bounded by some ulp of Σ|x|. */
const tolerance = (x: Plain) => ({
  rtol: 0,
  atol: 4e-6 * (1 + x.data.reduce((sum, v) => sum + Math.abs(v), 0)),
});

/** Direct, composite, a prime by its matrix, primes by convolution, and products of them. */
const lengths = [1, 2, 7, 64, 67, 90, 131, 134, 262, 360, 1024];
const signal = (n: number): Plain => build([n, 2], ([j, c]) => Math.sin(2.3 * j * j + 4 * c));

onEachDevice("fft", (device) => {
  const slow = device === "webgpu";

  test.for(slow ? [7, 90, 131] : lengths)("of length %i", async (n) => {
    const x = signal(n);
    const want = { shape: [n, 2], data: dft(pairs(x.data)).flat() };
    await expectTensor(fft.fft(make(x)), want, tolerance(x));
    await expectTensor(fft.ifft(make(want)), x, tolerance(x));
  });

  test("real signals have half a spectrum, and come back from it", async () => {
    const lines = fc
      .tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 80 }))
      .chain((shape) => filled(shape, values.f32));
    await fc.assert(
      fc.asyncProperty(lines, async (x) => {
        const [rows, n] = x.shape;
        const full = Array.from({ length: rows }, (_, r) =>
          dft(x.data.slice(r * n, r * n + n).map((v): Complex => [v, 0])),
        );
        const half = Math.floor(n / 2) + 1;
        const want = {
          shape: [rows, half, 2],
          data: full.flatMap((l) => l.slice(0, half)).flat(2),
        };
        const spectrum = fft.rfft(make(x));
        await expectTensor(spectrum, want, tolerance(x));
        await expectTensor(fft.irfft(spectrum, { n }), x, tolerance(x));
      }),
      numRuns(15),
    );
  });

  test("n cuts off or fills up, dim chooses the axis, norm the factor", async () => {
    const x = build([3, 5, 2], ([i, j, c]) => Math.cos(3 * i + 5 * j + c));
    const t = make(x);
    const column = fft.fft(t, { dim: 0, n: 4, norm: "ortho" });
    const want = build([4, 5, 2], ([k, j, c]) => {
      const line = [0, 1, 2].map(
        (i): Complex => [Math.cos(3 * i + 5 * j), Math.cos(3 * i + 5 * j + 1)],
      );
      return dft([...line, [0, 0]])[k][c] / 2;
    });
    await expectTensor(column, want, { atol: 1e-5 });
    const cut = await fft.fft(t, { n: 2, norm: "forward" }).data();
    const plain = await fft.fft(t.slice(1, 0, 2)).data();
    await expectTensor(
      make({ shape: [3, 2, 2], data: [...cut] }),
      { shape: [3, 2, 2], data: [...plain].map((v) => v / 2) },
      { atol: 1e-5 },
    );
  });

  test("two axes are one after the other, in both directions", async () => {
    const x = build([2, 3, 4], ([b, i, j]) => Math.sin(b + 3 * i * i + j * j));
    const t = make(x);
    const complex = h.stack([t, h.zerosLike(t)], -1);
    const want = fft.fft(fft.fft(complex, { dim: 1 }), { dim: 2 });
    const all = { shape: want.shape, data: [...(await want.data())] };
    await expectTensor(fft.fft2(complex), all, tolerance(x));
    const half = want.narrow(2, 0, 3);
    await expectTensor(
      fft.rfft2(t),
      { shape: half.shape, data: [...(await half.data())] },
      tolerance(x),
    );
    await expectTensor(fft.irfft2(fft.rfft2(t), { s: [3, 4] }), x, tolerance(x));
    await expectTensor(fft.ifft2(fft.fft2(complex)).select(-1, 0), x, tolerance(x));
  });

  test("gradients and vmap", async () => {
    const x = map1(signal(6), (v) => v);
    await expectGradients((t) => fft.fft(t, { norm: "ortho" }), [x]);
    await expectGradients((t) => fft.irfft(t, { n: 5 }), [build([3, 2], ([i, c]) => i - c + 0.5)]);
    const rows = make(build([2, 6, 2], ([i, j, c]) => Math.sin(i + 2 * j + 3 * c)));
    const batch = fft.fft(rows);
    const mapped = h.vmap((r: Tensor) => fft.fft(r))(rows);
    await expectTensor(
      mapped,
      { shape: batch.shape, data: [...(await batch.data())] },
      { atol: 1e-5 },
    );
  });

  test("frequencies and shifts are NumPy's", async () => {
    expect(await fft.fftfreq(5, 0.5).mul(2.5).round().tolist()).toEqual([0, 1, 2, -2, -1]);
    expect(await fft.fftfreq(4).tolist()).toEqual([0, 0.25, -0.5, -0.25]);
    expect(await fft.rfftfreq(4).tolist()).toEqual([0, 0.25, 0.5]);
    const odd = fft.fftshift(h.arange(5));
    expect(await odd.tolist()).toEqual([3, 4, 0, 1, 2]);
    expect(await fft.ifftshift(odd).tolist()).toEqual([0, 1, 2, 3, 4]);
    const shifted = fft.fftshift(h.arange(6).reshape([2, 3]));
    expect(await shifted.tolist()).toEqual([
      [5, 3, 4],
      [2, 0, 1],
    ]);
  });

  test("arguments that do not fit are refused", () => {
    expect(() => fft.fft(h.zeros([4]))).toThrow(/complex tensor/);
    expect(() => fft.rfft(h.zeros([4], { dtype: "i32" }))).toThrow(/floating-point/);
    expect(() => fft.rfft(h.zeros([4]), { n: 0 })).toThrow(/positive length/);
    expect(() => fft.fftshift(h.zeros([4, 2]))).toThrow(/give dim/);
    // biome-ignore lint/suspicious/noExplicitAny: what a caller without types may do
    expect(() => fft.rfft(h.zeros([4]), { norm: "unitary" as any })).toThrow(/ortho/);
    expect(numel(fft.rfft(h.zeros([0, 4])).shape)).toBe(0);
  });
});
