/**
 * @file `npm run char-gpt`: a GPT that writes character by character, line by line from nanoGPT (model.py, train.py,
 * config/train_shakespeare_char.py), in the size that its README trains on a laptop: 4 blocks, 4 heads, 128 numbers,
 * 64 characters, no dropout, https://github.com/karpathy/nanoGPT
 *
 * Changed: a step is a function that is compiled, and draws its batch on the device; to write, the context is padded to a
 * whole block, because each shape would be traced anew; the loss of the validation text is that of all of it, not of
 * 20 batches; the text is prose that every clone has (data/prose.ts; `--text input.txt` for Shakespeare).
 * 1200 steps reached 1.87 nats, 2.70 bits per character, in 221 s of processor time on one thread of a busy machine; 1500
 * steps 1.75 nats, 2.53 bits, in 255 s.
 */
import { readFileSync } from "node:fs";
import {
  arange,
  compile,
  crossEntropy,
  gelu,
  manualSeed,
  multinomial,
  noGrad,
  randint,
  scaledDotProductAttention,
  softmax,
  split,
  type Tensor,
  tensor,
  topk,
  where,
} from "hinode";
import { Progress } from "hinode/data";
import { Embedding, init, LayerNorm, Linear, Module, optim, saveModel } from "hinode/nn";
import { nodeProse } from "./data/prose.ts";
import { deviceOption, readOptions, run, Stop, startDevice, threadsOption } from "./support/cli.ts";

const options = readOptions("npm run char-gpt -- [options]: a GPT of characters", {
  text: {
    default: "",
    help: "file to learn from; without it, the documentation of Node's modules",
  },
  steps: { default: 1200, min: 1, integer: true, help: "training steps" },
  batch: { default: 12, min: 1, integer: true, help: "sequences per step" },
  block: { default: 64, min: 2, integer: true, help: "characters per sequence" },
  layers: { default: 4, min: 1, integer: true, help: "transformer blocks" },
  heads: { default: 4, min: 1, integer: true, help: "attention heads" },
  width: { default: 128, min: 1, integer: true, help: "numbers per position" },
  lr: { default: 1e-3, help: "peak learning rate" },
  sample: { default: 400, integer: true, help: "characters to write at the end" },
  seed: { default: 1337, integer: true, help: "seed of weights, batches and the sample" },
  save: { default: "", help: "write the model to this file, as safetensors" },
  threads: threadsOption,
  device: deviceOption,
});

// ---- model.py

interface Config {
  readonly vocabSize: number;
  readonly blockSize: number;
  readonly nLayer: number;
  readonly nHead: number;
  readonly nEmbd: number;
}

class CausalSelfAttention extends Module {
  cAttn: Linear;
  cProj: Linear;
  readonly nHead: number;
  readonly nEmbd: number;

  constructor(config: Config) {
    super();
    // key, query, value projections for all heads, but in a batch
    this.cAttn = new Linear(config.nEmbd, 3 * config.nEmbd);
    this.cProj = new Linear(config.nEmbd, config.nEmbd);
    this.nHead = config.nHead;
    this.nEmbd = config.nEmbd;
  }

  forward(x: Tensor): Tensor {
    const [B, T, C] = x.shape;
    const heads = (t: Tensor) => t.reshape([B, T, this.nHead, C / this.nHead]).transpose(1, 2);
    const [q, k, v] = split(this.cAttn.forward(x), this.nEmbd, 2).map(heads); // [B, heads, T, C / heads]
    const y = scaledDotProductAttention(q, k, v, { isCausal: true });
    return this.cProj.forward(y.transpose(1, 2).reshape([B, T, C])); // the heads' outputs side by side
  }
}

class MLP extends Module {
  cFc: Linear;
  cProj: Linear;

  constructor(config: Config) {
    super();
    this.cFc = new Linear(config.nEmbd, 4 * config.nEmbd);
    this.cProj = new Linear(4 * config.nEmbd, config.nEmbd);
  }

