/** The runtime on a GPU: more buffers than a kernel may bind, large dispatches, odd sizes, and what is in flight. */
import { beforeEach, describe, expect, test } from "vitest";
import { requestGpu } from "../../core/backend/webgpu/adapter.ts";
import { WebGpuBackend } from "../../core/backend/webgpu/backend.ts";
import { sizeClass } from "../../core/backend/webgpu/buffers.ts";
import { Dispatch } from "../../core/backend/webgpu/commands.ts";
import { Device, registerDevice } from "../../core/device.ts";
import {
  compile,
  noGrad,
  ones,
  realize,
  scan,
  setDefaultDevice,
  type Tensor,
  tensor,
  zeros,
} from "../../core/index.ts";

const gpu = await requestGpu();
let device: Device;
let backend: WebGpuBackend;

beforeEach(() => {
  backend = new WebGpuBackend(gpu);
  device = new Device(backend);
  registerDevice(device);
  setDefaultDevice("webgpu");
});

const numbers = (n: number) => Array.from({ length: n }, (_, i) => i);

describe("kernels", () => {
  test("that read and write more tensors than a kernel may bind", async () => {
    const count = backend.target.buffers + 4;
    const xs = numbers(count).map((i) => tensor([i, 2 * i, 3 * i]));
    const step = compile((...list: Tensor[]) => {
      const total = list.reduce((a, b) => a.add(b));
      return list.map((x) => x.mul(total));
    });
    const total = (count * (count - 1)) / 2;
    for (let round = 0; round < 2; round++) {
      const results = await Promise.all(step(...xs).map((y) => y.tolist()));
      expect(results).toEqual(numbers(count).map((i) => [i * total, 4 * i * total, 9 * i * total]));
    }
  });

  test("that update more state than a kernel may bind, in place", async () => {
    const count = backend.target.buffers + 4;
    const ws = numbers(count).map((i) => tensor([i, i + 1, i + 2, i + 3, i + 4]));
    const step = compile((x: Tensor) => {
      for (const w of ws) w.assign(w.add(x));
    });
    step(tensor(1));
    step(tensor(10));
    const live = () => device.memory().liveBytes;
    await device.ready();
    const before = live();
    step(tensor(100));
    await device.ready();
    expect(live() - before).toBeLessThanOrEqual(256);
    for (const [i, w] of ws.entries())
      expect(await w.tolist()).toEqual([i, i + 1, i + 2, i + 3, i + 4].map((v) => v + 111));
  });

  test("with more workgroups than one axis has", () => {
    const pipeline = {} as ConstructorParameters<typeof Dispatch>[0];
    for (const n of [1, 65535, 65536, 1_000_003, 65535 * 65535]) {
      const { x, y } = new Dispatch(pipeline, [], n, 65535);
      expect(x).toBeLessThanOrEqual(65535);
      expect(y).toBeLessThanOrEqual(65535);
      expect(x * y).toBeGreaterThanOrEqual(n);
      expect(x * y - n).toBeLessThan(y);
    }
  });

  test("bytes of any number, up and down and through a scan", async () => {
    for (const n of [1, 2, 3, 5, 17]) {
      const flags = tensor(
        numbers(n).map((i) => i % 3 === 0),
        { dtype: "bool" },
      );
      expect(await flags.tolist()).toEqual(numbers(n).map((i) => i % 3 === 0));
      const rows = tensor(numbers(4 * n), { dtype: "u8", shape: [4, n] });
      const [last, sums] = scan(
        (sum: Tensor, row: Tensor) => {
          const next = sum.add(row);
          return [next, next] as const;
        },
        zeros([n], { dtype: "u8" }),
        rows,
      );
      const want = numbers(4).map((t) =>
        numbers(n).map((i) => numbers(t + 1).reduce((s, k) => s + k * n + i, 0)),
      );
      expect(await sums.tolist()).toEqual(want);
      expect(await last.tolist()).toEqual(want[3]);
    }
  });

  test("a plan without kernels, empty tensors, results that are inputs", async () => {
    const x = tensor([1, 2]);
    const same = compile((a: Tensor) => [a, a, zeros([0, 3])] as const);
    const [a, b, empty] = same(x);
    expect(await a.tolist()).toEqual([1, 2]);
    expect(await b.tolist()).toEqual([1, 2]);
    expect(await empty.tolist()).toEqual([]);
    expect(await zeros([0]).add(1).sum().item()).toBe(0);
  });
});

