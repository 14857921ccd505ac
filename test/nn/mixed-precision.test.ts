/** @file Training in mixed precision: the gradient scaler against PyTorch's rule, and runs that must end as in f32. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  autocast,
  CheckpointError,
  compile,
  crossEntropy,
  DTypeError,
  manualSeed,
  randint,
  randn,
  type Tensor,
  TransformError,
  tensor,
} from "hinode";
import {
  Embedding,
  LayerNorm,
  Linear,
  loadTraining,
  MLP,
  Module,
  MultiheadAttention,
  optim,
  parameter,
  saveTraining,
  TransformerBlock,
} from "hinode/nn";
import { afterAll, describe, expect, test } from "vitest";
import { onEachDevice, type TestDevice } from "../support/devices.ts";

const folder = mkdtempSync(join(tmpdir(), "hinode-mixed-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Every bit of some tensors. */
async function bitsOf(tensors: Iterable<Tensor>): Promise<number[][]> {
  const bytes = async (t: Tensor) => {
    const data = await t.data();
    return [...new Uint8Array(data.buffer, data.byteOffset, data.byteLength)];
  };
  return Promise.all([...tensors].map(bytes));
}

const modes = [
  ["eager", <F>(f: F): F => f],
  ["compiled", compile as <F>(f: F) => F],
] as const;

onEachDevice("GradScaler", (device) => {
  const optimizers: Record<string, (p: Tensor[]) => optim.Optimizer> = {
    AdamW: (p) => new optim.AdamW(p, { lr: 0.1 }),
    SGD: (p) => new optim.SGD(p, { lr: 0.1, momentum: 0.9, dampening: 0.1, weightDecay: 0.1 }),
  };

  // Each eager operation is a pipeline of its own, which a software GPU takes long to compile.
  const own = modes.filter(([mode]) => mode === "compiled" || device !== "webgpu");
  describe.each(own)("%s", (_, wrap) => {
    test.each(Object.keys(optimizers))(
      "%s: an overflow changes no bit but the scale",
      async (name) => {
        manualSeed(4);
        const model = new Linear(4, 3);
        const optimizer = optimizers[name](model.parameters());
        const scaler = new optim.GradScaler({ initScale: 1024 });
        const step = wrap((x: Tensor) => {
          optimizer.zeroGrad();
          const loss = autocast({ dtype: "f16" }, () => model.forward(x).square().mean());
          scaler.scale(loss).backward();
          scaler.unscale(optimizer);
          optim.clipGradNorm(model.parameters(), 1);
          const skipped = scaler.step(optimizer);
          scaler.update();
          return skipped;
        });
        const state = () =>
          bitsOf([...model.parameters(), ...[...optimizer.stateCells()].map(([, t]) => t)]);
        const good = randn([5, 4]);
        // One product beyond f16, whose gradient is infinite, and one NaN.
        const bad = [
          good.mul(1e6),
          tensor(new Float32Array(20).fill(Number.NaN), { shape: [5, 4] }),
        ];
        for (const x of bad) {
          expect(await step(good).item()).toBe(false);
          const before = await state();
          const scale = await scaler.getScale();
          expect(await step(x).item()).toBe(true);
          expect(await state()).toEqual(before);
          expect(await scaler.getScale()).toBe(scale / 2);
          expect(await step(good).item()).toBe(false);
          expect(await state()).not.toEqual(before);
        }
      },
    );

    test("the scale follows PyTorch's rule", async () => {
      const p = parameter(tensor([1, 2]));
      const sgd = new optim.SGD([p], { lr: 0 });
      const [growthFactor, backoffFactor, growthInterval] = [4, 0.25, 3];
      const scaler = new optim.GradScaler({
        ...{ initScale: 2 ** 20, growthFactor, backoffFactor, growthInterval },
      });
      const step = wrap((x: Tensor) => {
        sgd.zeroGrad();
        scaler.scale(p.mul(x).sum()).backward();
        scaler.step(sgd);
        scaler.update();
      });
      let [scale, tracker] = [2 ** 20, 0];
      const pattern = "....x..x...x.xx......."; // x: overflow
      for (const c of device === "webgpu" ? pattern.slice(0, 9) : pattern) {
        step(tensor(c === "x" ? Infinity : 1));
        if (c === "x") [scale, tracker] = [scale * backoffFactor, 0];
        else if (++tracker === growthInterval) [scale, tracker] = [scale * growthFactor, 0];
        expect(await scaler.getScale()).toBe(scale);
        expect(await scaler.growthTracker.item()).toBe(tracker);
      }
      expect(await p.tolist()).toEqual([1, 2]);
    });

    test("gives the update of the unscaled loss, also of accumulated gradients", async () => {
      const train = async (scaler: optim.GradScaler | null) => {
        manualSeed(5);
        const model = new Linear(3, 2);
        const adam = new optim.Adam(model.parameters(), { lr: 0.1 });
        const accumulate = wrap((x: Tensor) => {
          const loss = model.forward(x).square().mean();
          (scaler ? scaler.scale(loss) : loss).backward();
        });
        const update = wrap(() => {
          if (scaler) {
            scaler.step(adam);
            scaler.update();
          } else adam.step();
          adam.zeroGrad();
        });
        for (let i = 0; i < 3; i++) {
          for (let k = 0; k < 2; k++) accumulate(randn([4, 3]));
          update();
        }
        return bitsOf(model.parameters());
      };
      const plain = await train(null);
      // Powers of two change exponents alone.
      expect(await train(new optim.GradScaler())).toEqual(plain);
      expect(await train(new optim.GradScaler({ enabled: false }))).toEqual(plain);
    });
  });

  test("a scale never grows to infinity", async () => {
    const p = parameter(tensor([1]));
    const sgd = new optim.SGD([p], { lr: 0 });
    const scaler = new optim.GradScaler({ initScale: 2 ** 127, growthInterval: 1 });
    p.mul(0).sum().backward();
    scaler.step(sgd);
    scaler.update();
    expect(await scaler.getScale()).toBe(2 ** 127);
    expect(await scaler.growthTracker.item()).toBe(0);
    scaler.update(8);
    expect(await scaler.getScale()).toBe(8);
  });

  test("two optimizers: one overflow halves the scale and stops only its own update", async () => {
    const [a, b] = [parameter(tensor([1])), parameter(tensor([1]))];
    const both = [a, b].map((p) => new optim.SGD([p], { lr: 1 }));
    const scaler = new optim.GradScaler({ initScale: 8 });
    scaler.scale(a.mul(0.5).sum().add(b.mul(Infinity).sum())).backward();
    for (const sgd of both) scaler.step(sgd);
    scaler.update();
    expect([await a.item(), await b.item(), await scaler.getScale()]).toEqual([0.5, 1, 4]);
  });
});

