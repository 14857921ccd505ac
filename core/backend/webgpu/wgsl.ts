/**
 * @file A kernel as a WGSL shader, and what the runtime must bind to it. Buffer i is @binding(i); then come the scalar words
 * and the error flag, if the kernel has them. Only functions and workgroup variables that are used are printed.
 *
 * An iteration of the range is a workgroup, numbered over x and y because an axis has at most 65,535. A kernel that was
 * scheduled for a CPU runs too, one iteration per invocation: slow, but everything has a way to run.
 */

import { KernelError } from "../../errors.ts";
import type { GpuTarget } from "../../kernel/gpu/target.ts";
import type { Kernel } from "../../kernel/ir.ts";
import { elementType, planArrays } from "./wgsl-arrays.ts";
import { Context } from "./wgsl-context.ts";
import { atom } from "./wgsl-expr.ts";
import { matrixExtensions } from "./wgsl-matrix.ts";
import { StmtPrinter } from "./wgsl-stmt.ts";

export interface Wgsl {
  /** Entry point `main`. */
  readonly code: string;
  /** To dispatch as x · y. */
  readonly workgroups: number;
  readonly threads: number;
  /** Of each buffer of the kernel, @group(0) @binding(i). */
  readonly access: readonly ("read" | "readwrite")[];
  /** Binding of a uniform array<vec4<u32>> with the kernel's scalar words. */
  readonly scalars: number | null;
  /** Binding of a storage array<atomic<u32>, 2>: 1 + number of a position that failed, and its index. */
  readonly errors: number | null;
  /** Sizes of the position statements, in their order. */
  readonly positions: readonly number[];
}

/** Invocations of a workgroup for kernels that were scheduled for a CPU. */
const plainThreads = 64;

export function printWgsl(kernel: Kernel, target: GpuTarget): Wgsl {
  const { buffers, plan } = planArrays(kernel, target);
  const ctx = new Context(kernel, target, buffers);
  const printer = new StmtPrinter(ctx, plan);
  const { range, threads, subgroups } = kernel;
  const size = threads?.extent ?? plainThreads;
  if (size > target.invocations)
    throw new KernelError(
      `kernel ${kernel.name}: expected at most ${target.invocations} invocations per workgroup, got ${size}`,
    );
  const g = ctx.name(range.var);
  const bind = (name: string, text: string): void => {
    ctx.bindings.set(name, { k: "value", expr: atom(text) });
  };
  bind(range.var, g);
  if (threads) {
    const t = ctx.name(threads.var);
    bind(threads.var, t);
    ctx.line("let workgroup = workgroup_id.x + workgroup_id.y * workgroups.x;");
    ctx.line(`if (workgroup >= ${range.extent}u) { return; }`);
    ctx.line(`let ${g} = i32(workgroup);`);
    ctx.line(`let ${t} = i32(local_index);`);
    if (subgroups) {
      const name = ctx.name(subgroups.var);
      bind(subgroups.var, name);
      ctx.line(`let ${name} = i32(subgroup_id);`);
    }
  } else {
    ctx.line("let workgroup = workgroup_id.x + workgroup_id.y * workgroups.x;");
    ctx.line(`let ${g} = i32(workgroup * ${size}u + local_index);`);
    ctx.line(`if (${g} >= ${range.extent}) { return; }`);
  }
  printer.body(kernel.body);

  if (ctx.sharedBytes() > target.sharedBytes)
    throw new KernelError(
      `kernel ${kernel.name}: expected at most ${target.sharedBytes} bytes of workgroup memory, got ${ctx.sharedBytes()}`,
    );

  const access = kernel.buffers.map((b) => (b.access === "read" ? "read" : "readwrite"));
  let binding = buffers.length;
  const scalars = ctx.usesScalars ? binding++ : null;
  const errors = ctx.usesErrors ? binding++ : null;
  const declarations = buffers.map(
    (b, i) =>
      `@group(0) @binding(${i}) var<storage, ${access[i] === "read" ? "read" : "read_write"}> ` +
      `${b.name}: array<${elementType(b)}>; // ${b.dtype}[${b.size}]`,
  );
  if (scalars !== null)
    declarations.push(
      `@group(0) @binding(${scalars}) var<uniform> words: array<vec4u, ${Math.ceil(kernel.scalars / 4)}>;`,
    );
  if (errors !== null)
    declarations.push(
      `@group(0) @binding(${errors}) var<storage, read_write> errors: array<atomic<u32>, 2>;`,
    );
  const shared = [...ctx.shared].map(
    ([name, { type, size }]) =>
      `var<workgroup> ${name}: ${type === "buffer" ? `buffer<${size}>` : `array<${type}, ${size}>`};`,
  );
  const parts = [
    `// ${kernel.kind} ${kernel.name}`,
    ...(ctx.vectors.size > 0 ? [`// as vectors: ${[...ctx.vectors].join(", ")}`] : []),
    ...(target.f16 && needsHalf(ctx) ? ["enable f16;"] : []),
    ...(subgroups || ctx.usesSubgroups ? ["enable subgroups;"] : []),
    ...matrixExtensions(kernel),
    "",
    ...declarations,
    ...(shared.length > 0 ? ["", ...shared] : []),
    "",
    `${ctx.functions()}${ctx.functions() ? "\n" : ""}` +
      `@compute @workgroup_size(${size})\n` +
      "fn main(\n" +
      "  @builtin(workgroup_id) workgroup_id: vec3u,\n" +
      "  @builtin(num_workgroups) workgroups: vec3u,\n" +
      "  @builtin(local_invocation_index) local_index: u32,\n" +
      (subgroups ? "  @builtin(subgroup_id) subgroup_id: u32,\n" : "") +
      ") {",
    ...(ctx.usesZero ? ["  let unknown_zero = workgroups.z - 1u;"] : []),
    ctx.text(),
    "}",
    "",
  ];
  return {
    code: parts.join("\n"),
    workgroups: threads ? range.extent : Math.ceil(range.extent / plainThreads),
    threads: size,
    access,
    scalars,
    errors,
    positions: printer.positions,
  };
}

const needsHalf = (ctx: Context): boolean =>
  ctx.buffers.some((b) => b.layout === "native") ||
  /\bf16\b|\bvec4h\b/.test(ctx.functions() + ctx.text()) ||
  [...ctx.shared.values()].some(({ type }) => /^f16|h$/.test(type));
