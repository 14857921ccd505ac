/**
 * @file `npm run mm1`: a tiny MM1 learns to caption images from nothing, on one CPU core in about a minute.
 *
 * It sees three vendors' drawings of animals, plants and food, then captions renderings of the same things by a vendor
 * that it has never seen. A straight-line script: data, model, training, evaluation.
 */
import { compile, deviceInfo, init, manualSeed, type Tensor, tensor } from "hinode";
import { captioner, Mm1, WordTokenizer } from "hinode/models";
import { optim } from "hinode/nn";
import { shuffledBatches, uniform } from "./data/batches.ts";
import { captionTask, encodeCaptions, toPlanes, UNSEEN_VENDOR } from "./data/captions.ts";
import { loadEmoji, type Rendering } from "./data/emoji.ts";
import { deviceOption, readOptions, run } from "./support/cli.ts";
import { Progress } from "./support/progress.ts";

const options = readOptions("npm run mm1 -- [options]: trains a tiny MM1 to caption emoji", {
  steps: { default: 2200, min: 1, help: "training steps" },
  batch: { default: 16, min: 1, help: "images per step" },
  lr: { default: 2e-3, help: "peak learning rate" },
  seed: { default: 0, help: "seed of weights, order and augmentation" },
  device: deviceOption,
});

const SIZE = 32; // pixels per side
const CHANNELS = 3;

await run(async (signal) => {
  await init({ device: options.device });
  const { name, reason } = deviceInfo();
  console.log(`device: ${name} (${reason})`);

  // ---- data: renderings by vendor, captions as token ids
  let rendering: Progress | undefined;
  const renderings = await loadEmoji({
    size: SIZE,
    signal,
    onProgress: (done, total) => {
      rendering ??= new Progress("rendering emoji", total);
      rendering.update(done);
    },
  });
  const { train, unseenVendor } = captionTask(renderings);
  const tokenizer = WordTokenizer.train(train.map((r) => r.concept.label));
  const longest = Math.max(...train.map((r) => tokenizer.encode(r.concept.label).length));
  const T = longest + 1; // <bos> and every token; the last one predicts <eos>
  console.log(
    `${train.length} training images of ${new Set(train.map((r) => r.concept)).size} concepts, ` +
      `${unseenVendor.length} images by a vendor not among them (${UNSEEN_VENDOR}), ` +
      `${tokenizer.vocabularySize} tokens`,
  );

  // ---- model: two blocks of vision, a 2 × 2 grid of image tokens, two blocks of language
  manualSeed(options.seed);
  const model = new Mm1({
    vision: {
      imageSize: SIZE,
      patchSize: 8,
      channels: CHANNELS,
      width: 96,
      depth: 2,
      heads: 4,
      hidden: 192,
      positionStd: 1,
    },
    grid: 2,
    language: { vocabulary: tokenizer.vocabularySize, width: 96, depth: 2, heads: 4, hidden: 256 },
  });
  const parameters = model.parameters();
  const count = parameters.reduce((n, p) => n + p.shape.reduce((a, b) => a * b, 1), 0);
  console.log(`${(count / 1e6).toFixed(2)} M parameters`);

  // ---- training
  const adamw = new optim.AdamW(parameters, { lr: options.lr, weightDecay: 0.05 });
  const schedule = optim.warmupCosine({
    peak: options.lr,
    steps: options.steps,
    warmup: Math.min(50, Math.ceil(options.steps / 10)),
    floor: options.lr / 50,
  });
  const trainStep = compile((images: Tensor, ids: Tensor, targets: Tensor) => {
    const loss = model.loss(images, ids, targets);
    adamw.zeroGrad();
    loss.backward();
    adamw.step();
    return loss;
  });

  const random = uniform(options.seed);
  const batches = shuffledBatches(train.length, options.batch, random);
  const toImages = (list: readonly Rendering[], augment?: () => number): Tensor => {
    const planes = CHANNELS * SIZE * SIZE;
    const data = new Float32Array(list.length * planes);
    list.forEach((r, i) => {
      toPlanes(r.pixels, SIZE, data.subarray(i * planes, (i + 1) * planes), augment);
    });
    return tensor(data, { shape: [list.length, CHANNELS, SIZE, SIZE] });
  };
  const toText = (list: readonly Rendering[]) => {
    const labels = list.map((r) => r.concept.label);
    const { inputs, targets } = encodeCaptions(labels, tokenizer, T);
    const rows = (ids: Int32Array) => tensor(ids, { shape: [list.length, T] });
    return { ids: rows(inputs), targets: rows(targets) };
  };

  const progress = new Progress("training", options.steps);
  let smooth = Number.NaN;
  for (let step = 0; step < options.steps; step++) {
    signal.throwIfAborted();
    const batch = batches.next().value!.map((i) => train[i]);
    const { ids, targets } = toText(batch);
    adamw.setLearningRate(schedule(step));
    const loss = await trainStep(toImages(batch, random), ids, targets).item();
    if (!Number.isFinite(loss))
      throw new Error(`step ${step}: the loss is ${loss}; try a smaller --lr`);
    smooth = Number.isNaN(smooth) ? Number(loss) : 0.95 * smooth + 0.05 * Number(loss);
    const rate = ((step + 1) * options.batch) / progress.seconds;
    progress.update(step + 1, `loss ${smooth.toFixed(3)}  ${rate.toFixed(0)} images/s`);
  }

  // ---- evaluation: exact matches on the vendor never seen
  model.eval();
  const { bos, eos, pad } = tokenizer;
  const captions = captioner(model, { bos, eos, pad, maxTokens: T });
  const predict = async (list: readonly Rendering[]): Promise<string[]> => {
    const texts: string[] = [];
    for (let i = 0; i < list.length; i += options.batch) {
      signal.throwIfAborted();
      const ids = await captions(toImages(list.slice(i, i + options.batch)));
      texts.push(...ids.map((tokens) => tokenizer.decode(tokens)));
    }
    return texts;
  };
  const exact = (texts: readonly string[], list: readonly Rendering[]) =>
    list.filter((r, i) => r.concept.label === texts[i]).length / list.length;
  const predicted = await predict(unseenVendor);
  const onTrain = exact(await predict(train), train);
  // All training captions are equally frequent, so the "most frequent" one is any of them.
  const counts = Map.groupBy(train, (r) => r.concept.label);
  const [mostFrequent] = [...counts].reduce((a, b) => (b[1].length > a[1].length ? b : a));
  const constant = exact(
    unseenVendor.map(() => mostFrequent),
    unseenVendor,
  );

  console.log(`\ncaptions of renderings by ${UNSEEN_VENDOR}, a vendor never seen in training:`);
  const shown = 16;
  for (let k = 0; k < shown; k++) {
    const i = Math.floor(((k + 0.5) * unseenVendor.length) / shown);
    const truth = unseenVendor[i].concept.label;
    const mark = predicted[i] === truth ? "=" : "≠";
    console.log(`  ${truth.padEnd(24)} ${mark} ${predicted[i]}`);
  }
  const percent = (x: number) => `${(100 * x).toFixed(1)} %`;
  console.log(`
exact match on ${unseenVendor.length} unseen renderings: ${percent(exact(predicted, unseenVendor))}
always the most frequent caption ("${mostFrequent}"): ${percent(constant)}
exact match on the training images: ${percent(onTrain)}`);
});