describe("GradScaler's errors", () => {
  const make = () => {
    const p = parameter(tensor([1]));
    return { p, sgd: new optim.SGD([p], { lr: 1 }), scaler: new optim.GradScaler() };
  };

  test("calls in the wrong order", () => {
    const { p, sgd, scaler } = make();
    expect(() => scaler.step(sgd)).toThrow(/call backward\(\) first/);
    expect(() => scaler.update()).toThrow(/step\(optimizer\) before/);
    scaler.scale(p.sum()).backward();
    scaler.unscale(sgd);
    expect(() => scaler.unscale(sgd)).toThrow(/one call between updates/);
    scaler.step(sgd);
    expect(() => scaler.step(sgd)).toThrow(/one call between updates/);
    scaler.update();
    expect(() => new optim.GradScaler({ backoffFactor: 2 })).toThrow(/backoffFactor < 1/);
  });

  test("unscaling in another function than the step", () => {
    const { p, sgd, scaler } = make();
    const compiled = compile(() => {
      scaler.scale(p.sum()).backward();
      scaler.unscale(sgd);
    });
    compiled();
    expect(() => scaler.step(sgd)).toThrow(TransformError);
  });

  test("parameters in f16", () => {
    const p = parameter(tensor([1], { dtype: "f16" }));
    const sgd = new optim.SGD([p], { lr: 1 });
    const scaler = new optim.GradScaler();
    scaler.scale(p.sum()).backward();
    expect(() => scaler.step(sgd)).toThrow(DTypeError);
  });

  test("states that do not fit", () => {
    const scaler = new optim.GradScaler();
    expect(() => scaler.loadStateDict({})).toThrow(/scale: f32/);
    expect(new optim.GradScaler({ enabled: false }).stateDict()).toEqual({});
  });
});

// ---- whole runs

const CLASSES = 4;

class Classifier extends Module {
  up = new Linear(8, 32);
  norm = new LayerNorm(32);
  down = new Linear(32, CLASSES);
  forward(x: Tensor): Tensor {
    return this.down.forward(this.norm.forward(this.up.forward(x)).gelu());
  }
}

const [WIDTH, VOCABULARY, LENGTH] = [16, 8, 8];

class Language extends Module {
  tokens = new Embedding(VOCABULARY, WIDTH, { std: 0.5 });
  block = new TransformerBlock({
    norm1: new LayerNorm(WIDTH),
    attention: new MultiheadAttention(WIDTH, 2, { causal: true, rotary: true }),
    norm2: new LayerNorm(WIDTH),
    feedForward: new MLP(WIDTH, 2 * WIDTH),
  });
  norm = new LayerNorm(WIDTH);
  forward(ids: Tensor): Tensor {
    const x = this.norm.forward(this.block.forward(this.tokens.forward(ids)));
    return x.matmul(this.tokens.weight.T);
  }
}

/** A model, and what it learns: the class by a fixed linear map; the token before the last one. */
const tasks = {
  "a perceptron": {
    make: () => new Classifier(),
    data: () => {
      const x = randn([32, 8]);
      return [x, x.narrow(1, 0, CLASSES).argmax(1)];
    },
    flat: (y: Tensor) => y,
  },
  "a transformer": {
    make: () => new Language(),
    data: () => {
      const ids = randint(0, VOCABULARY, [8, LENGTH + 1]);
      // Predict the token seen one step ago: what attention is for.
      return [ids.narrow(1, 1, LENGTH), ids.narrow(1, 0, LENGTH)];
    },
    flat: (y: Tensor) => y.flatten(0, 1),
  },
} as const;

