/**
 * @file Matrices that a subgroup holds, as WGSL: Dawn's experimental extension chromium_experimental_subgroup_matrix. A matrix is a
 * variable of its own, so that drivers need not index registers.
 *
 * Matrices are loaded from scalars, but single elements come and go as vec4s: such workgroup memory is a `buffer` of bytes
 * with two typed views (the language feature buffer_view).
 */
import { type Kernel, type MatrixStmt, matrixSide } from "../../kernel/ir.ts";
import { type ArrayInfo, elementBytes, elementType } from "./wgsl-arrays.ts";
import type { Context } from "./wgsl-context.ts";
import { indexAt } from "./wgsl-index.ts";

type StmtOf<K extends MatrixStmt["k"]> = Extract<MatrixStmt, { k: K }>;

const types = {
  left: `subgroup_matrix_left<f16, ${matrixSide}, ${matrixSide}>`,
  right: `subgroup_matrix_right<f16, ${matrixSide}, ${matrixSide}>`,
  result: `subgroup_matrix_result<f32, ${matrixSide}, ${matrixSide}>`,
} as const;

export const matrixExtensions = (kernel: Kernel): readonly string[] =>
  kernel.subgroups ? ["enable chromium_experimental_subgroup_matrix;"] : [];

/** Workgroup memory of a kernel with matrices, whose elements are vec4s: two views of it. */
export function viewedArray(ctx: Context, info: ArrayInfo): ArrayInfo {
  const { name, layout, size } = info;
  const count = Math.ceil(size / 4);
  const memory = ctx.sharedArray(`${name}_bytes`, "buffer", 1, count * elementBytes(info));
  const scalar = layout === "native" ? "f16" : "f32";
  ctx.line(`let ${name} = bufferView<array<${elementType(info)}, ${count}>>(&${memory}, 0);`);
  const scalars = `${name}_scalars`;
  ctx.line(`let ${scalars} = bufferView<array<${scalar}, ${4 * count}>>(&${memory}, 0);`);
  return { ...info, scalars };
}

export function matrixStatement(ctx: Context, s: MatrixStmt): void {
  switch (s.k) {
    case "matrix":
      for (let i = 0; i < s.size; i++) {
        const start = s.role === "result" ? ` = ${types.result}()` : "";
        ctx.line(`var ${ctx.name(s.name)}_${i}: ${types[s.role]}${start};`);
      }
      return;
    case "matrixLoad": {
      const type = types[roleOf(ctx, s.name)];
      const order = s.transposed ? "col_major" : "row_major";
      const load = `subgroupMatrixLoad<${type}, ${order}>(${place(ctx, s)}, ${s.stride})`;
      ctx.line(`${matrix(ctx, s.name, s.at)} = ${load};`);
      return;
    }
    case "matrixMultiply": {
      const sum = matrix(ctx, s.name, s.at);
      const factors = [matrix(ctx, s.left, s.leftAt), matrix(ctx, s.right, s.rightAt)];
      ctx.line(`${sum} = subgroupMatrixMultiplyAccumulate(${factors.join(", ")}, ${sum});`);
      return;
    }
    case "matrixStore": {
      const value = matrix(ctx, s.name, s.at);
      ctx.line(`subgroupMatrixStore<row_major>(${place(ctx, s)}, ${value}, ${s.stride});`);
    }
  }
}

/** One matrix of several, whose number must be known. */
function matrix(ctx: Context, name: string, at: StmtOf<"matrixLoad">["at"]): string {
  const number = indexAt(ctx, at);
  if (!number.literal) ctx.fail(`matrix ${name}[${number.text}]: expected a number`);
  return `${ctx.name(name)}_${number.text}`;
}

/** Pointer to the scalars, and where among them. */
function place(ctx: Context, s: StmtOf<"matrixLoad"> | StmtOf<"matrixStore">): string {
  const b = ctx.binding(s.local);
  if (b.k !== "array") return ctx.fail(`"${s.local}" is no array`);
  const pointer = b.array.scalars ?? `&${b.array.name}`;
  return `${pointer}, ${indexAt(ctx, s.index).text}`;
}

function roleOf(ctx: Context, name: string): "left" | "right" | "result" {
  for (const s of ctx.kernel.body) if (s.k === "matrix" && s.name === name) return s.role;
  return ctx.fail(`"${name}" is no matrix of the kernel's own scope`);
}
