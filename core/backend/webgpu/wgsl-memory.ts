/**
 * @file Loads and stores. Four neighbouring lanes go as one vec4 or one word where the array's type allows it (wgsl-arrays.ts),
 * everything else component by component; nothing is read or written where a mask fails.
 *
 * Bytes lie four and halves two to a u32; a store that is not a whole word takes two atomics, whose bits are disjoint from
 * everybody else's, so that the result does not depend on who comes first.
 */
import type { DType } from "../../dtype.ts";
import {
  type Cond,
  freeVars,
  type Index,
  iadd,
  idiv,
  imod,
  imul,
  isub,
  num,
} from "../../schedule/symbolic.ts";
import { type ArrayInfo, isAligned, unpadded } from "./wgsl-arrays.ts";
import type { Context } from "./wgsl-context.ts";
import {
  atom,
  bitwise,
  both,
  call,
  choose,
  component,
  type Expr,
  expr,
  infix,
  literal,
  operand,
  type Register,
  register,
  splat,
  typeName,
} from "./wgsl-expr.ts";
import { condition, indexAt, inLane, isLaneIndex, laneMask, splitCond } from "./wgsl-index.ts";

export interface Access {
  readonly array: ArrayInfo;
  readonly index: Index;
  readonly mask?: Cond;
}

// --- loads --------------------------------------------------------------------------------------------------

const word = (value: number): Expr => literal("u32", value);

/** Whether all lanes of an access are one element of a wide array, or one word. */
function isWide(ctx: Context, a: Access): boolean {
  const { array } = a;
  const possible = array.wide || array.layout === "bytes" || array.layout === "halves";
  if (!possible || !ctx.lanes) return false;
  const varying = new Set<string>();
  for (const name of freeVars(a.index)) {
    const b = ctx.bindings.get(name);
    if (b?.k === "value" && b.expr.width > 1) varying.add(name);
  }
  return isAligned(a.index, { ...ctx.lanes, varying });
}

/** The element at a position that is not negative, in WGSL. */
function at(ctx: Context, { name }: ArrayInfo, position: Index, lane: number): Expr {
  return atom(`${name}[${indexAt(ctx, position, lane).text}]`);
}

/** The u32 that holds element x, and how far up it starts. */
function wordOf(
  ctx: Context,
  array: ArrayInfo,
  x: Index,
  lane: number,
): { place: string; shift: Expr | null } {
  const per = array.layout === "bytes" ? 4 : 2;
  const y = inLane(ctx, x, lane);
  const position = indexAt(ctx, idiv(y, array.wide ? 4 : per), lane).text;
  const digit = imul(imod(y, per), 32 / per);
  const fixed = digit.terms.length === 0;
  const bits = fixed ? word(digit.constant) : call("u32", 1, indexAt(ctx, digit, lane));
  const half = array.wide ? `[${indexAt(ctx, idiv(imod(y, 4), 2), lane).text}]` : "";
  const place = `${array.name}[${position}]${half}`;
  return { place, shift: fixed && digit.constant === 0 ? null : bits };
}

const shiftRight = (e: Expr, by: Expr | null): Expr => (by ? bitwise(">>", e, by) : e);

/** One element, in one lane. */
function loadOne(ctx: Context, array: ArrayInfo, x: Index, lane: number): Expr {
  const { dtype, layout, wide } = array;
  if (layout === "plain" || layout === "native") {
    const y = inLane(ctx, x, lane);
    let e = at(ctx, array, wide ? idiv(y, 4) : y, lane);
    if (wide) {
      const c = imod(y, 4);
      e =
        c.terms.length === 0
          ? atom(`${e.text}.${"xyzw"[c.constant]}`)
          : atom(`${e.text}[${indexAt(ctx, c, lane).text}]`);
    }
    return layout === "native" ? { ...call("f32", 1, e), half: e.text } : e;
  }
  const { place, shift } = wordOf(ctx, array, x, lane);
  const bits = array.atomic ? atom(`atomicLoad(&${place})`) : atom(place);
  const low = shiftRight(bits, shift);
  switch (dtype) {
    case "bool":
      return expr(`(${operand(low, 3)} & 1u) != 0u`, 0);
    case "u8":
      return bitwise("&", low, word(255));
    case "i8":
      return call(ctx.helper("signByte"), 1, low);
    case "bf16":
      return call("bitcast<f32>", 1, bitwise("<<", low, word(16)));
    default:
      return call(ctx.helper("loadHalf"), 1, bitwise("&", low, word(0xffff)));
  }
}

