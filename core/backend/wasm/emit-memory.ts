/**
 * @file Loads and stores of one copy of the lanes: as a vector where the lanes are neighbours, as a splat where they
 * agree, else lane by lane. Masks are tested for a whole vector first (their entries are monotone in the lane, so the
 * two outer lanes tell) and lane by lane only where that fails. Nothing is read where a mask fails, nothing is written
 * for a lane beyond a tail; reading up to 64 bytes past a buffer is allowed and makes tails of neighbours vector loads.
 *
 * Halves are moved as raw lanes, each in the upper half of its 32 bits (math-half.ts).
 */
import { type DType, dtypes, isHalf } from "../../dtype.ts";
import { type Cond, type Index, iadd, num } from "../../schedule/symbolic.ts";
import type { Context, Place } from "./emit-context.ts";
import {
  apply,
  type Expr,
  type Fn,
  i32,
  i32x4,
  lane,
  lanes32,
  load,
  local,
  opaque,
  shuffle,
} from "./emit-expr.ts";
import type { Opcode } from "./emit-opcodes.ts";
import { type Base, maxOffset } from "./emit-scope.ts";
import { fromBits, toBits } from "./math-half.ts";

export interface Access {
  readonly dtype: DType;
  readonly base: Base;
  readonly index: Index;
  readonly mask?: Cond;
  /** Bytes to add: where a local array starts in the scratch area. */
  readonly extra?: number;
}

interface Address {
  readonly pointer: Expr;
  readonly offset: number;
}

/** Tests of a mask, as i32 makers: each use builds its own tree, so that it may stand inside a branch. */
interface Mask {
  readonly uniform: readonly (() => Expr)[];
  /** All four lanes hold; empty when the mask does not vary by lane. */
  readonly all: readonly (() => Expr)[];
  readonly lane: (l: number) => readonly (() => Expr)[];
}

const flip = lanes32(3, 2, 1, 0);
/** The low bytes of four lanes, packed. */
const pack = [0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12];
/** The upper halves of four lanes, packed. */
const packUpper = [2, 3, 6, 7, 10, 11, 14, 15, 2, 3, 6, 7, 10, 11, 14, 15];
/** Four packed halves to the upper halves of lanes, above zeros. */
const spreadUpper = [0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23];

const isByte = (dtype: DType): boolean => dtypes[dtype].bytes === 1;

/** Wraps what arithmetic left in 32-bit lanes to an 8-bit type. */
export function wrap(dtype: DType, x: Expr): Expr {
  if (dtype === "u8") return apply("v128.and", x, i32x4(255));
  if (dtype === "i8") return apply("i32x4.shr_s", apply("i32x4.shl", x, i32(24)), i32(24));
  return x;
}

/** Lanes whose low byte was loaded, the others zero. */
const extend = (dtype: DType, x: Expr): Expr =>
  dtype === "bool" ? apply("i32x4.ne", x, i32x4(0)) : dtype === "i8" ? wrap("i8", x) : x;

function splat(dtype: DType, a: Address): Expr {
  if (isHalf(dtype)) return load("v128.load16_splat", a.offset, [a.pointer]);
  if (!isByte(dtype)) return load("v128.load32_splat", a.offset, [a.pointer]);
  const byte = load(dtype === "i8" ? "i32.load8_s" : "i32.load8_u", a.offset, [a.pointer]);
  const all = apply("i32x4.splat", byte);
  return dtype === "bool" ? extend(dtype, all) : all;
}

function neighbours(dtype: DType, a: Address): Expr {
  if (isHalf(dtype))
    return shuffle(spreadUpper, i32x4(0), load("v128.load64_zero", a.offset, [a.pointer]));
  if (!isByte(dtype)) return load("v128.load", a.offset, [a.pointer]);
  const s = dtype === "i8" ? "s" : "u";
  const bytes = load("v128.load32_zero", a.offset, [a.pointer]);
  const halves = apply(`i16x8.extend_low_i8x16_${s}`, bytes);
  const all = apply(`i32x4.extend_low_i16x8_${s}`, halves);
  return dtype === "bool" ? extend(dtype, all) : all;
}

/** A vector with lane l loaded; extend() comes after the last lane. */
function intoLane(dtype: DType, a: Address, vector: Expr, l: number): Expr {
  const args = [a.pointer, vector];
  if (isByte(dtype)) return load("v128.load8_lane", a.offset, args, 4 * l);
  if (isHalf(dtype)) return load("v128.load16_lane", a.offset, args, 2 * l + 1);
  return load("v128.load32_lane", a.offset, args, l);
}

