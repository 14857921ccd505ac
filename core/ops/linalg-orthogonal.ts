/**
 * @file QR by Householder's reflections, and eigenvalues and singular values by Jacobi's rotations,
 * on batches of matrices [B, m, n] of nodes. Jacobi's methods are the ones for a loop of fixed
 * length: every step rotates n/2 disjoint pairs at once, the pairs change as in a tournament (Brent
 * & Luk 1985), and the singular values come from the matrix itself, not from its square, so that
 * small ones keep their digits (Demmel & Veselić 1992). Everything is scaled by the largest element
 * first: no square overflows. Gradients are PyTorch's formulas, in functions that are
 * differentiable again.
 */
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { scanNodes } from "../transform/scan.ts";
import { part, sqrtSafe, square } from "./compose.ts";
import {
  columnAt,
  diagonalFrom,
  diagonalMask,
  diagonalOf,
  identityLike,
  transposed,
  triangle,
  triangularSolve,
  valueAt,
  withGradient,
} from "./linalg-solve.ts";

const c = g.scalarLike;

/**
 * a over its largest element, and that element [B, 1, 1] (1 for zeros): the gradient belongs to the
 * product of both.
 */
function scaled(a: Node): { unit: Node; scale: Node } {
  const largest = g.detach(g.reshape(g.amax(g.abs(a), [1, 2]), [a.shape[0], 1, 1]));
  const scale = g.where(g.eq(largest, c(a, 0)), c(a, 1), largest);
  return { unit: g.div(a, scale), scale };
}

// --- QR ------------------------------------------------------------------------------------------

/**
 * Q [B, m, p] and R [B, p, n] of A = Q·R. Reduced: p = min(m, n). Complete: p = m. Signs are
 * LAPACK's: R's diagonal is of the sign opposite to what it replaces, and nothing is reflected that
 * is already 0 below.
 */
export function qrNode(a: Node, complete = false): [q: Node, r: Node] {
  const [, m, n] = a.shape;
  if (m < n) {
    // The first columns give Q; what it makes of the others is a product.
    const [q, first] = qrNode(part(a, 2, 0, m));
    return [q, g.concat([first, g.dot(transposed(q), part(a, 2, m, n))], 2)];
  }
  // PyTorch has no gradient of the complete Q of a tall matrix; here it is that of the reflections.
  if (complete && m > n) return householder(a, true);
  const [q, r] = withGradient(
    "qr",
    ([p]) => householder(p, false),
    [a],
    (_, [q, r], [gq, gr]) => [qrGradient(q, r, gq, gr)],
  );
  return [q, r];
}

/**
 * Ā = [Q̄ + Q·sym(M)]·R⁻ᵀ, M = R·R̄ᵀ - Q̄ᵀ·Q, sym(M) = M's lower triangle and its mirror (Walter &
 * Lehmann 2012).
 */
function qrGradient(q: Node, r: Node, gq: Node, gr: Node): Node {
  const m = g.sub(g.dot(r, transposed(gr)), g.dot(transposed(gq), q));
  const both = g.add(triangle(m, false), transposed(triangle(m, false, false)));
  const inner = g.add(gq, g.dot(q, both));
  // X = inner·R⁻ᵀ is R·Xᵀ = innerᵀ.
  return transposed(triangularSolve(r, transposed(inner), { upper: true, unit: false }));
}

