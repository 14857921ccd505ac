/** @file SEMANTICS: compile, sentence by sentence. */
import { beforeEach, describe, expect, test, vi } from "vitest";
import { cells } from "../../core/cells.ts";
import { type Device, setDefaultDevice } from "../../core/device.ts";
import {
  ArgumentError,
  checkpoint,
  compile,
  dropout,
  Generator,
  grad,
  isGradEnabled,
  manualSeed,
  noGrad,
  rand,
  type Tensor,
  TransformError,
  tensor,
  vmap,
  zeros,
} from "../../core/index.ts";
import { traceGuard } from "../../core/trace.ts";
import { devices, inPlace, names, use } from "./support.ts";
import { expectNoGrowth } from "./support-memory.ts";

describe.each(names)("compile on %s", (name) => {
  let device: Device;
  beforeEach(() => {
    device = use(devices[name]());
  });

  /** `fn` compiled, and how often it ran. */
  function counted<A extends unknown[], R>(fn: (...args: A) => R) {
    let traces = 0;
    const compiled = compile((...args: A) => {
      traces++;
      return fn(...args);
    });
    return { compiled, traces: () => traces };
  }

  test("runs the function once per signature", async () => {
    const { compiled, traces } = counted((x: Tensor, k: number) => x.mul(k));
    for (let i = 0; i < 3; i++) expect(await compiled(tensor([i]), 2).item()).toBe(2 * i);
    expect(traces()).toBe(1);
    await compiled(tensor([1, 2]), 2).data();
    expect(traces()).toBe(2);
    await compiled(tensor([1], { dtype: "i32" }), 2).data();
    expect(traces()).toBe(3);
    await compiled(tensor([1]), 3).data();
    expect(traces()).toBe(4);
    noGrad(() => compiled(tensor([1]), 2));
    expect(traces()).toBe(5);
    compiled(tensor([1], { requiresGrad: true }), 2);
    expect(traces()).toBe(6);
    expect(await compiled(tensor([4]), 2).item()).toBe(8);
    expect(traces()).toBe(6);
  });

  test("arguments and results are trees", async () => {
    const { compiled, traces } = counted(
      ({ xs, scale }: { xs: Tensor[]; scale: number | null }) => ({
        sum: xs[0].add(xs[1]),
        rest: [xs[0].mul(scale ?? 1), "text", null],
      }),
    );
    const call = (scale: number | null) => compiled({ xs: [tensor([1]), tensor([2])], scale });
    const { sum, rest } = call(5);
    expect(await sum.item()).toBe(3);
    expect(await (rest[0] as Tensor).item()).toBe(5);
    expect(rest.slice(1)).toEqual(["text", null]);
    expect(await (call(null).rest[0] as Tensor).item()).toBe(1);
    call(5);
    expect(traces()).toBe(2);
    expect(() => compile((x: Float32Array) => tensor(x))(new Float32Array(2))).toThrow(
      ArgumentError,
    );
  });

  test("state is found by cell and read anew at each call", async () => {
    const w = tensor([1]);
    const { compiled, traces } = counted((x: Tensor) => x.mul(w));
    expect(await compiled(tensor([2])).item()).toBe(2);
    w.assign(tensor([10]));
    expect(await compiled(tensor([2])).item()).toBe(20);
    w.assign(w.add(1));
    expect(await compiled(tensor([2])).item()).toBe(22);
    expect(traces()).toBe(1);
  });

  test("state that is assigned is updated, as in the eager function", async () => {
    const make = () => {
      const [w, m] = [tensor([1, 2]), zeros([2])];
      const step = (x: Tensor) => {
        const before = w.mul(1);
        m.assign(m.mul(0.5).add(x));
        w.assign(w.sub(m));
        m.assign(m.add(w));
        return [before, w.mul(2), m];
      };
      return { w, m, step };
    };
    const [eager, compiled] = [make(), make()];
    const fast = compile(compiled.step);
    const all: Promise<unknown>[] = [];
    for (let i = 0; i < 4; i++) {
      const [a, b] = [eager.step(tensor([i, 1])), fast(tensor([i, 1]))];
      for (const k of [0, 1, 2]) expect(await b[k].tolist()).toEqual(await a[k].tolist());
      all.push(b[2].tolist());
    }
    expect(await compiled.w.tolist()).toEqual(await eager.w.tolist());
    expect(await compiled.m.tolist()).toEqual(await eager.m.tolist());
    expect(new Set((await Promise.all(all)).map(String)).size).toBe(4);
  });

  test("cells that exchange their values, or get their own", async () => {
    const [a, b, c] = [tensor([1, 2]), tensor([3, 4]), tensor([5, 6])];
    const swap = compile(() => {
      const [x, y] = [a.mul(1), b.mul(1)];
      a.assign(y);
      b.assign(x);
      c.assign(c.mul(1));
      return [x, y];
    });
    for (let i = 0; i < 5; i++) swap();
    const [x, y] = swap();
    expect([await x.tolist(), await y.tolist()]).toEqual([
      [3, 4],
      [1, 2],
    ]);
    expect([await a.tolist(), await b.tolist()]).toEqual([
      [1, 2],
      [3, 4],
    ]);
    const plain = compile(() => {
      const old = a.detach();
      a.assign(b);
      b.assign(old);
      c.assign(c);
    });
    for (let i = 0; i < 5; i++) plain();
    expect([await a.tolist(), await b.tolist()]).toEqual([
      [3, 4],
      [1, 2],
    ]);
    expect(await c.tolist()).toEqual([5, 6]);
    const reversed = compile(() => void a.assign(a.flip([0]).add(a)));
    for (let i = 0; i < 3; i++) reversed();
    expect(await a.tolist()).toEqual([28, 28]);
  });

  test("reads made before a call keep their version", async () => {
    const w = tensor([1]);
    const step = compile(() => void w.assign(w.add(1)));
    step();
    step();
    const before = w.mul(10);
    step();
    step();
    expect(await before.item()).toBe(30);
    expect(await w.item()).toBe(5);
    const read = w.data();
    step();
    expect([...(await read)]).toEqual([5]);
    expect(await w.item()).toBe(6);
  });

  test("outputs are never overwritten by a later call", async () => {
    const w = tensor([0]);
    const step = compile((x: Tensor) => {
      w.assign(w.add(x));
      return { same: w, argument: x, double: w.mul(2) };
    });
    const one = tensor([1]);
    const outs = Array.from({ length: 5 }, () => step(one));
    for (const [i, out] of outs.entries()) {
      expect(await out.same.item()).toBe(i + 1);
      expect(await out.double.item()).toBe(2 * i + 2);
      expect(await out.argument.item()).toBe(1);
    }
    expect(await one.item()).toBe(1);
    outs[4].argument.assign(tensor([9]));
    expect(await one.item()).toBe(1);
  });

  test("a captured tensor that is no leaf yet is realised once", async () => {
    const mask = zeros([2]).add(3);
    const step = compile((x: Tensor) => x.mul(mask));
    expect(await step(tensor([1, 2])).tolist()).toEqual([3, 6]);
    expect(await step(tensor([2, 2])).tolist()).toEqual([6, 6]);
  });

  test("an argument may be assigned", async () => {
    const add = compile((w: Tensor, x: Tensor) => void w.assign(w.add(x)));
    const [a, b] = [tensor([1]), tensor([10])];
    for (let i = 0; i < 3; i++) add(a, tensor([1]));
    add(b, b);
    expect(await a.item()).toBe(4);
    expect(await b.item()).toBe(20);
  });

  test("training: gradients, optimizer state, returned loss", async () => {
    const make = () => {
      const w = tensor([1, 2], { requiresGrad: true });
      const m = zeros([2]);
      const step = (x: Tensor) => {
        w.grad = null;
        const loss = w.mul(x).square().sum();
        loss.backward();
        noGrad(() => {
          m.assign(m.mul(0.9).add(w.grad!));
          w.assign(w.sub(m.mul(0.01)));
        });
        return loss;
      };
      return { w, m, step };
    };
    const [eager, compiled] = [make(), make()];
    const fast = compile(compiled.step);
    for (let i = 0; i < 6; i++) {
      const x = tensor([1, i]);
      expect(await fast(x).item()).toBeCloseTo((await eager.step(x).item()) as number, 4);
      // The gradient that the step left is there to be read.
      expect(await compiled.w.grad!.tolist()).toEqual(await eager.w.grad!.tolist());
    }
    expect(await compiled.w.tolist()).toEqual(await eager.w.tolist());
  });

  test("gradients accumulate over several calls", async () => {
    const w = tensor([1, 2], { requiresGrad: true });
    const { compiled, traces } = counted((x: Tensor) => {
      const loss = w.mul(x).sum();
      loss.backward();
      return loss;
    });
    for (let round = 0; round < 3; round++) {
      for (const x of [1, 2, 3, 4]) compiled(tensor([x, 1]));
      expect(await w.grad!.tolist()).toEqual([10, 4]);
      w.grad = null;
    }
    // With and without a gradient to add to.
    expect(traces()).toBe(2);
    const first = w.mul(5).sum();
    first.backward();
    compiled(tensor([1, 1]));
    expect(await w.grad!.tolist()).toEqual([6, 6]);
    expect(traces()).toBe(2);
  });

  test("gradients of arguments are accumulated in the arguments", async () => {
    const { compiled, traces } = counted((w: Tensor) => {
      const loss = w.square().sum();
      loss.backward();
      return loss;
    });
    const w = tensor([1, 2], { requiresGrad: true });
    compiled(w);
    compiled(w);
    compiled(w);
    expect(await w.grad!.tolist()).toEqual([6, 12]);
    const v = tensor([3, 4], { requiresGrad: true });
    compiled(v);
    expect(await v.grad!.tolist()).toEqual([6, 8]);
    expect(traces()).toBe(2);
  });

  test("one cell under two names: arguments, or an argument and a captured tensor", async () => {
    const { compiled, traces } = counted((x: Tensor, y: Tensor) => {
      const loss = x.mul(3).add(y.mul(5)).sum();
      loss.backward();
      return loss;
    });
    const [w, v] = [tensor([2], { requiresGrad: true }), tensor([1], { requiresGrad: true })];
    expect(await compiled(w, w).item()).toBe(16);
    expect(await w.grad!.tolist()).toEqual([8]);
    compiled(w, v);
    compiled(w, w);
    expect(await w.grad!.tolist()).toEqual([19]);
    expect(await v.grad!.tolist()).toEqual([5]);
    expect(traces()).toBe(3); // one cell, two cells, and one that has a gradient already
    const captured = compile((x: Tensor) => {
      x.assign(x.add(state));
      return state.mul(2);
    });
    const [state, other] = [tensor([1]), tensor([10])];
    expect(await captured(other).tolist()).toEqual([2]);
    expect(await captured(state).tolist()).toEqual([4]);
    expect(await captured(other).tolist()).toEqual([4]);
    expect([await other.tolist(), await state.tolist()]).toEqual([[13], [2]]);
  });

  test("a gradient that is changed in place, or forgotten", async () => {
    const w = tensor([3, 4], { requiresGrad: true });
    const clip = compile(() => {
      w.grad!.assign(w.grad!.mul(0.5));
    });
    const forget = compile(() => {
      w.sum().backward();
      w.grad = null;
    });
    w.sum().backward();
    clip();
    clip();
    expect(await w.grad!.tolist()).toEqual([0.25, 0.25]);
    forget();
    expect(w.grad).toBeNull();
  });

  test("freezing a parameter is a change of signature", async () => {
    const w = tensor([1], { requiresGrad: true });
    const v = tensor([1], { requiresGrad: true });
    const { compiled, traces } = counted(() => w.mul(v).sum().backward());
    compiled();
    w.requiresGrad = false;
    w.grad = null;
    v.grad = null;
    compiled();
    expect(w.grad).toBeNull();
    expect(await v.grad!.item()).toBe(1);
    expect(traces()).toBe(2);
  });

  test("randomness is drawn anew, as the eager function draws", async () => {
    const fn = () => {
      const unused = rand([2]);
      void unused;
      return dropout(rand([8]), 0.5);
    };
    manualSeed(7);
    const eager = [fn(), fn(), fn()];
    const want = await Promise.all(eager.map((t) => t.tolist()));
    manualSeed(7);
    const fast = compile(fn);
    const got = [];
    for (let i = 0; i < 3; i++) got.push(await fast().tolist());
    expect(got).toEqual(want);
    expect(new Set(want.map(String)).size).toBe(3);
  });

  test("random numbers of a generator that is seeded again repeat", async () => {
    const generator = new Generator(3);
    const fast = compile(() => rand([4], { generator }));
    const first = await fast().tolist();
    expect(await fast().tolist()).not.toEqual(first);
    generator.manualSeed(3);
    expect(await fast().tolist()).toEqual(first);
  });

  test("guards that the function set are asked before each replay", async () => {
    const module = { training: true };
    const { compiled, traces } = counted((x: Tensor) => {
      const training = module.training;
      traceGuard(() => module.training === training);
      return training ? x.mul(2) : x;
    });
    const x = tensor([3]);
    const run = async (training: boolean) => {
      module.training = training;
      return compiled(x).item();
    };
    expect(await run(true)).toBe(6);
    expect(await run(false)).toBe(3);
    expect(await run(true)).toBe(6);
    expect(await run(false)).toBe(3);
    expect(traces()).toBe(2);
  });

  test("reading a traced value is an error that says so", () => {
    const w = tensor([1]);
    for (const read of [
      (x: Tensor) => void x.data(),
      (x: Tensor) => void x.item(),
      () => void w.item(),
    ]) {
      expect(() => compile(read)(tensor([1]))).toThrow(TransformError);
      expect(() => compile(read)(tensor([1]))).toThrow(/being traced/);
    }
    expect(() => compile(async (x: Tensor) => x)(tensor([1]))).toThrow(/synchronous/);
  });

  test("a function that throws leaves the cells as they were", async () => {
    const w = tensor([1], { requiresGrad: true });
    const step = compile(() => {
      w.mul(2).sum().backward();
      noGrad(() => w.assign(w.add(1)));
      throw new Error("no");
    });
    expect(step).toThrow("no");
    expect(await w.item()).toBe(1);
    expect(w.grad).toBeNull();
    expect(isGradEnabled()).toBe(true);
  });

  test("a traced tensor left in a field is an error when it is used", async () => {
    const holder: { cache?: Tensor } = {};
    const step = compile((x: Tensor) => {
      holder.cache = x.mul(2);
      return holder.cache;
    });
    const out = step(tensor([1]));
    expect(() => holder.cache!.add(1)).toThrow(TransformError);
    expect(() => holder.cache!.data()).toThrow(/left in a variable or field/);
    expect(await out.add(1).item()).toBe(3);
    const other = compile((x: Tensor) => x.add(holder.cache!));
    expect(() => other(tensor([1]))).toThrow(TransformError);
    expect(() => step(holder.cache!)).toThrow(TransformError);
  });

  test("a value of a transform inside that reaches state is an error", () => {
    const w = tensor([1]);
    const step = compile((x: Tensor) => {
      let kept: Tensor | undefined;
      vmap((row: Tensor) => {
        kept = row;
        return row;
      })(x);
      return kept!;
    });
    expect(() => step(zeros([2, 1]))).toThrow(TransformError);
    expect(cells.peek(w).op).toBe("buffer");
  });

  test("compiled functions are inlined in traces and transforms", async () => {
    const w = tensor([2]);
    const inner = compile((x: Tensor) => x.mul(w).square());
    const outer = compile((x: Tensor) => inner(x).add(1));
    expect(await outer(tensor([3])).item()).toBe(37);
    expect(await grad((x: Tensor) => inner(x).sum())(tensor([3])).item()).toBe(24);
    expect(await vmap(inner)(tensor([[1], [2]])).tolist()).toEqual([[4], [16]]);
  });

  test("transforms inside", async () => {
    const fast = compile((x: Tensor) => [
      grad((t: Tensor) => checkpoint((u: Tensor) => u.exp().square())(t).sum())(x),
      vmap((t: Tensor) => t.sum())(x.reshape([2, 1])),
    ]);
    const [a, b] = fast(tensor([0, 1]));
    expect((await a.data())[0]).toBe(2);
    expect((await a.data())[1]).toBeCloseTo(2 * Math.E ** 2, 4);
    expect(await b.tolist()).toEqual([0, 1]);
  });

  test("debug reports what differs between two traces", async () => {
    const bad = compile((x: Tensor) => x.mul(2).add(Math.random()), { debug: true });
    expect(() => bad(tensor([1]))).toThrow(/constant f32\[\]/);
    let count = 0;
    const grows = compile((x: Tensor) => (count++ > 0 ? x.exp() : x), { debug: true });
    expect(() => grows(tensor([1]))).toThrow(/exp f32\[1\]/);
    manualSeed(1);
    const good = compile(() => rand([3]), { debug: true });
    const first = [await good().tolist(), await good().tolist()];
    manualSeed(1);
    expect(first).toEqual([await rand([3]).tolist(), await rand([3]).tolist()]);
  });

  test("more than eight signatures warn once, and all still work", async () => {
    const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
    const { compiled, traces } = counted((x: Tensor, k: number) => x.mul(k));
    for (let round = 0; round < 2; round++)
      for (let k = 0; k < 10; k++) expect(await compiled(tensor([1]), k).item()).toBe(k);
    expect(warn).toHaveBeenCalledTimes(1);
    expect(traces()).toBe(20);
    await compiled(tensor([1]), 9).data();
    await compiled(tensor([1]), 5).data();
    expect(traces()).toBe(20);
    warn.mockRestore();
  });

  test("a function of nothing, and one that changes nothing", async () => {
    expect(compile(() => 3)()).toBe(3);
    const zero = compile(() => zeros([2]).add(1));
    expect(await zero().tolist()).toEqual([1, 1]);
    const identity = compile((x: Tensor) => x);
    const x = tensor([1]);
    expect(await identity(x).item()).toBe(1);
    expect(identity(x)).not.toBe(x);
  });

  test("the plan is prepared once", async () => {
    const w = tensor([1]);
    const step = compile((x: Tensor) => w.assign(w.mul(x)).add(1));
    await step(tensor([2])).item();
    const { plansPrepared, runs } = device.statistics();
    for (let i = 0; i < 10; i++) step(tensor([1]));
    await device.ready();
    expect(device.statistics()).toMatchObject({ plansPrepared, runs: runs + 10 });
  });

  test("300 compiled steps leave nothing behind", async () => {
    const w = rand([16, 16]);
    w.requiresGrad = true;
    const m = zeros([16, 16]);
    const step = compile((x: Tensor) => {
      w.grad = null;
      const loss = dropout(x.matmul(w)).square().mean();
      loss.backward();
      noGrad(() => {
        m.assign(m.mul(0.9).add(w.grad!));
        w.assign(w.sub(m.mul(0.01)));
      });
      return loss;
    });
    await expectNoGrowth(device, () => step(rand([8, 16])).item(), 300);
  });
});

