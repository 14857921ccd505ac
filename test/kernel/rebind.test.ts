/** Kernels with other buffers compute the same. */
import { describe, expect, test } from "vitest";
import { type DType, dtypes, type TypedArray } from "../../core/dtype.ts";
import { checkKernel } from "../../core/kernel/check.ts";
import { interpret } from "../../core/kernel/interpret.ts";
import {
  type BufferInfo,
  type Kernel,
  op,
  type Stmt,
  type Value,
  variable,
} from "../../core/kernel/ir.ts";
import { mergeBuffers, packBuffers } from "../../core/kernel/rebind.ts";
import { type Index, ivar } from "../../core/schedule/symbolic.ts";

const size = 6;
const p: Index = ivar("p", size);
const load = (buffer: number, dtype: DType): Value => ({ k: "load", dtype, buffer, index: p });
const store = (buffer: number, value: Value): Stmt => ({ k: "store", buffer, index: p, value });

const kernel = (dtypesOf: readonly DType[], written: readonly number[], body: Stmt[]): Kernel => ({
  name: "k",
  kind: "map",
  buffers: dtypesOf.map(
    (dtype, i): BufferInfo => ({ dtype, size, access: written.includes(i) ? "write" : "read" }),
  ),
  scalars: 0,
  range: { var: "p", extent: size },
  body,
  flops: 0,
});

const run = (k: Kernel, buffers: TypedArray[]): TypedArray[] => {
  checkKernel(k, "wasm");
  const { error } = interpret(k, buffers, new Uint32Array(0));
  expect(error).toBeUndefined();
  return buffers;
};

const array = (dtype: DType, f: (i: number) => number, length = size): TypedArray =>
  new dtypes[dtype].array(Array.from({ length }, (_, i) => f(i)));

test("two buffers of one storage become one", () => {
  // new = old + step, with the old value shared by two uses.
  const old = load(0, "f32");
  const body = [
    { k: "let", name: "t", value: op("mul", "f32", old, load(1, "f32")) } as Stmt,
    store(2, op("add", "f32", old, variable("f32", "t"))),
  ];
  const merged = mergeBuffers(kernel(["f32", "f32", "f32"], [2], body), 0, 2);
  expect(merged.kept).toEqual([1, 2]);
  expect(merged.kernel.buffers.map((b) => b.access)).toEqual(["read", "readwrite"]);
  const [, state] = run(merged.kernel, [array("f32", () => 2), array("f32", (i) => i)]);
  expect([...state]).toEqual([0, 3, 6, 9, 12, 15]);
});

describe("packing", () => {
  /** Copies in what is packed, runs, copies out. */
  function runPacked(k: Kernel, limit: number, buffers: TypedArray[]): TypedArray[] {
    const packed = packBuffers(k, limit)!;
    expect(packed.buffers.length).toBeLessThanOrEqual(limit);
    expect(packed.kernel.buffers.length).toBe(packed.buffers.length);
    const bound = packed.buffers.map((b) => {
      if (typeof b === "number") return buffers[b];
      const whole = array(b.dtype, () => 7, b.size);
      for (const { buffer, offset } of b.parts) {
        expect((offset * dtypes[b.dtype].bytes) % 16).toBe(0);
        whole.set(buffers[buffer], offset);
      }
      return whole;
    });
    run(packed.kernel, bound);
    packed.buffers.forEach((b, i) => {
      if (typeof b === "number") return;
      for (const { buffer, offset } of b.parts)
        buffers[buffer].set(bound[i].subarray(offset, offset + size));
    });
    return buffers;
  }

  const types: DType[] = ["f32", "u8", "f32", "f32", "i32", "i32", "f32", "f32"];
  const sum = (...of: number[]): Value =>
    of.map((i) => load(i, "f32")).reduce((a, b) => op("add", "f32", a, b));
  const wide = kernel(
    types,
    [5, 6, 7],
    [
      store(6, op("mul", "f32", sum(0, 2, 3), op("cast", "f32", load(1, "u8")))),
      store(7, sum(3, 0)),
      store(5, load(4, "i32")),
    ],
  );
  const fresh = () => types.map((dtype, b) => array(dtype, (i) => 10 * b + i));

  test.each([8, 7, 6, 5])("into %i buffers", (limit) => {
    expect(runPacked(wide, limit, fresh())).toEqual(run(wide, fresh()));
  });

  test("only what is read is packed, as long as that is enough", () => {
    const made = packBuffers(wide, 6)!.buffers.filter((b) => typeof b !== "number");
    expect(made).toEqual([
      {
        dtype: "f32",
        size: 24,
        access: "read",
        parts: [
          { buffer: 0, offset: 0 },
          { buffer: 2, offset: 8 },
          { buffer: 3, offset: 16 },
        ],
      },
    ]);
  });

  test("dtypes do not mix", () => {
    expect(packBuffers(wide, 4)).toBeNull();
  });
});
