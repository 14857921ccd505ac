import { readFileSync } from "node:fs";
import fc from "fast-check";
import * as h from "hinode";
import { ArgumentError, customGradient, customKernel, type Tensor } from "hinode";
import * as t from "hinode/testing";
import { describe, expect, test } from "vitest";
import { devices, onEachDevice, useDevice } from "../support/devices.ts";

/** The counterexample that a check ends with. */
async function found(check: Promise<void>): Promise<t.CounterexampleError> {
  const error = await check.then(
    () => new Error("the check found nothing"),
    (e) => e,
  );
  expect(error).toBeInstanceOf(t.CounterexampleError);
  return error;
}

/** What a printed program prints, where `names` are in scope. */
async function printed(code: string, names: Record<string, unknown>): Promise<unknown[]> {
  const lines: unknown[] = [];
  const scope = { ...h, ...names, console: { log: (x: unknown) => lines.push(x) } };
  const body = code.replace(/^import \{ (.*) \} from "hinode";$/m, "");
  expect(body).not.toBe(code);
  const keys = Object.keys(scope).filter((k) => new RegExp(`\\b${k}\\b`).test(code));
  const run = new Function(...keys, `return (async () => { ${body} })();`);
  await run(...keys.map((k) => (scope as Record<string, unknown>)[k]));
  return lines;
}

const matrices = t.tensors({ shape: t.shapes({ minRank: 2, maxRank: 2, maxDim: 5 }) });

/** Sums of rows; `wrong`: those of more than two columns lack the last one. */
const rowSums = (wrong: boolean) =>
  customKernel({
    name: "sums",
    inputs: ["x"],
    outputs: ({ shape, dtype }) => ({ y: { shape: shape.slice(0, 1), dtype } }),
    reference: (x) => x.sum(1),
    kernel: (k) => {
      const [x] = k.inputs;
      const [rows, columns] = x.shape;
      k.parallel(rows, (r) => {
        const total = k.accumulate("sum");
        const count = wrong && columns > 2 ? columns - 1 : columns;
        k.vector(count, (c) => total.update(x.at(r, c)));
        k.outputs[0].set([r], total.value);
      });
    },
  });

