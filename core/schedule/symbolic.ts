/**
 * @file Index expressions: integers over loop variables, kept in the normal form Σ coefficient·atom + constant, with
 * exact ranges, so that reshapes and views become affine addresses wherever that is possible.
 *
 * Division and modulo are floored throughout: every rule here holds for negative numbers (truncation would make
 * `(16x + y)/16 → x + y/16` wrong for y < 0). Which loops to split so that a division disappears is asked of
 * `splitPoints`; splitting itself is the scheduler's. The rules are those of tinygrad's symbolic engine and of
 * Halide's simplifier (Newcomb et al. 2020), reduced to what movement operations produce.
 */
import { ArgumentError } from "../errors.ts";

/** Atoms are interned by `key`. Division and modulo are floored, by positive constants. */
export type Atom =
  /** A loop variable, 0 ≤ v < extent. */
  | { readonly k: "var"; readonly key: string; readonly name: string; readonly extent: number }
  /** An i32 variable of the kernel that `position` has checked: 0 ≤ v < extent. */
  | { readonly k: "value"; readonly key: string; readonly name: string; readonly extent: number }
  | { readonly k: "div"; readonly key: string; readonly of: Index; readonly by: number }
  | { readonly k: "mod"; readonly key: string; readonly of: Index; readonly by: number }
  | { readonly k: "min"; readonly key: string; readonly a: Index; readonly b: Index };

export interface Term {
  readonly atom: Atom;
  readonly coef: number;
}

export interface Index {
  readonly constant: number;
  /** Sorted by atom key, no zero coefficients, each atom once. */
  readonly terms: readonly Term[];
  /** Bounds that follow from the atoms' ranges, both inclusive. */
  readonly min: number;
  readonly max: number;
  readonly key: string;
}

/** A conjunction: every entry must be ≥ 0. The empty condition is true. */
export type Cond = readonly Index[];

// --- atoms --------------------------------------------------------------------------------------------------

// Interning makes equality of atoms mostly one pointer comparison. Identity is a fast path, never relied on, so
// the table may be emptied when a long-running process has seen very many shapes.
const atoms = new Map<string, Atom>();
const internLimit = 1 << 16;

function intern(atom: Atom): Atom {
  const known = atoms.get(atom.key);
  if (known) return known;
  if (atoms.size >= internLimit) atoms.clear();
  atoms.set(atom.key, atom);
  return atom;
}

const sameAtom = (a: Atom, b: Atom): boolean => a === b || a.key === b.key;

function atomMin(a: Atom): number {
  switch (a.k) {
    case "div":
      return Math.floor(a.of.min / a.by);
    case "min":
      return Math.min(a.a.min, a.b.min);
    default:
      return 0;
  }
}

function atomMax(a: Atom): number {
  switch (a.k) {
    case "var":
    case "value":
      return Math.max(0, a.extent - 1);
    case "div":
      return Math.floor(a.of.max / a.by);
    case "mod":
      return a.of.min >= 0 ? Math.min(a.by - 1, a.of.max) : a.by - 1;
    case "min":
      return Math.min(a.a.max, a.b.max);
  }
}

// --- sums ---------------------------------------------------------------------------------------------------

function make(constant: number, terms: readonly Term[]): Index {
  let min = constant + 0; // + 0: never -0
  let max = min;
  let key = "";
  for (const { atom, coef } of terms) {
    const [lo, hi] = [atomMin(atom) * coef, atomMax(atom) * coef];
    min += coef > 0 ? lo : hi;
    max += coef > 0 ? hi : lo;
    key += coef === 1 ? `${atom.key}+` : `${coef}*${atom.key}+`;
  }
  return { constant: constant + 0, terms, min, max, key: key + (constant + 0) };
}

const small: Index[] = Array.from({ length: 64 }, (_, i) => make(i, []));

export function num(n: number): Index {
  return small[n] ?? make(n, []);
}