/** Four elements at once. */
function loadWide(ctx: Context, array: ArrayInfo, x: Index): Expr {
  const { dtype, layout, name } = array;
  const y = inLane(ctx, x, 0);
  const quad = (k: number, per: number): string => {
    const e = `${name}[${indexAt(ctx, iadd(idiv(y, per), num(k))).text}]`;
    return array.atomic ? `atomicLoad(&${e})` : e;
  };
  if (layout === "plain") return atom(quad(0, 4), 4);
  if (layout === "native") {
    const e = atom(quad(0, 4), 4);
    return { ...call("vec4f", 4, e), half: e.text };
  }
  if (layout === "halves") {
    const pair = array.wide
      ? ctx.settle(atom(quad(0, 4), 2))
      : call("vec2u", 2, atom(quad(0, 2)), atom(quad(1, 2)));
    return call(ctx.helper(dtype === "bf16" ? "loadBrains" : "loadHalves"), 4, pair);
  }
  const names = { bool: "loadBools", u8: "loadBytes", i8: "loadSigned" } as const;
  return call(ctx.helper(names[dtype as keyof typeof names]), 4, atom(quad(0, 4)));
}

const zero = (scalar: Register, width: number): Expr => splat(literal(scalar, 0), scalar, width);

export function load(ctx: Context, a: Access): Expr {
  const { array } = a;
  const scalar = register(array.dtype);
  const lanes = ctx.lanes?.width ?? 1;
  const { uniform, varying } = splitCond(ctx, a.mask ?? []);
  const outer = condition(ctx, uniform);
  const inner = laneMask(ctx, varying);
  const differs = isLaneIndex(ctx, a.index);
  const width = differs || inner ? lanes : 1;
  if (outer === false || inner === false) return zero(scalar, 1);
  const wide = differs && isWide(ctx, a);
  const whole = (): Expr => {
    if (!differs) return loadOne(ctx, array, a.index, 0);
    if (wide) return loadWide(ctx, array, a.index);
    const each = Array.from({ length: width }, (_, l) => loadOne(ctx, array, a.index, l));
    return call(typeName(scalar, width), width, ...each);
  };
  if (!outer && !inner) return whole();
  const name = ctx.takeName();
  const type = typeName(scalar, width);
  ctx.line(`var ${name} = ${type}();`);
  const result = atom(name, width);
  if (!inner) {
    ctx.block(`if (${outer!.text})`, () => ctx.line(`${name} = ${whole().text};`));
    return result;
  }
  const held = inner;
  if (wide || !differs) {
    // One lane inside its buffer: so are the other three, as buffers are padded.
    const some = call("any", 1, held);
    ctx.block(`if (${(outer ? both(outer, some) : some).text})`, () => {
      const value = splat(whole(), scalar, width);
      ctx.line(`${name} = ${choose(held, value, zero(scalar, width), scalar).text};`);
    });
    return result;
  }
  for (let l = 0; l < width; l++) {
    const own = component(held, l);
    ctx.block(`if (${(outer ? both(outer, own) : own).text})`, () =>
      ctx.line(`${component(result, l).text} = ${loadOne(ctx, array, a.index, l).text};`),
    );
  }
  return result;
}

// --- stores -------------------------------------------------------------------------------------------------

function storeOne(ctx: Context, array: ArrayInfo, x: Index, lane: number, value: Expr): void {
  const { dtype, layout, wide, name } = array;
  if (layout === "plain" || layout === "native") {
    const y = inLane(ctx, x, lane);
    let place = `${name}[${indexAt(ctx, wide ? idiv(y, 4) : y, lane).text}]`;
    if (wide) {
      const c = imod(y, 4);
      place += c.terms.length === 0 ? `.${"xyzw"[c.constant]}` : `[${indexAt(ctx, c, lane).text}]`;
    }
    const half = value.half ? atom(value.half) : call("f16", 1, value);
    const e = layout === "native" ? half : value;
    ctx.line(`${place} = ${e.text};`);
    return;
  }
  const { place, shift } = wordOf(ctx, array, x, lane);
  const field = layout === "bytes" ? 0xff : 0xffff;
  const bits = elementBits(ctx, dtype, value);
  const up = (e: Expr): Expr => (shift ? bitwise("<<", e, shift) : e);
  const hole =
    shift?.literal || !shift
      ? word(~(field << (shift ? Number.parseInt(shift.text, 10) : 0)) >>> 0)
      : expr(`~(${up(word(field)).text})`, 3);
  ctx.line(`atomicAnd(&${place}, ${hole.text});`);
  ctx.line(`atomicOr(&${place}, ${up(bits).text});`);
}

