/**
 * @file `npm run mnist`: a two-layer perceptron learns handwritten digits; prints the accuracy on the test set.
 */
import { autocast, compile, crossEntropy, manualSeed, noGrad, type Tensor, tensor } from "hinode";
import { Progress } from "hinode/data";
import { Linear, Module, optim } from "hinode/nn";
import { shuffledBatches } from "./data/batches.ts";
import { type LabelledImages, loadMnist } from "./data/idx.ts";
import {
  autocastOf,
  deviceOption,
  precisionOption,
  readOptions,
  run,
  startDevice,
  threadsOption,
} from "./support/cli.ts";

const options = readOptions("npm run mnist -- [options]: trains a digit classifier", {
  steps: { default: 3000, min: 1, integer: true, help: "training steps" },
  batch: { default: 128, min: 1, integer: true, help: "images per step" },
  lr: { default: 2e-3, help: "peak learning rate" },
  seed: { default: 0, integer: true, help: "seed of weights and order" },
  threads: threadsOption,
  precision: precisionOption,
  device: deviceOption,
});

const PIXELS = 28 * 28;
const DIGITS = 10;

class Classifier extends Module {
  up = new Linear(PIXELS, 256);
  down = new Linear(256, DIGITS);

  /** [B, 784] → [B, 10] */
  forward(x: Tensor): Tensor {
    return this.down.forward(this.up.forward(x).gelu());
  }
}

/** Images in −1 … 1 and labels of the chosen indices. */
function pick(data: LabelledImages, indices: readonly number[]): { x: Tensor; y: Tensor } {
  const x = new Float32Array(indices.length * PIXELS);
  const y = new Int32Array(indices.length);
  indices.forEach((index, i) => {
    for (let p = 0; p < PIXELS; p++)
      x[i * PIXELS + p] = data.images[index * PIXELS + p] / 127.5 - 1;
    y[i] = data.labels[index];
  });
  return { x: tensor(x, { shape: [indices.length, PIXELS] }), y: tensor(y) };
}

await run(async (signal) => {
  await startDevice(options);
  const train = loadMnist("train");
  const test = loadMnist("test");

  manualSeed(options.seed);
  const model = new Classifier();
  const adamw = new optim.AdamW(model.parameters(), { lr: options.lr });
  const schedule = optim.warmupCosine({ peak: options.lr, steps: options.steps });
  const mode = autocastOf(options.precision);
  const scaler = new optim.GradScaler({ enabled: options.precision === "f16" });
  const trainStep = compile((x: Tensor, y: Tensor) => {
    const loss = autocast(mode, () => crossEntropy(model.forward(x), y));
    adamw.zeroGrad();
    scaler.scale(loss).backward();
    scaler.step(adamw);
    scaler.update();
    return loss;
  });

  const batches = shuffledBatches(train.count, options.batch, options.seed);
  const progress = new Progress({ description: "training", total: options.steps });
  for (let step = 0; step < options.steps; step++) {
    signal.throwIfAborted();
    const { x, y } = pick(train, batches(step));
    adamw.setLearningRate(schedule(step));
    const loss = Number(await trainStep(x, y).item());
    progress.update(
      step + 1,
      (rate) => `loss ${loss.toFixed(3)}  ${(rate * options.batch).toFixed(0)} images/s`,
    );
  }

  const predict = compile((x: Tensor) => noGrad(() => model.forward(x).argmax(-1)));
  let correct = 0;
  const chunk = 1000;
  for (let start = 0; start < test.count; start += chunk) {
    const size = Math.min(chunk, test.count - start);
    const indices = Array.from({ length: size }, (_, i) => start + i);
    const digits = await predict(pick(test, indices).x).data();
    for (let i = 0; i < size; i++) if (digits[i] === test.labels[start + i]) correct++;
  }
  console.log(
    `test accuracy: ${((100 * correct) / test.count).toFixed(2)} % of ${test.count} images`,
  );
});
