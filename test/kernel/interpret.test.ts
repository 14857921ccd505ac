/** @file The interpreter: exact meanings of the operations, and planted faults that it must find. */
import { describe, expect, test } from "vitest";
import { type DType, dtypes, type TypedArray } from "../../core/dtype.ts";
import { interpret } from "../../core/kernel/interpret.ts";
import {
  type BufferInfo,
  constValue,
  type Kernel,
  op,
  type Stmt,
  type Value,
  type ValueOp,
  variable,
} from "../../core/kernel/ir.ts";
import { type Index, iadd, imod, imul, ivar, lt, num } from "../../core/schedule/symbolic.ts";

function kernel(buffers: BufferInfo[], body: Stmt[], extent = 4): Kernel {
  return {
    name: "k",
    kind: "map",
    buffers,
    scalars: 1,
    range: { var: "p", extent },
    body,
    flops: 0,
  };
}
const info = (dtype: DType, size: number, access: BufferInfo["access"]): BufferInfo => ({
  dtype,
  size,
  access,
});
const none = new Uint32Array(1);

/** The op on constants. */
function evaluate(value: Value, scalars = none): number {
  const { dtype } = value;
  const out = new dtypes[dtype].array(1) as TypedArray;
  const body: Stmt[] = [{ k: "store", buffer: 0, index: num(0), value }];
  interpret(kernel([info(dtype, 1, "write")], body, 1), [out], scalars);
  return out[0];
}
const f = (x: number) => constValue("f32", x);
const i = (x: number) => constValue("i32", x);
const cast = (to: DType, v: Value) => op("cast", to, v);

describe("arithmetic", () => {
  const { fround } = Math;
  test.each<[string, Value, number]>([
    ["rounds to f32", op("add", "f32", f(1), f(2 ** -25)), 1],
    ["multiplies", op("mul", "f32", f(0.1), f(3)), fround(fround(0.1) * 3)],
    ["round half to even", op("round", "f32", f(2.5)), 2],
    ["round half to even, odd", op("round", "f32", f(3.5)), 4],
    ["round keeps -0", op("round", "f32", f(-0.5)), -0],
    ["round of -1.5", op("round", "f32", f(-1.5)), -2],
    ["max propagates NaN", op("max", "f32", f(1), f(Number.NaN)), Number.NaN],
    ["pow(1, NaN)", op("pow", "f32", f(1), f(Number.NaN)), 1],
    ["erf", op("erf", "f32", f(0.5)), fround(0.5204998778130465)],
    ["rem has the dividend's sign", op("rem", "f32", f(-5.5), f(2)), -1.5],
    ["i32 wraps", op("add", "i32", i(2147483647), i(1)), -2147483648],
    [
      "i32 products wrap",
      op("mul", "i32", i(123456789), i(987654321)),
      Math.imul(123456789, 987654321),
    ],
    ["idiv truncates", op("idiv", "i32", i(-7), i(2)), -3],
    ["i8 wraps", op("mul", "i8", constValue("i8", 100), constValue("i8", 3)), 44],
    ["u8 shr is logical", op("shr", "u8", constValue("u8", 200), constValue("u8", 1)), 100],
    ["i32 shr is arithmetic", op("shr", "i32", i(-8), i(1)), -4],
    ["shift counts modulo 32", op("shl", "i32", i(3), i(33)), 6],
    ["u32 not", op("not", "u32", constValue("u32", 0)), 4294967295],
    ["bool not", op("not", "bool", constValue("bool", 1)), 0],
    ["NaN < 1 is false", op("lt", "bool", f(Number.NaN), f(1)), 0],
    ["NaN is true", cast("bool", f(Number.NaN)), 1],
    ["float → i32 saturates", cast("i32", f(1e20)), 2147483647],
    ["NaN → i32", cast("i32", f(Number.NaN)), 0],
    ["negative → u32 saturates", cast("u32", f(-3)), 0],
    ["float → u8 wraps after 32 bits", cast("u8", f(300)), 44],
    ["bitcast", op("bitcast", "i32", f(1)), 0x3f800000],
    ["bitcast back", op("bitcast", "f32", i(0x40490fdb)), fround(Math.PI)],
    [
      "threefry, a known answer",
      { k: "threefry", dtype: "u32", args: [0, 0, 0, 0].map((x) => constValue("u32", x)) },
      0x6b200159,
    ],
    ["where", op("where", "f32", constValue("bool", 0), f(1), f(2)), 2],
  ])("%s", (_, value, want) => expect(evaluate(value)).toBe(want));

  test("scalars are reinterpreted", () => {
    const words = new Uint32Array(new Float32Array([0.25]).buffer);
    expect(evaluate({ k: "scalar", dtype: "f32", slot: 0 }, words)).toBe(0.25);
  });
});