const ofAtom = (atom: Atom): Index => make(0, [{ atom, coef: 1 }]);

/** A loop variable, 0 ≤ v < extent; of extent 1 it is the number 0. */
export function ivar(name: string, extent: number): Index {
  if (extent === 1) return num(0);
  return ofAtom(intern({ k: "var", key: `${name}:${extent}`, name, extent }));
}

/** A position variable that the kernel has checked against 0 … extent-1. */
export function ivalue(name: string, extent: number): Index {
  if (extent === 1) return num(0);
  return ofAtom(intern({ k: "value", key: `$${name}:${extent}`, name, extent }));
}

export const isConst = (x: Index): boolean => x.terms.length === 0;

/** a + scale·b, by merging the sorted terms. */
function merge(a: Index, b: Index, scale: number): Index {
  const constant = a.constant + scale * b.constant;
  if (b.terms.length === 0) return constant === a.constant ? a : make(constant, a.terms);
  const [s, t] = [a.terms, b.terms];
  const out: Term[] = [];
  let i = 0;
  let j = 0;
  while (i < s.length && j < t.length) {
    if (sameAtom(s[i].atom, t[j].atom)) {
      const coef = s[i].coef + scale * t[j].coef;
      if (coef !== 0) out.push({ atom: s[i].atom, coef });
      i++;
      j++;
    } else if (s[i].atom.key < t[j].atom.key) out.push(s[i++]);
    else {
      out.push({ atom: t[j].atom, coef: scale * t[j].coef });
      j++;
    }
  }
  while (i < s.length) out.push(s[i++]);
  for (; j < t.length; j++) out.push({ atom: t[j].atom, coef: scale * t[j].coef });
  return make(constant, out);
}

/** Undoes a division: k·(X % c) + k·c·(X / c) → k·X, and k·(X % c) + k·c·((X / c) % d) → k·(X % (c·d)). */
function recombine(start: Index): Index {
  let x = start;
  search: for (;;) {
    for (const { atom, coef } of x.terms) {
      if (atom.k !== "mod") continue;
      const quotient = idiv(atom.of, atom.by);
      if (quotient.terms.length !== 1 || quotient.constant !== 0 || quotient.terms[0].coef !== 1)
        continue;
      const whole = quotient.terms[0].atom;
      for (const other of x.terms) {
        if (other.coef !== coef * atom.by) continue;
        const partial = other.atom.k === "mod" && other.atom.of.key === quotient.key;
        if (!partial && !sameAtom(other.atom, whole)) continue;
        const joined = partial
          ? imod(atom.of, atom.by * (other.atom as { by: number }).by)
          : atom.of;
        const rest = x.terms.filter((t) => t.atom !== atom && t !== other);
        x = merge(make(x.constant, rest), joined, coef);
        continue search;
      }
    }
    return x;
  }
}

const hasMod = (x: Index): boolean => x.terms.some((t) => t.atom.k === "mod");

export function iadd(...xs: readonly Index[]): Index {
  if (xs.length === 0) return num(0);
  let sum = xs[0];
  for (let i = 1; i < xs.length; i++) sum = merge(sum, xs[i], 1);
  return xs.length > 1 && hasMod(sum) ? recombine(sum) : sum;
}

export function isub(a: Index, b: Index): Index {
  const difference = merge(a, b, -1);
  return hasMod(difference) ? recombine(difference) : difference;
}

export function imul(x: Index, c: number): Index {
  if (c === 1) return x;
  if (c === 0) return num(0);
  return make(
    x.constant * c,
    x.terms.map((t) => ({ atom: t.atom, coef: t.coef * c })),
  );
}

// --- division -----------------------------------------------------------------------------------------------

const floorMod = (a: number, c: number): number => a - c * Math.floor(a / c);

function gcd(a: number, b: number): number {
  let [x, y] = [Math.abs(a), Math.abs(b)];
  while (y !== 0) [x, y] = [y, x % y];
  return x;
}

