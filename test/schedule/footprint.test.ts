/**
 * What explain() says of memory: the peak as laid out, and the bound that no order of the kernels beats. What lowers it:
 * checkpoints, results' own memory, no fused kernel at all for comparison. And that a steady loop plans nothing.
 */
import { checkpoint, compile, defaultDevice, explain, randn, type Tensor } from "hinode";
import { Linear, optim } from "hinode/nn";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WasmBackend } from "../../core/backend/wasm/backend.ts";
import { Device, deviceNamed, registerDevice, setDefaultDevice } from "../../core/device.ts";
import { bytesOf } from "../../core/dtype.ts";
import type { Node } from "../../core/graph/node.ts";
import { footprint } from "../../core/schedule/footprint.ts";
import { schedule } from "../../core/schedule/schedule.ts";
import { onEachDevice } from "../support/devices.ts";
import { compareOnRandomGraphs } from "../support/differential.ts";
import { generator, randomGradientGraph, randomGraph } from "../support/graphs.ts";
import { seed as first } from "../support/seed.ts";

/** Values are placed at multiples of 64 bytes with as much behind them. */
const slack = 128;

describe("explain", () => {
  let fused: Device;
  beforeAll(() => {
    setDefaultDevice("wasm");
    fused = deviceNamed("wasm");
    registerDevice(new Device(new WasmBackend({ fused: false, threads: 1 })));
  });
  afterAll(() => registerDevice(fused));

  test("counts what is held, the results and the values between", () => {
    const x = randn([32, 32]);
    const report = explain(
      compile((t: Tensor) => t.sin().exp().cos()),
      x,
    );
    expect(report.kernels).toHaveLength(3);
    expect(report.bytes).toBe(6 * 4096);
    // In the last kernel: the argument, what it reads, the result; the first value lies where the result will be.
    expect(report.leastBytes).toBe(3 * 4096);
    expect(report.peakBytes).toBeGreaterThanOrEqual(3 * 4096);
    expect(report.peakBytes).toBeLessThanOrEqual(3 * 4096 + slack);
    expect(`${report}`).toMatch(/12\.\d+ kB at most/);
  });

  test("state that is updated in place is counted once", () => {
    const w = randn([32, 32]);
    const step = compile((t: Tensor) => void w.assign(w.mul(t)));
    const report = explain(step, randn([32, 32]));
    expect(report.leastBytes).toBe(2 * 4096);
    expect(report.peakBytes).toBe(2 * 4096);
  });
});

describe("the bound", () => {
  /** A random order of the plan's steps that keeps to what they read. */
  function shuffled(plan: ReturnType<typeof schedule>, next: () => number): number[] {
    const made = new Map<Node, number>();
    plan.steps.forEach(({ group }, i) => {
      for (const n of group.stores.keys()) made.set(n, i);
    });
    const reads = plan.steps.map((s) => (s.k === "group" ? s.reads : s.region.src));
    const order: number[] = [];
    const done = new Set<number>();
    while (order.length < plan.steps.length) {
      const ready = plan.steps.flatMap((_, i) =>
        !done.has(i) &&
        reads[i].every((n) => done.has(made.get(n) ?? i) || made.get(n) === undefined)
          ? [i]
          : [],
      );
      const pick = ready[Math.floor(next() * ready.length)];
      order.push(pick);
      done.add(pick);
    }
    return order;
  }

  test("holds for every order of random graphs' kernels", () => {
    let tight = 0;
    for (let seed = first; seed < first + 150; seed++) {
      const { inputs, outputs } = randomGraph(seed, 24);
      const plan = schedule(inputs, outputs);
      if (plan.steps.some((s) => s.k === "loop")) continue;
      const { leastBytes, peakBytes } = footprint(
        plan,
        plan.scratchBytes,
        plan.outputs.map(() => null),
      );
      expect(leastBytes, `seed ${seed}`).toBeLessThanOrEqual(peakBytes);
      const next = generator(seed);
      const order = shuffled(plan, next);
      const results = new Set(plan.outputs.map(({ node }) => node));
      const held = plan.inputs.reduce((n, x) => n + bytesOf(x), 0);
      // In the end, the outputs.
      let most = [...results].reduce((n, x) => n + bytesOf(x), held);
      const alive = new Set<Node>();
      order.forEach((at, i) => {
        for (const n of plan.steps[at].group.stores.keys()) alive.add(n);
        const bytes = [...alive].reduce((n, x) => n + bytesOf(x), held);
        most = Math.max(most, bytes);
        const later = new Set(
          order.slice(i + 1).flatMap((j) => {
            const step = plan.steps[j];
            return step.k === "group" ? step.reads : [];
          }),
        );
        for (const n of alive) if (!later.has(n) && !results.has(n)) alive.delete(n);
      });
      expect(leastBytes, `seed ${seed}`).toBeLessThanOrEqual(most);
      if (leastBytes === most) tight++;
    }
    expect(tight).toBeGreaterThan(20);
  });

  test("without fusing, results are the same", () => {
    const backend = new WasmBackend({ fused: false, threads: 1 });
    compareOnRandomGraphs(backend, first, first + 60);
    compareOnRandomGraphs(backend, first, first + 30, 12, randomGradientGraph);
  });
});

onEachDevice("memory of a deep model", (device) => {
  const [depth, width, rows] = [12, 8, 256];

  function step(block: (f: (h: Tensor) => Tensor) => (h: Tensor) => Tensor) {
    const layers = Array.from({ length: depth }, () => [
      new Linear(width, width),
      new Linear(width, width),
    ]);
    const x = randn([rows, width]);
    const adamw = new optim.AdamW(layers.flatMap((l) => l.flatMap((m) => [...m.parameters()])));
    return compile(() => {
      let h = x;
      for (const [a, b] of layers) h = block((t) => b.forward(a.forward(t).gelu()).tanh())(h);
      const loss = h.square().mean();
      adamw.zeroGrad();
      loss.backward();
      adamw.step();
      return loss;
    });
  }

  test.skipIf(device === "reference")("checkpoint lowers the peak", () => {
    const plain = explain(step((f) => f));
    const saving = explain(step((f) => checkpoint(f)));
    // Of each layer only its input waits for the backward pass, not what is inside.
    expect(saving.scratchBytes).toBeLessThan(0.6 * plain.scratchBytes);
    expect(saving.peakBytes).toBeLessThan(plain.peakBytes);
    expect(saving.leastBytes).toBeLessThan(plain.leastBytes);
    for (const { peakBytes, leastBytes } of [plain, saving])
      expect(peakBytes).toBeLessThan(1.5 * leastBytes);
  });

  test("a steady loop makes no plan", async () => {
    const train = step((f) => f);
    const eager = randn([4]);
    const run = async (): Promise<void> => {
      await train().item();
      await eager.mul(2).sum().item();
    };
    for (let i = 0; i < 2; i++) await run();
    const { plansPrepared, planCacheHits } = defaultDevice().statistics();
    for (let i = 0; i < 5; i++) await run();
    const after = defaultDevice().statistics();
    expect(after.plansPrepared).toBe(plansPrepared);
    // A compiled step does not even look for its plan; what is not compiled does, and finds it.
    expect(after.planCacheHits).toBe(planCacheHits + 5);
  });
});
