/** @file SEMANTICS: asynchrony, errors, memory pressure. */
import { beforeEach, describe, expect, test } from "vitest";
import type { CanonicalGraph } from "../../core/backend/backend.ts";
import { WasmBackend } from "../../core/backend/wasm/backend.ts";
import { Device } from "../../core/device.ts";
import type { DType } from "../../core/dtype.ts";
import {
  compile,
  HinodeError,
  IndexOutOfRangeError,
  noGrad,
  OutOfMemoryError,
  QueueFullError,
  realize,
  type Tensor,
  tensor,
  zeros,
} from "../../core/index.ts";
import { type Job, nextTurn, Queue } from "../../core/queue.ts";
import { devices, InPlaceBackend, inPlace, names, use } from "./support.ts";

const keeper = {
  pressed: () => false,
  collect: () => nextTurn(),
  explain: (error: Error) => error,
};

/** A job that ends when it is told to. */
function job(log: string[], name: string, options: Partial<Job> = {}) {
  let end!: () => void;
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const made: Job & { end: () => void } = {
    step: true,
    run: () => {
      log.push(name);
      return ended;
    },
    fail: (e) => void log.push(`${name} failed: ${(e as Error).message}`),
    cancel: (reason) => void log.push(`${name} cancelled: ${reason}`),
    end,
    ...options,
  };
  return made;
}

describe("the queue", () => {
  test("runs later than the call, in order, two at a time", async () => {
    const queue = new Queue(keeper);
    const log: string[] = [];
    const jobs = ["a", "b", "c"].map((name) => job(log, name));
    for (const j of jobs) queue.enqueue(j);
    expect(log).toEqual([]);
    for (let i = 0; i < 5; i++) await nextTurn();
    expect(log).toEqual(["a", "b"]);
    jobs[0].end();
    for (let i = 0; i < 3; i++) await nextTurn();
    expect(log).toEqual(["a", "b", "c"]);
    // A read comes after what was submitted before it, and nothing has to end for that.
    queue.enqueue(job(log, "read", { step: false, run: () => void log.push("read") }));
    let ready = false;
    const allEnded = queue.ready().then(() => {
      ready = true;
    });
    for (let i = 0; i < 3; i++) await nextTurn();
    expect(log).toEqual(["a", "b", "c", "read"]);
    expect(queue.idle).toBe(true);
    expect(ready).toBe(false);
    for (const j of jobs) j.end();
    await allEnded;
    expect(queue.settled()).toBeNull();
  });

  test("waits for what a job prepares, and asks again", async () => {
    const queue = new Queue(keeper);
    const log: string[] = [];
    let waits = 2;
    const prepare = () => {
      log.push("prepare");
      return waits-- > 0 ? nextTurn() : undefined;
    };
    queue.enqueue(job(log, "a", { prepare, run: () => void log.push("a") }));
    queue.enqueue(job(log, "b", { step: false, run: () => void log.push("b") }));
    queue.enqueue(job(log, "c", { prepare: () => Promise.reject(new Error("cannot")) }));
    queue.enqueue(job(log, "d", { run: () => void log.push("d") }));
    await queue.ready();
    expect(log).toEqual(["prepare", "prepare", "prepare", "a", "b", "c failed: cannot", "d"]);
  });

  test("survives a job that fails", async () => {
    const queue = new Queue(keeper);
    const log: string[] = [];
    const run = () => {
      throw new Error("no");
    };
    queue.enqueue(job(log, "a", { run }));
    queue.enqueue(job(log, "b", { run: () => Promise.reject(new Error("later")) }));
    queue.enqueue(job(log, "c", { run: () => void log.push("c") }));
    await queue.ready();
    expect(log.sort()).toEqual(["a failed: no", "b failed: later", "c"]);
  });

  test("tries again after a collection when memory is short", async () => {
    let collections = 0;
    const queue = new Queue({
      ...keeper,
      collect: () => {
        collections++;
        return nextTurn();
      },
    });
    const log: string[] = [];
    const run = () => {
      if (collections < 2) throw new OutOfMemoryError("full");
      log.push("fits");
    };
    queue.enqueue(job(log, "a", { run }));
    queue.enqueue(job(log, "b", { run: () => void log.push("b") }));
    await queue.ready();
    expect(log).toEqual(["fits", "b"]);
  });

  test("an abort cancels what was not submitted", async () => {
    const queue = new Queue(keeper);
    const log: string[] = [];
    const jobs = ["a", "b", "c", "d"].map((name) => job(log, name));
    for (const j of jobs) queue.enqueue(j);
    const controller = new AbortController();
    const ready = queue.ready(controller.signal);
    await nextTurn();
    await nextTurn();
    controller.abort("enough");
    await expect(ready).rejects.toBe("enough");
    expect(log).toEqual(["a", "b", "c cancelled: enough", "d cancelled: enough"]);
    for (const j of jobs) j.end();
    await queue.ready();
    await expect(queue.ready(controller.signal)).rejects.toBe("enough");
  });
});

