/**
 * @file Finding a GPU: `navigator.gpu` in browsers, Dawn through the optional `webgpu` package in Node. Decides which
 * adapter is taken and which features and limits its device gets, and says in words why there is none.
 */
import { DeviceError, describe } from "../../errors.ts";
import type { GpuTarget } from "../../kernel/gpu/target.ts";
import { matrixSide } from "../../kernel/ir.ts";
import { subgroupsAreNeighbours } from "./subgroups.ts";

export interface AdapterOptions {
  readonly powerPreference?: "high-performance" | "low-power";
  /** "hardware" refuses adapters that compute on the CPU, "software" takes only those. */
  readonly adapter?: "hardware" | "software" | "any";
  /** Optional WebGPU features to use; by default all that Hinode knows what to do with. Others are not asked for. */
  readonly features?: readonly string[];
  /** Node: toggles of Dawn that are enabled, and its backend ("vulkan", "metal", "d3d12", "null"). */
  readonly toggles?: readonly string[];
  readonly dawnBackend?: string;
}

export interface AdapterInfo {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  /** Computes on the CPU: for tests. */
  readonly software: boolean;
}

export interface Gpu {
  readonly device: GPUDevice;
  readonly info: AdapterInfo;
  readonly target: GpuTarget;
}

const usefulFeatures = [
  "shader-f16",
  "subgroups",
  "subgroup-size-control",
  "timestamp-query",
  "chromium-experimental-subgroup-matrix",
];

/** Unlock f16 on NVIDIA and subgroup matrices; neither changes what other kernels compute. */
export const defaultToggles: readonly string[] = [
  "allow_unsafe_apis",
  "vulkan_enable_f16_on_nvidia",
];

/**
 * Dawn's instances, for good: a device whose instance was collected crashes the process at its next call (webgpu
 * 0.6.2, November 2026). An instance alone does not keep the process running.
 */
const instances = new Map<string, GPU>();

async function entryPoint({ toggles, dawnBackend }: AdapterOptions): Promise<GPU> {
  const known = (globalThis.navigator as Navigator | undefined)?.gpu;
  if (known) return known;
  if (!globalThis.process?.versions?.node) throw new Error("this browser has no WebGPU");
  const flags = [
    `enable-dawn-features=${(toggles ?? defaultToggles).join(",")}`,
    // Timestamps in steps of 65 µs are for pages that one does not trust. Zeroing workgroup memory by a Vulkan extension
    // costs SwiftShader seconds per kernel to compile (4 KiB: 0.5 s, 16 KiB: 5 s; 0.1 s without; November 2026).
    "disable-dawn-features=timestamp_quantization,use_vulkan_zero_initialize_workgroup_memory_extension",
    ...(dawnBackend ? [`backend=${dawnBackend}`] : []),
  ];
  const key = flags.join(" ");
  const made = instances.get(key);
  if (made) return made;
  let dawn: { create(flags: string[]): GPU };
  try {
    // No import(): bundlers would look for the package, which pages have no use for.
    const { createRequire } = globalThis.process.getBuiltinModule("node:module");
    dawn = createRequire(import.meta.url)("webgpu");
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    if (code?.endsWith("MODULE_NOT_FOUND")) throw new Error("the package webgpu is not installed");
    throw new Error(`the package webgpu cannot be loaded (${message})`);
  }
  const instance = dawn.create(flags);
  instances.set(key, instance);
  return instance;
}

/** Adapters in browsers tell by isFallbackAdapter, Dawn's SwiftShader by its names as well. */
function isSoftware(adapter: GPUAdapter): boolean {
  const { info } = adapter as GPUAdapter & {
    info: GPUAdapterInfo & { isFallbackAdapter?: boolean };
  };
  if (info.isFallbackAdapter) return true;
  return /swiftshader|llvmpipe|lavapipe|basic render/i.test(
    `${info.architecture} ${info.device} ${info.description}`,
  );
}

interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** Of the matrices that subgroups may hold, kernels use those of 16 × 16 with f16 factors and f32 results (NVIDIA's). */
function multipliesHalves(info: GPUAdapterInfo): boolean {
  const { subgroupMatrixConfigs = [] } = info as GPUAdapterInfo & {
    subgroupMatrixConfigs?: Iterable<MatrixConfig>;
  };
  return [...subgroupMatrixConfigs].some(
    (c) =>
      c.componentType === "f16" &&
      c.resultComponentType === "f32" &&
      [c.M, c.N, c.K].every((side) => side === matrixSide),
  );
}

/** A device; throws a DeviceError that says why there is none. */
export async function requestGpu(options: AdapterOptions = {}): Promise<Gpu> {
  const refuse = (why: string): never => {
    throw new DeviceError(describe("webgpu", "a GPU adapter", why));
  };
  const wanted = options.adapter ?? "any";
  let adapter: GPUAdapter | null = null;
  try {
    const gpu = await entryPoint(options);
    adapter = await gpu.requestAdapter({
      powerPreference: options.powerPreference ?? "high-performance",
      ...(wanted === "software" && { forceFallbackAdapter: true }),
    });
  } catch (error) {
    refuse((error as Error).message);
  }
  if (!adapter) return refuse("none that WebGPU can use");
  const software = isSoftware(adapter);
  const { vendor, architecture, device: model, description } = adapter.info;
  const info = { vendor, architecture, device: model, description, software };
  if (wanted === "hardware" && software)
    return refuse(`only ${describeAdapter(info)}, which computes on the CPU`);
  if (wanted === "software" && !software) return refuse(`only ${describeAdapter(info)}`);
  return { info, ...(await requestDevice(adapter, options)) };
}

export const describeAdapter = ({
  vendor,
  architecture,
  device,
  description,
}: AdapterInfo): string =>
  [...new Set([description || device, architecture, vendor])].filter(Boolean).join(", ");

async function requestDevice(
  adapter: GPUAdapter,
  { features = usefulFeatures }: AdapterOptions,
): Promise<{ device: GPUDevice; target: GpuTarget }> {
  const { limits, info } = adapter;
  const requiredFeatures = features.filter((f) => adapter.features.has(f)) as GPUFeatureName[];
  let device: GPUDevice;
  try {
    device = await adapter.requestDevice({
      label: "hinode",
      requiredFeatures,
      requiredLimits: {
        maxBufferSize: limits.maxBufferSize,
        maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
        maxStorageBuffersPerShaderStage: limits.maxStorageBuffersPerShaderStage,
        maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
        maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
        maxComputeWorkgroupSizeX: limits.maxComputeWorkgroupSizeX,
        maxComputeWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
      },
    });
  } catch (error) {
    const text = `the adapter's refusal: ${(error as Error).message}`;
    throw new DeviceError(describe("webgpu", "a device", text), { cause: error });
  }
  const has = (f: string) => (device.features as ReadonlySet<string>).has(f);
  const sizes = info as GPUAdapterInfo & { subgroupMinSize?: number; subgroupMaxSize?: number };
  const target: GpuTarget = {
    f16: has("shader-f16"),
    subgroups: has("subgroups") && (await subgroupsAreNeighbours(device)),
    subgroupMin: sizes.subgroupMinSize || 4,
    subgroupMax: sizes.subgroupMaxSize || 128,
    subgroupMatrix: has("chromium-experimental-subgroup-matrix") && multipliesHalves(info),
    invocations: Math.min(
      device.limits.maxComputeInvocationsPerWorkgroup,
      device.limits.maxComputeWorkgroupSizeX,
    ),
    sharedBytes: device.limits.maxComputeWorkgroupStorageSize,
    buffers: device.limits.maxStorageBuffersPerShaderStage,
  };
  return { device, target };
}