function householder(a: Node, complete: boolean): [q: Node, r: Node] {
  const [batch, m, n] = a.shape;
  const p = complete ? m : n;
  const row = g.iota(m);
  const { unit, scale } = scaled(a);
  const column = (v: Node): Node => g.reshape(v, [batch, m, 1]);
  const reflected = (x: Node, v: Node, tau: Node): Node => {
    const along = g.dot(g.reshape(v, [batch, 1, m]), x);
    return g.sub(x, g.mul(g.mul(column(v), g.reshape(tau, [batch, 1, 1])), along));
  };
  const { carries, ys } = scanNodes(
    ([rest], [k]) => {
      const x = columnAt(rest, k);
      const [zero, one] = [c(x, 0), c(x, 1)];
      const head = valueAt(x, k);
      const below = g.where(g.lt(k, row), x, zero);
      const tail = g.reshape(g.sum(square(below), [1]), [batch, 1]);
      const done = g.eq(tail, zero);
      const length = sqrtSafe(g.add(square(head), tail));
      const beta = g.where(g.lt(head, zero), length, g.neg(length));
      const v = g.div(below, g.where(done, one, g.sub(head, beta)));
      const tau = g.where(done, zero, g.div(g.sub(beta, head), g.where(done, one, beta)));
      const reflector = g.where(g.eq(row, k), one, v);
      return { carries: [reflected(rest, reflector, tau)], ys: [reflector, tau] };
    },
    [unit],
    [g.iota(Math.min(m, n))],
  );
  const start = g.expand(g.cast(g.eq(g.reshape(row, [m, 1]), g.iota(p)), a.dtype), [batch, m, p]);
  const { carries: q } = scanNodes(
    ([x], [v, tau]) => ({ carries: [reflected(x, v, tau)], ys: [] }),
    [start],
    ys,
    true,
  );
  return [q[0], g.mul(triangle(part(carries[0], 1, 0, p), true), scale)];
}

// --- rotations -----------------------------------------------------------------------------------

/**
 * How many times every pair is rotated. The convergence is quadratic once the matrix is nearly
 * diagonal; what comes before grows with log n (Brent & Luk).
 */
const sweepsFor = (n: number): number => 6 + Math.ceil(Math.log2(Math.max(n, 2)));

/**
 * The tangent of the smaller angle that makes [[p, e], [e, q]] diagonal, from d = q - p and e; 0
 * where e is.
 */
function tangent(d: Node, e: Node): Node {
  const twice = g.mul(e, c(e, 2));
  const size = g.detach(g.max(g.abs(d), g.abs(twice)));
  const none = g.eq(size, c(e, 0));
  const by = g.where(none, c(e, 1), size);
  const [x, y] = [g.div(d, by), g.div(twice, by)];
  const root = g.sqrt(g.where(none, c(e, 1), g.add(square(x), square(y))));
  const signed = g.where(g.lt(x, c(x, 0)), g.neg(y), y);
  return g.div(signed, g.add(g.abs(x), root));
}

/** The sine of the angle with this tangent, and the tangent of half of it. */
function rotation(t: Node): [sine: Node, half: Node] {
  const secant = g.sqrt(g.add(c(t, 1), square(t)));
  return [g.div(t, secant), g.div(t, g.add(c(t, 1), secant))];
}

/**
 * The halves of an axis rotated against each other, and everyone moved to the next seat of the
 * tournament: the first stays, the others go around. After n - 1 steps each has met each, and all
 * sit where they began. In Rutishauser's form (1966) a small angle is a small correction: the
 * rounding of a cosine near 1 does not add up.
 */
function turned(a: Node, axis: number, sine: Node, halfTangent: Node): Node {
  const half = a.shape[axis] / 2;
  const [p, q] = [part(a, axis, 0, half), part(a, axis, half, 2 * half)];
  const along = (x: Node): Node =>
    g.reshape(x, axis === 2 ? [x.shape[0], 1, half] : [x.shape[0], half, 1]);
  const [sin, tan] = [along(sine), along(halfTangent)];
  const top = g.sub(p, g.mul(sin, g.add(q, g.mul(tan, p))));
  const bottom = g.add(q, g.mul(sin, g.sub(p, g.mul(tan, q))));
  if (half === 1) return g.concat([top, bottom], axis);
  const seats = [
    part(top, axis, 0, 1),
    part(bottom, axis, 0, 1),
    part(top, axis, 1, half - 1),
    part(bottom, axis, 1, half),
    part(top, axis, half - 1, half),
  ];
  return g.concat(
    seats.filter((s) => s.shape[axis] > 0),
    axis,
  );
}

