/**
 * @file How AIM is judged (https://arxiv.org/abs/2401.08541, §5): a classifier that pools the
 * tokens of some of the trunk's layers by attention. The trunk itself attends both ways here and is
 * usually frozen.
 *
 * Shape letters: B images, C channels, K patches, D width, Q learned queries, N classes.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { crossEntropy, scaledDotProductAttention, type Tensor } from "../../core/index.ts";
import { BatchNorm1d, init, Linear, Module } from "../../nn/index.ts";
import { type ConfigJson, number, numbers, refuse } from "../settings.ts";
import { layerNames, type NameMap, type Names } from "../weights.ts";
import { aimConfigOf, aimTrunk, aimTrunkNames } from "./aim.ts";
import type { ImageOptions, ViT, ViTConfig } from "./vit.ts";

export interface AimProbeConfig {
  readonly classes: number;
  /** The blocks whose outputs are averaged, counted from 0; the last six unless given. */
  readonly layers?: readonly number[];
  /** Heads of the pooling attention; the trunk's unless given. */
  readonly heads?: number;
  /** Learned queries, whose results are averaged: 1 unless given. */
  readonly queries?: number;
}

/**
 * Tokens [B, K, D] → scores [B, N]: batch norm without an affine map, learned queries that attend
 * to all tokens (keys and values have a linear map without bias, queries and the result none), a
 * linear map without bias.
 */
export class AttentionProbe extends Module {
  norm: BatchNorm1d;
  /** [Q, D] */
  queries: Tensor;
  k: Linear;
  v: Linear;
  output: Linear;
  readonly heads: number;

  constructor(width: number, classes: number, heads: number, queries = 1) {
    super();
    if (width % heads !== 0)
      throw new ArgumentError(describe("AttentionProbe", "a width divisible by the heads", `${width} / ${heads}`)); // biome-ignore format: one line
    this.norm = new BatchNorm1d(width, { affine: false, eps: 1e-6 });
    this.queries = init.normal([queries, width], 0.02);
    this.k = new Linear(width, width, { bias: false });
    this.v = new Linear(width, width, { bias: false });
    this.output = new Linear(width, classes, { bias: false });
    this.heads = heads;
  }

  forward(tokens: Tensor): Tensor {
    const [B, , D] = tokens.shape;
    const x = this.norm.forward(tokens.transpose(1, 2)).transpose(1, 2); // [B, K, D], per channel
    const split = (t: Tensor) => t.unflatten(-1, [this.heads, D / this.heads]).transpose(1, 2);
    const q = split(this.queries.unsqueeze(0).expand([B, ...this.queries.shape])); // [B, H, Q, d]
    const seen = scaledDotProductAttention(q, split(this.k.forward(x)), split(this.v.forward(x)));
    return this.output.forward(seen.transpose(1, 2).flatten(-2).mean(1));
  }
}

/** A classifier on a trunk that attends both ways: images [B, C, H, W] → scores [B, N]. */
export class AimClassifier extends Module {
  trunk: ViT;
  head: AttentionProbe;
  readonly layers: readonly number[];

  constructor(trunk: ViTConfig, config: AimProbeConfig) {
    super();
    const { width, depth, heads } = trunk;
    const last = Array.from({ length: Math.min(6, depth) }, (_, i) => depth - 1 - i).reverse();
    this.layers = config.layers ?? last;
    if (this.layers.length === 0 || this.layers.some((i) => !(Number.isInteger(i) && i >= 0 && i < depth)))
      throw new ArgumentError(
        describe("AimClassifier", `layers of 0 … ${depth - 1}`, `[${this.layers.join(", ")}]`),
      ); // biome-ignore format: one condition
    this.trunk = aimTrunk(trunk);
    this.head = new AttentionProbe(width, config.classes, config.heads ?? heads, config.queries);
  }

  /**
   * What the probe reads, [B, K, D]: the mean of the raw outputs of `layers`; the final norm has no
   * part in it.
   */
  features(images: Tensor, options: ImageOptions = {}): Tensor {
    const states = this.trunk.hiddenStates(images, options);
    const chosen = this.layers.map((i) => states[i + 1]);
    return chosen.reduce((a, b) => a.add(b)).div(chosen.length);
  }

  forward(images: Tensor, options: ImageOptions = {}): Tensor {
    return this.head.forward(this.features(images, options));
  }

  /** The cross-entropy of the classes [B]. */
  loss(images: Tensor, classes: Tensor): Tensor {
    return crossEntropy(this.forward(images), classes);
  }
}

/**
 * The configuration of ml-aim's AIMForImageClassification (its `config.json`): trunk and probe. Its
 * attention has no biases to queries, keys and values, whatever `use_bias` says.
 * @throws ArgumentError for a setting of another kind, or one that is not here.
 */
export function aimClassifierConfigOf(json: ConfigJson): {
  readonly trunk: ViTConfig;
  readonly probe: AimProbeConfig;
} {
  const { probe_layers: _, num_classes: __, ...rest } = json;
  const trunk = aimConfigOf(rest);
  return {
    trunk,
    probe: { classes: number(json, "num_classes", 1000), layers: probeLayers(json, trunk) },
  };
}

/** `probe_layers`: the layers, or how many of the last. */
function probeLayers(json: ConfigJson, { depth }: ViTConfig): number[] {
  if (Array.isArray(json.probe_layers)) return numbers(json, "probe_layers");
  const count = number(json, "probe_layers", 6);
  if (!(Number.isInteger(count) && count >= 1 && count <= depth))
    refuse("probe_layers (6 unless given)", `1 … ${depth} layers`, count);
  return Array.from({ length: count }, (_, i) => depth - count + i);
}

/** Backbone and attention probe, as ml-aim has them. */
export function aimClassifierNames({ trunk, head }: AimClassifier): NameMap {
  function* names(): Names {
    yield* aimTrunkNames(trunk);
    yield ["head.bn.running_mean", { cell: head.norm.runningMean! }];
    yield ["head.bn.running_var", { cell: head.norm.runningVar! }];
    yield ["head.cls_token", { cell: head.queries, shape: [1, ...head.queries.shape] }];
    yield* layerNames("head.k", head.k);
    yield* layerNames("head.v", head.v);
    yield* layerNames("head.linear", head.output);
  }
  return new Map(names());
}
