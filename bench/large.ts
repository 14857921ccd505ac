/**
 * @file `npm run bench:large`: a multimodal model of 300 million parameters (CLIP's ViT-B/16, a
 * C-Abstractor of 144 tokens, a language model) does a forward pass, a backward pass and a step of
 * AdamW, in WebAssembly with addresses of 64 bits or on a GPU. In WebAssembly the bar is less than
 * 16 GiB. With `--forward` a published size does a forward pass alone, with random weights in a
 * smaller type. States times and memory: the device's, and that of the process at its peak.
 *
 *     npm run bench:large                              # some two minutes, about 8 GB
 *     npm run bench:large -- --batch 4 --threads 2 --bf16
 *     npm run bench:large -- --device webgpu
 *     npm run bench:large -- --device webgpu --forward 3B --dtype f16     # int8, int4: rest f16
 *     npm run bench:large -- --quick                   # tiny models: shows that it runs
 *     npm run bench:large -- --count 3B                # what a size needs; nothing is allocated
 *
 * A GPU that is simulated on the processor is refused, except with `--quick`. The times are of
 * second calls: the first one of a compiled function plans it, and says how long that took.
 */
import { parseArgs } from "node:util";
import {
  autocast,
  cat,
  compile,
  defaultDevice,
  deviceInfo,
  HinodeError,
  init,
  manualSeed,
  noGrad,
  randint,
  randn,
  realize,
  type Tensor,
  tensor,
} from "hinode";
import {
  clipConfig,
  languagePresets,
  type Mm1Size,
  mm1Config,
  type VisionLanguageConfig,
  VisionLanguageModel,
} from "hinode/models";
import {
  type ConvertOptions,
  convertWeights,
  Linear,
  type Module,
  optim,
  type WeightType,
} from "hinode/nn";
import { closeGpu, openGpu } from "./gpu/options.ts";

const GiB = 2 ** 30;

const { values: options } = parseArgs({
  options: {
    /** wasm or webgpu */
    device: { type: "string", default: "wasm" },
    quick: { type: "boolean", default: false },
    /** Images, each with a text. */
    batch: { type: "string", default: "2" },
    /** Text tokens per image. */
    text: { type: "string", default: "112" },
    threads: { type: "string", default: "1" },
    /** Products in bf16, parameters in f32. */
    bf16: { type: "boolean", default: false },
    /** Keeps all activations of the language model instead of computing them once more. */
    keep: { type: "boolean", default: false },
    /** GiB that the arena may take. */
    budget: { type: "string", default: "16" },
    /** A published size to count instead. */
    count: { type: "string" },
    /** A published size that does a forward pass instead. */
    forward: { type: "string" },
    /** What its weights are: f32, f16, bf16, or int8 or int4 with all others in f16. */
    dtype: { type: "string", default: "f16" },
  },
});

const started = performance.now();
const say = (line: string) =>
  console.log(`${((performance.now() - started) / 1e3).toFixed(1).padStart(6)} s  ${line}`);
const gib = (bytes: number) => `${(bytes / GiB).toFixed(2)} GiB`;
const millions = (n: number) => `${(n / 1e6).toFixed(1)} M`;
const parametersOf = (m: Module) => m.numParameters();

/**
 * About 300 million in all: the language model is half as deep as the preset of 302 million, with a
 * tied head.
 */
function configOf(quick: boolean): VisionLanguageConfig {
  const connector = { kind: "c-abstractor", tokens: quick ? 4 : 144 } as const;
  if (!quick)
    return {
      vision: clipConfig("B/16").vision,
      connector,
      language: { ...languagePresets["302M"], depth: 12, tied: true },
      imageToken: 3,
    };
  const sizes = { width: 32, depth: 2, heads: 2, hidden: 64 };
  return {
    vision: { ...sizes, imageSize: 32, patchSize: 8, channels: 3, classToken: true },
    connector: { ...connector, hidden: 16, depth: 1 },
    language: { ...sizes, vocabulary: 64, qkNorm: true, tied: true },
    imageToken: 3,
  };
}

