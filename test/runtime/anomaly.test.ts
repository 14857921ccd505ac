/** @file detectAnomaly: which operation made the first NaN or infinity, and whose line called it. */

import {
  AnomalyError,
  checkpoint,
  compile,
  defaultDevice,
  detectAnomaly,
  grad,
  isAnomalyEnabled,
  noGrad,
  scan,
  setDetectAnomaly,
  type Tensor,
  tensor,
  vmap,
  where,
} from "hinode";
import * as nn from "hinode/nn";
import { afterEach, expect, test } from "vitest";
import { observeNodes } from "../../core/graph/node.ts";
import { onEachDevice } from "../support/devices.ts";

/** The line that this is called on. */
const here = (): number => Number(/anomaly\.test\.ts:(\d+)/.exec(new Error().stack!.split("\n")[2])![1]); // biome-ignore format: one line

async function anomalyOf(fn: () => unknown): Promise<AnomalyError> {
  const error = await detectAnomaly(fn).then(
    () => null,
    (e) => e,
  );
  expect(error).toBeInstanceOf(AnomalyError);
  return error;
}

afterEach(() => setDetectAnomaly(false));

onEachDevice("detectAnomaly", () => {
  test("names the operation and the line", async () => {
    let line = 0;
    const error = await anomalyOf(() => {
      const x = tensor([1, -1, 4]).mul(2);
      const [y, at] = [x.log(), here()];
      line = at;
      return y.mul(3).sum().item();
    });
    expect(error).toMatchObject({ op: "log", shape: [3], dtype: "f32", gradient: false });
    expect(error.site!.file).toMatch(/test\/runtime\/anomaly\.test\.ts$/);
    expect(error.site!.line).toBe(line);
    expect(error.message).toContain("NaN in 1 of 3 elements of f32[3]");
    expect(error.message).toContain("f32[3] in -2 … 8");
    expect(isAnomalyEnabled()).toBe(false);
  });

  test("finds what a compiled function makes, and leaves its state alone", async () => {
    const state = tensor([1, 1]);
    let line = 0;
    let traces = 0;
    const step = compile((x: Tensor) => {
      traces++;
      const [root, at] = [x.sqrt(), here()];
      line = at;
      state.assign(state.add(root));
      return root.sum();
    });
    expect(await step(tensor([-1, 4])).item()).toBeNaN();
    state.assign(tensor([1, 1]));
    const error = await anomalyOf(async () => {
      await step(tensor([1, 4])).item();
      await step(tensor([-1, 4])).item();
    });
    expect(error).toMatchObject({ op: "sqrt", site: { line } });
    expect(await state.tolist()).toEqual([2, 3]);
    // Traced once for itself and once to be watched.
    expect(traces).toBe(2);
    await step(tensor([1, 4])).item();
    expect(traces).toBe(2);
  });

  test("tells gradients from values", async () => {
    const lines = { forward: 0, backward: 0 };
    const x = tensor([0, 4], { requiresGrad: true });
    const error = await anomalyOf(async () => {
      const [y, at] = [x.sqrt(), here()];
      lines.forward = at;
      const [, called] = [y.sum().backward(), here()];
      lines.backward = called;
      await x.grad!.data();
    });
    expect(error).toMatchObject({ gradient: true, site: { line: lines.backward } });
    expect(error.forward).toMatchObject({ op: "sqrt", site: { line: lines.forward } });
    expect(error.message).toContain("(gradient of sqrt)");
    // log(0) is dropped in the forward pass; 0·∞ in the backward pass is not.
    const masked = (t: Tensor) => where(t.gt(0), t.log(), 0).sum();
    const second = await anomalyOf(async () => {
      expect(await masked(x).item()).toBeCloseTo(Math.log(4));
      await grad(masked)(x).data();
    });
    expect(second).toMatchObject({ op: "div", gradient: true, forward: { op: "log" } });
  });

  test("what never reaches a result, and infinities that were meant, are no anomalies", async () => {
    const result = await detectAnomaly(async () => {
      const x = tensor([0, 1, 2]);
      const scores = x.maskedFill(tensor([true, false, false], { dtype: "bool" }), -Infinity);
      return [
        await x.expm1().tolist(),
        await scores.softmax(0).tolist(),
        await x.div(0).isinf().tolist(),
        await scores.amax().item(),
        await tensor([NaN, 1]).add(1).tolist(),
      ];
    });
    expect(result[1]).toMatchObject([0, expect.any(Number), expect.any(Number)]);
    // But a NaN that is made of them is one.
    const error = await anomalyOf(() => {
      const all = tensor([1, 2]).maskedFill(tensor([true, true], { dtype: "bool" }), -Infinity);
      return all.sub(all.amax()).exp().data();
    });
    expect(error).toMatchObject({ op: "sub" });
  });

  test("looks into checkpoints, through vmap, and names loops", async () => {
    let line = 0;
    const risky = (x: Tensor) => {
      const [y, at] = [x.log(), here()];
      line = at;
      return y.mul(2);
    };
    const zero = tensor([1, 0]);
    const inside = await anomalyOf(() => checkpoint(risky)(zero).data());
    expect(inside).toMatchObject({ op: "log", site: { line } });
    expect(inside.message).toContain("log in checkpoint");
    const mapped = await anomalyOf(() => vmap(risky)(zero).data());
    expect(mapped).toMatchObject({ op: "log", site: { line } });
    const loop = await anomalyOf(() => {
      const [carry] = scan((h: Tensor, x: Tensor) => [h.add(x.log()), h], tensor(0), zero);
      return (carry as Tensor).data();
    });
    expect(loop).toMatchObject({ op: "scan" });
  });

  test("throws for a run that nobody reads, and stays on when it is switched on", async () => {
    const step = compile((x: Tensor) => x.log());
    await anomalyOf(() => void step(tensor([0])));
    setDetectAnomaly(true);
    expect(isAnomalyEnabled()).toBe(true);
    await expect(tensor([-1]).sqrt().data()).rejects.toThrow(AnomalyError);
    expect(await detectAnomaly(() => 5)).toBe(5);
    expect(isAnomalyEnabled()).toBe(true);
    setDetectAnomaly(false);
    expect(await tensor([-1]).sqrt().item()).toBeNaN();
    // Off, nobody is told of new nodes.
    expect(observeNodes(null)).toBeNull();
    await defaultDevice().ready();
  });

  test("a value from before has no line", async () => {
    const y = noGrad(() => tensor([-1]).sqrt());
    const error = await anomalyOf(() => y.data());
    expect(error).toMatchObject({ op: "sqrt", site: null });
    expect(error.message).toContain("before detectAnomaly was on");
  });

  test("a module tells its path", async () => {
    class Root extends nn.Module {
      forward(x: Tensor): Tensor {
        return x.sqrt();
      }
    }
    class Net extends nn.Module {
      blocks = [new Root(), new Root()];
      forward(x: Tensor): Tensor {
        return this.blocks[1].forward(this.blocks[0].forward(x).sub(3));
      }
    }
    const error = await anomalyOf(() => new Net().forward(tensor([4])).data());
    expect(error.module).toBe("blocks.1 (Root) of Net");
    expect(error.message).toContain("in blocks.1 (Root) of Net");
    const x = tensor([0], { requiresGrad: true });
    const gradient = await anomalyOf(() => {
      new Root().forward(x).backward();
      return x.grad!.data();
    });
    expect(gradient).toMatchObject({ gradient: true, module: "forward (Root) of Root" });
  });
});
