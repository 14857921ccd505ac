/** What can go wrong on a GPU: each a typed error, and none of them takes the program with it. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { requestGpu } from "../../core/backend/webgpu/adapter.ts";
import { WebGpuBackend } from "../../core/backend/webgpu/backend.ts";
import { Device, registerDevice } from "../../core/device.ts";
import {
  compile,
  DeviceError,
  DeviceLostError,
  deviceInfo,
  IndexOutOfRangeError,
  init,
  KernelError,
  LimitError,
  OutOfMemoryError,
  realize,
  setDefaultDevice,
  tensor,
  zeros,
} from "../../core/index.ts";

/** These tests run on any GPU; what needs one that is computed on the CPU is left out elsewhere. */
const { software } = (await requestGpu()).info;

let device: Device;
let backend: WebGpuBackend;

/** A device of its own, so that breaking it breaks nothing else. */
async function open(budget?: number): Promise<{ device: Device; backend: WebGpuBackend }> {
  const backend = new WebGpuBackend(await requestGpu(), {
    ...(budget && { budget }),
  });
  return { backend, device: new Device(backend) };
}

beforeEach(async () => {
  ({ device, backend } = await open());
  registerDevice(device);
  setDefaultDevice("webgpu");
});

afterEach(() => backend.destroy());

const indices = (...values: number[]) => tensor(values, { dtype: "i32" });

describe("a lost device", () => {
  test("fails what is in flight, what waits, and what comes later", async () => {
    const w = tensor([1, 2]);
    const step = compile(() => w.assign(w.add(1)).sum());
    expect(await step().item()).toBe(5);
    const losses = [step(), step(), step(), step()];
    await new Promise((resolve) => setImmediate(resolve));
    const reads = losses.map((loss) => loss.item());
    backend.device.destroy();
    for (const read of reads) await expect(read).rejects.toThrow(DeviceLostError);
    await expect(w.data()).rejects.toThrow(DeviceLostError);
    await expect(w.data()).rejects.toThrow(/lost: it was destroyed\n {2}hint:/);
    await expect(async () => await realize(w.add(1))).rejects.toThrow(DeviceLostError);
    await expect(async () => await step().item()).rejects.toThrow(DeviceLostError);
    expect(() => tensor([1])).toThrow(DeviceLostError);
    await device.ready();
  });

  test("is replaced by init(), where new tensors and known functions work", async () => {
    const w = tensor([1, 2]);
    const double = compile((x: ReturnType<typeof tensor>) => x.mul(2));
    expect(await double(w).tolist()).toEqual([2, 4]);
    device.destroy();
    await device.ready();
    await expect(w.data()).rejects.toThrow(DeviceLostError);
    const next = await init({ device: "webgpu" });
    expect(next).not.toBe(device);
    expect(await double(tensor([3])).tolist()).toEqual([6]);
    expect(await double(tensor([3, 4])).tolist()).toEqual([6, 8]);
    await expect(w.data()).rejects.toThrow(DeviceLostError);
    await expect(w.add(1).data()).rejects.toThrow(DeviceLostError);
    // A checkpoint brings the state back.
    w.assign(tensor([5, 6]));
    expect(await double(w).tolist()).toEqual([10, 12]);
    next.destroy();
  });

  test("a read-back after destroy", async () => {
    const x = tensor([1]).add(1);
    await realize(x);
    device.destroy();
    await expect(x.data()).rejects.toThrow(DeviceLostError);
  });
});