type Precision = "f32" | "f16" | "bf16";

function start(task: keyof typeof tasks, precision: Precision, compiled: boolean, seed = 6) {
  const { make, flat } = tasks[task];
  manualSeed(seed);
  const model: Module & { forward(x: Tensor): Tensor } = make();
  const optimizer = new optim.AdamW(model.parameters(), { lr: 0.01 });
  // A scale that overflows at first, and that grows within the run.
  const scaler = new optim.GradScaler({
    ...{ enabled: precision === "f16", initScale: 2 ** 24, growthInterval: 10 },
  });
  const step = (x: Tensor, y: Tensor) => {
    const forward = () => crossEntropy(flat(model.forward(x)), flat(y));
    const loss = precision === "f32" ? forward() : autocast({ dtype: precision }, forward);
    optimizer.zeroGrad();
    scaler.scale(loss).backward();
    scaler.unscale(optimizer);
    optim.clipGradNorm(model.parameters(), 1);
    const skipped = scaler.step(optimizer);
    scaler.update();
    return [loss, skipped] as const;
  };
  return { model, optimizer, scaler, step: compiled ? compile(step) : step };
}

/** The loss of each batch, and how often a step was skipped; then its batch is tried again. */
async function losses(
  task: keyof typeof tasks,
  precision: Precision,
  compiled: boolean,
  batches: number,
) {
  const { step } = start(task, precision, compiled);
  manualSeed(7);
  const all: number[] = [];
  let skips = 0;
  while (all.length < batches) {
    const [x, y] = tasks[task].data();
    for (;;) {
      const [loss, skipped] = step(x, y);
      if (await skipped.item()) skips++;
      else {
        all.push(Number(await loss.item()));
        break;
      }
    }
  }
  return { all, skips };
}

const mean = (xs: readonly number[]) => xs.reduce((a, b) => a + b, 0) / xs.length;

onEachDevice("mixed precision", (device: TestDevice) => {
  const few = device === "webgpu";
  const batches = { reference: 50, wasm: 100, webgpu: 4 }[device];

  test.each(Object.keys(tasks) as (keyof typeof tasks)[])("%s learns as in f32", async (task) => {
    const precisions = few
      ? ([task === "a perceptron" ? "bf16" : "f16"] as const)
      : (["f16", "bf16"] as const);
    const exact = (await losses(task, "f32", true, batches)).all;
    if (!few) expect(mean(exact.slice(-10))).toBeLessThan(0.6 * exact[0]);
    for (const precision of precisions) {
      const { all, skips } = await losses(task, precision, true, batches);
      expect(skips > 0).toBe(precision === "f16");
      const apart = all.map((loss, i) => Math.abs(loss - exact[i]));
      expect(Math.max(...apart)).toBeLessThan(0.02); // 0.007 in bf16, 0.0013 in f16
      expect(Math.abs(mean(all.slice(-10)) - mean(exact.slice(-10)))).toBeLessThan(0.005);
    }
  });

  test.skipIf(few)("a compiled run is the eager one", async () => {
    const compiled = await losses("a perceptron", "f16", true, 12);
    const eager = await losses("a perceptron", "f16", false, 12);
    expect(compiled.skips).toBe(eager.skips);
    for (const [i, loss] of compiled.all.entries()) expect(loss).toBeCloseTo(eager.all[i], 2);
  });

  test.skipIf(few)("a resumed run has the same bits, the scaler's included", async () => {
    const steps = 14;
    const run = async (r: ReturnType<typeof start>, from: number, save: boolean) => {
      const { model, optimizer, scaler, step } = r;
      for (let i = from; i < steps; i++) {
        const path = join(folder, `${device}-${i}.safetensors`);
        if (save) await saveTraining(path, { model, optimizer, scaler, step: i });
        const [x, y] = tasks["a perceptron"].data();
        step(x, y);
      }
      const cells = [...optimizer.stateCells(), ...scaler.stateCells()].map(([, t]) => t);
      return bitsOf([...model.parameters(), ...cells]);
    };
    const whole = await run(start("a perceptron", "f16", true), 0, true);
    for (const k of [1, 4, 9, 13]) {
      const fresh = start("a perceptron", "f16", true, 99);
      const path = join(folder, `${device}-${k}.safetensors`);
      expect((await loadTraining(path, fresh)).step).toBe(k);
      expect(await run(fresh, k, false), `resumed at step ${k}`).toEqual(whole);
    }
    const { model, optimizer } = start("a perceptron", "f32", false);
    const path = join(folder, `${device}-4.safetensors`);
    await expect(loadTraining(path, { model, optimizer })).rejects.toThrow(CheckpointError);
  });
});