onEachDevice("hinode/testing", (device) => {
  const runs = device === "webgpu" ? 6 : 30;
  const options = { runs, devices: [device], seed: 3 };

  test("checkKernel: a right kernel passes, of a wrong one the smallest case is left", async () => {
    await t.checkKernel(rowSums(false), null, [matrices], { ...options, seed: undefined });
    const sums = rowSums(true);
    const { inputs, code } = await found(t.checkKernel(sums, null, [matrices], options));
    expect(inputs[0].baseShape).toEqual([1, 3]);
    const [got, want] = await printed(code, { sums });
    if (device === "reference") expect(got).toEqual(want);
    else expect(got).not.toEqual(want);
  });

  test("checkGradient", async () => {
    const pair = t
      .broadcastablePairs({ minRank: 1, maxRank: 2, maxDim: 3, empty: false })
      .chain(([a, b]) => fc.tuple(t.tensors({ shape: a }), t.tensors({ shape: b })));
    const fresh = { runs: runs / 2, devices: [device] };
    await t.checkGradient((x: Tensor, y: Tensor) => x.sub(y).tanh().sum(0), pair, fresh);
    const views = [t.stridedViews({ shape: [2, 3] })];
    await t.checkGradient((x: Tensor) => x.softmax(-1).mul(x.amax(0)), views, fresh);
    const double = customGradient(
      (x: Tensor) => x.mul(x),
      (ct, [x]) => [ct.mul(x)],
    );
    const { code, difference } = await found(
      t.checkGradient(double, [t.tensors()], { ...options, name: "double" }),
    );
    expect(difference).toMatch(/the gradient is .*, differences give/);
    // Half of 2·x·weight.
    const [gradient] = await printed(code, { double });
    const [, x, weight] = /tensor\(([^,]*), .*tensor\(([^,]*), /s.exec(code)!;
    expect(gradient).toBeCloseTo(Number(x) * Number(weight), 6);
    const steps = (x: Tensor) => x.int();
    await expect(t.checkGradient(steps, [t.tensors()], options)).rejects.toThrow(ArgumentError);
  });

  test("checkTransforms: random graphs obey the laws", async () => {
    await t.checkTransforms(t.graphs(), null, { runs: runs / 3, devices: [device] });
  });

  test("compareDevices: random graphs, captured tensors, special values", async () => {
    await t.compareDevices(t.graphs(), null, { runs: runs / 2, devices: [device] });
    const weight = h.tensor([[0.5, -1, 2]]);
    const special = t.stridedViews({ shape: [2, 3], special: true });
    const f = (x: Tensor) => x.abs().add(1).rsqrt().sum(-1, true).matmul(weight);
    await t.compareDevices(f, [special], { runs: runs / 2, devices: [device] });
  });
});

describe("hinode/testing on one device", () => {
  const options = { devices: ["wasm"] as const, seed: 1 };

  test("the interpreter finds what a device may hide", async () => {
    const kernel = (write: (k: h.KernelBuilder) => void) =>
      customKernel({
        name: "f",
        inputs: ["x"],
        outputs: (x) => ({ y: x }),
        reference: (x) => x.mul(0),
        kernel: write,
      });
    const lists = [t.tensors({ shape: t.shapes({ minRank: 1, maxRank: 1, empty: false }) })];
    const half = kernel((k) => k.parallel(Math.ceil(k.inputs[0].shape[0] / 2), (i) => k.outputs[0].set([i], 0))); // biome-ignore format: one line
    const left = await found(t.checkKernel(half, null, lists, options));
    expect(left.difference).toMatch(/interpreted as for wasm: element 1: got NaN, want 0/);
    expect(left.inputs[0].values).toEqual([0, 0]);
    const race = kernel((k) => k.parallel(k.inputs[0].shape[0], (i) => k.outputs[0].set([i.div(2)], 0))); // biome-ignore format: one line
    const raced = await found(t.checkKernel(race, null, lists, options));
    expect(raced.difference).toMatch(/KernelError: .*(stores|race|writes)/s);
  });

  test("broken laws: a gradient that is not the derivative, a function that vmap cannot see through", async () => {
    const half = customGradient(
      (x: Tensor) => x.exp(),
      (ct, _, y) => [ct.mul(y).mul(0.5)],
    );
    const error = await found(t.checkTransforms(half, [t.tensors()], { ...options, name: "half" }));
    expect(error.difference).toMatch(/^transpose: forward mode gives/);
    await printed(error.code, { half });
    await t.checkTransforms(half, [t.tensors()], {
      ...options,
      laws: ["compile", "vmap"],
      runs: 10,
    });
    let calls = 0;
    const stateful = (x: Tensor) => x.add(calls++ % 3);
    const unstable = await found(
      t.checkTransforms(stateful, [t.tensors()], { ...options, name: "stateful" }),
    );
    expect(unstable.difference).toMatch(/^compile: on wasm/);
  });

  test("what throws is a finding, with its cause", async () => {
    const f = (x: Tensor) => x.reshape([2, -1]);
    const error = await found(t.compareDevices(f, [t.tensors()], options));
    expect(error.difference).toMatch(/throws ShapeError/);
    expect(error.cause).toBeInstanceOf(h.ShapeError);
    await expect(printed(error.code, { f })).rejects.toThrow(h.ShapeError);
  });

  test("a tolerance takes the place of the bound", async () => {
    const near = (x: Tensor) => x.mul(1.001);
    const kernel = customKernel({
      name: "near",
      inputs: ["x"],
      outputs: (x) => ({ y: x }),
      reference: near,
      kernel: (k) => k.each(k.inputs[0].shape, (...i) => k.outputs[0].set(i, k.inputs[0].at(...i))),
    });
    await found(t.checkKernel(kernel, null, [t.tensors()], options));
    await t.checkKernel(kernel, null, [t.tensors()], { ...options, tolerance: { rtol: 2e-3 } });
  });
});

if (devices.includes("webgpu"))
  test("docs/testing.md shows what the planted bug's check prints", async () => {
    await useDevice("webgpu");
    const { findBug } = await import("../../examples/testing/planted-bug.ts");
    const message = await findBug();
    const docs = readFileSync(new URL("../../docs/testing.md", import.meta.url), "utf8");
    expect(docs).toContain(message);
    expect(message).toContain('tensor([0], { dtype: "f32" })');
  });