/** A loop of all sweeps over the carried matrices. */
function rotated(n: number, step: (carries: Node[]) => Node[], init: Node[]): Node[] {
  const length = sweepsFor(n) * (n - 1);
  return scanNodes((carries) => ({ carries: step(carries), ys: [] }), init, [], false, length)
    .carries;
}

/** Columns in the order of `position`, [B, n]. */
const columnsAt = (a: Node, position: Node): Node => {
  const [batch, m, n] = a.shape;
  return g.gather(a, g.expand(g.reshape(position, [batch, 1, n]), [batch, m, n]), 2);
};

/** An odd number of columns gets one of zeros, which no rotation touches. */
const evenly = (n: number): number => n + (n % 2);

// --- symmetric eigenvalues -----------------------------------------------------------------------

/**
 * Ascending eigenvalues [B, n] and the eigenvectors as columns [B, n, n] of symmetric matrices, of
 * which one triangle is read. Ā = V·(diag(λ̄) + (Vᵀ·V̄)∘F)·Vᵀ, Fᵢⱼ = 1/(λⱼ - λᵢ): not finite for
 * vectors of equal values, which are not unique.
 */
export function eighNode(a: Node, upper = false): [values: Node, vectors: Node] {
  const [values, vectors] = withGradient(
    "eigh",
    ([p]) => jacobiEigen(p, upper),
    [a],
    (_, [values, v], [gValues, gv]) => {
      const turn = apart(g.dot(transposed(v), gv), differences(values));
      const inner = g.add(turn, diagonalFrom(gValues));
      return [g.dot(g.dot(v, inner), transposed(v))];
    },
  );
  return [values, vectors];
}

function jacobiEigen(a: Node, upper: boolean): Node[] {
  const [, n] = a.shape;
  const { unit, scale } = scaled(triangle(a, upper));
  const own = triangle(unit, upper, false);
  const size = evenly(n);
  const grown = [0, size - n, size - n];
  const full = g.pad(g.add(unit, transposed(own)), [0, 0, 0], grown);
  const half = size / 2;
  const halves = (m: Node): [Node, Node, Node] => {
    const d = diagonalOf(m);
    const between = diagonalOf(part(part(m, 1, 0, half), 2, half, size));
    return [part(d, 1, 0, half), part(d, 1, half, size), between];
  };
  const eye = identityLike(full);
  const [d, v] = rotated(
    size,
    ([m, v]) => {
      const [p, q, e] = halves(m);
      const angle = rotation(tangent(g.sub(q, p), e));
      const both = turned(turned(m, 2, ...angle), 1, ...angle);
      return [both, turned(v, 2, ...angle)];
    },
    [full, eye],
  );
  const found = part(diagonalOf(d), 1, 0, n);
  const order = g.argsort(found, 1);
  const values = g.mul(g.gather(found, order, 1), g.reshape(scale, [scale.shape[0], 1]));
  return [values, columnsAt(part(part(v, 1, 0, n), 2, 0, n), order)];
}

/** λⱼ - λᵢ, with 1 on the diagonal: [B, n] → [B, n, n]. */
function differences(values: Node): Node {
  const [batch, n] = values.shape;
  const d = g.sub(g.reshape(values, [batch, 1, n]), g.reshape(values, [batch, n, 1]));
  return g.where(diagonalMask(n), c(d, 1), d);
}

/**
 * x/d off the diagonal and 0 on it. 0/0 is 0: where nothing depends on the vectors, equal values
 * are no problem.
 */
function apart(x: Node, d: Node): Node {
  const zero = c(x, 0);
  const idle = g.or(g.eq(x, zero), diagonalMask(x.shape[2]));
  return g.where(idle, zero, g.div(x, g.where(idle, c(d, 1), d)));
}

// --- singular values -----------------------------------------------------------------------------

/**
 * U [B, m, p], the singular values [B, p], descending, and V [B, n, p] of A = U·diag(s)·Vᵀ, p =
 * min(m, n). U is orthonormal also where values are 0. The gradient (Townsend 2016) is not finite
 * for vectors of equal values.
 */