describe("errors of WebGPU", () => {
  test("a kernel that does not compile tells its name, the place and the source", async () => {
    const bindings = ["readwrite"] as const;
    const code = "@compute @workgroup_size(1) fn main() {\n  let x: f32 = 1u;\n}";
    const { ready } = backend.compile({ name: "broken", code, bindings });
    const error = await ready!.catch((e) => e);
    expect(error).toBeInstanceOf(KernelError);
    expect(error.message).toMatch(/kernel broken does not compile\n +2:\d+ error: .*f32/);
    expect(error.message).toContain("   2   let x: f32 = 1u;");
  });

  test("a run with such a kernel fails, and the next one works", async () => {
    const { device: gpu } = backend;
    const make = gpu.createShaderModule.bind(gpu);
    gpu.createShaderModule = (d) => make({ ...d, code: `${d.code}\nthis is no WGSL` });
    const w = tensor([1]);
    const bad = w.add(1);
    const error = await bad.data().catch((e) => e);
    expect(error).toBeInstanceOf(KernelError);
    expect(error.message).toMatch(/kernel map_add_1 does not compile\n.*unexpected token\n/);
    expect(error.message).toContain("@compute");
    gpu.createShaderModule = make;
    await expect(bad.mul(3).data()).rejects.toBe(error);
    expect(await w.mul(2).tolist()).toEqual([2]);
  });

  test("a validation error poisons what the run made, and what was made of it", async () => {
    const x = tensor([1, 2]);
    const y = x.add(1);
    await realize(y);
    // Behind the library's back.
    const { storage } = [...device.pool.live.values()].at(-1)!;
    (storage as unknown as { block: { buffer: GPUBuffer } }).block.buffer.destroy();
    const bad = y.mul(2);
    const made = realize(bad);
    const worse = bad.add(1);
    const later = worse.data();
    await expect(made).rejects.toThrow(KernelError);
    await expect(made).rejects.toThrow(/a run of map_mul/);
    await expect(later).rejects.toThrow(KernelError);
    expect(await x.add(1).tolist()).toEqual([2, 3]);
  });

  test("a storage of another device is refused", async () => {
    const other = await open();
    const foreign = other.backend.upload(Float32Array.of(1), "f32");
    await expect(backend.download(foreign, "f32", 1)).rejects.toThrow(DeviceError);
    other.backend.destroy();
  });
});

describe("memory", () => {
  test("a tensor larger than a binding is refused, with its shape", async () => {
    const limit = backend.maxBindingBytes;
    expect(limit).toBeGreaterThan(2 ** 27);
    const big = zeros([limit / 4 / 1024 + 1, 1024]).add(1);
    const read = async () => await big.data();
    await expect(read).rejects.toThrow(LimitError);
    await expect(read).rejects.toThrow(`f32[${limit / 4096 + 1}, 1024]`);
    Object.defineProperty(backend, "maxBindingBytes", { value: 16 });
    expect(() => tensor([1, 2, 3, 4, 5])).toThrow(LimitError);
    expect(() => tensor([1, 2, 3, 4, 5])).toThrow("f32[5], 20 bytes");
  });

  test("the budget: garbage goes first, then the largest tensors are listed", async () => {
    const small = await open(2 ** 20);
    registerDevice(small.device);
    let x = zeros([2 ** 15]);
    for (let i = 0; i < 30; i++) {
      x = x.add(1);
      await realize(x);
    }
    expect((await x.data())[0]).toBe(30);
    x.name = "state";
    const error = await zeros([2 ** 19])
      .add(1)
      .data()
      .catch((e) => e);
    expect(error).toBeInstanceOf(OutOfMemoryError);
    expect(error.message).toMatch(/within the budget of 1048576(.|\n)*state f32\[32768\]/);
    small.device.destroy();
  });

  /** Whether the GPU has memory; says no to the buffers of at least `bytes`. */
  function refuseFrom(bytes: number): void {
    const { device: gpu } = backend;
    const [create, pop] = [gpu.createBuffer.bind(gpu), gpu.popErrorScope.bind(gpu)];
    let refused = false;
    gpu.createBuffer = (d) => {
      refused = d.size >= bytes;
      return create(d);
    };
    class GPUOutOfMemoryError extends Error {}
    gpu.popErrorScope = async () => {
      const error = refused ? (new GPUOutOfMemoryError("full") as unknown as GPUError) : null;
      refused = false;
      return (await pop()) ?? error;
    };
  }

  test("a GPU that is full says so before the run: state stays", async () => {
    const w = tensor(new Float32Array(1000).fill(1));
    w.name = "weight";
    const step = compile((n: ReturnType<typeof tensor>) => {
      w.assign(w.add(1));
      return w.sum().add(n.expand([2000, 4000]));
    });
    refuseFrom(2 ** 20);
    const error = await step(tensor(1))
      .data()
      .catch((e) => e);
    expect(error).toBeInstanceOf(OutOfMemoryError);
    expect(error.message).toMatch(/no memory for \d+ bytes\n(.|\n)*weight f32\[1000\]/);
    await expect(w.data()).rejects.toThrow(OutOfMemoryError);
    expect(await tensor([1]).add(1).tolist()).toEqual([2]);
    const late = tensor(new Float32Array(2 ** 19));
    await expect(late.data()).rejects.toThrow(OutOfMemoryError);
    await expect(late.add(1).data()).rejects.toThrow(OutOfMemoryError);
  });
});

