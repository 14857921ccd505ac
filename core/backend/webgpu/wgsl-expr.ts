/**
 * @file WGSL expressions as text with a width (1: scalar, 2–4: one component per lane) and a binding strength, so that
 * parentheses stand only where the grammar or the order of rounding needs them. Types and literals are decided here.
 */
import { type DType, isFloat } from "../../dtype.ts";

/** What values live in: halves as f32 that are exactly halves, bytes extended to 32 bits. */
export type Register = "f32" | "i32" | "u32" | "bool";

/** How tightly the text binds: 4 a name, call or literal; 3 a sign; 2 a product; 1 a sum; 0 anything else. */
export type Level = 0 | 1 | 2 | 3 | 4;

export interface Expr {
  readonly text: string;
  readonly width: number;
  readonly level: Level;
  /** Built of literals alone: WGSL evaluates such expressions itself, and refuses overflow, infinities and NaN. */
  readonly literal?: boolean;
  /** The same value as f16, where that is what memory holds: copies need no conversions. */
  readonly half?: string;
}

export const register = (dtype: DType): Register => {
  if (isFloat(dtype)) return "f32";
  if (dtype === "bool") return "bool";
  return dtype === "u32" || dtype === "u8" ? "u32" : "i32";
};

const short: Record<string, string> = { f32: "f", i32: "i", u32: "u", f16: "h" };

/** f32, vec4f, vec3<bool> … */
export function typeName(scalar: Register | "f16", width: number): string {
  if (width === 1) return scalar;
  return scalar === "bool" ? `vec${width}<bool>` : `vec${width}${short[scalar]}`;
}

export const atom = (text: string, width = 1): Expr => ({ text, width, level: 4 });
export const expr = (text: string, level: Level, width = 1): Expr => ({ text, width, level });
export const call = (name: string, width: number, ...args: Expr[]): Expr =>
  atom(`${name}(${args.map((a) => a.text).join(", ")})`, width);

/** The text of an operand that must bind at least as tightly as `level`. */
export const operand = (e: Expr, level: Level): string =>
  e.level >= level ? e.text : `(${e.text})`;

/** a + b, a · b …: left-associative, as the order of float operations matters. */
export function infix(sign: "+" | "-" | "*" | "/" | "%", a: Expr, b: Expr): Expr {
  const level = sign === "+" || sign === "-" ? 1 : 2;
  const text = `${operand(a, level)} ${sign} ${operand(b, (level + 1) as Level)}`;
  return { text, level, width: Math.max(a.width, b.width) };
}

/** Comparisons and bit operations, whose precedences WGSL does not mix. */
export const compare = (sign: string, a: Expr, b: Expr): Expr =>
  expr(`${operand(a, 1)} ${sign} ${operand(b, 1)}`, 0, Math.max(a.width, b.width));
export const bitwise = (sign: string, a: Expr, b: Expr): Expr =>
  expr(`${operand(a, 3)} ${sign} ${operand(b, 3)}`, 0, Math.max(a.width, b.width));

/**
 * Both hold. Not &&, whose short cut is a branch: vectors have none, and ten of them around some loads took
 * SwiftShader's compiler minutes (November 2026).
 */
export function both(a: Expr, b: Expr): Expr {
  const width = Math.max(a.width, b.width);
  const [x, y] = [splat(a, "bool", width), splat(b, "bool", width)];
  return expr(`${operand(x, 4)} & ${operand(y, 4)}`, 0, width);
}

/** The value in every lane. */
export function splat(e: Expr, scalar: Register, width: number): Expr {
  if (e.width === width || width === 1) return e;
  return { text: `${typeName(scalar, width)}(${e.text})`, width, level: 4, literal: e.literal };
}

const components = "xyzw";
export const component = (e: Expr, lane: number): Expr =>
  e.width === 1 ? e : atom(`${operand(e, 4)}.${components[lane]}`);

const largest = (2 - 2 ** -23) * 2 ** 127;

/** The shortest decimal that reads as this f32 (one beyond the largest is refused, although it would round to it). */
function decimal(x: number): string {
  for (let digits = 6; digits < 9; digits++) {
    const short = Number(x.toPrecision(digits));
    if (Math.fround(short) === x && Math.abs(short) <= largest) return `${short}`;
  }
  return `${x}`;
}

export function floatText(value: number): string {
  const x = Math.fround(value);
  if (Object.is(x, -0)) return "-0.0";
  const text = decimal(x);
  return /[.e]/.test(text) ? text : `${text}.0`;
}

/** A finite literal; infinities and NaN are values only at run time (see the helpers). */
export function literal(scalar: Register, value: number): Expr {
  let text: string;
  if (scalar === "f32") text = floatText(value);
  else if (scalar === "bool") text = value ? "true" : "false";
  else if (scalar === "u32") text = `${value >>> 0}u`;
  else text = `${value | 0}`;
  return { text, width: 1, level: text.startsWith("-") ? 3 : 4, literal: true };
}

export const number = (value: number): Expr => literal("i32", value);

/** select(no, yes, condition): the order of WGSL is the reverse of everybody's. */
export function choose(cond: Expr, yes: Expr, no: Expr, scalar: Register): Expr {
  const width = Math.max(cond.width, yes.width, no.width);
  const c = splat(cond, "bool", width);
  return call("select", width, splat(no, scalar, width), splat(yes, scalar, width), c);
}
