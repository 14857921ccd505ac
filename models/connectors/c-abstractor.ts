/**
 * @file The C-Abstractor of Honeybee (https://arxiv.org/abs/2312.06742), MM1's connector:
 * convolutions before and after the patch grid is averaged down, which keep what is near to one
 * another together, and then an MLP.
 *
 *     x + positions → stage → means of n × n cells → stage → Linear, SiLU, Linear
 *
 * A stage is a RegNet's (https://arxiv.org/abs/2003.13678, as timm builds it) with stride 1, whose
 * 3 × 3 convolutions are depthwise. What is a 1 × 1 convolution there is a Linear here: tokens stay
 * [B, h·w, C] all the way.
 *
 * Shape letters: B images, h × w the patch grid, Dv width of the encoder, C hidden channels, k = n²
 * image tokens, D width of the language model.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { cat, type Tensor } from "../../core/index.ts";
import { roundEven } from "../../core/math.ts";
import { Conv2d, init, LayerNorm, Linear, Module, parameter } from "../../nn/index.ts";
import { type Grid, resizePositions, sidesOf } from "../vision/positions.ts";
import { poolGrid } from "./average-pool.ts";
import { type Connector, gridOf, initialize, sideOf } from "./connector.ts";

export interface CAbstractorConfig {
  /** Dv */
  readonly visionWidth: number;
  /** The grid that the positions are of: patches per side, or rows and columns. */
  readonly patches: number | Grid;
  /** k, a square: 64 or 144 in MM1. */
  readonly tokens: number;
  /** D */
  readonly width: number;
  /** C: 1024 unless given. */
  readonly hidden?: number;
  /**
   * Blocks per stage, 3 unless given. 0: no stages, the encoder's features are averaged as they
   * are.
   */
  readonly depth?: number;
  /** Linear layers of the MLP, 2 unless given. */
  readonly mlpDepth?: number;
  /** Learned tokens after those of the image; none unless given. */
  readonly eosTokens?: number;
  /** A layer norm of the features first; none unless asked for. */
  readonly preNorm?: boolean;
  /** Whether learned positions are added (the default). */
  readonly positions?: boolean;
  /**
   * Of the stages' layer norms: 1e-5 unless given, timm's where an activation follows the norm.
   * That of `preNorm` is 1e-6.
   */
  readonly eps?: number;
}

/** Patches [B, h·w, Dv] → image tokens [B, k, D]. */
export class CAbstractor extends Module implements Connector {
  /** [N, Dv] for the grid of the configuration; resized for others. */
  positions: Tensor | null;
  preNorm: LayerNorm | null;
  before: RegBlock[];
  after: RegBlock[];
  /** With SiLU between them. */
  readout: Linear[];
  /** [E, D] */
  eos: Tensor | null;
  readonly config: CAbstractorConfig;

  constructor(config: CAbstractorConfig) {
    super();
    const { visionWidth: Dv, tokens, width: D, hidden: C = 1024, depth = 3, eps = 1e-5 } = config;
    const { mlpDepth = 2, eosTokens = 0, preNorm = false, positions = true } = config;
    sideOf("CAbstractor", tokens);
    if (mlpDepth < 1)
      throw new ArgumentError(describe("CAbstractor", "an mlpDepth of at least 1", `${mlpDepth}`));
    this.config = config;
    const [h, w] = this.grid;
    const stage = (from: number) =>
      Array.from({ length: depth }, (_, i) => new RegBlock(i === 0 ? from : C, C, eps));
    // timm's LayerNorm on its own, unlike that with an activation.
    this.preNorm = preNorm ? new LayerNorm(Dv, { eps: 1e-6 }) : null;
    this.before = stage(Dv);
    this.after = stage(C);
    const inner = depth > 0 ? C : Dv;
    this.readout = Array.from({ length: mlpDepth }, (_, i) => new Linear(i === 0 ? inner : D, D));
    initialize(this);
    this.positions = positions ? init.normal([h * w, Dv], 0.02) : null;
    this.eos = eosTokens > 0 ? init.normal([eosTokens, D], 0.02) : null;
  }

  /** The grid of the positions. */
  get grid(): Grid {
    return sidesOf(this.config.patches);
  }

  tokensOf(_grid: Grid): number {
    return this.config.tokens + (this.config.eosTokens ?? 0);
  }

  forward(features: Tensor, grid?: Grid): Tensor {
    return this.project(this.abstract(features, grid).tokens);
  }