describe("errors that are found after the fact", () => {
  test("an invalid index fails its run and what is computed from it, nothing else", async () => {
    const table = tensor([[1, 2, 3]]);
    const bad = table.gather(1, indices(7).unsqueeze(0));
    const done = realize(bad);
    const dependent = bad.mul(2);
    const other = table.mul(2);
    await Promise.all([
      expect(dependent.data()).rejects.toThrow(IndexOutOfRangeError),
      expect(done).rejects.toThrow(/within 0 … 2, got 7/),
      expect(other.tolist()).resolves.toEqual([[2, 4, 6]]),
    ]);
    await expect(bad.data()).rejects.toThrow(IndexOutOfRangeError);
    await expect(dependent.data()).rejects.toThrow(IndexOutOfRangeError);
  });

  test("a bad batch leaves the state as it was, also for the steps behind it", async () => {
    const w = tensor([1, 2, 3]);
    const step = compile((i: ReturnType<typeof tensor>) => {
      const picked = w.gather(0, i).sum();
      w.assign(w.add(1));
      return picked;
    });
    const good = indices(0);
    const bad = indices(-5);
    expect(await step(good).item()).toBe(1);
    const results = [step(good), step(bad), step(good), step(bad), step(good)];
    const read = await Promise.allSettled(results.map((r) => r.item()));
    expect(read.map((r) => (r.status === "fulfilled" ? r.value : r.reason.constructor))).toEqual([
      2,
      IndexOutOfRangeError,
      3,
      IndexOutOfRangeError,
      4,
    ]);
    expect(await w.tolist()).toEqual([5, 6, 7]);
  });

  test("state is not overwritten with what comes of a failed run", async () => {
    const w = tensor([1, 2, 3]);
    const look = compile((i: ReturnType<typeof tensor>) => w.gather(0, i));
    const update = compile((x: ReturnType<typeof tensor>) => w.assign(w.add(x)).sum());
    await update(look(indices(0, 0, 0))).item();
    expect(await w.tolist()).toEqual([2, 3, 4]);
    const failed = update(look(indices(0, 9, 0)));
    await expect(failed.item()).rejects.toThrow(IndexOutOfRangeError);
    expect(await w.tolist()).toEqual([2, 3, 4]);
    expect(await update(look(indices(0, 1, 2))).item()).toBe(18);
  });
});

describe("init", () => {
  test("twice gives the same device, other settings are refused", async () => {
    const first = await init({ device: "webgpu" });
    expect(await init({ device: "webgpu" })).toBe(first);
    await expect(init({ device: "webgpu", budget: 1000 })).rejects.toThrow(DeviceError);
    expect(deviceInfo()).toMatchObject({ name: "webgpu", reason: "chosen by the program" });
    expect(deviceInfo().adapter!.software).toBe(software);
    expect(deviceInfo().limits!.maxStorageBufferBindingSize).toBe(backend.maxBindingBytes);
    expect(deviceInfo().features).toContain("core-features-and-limits");
  });

  test("at the same time as well", async () => {
    device.destroy();
    await device.ready();
    const made = await Promise.all([0, 1, 2].map(() => init({ device: "webgpu" })));
    expect(made[0]).not.toBe(device);
    expect(new Set(made).size).toBe(1);
    made[0].destroy();
  });

  test.runIf(software)("auto does not take a GPU that is computed on the CPU", async () => {
    device.destroy();
    await device.ready();
    const auto = await init();
    expect(auto.name).toBe("wasm");
    expect(deviceInfo().reason).toMatch(/^auto: WebAssembly.*only SwiftShader.*on the CPU$/);
    expect(deviceInfo().reason).not.toContain("\n");
    expect((await init({ adapter: "software" })).name).toBe("webgpu");
  });

  test("two devices do not disturb each other", async () => {
    const other = await open();
    registerDevice(other.device);
    const theirs = tensor([1, 2]);
    const kept = theirs.add(1);
    await realize(kept);
    registerDevice(device);
    const ours = tensor([3, 4]);
    expect(await ours.add(1).tolist()).toEqual([4, 5]);
    await expect(ours.add(theirs).data()).rejects.toThrow(DeviceError);
    other.device.destroy();
    expect(await ours.mul(2).tolist()).toEqual([6, 8]);
  });
});
