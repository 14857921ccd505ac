/**
 * @file A shader of the program's own, in its frame: the bindings, constants of their sizes and shapes, and `main` around its
 * statements. Buffers are bound as whole 16-byte words, so `arrayLength` may be larger than a tensor: `x_size` is exact.
 */
import { describe, LimitError } from "../../errors.ts";
import type { Shader } from "../../kernel/custom.ts";
import type { GpuTarget } from "../../kernel/gpu/target.ts";
import type { Kernel } from "../../kernel/ir.ts";
import type { Wgsl } from "./wgsl.ts";
import { reserved } from "./wgsl-words.ts";

/** The names in `main` that a body may use. */
const own = ["index", "workgroup", "workgroup_id", "num_workgroups", "local_id", "local_index"];
/** Whether a name means something in a shader already. */
export const isReserved = (name: string): boolean => reserved.has(name) || own.includes(name);

export function printShader(kernel: Kernel, shader: Shader, target: GpuTarget): Wgsl {
  const { names, shapes, declarations, body, workgroupSize, workgroups } = shader;
  const threads = workgroupSize[0] * workgroupSize[1] * workgroupSize[2];
  if (threads > target.invocations)
    throw new LimitError(
      describe(
        `webgpu: kernel ${kernel.name}`,
        `at most ${target.invocations} invocations per workgroup`,
        `${threads} (${workgroupSize.join(" × ")})`,
      ),
    );
  const access = kernel.buffers.map((b) => (b.access === "read" ? "read" : "readwrite"));
  const bindings = kernel.buffers.flatMap(({ dtype, size, access }, i) => {
    const mode = access === "read" ? "read" : "read_write";
    const shape = shapes[i];
    return [
      `@group(0) @binding(${i}) var<storage, ${mode}> ${names[i]}: array<${dtype}>;`,
      `const ${names[i]}_size = ${size}u;`,
      ...(shape.length > 0
        ? [`const ${names[i]}_shape = array<u32, ${shape.length}>(${shape.join(", ")});`]
        : []),
    ];
  });
  const code = [
    `// custom ${kernel.name}`,
    ...bindings,
    ...(declarations.trim() ? ["", declarations.trim()] : []),
    "",
    `@compute @workgroup_size(${workgroupSize.join(", ")})`,
    "fn main(",
    "  @builtin(workgroup_id) workgroup_id: vec3u,",
    "  @builtin(num_workgroups) num_workgroups: vec3u,",
    "  @builtin(local_invocation_id) local_id: vec3u,",
    "  @builtin(local_invocation_index) local_index: u32,",
    ") {",
    // An axis has at most 65,535 workgroups, so they are numbered over x and y.
    "  let workgroup = workgroup_id.x + workgroup_id.y * num_workgroups.x;",
    `  if (workgroup >= ${workgroups}u) { return; }`,
    `  let index = workgroup * ${threads}u + local_index;`,
    body.replace(/^\n+|\s+$/g, ""),
    "}",
    "",
  ].join("\n");
  return { code, workgroups, threads, access, scalars: null, errors: null, positions: [] };
}