describe("accumulators", () => {
  const reduce = (
    combine: "sum" | "prod" | "max" | "min" | "argmax",
    xs: number[],
    dtype: DType = "f32",
  ) => {
    const j = ivar("j", xs.length);
    const result = combine === "argmax" ? "i32" : dtype;
    const out = new dtypes[result].array(1) as TypedArray;
    const value: Value = { k: "load", dtype, buffer: 0, index: j };
    const update: Stmt = {
      k: "update",
      name: "s",
      value,
      ...(combine === "argmax" ? { at: j } : {}),
    };
    const body: Stmt[] = [
      { k: "acc", name: "s", dtype, combine },
      { k: "loop", mode: "vector", var: "j", extent: num(xs.length), body: [update] },
      { k: "store", buffer: 1, index: num(0), value: variable(result, "s") },
    ];
    const buffers = [info(dtype, xs.length, "read"), info(result, 1, "write")];
    interpret(kernel(buffers, body, 1), [new dtypes[dtype].array(xs) as TypedArray, out], none);
    return out[0];
  };
  test("sums, products, extrema, positions", () => {
    expect(reduce("sum", [1, 2, 3.5])).toBe(6.5);
    expect(reduce("sum", [100, 100], "i8")).toBe(-56);
    expect(reduce("prod", [2, 3, 4], "i32")).toBe(24);
    expect(reduce("max", [-3, -2], "i32")).toBe(-2);
    expect(reduce("min", [3, Number.NaN, 1])).toBe(Number.NaN);
    expect(reduce("argmax", [1, 5, 5, 2])).toBe(1);
    expect(reduce("argmax", [1, Number.NaN, 9, Number.NaN])).toBe(1);
    expect(reduce("argmax", [-Infinity, -Infinity])).toBe(0);
  });
});

