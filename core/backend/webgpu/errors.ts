/** @file WebGPU's errors in Hinode's terms. WebGPU reports most of them later than the call that is to blame. */
import { DeviceLostError, HinodeError, KernelError, OutOfMemoryError } from "../../errors.ts";

/** Whether a device still works; everything asks it before it touches the GPU. */
export class Health {
  #lost: DeviceLostError | null = null;

  constructor(device: GPUDevice) {
    void device.lost.then(({ reason, message }) => this.lose(reason, message));
  }

  get lost(): DeviceLostError | null {
    return this.#lost;
  }

  lose(reason: string, message: string): void {
    const why = reason === "destroyed" ? "it was destroyed" : message || "the driver gave up on it";
    this.#lost ??= new DeviceLostError(
      `webgpu: the device was lost: ${why}` +
        "\n  hint: its tensors are gone; await init() makes a new device, then load a checkpoint",
    );
  }

  check(): void {
    if (this.#lost) throw this.#lost;
  }

  /** What WebGPU promised; if the device was lost meanwhile, that, as promises of a lost device mean nothing. */
  async guard<T>(promise: Promise<T>, during: string): Promise<T> {
    let failure: unknown;
    try {
      const value = await promise;
      if (!this.#lost) return value;
    } catch (error) {
      failure = error;
      // A lost device fails its calls a moment before it reports the loss.
      for (let i = 0; i < 10 && !this.#lost; i++) await new Promise((r) => setTimeout(r, 0));
    }
    this.check();
    throw failure instanceof HinodeError ? failure : fromGpuError(failure as Error, during);
  }
}

/** A GPUError, or what a promise of WebGPU was rejected with. */
export function fromGpuError(error: GPUError | Error, during: string): HinodeError {
  const text = `webgpu: ${during} failed: ${error.message}`;
  const outOfMemory = /OutOfMemory/.test(error.constructor.name);
  return outOfMemory ? new OutOfMemoryError(text) : new KernelError(text);
}

/** A kernel that does not compile: the messages, and the whole source with line numbers. */
export function compileError(
  kernel: string,
  code: string,
  messages: readonly string[],
): KernelError {
  const lines = code.split("\n").map((line, i) => `${String(i + 1).padStart(4)} ${line}`);
  return new KernelError(
    `webgpu: kernel ${kernel} does not compile\n${messages.join("\n")}\n${lines.join("\n")}`,
  );
}