/** What the weights of a model take, by their type; scales of int8 and int4 included. */
function count(size: string): void {
  const model = new VisionLanguageModel(mm1Config(size as Mm1Size));
  const total = parametersOf(model);
  let [matrices, groups] = [0, 0];
  for (const m of model.modules())
    if (m instanceof Linear) {
      matrices += m.inFeatures * m.outFeatures;
      groups += m.outFeatures * Math.ceil(m.inFeatures / 128);
    }
  const rest = total - matrices;
  for (const [name, part] of model.namedChildren())
    console.log(`${name.padEnd(10)} ${millions(parametersOf(part)).padStart(9)}`);
  console.log(`${"total".padEnd(10)} ${millions(total).padStart(9)}`);
  const needs = {
    f32: 4 * total,
    "f16, bf16": 2 * total,
    "int8, rest f16": matrices + 4 * groups + 2 * rest,
    "int4, rest f16": matrices / 2 + 4 * groups + 2 * rest,
    "training in f32 (weights, gradients, AdamW)": 16 * total,
  };
  for (const [name, bytes] of Object.entries(needs))
    console.log(`${name.padEnd(44)} ${gib(bytes)}`);
}

/** Opens the device that was asked for. */
async function open(): Promise<void> {
  const { device, quick, budget, threads } = options;
  if (device === "webgpu") say(`${(await openGpu({ quick })).adapter}`);
  // Above 4 GiB addresses need 64 bits; this must be said before the first tensor.
  else if (device === "wasm")
    await init({ device, address: 64, budget: Number(budget) * GiB, threads: Number(threads) });
  else throw new HinodeError(`--device wasm or webgpu, not ${device}`);
  manualSeed(0);
}

const peakOfProcess = () => 1024 * process.resourceUsage().maxRSS;

function memory(): string {
  const { liveBytes, reservedBytes } = defaultDevice().memory();
  const own = `device ${gib(reservedBytes)}, ${gib(liveBytes)} of it in use`;
  return `${own}; process at its peak ${gib(peakOfProcess())}`;
}

/** Images [B, 3, H, W], and ids of as many placeholders as an image has tokens, then of text. */
async function inputsFor(model: VisionLanguageModel): Promise<{ images: Tensor; ids: Tensor }> {
  const { vision, imageToken, language } = model.config;
  const [batch, text] = [Number(options.batch), options.quick ? 12 : Number(options.text)];
  const [height, width] = [vision.imageSize].flat() as number[];
  const images = randn([batch, vision.channels, height, width ?? height]);
  const [perImage] = model.tokenCounts(images);
  const row = () => new Array<number>(perImage).fill(imageToken);
  const placeholders = tensor(Array.from({ length: batch }, row), { dtype: "i32" });
  const words = randint(imageToken + 1, language.vocabulary, [batch, text]);
  const ids = cat([placeholders, words], 1);
  await realize(images, ids);
  say(`${batch} images, ${perImage} tokens each, and ${text} tokens of text behind each`);
  return { images, ids };
}

/** What the weights of a forward pass are made to be. */
function conversionOf(dtype: string): ConvertOptions {
  if (dtype === "f32") return {};
  const integers = dtype === "int8" || dtype === "int4";
  return { dtype: dtype as WeightType, ...(integers ? { rest: "f16" } : {}) };
}

/** What `--forward` runs with `--quick`: a GPU that is simulated takes long for each kernel. */
const smallest: VisionLanguageConfig = {
  ...configOf(true),
  connector: { kind: "average", tokens: 4 },
};

/** Random weights of a published size, each tensor made in its type, and a pass over all scores. */
async function forwardPass(size: string): Promise<void> {
  const config = options.quick ? smallest : mm1Config(size as Mm1Size);
  await open();
  const model = new VisionLanguageModel(config).eval();
  const total = parametersOf(model);
  await convertWeights(model, conversionOf(options.dtype));
  say(`${millions(total)} parameters in ${options.dtype}: ${memory()}`);
  const { images, ids } = await inputsFor(model);
  const run = compile((ids: Tensor, images: Tensor) =>
    noGrad(() => model.forward(ids, images).float().abs().amax()),
  );
  let [time, largest] = [0, 0];
  for (const round of ["planned and run", "run"]) {
    const begin = performance.now();
    largest = (await run(ids, images).item()) as number;
    time = performance.now() - begin;
    say(`forward, ${round}: ${time.toFixed(0)} ms; ${memory()}`);
  }
  if (!Number.isFinite(largest)) throw new Error(`the largest score is ${largest}`);
  const [batch, tokens] = ids.shape;
  console.log(
    `\n${millions(total)} parameters in ${options.dtype}, batch ${batch} × ${tokens} tokens: ` +
      `forward ${time.toFixed(0)} ms, largest score ${largest.toFixed(2)}\n${memory()}`,
  );
}