  forward(x: Tensor): Tensor {
    return this.cProj.forward(gelu(this.cFc.forward(x)));
  }
}

class Block extends Module {
  ln1: LayerNorm;
  attn: CausalSelfAttention;
  ln2: LayerNorm;
  mlp: MLP;

  constructor(config: Config) {
    super();
    this.ln1 = new LayerNorm(config.nEmbd);
    this.attn = new CausalSelfAttention(config);
    this.ln2 = new LayerNorm(config.nEmbd);
    this.mlp = new MLP(config);
  }

  forward(x: Tensor): Tensor {
    x = x.add(this.attn.forward(this.ln1.forward(x)));
    return x.add(this.mlp.forward(this.ln2.forward(x)));
  }
}

class GPT extends Module {
  wte: Embedding;
  wpe: Embedding;
  h: Block[];
  lnF: LayerNorm;
  lmHead: Linear;
  readonly config: Config;

  constructor(config: Config) {
    super();
    this.config = config;
    this.wte = new Embedding(config.vocabSize, config.nEmbd);
    this.wpe = new Embedding(config.blockSize, config.nEmbd);
    this.h = Array.from({ length: config.nLayer }, () => new Block(config));
    this.lnF = new LayerNorm(config.nEmbd);
    this.lmHead = new Linear(config.nEmbd, config.vocabSize, { bias: false });
    this.wte.weight = this.lmHead.weight; // https://paperswithcode.com/method/weight-tying

    this.apply((module) => {
      if (!(module instanceof Linear || module instanceof Embedding)) return;
      init.normal_(module.weight, 0, 0.02);
      if (module instanceof Linear && module.bias) init.zeros_(module.bias);
    });
    // scaled init of the residual projections, as in the GPT-2 paper
    for (const [name, p] of this.namedParameters())
      if (name.endsWith("cProj.weight")) init.normal_(p, 0, 0.02 / Math.sqrt(2 * config.nLayer));
  }

  /** [B, T] → [B, T, vocabulary] */
  forward(idx: Tensor): Tensor {
    const pos = arange(idx.shape[1]);
    let x = this.wte.forward(idx).add(this.wpe.forward(pos));
    for (const block of this.h) x = block.forward(x);
    return this.lmHead.forward(this.lnF.forward(x));
  }

  configureOptimizers(weightDecay: number, lr: number, betas: [number, number]) {
    const all = this.parameters();
    const groups = [
      { params: all.filter((p) => p.ndim >= 2), weightDecay },
      { params: all.filter((p) => p.ndim < 2), weightDecay: 0 },
    ];
    return new optim.AdamW(groups, { lr, betas });
  }

  /** Goes on writing after the characters of `idx`. */
  async generate(idx: number[], maxNewTokens: number, temperature = 1, topK = 200) {
    const { blockSize, vocabSize } = this.config;
    const next = compile((context: Tensor, last: Tensor) =>
      noGrad(() => {
        let logits = this.forward(context).index(0, last).div(temperature); // [1, vocabulary]
        const k = Math.min(topK, vocabSize);
        const { values } = topk(logits, k);
        logits = where(logits.lt(values.narrow(1, k - 1, 1)), -Infinity, logits);
        return multinomial(softmax(logits, -1), 1);
      }),
    );
    for (let i = 0; i < maxNewTokens; i++) {
      // Always a whole block, so that there is one plan; no position sees what comes after it.
      const idxCond = idx.slice(-blockSize);
      const context = new Int32Array(blockSize);
      context.set(idxCond);
      const last = tensor([idxCond.length - 1], { dtype: "i32" });
      const idxNext = next(tensor(context, { shape: [1, blockSize] }), last);
      idx = [...idx, Number(await idxNext.item())];
    }
    return idx;
  }
}

// ---- train.py