/** The low bits of a u32 that store a value. */
function elementBits(ctx: Context, dtype: DType, value: Expr): Expr {
  switch (dtype) {
    case "bool":
      return call("u32", 1, value);
    case "u8":
      return value;
    case "i8":
      return bitwise("&", call("bitcast<u32>", 1, value), word(255));
    case "bf16":
      return bitwise(">>", call("bitcast<u32>", 1, value), word(16));
    default:
      return call(ctx.helper("storeHalf"), 1, value);
  }
}

function storeWide(ctx: Context, array: ArrayInfo, x: Index, value: Expr): void {
  const { dtype, layout, name } = array;
  const y = inLane(ctx, x, 0);
  const quad = (k: number, per: number): string =>
    `${name}[${indexAt(ctx, iadd(idiv(y, per), num(k))).text}]`;
  if (layout === "plain") ctx.line(`${quad(0, 4)} = ${value.text};`);
  else if (layout === "native")
    ctx.line(`${quad(0, 4)} = ${value.half ?? call("vec4h", 4, value).text};`);
  else if (layout === "bytes") {
    const names = { bool: "storeBools", u8: "storeBytes", i8: "storeSigned" } as const;
    const packed = call(ctx.helper(names[dtype as keyof typeof names]), 1, value);
    ctx.line(
      array.atomic
        ? `atomicStore(&${quad(0, 4)}, ${packed.text});`
        : `${quad(0, 4)} = ${packed.text};`,
    );
  } else {
    const pair = call(ctx.helper(dtype === "bf16" ? "storeBrains" : "storeHalves"), 2, value);
    if (array.wide) {
      ctx.line(`${quad(0, 4)} = ${pair.text};`);
      return;
    }
    const both_ = ctx.settle(pair);
    for (const k of [0, 1])
      ctx.line(
        array.atomic
          ? `atomicStore(&${quad(k, 2)}, ${component(both_, k).text});`
          : `${quad(k, 2)} = ${component(both_, k).text};`,
      );
  }
}

/** array[index] = value where the mask holds. */
export function store(ctx: Context, a: Access, value: Expr): void {
  const { array, index } = a;
  const scalar = register(array.dtype);
  if (!ctx.lanes) {
    guarded(ctx, condition(ctx, a.mask ?? []), value, (v) => storeOne(ctx, array, index, 0, v));
    return;
  }
  const { width } = ctx.lanes;
  const all = splat(value, scalar, width);
  if (isWide(ctx, a)) {
    const rest = unpadded(index, a.mask, array.size);
    const { varying } = splitCond(ctx, rest);
    if (varying.length === 0) {
      // The last vec4 may reach into the padding, where anything may stand.
      const first =
        rest.length === (a.mask ?? []).length
          ? []
          : [isub(num(array.size - 1), inLane(ctx, index, 0))];
      guarded(ctx, condition(ctx, [...rest, ...first]), all, (v) =>
        storeWide(ctx, array, index, v),
      );
      return;
    }
  }
  const { uniform, varying } = splitCond(ctx, a.mask ?? []);
  const held = laneMask(ctx, varying);
  if (held === false) return;
  guarded(ctx, condition(ctx, uniform), all, (v) => {
    const settled = ctx.settle(v);
    for (let l = 0; l < width; l++) {
      const one = component(settled, l);
      guarded(ctx, held && component(held, l), one, (e) => storeOne(ctx, array, index, l, e));
    }
  });
}

function guarded(
  ctx: Context,
  cond: Expr | null | false,
  value: Expr,
  body: (value: Expr) => void,
): void {
  if (cond === false) return;
  if (cond) ctx.block(`if (${cond.text})`, () => body(value));
  else body(value);
}

/** array[index] += value, lane after lane. */
export function storeAdd(ctx: Context, a: Access, value: Expr, wrap: (e: Expr) => Expr): void {
  const scalar = register(a.array.dtype);
  const add = (old: Expr, v: Expr): Expr => wrap(infix("+", old, v));
  if (ctx.lanes && isWide(ctx, a) && !a.array.atomic) {
    const all = splat(value, scalar, ctx.lanes.width);
    storeWide(ctx, a.array, a.index, add(loadWide(ctx, a.array, a.index), all));
    return;
  }
  const settled = ctx.settle(value);
  for (let l = 0; l < (ctx.lanes?.width ?? 1); l++) {
    const sum = ctx.settle(add(loadOne(ctx, a.array, a.index, l), component(settled, l)));
    storeOne(ctx, a.array, a.index, l, sum);
  }
}
