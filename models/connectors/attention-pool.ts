/**
 * @file Attention pooling: learned queries look at the patches, one image token per query. MM1 has
 * tried it with 64 and 144 queries (https://arxiv.org/abs/2403.09611, §3.2) but does not give its
 * layers. Ours are those of AXLearn's AttentionPooling, Apple's own: q = queries; q +=
 * attention(norm(q), x); q += MLP(norm(q)). What is around it is our decision: the patches are
 * normalised and given learned positions, as without them attention knows no places, and a linear
 * map follows.
 *
 * Shape letters: B images, h × w the patch grid, N = h·w, Dv width of the encoder, k queries, D
 * width of the language model.
 */
import type { Tensor } from "../../core/index.ts";
import { init, LayerNorm, Linear, MLP, Module, MultiheadAttention } from "../../nn/index.ts";
import { type Grid, resizePositions, sidesOf } from "../vision/positions.ts";
import { type Connector, gridOf } from "./connector.ts";

export interface AttentionPoolConfig {
  /** Dv */
  readonly visionWidth: number;
  /** The grid that the positions are of: patches per side, or rows and columns. */
  readonly patches: number | Grid;
  /** k: any number, 64 or 144 in MM1. */
  readonly tokens: number;
  /** D */
  readonly width: number;
  /**
   * Heads of the attention; one for every 64 channels unless given (one for all where that is no
   * whole number).
   */
  readonly heads?: number;
  /** Hidden width of the MLP: 4 Dv unless given. */
  readonly hidden?: number;
  /** Rounds of attention and MLP: 1 unless given. */
  readonly depth?: number;
  /** Whether learned positions are added to the patches (the default). */
  readonly positions?: boolean;
  readonly eps?: number;
}

/** Patches [B, N, Dv] → image tokens [B, k, D]. */
export class AttentionPoolConnector extends Module implements Connector {
  /** [k, Dv] */
  queries: Tensor;
  /** [N, Dv] for the grid of the configuration; resized for others. */
  positions: Tensor | null;
  /** Of Dv channels. */
  norm: LayerNorm;
  rounds: QueryBlock[];
  /** Its weight [D, Dv], its bias [D]. */
  projection: Linear;
  readonly config: AttentionPoolConfig;

  constructor(config: AttentionPoolConfig) {
    super();
    const { visionWidth: Dv, tokens, width, depth = 1, positions = true, eps } = config;
    this.config = config;
    const [h, w] = this.grid;
    this.queries = init.normal([tokens, Dv], 0.02);
    this.positions = positions ? init.normal([h * w, Dv], 0.02) : null;
    this.norm = new LayerNorm(Dv, { eps });
    this.rounds = Array.from({ length: depth }, () => new QueryBlock(config));
    this.projection = new Linear(Dv, width);
  }

  /** The grid of the positions. */
  get grid(): Grid {
    return sidesOf(this.config.patches);
  }

  tokensOf(_grid: Grid): number {
    return this.config.tokens;
  }

  forward(features: Tensor, grid?: Grid): Tensor {
    const { visionWidth: Dv, tokens: k } = this.config;
    const to = gridOf("AttentionPoolConnector", features, Dv, grid);
    const x = this.norm.forward(features); // [B, N, Dv]
    const seen = this.positions ? x.add(resizePositions(this.positions, this.grid, to)) : x;
    const q = this.queries.unsqueeze(0).expand([features.shape[0], k, Dv]);
    return this.projection.forward(this.rounds.reduce((q, round) => round.forward(q, seen), q));
  }
}

/**
 * q + attention(norm(q), x), and then q + MLP(norm(q)): queries [B, k, Dv] and patches [B, N, Dv] →
 * [B, k, Dv].
 */
class QueryBlock extends Module {
  norm1: LayerNorm;
  attention: MultiheadAttention;
  norm2: LayerNorm;
  feedForward: MLP;

  constructor({ visionWidth: Dv, heads = headsOf(Dv), hidden = 4 * Dv, eps }: AttentionPoolConfig) {
    super();
    this.norm1 = new LayerNorm(Dv, { eps });
    this.attention = new MultiheadAttention(Dv, heads);
    this.norm2 = new LayerNorm(Dv, { eps });
    this.feedForward = new MLP(Dv, hidden);
  }

  forward(q: Tensor, x: Tensor): Tensor {
    const y = q.add(this.attention.forward(this.norm1.forward(q), x, x));
    return y.add(this.feedForward.forward(this.norm2.forward(y)));
  }
}

const headsOf = (width: number): number => (width % 64 === 0 ? width / 64 : 1);
