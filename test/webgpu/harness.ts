/**
 * @file Runs one printed kernel on a GPU that Dawn finds (SwiftShader on machines without one), on buffers of its own with
 * padding around, and checks that it writes nothing else. Where Dawn or an adapter is missing, `gpu` says why.
 *
 * The Vulkan loader reads VK_ICD_FILENAMES and LD_LIBRARY_PATH when the process starts.
 */
import { printWgsl, type Wgsl } from "../../core/backend/webgpu/wgsl.ts";
import type { StoredArray } from "../../core/dtype.ts";
import type { GpuTarget } from "../../core/kernel/gpu/target.ts";
import type { Kernel } from "../../core/kernel/ir.ts";

/** What SwiftShader offers. */
export const softwareTarget: GpuTarget = {
  f16: false,
  subgroups: true,
  subgroupMin: 4,
  subgroupMax: 4,
  subgroupMatrix: false,
  invocations: 256,
  sharedBytes: 32768,
  buffers: 10,
};

interface Opened {
  readonly device: GPUDevice;
  /** Keeps Dawn's instance alive: the process crashes if it is collected before the device. */
  readonly instance: unknown;
}

async function open(flags: string[]): Promise<Opened | string> {
  let dawn: { create(flags: string[]): GPU; globals: object };
  try {
    dawn = await import("webgpu" as string);
  } catch (error) {
    return `the package webgpu cannot be loaded: ${(error as Error).message}`;
  }
  Object.assign(globalThis, dawn.globals);
  const instance = dawn.create(flags);
  const adapter = await instance.requestAdapter();
  if (!adapter) return "no adapter (are VK_ICD_FILENAMES and LD_LIBRARY_PATH set?)";
  const { limits, features } = adapter;
  const device = await adapter.requestDevice({
    requiredFeatures: ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"].filter(
      (f) => features.has(f),
    ) as GPUFeatureName[],
    requiredLimits: {
      maxStorageBuffersPerShaderStage: limits.maxStorageBuffersPerShaderStage,
      maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
      maxComputeWorkgroupSizeX: limits.maxComputeWorkgroupSizeX,
      maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
    },
  });
  return { device, instance };
}

// The extension makes SwiftShader compile for seconds: see adapter.ts.
const opened = await open([
  "disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension",
]);
/** Dawn's backend that compiles for a GPU with every feature, and runs nothing. */
const nothing = await open(["backend=null", "enable-dawn-features=allow_unsafe_apis"]);

/** Why nothing can run here, or null. */
export const missing: string | null = typeof opened === "string" ? opened : null;
export const missingCompiler: string | null = typeof nothing === "string" ? nothing : null;

/** Compiles a shader for a device with every feature; errors and warnings as text. */
export async function compile(code: string): Promise<string> {
  const { device } = nothing as Opened;
  return messagesOf(device, code);
}

async function messagesOf(device: GPUDevice, code: string): Promise<string> {
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ code });
  const { messages } = await module.getCompilationInfo();
  const error = await device.popErrorScope();
  const lines = code.split("\n");
  const texts = messages.map(
    (m) => `${m.type} in line ${m.lineNum}: ${m.message}\n  ${lines[m.lineNum - 1] ?? ""}`,
  );
  if (error && texts.length === 0) texts.push(error.message);
  return texts.join("\n");
}

export interface Outcome {
  readonly buffers: readonly StoredArray[];
  /** 0, or 1 + number of a failing position, and its index. */
  readonly error: readonly [number, number];
  readonly wgsl: Wgsl;
}

const filler = 0xa5;

/** WebGPU's constants, which Node has only once Dawn is loaded. */
const use = { mapRead: 1, copySource: 4, copyTarget: 8, uniform: 64, storage: 128 };
const computeStage = 4;
const mapForReading = 1;

/** Runs a kernel on copies of `data`. */
export async function runKernel(
  kernel: Kernel,
  data: readonly StoredArray[],
  words: Uint32Array = new Uint32Array(0),
  target: GpuTarget = softwareTarget,
): Promise<Outcome> {
  const { device } = opened as Opened;
  const wgsl = printWgsl(kernel, target);
  const problems = await messagesOf(device, wgsl.code);
  if (problems) throw new Error(`${problems}\n\n${wgsl.code}`);
  const make = (
    bytes: Uint8Array,
    usage = use.storage | use.copySource | use.copyTarget,
  ): GPUBuffer => {
    const size = Math.max(16, Math.ceil(bytes.length / 16) * 16);
    const buffer = device.createBuffer({ size, usage, mappedAtCreation: true });
    const mapped = new Uint8Array(buffer.getMappedRange());
    mapped.fill(filler);
    mapped.set(bytes);
    buffer.unmap();
    return buffer;
  };
  const bytesOf = (a: StoredArray): Uint8Array =>
    new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
  const buffers = data.map((d) => make(bytesOf(d)));
  const entries = [...buffers];
  if (wgsl.scalars !== null) entries.push(make(bytesOf(words), use.uniform | use.copyTarget));
  const errors = wgsl.errors === null ? null : make(new Uint8Array(16));
  if (errors) entries.push(errors);
  const layout = device.createBindGroupLayout({
    entries: entries.map((_, binding) => ({
      binding,
      visibility: computeStage,
      buffer: {
        type:
          binding === wgsl.scalars
            ? "uniform"
            : wgsl.access[binding] === "read"
              ? "read-only-storage"
              : "storage",
      },
    })),
  });
  device.pushErrorScope("validation");
  const pipeline = await device.createComputePipelineAsync({
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: { module: device.createShaderModule({ code: wgsl.code }), entryPoint: "main" },
  });
  const group = device.createBindGroup({
    layout,
    entries: entries.map((buffer, binding) => ({ binding, resource: { buffer } })),
  });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  // Several rows of workgroups, and some that have nothing to do.
  const x = Math.min(wgsl.workgroups, 7);
  if (x > 0) pass.dispatchWorkgroups(x, Math.ceil(wgsl.workgroups / x));
  pass.end();
  const reads = [...buffers, ...(errors ? [errors] : [])].map((source) => {
    const copy = device.createBuffer({
      size: source.size,
      usage: use.mapRead | use.copyTarget,
    });
    encoder.copyBufferToBuffer(source, 0, copy, 0, source.size);
    return copy;
  });
  device.queue.submit([encoder.finish()]);
  const problem = await device.popErrorScope();
  if (problem) throw new Error(`${problem.message}\n\n${wgsl.code}`);
  const bytes: Uint8Array[] = [];
  for (const copy of reads) {
    await copy.mapAsync(mapForReading);
    bytes.push(new Uint8Array(copy.getMappedRange()).slice());
    copy.destroy();
  }
  for (const b of entries) b.destroy();
  const flag = errors ? new Int32Array(bytes.pop()!.buffer) : [0, 0];
  const results = data.map((d, i) => {
    const like = d.constructor as new (b: ArrayBufferLike, o: number, n: number) => StoredArray;
    if (wgsl.access[i] === "read" && bytesOf(d).some((b, j) => b !== bytes[i][j]))
      throw new Error(`kernel ${kernel.name} wrote to buf${i}, which it only reads`);
    return new like(bytes[i].buffer, 0, d.length);
  });
  return { buffers: results, error: [flag[0], flag[1]], wgsl };
}