await run(async (signal) => {
  await startDevice(options);
  const { steps, batch, block, width, heads } = options;
  if (width % heads !== 0)
    throw new Stop(`--width: expected a multiple of ${heads} heads, got ${width}`, 2);
  manualSeed(options.seed);

  // data/shakespeare_char/prepare.py: characters as integers, the last tenth for validation
  const text = options.text ? readText(options.text) : nodeProse();
  const chars = [...new Set(text)].sort();
  const stoi = new Map(chars.map((c, i) => [c, i]));
  const data = Int32Array.from(text, (c) => stoi.get(c)!);
  const n = Math.floor(0.9 * data.length);
  if (data.length - n <= block)
    throw new Stop(`--text: expected more than ${10 * block} characters, got ${data.length}`);
  const [trainData, valData] = [tensor(data.subarray(0, n)), tensor(data.subarray(n))];
  console.log(
    `${n} characters to learn from, ${data.length - n} to validate with, ${chars.length} different ones`,
  );

  const model = new GPT({
    vocabSize: chars.length,
    blockSize: block,
    nLayer: options.layers,
    nHead: heads,
    nEmbd: width,
  });
  console.log(`${(model.numParameters() / 1e6).toFixed(2)} M parameters`);
  const optimizer = model.configureOptimizers(1e-1, options.lr, [0.9, 0.99]);
  const scheduler = new optim.WarmupCosineLR(optimizer, {
    steps,
    warmup: Math.min(100, Math.floor(steps / 10)),
    floor: options.lr / 10,
  });

  /** Sequences that begin at ix [B], and the same one character on. */
  const getBatch = (source: Tensor, ix: Tensor): [x: Tensor, y: Tensor] => {
    const at = ix.unsqueeze(1).add(arange(block));
    return [source.take(at), source.take(at.add(1))];
  };
  const lossOf = (x: Tensor, y: Tensor): Tensor => {
    const logits = model.forward(x);
    return crossEntropy(logits.reshape([-1, chars.length]), y.flatten());
  };
  const trainStep = compile(() => {
    const [x, y] = getBatch(trainData, randint(0, n - block, [batch]));
    const loss = lossOf(x, y);
    optimizer.zeroGrad();
    loss.backward();
    optim.clipGradNorm(model.parameters(), 1);
    optimizer.step();
    return loss;
  });

  const progress = new Progress({ description: "training", total: steps });
  let smooth = Number.NaN;
  for (let step = 0; step < steps; step++) {
    signal.throwIfAborted();
    const loss = Number(await trainStep().item());
    scheduler.step();
    smooth = Number.isNaN(smooth) ? loss : 0.95 * smooth + 0.05 * loss;
    progress.update(
      step + 1,
      (rate) => `loss ${smooth.toFixed(3)}  ${(rate * batch * block).toFixed(0)} characters/s`,
    );
  }

  // All of the validation text, in blocks one after the other.
  const evaluate = compile((ix: Tensor) => noGrad(() => lossOf(...getBatch(valData, ix))));
  let [total, count] = [0, 0];
  const starts = Array.from(
    { length: Math.floor((valData.shape[0] - 1) / block) },
    (_, i) => i * block,
  );
  for (let at = 0; at < starts.length; at += 64) {
    signal.throwIfAborted();
    const ix = starts.slice(at, at + 64);
    total += Number(await evaluate(tensor(ix, { dtype: "i32" })).item()) * ix.length;
    count += ix.length;
  }
  const nats = total / count;
  console.log(
    `validation loss ${nats.toFixed(4)}: ${(nats / Math.LN2).toFixed(3)} bits per character`,
  );

  if (options.save) {
    await saveModel(options.save, model);
    console.log(`saved: ${options.save}`);
  }
  if (options.sample === 0) return;
  const written = await model.generate([stoi.get("\n") ?? 0], options.sample, 0.8);
  console.log(`\n${written.map((i) => chars[i]).join("")}`);
});

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new Stop(`--text: expected a file of text, got ${(error as Error).message}`);
  }
}