describe("steps in flight", () => {
  test("are two at most, and reads wait for none", async () => {
    const w = tensor([0]);
    const step = compile(() => void w.assign(w.add(1)));
    step();
    await device.ready();
    let [flying, most] = [0, 0];
    const { queue } = backend.device;
    const submit = queue.submit.bind(queue);
    queue.submit = (buffers) => {
      const list = [...buffers];
      submit(list);
      if (list.length === 0) return;
      most = Math.max(most, ++flying);
      void queue.onSubmittedWorkDone().then(() => flying--);
    };
    for (let i = 0; i < 12; i++) step();
    expect(await w.item()).toBe(13);
    // Two steps and the read.
    expect(most).toBeLessThanOrEqual(3);
    expect(most).toBeGreaterThan(1);
    queue.submit = submit;
  });

  test("losses read later are those of their steps", async () => {
    const w = tensor([1, 2]);
    const step = compile(() => {
      const loss = w.sum();
      noGrad(() => w.assign(w.mul(2)));
      return loss;
    });
    const losses = numbers(10).map(() => step().item());
    expect(await Promise.all(losses)).toEqual(numbers(10).map((i) => 3 * 2 ** i));
  });

  test("a value freed while they run is not reused too early", async () => {
    const results: Promise<unknown>[] = [];
    for (let i = 0; i < 12; i++) {
      const x = tensor(new Float32Array(1000).fill(i));
      const y = x.add(1);
      void realize(y);
      x.dispose();
      results.push(y.sum().item());
      y.dispose();
    }
    expect(await Promise.all(results)).toEqual(numbers(12).map((i) => 1000 * (i + 1)));
  });
});

describe("buffers", () => {
  test("size classes waste an eighth at most and are whole multiples of 256", () => {
    for (const bytes of [1, 255, 256, 257, 1000, 4096, 4097, 123_457, 2 ** 30 + 1]) {
      const size = sizeClass(bytes);
      expect(size % 256).toBe(0);
      expect(size).toBeGreaterThanOrEqual(bytes);
      expect(size - bytes).toBeLessThan(Math.max(256, bytes / 8));
      expect(sizeClass(size)).toBe(size);
    }
  });

  test("are used again by the steps of a loop", async () => {
    const make = backend.device.createBuffer.bind(backend.device);
    let made = 0;
    backend.device.createBuffer = (d) => {
      made++;
      return make(d);
    };
    const step = compile((x: Tensor) => x.matmul(x).softmax(1).sum());
    const once = async () => {
      const x = ones([8, 8]);
      await realize(x);
      const y = step(x);
      expect(await y.item()).toBeCloseTo(8);
      x.dispose();
      y.dispose();
    };
    for (let i = 0; i < 3; i++) await once();
    const before = made;
    for (let i = 0; i < 10; i++) await once();
    backend.device.createBuffer = make;
    expect(made - before).toBe(0);
  });

  test("uploads of every kind come back as they were", async () => {
    expect((await tensor(new Float32Array(1000).fill(0.5)).data())[999]).toBe(0.5);
    for (const dtype of ["f32", "f16", "bf16", "i32", "u32", "i8", "u8", "bool"] as const) {
      const x = tensor([0, 1, 1, 0, 1], { dtype });
      expect([...(await x.data())].map(Number)).toEqual([0, 1, 1, 0, 1]);
    }
  });
});
