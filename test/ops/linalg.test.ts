/**
 * @file torch.linalg's functions against what defines them (A·X = B, Qᵀ·Q = 1, …), their gradients
 * against forward mode, which differentiates the algorithm itself and knows nothing of the
 * formulas.
 */
import * as h from "hinode";
import { linalg, type Tensor, tensor } from "hinode";
import { expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";
import { build, expectTensor, make, type Plain } from "./support.ts";

/** Irregular numbers of about 1, well conditioned by what is added on the diagonal. */
const matrix = (shape: readonly number[], diagonal = 2, phase = 0): Tensor =>
  make(
    build(shape, (at) => {
      const k = at.reduce((n, i) => 7 * n + i + 1, 0);
      const [i, j] = at.slice(-2);
      return Math.sin(1.7 * k * k + phase) + (i === j ? diagonal : 0);
    }),
  );

const mT = (x: Tensor): Tensor => x.transpose(-2, -1);
const plain = async (x: Tensor): Promise<Plain> => ({
  shape: x.shape,
  data: [...(await x.data())],
});

/** Backward errors of f32 for matrices of this size: some n·2⁻²⁴ of elements of about 4. */
const tolerance = { rtol: 2e-5, atol: 2e-5 };
const same = async (got: Tensor, want: Tensor, t = tolerance) =>
  expectTensor(got, await plain(want), t);
const orthonormal = (q: Tensor) =>
  same(
    mT(q).matmul(q),
    h.eye(q.shape.at(-1)!).expand([...q.shape.slice(0, -2), q.shape.at(-1)!, q.shape.at(-1)!]),
  );

onEachDevice("linalg", (device) => {
  // SwiftShader compiles for a second where a CPU computes for a millisecond.
  const slow = device === "webgpu";
  const some = <T>(all: readonly T[]): readonly T[] => (slow ? all.slice(0, 1) : all);

  test("cholesky reads one triangle and gives one", async () => {
    const x = matrix([2, 2, 4, 4], 0);
    const a = x.matmul(mT(x)).add(h.eye(4));
    const l = linalg.cholesky(a.tril());
    await same(l.matmul(mT(l)), a);
    await same(l.triu(1), h.zerosLike(l));
    await same(linalg.cholesky(a.triu(), { upper: true }), mT(l));
    expect(await linalg.cholesky(tensor([[1, 2], [2, 1]])).isnan().any().item()).toBe(true); // biome-ignore format: a matrix
  });

  test("triangular systems from both sides, with what is not read filled with NaN", async () => {
    const a = matrix([3, 3]);
    for (const upper of some([false, true]))
      for (const left of some([false, true]))
        for (const unitriangular of [false, true]) {
          const own = upper ? a.triu(unitriangular ? 1 : 0) : a.tril(unitriangular ? -1 : 0);
          const read = unitriangular ? own.add(h.eye(3)) : own;
          const dirty = h.where(own.ne(0), own, Number.NaN);
          const b = matrix(left ? [2, 3, 2] : [2, 2, 3], 0, 1);
          const x = linalg.solveTriangular(dirty, b, { upper, left, unitriangular });
          await same(left ? read.matmul(x) : x.matmul(read), b);
        }
  });

  test("solve and inv pivot; batches broadcast; vectors are columns", async () => {
    const a = tensor([[0, 2, 1], [1, 0, 3], [4, 1, 0]]); // biome-ignore format: a matrix
    await same(linalg.inv(a).matmul(a), h.eye(3));
    const b = matrix([2, 1, 3, 2], 0);
    const all = h.stack([a, a.add(h.eye(3)), matrix([3, 3])]);
    const x = linalg.solve(all, b);
    expect(x.shape).toEqual([2, 3, 3, 2]);
    await same(all.matmul(x), b.expand([2, 3, 3, 2]));
    await same(a.matmul(linalg.solve(a, tensor([1, 2, 3]))), tensor([1, 2, 3]));
    const right = linalg.solve(a, mT(b), { left: false });
    await same(right.matmul(a), mT(b));
    const singular = linalg.inv(tensor([[1, 2], [2, 4]])); // biome-ignore format: a matrix
    expect(await singular.isfinite().any().item()).toBe(false);
  });

  test("determinants of any sign, of singular and of empty matrices, and their cofactors", async () => {
    const a = tensor([[[0, 2, 1], [1, 0, 3], [4, 1, 0]], [[1, 2, 3], [2, 4, 6], [1, 0, 1]]]); // biome-ignore format: matrices
    await expectTensor(linalg.det(a), { shape: [2], data: [25, 0] }, tolerance);
    const { sign, logabsdet } = linalg.slogdet(a.neg());
    await expectTensor(sign, { shape: [2], data: [-1, 0] });
    await expectTensor(logabsdet, { shape: [2], data: [Math.log(25), -Infinity] }, tolerance);
    const cofactors = [-3, 12, 1, 1, -4, 8, 6, 1, -2, 4, 4, -4, -2, -2, 2, 0, 0, 0];
    const found = h.grad((x: Tensor) => linalg.det(x).sum())(a);
    await expectTensor(found, { shape: [2, 3, 3], data: cofactors }, tolerance);
    expect(await linalg.det(h.zeros([2, 0, 0])).tolist()).toEqual([1, 1]);
  });

  test("qr has LAPACK's signs, and goes on where columns end", async () => {
    for (const shape of some([
      [2, 4, 3],
      [3, 5],
      [3, 3],
    ])) {
      // biome-ignore format: shapes
      const a = matrix(shape, 0);
      const { Q, R } = linalg.qr(a);
      await same(Q.matmul(R), a);
      await orthonormal(Q);
      await same(R.tril(-1), h.zerosLike(R));
      if (slow) return;
      const complete = linalg.qr(a, { mode: "complete" });
      expect(complete.Q.shape.slice(-2)).toEqual([shape.at(-2), shape.at(-2)]);
      await same(complete.Q.matmul(complete.R), a);
      await orthonormal(complete.Q);
    }
    // Nothing to reflect in the last column: R keeps its sign there.
    const { R } = linalg.qr(tensor([[3, 1], [4, 2]])); // biome-ignore format: a matrix
    await expectTensor(R, { shape: [2, 2], data: [-5, -2.2, 0, 0.4] }, tolerance);
  });

  test("eigh: ascending values and orthonormal vectors of one triangle", async () => {
    for (const n of some([3, 1, 4])) {
      const x = matrix([2, n, n], 0);
      const a = x.add(mT(x));
      const { eigenvalues, eigenvectors } = linalg.eigh(a.tril());
      await same(a.matmul(eigenvectors), eigenvectors.mul(eigenvalues.unsqueeze(-2)));
      await orthonormal(eigenvectors);
      if (n > 1) expect(await eigenvalues.diff().ge(0).all().item()).toBe(true);
      await same(linalg.eigvalsh(a.triu(), { uplo: "U" }), eigenvalues);
    }
    if (slow) return;
    // Equal values: the gradient of a symmetric function of them is that of the trace.
    const slope = h.grad((x: Tensor) => linalg.eigvalsh(x).sum())(h.eye(3));
    await same(slope, h.eye(3));
  });

  test("svd of tall, wide and rank-deficient matrices; small values keep their digits", async () => {
    const low = matrix([4, 1], 0).matmul(matrix([1, 3], 0));
    const deficient = h.stack([low, h.zeros([4, 3])]);
    for (const a of some([matrix([2, 4, 3], 0), matrix([3, 4], 0), deficient])) {
      const { U, S, Vh } = linalg.svd(a, { fullMatrices: false });
      await same(U.mul(S.unsqueeze(-2)).matmul(Vh), a);
      await orthonormal(U);
      await orthonormal(mT(Vh));
      await same(linalg.svdvals(a), S);
      const full = linalg.svd(a);
      await orthonormal(full.U);
      await orthonormal(full.Vh);
      expect([full.U.shape.at(-1), full.Vh.shape.at(-1)]).toEqual(a.shape.slice(-2));
    }
    if (slow) return;
    const graded = linalg.qr(matrix([4, 3], 0)).Q.mul(tensor([1e-8, 1, 1e-4]));
    await expectTensor(
      linalg.svdvals(graded),
      { shape: [3], data: [1, 1e-4, 1e-8] },
      { rtol: 1e-5 },
    );
  });

  test.skipIf(slow)("least squares, pseudo-inverse, rank, condition, norms", async () => {
    const tall = matrix([4, 2], 0);
    const b = matrix([4, 3], 0, 1);
    const { solution, residuals } = linalg.lstsq(tall, b);
    const error = tall.matmul(solution).sub(b);
    await same(mT(tall).matmul(error), h.zeros([2, 3]));
    await same(residuals, error.square().sum(0));
    await same(solution, linalg.pinv(tall).matmul(b));
    const wide = mT(tall);
    const shortest = linalg.lstsq(wide, tensor([1, 2])).solution;
    await same(shortest, linalg.pinv(wide).matmul(tensor([1, 2])));

    const low = matrix([2, 4, 1], 0).matmul(matrix([2, 1, 3], 0));
    expect(await linalg.matrixRank(low).tolist()).toEqual([1, 1]);
    expect(await linalg.matrixRank(h.eye(3), { atol: 2 }).item()).toBe(0);
    const p = linalg.pinv(low);
    await same(low.matmul(p).matmul(low), low);

    const d = tensor([[0, 3], [-4, 0]]); // biome-ignore format: a matrix
    const norms = (["nuc", 2, -2, "fro", 1, -1] as const).map((o) => linalg.matrixNorm(d, o));
    await expectTensor(h.stack(norms), { shape: [6], data: [7, 4, 3, 5, 4, 3] }, tolerance);
    expect(linalg.matrixNorm(h.ones([2, 3, 4]), 2, [0, 2], true).shape).toEqual([1, 3, 1]);
    await expectTensor(linalg.cond(d), { shape: [], data: [4 / 3] }, tolerance);
    await same(linalg.norm(d, 1), tensor(4));
    await same(linalg.norm(d), tensor(5));
    await same(linalg.matrixPower(d, -2), linalg.inv(d.matmul(d)));
  });

  test.skipIf(slow)("the exponential, and tensors as matrices", async () => {
    // A rotation by 10, whose norm asks for five squarings.
    const turn = linalg.matrixExp(tensor([[[0, -10], [10, 0]], [[0, 0], [0, 1]]])); // biome-ignore format: matrices
    const [c, s] = [Math.cos(10), Math.sin(10)];
    await expectTensor(turn, { shape: [2, 2, 2], data: [c, -s, s, c, 1, 0, 0, Math.E] }, tolerance);
    const a = matrix([2, 3, 6], 0).add(h.eye(6).mul(4).reshape([2, 3, 6]));
    const b = matrix([2, 3], 0);
    await same(h.tensordot(a, linalg.tensorsolve(a, b), 1), b);
    await same(h.tensordot(linalg.tensorinv(a), b, 2), linalg.tensorsolve(a, b));
  });
});

/** Functions of a well-conditioned square matrix [..., 3, 3], whose results are unique. */
const differentiable: Record<string, (x: Tensor) => Tensor> = {
  cholesky: (x) => linalg.cholesky(x.matmul(mT(x)).add(h.eye(3)), { upper: true }),
  solveTriangular: (x) => linalg.solveTriangular(x, x.sin(), { upper: true, left: false }),
  unitriangular: (x) => linalg.solveTriangular(x, x.cos(), { upper: false, unitriangular: true }),
  solve: (x) => linalg.solve(x, x.sin()),
  inv: linalg.inv,
  det: linalg.det,
  logabsdet: (x) => linalg.slogdet(x).logabsdet,
  qr: (x) => h.cat(Object.values(linalg.qr(x)), -1),
  tallQr: (x) => h.cat(Object.values(linalg.qr(h.cat([x, x.sin()], -2))), -2),
  wideQr: (x) => linalg.qr(h.cat([x, x.sin()], -1)).R,
  // Signs of vectors are arbitrary: their squares are not.
  eigh: (x) => linalg.eigh(x.add(mT(x))).eigenvectors.square(),
  eigvalsh: (x) => linalg.eigvalsh(x.add(mT(x))),
  svd: (x) =>
    h.cat(
      Object.values(linalg.svd(h.cat([x, x.sin()], -2), { fullMatrices: false })).map((t) =>
        t.shape.at(-2) === t.shape.at(-1) || t.shape.at(-2) === 6 ? t.square() : t.unsqueeze(-2),
      ),
      -2,
    ),
  svdvals: linalg.svdvals,
  pinv: (x) => linalg.pinv(h.cat([x, x.sin()], -1)),
  matrixExp: linalg.matrixExp,
};

onEachDevice("derivatives of linalg", (device) => {
  // The formulas are the same everywhere; what costs time is the compilation.
  const some = { wasm: ["cholesky", "solve", "qr", "eigh", "svd"], webgpu: ["logabsdet"] };
  const names = device === "reference" ? Object.keys(differentiable) : some[device];

  /**
   * Elements of the derivatives are some 10 at most, and each loses a few bits where values are
   * near each other.
   */
  const near = { rtol: 1e-3, atol: 1e-3 };

  test.for(names)("%s: reverse mode agrees with forward mode, twice", async (name) => {
    const f = differentiable[name];
    const [x, t] = [matrix([3, 3], 3), matrix([3, 3], 0, 1)];
    const [y, dy] = h.jvp(f, [x], [t]);
    const ct = matrix([1, ...y.shape], 0, 2).reshape(y.shape);
    const [, pull] = h.vjp(f, x);
    await same(pull(ct)[0].mul(t).sum(), dy.mul(ct).sum(), near);
    const slope = h.grad((a: Tensor) => f(a).mul(ct).sum());
    const along = h.grad((a: Tensor) => slope(a).mul(t).sum())(x);
    await same(along, h.jvp(slope, [x], [t])[1], near);
  });

  test.for(device === "webgpu" ? [] : names)("%s: vmap is the batch", async (name) => {
    const f = differentiable[name];
    const xs = matrix([2, 3, 3], 3);
    await same(h.vmap(f)(xs), f(xs), near);
    const slope = (x: Tensor) => h.grad((a: Tensor) => f(a).cos().sum())(x);
    await same(h.vmap(slope)(xs), slope(xs), near);
  });
});

onEachDevice("linalg as a program", (device) => {
  test.skipIf(device === "webgpu")("the number of kernels does not grow with the matrix", () => {
    const kernels = (n: number, f: (x: Tensor) => Tensor) =>
      h.explain(f(h.randn([n, n]))).kernels.length;
    for (const f of [linalg.inv, linalg.svdvals, linalg.eigvalsh])
      expect(kernels(16, f)).toBe(kernels(8, f));
  });

  test("arguments that do not fit are refused", () => {
    expect(() => linalg.det(h.zeros([2, 3]))).toThrow(/square matrices/);
    expect(() => linalg.inv(h.zeros([2, 2], { dtype: "i32" }))).toThrow(/floating-point/);
    expect(() => linalg.inv(h.zeros([2, 2], { dtype: "f16" }))).toThrow(/\.float\(\)/);
    expect(() => linalg.solve(h.eye(2), h.zeros([3, 1]))).toThrow(/\[\*, M, K\]/);
    expect(() => linalg.svd(h.zeros([0, 2]))).toThrow(/not empty/);
    // biome-ignore lint/suspicious/noExplicitAny: what a caller without types may do
    expect(() => linalg.solveTriangular(h.eye(2), h.eye(2), {} as any)).toThrow(/upper/);
  });
});
