/** @file A model learns in a page, on WebAssembly and on WebGPU, and both agree on how. Runs in pages only. */
import { compile, crossEntropy, manualSeed, type Tensor, tensor } from "hinode";
import { Linear, Module, optim } from "hinode/nn";
import { expect, test } from "vitest";
import { useDevice } from "../../support/devices.ts";
import { generator } from "../../support/graphs.ts";

class Classifier extends Module {
  up = new Linear(2, 24);
  middle = new Linear(24, 24);
  down = new Linear(24, 2);
  forward(x: Tensor): Tensor {
    return this.down.forward(this.middle.forward(this.up.forward(x).gelu()).gelu());
  }
}

/** Two spirals, wound into each other. */
function spirals(count: number): { x: Float32Array; y: Int32Array } {
  const next = generator(1);
  const [x, y] = [new Float32Array(2 * count), new Int32Array(count)];
  for (let i = 0; i < count; i++) {
    const [label, t] = [i % 2, next()];
    const angle = 5 * t + Math.PI * label;
    x.set([2 * t * Math.cos(angle), 2 * t * Math.sin(angle)], 2 * i);
    y[i] = label;
  }
  return { x, y };
}

test("the same losses on both devices", { timeout: 60_000 }, async () => {
  const all: number[][] = [];
  for (const device of ["wasm", "webgpu"] as const) {
    await useDevice(device);
    manualSeed(3);
    const model = new Classifier();
    const adam = new optim.Adam(model.parameters(), { lr: 2e-2 });
    const data = spirals(128);
    const [x, y] = [tensor(data.x, { shape: [128, 2] }), tensor(data.y)];
    const step = compile(() => {
      const loss = crossEntropy(model.forward(x), y);
      adam.zeroGrad();
      loss.backward();
      adam.step();
      return loss;
    });
    const losses: number[] = [];
    for (let i = 0; i < 120; i++) losses.push(Number(await step().item()));
    expect(losses[0]).toBeGreaterThan(0.5);
    expect(losses.at(-1)).toBeLessThan(0.2);
    all.push(losses);
  }
  for (let i = 0; i < 20; i++) expect(all[0][i]).toBeCloseTo(all[1][i], 3);
});