describe.each(names)("asynchrony on %s", (name) => {
  let device: Device;
  beforeEach(() => {
    device = use(devices[name]());
  });

  test("recording and enqueueing return at once", async () => {
    const x = tensor([1, 2]);
    const y = x.add(1);
    const done = realize(y);
    expect(device.statistics().runs).toBe(0);
    await done;
    expect(device.statistics().runs).toBe(1);
  });

  test("more than 64 waiting steps are refused, before anything changes", async () => {
    const w = tensor([0]);
    const step = compile(() => void w.assign(w.add(1)));
    const run = () => {
      for (let i = 0; i < 1000; i++) step();
    };
    expect(run).toThrow(QueueFullError);
    expect(run).toThrow(/await device\.ready\(\)/);
    expect(() => realize(w.add(1))).toThrow(QueueFullError);
    await device.ready();
    expect(await w.tolist()).toEqual([64]);
    expect(run).toThrow(QueueFullError);
    // Reading is awaiting.
    expect(await Promise.all(Array.from({ length: 100 }, (_, i) => w.add(i).item()))).toHaveLength(
      100,
    );
  });

  test("an error reaches whoever reads, again and again, and only them", async () => {
    const x = tensor([[1, 2, 3]]);
    const bad = x.gather(1, tensor([[7]], { dtype: "i32" }));
    const dependent = bad.mul(2);
    await realize(bad).catch(() => {});
    const error = await bad.data().then(
      () => null,
      (e) => e,
    );
    expect(error).toBeInstanceOf(IndexOutOfRangeError);
    await expect(dependent.data()).rejects.toBe(error);
    await expect(bad.data()).rejects.toBe(error);
    await expect(realize(bad)).rejects.toBe(error);
    expect(await x.add(1).tolist()).toEqual([[2, 3, 4]]);
  });

  test("a failure that nobody awaits is no unhandled rejection", async () => {
    void realize(tensor([[1]]).gather(1, tensor([[7]], { dtype: "i32" })));
    await device.ready();
  });

  test("a value disposed of while it is queued still serves what was asked of it before", async () => {
    const y = tensor([1, 2]).add(1);
    void realize(y);
    const sum = y.sum().item();
    y.dispose();
    expect(await sum).toBe(5);
    await expect(y.data()).rejects.toThrow(HinodeError);
  });

  test("AbortSignal takes a run out of the queue", async () => {
    const controller = new AbortController();
    const [a, b] = [tensor([1]).add(1), tensor([2]).add(1)];
    const done = realize(a, { signal: controller.signal });
    const other = realize(b);
    controller.abort(new Error("stop"));
    await expect(done).rejects.toThrow("stop");
    await other;
    expect(await b.tolist()).toEqual([3]);
    await expect(a.data()).rejects.toThrow("stop");
    expect(() => realize(b.add(1), { signal: controller.signal })).toThrow("stop");
  });

  test("a cell keeps its version when its assignment is aborted", async () => {
    const controller = new AbortController();
    const w = tensor([1]);
    w.assign(w.add(1));
    void realize(w, { signal: controller.signal });
    controller.abort();
    await device.ready();
    expect(await w.item()).toBe(1);
  });

  test("state survives steps that were aborted", async () => {
    const w = tensor([0]);
    const step = compile(() => w.assign(w.add(1)).mul(10));
    await step().item();
    const controller = new AbortController();
    const out = [step(), step(), step()];
    const ready = device.ready({ signal: controller.signal });
    controller.abort(new Error("stop"));
    await expect(ready).rejects.toThrow("stop");
    await expect(out[2].item()).rejects.toThrow("stop");
    expect(await w.tolist()).toEqual([1]);
    expect(await step().item()).toBe(20);
    expect(await w.tolist()).toEqual([2]);
  });
});