describe("faults", () => {
  const p = ivar("p", 4);
  const j = ivar("j", 4);
  const buffers = [info("f32", 16, "read"), info("f32", 16, "write")];
  const load = (buffer: number, index: Index): Value => ({
    k: "load",
    dtype: "f32",
    buffer,
    index,
  });
  const store = (index: Index, value: Value = f(1)): Stmt => ({
    k: "store",
    buffer: 1,
    index,
    value,
  });
  const lanes = (...body: Stmt[]): Stmt => ({
    k: "loop",
    mode: "vector",
    var: "j",
    extent: num(4),
    body,
  });
  const at = iadd(imul(p, 4), j);
  const run = (body: Stmt[], options = {}) =>
    interpret(kernel(buffers, body), [new Float32Array(16), new Float32Array(16)], none, options);

  test("a correct kernel passes, whole and in parts", () => {
    const body = [lanes(store(at, load(0, at)))];
    expect(run(body)).toEqual({});
    expect(run(body, { begin: 1, end: 3 })).toEqual({});
  });
  test("out of bounds, with the iteration", () => {
    expect(() => run([lanes(store(iadd(at, num(1))))])).toThrow(
      /buf1\[16\] is outside its 16 elements\n {2}in: buf1\[j \+ 4\*p \+ 1\] = 1.0\n {2}at: p = 3, j = 3/,
    );
    expect(() => run([store(p, load(0, imul(p, -1)))])).toThrow(/buf0\[-1\]/);
  });
  test("a masked load reads nothing outside and gives 0", () => {
    const v: Value = { k: "load", dtype: "f32", buffer: 0, index: imul(p, 9), mask: [lt(p, 2)] };
    expect(run([store(p, v)])).toEqual({});
  });
  test("two iterations write one element", () => {
    expect(() => run([store(imod(p, 2))])).toThrow(
      /race: iteration 2 writes buf1\[0\], which iteration 0 writes/,
    );
  });
  test("an iteration reads what another writes, in either order", () => {
    const next = imod(iadd(p, num(1)), 4);
    expect(() => run([store(p), store(iadd(p, num(8)), load(1, next))])).toThrow(
      /before it is written/,
    );
    const inPlace = [info("f32", 16, "read"), info("f32", 16, "readwrite")];
    const body = [store(p, load(1, next))];
    const data = [new Float32Array(16), new Float32Array(16)];
    expect(() => interpret(kernel(inPlace, body), data, none)).toThrow(
      /race: iteration 1 writes buf1\[1\]/,
    );
    expect(() => interpret(kernel(inPlace, body), data, none, { detect: false })).not.toThrow();
  });
  test("the same storage bound twice is one memory", () => {
    const x = new Float32Array(16);
    const shifted = [store(p, load(0, iadd(p, num(1))))];
    expect(() => interpret(kernel(buffers, shifted), [x, x], none)).toThrow(/race/);
    expect(interpret(kernel(buffers, [store(p, load(0, p))]), [x, x], none)).toEqual({});
  });
  test("two lanes write one element", () => {
    expect(() => run([lanes(store(iadd(imul(p, 4), imod(j, 2))))])).toThrow(
      /race: lane 2 writes buf1\[0\], which lane 0 writes/,
    );
  });
  test("a lane reads what another lane wrote to a local; a later loop may", () => {
    const local: Stmt = { k: "local", name: "t", dtype: "f32", size: 4 };
    const write: Stmt = { k: "localStore", local: "t", index: j, value: f(2) };
    const read: Value = { k: "localLoad", dtype: "f32", local: "t", index: num(0) };
    expect(() => run([local, lanes(write, store(at, read))])).toThrow(/race: lane 1 reads t\[0\]/);
    expect(run([local, lanes(write), lanes(store(at, read))])).toEqual({});
  });
  test("uninitialised locals", () => {
    const local: Stmt = { k: "local", name: "t", dtype: "f32", size: 4 };
    const fill: Stmt = {
      k: "if",
      cond: [lt(p, 1)],
      body: [{ k: "localStore", local: "t", index: num(0), value: f(0) }],
    };
    const read: Value = { k: "localLoad", dtype: "f32", local: "t", index: num(0) };
    expect(() => run([local, fill, store(p, read)])).toThrow(
      /t\[0\] is read before it is written[\s\S]*p = 1/,
    );
  });
  test("storeAdd needs a start value", () => {
    const add: Stmt = { k: "storeAdd", buffer: 1, index: p, value: f(1) };
    expect(() => run([add])).toThrow(/before it is written/);
    expect(run([store(p), add])).toEqual({});
  });
  test("positions: the first failure is reported, the kernel goes on with 0", () => {
    const value: Value = { k: "index", dtype: "i32", index: iadd(imul(p, 3), num(-3)) };
    const body: Stmt[] = [
      { k: "position", name: "a", value: { k: "index", dtype: "i32", index: p }, size: 4 },
      { k: "position", name: "v", value, size: 4 },
      store(p),
    ];
    expect(run(body)).toEqual({ error: { position: 1, value: -3 } });
  });
});

test("every operation is interpreted", () => {
  const unary: ValueOp[] = [
    "neg",
    "abs",
    "exp",
    "log",
    "sin",
    "cos",
    "sqrt",
    "tanh",
    "erf",
    "floor",
    "round",
  ];
  for (const name of unary) expect(evaluate(op(name, "f32", f(0.25)))).not.toBeNaN();
  const binary: ValueOp[] = ["add", "sub", "mul", "div", "rem", "pow", "max", "min"];
  for (const name of binary) expect(evaluate(op(name, "f32", f(3), f(2)))).not.toBeNaN();
  const ints: ValueOp[] = ["idiv", "and", "or", "xor", "shl", "shr"];
  const want = [1, 2, 3, 1, 12, 0];
  expect(ints.map((name) => evaluate(op(name, "i32", i(3), i(2))))).toEqual(want);
});
