/** @file GPT-2 (Radford et al. 2019) as a training step: what pytorch.py has, line by line. */
import { arange, autocast, compile, randint, realize, type Tensor } from "hinode";
import {
  crossEntropy,
  Embedding,
  LayerNorm,
  Linear,
  MLP,
  Module,
  MultiheadAttention,
  optim,
  TransformerBlock,
} from "hinode/nn";
import type { Case } from "./cases.ts";

type GptCase = Extract<Case, { kind: "gpt" }>;

class Gpt extends Module {
  tokens: Embedding;
  positions: Embedding;
  blocks: TransformerBlock[];
  norm: LayerNorm;
  head: Linear;

  constructor({ depth, width, heads, length, vocabulary }: GptCase) {
    super();
    this.tokens = new Embedding(vocabulary, width, { std: 0.02 });
    this.positions = new Embedding(length, width, { std: 0.02 });
    this.blocks = Array.from(
      { length: depth },
      () =>
        new TransformerBlock({
          norm1: new LayerNorm(width),
          attention: new MultiheadAttention(width, heads, { causal: true }),
          norm2: new LayerNorm(width),
          feedForward: new MLP(width, 4 * width),
        }),
    );
    this.norm = new LayerNorm(width);
    this.head = new Linear(width, vocabulary, { bias: false });
  }

  /** Ids [B, T] → scores [B, T, V]. */
  forward(ids: Tensor): Tensor {
    let x = this.tokens.forward(ids).add(this.positions.forward(arange(ids.shape[1])));
    for (const block of this.blocks) x = block.forward(x);
    return this.head.forward(this.norm.forward(x));
  }
}

/** A compiled step of AdamW on one batch, which gives the loss. */
export async function gptStep(c: GptCase): Promise<{ step: () => Tensor; dispose: () => void }> {
  const model = new Gpt(c);
  const parameters = [...model.parameters()];
  const adamw = new optim.AdamW(parameters, { lr: 1e-4 });
  const mixed = c.precision === "f16";
  const scaler = new optim.GradScaler({ enabled: mixed });
  const ids = randint(0, c.vocabulary, [c.batch, c.length]);
  const targets = randint(0, c.vocabulary, [c.batch, c.length]);
  await realize(ids, targets, ...parameters);
  const step = compile((x: Tensor, y: Tensor) => {
    const loss = autocast({ enabled: mixed }, () =>
      crossEntropy(model.forward(x).reshape([-1, c.vocabulary]), y.reshape([-1])),
    );
    adamw.zeroGrad();
    scaler.scale(loss).backward();
    scaler.step(adamw);
    scaler.update();
    return loss;
  });
  const dispose = () => {
    for (const t of [ids, targets, ...parameters, ...adamw.mean, ...adamw.square]) t.dispose();
  };
  return { step: () => step(ids, targets), dispose };
}
