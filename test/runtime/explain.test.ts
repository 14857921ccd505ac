/** @file explain() and trees. */
import { beforeEach, describe, expect, test } from "vitest";
import type { CanonicalGraph, Executable } from "../../core/backend/backend.ts";
import { Device } from "../../core/device.ts";
import {
  ArgumentError,
  compile,
  explain,
  manualSeed,
  rand,
  type Tensor,
  tensor,
  zeros,
} from "../../core/index.ts";
import { flatten, matches, sameStructure, unflatten } from "../../core/tree.ts";
import { devices, InPlaceBackend, names, use } from "./support.ts";

class Reporting extends InPlaceBackend {
  override prepare(graph: CanonicalGraph): Executable {
    const kernel = {
      name: "k",
      kind: "map",
      bytes: 2_500_000,
      flops: 100,
      writes: [{ shape: [2], dtype: "f32", reason: "an output" }],
      source: "",
    } as const;
    return { ...super.prepare(graph), kernels: [kernel, kernel], scratchBytes: 2048 };
  }
}

describe("explain", () => {
  let device: Device;
  beforeEach(() => {
    device = use(new Device(new Reporting()));
  });

  test("reports the kernels of a tensor without running them", async () => {
    const x = tensor([1, 2]).mul(3);
    x.name = "x";
    const report = explain(x);
    expect(report).toMatchObject({ bytes: 5_000_000, flops: 200, scratchBytes: 2048 });
    expect(report.kernels).toHaveLength(2);
    expect(String(report)).toMatchInlineSnapshot(`
      "x f32[2] on reference: 2 kernels, 5.00 MB moved, 200 FLOP, 2.05 kB scratch
      1. map k: 2.50 MB, 100 FLOP
           writes f32[2]: an output
      2. map k: 2.50 MB, 100 FLOP
           writes f32[2]: an output"
    `);
    expect(device.statistics().runs).toBe(0);
    await x.data();
    expect(device.statistics()).toMatchObject({ plansPrepared: 1, planCacheHits: 1 });
    expect(String(explain(x))).toMatch(/computed already: 0 kernels/);
  });

  test("reports a compiled function's plan, which the call then uses", async () => {
    const w = tensor([1]);
    let traces = 0;
    const step = compile(function update(x: Tensor) {
      traces++;
      w.assign(w.add(x).add(rand([1])));
    });
    manualSeed(1);
    expect(String(explain(step, zeros([1])))).toMatch(/^update on reference: 2 kernels/);
    expect(traces).toBe(1);
    expect(await w.item()).toBe(1);
    step(zeros([1]));
    expect(traces).toBe(1);
    manualSeed(1);
    expect(await w.item()).toBeCloseTo(1 + ((await rand([1]).item()) as number), 6);
    expect(device.statistics().kernelsRun).toBeGreaterThan(0);
    expect(() => explain(() => 1)).toThrow(ArgumentError);
  });
});

test.each(names)("explain on %s names the device", (name) => {
  const device = use(devices[name]());
  expect(String(explain(tensor([1, 2]).exp()))).toContain(`on ${device.name}`);
});

describe("trees", () => {
  const [a, b] = [zeros([1]), zeros([2])];
  const tree = { x: [a, 1, { y: b }], z: null, f: Math.sin };

  test("flatten and unflatten are inverse", () => {
    const { tensors, spec } = flatten(tree);
    expect(tensors).toEqual([a, b]);
    expect(unflatten(spec, tensors)).toEqual(tree);
  });

  test("matches compares structure and static leaves", () => {
    const { spec } = flatten(tree);
    const found: Tensor[] = [];
    expect(matches(spec, { x: [b, 1, { y: a }], z: null, f: Math.sin }, found)).toBe(true);
    expect(found).toEqual([b, a]);
    const others: unknown[] = [
      { x: [a, 2, { y: b }], z: null, f: Math.sin },
      { x: [a, 1, { y: b }, a], z: null, f: Math.sin },
      { x: [a, 1, { w: b }], z: null, f: Math.sin },
      { x: [a, 1, { y: b }], z: null, f: Math.cos },
      { x: [a, 1, { y: b }], z: null },
      { x: [a, 1, { y: 1 }], z: null, f: Math.sin },
      a,
      null,
    ];
    for (const other of others) expect(matches(spec, other, [])).toBe(false);
    expect(matches(flatten([NaN, 0]).spec, [NaN, 0], [])).toBe(true);
    expect(matches(flatten([0]).spec, [-0], [])).toBe(false);
    expect(sameStructure(spec, flatten({ ...tree }).spec)).toBe(true);
    expect(sameStructure(spec, flatten([a, b]).spec)).toBe(false);
  });
});