/** x = c·quotient + rest, the rest's coefficients smaller than c in magnitude and of the same sign as before. */
function pullOut(x: Index, c: number): { quotient: Index; rest: Index } {
  const whole: Term[] = [];
  const rest: Term[] = [];
  for (const t of x.terms) {
    const q = Math.trunc(t.coef / c);
    const r = t.coef - q * c;
    if (q !== 0) whole.push({ atom: t.atom, coef: q });
    if (r !== 0) rest.push(r === t.coef ? t : { atom: t.atom, coef: r });
  }
  const constant = Math.floor(x.constant / c);
  if (whole.length === 0 && constant === 0) return { quotient: num(0), rest: x };
  return { quotient: make(constant, whole), rest: make(x.constant - constant * c, rest) };
}

/** A split x = g·high + low with 0 ≤ low < g and g a divisor of c above 1, if there is one. */
function splitLow(x: Index, c: number): { g: number; high: Index; low: Index } | null {
  let tried = 0;
  // Larger divisors first: they leave less to divide. A handful of terms makes this a few steps.
  const candidates = x.terms.map((t) => gcd(t.coef, c)).sort((a, b) => b - a);
  for (const g of candidates) {
    if (g === tried || g === 1) continue;
    tried = g;
    const isHigh = (t: Term) => t.coef % g === 0;
    const low = make(
      x.constant,
      x.terms.filter((t) => !isHigh(t)),
    );
    const q = Math.floor(low.min / g);
    if (q !== Math.floor(low.max / g)) continue;
    const high = x.terms.filter(isHigh).map((t) => ({ atom: t.atom, coef: t.coef / g }));
    return { g, high: make(q, high), low: make(low.constant - q * g, low.terms) };
  }
  return null;
}

const only = (x: Index): Atom | null =>
  x.terms.length === 1 && x.terms[0].coef === 1 ? x.terms[0].atom : null;

function checkDivisor(c: number): void {
  if (!(Number.isInteger(c) && c >= 1))
    throw new ArgumentError(`index division: expected a positive integer divisor, got ${c}`);
}

/** ⌊x / c⌋ */
export function idiv(x: Index, c: number): Index {
  checkDivisor(c);
  if (c === 1) return x;
  const { quotient, rest } = pullOut(x, c);
  const q = Math.floor(rest.min / c);
  if (q === Math.floor(rest.max / c)) return merge(quotient, num(q), 1);
  // ⌊-y/c⌋ = -⌊(y + c - 1)/c⌋: flipped views share the atoms of the plain ones.
  if (rest.terms[0].coef < 0) return isub(quotient, idiv(isub(num(c - 1), rest), c));
  const split = splitLow(rest, c);
  if (split) return iadd(quotient, idiv(split.high, c / split.g));
  const atom = only(rest);
  if (atom?.k === "div")
    return iadd(quotient, idiv(merge(atom.of, num(rest.constant * atom.by), 1), atom.by * c));
  // (X % (c·d)) / c → (X / c) % d, the order in which delinearize takes digits.
  if (atom?.k === "mod" && rest.constant === 0 && atom.by % c === 0)
    return iadd(quotient, imod(idiv(atom.of, c), atom.by / c));
  const div = intern({ k: "div", key: `(${rest.key})/${c}`, of: rest, by: c });
  return iadd(quotient, ofAtom(div));
}

/** x - c·⌊x / c⌋, in 0 … c-1. */
export function imod(x: Index, c: number): Index {
  checkDivisor(c);
  if (c === 1) return num(0);
  const { rest } = pullOut(x, c);
  const q = Math.floor(rest.min / c);
  if (q === Math.floor(rest.max / c)) return q === 0 ? rest : merge(rest, num(-q * c), 1);
  if (rest.terms[0].coef < 0) return isub(num(c - 1), imod(isub(num(c - 1), rest), c));
  const split = splitLow(rest, c);
  if (split) return iadd(imul(imod(split.high, c / split.g), split.g), split.low);
  // k·(X % b) ≡ k·X modulo c when c divides k·b.
  const inner = rest.terms.find((t) => t.atom.k === "mod" && (t.coef * t.atom.by) % c === 0);
  if (inner) {
    const others = rest.terms.filter((t) => t !== inner);
    const of = (inner.atom as { of: Index }).of;
    return imod(merge(make(rest.constant, others), of, inner.coef), c);
  }
  return ofAtom(intern({ k: "mod", key: `(${rest.key})%${c}`, of: rest, by: c }));
}