export function svdNode(a: Node): [u: Node, s: Node, v: Node] {
  const [, m, n] = a.shape;
  if (m < n) {
    const [v, s, u] = svdNode(transposed(a));
    return [u, s, v];
  }
  const [u, s, v] = withGradient(
    "svd",
    ([p]) => oneSided(p, true),
    [a],
    (_, [u, s, v], cts) => [svdGradient(u, s, v, cts)],
  );
  return [u, s, v];
}

/** The singular values alone: Ā = U·diag(s̄)·Vᵀ, finite also where they are equal or 0. */
export function singularValues(a: Node): Node {
  if (a.shape[1] < a.shape[2]) return singularValues(transposed(a));
  const [s] = withGradient(
    "svdvals",
    ([p]) => [oneSided(p, false)[0]],
    [a],
    ([p], _, [ct]) => {
      const [u, , v] = svdNode(p);
      return [g.dot(g.mul(u, g.reshape(ct, [ct.shape[0], 1, ct.shape[1]])), transposed(v))];
    },
  );
  return s;
}

function svdGradient(u: Node, s: Node, v: Node, [gu, gs, gv]: readonly Node[]): Node {
  const [batch, m] = u.shape;
  const n = s.shape[1];
  const skew = (x: Node): Node => g.sub(x, transposed(x));
  const row = g.reshape(s, [batch, 1, n]);
  const ut = transposed(u);
  const e = g.where(diagonalMask(n), c(s, 1), g.mul(differences(s), g.add(row, transposed(row))));
  const left = g.mul(skew(g.dot(ut, gu)), row);
  const right = g.mul(transposed(row), skew(g.dot(transposed(v), gv)));
  let inner = g.add(apart(g.add(left, right), e), diagonalFrom(gs));
  inner = g.dot(u, inner);
  if (m > n) {
    // What of Ū points out of U's columns; 0/0 is 0, as above.
    const out = g.sub(gu, g.dot(u, g.dot(ut, gu)));
    const idle = g.eq(gu, c(gu, 0));
    inner = g.add(inner, g.where(idle, c(out, 0), g.div(out, g.where(idle, c(s, 1), row))));
  }
  return g.dot(inner, transposed(v));
}

/** Columns rotated in pairs until all are orthogonal: A·V = U·diag(s) (Hestenes 1958). m ≥ n. */
function oneSided(a: Node, vectors: boolean): Node[] {
  const [batch, , n] = a.shape;
  const { unit, scale } = scaled(a);
  const size = evenly(n);
  const half = size / 2;
  const sums = (x: Node): Node => g.reshape(g.sum(x, [1]), [batch, half]);
  const eye = g.expand(g.cast(diagonalMask(size), a.dtype), [batch, size, size]);
  const [w, rotations] = rotated(
    size,
    ([w, ...v]) => {
      const [p, q] = [part(w, 2, 0, half), part(w, 2, half, size)];
      const difference = sums(g.mul(g.sub(q, p), g.add(q, p)));
      const angle = rotation(tangent(difference, sums(g.mul(p, q))));
      return [w, ...v].map((x) => turned(x, 2, ...angle));
    },
    [g.pad(unit, [0, 0, 0], [0, 0, size - n]), ...(vectors ? [eye] : [])],
  );
  const columns = part(w, 2, 0, n);
  const lengths = sqrtSafe(g.reshape(g.sum(square(columns), [1]), [batch, n]));
  const order = g.argsort(lengths, 1, true);
  const s = g.mul(g.gather(lengths, order, 1), g.reshape(scale, [batch, 1]));
  if (!vectors) return [s];
  // Divided by its length, a column of 0 would be no direction. In descending order the columns' QR
  // is a diagonal R, and Q goes on where they end.
  const [q, r] = qrNode(columnsAt(columns, order));
  const negative = g.lt(diagonalOf(r), c(r, 0));
  const u = g.where(g.reshape(negative, [batch, 1, n]), g.neg(q), q);
  return [u, s, columnsAt(part(part(rotations, 1, 0, n), 2, 0, n), order)];
}
