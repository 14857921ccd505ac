/** @file SEMANTICS: realising, gradient state, memory. */
import { beforeEach, describe, expect, test } from "vitest";
import { cells } from "../../core/cells.ts";
import { type Device, deviceInfo, deviceNamed, init, setDefaultDevice } from "../../core/device.ts";
import {
  ArgumentError,
  DeviceError,
  enableGrad,
  grad,
  HinodeError,
  isGradEnabled,
  noGrad,
  ones,
  rand,
  realize,
  type Tensor,
  TransformError,
  tensor,
  toDevice,
  vmap,
  zeros,
} from "../../core/index.ts";
import { countOps, devices, inPlace, names, use } from "./support.ts";
import { expectNoGrowth } from "./support-memory.ts";

describe.each(names)("realising on %s", (name) => {
  beforeEach(() => {
    use(devices[name]());
  });

  test("values of every kind", async () => {
    expect(
      await tensor([
        [1, 2],
        [3, 4],
      ]).tolist(),
    ).toEqual([
      [1, 2],
      [3, 4],
    ]);
    expect(await tensor(3).item()).toBe(3);
    expect(await tensor([1, 2]).gt(1).tolist()).toEqual([false, true]);
    expect(await tensor(true).item()).toBe(true);
    expect(await zeros([2, 0]).tolist()).toEqual([[], []]);
    expect(await zeros([0]).add(1).data()).toHaveLength(0);
    expect(() => zeros([2]).item()).toThrow(ArgumentError);
  });

  test("reading a value, then differentiating", async () => {
    const w = tensor([1, 2], { requiresGrad: true });
    const loss = w.mul(w).sum();
    expect(await loss.item()).toBe(5);
    loss.backward();
    expect(await w.grad!.tolist()).toEqual([2, 4]);
  });

  test("so also when an assignment was pending", async () => {
    const w = tensor([1, 2], { requiresGrad: true });
    noGrad(() => w.assign(w.add(1)));
    const loss = w.mul(w).sum();
    expect(await loss.item()).toBe(13);
    loss.backward();
    expect(await w.grad!.tolist()).toEqual([4, 6]);
  });

  test("gradients accumulate until they are forgotten", async () => {
    const w = tensor([1, 2], { requiresGrad: true });
    for (const factor of [1, 2, 3]) {
      const loss = w.mul(w).sum().mul(factor);
      loss.backward();
      await loss.item();
    }
    expect(await w.grad!.tolist()).toEqual([12, 24]);
    w.grad = null;
    w.sum().backward();
    expect(await w.grad!.tolist()).toEqual([1, 1]);
    expect(w.grad!.requiresGrad).toBe(false);
  });

  test("requiresGrad of one cell does not touch another with the same value", async () => {
    const x = tensor([1, 2]);
    const y = x.reshape([2]);
    y.requiresGrad = true;
    x.mul(y).sum().backward();
    expect(x.grad).toBeNull();
    expect(await y.grad!.tolist()).toEqual([1, 2]);
  });

  test("noGrad gives constants, also to async functions", async () => {
    const w = tensor([1, 2], { requiresGrad: true });
    const y = noGrad(() => w.mul(3));
    y.mul(w).sum().backward();
    expect(await w.grad!.tolist()).toEqual([3, 6]);
    await noGrad(async () => {
      expect(isGradEnabled()).toBe(false);
      await w.mul(1).data();
      expect(isGradEnabled()).toBe(false);
      expect(enableGrad(isGradEnabled)).toBe(true);
    });
    expect(isGradEnabled()).toBe(true);
    await expect(noGrad(() => Promise.reject(new Error("x")))).rejects.toThrow("x");
    expect(() =>
      noGrad(() => {
        throw new Error("y");
      }),
    ).toThrow("y");
    expect(isGradEnabled()).toBe(true);
    const same = noGrad(() => w.reshape([2]));
    same.mul(w).sum().backward();
    expect(await w.grad!.tolist()).toEqual([4, 8]);
  });

  test("several tensors in one run", async () => {
    const x = tensor([1, 2]);
    const [a, b] = [x.mul(2), x.mul(3)];
    const device = deviceNamed(x.device);
    const { runs } = device.statistics();
    await realize(a, b);
    expect(device.statistics().runs).toBe(runs + 1);
    expect(await a.tolist()).toEqual([2, 4]);
    expect(await b.tolist()).toEqual([3, 6]);
    expect(device.statistics().runs).toBe(runs + 1);
  });

  test("equal steps are planned once", async () => {
    const device = deviceNamed(tensor(1).device);
    const step = (i: number) =>
      tensor([i, 1])
        .exp()
        .mul(rand([2]))
        .sum()
        .item();
    await step(0);
    const { plansPrepared } = device.statistics();
    for (let i = 1; i < 5; i++) await step(i);
    expect(device.statistics()).toMatchObject({ plansPrepared, planCacheHits: 4 });
  });

  test("random numbers differ from run to run, and not from use to use", async () => {
    const r = rand([4]);
    const [a, b] = [await r.add(0).tolist(), await r.mul(1).tolist()];
    expect(a).toEqual(b);
    expect(await rand([4]).tolist()).not.toEqual(a);
  });

  test("dispose frees at once, in the order of the calls", async () => {
    const device = deviceNamed(tensor(1).device);
    const x = tensor(new Float32Array(1000));
    const y = x.add(1);
    await device.ready();
    const before = device.memory().liveTensors;
    const read = y.data();
    x.dispose();
    expect(await read).toHaveLength(1000);
    await device.ready();
    // Less if the garbage of tests before was collected meanwhile.
    expect(device.memory().liveTensors).toBeLessThanOrEqual(before);
    await expect(x.data()).rejects.toThrow(/dispose/);
    y.dispose();
    expect(device.memory().liveTensors).toBeLessThanOrEqual(before - 1);
    {
      using z = ones([3]).add(1);
      await z.data();
      expect(device.memory().liveTensors).toBeLessThanOrEqual(before);
    }
    expect(device.memory().liveTensors).toBeLessThanOrEqual(before - 1);
  });

  test("dispose of a second name leaves the first alone; a disposed result is recomputed", async () => {
    const x = tensor([1, 2]);
    x.float().dispose();
    expect(await x.tolist()).toEqual([1, 2]);
    const w = tensor([1, 2], { requiresGrad: true });
    const y = w.mul(2);
    await y.data();
    y.dispose();
    expect(await y.add(1).tolist()).toEqual([3, 5]);
    expect(await y.tolist()).toEqual([2, 4]);
  });

  test("a pending assignment that cannot be computed is reported once", async () => {
    const w = tensor([1, 2]);
    let leaked: Tensor | undefined;
    vmap((x: Tensor) => {
      leaked = x.mul(2);
      return x;
    })(ones([2]));
    expect(() => leaked!.data()).toThrow(TransformError);
    w.assign(w.mul(leaked!));
    expect(() => w.data()).toThrow(TransformError);
    expect(await w.tolist()).toEqual([1, 2]);
  });
});