export function imin(a: Index, b: Index): Index {
  const difference = isub(a, b);
  if (difference.max <= 0) return a;
  if (difference.min >= 0) return b;
  const [x, y] = a.key < b.key ? [a, b] : [b, a];
  return ofAtom(intern({ k: "min", key: `min(${x.key},${y.key})`, a: x, b: y }));
}

// --- walks --------------------------------------------------------------------------------------------------

/** Replaces variables and values by name, and simplifies again. */
export function substitute(x: Index, by: ReadonlyMap<string, Index>): Index {
  return by.size === 0 ? x : rebuild(x, by, new Map());
}

// The memo keeps atoms that occur in several places (a division and its modulo share `of`) from being redone.
function rebuild(
  x: Index,
  by: ReadonlyMap<string, Index>,
  memo: Map<Index | Atom, Index | null>,
): Index {
  const known = memo.get(x);
  if (known !== undefined) return known ?? x;
  let changed: Index | null = null;
  for (let i = 0; i < x.terms.length; i++) {
    const { atom, coef } = x.terms[i];
    const next = rebuildAtom(atom, by, memo);
    if (next && !changed) changed = make(x.constant, x.terms.slice(0, i));
    if (changed) changed = merge(changed, next ?? ofAtom(atom), coef);
  }
  const result = changed && hasMod(changed) ? recombine(changed) : changed;
  memo.set(x, result);
  return result ?? x;
}

/** null: nothing in it was replaced. */
function rebuildAtom(
  atom: Atom,
  by: ReadonlyMap<string, Index>,
  memo: Map<Index | Atom, Index | null>,
): Index | null {
  if (atom.k === "var" || atom.k === "value") return by.get(atom.name) ?? null;
  const known = memo.get(atom);
  if (known !== undefined) return known;
  let result: Index | null = null;
  if (atom.k === "min") {
    const [a, b] = [rebuild(atom.a, by, memo), rebuild(atom.b, by, memo)];
    if (a !== atom.a || b !== atom.b) result = imin(a, b);
  } else {
    const of = rebuild(atom.of, by, memo);
    if (of !== atom.of) result = atom.k === "div" ? idiv(of, atom.by) : imod(of, atom.by);
  }
  memo.set(atom, result);
  return result;
}

/** Calls `visit` for each atom in x, the ones inside other atoms included. */
export function eachAtom(x: Index, visit: (atom: Atom) => void): void {
  for (const { atom } of x.terms) {
    visit(atom);
    if (atom.k === "div" || atom.k === "mod") eachAtom(atom.of, visit);
    else if (atom.k === "min") {
      eachAtom(atom.a, visit);
      eachAtom(atom.b, visit);
    }
  }
}

/** Names of the loop variables and positions that x depends on. */
export function freeVars(x: Index): Set<string> {
  const names = new Set<string>();
  eachAtom(x, (a) => {
    if (a.k === "var" || a.k === "value") names.add(a.name);
  });
  return names;
}

export type Env = ReadonlyMap<string, number> | Readonly<Record<string, number>>;

const isMap = (env: Env): env is ReadonlyMap<string, number> => env instanceof Map;

export function evaluate(x: Index, env: Env): number {
  let sum = x.constant;
  for (const { atom, coef } of x.terms) sum += coef * evaluateAtom(atom, env);
  return sum;
}

