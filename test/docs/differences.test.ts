/** @file docs/differences.md: what it claims, section by section; and that no section is without a test. */
import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import {
  arange,
  argmax,
  bincount,
  compile,
  crossEntropy,
  embedding,
  Generator,
  gather,
  grad,
  IndexOutOfRangeError,
  linalg,
  manualSeed,
  maskedSelect,
  max,
  noGrad,
  nonzero,
  oneHot,
  rand,
  randn,
  ShapeError,
  Tensor,
  TransformError,
  tensor,
  unique,
  variance,
  vmap,
} from "hinode";
import { Linear, Module, mseLoss, optim, parameter } from "hinode/nn";
import { beforeAll, describe, expect, test } from "vitest";
import { devices, useDevice } from "../support/devices.ts";

const page = resolve(import.meta.dirname, "../../docs/differences.md");
const i32 = (values: number[]) => tensor(values, { dtype: "i32" });

/** Section to its test. */
const claims: Readonly<Record<string, (device: string) => Promise<void>>> = {
  "Porting a program": async () => {
    class Net extends Module {
      up = new Linear(4, 16);
      down = new Linear(16, 1);
      forward(x: Tensor) {
        const h = this.up.forward(x).relu();
        return this.down.forward(h);
      }
    }
    manualSeed(0);
    const net = new Net();
    const opt = new optim.Adam(net.parameters(), { lr: 1e-2 });
    const x = randn([32, 4]);
    const y = x.sum(1, true);
    const step = compile(() => {
      const loss = mseLoss(net.forward(x), y);
      opt.zeroGrad();
      loss.backward();
      opt.step();
      return loss;
    });
    const before = Number(await step().item());
    for (let t = 0; t < 20; t++) step();
    expect(Number(await step().item())).toBeLessThan(before);
    expect(await tensor([1, 2, 3]).index({ start: 1 }).tolist()).toEqual([2, 3]);
  },

  "Operations only record": async () => {
    const a = tensor([1, 2]);
    expect(() => a.add(tensor([1, 2, 3]))).toThrow(ShapeError);
    const later = gather(a, 0, i32([5])); // no error yet
    await expect(later.data()).rejects.toThrow(IndexOutOfRangeError);
  },

  "Reading is asynchronous": async () => {
    const x = tensor([3]);
    for (const read of [x.item(), x.tolist(), x.data()]) expect(read).toBeInstanceOf(Promise);
    expect(x.relu()).toBeInstanceOf(Tensor);
    const step = compile((t: Tensor) => {
      t.item();
      return t;
    });
    expect(() => step(x)).toThrow(TransformError);
  },

  "Shapes that depend on values": async () => {
    const x = tensor([0, 2, 0, 3]);
    const mask = tensor([true, false, true, false]);
    for (const found of [nonzero(x), unique(x), maskedSelect(x, mask), x.maskedIndex(mask)]) {
      expect(found).toBeInstanceOf(Promise);
      await found;
    }
    let inside: Promise<unknown> = Promise.resolve();
    const row = (t: Tensor) => {
      inside = nonzero(t);
      return t;
    };
    vmap(row)(x.reshape([2, 2]));
    await expect(inside).rejects.toThrow(TransformError);
    expect(oneHot(i32([1]), 3).shape).toEqual([1, 3]);
    expect(bincount(i32([1]), null, 4).shape).toEqual([4]);
    expect(i32([7, 8]).repeatInterleave(i32([1, 2]), 0, { outputSize: 3 }).shape).toEqual([3]);
  },

  "No 64-bit types": async () => {
    expect(tensor([1, 2]).dtype).toBe("f32");
    const bytes = tensor([200, 100], { dtype: "u8" });
    const integers = [argmax(tensor([1, 2])), arange(3), tensor([true]).sum(), bytes.sum()];
    expect(integers.map((t) => t.dtype)).toEqual(["i32", "i32", "i32", "i32"]);
    expect(await bytes.sum().item()).toBe(300);
  },

  "Numbers in expressions": async () => {
    expect(i32([1, 2]).mul(2.0).dtype).toBe("i32");
    expect(tensor([1, 2], { dtype: "f16" }).mul(1.5).dtype).toBe("f16");
    expect(() => i32([1, 2]).mul(1.5)).toThrow(/float\(\)/);
  },

  "Singular matrices": async () => {
    const zero = tensor([[0, 0], [0, 0]]); // biome-ignore format: a matrix
    for (const result of [
      linalg.inv(zero),
      linalg.solve(zero, tensor([1, 1])),
      linalg.cholesky(zero.sub(1)),
    ])
      expect([...(await result.data())].some((v) => !Number.isFinite(v))).toBe(true);
  },

  "Subnormal numbers": async (device) => {
    if (device === "webgpu") return; // may, not must
    expect(await tensor([1e-40]).mul(2).item()).toBe(Math.fround(Math.fround(1e-40) * 2));
  },

  "Views are values": async () => {
    const x = tensor([1, 2]);
    const views = [x.reshape([2, 1]), x.index({ start: 0 }), x.T];
    x.assign(tensor([5, 6]));
    for (const v of views) expect([...(await v.data())]).toEqual([1, 2]);
  },

  "In-place operations": async () => {
    const x = tensor([1, 2]);
    x.assign(x.add(3));
    expect(await x.tolist()).toEqual([4, 5]);
    expect(await x.indexPut([i32([0])], 9).tolist()).toEqual([9, 5]);
  },

  "Several results": async () => {
    const { values, indices } = max(tensor([[3, 7, 7]]), 1);
    expect([await values.tolist(), await indices.tolist()]).toEqual([[7], [1]]);
    const pairs = [tensor([2, 1]).sort(), tensor([2, 1]).topk(1), tensor([2, 1]).cummax(0)];
    for (const pair of pairs) expect(Object.keys(pair)).toEqual(["values", "indices"]);
  },

  "Reserved words": async () => {
    expect(await variance(tensor([1, 3])).item()).toBe(2);
    expect(await tensor([1, 3]).var().item()).toBe(2);
  },

  requiresGrad: async () => {
    const w = parameter(tensor([2]));
    const y = w.mul(w);
    expect([w.requiresGrad, y.requiresGrad]).toEqual([true, false]);
    y.sum().backward();
    y.sum().backward();
    expect(await w.grad!.tolist()).toEqual([8]);
  },

  Transforms: async () => {
    const x = tensor([3]);
    const captured = x.mul(2);
    expect(await grad((t: Tensor) => t.mul(captured).sum())(x).tolist()).toEqual([6]);
  },

  "noGrad and autocast": async () => {
    const w = parameter(tensor([2]));
    const detached = noGrad(() => w.mul(3));
    w.mul(detached).sum().backward();
    expect(await w.grad!.tolist()).toEqual([6]);
  },

  crossEntropy: async () => {
    const logits = tensor([[1, 2]]);
    expect(await crossEntropy(logits, i32([-100])).item()).toBeNaN();
    const ignored = crossEntropy(logits, i32([-100]), { ignoreIndex: -100, reduction: "sum" });
    expect(await ignored.item()).toBe(0);
  },

  "Indices out of range": async () => {
    const x = tensor([1, 2]);
    const wrong = [gather(x, 0, i32([2])), x.indexSelect(0, i32([2])), embedding(i32([2]), x.reshape([2, 1])), gather(x, 0, i32([-1]))]; // biome-ignore format: one line
    for (const t of wrong) await expect(t.data()).rejects.toThrow(IndexOutOfRangeError);
    const fromTheEnd = [x.index(-1), x.take(i32([-1])), x.select(0, -1)];
    for (const t of fromTheEnd) expect(Number(await t.item())).toBe(2);
  },

  Randomness: async (device) => {
    const drawn = await rand([4], { generator: new Generator(7) }).tolist();
    expect(await compile(() => rand([4], { generator: new Generator(7) }))().tolist()).toEqual(
      drawn,
    );
    await useDevice("reference");
    expect(await rand([4], { generator: new Generator(7) }).tolist()).toEqual(drawn);
    await useDevice(device as "wasm");
  },
};

const text = readFileSync(page, "utf8");
const sections = text.split(/^##+ /m).slice(1);

test("every section has a test or links one", () => {
  const titles = sections.map((s) => s.slice(0, s.indexOf("\n")));
  const bare = titles.filter((title, i) => {
    const own = sections[i].slice(title.length).trim();
    if (!own || title in claims) return false; // a heading alone; a test below
    const linked = /\]\(\.\.\/(test\/[\w/.-]+)\)/.exec(own)?.[1];
    return !linked || !existsSync(resolve(page, "../..", linked));
  });
  expect(bare).toEqual([]);
  expect(Object.keys(claims).filter((title) => !titles.includes(title))).toEqual([]);
});

describe.each(devices)("on %s", (device) => {
  beforeAll(() => useDevice(device));
  test.for(Object.entries(claims))("%s", ([, claim]) => claim(device));
});