describe("recomputation", () => {
  test("a realised value is not computed again; what was not kept is", async () => {
    const { backend } = inPlace();
    const w = tensor([1, 2], { requiresGrad: true });
    const hidden = w.exp();
    const loss = hidden.mul(hidden).sum();
    await loss.data();
    await loss.data();
    await loss.add(1).data();
    expect(countOps(backend.runs, "exp")).toBe(1);
    loss.backward();
    await w.grad!.data();
    expect(countOps(backend.runs, "exp")).toBe(2);
  });

  test("keeping an activation saves the second computation", async () => {
    const { backend } = inPlace();
    const w = tensor([1, 2], { requiresGrad: true });
    const hidden = w.exp();
    const loss = hidden.mul(hidden).sum();
    await realize(loss, hidden);
    loss.backward();
    await w.grad!.data();
    expect(countOps(backend.runs, "exp")).toBe(1);
  });

  test("forward and backward realised together compute each value once", async () => {
    const { backend } = inPlace();
    const w = tensor([1, 2], { requiresGrad: true });
    const loss = w.exp().square().sum();
    loss.backward();
    await loss.item();
    expect(await w.grad!.tolist()).toHaveLength(2);
    expect(countOps(backend.runs, "exp")).toBe(1);
    expect(backend.runs).toHaveLength(1);
  });

  test("gradients that were dropped before are not computed", async () => {
    const { backend } = inPlace();
    const w = tensor([1, 2], { requiresGrad: true });
    const loss = w.exp().sum();
    loss.backward();
    w.grad = null;
    await loss.item();
    expect(backend.runs[0].outputs).toHaveLength(1);
  });

  test("history is cut where no gradient can flow", async () => {
    use(devices.reference());
    let x = tensor([1, 2]);
    for (let i = 0; i < 3; i++) {
      x = x.add(1);
      await x.data();
    }
    expect(cells.peek(x).op).toBe("buffer");
    const w = tensor([1, 2], { requiresGrad: true });
    const y = w.add(1);
    await y.data();
    expect(cells.peek(y).op).toBe("add");
    const z = grad((t: Tensor) => {
      const inner = t.mul(t);
      void inner.data();
      return inner.sum();
    });
    expect(await z(tensor([3])).tolist()).toEqual([6]);
  });
});

describe("devices", () => {
  test("auto is wasm, and says why", async () => {
    setDefaultDevice("auto");
    expect(deviceInfo().name).toBe("wasm");
    expect(deviceInfo().reason).toMatch(/auto/);
    const device = await init({ device: "reference" });
    expect(device.name).toBe("reference");
    expect(tensor(1).device).toBe("reference");
    await expect(init({ device: "reference", budget: 1 })).rejects.toThrow(DeviceError);
    await expect(init({ device: "gpu" as "wasm" })).rejects.toThrow(DeviceError);
  });

  test("tensors move, and do not mix", async () => {
    use(devices.wasm());
    use(devices.reference());
    const x = tensor([1, 2]);
    const y = await toDevice(x, "wasm");
    expect(y.device).toBe("wasm");
    expect(await y.add(1).tolist()).toEqual([2, 3]);
    expect(await toDevice(x, "reference")).toBe(x);
    expect(() => x.add(y)).toThrow(DeviceError);
    expect(zeros([2]).add(y).device).toBe("wasm");
    y.assign(y.add(1));
    await realize(x.add(1), y);
    expect(await y.tolist()).toEqual([2, 3]);
  });
});

describe.each(names)("memory on %s", (name) => {
  let device: Device;
  beforeEach(() => {
    device = use(devices[name]());
  });

  const train = (w: Tensor, x: Tensor): Tensor => {
    w.grad = null;
    const loss = x.matmul(w).square().mean();
    loss.backward();
    noGrad(() => w.assign(w.sub(w.grad!.mul(0.01))));
    return loss;
  };

  test("300 eager steps leave nothing behind", async () => {
    const w = rand([16, 16]);
    w.requiresGrad = true;
    const step = async () => {
      await train(w, rand([8, 16])).item();
    };
    await expectNoGrowth(device, step, 300);
  });

  test("a recurrence leaves nothing behind", async () => {
    let x = rand([64]);
    await expectNoGrowth(
      device,
      async () => {
        x = x.mul(0.9).add(0.1);
        await x.data();
      },
      300,
    );
  });
});

test("HinodeError is the base of all", () => {
  expect(new DeviceError("x")).toBeInstanceOf(HinodeError);
});
