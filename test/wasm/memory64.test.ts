/**
 * @file Addresses of 64 bits: what lies above 4 GiB is computed as what lies below, by one thread and by several, and who asks for
 * more than there can be is told. The gigabytes below are never touched, so they cost nothing.
 */
import { expect, test } from "vitest";
import { maxBytes } from "../../core/backend/wasm/arena.ts";
import { WasmBackend } from "../../core/backend/wasm/backend.ts";
import { Device, registerDevice } from "../../core/device.ts";
import { ArgumentError, OutOfMemoryError } from "../../core/errors.ts";
import { compile, noGrad, randn, tensor, zeros } from "../../core/index.ts";
import { optim, Sequential } from "../../nn/index.ts";
import { Linear } from "../../nn/linear.ts";
import { runGraph } from "../support/differential.ts";
import { seed } from "../support/seed.ts";
import { differentBits, graphsFrom } from "../support/threads.ts";

const GiB = 2 ** 30;

/** A backend whose next allocations begin behind `below` bytes. */
function above(below: number, threads: number): WasmBackend {
  const backend = new WasmBackend({ budget: 16 * GiB, threads, grain: 0 });
  // biome-ignore lint/complexity/useLiteralKeys: private
  backend["arena"].allocate(below);
  return backend;
}

test.each([
  [1, 4.5],
  [2, 4.5],
  [2, 15.5],
])("%d threads above %d GiB: the bits of a small memory", async (threads, gibibytes) => {
  const small = new WasmBackend({ threads: 1 });
  const large = above(gibibytes * GiB, threads);
  await large.ready();
  for (const [i, graph] of graphsFrom(seed, 6).entries())
    expect(differentBits(runGraph(large, graph), runGraph(small, graph)), `graph ${i}`).toBeNull();
  expect(large.memory().reservedBytes).toBeGreaterThan(gibibytes * GiB);
  large.destroy();
});

test("a training step across the border of 4 GiB", async () => {
  const losses = async (backend: WasmBackend): Promise<number[]> => {
    registerDevice(new Device(backend));
    const model = new Sequential(new Linear(6, 8), (x) => x.tanh(), new Linear(8, 1));
    noGrad(() => {
      for (const p of model.parameters()) p.assign(zeros(p.shape).add(0.1));
    });
    const adamw = new optim.AdamW(model.parameters(), { lr: 1e-2 });
    const x = tensor([[1, 2, 3, 4, 5, 6]]);
    const step = compile(() => {
      const loss = model.forward(x).sub(1).square().mean();
      adamw.zeroGrad();
      loss.backward();
      adamw.step();
      return loss;
    });
    const out: number[] = [];
    for (let i = 0; i < 3; i++) out.push((await step().item()) as number);
    return out;
  };
  // Little enough below the border for the first tensors to stand before it and the others behind.
  const want = await losses(new WasmBackend({ threads: 1 }));
  expect(await losses(above(4 * GiB - 4096, 1))).toEqual(want);
  expect(want[2]).toBeLessThan(want[0]);
});

test("budgets choose the addresses, and impossible ones are refused", async () => {
  expect(() => new WasmBackend({ budget: 17 * GiB })).toThrow(ArgumentError);
  expect(() => new WasmBackend({ budget: 5 * GiB, address: 32 })).toThrow(
    /at most 4294967296 bytes with addresses of 32 bits, got 5368709120/,
  );
  registerDevice(new Device(new WasmBackend({ threads: 1 })));
  const row = randn([1, 2 ** 28])
    .expand([5, 2 ** 28])
    .add(1);
  await expect(row.data()).rejects.toThrow(OutOfMemoryError);
  const again = row.mul(1);
  await expect(again.data()).rejects.toThrow("init({ address: 64 }) takes up to 16 GiB");
  expect(maxBytes[64]).toBe(16 * GiB);
});