  /**
   * All but the MLP: after the first stage [B, h·w, C], pooled [B, k, C], and after the second
   * stage [B, k, C].
   */
  abstract(
    features: Tensor,
    grid?: Grid,
  ): { readonly local: Tensor; readonly pooled: Tensor; readonly tokens: Tensor } {
    const [h, w] = gridOf("CAbstractor", features, this.config.visionWidth, grid);
    const n = sideOf("CAbstractor", this.config.tokens);
    const normed = this.preNorm ? this.preNorm.forward(features) : features;
    const x = this.positions
      ? normed.add(resizePositions(this.positions, this.grid, [h, w]))
      : normed;
    const local = this.before.reduce((y, block) => block.forward(y, [h, w]), x);
    const pooled = poolGrid(local, [h, w], n);
    const tokens = this.after.reduce((y, block) => block.forward(y, [n, n]), pooled);
    return { local, pooled, tokens };
  }

  /** Tokens [B, k, C] → [B, k, D], and the learned ones after them. */
  project(tokens: Tensor): Tensor {
    const [first, ...rest] = this.readout;
    const y = rest.reduce((y, layer) => layer.forward(y.silu()), first.forward(tokens));
    if (!this.eos) return y;
    const [B, , D] = y.shape;
    return cat([y, this.eos.unsqueeze(0).expand([B, this.eos.shape[0], D])], 1);
  }
}

/**
 * RegNet's bottleneck without a bottleneck, [B, h·w, I] → [B, h·w, C]:
 *
 *     y = SiLU(norm(1 × 1 x)); y = SiLU(norm(3 × 3 y)); y = excite(y); y = norm(1 × 1 y)
 *     SiLU(y + x), or where I ≠ C: SiLU(y + norm(1 × 1 x))
 */
export class RegBlock extends Module {
  reduce: Linear;
  reduceNorm: LayerNorm;
  spatial: Conv2d;
  spatialNorm: LayerNorm;
  excite: SqueezeExcite;
  expand: Linear;
  expandNorm: LayerNorm;
  shortcut: Linear | null;
  shortcutNorm: LayerNorm | null;

  constructor(inputs: number, channels: number, eps: number) {
    super();
    const norm = () => new LayerNorm(channels, { eps });
    this.reduce = new Linear(inputs, channels, { bias: false });
    this.reduceNorm = norm();
    this.spatial = new Conv2d(channels, channels, 3, { padding: 1, groups: channels, bias: false });
    this.spatialNorm = norm();
    this.excite = new SqueezeExcite(channels, roundEven(inputs / 4));
    this.expand = new Linear(channels, channels, { bias: false });
    this.expandNorm = norm();
    this.shortcut = inputs === channels ? null : new Linear(inputs, channels, { bias: false });
    this.shortcutNorm = inputs === channels ? null : norm();
  }

  forward(x: Tensor, [h, w]: Grid): Tensor {
    const [B, N] = x.shape;
    const y = this.reduceNorm.forward(this.reduce.forward(x)).silu(); // [B, N, C]
    const C = y.shape[2];
    const planes = y.transpose(1, 2).reshape([B, C, h, w]);
    const mixed = this.spatial.forward(planes).reshape([B, C, N]).transpose(1, 2); // [B, N, C]
    const z = this.excite.forward(this.spatialNorm.forward(mixed).silu());
    const residual = this.expandNorm.forward(this.expand.forward(z));
    const shortcut = this.shortcut ? this.shortcutNorm!.forward(this.shortcut.forward(x)) : x;
    return residual.add(shortcut).silu();
  }
}

/**
 * x · σ(up(SiLU(down(the mean of x over all places)))): [B, N, C] → [B, N, C].
 * https://arxiv.org/abs/1709.01507
 */
export class SqueezeExcite extends Module {
  down: Linear;
  up: Linear;

  constructor(channels: number, hidden: number) {
    super();
    this.down = new Linear(channels, hidden);
    this.up = new Linear(hidden, channels);
  }

  forward(x: Tensor): Tensor {
    const squeezed = this.down.forward(x.mean(1, true)); // [B, 1, hidden]
    return x.mul(this.up.forward(squeezed.silu()).sigmoid());
  }
}

/**
 * The same connector for another patch grid: positions are resized once and become parameters of
 * that grid. All other parameters are the given connector's own.
 */
export function resizeCAbstractor(connector: CAbstractor, patches: number | Grid): CAbstractor {
  const next = new CAbstractor({ ...connector.config, patches });
  const { positions, preNorm, before, after, readout, eos } = connector;
  Object.assign(next, { preNorm, before, after, readout, eos });
  if (positions)
    next.positions = parameter(resizePositions(positions, connector.grid, next.grid).detach());
  return next;
}