/** The tests of a condition for copy u; null: it always holds; false: it never does. */
export function maskOf(ctx: Context, cond: Cond | undefined, u: number): Mask | null | false {
  if (!cond || cond.length === 0) return null;
  const { idx } = ctx;
  const uniform: (() => Expr)[] = [];
  const all: (() => Expr)[] = [];
  const perLane: ((l: number) => (() => Expr) | null)[] = [];
  const atLeast = (x: Index, bound: number): (() => Expr) => {
    const value = idx.value(x);
    return () => idx.op("ge_s", value, idx.const(bound));
  };
  for (const entry of cond) {
    const place = ctx.place(entry, u);
    if (place.k === "uniform") {
      if (place.index.max < 0) return false;
      if (place.index.min < 0) uniform.push(atLeast(place.index, 0));
    } else if (place.k === "affine" && place.coef === 0) {
      if (place.base.max < 0) return false;
      if (place.base.min < 0) uniform.push(atLeast(place.base, 0));
    } else if (place.k === "affine") {
      const { base, coef } = place;
      if (base.min + Math.min(0, 3 * coef) >= 0) continue;
      all.push(atLeast(base, coef > 0 ? 0 : -3 * coef));
      perLane.push((l) => atLeast(base, -coef * l));
    } else {
      const tests = place.lanes.map((x) => (x.min >= 0 ? null : atLeast(x, 0)));
      for (const t of tests) if (t) all.push(t);
      perLane.push((l) => tests[l]);
    }
  }
  if (uniform.length === 0 && all.length === 0) return null;
  // Built now: index values must be in locals before any branch.
  const lanes = [0, 1, 2, 3].map((l) => perLane.map((p) => p(l)).filter((t) => t !== null));
  return { uniform, all, lane: (l) => lanes[l] };
}

function pushAll(fn: Fn, tests: readonly (() => Expr)[]): void {
  tests.forEach((t, i) => {
    fn.push(t());
    if (i > 0) fn.code.op("i32.and");
  });
}

/** Runs `then` if all tests hold. */
export function guarded(fn: Fn, tests: readonly (() => Expr)[], then: () => void): void {
  if (tests.length > 0) {
    pushAll(fn, tests);
    fn.code.open("if");
  }
  then();
  if (tests.length > 0) fn.code.end();
}

/** `value` if the tests hold, else zero; the value's tree has only locals and constants as leaves. */
function orZero(tests: readonly (() => Expr)[], value: (fn: Fn) => void): Expr {
  return opaque("v128", [], (fn) => {
    pushAll(fn, tests);
    fn.code.open("if", "v128");
    value(fn);
    fn.code.op("else");
    fn.push(i32x4(0));
    fn.code.end();
  });
}

/** Tests that lane l of copy u runs, or null when it surely does not. */
function laneTests(ctx: Context, mask: Mask | null, u: number, l: number): (() => Expr)[] | null {
  const active = ctx.active(u, l);
  if (active === false) return null;
  const tests = mask ? [...mask.lane(l)] : [];
  if (active !== true) tests.push(() => ctx.active(u, l) as Expr);
  return tests;
}

/** Where each lane's element is. */
function addresses(ctx: Context, a: Access, place: Place): (l: number) => Address {
  const bytes = dtypes[a.dtype].bytes;
  if (place.k === "free") {
    const made = place.lanes.map((x) => ctx.idx.address(a.base, bytes, x, a.extra));
    return (l) => made[l];
  }
  const first = place.k === "uniform" ? place.index : place.base;
  const coef = place.k === "uniform" ? 0 : place.coef;
  // Where a mask excuses negative indices the first lane's pointer may have wrapped around: no offset may follow it.
  if (coef >= 0 && first.min >= 0 && 3 * coef * bytes < maxOffset) {
    const { pointer, offset } = ctx.idx.address(a.base, bytes, first, a.extra);
    return (l) => ({ pointer, offset: offset + l * coef * bytes });
  }
  const made = [0, 1, 2, 3].map((l) => beside(ctx, a, first, l * coef));
  return (l) => made[l];
}

/** The address of element x + distance by a pointer of its own. */
function beside(ctx: Context, a: Access, x: Index, distance: number): Address {
  return ctx.idx.address(a.base, dtypes[a.dtype].bytes, iadd(x, num(distance)), a.extra);
}