function evaluateAtom(atom: Atom, env: Env): number {
  switch (atom.k) {
    case "var":
    case "value": {
      const v = isMap(env) ? env.get(atom.name) : env[atom.name];
      if (v === undefined)
        throw new ArgumentError(`index expression: variable ${atom.name} has no value`);
      return v;
    }
    case "div":
      return Math.floor(evaluate(atom.of, env) / atom.by);
    case "mod":
      return floorMod(evaluate(atom.of, env), atom.by);
    case "min":
      return Math.min(evaluate(atom.a, env), evaluate(atom.b, env));
  }
}

/** The coefficient of `name` when x is affine in it (0: absent); null when it stands inside div, mod or min. */
export function affineIn(x: Index, name: string): number | null {
  let coef = 0;
  for (const t of x.terms) {
    if (t.atom.k === "var" || t.atom.k === "value") {
      if (t.atom.name === name) coef += t.coef;
    } else if (freeVars(ofAtom(t.atom)).has(name)) return null;
  }
  return coef;
}

// --- conditions ---------------------------------------------------------------------------------------------

/** ≥ 0 exactly when x ≥ c. */
export const ge = (x: Index, c: number): Index => merge(x, num(-c), 1);
/** ≥ 0 exactly when x < c. */
export const lt = (x: Index, c: number): Index => merge(num(c - 1), x, -1);

/** Drops what always holds, keeps the strongest of entries that differ by a constant; false: it never holds. */
export function simplifyCond(cond: Cond): Cond | false {
  const strongest = new Map<string, Index>();
  for (const entry of cond) {
    if (entry.min >= 0) continue;
    if (entry.max < 0) return false;
    let g = 0;
    for (const t of entry.terms) g = gcd(g, t.coef);
    // g·S + k ≥ 0 exactly when S + ⌊k/g⌋ ≥ 0.
    const reduced =
      g === 1
        ? entry
        : make(
            Math.floor(entry.constant / g),
            entry.terms.map((t) => ({ atom: t.atom, coef: t.coef / g })),
          );
    if (reduced.max < 0) return false;
    const linear = reduced.key.slice(0, reduced.key.lastIndexOf("+"));
    const known = strongest.get(linear);
    if (!known || reduced.constant < known.constant) strongest.set(linear, reduced);
  }
  return [...strongest.values()];
}

// --- shapes -------------------------------------------------------------------------------------------------

/** The row-major position of `indices` in `shape`. */
export function linearize(indices: readonly Index[], shape: readonly number[]): Index {
  let sum: Index = num(0);
  let stride = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1) sum = iadd(sum, imul(indices[i], stride));
    stride *= shape[i];
  }
  return sum;
}

/** The digits of a position 0 ≤ index < numel(shape); outside that range the first digit is outside its axis too. */
export function delinearize(index: Index, shape: readonly number[]): Index[] {
  const out = new Array<Index>(shape.length);
  let stride = 1;
  const first = shape.findIndex((d) => d !== 1);
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] === 1) out[i] = num(0);
    else {
      const q = idiv(index, stride);
      out[i] = i === first || shape[i] === 0 ? q : imod(q, shape[i]);
    }
    stride = Math.max(1, stride * shape[i]);
  }
  return out;
}

/**
 * Loop variables that a split v = outer·k + inner (0 ≤ inner < k, k divides the extent) frees from a division or
 * modulo: the smallest such k for each. Splitting by it may expose another one: ask again.
 */
export function splitPoints(indices: readonly Index[]): Map<string, number> {
  const points = new Map<string, number>();
  for (const x of indices) {
    eachAtom(x, (atom) => {
      if (atom.k !== "div" && atom.k !== "mod") return;
      // The normal form has already taken multiples of k and common factors out of `of`.
      const v = only(atom.of);
      if (v?.k !== "var" || atom.of.constant !== 0 || v.extent % atom.by !== 0) return;
      points.set(v.name, Math.min(points.get(v.name) ?? atom.by, atom.by));
    });
  }
  return points;
}
