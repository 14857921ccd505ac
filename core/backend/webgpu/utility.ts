/** @file Kernels of the runtime itself: copies that are not whole words, and the guard of updates in place. */
import type { KernelSource } from "./pipelines.ts";

/**
 * Copies bytes between places that need not be word-aligned; words at the ends of the target are changed in part. The uniform
 * holds (first source byte, first target byte, number of bytes). One invocation per word of the target.
 */
export const copyBytes: KernelSource = {
  name: "copy bytes",
  bindings: ["read", "readwrite", "uniform"],
  code: `
@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read_write> destination: array<atomic<u32>>;
@group(0) @binding(2) var<uniform> span: vec4<u32>;
@compute @workgroup_size(64) fn main(
  @builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>
) {
  let word = span.y / 4u + id.x + id.y * groups.x * 64u;
  let end = span.y + span.z;
  if (word * 4u >= end) { return; }
  var bits = 0u;
  var mask = 0u;
  for (var i = 0u; i < 4u; i++) {
    let at = word * 4u + i;
    if (at >= span.y && at < end) {
      let origin = span.x + at - span.y;
      bits |= ((source[origin / 4u] >> (8u * (origin % 4u))) & 255u) << (8u * i);
      mask |= 255u << (8u * i);
    }
  }
  atomicAnd(&destination[word], ~mask);
  atomicOr(&destination[word], bits);
}
`,
};

export const copyBytesWorkgroups = (bytes: number): number =>
  Math.ceil((Math.floor(bytes / 4) + 2) / 64);

/** Bytes between the error flags of two kernels: flags are bound one by one, at aligned offsets. */
export const flagStride = 256;

/** Sets the guard when one of `count` kernels has raised its flag. */
export const raiseGuard = (count: number): KernelSource => ({
  name: "guard",
  bindings: ["read", "readwrite"],
  code: `
@group(0) @binding(0) var<storage, read> flags: array<u32>;
@group(0) @binding(1) var<storage, read_write> guard: array<u32>;
@compute @workgroup_size(1) fn main() {
  var raised = 0u;
  for (var i = 0u; i < ${count}u; i++) { raised |= flags[i * ${flagStride / 4}u]; }
  guard[0] = raised;
}
`,
});

/** The same kernel, but it does nothing once the guard is set. */
export function guarded(source: KernelSource): KernelSource {
  const binding = source.bindings.length;
  const declared = `@group(0) @binding(${binding}) var<uniform> hinode_guard: vec4<u32>;\n`;
  const head = /(fn main\([^{]*\{)/;
  if (!head.test(source.code)) throw new Error(`webgpu: no main in kernel ${source.name}`);
  const checked = source.code.replace(head, "$1\n  if (hinode_guard.x != 0u) { return; }");
  return {
    name: source.name,
    bindings: [...source.bindings, "uniform"],
    // At the end, as directives must stay first.
    code: checked + declared,
  };
}