describe("memory pressure", () => {
  test("garbage is collected before memory runs out", async () => {
    // Room for 3 values of 1 MB, too few for the engine to collect in time by itself.
    const { device } = inPlace(3 * 2 ** 20);
    let x = zeros([2 ** 18]);
    for (let i = 0; i < 30; i++) {
      x = x.add(1);
      await realize(x);
    }
    expect((await x.data())[0]).toBe(30);
    expect(device.statistics().collections).toBeGreaterThan(0);
  });

  test("uploads wait for a collection too", async () => {
    const { device } = inPlace(4 * 2 ** 20);
    const data = new Float32Array(2 ** 18);
    for (let i = 0; i < 20; i++) {
      data[0] = i;
      expect((await tensor(data).data())[0]).toBe(i);
    }
    expect(device.statistics().collections).toBeGreaterThan(0);
  });

  test("the error lists the largest live tensors with their names", async () => {
    inPlace(1000);
    const big = tensor(new Float32Array(200));
    big.name = "encoder.weight";
    const small = tensor(new Float32Array(10));
    const error = await zeros([500])
      .add(1)
      .data()
      .catch((e) => e);
    expect(error).toBeInstanceOf(OutOfMemoryError);
    expect(error.message).toMatch(/encoder\.weight f32\[200\] 800 bytes\n.*f32\[10\] 40 bytes/);
    expect(await big.add(small.sum()).sum().item()).toBe(0);
  });

  test("a plan that finds no memory is prepared after a collection", async () => {
    let full = true;
    class Full extends InPlaceBackend {
      override prepare(graph: CanonicalGraph) {
        if (full) throw new OutOfMemoryError("no room for a plan");
        return super.prepare(graph);
      }
    }
    const device = use(new Device(new Full()));
    const sum = tensor([1, 2]).sum();
    const read = sum.item();
    full = false;
    expect(await read).toBe(3);
    expect(device.statistics().collections).toBe(0);
    full = true;
    await expect(tensor([1]).exp().item()).rejects.toThrow(OutOfMemoryError);
    expect(device.statistics().collections).toBe(2);
  });

  test("wasm within a budget", async () => {
    const device = use(new Device(new WasmBackend({ budget: 16 * 2 ** 20 })));
    const w = tensor(new Float32Array(2 ** 18));
    w.name = "w";
    let x = w;
    for (let i = 0; i < 40; i++) {
      x = x.add(1);
      await realize(x);
    }
    expect((await x.data())[5]).toBe(40);
    const held: Tensor[] = [];
    const fill = async () => {
      for (let i = 0; i < 40; i++) {
        held.push(w.add(i));
        await realize(held[i]);
      }
    };
    await expect(fill()).rejects.toThrow(/w f32\[262144\] 1048576 bytes/);
    held.length = 0;
    // What the failed run had allocated is free again.
    await device.collect();
    for (let i = 0; i < 10; i++) {
      held.push(w.add(i));
      await realize(held[i]);
    }
    expect((await held[9].data())[0]).toBe(9);
  });

  test("growth is met with a collection, without a budget", async () => {
    // Storages that say they are large: the engine's own collector sees only small arrays.
    class Large extends InPlaceBackend {
      override upload(data: ArrayLike<number>, dtype: DType) {
        return { ...super.upload(data, dtype), bytes: 2 ** 22 };
      }
    }
    const device = use(new Device(new Large()));
    const keep: Tensor[] = [];
    for (let i = 0; i < 100; i++) {
      const x = zeros([4]).add(i);
      await realize(x);
      if (i % 50 === 0) keep.push(x);
    }
    expect(device.statistics().collections).toBeGreaterThan(2);
    expect(device.pool.bytes).toBeLessThanOrEqual(20 * 2 ** 22);
    expect(await keep[1].tolist()).toEqual([50, 50, 50, 50]);
  });

  test("a name given late is known, and a disposed leaf is an error", async () => {
    const { device } = inPlace();
    const w = tensor([1, 2]);
    w.name = "w";
    noGrad(() => w.assign(w.add(1)));
    await realize();
    expect(device.pool.largest(1)).toMatch(/^ {2}w f32\[2\]/);
    w.dispose();
    await expect(w.data()).rejects.toThrow(HinodeError);
  });
});