async function measure(): Promise<void> {
  const { quick, bf16, keep } = options;
  await open();
  const model = new VisionLanguageModel(configOf(quick));
  const total = parametersOf(model);
  const parts = [...model.namedChildren()].map(
    ([name, m]) => `${name} ${millions(parametersOf(m))}`,
  );
  const { threads } = deviceInfo();
  say(`${millions(total)} parameters: ${parts.join(", ")}${threads ? `; ${threads} threads` : ""}`);
  const parameters = [...model.parameters()];
  for (const p of parameters) await realize(p);
  say(`weights are there: ${memory()}`);
  const { images, ids } = await inputsFor(model);

  const adamw = new optim.AdamW(parameters, { lr: 1e-4 });
  const lossOf = (images: Tensor, ids: Tensor) => {
    const run = () => model.loss(ids, images, { checkpoint: !keep });
    return bf16 ? autocast({ dtype: "bf16" }, run) : run();
  };
  const forward = compile((images: Tensor, ids: Tensor) => noGrad(() => lossOf(images, ids)));
  const backward = compile((images: Tensor, ids: Tensor) => {
    const loss = lossOf(images, ids);
    adamw.zeroGrad();
    loss.backward();
    return loss;
  });
  const step = compile(() => adamw.step());
  const losses: number[] = [];
  const passes = {
    forward: async () => void (await forward(images, ids).item()),
    "forward and backward": async () => {
      losses.push((await backward(images, ids).item()) as number);
    },
    "AdamW's step": async () => {
      step();
      await realize(...parameters);
    },
  };
  // All once to plan them, then all once more.
  const times = new Map<string, number>();
  for (const round of ["planned and run", "run"])
    for (const [name, pass] of Object.entries(passes)) {
      const [begin, used] = [performance.now(), process.cpuUsage()];
      await pass();
      times.set(name, performance.now() - begin);
      // Beside the clock's, as others may use the machine.
      const { user, system } = process.cpuUsage(used);
      const processor = `${((user + system) / 1e3).toFixed(0)} ms of processor time`;
      say(`${name}, ${round}: ${times.get(name)!.toFixed(0)} ms, ${processor}; ${memory()}`);
    }
  const [first, second] = losses;
  if (!(second < first)) throw new Error(`the loss went from ${first} to ${second}`);
  const [f, b, s] = [...times.values()];
  const [batch, tokens] = ids.shape;
  const where = options.device === "wasm" ? `${options.threads} threads` : options.device;
  console.log(
    `\n${millions(total)} parameters, batch ${batch} × ${tokens} tokens, ` +
      `${bf16 ? "bf16" : "f32"}, ${keep ? "no " : ""}checkpoints, ${where}\n` +
      `forward ${f.toFixed(0)} ms, with backward ${b.toFixed(0)} ms, ` +
      `AdamW ${s.toFixed(0)} ms\n` +
      `loss ${first.toFixed(4)} → ${second.toFixed(4)}\n${memory()}`,
  );
  const peak = peakOfProcess();
  if (peak > 16 * GiB) throw new Error(`the process took ${gib(peak)}, more than 16 GiB`);
}

try {
  if (options.count !== undefined) count(options.count);
  else if (options.forward !== undefined) await forwardPass(options.forward);
  else await measure();
  if (options.device === "webgpu" && options.count === undefined) closeGpu();
} catch (error) {
  // What was asked for does not exist: no place in this file says more than the message.
  if (!(error instanceof HinodeError)) throw error;
  console.error(error.message);
  process.exitCode = 2;
}