export const loadAt = (ctx: Context, a: Access, u: number): Expr =>
  fromBits(a.dtype, loadRaw(ctx, a, u));

function loadRaw(ctx: Context, a: Access, u: number): Expr {
  const bytes = dtypes[a.dtype].bytes;
  const mask = maskOf(ctx, a.mask, u);
  if (mask === false) return i32x4(0);
  const place = ctx.place(a.index, u);
  const varies = mask !== null && mask.all.length > 0;
  const coef = place.k === "uniform" ? 0 : place.k === "affine" ? place.coef : null;
  const whole = (): Expr | null => {
    if (place.k === "free" || !(coef === 0 || coef === 1 || coef === -1)) return null;
    const first = place.k === "uniform" ? place.index : place.base;
    if (coef === -1) {
      if (ctx.tail(u)) return null;
      const last = neighbours(a.dtype, beside(ctx, a, first, -3));
      return shuffle(flip, last, last);
    }
    const address = ctx.idx.address(a.base, bytes, first, a.extra);
    return coef === 0 ? splat(a.dtype, address) : neighbours(a.dtype, address);
  };
  const vector = whole();
  if (vector && !varies) return mask ? orZero(mask.uniform, (fn) => fn.push(vector)) : vector;

  const at = addresses(ctx, a, place);
  const tests = [0, 1, 2, 3].map((l) => laneTests(ctx, mask, u, l));
  if (tests.every((t) => t?.length === 0)) {
    // Unconditional, lane by lane: no branches.
    let v: Expr = i32x4(0);
    for (let l = 0; l < 4; l++) v = intoLane(a.dtype, at(l), v, l);
    const gathered = extend(a.dtype, v);
    return mask ? orZero(mask.uniform, (fn) => fn.push(gathered)) : gathered;
  }
  const byLane = (fn: Fn): void => {
    const sum = local("v128", fn.take("v128"));
    fn.push(i32x4(0));
    fn.code.set(sum.imm);
    tests.forEach((t, l) => {
      if (!t) return;
      guarded(fn, t, () => {
        fn.push(intoLane(a.dtype, at(l), sum, l));
        fn.code.set(sum.imm);
      });
    });
    fn.push(extend(a.dtype, sum));
    fn.give("v128", sum.imm);
  };
  const value = (fn: Fn): void => {
    if (!vector || !mask || ctx.tail(u)) {
      byLane(fn);
      return;
    }
    pushAll(fn, mask.all);
    fn.code.open("if", "v128");
    fn.push(vector);
    fn.code.op("else");
    byLane(fn);
    fn.code.end();
  };
  if (mask && mask.uniform.length > 0) return orZero(mask.uniform, value);
  return opaque("v128", [], value);
}

function storeLane(fn: Fn, dtype: DType, a: Address, value: Expr, l: number): void {
  fn.push(a.pointer);
  fn.push(value);
  if (isByte(dtype)) fn.code.memory("v128.store8_lane", a.offset, 4 * l);
  else if (isHalf(dtype)) fn.code.memory("v128.store16_lane", a.offset, 2 * l + 1);
  else fn.code.memory("v128.store32_lane", a.offset, l);
}

function storeVector(fn: Fn, dtype: DType, a: Address, value: Expr): void {
  fn.push(a.pointer);
  fn.push(value);
  if (dtypes[dtype].bytes === 4) {
    fn.code.memory("v128.store", a.offset);
    return;
  }
  fn.push(value);
  fn.code.shuffle(isByte(dtype) ? pack : packUpper);
  fn.code.memory(isByte(dtype) ? "v128.store32_lane" : "v128.store64_lane", a.offset, 0);
}

/** A value as it is stored. */
export const storable = (dtype: DType, value: Expr): Expr =>
  dtype === "bool" ? apply("v128.and", value, i32x4(1)) : toBits(dtype, value);