describe("donation", () => {
  const steps = (n: number, step: () => unknown) => {
    for (let i = 0; i < n; i++) step();
  };

  test("state is overwritten once nobody else can see it", async () => {
    const { device, backend } = inPlace();
    const w = tensor([1, 2, 3, 4]);
    const m = zeros([4]);
    const step = compile(() => {
      m.assign(m.add(1));
      w.assign(w.add(m));
    });
    steps(4, step);
    await device.collect();
    const live = device.memory().liveTensors;
    // m was recorded as zeros and so has no storage of its own before the first call ends.
    expect(backend.inPlace.slice(-4)).toEqual([16, 32, 32, 32]);
    const leaf = cells.peek(w);
    step();
    await device.ready();
    expect(cells.peek(w)).toBe(leaf);
    expect(device.memory().liveTensors).toBe(live);
    expect(await w.tolist()).toEqual([16, 17, 18, 19]);
  });

  test("a reader makes the next step copy, the one after does not", async () => {
    const { device, backend } = inPlace();
    const w = tensor([1]);
    const step = compile(() => void w.assign(w.add(1)));
    steps(2, step);
    const seen = w.mul(1);
    steps(2, step);
    await device.ready();
    expect(backend.inPlace).toEqual([4, 4, 0, 4]);
    expect(await seen.item()).toBe(3);
  });

  test("state that is passed as an argument too is one cell, as in the eager function", async () => {
    const { device, backend } = inPlace();
    const w = tensor([1]);
    const step = compile((x: Tensor) => {
      w.assign(w.add(1));
      return x.add(w);
    });
    expect(await step(w).item()).toBe(4);
    expect(await step(w).item()).toBe(6);
    await device.ready();
    expect(backend.inPlace).toEqual([4, 4]);
    expect(await w.item()).toBe(3);
    expect(await step(tensor([10])).item()).toBe(14);
    expect(await step(w).item()).toBe(10);
  });

  test("gradients of a step are freed before they are written again", async () => {
    const { device } = inPlace(4 * 4000 + 200);
    const w = tensor(new Float32Array(1000), { requiresGrad: true });
    const step = compile((x: Tensor) => {
      w.grad = null;
      w.mul(x).sum().backward();
    });
    // w, its gradient, and no room for a third. Nobody looks at the gradient before the end: it would be theirs to keep.
    for (let i = 0; i < 5; i++) {
      step(tensor([i]));
      await device.ready();
    }
    expect((await w.grad!.data())[7]).toBe(4);
    expect(device.statistics().collections).toBe(0);
  });

  test("a bad index in one batch is told, and costs no state", async () => {
    const table = tensor([[1], [2], [3]]);
    const w = tensor([1]);
    const step = compile((ids: Tensor) => {
      const picked = table.indexSelect(0, ids).sum();
      w.assign(w.mul(2).add(picked.mul(0)));
      return picked;
    });
    const batch = (...ids: number[]) => tensor(ids, { dtype: "i32" });
    expect(await step(batch(0, 2)).item()).toBe(4);
    await expect(step(batch(0, 7)).item()).rejects.toThrow(/7/);
    expect(await w.item()).toBe(2);
    expect(await step(batch(1)).item()).toBe(2);
    expect(await w.item()).toBe(4);
  });

  test("mixing default devices makes another plan", async () => {
    const device = use(devices.reference());
    const fn = compile(() => zeros([1]).add(2));
    expect(await fn().item()).toBe(2);
    setDefaultDevice("reference");
    await fn().item();
    expect(device.statistics().plansPrepared).toBe(1);
  });
});
