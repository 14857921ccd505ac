/**
 * @file `npm run mnist:conv`: the convolutional network of PyTorch's first example, line by line,
 * https://github.com/pytorch/examples/blob/main/mnist/main.py
 *
 * Changed: a training and a test step are functions that are compiled; the images stay bytes, and become normalised numbers on
 * the device (torchvision's transform makes them one by one on the host); the defaults are a short run's: the first 20,000
 * images once in batches of 32, where the original takes 60,000 fourteen times in batches of 64 (`--train 60000 --epochs
 * 14 --batch 64`). The short run reached 97.6 % of the test images in 226 s of processor time on one thread of a busy machine.
 */
import {
  compile,
  logSoftmax,
  manualSeed,
  maxPool2d,
  nllLoss,
  noGrad,
  relu,
  type Tensor,
} from "hinode";
import { DataLoader, progress } from "hinode/data";
import { Conv2d, Dropout, Linear, Module, optim, saveModel } from "hinode/nn";
import { mnistTensors } from "./data/digits.ts";
import { deviceOption, readOptions, run, startDevice, threadsOption } from "./support/cli.ts";

const options = readOptions("npm run mnist:conv -- [options]: a convolutional classifier", {
  epochs: { default: 1, min: 1, integer: true, help: "passes over the training images" },
  train: { default: 20000, min: 1, integer: true, help: "training images: the first of 60000" },
  test: { default: 10000, min: 1, integer: true, help: "test images: the first of 10000" },
  batch: { default: 32, min: 1, integer: true, help: "images per step" },
  lr: { default: 1, help: "learning rate" },
  gamma: { default: 0.7, help: "what the rate is multiplied by after each epoch" },
  seed: { default: 1, integer: true, help: "seed of weights, order and dropout" },
  save: { default: "", help: "write the model to this file, as safetensors" },
  threads: threadsOption,
  device: deviceOption,
});

class Net extends Module {
  conv1 = new Conv2d(1, 32, 3, { stride: 1 });
  conv2 = new Conv2d(32, 64, 3, { stride: 1 });
  dropout1 = new Dropout(0.25);
  dropout2 = new Dropout(0.5);
  fc1 = new Linear(9216, 128);
  fc2 = new Linear(128, 10);

  /** [B, 1, 28, 28] → [B, 10] log-probabilities */
  forward(x: Tensor): Tensor {
    x = this.conv1.forward(x);
    x = relu(x);
    x = this.conv2.forward(x);
    x = relu(x);
    x = maxPool2d(x, 2);
    x = this.dropout1.forward(x);
    x = x.flatten(1);
    x = this.fc1.forward(x);
    x = relu(x);
    x = this.dropout2.forward(x);
    x = this.fc2.forward(x);
    return logSoftmax(x, 1);
  }
}

/** ToTensor and Normalize: on the device, a batch at a time. */
const transform = (pixels: Tensor): Tensor => pixels.float().div(255).sub(0.1307).div(0.3081);

await run(async (signal) => {
  await startDevice(options);
  manualSeed(options.seed);
  const trainSet = mnistTensors("train", options.train);
  const testSet = mnistTensors("test", options.test);
  const trainLoader = new DataLoader(trainSet, {
    batchSize: options.batch,
    shuffle: true,
    seed: options.seed,
  });
  const testLoader = new DataLoader(testSet, { batchSize: 1000 });

  const model = new Net();
  const optimizer = new optim.Adadelta(model.parameters(), { lr: options.lr });
  const scheduler = new optim.StepLR(optimizer, { stepSize: 1, gamma: options.gamma });

  const trainStep = compile((data: Tensor, target: Tensor) => {
    optimizer.zeroGrad();
    const output = model.forward(transform(data));
    const loss = nllLoss(output, target);
    loss.backward();
    optimizer.step();
    return loss;
  });
  const testStep = compile((data: Tensor, target: Tensor) =>
    noGrad(() => {
      const output = model.forward(transform(data));
      const loss = nllLoss(output, target, { reduction: "sum" });
      const correct = output.argmax(1).eq(target).sum();
      return { loss, correct };
    }),
  );

  for (let epoch = 1; epoch <= options.epochs; epoch++) {
    model.train();
    const batches = progress(trainLoader, { description: `epoch ${epoch}`, unit: "batches" });
    for await (const [data, target] of batches) {
      signal.throwIfAborted();
      batches.postfix({ loss: Number(await trainStep(data, target).item()) });
    }

    model.eval();
    let [testLoss, correct] = [0, 0];
    for await (const [data, target] of testLoader) {
      signal.throwIfAborted();
      const sums = testStep(data, target);
      testLoss += Number(await sums.loss.item());
      correct += Number(await sums.correct.item());
    }
    console.log(
      `test set: average loss ${(testLoss / testSet.length).toFixed(4)}, ` +
        `accuracy ${correct}/${testSet.length} (${((100 * correct) / testSet.length).toFixed(2)} %)`,
    );
    scheduler.step();
  }
  if (options.save) {
    await saveModel(options.save, model);
    console.log(`saved: ${options.save}`);
  }
});
