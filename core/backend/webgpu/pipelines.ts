/**
 * @file Compute pipelines: compiled asynchronously and in parallel, one per source for the whole device, so that a kernel
 * that two plans share is compiled once.
 */
import type { Health } from "./errors.ts";
import { compileError } from "./errors.ts";

export type BindingKind = "read" | "readwrite" | "uniform";

/** What one kernel needs to be compiled; binding i is of kind `bindings[i]`. */
export interface KernelSource {
  readonly name: string;
  readonly code: string;
  readonly bindings: readonly BindingKind[];
}

/** A compiled kernel, or one that is being compiled. */
export class Pipeline {
  readonly source: KernelSource;
  readonly layout: GPUBindGroupLayout;
  readonly #device: GPUDevice;
  readonly #descriptor: GPUComputePipelineDescriptor;
  #made: GPUComputePipeline | null = null;
  /** Rejects with a KernelError; null when there is nothing to wait for. */
  ready: Promise<void> | null;

  constructor(device: GPUDevice, health: Health, source: KernelSource, layout: GPUBindGroupLayout) {
    this.source = source;
    this.layout = layout;
    this.#device = device;
    const { name, code } = source;
    // Errors of the source are told by the promise below; in a scope, nobody else hears of them.
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ label: name, code });
    void device.popErrorScope().catch(() => {});
    this.#descriptor = {
      label: name,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: "main" },
    };
    const compile = async () => {
      try {
        this.#made = await device.createComputePipelineAsync(this.#descriptor);
      } catch (error) {
        health.check();
        const { messages } = await module.getCompilationInfo();
        health.check();
        const found = messages.map((m) => `  ${m.lineNum}:${m.linePos} ${m.type}: ${m.message}`);
        const texts = found.length > 0 ? found : [`  ${(error as Error).message}`];
        throw compileError(name, code, texts);
      }
      this.ready = null;
    };
    this.ready = compile();
    // Whoever runs the kernel learns of it.
    this.ready.catch(() => {});
  }

  /** The pipeline; whoever has not waited for `ready` waits here. */
  get(): GPUComputePipeline {
    return (this.#made ??= this.#device.createComputePipeline(this.#descriptor));
  }
}

/** Beyond this many kernels the oldest are forgotten; plans that use them keep theirs. */
const maxPipelines = 4096;

export class PipelineCache {
  readonly #device: GPUDevice;
  readonly #health: Health;
  readonly #pipelines = new Map<string, Pipeline>();
  readonly #layouts = new Map<string, GPUBindGroupLayout>();

  constructor(device: GPUDevice, health: Health) {
    this.#device = device;
    this.#health = health;
  }

  get(source: KernelSource): Pipeline {
    const layoutKey = source.bindings.join();
    const key = `${layoutKey}\n${source.code}`;
    const known = this.#pipelines.get(key);
    if (known) return known;
    let layout = this.#layouts.get(layoutKey);
    if (!layout) {
      layout = this.#device.createBindGroupLayout({
        entries: source.bindings.map((kind, binding) => ({
          binding,
          visibility: 4, // GPUShaderStage.COMPUTE
          buffer: {
            type: kind === "uniform" ? kind : kind === "read" ? "read-only-storage" : "storage",
          },
        })),
      });
      this.#layouts.set(layoutKey, layout);
    }
    const made = new Pipeline(this.#device, this.#health, source, layout);
    this.#pipelines.set(key, made);
    if (this.#pipelines.size > maxPipelines)
      this.#pipelines.delete(this.#pipelines.keys().next().value!);
    return made;
  }
}