/** Emits the store of one copy's (storable) value, which belongs to the current batch. */
export function storeAt(ctx: Context, a: Access, value: Expr, u: number): void {
  const { fn } = ctx;
  const bytes = dtypes[a.dtype].bytes;
  const mask = maskOf(ctx, a.mask, u);
  if (mask === false) return;
  const place = ctx.place(a.index, u);
  if (!ctx.lanes) {
    const to = ctx.idx.address(a.base, bytes, (place as { index: Index }).index, a.extra);
    const v = mask ? fn.settle(value) : value;
    guarded(fn, mask?.uniform ?? [], () => storeLane(fn, a.dtype, to, v, 0));
    return;
  }
  const contiguous = place.k === "affine" && place.coef === 1;
  const varies = mask !== null && mask.all.length > 0;
  const tail = ctx.tail(u);
  if (contiguous && !varies && !tail) {
    const to = ctx.idx.address(a.base, bytes, place.base, a.extra);
    const v = mask || dtypes[a.dtype].bytes < 4 ? fn.settle(value) : value;
    guarded(fn, mask?.uniform ?? [], () => storeVector(fn, a.dtype, to, v));
    return;
  }
  const v = fn.settle(value);
  const at = addresses(ctx, a, place);
  const byLane = (): void => {
    for (let l = 0; l < 4; l++) {
      const tests = laneTests(ctx, mask, u, l);
      if (tests) guarded(fn, tests, () => storeLane(fn, a.dtype, at(l), v, l));
    }
  };
  guarded(fn, mask?.uniform ?? [], () => {
    if (!contiguous || !varies || tail) {
      byLane();
      return;
    }
    pushAll(fn, mask.all);
    fn.code.open("if");
    storeVector(fn, a.dtype, at(0), v);
    fn.code.op("else");
    byLane();
    fn.code.end();
  });
}

/** buffer[index] += value, in the order of the lanes where they may meet. */
export function storeAddAt(ctx: Context, a: Access, value: Expr, u: number): void {
  const { fn } = ctx;
  const op: Opcode = a.dtype === "f32" ? "f32x4.add" : "i32x4.add";
  const place = ctx.place(a.index, u);
  const v = fn.settle(value);
  const at = addresses(ctx, a, place);
  if (ctx.lanes && place.k === "affine" && place.coef === 1 && !ctx.tail(u)) {
    const sum = wrap(a.dtype, apply(op, neighbours(a.dtype, at(0)), v));
    storeVector(fn, a.dtype, at(0), fn.settle(sum));
    return;
  }
  for (let l = 0; l < (ctx.lanes ? 4 : 1); l++) {
    const tests = laneTests(ctx, null, u, l);
    if (!tests) continue;
    guarded(fn, tests, () =>
      storeLane(fn, a.dtype, at(l), wrap(a.dtype, apply(op, splat(a.dtype, at(l)), v)), l),
    );
  }
}

/** The condition as a lane mask, both outcomes being evaluated anyway. */
export function condMask(ctx: Context, cond: Cond, u: number): Expr {
  let mask: Expr | null = null;
  const join = (m: Expr): void => {
    mask = mask ? apply("v128.and", mask, m) : m;
  };
  for (const entry of cond) {
    const place = ctx.place(entry, u);
    if (place.k === "uniform") {
      if (place.index.min >= 0) continue;
      if (place.index.max < 0) return i32x4(0);
      // All ones or zeros from the sign.
      const value = ctx.idx.narrow(ctx.idx.value(place.index));
      join(apply("i32x4.splat", apply("i32.sub", apply("i32.lt_s", value, i32(0)), i32(1))));
    } else join(apply("i32x4.ge_s", indexVector(ctx, entry, u), i32x4(0)));
  }
  return mask ?? i32x4(-1);
}

/** An index expression in each lane, as i32. */
export function indexVector(ctx: Context, x: Index, u: number): Expr {
  const place = ctx.place(x, u);
  const { idx } = ctx;
  const value = (y: Index): Expr => idx.narrow(idx.value(y));
  if (place.k === "uniform") {
    const { index } = place;
    return index.terms.length === 0 ? i32x4(index.constant) : apply("i32x4.splat", value(index));
  }
  if (place.k === "affine") {
    const { base, coef: c } = place;
    // The constant goes into the lane offsets, so that unrolled copies share the splat.
    const bare = iadd(base, num(-base.constant));
    const offsets = i32x4(
      base.constant,
      base.constant + c,
      base.constant + 2 * c,
      base.constant + 3 * c,
    );
    if (base.terms.length === 0) return offsets;
    return apply("i32x4.add", apply("i32x4.splat", value(bare)), offsets);
  }
  let v = apply("i32x4.splat", value(place.lanes[0]));
  for (let l = 1; l < 4; l++) v = lane("i32x4.replace_lane", l, v, value(place.lanes[l]));
  return v;
}
