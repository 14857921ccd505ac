/**
 * @file PyTorch's transformer: layers and stacks of encoder and decoder (https://arxiv.org/abs/1706.03762), on
 * MultiheadAttention. TransformerBlock (transformer.ts) is the lean alternative for models of one's own.
 *
 * Shapes as in PyTorch: [T, N, D] (the default), [N, T, D] with `batchFirst`, or [T, D]; T targets of the decoder, S sources. Masks are
 * MultiheadAttention's: [T, T] of bools (true is NOT seen) or floats (added); of padding [N, T]. `isCausal` makes its own
 * mask, which joins a given one; in PyTorch it is a hint about the given one.
 */
import { ArgumentError, describe } from "../core/errors.ts";
import { full, gelu, relu, type Tensor } from "../core/index.ts";
import { type AttendOptions, MultiheadAttention } from "./attention.ts";
import { ModuleList } from "./container.ts";
import { Dropout } from "./dropout.ts";
import { xavierUniform_ } from "./init.ts";
import { Linear } from "./linear.ts";
import { Module } from "./module.ts";
import { LayerNorm } from "./norm.ts";

export interface TransformerLayerOptions {
  /** Width between the two linear maps (default 2048). */
  readonly dimFeedforward?: number;
  /** The probability for attention weights and for each sub-layer's result (default 0.1). */
  readonly dropout?: number;
  /** Between the two linear maps (default "relu"). */
  readonly activation?: "relu" | "gelu" | ((x: Tensor) => Tensor);
  readonly layerNormEps?: number;
  readonly batchFirst?: boolean;
  /** Normalise what goes into a sub-layer, instead of the sum behind it (default false). */
  readonly normFirst?: boolean;
  readonly bias?: boolean;
}

export interface EncoderMasks {
  /** [S, S] */
  readonly srcMask?: Tensor | null;
  /** [N, S] */
  readonly srcKeyPaddingMask?: Tensor | null;
  /** Position t sees positions ≤ t only. */
  readonly isCausal?: boolean;
}

export interface DecoderMasks {
  /** [T, T] */
  readonly tgtMask?: Tensor | null;
  /** [T, S] */
  readonly memoryMask?: Tensor | null;
  /** [N, T] */
  readonly tgtKeyPaddingMask?: Tensor | null;
  /** [N, S] */
  readonly memoryKeyPaddingMask?: Tensor | null;
  readonly tgtIsCausal?: boolean;
  readonly memoryIsCausal?: boolean;
}

type LayerArgs = [dModel: number, nhead: number, options?: TransformerLayerOptions];

/** What encoder and decoder layers share: attention to oneself, the perceptron, and how a sub-layer is wrapped. */
abstract class TransformerLayer extends Module {
  selfAttn: MultiheadAttention;
  linear1: Linear;
  dropout: Dropout;
  linear2: Linear;
  norm1: LayerNorm;
  norm2: LayerNorm;
  dropout1: Dropout;
  dropout2: Dropout;
  readonly normFirst: boolean;
  readonly batchFirst: boolean;
  readonly #args: LayerArgs;
  readonly #activation: (x: Tensor) => Tensor;

  constructor(...args: LayerArgs) {
    super();
    const [dModel, , options = {}] = args;
    const { dimFeedforward = 2048, dropout = 0.1, activation = "relu", bias = true } = options;
    const functions = { relu, gelu: (x: Tensor) => gelu(x) };
    if (typeof activation !== "function" && !Object.hasOwn(functions, activation))
      throw new ArgumentError(
        describe(this.constructor.name, "activation 'relu', 'gelu' or a function", activation),
      );
    this.#args = args;
    this.#activation = typeof activation === "function" ? activation : functions[activation];
    this.normFirst = options.normFirst ?? false;
    this.batchFirst = options.batchFirst ?? false;
    this.selfAttn = this.attention();
    this.linear1 = new Linear(dModel, dimFeedforward, { bias });
    this.dropout = new Dropout(dropout);
    this.linear2 = new Linear(dimFeedforward, dModel, { bias });
    this.norm1 = this.norm();
    this.norm2 = this.norm();
    this.dropout1 = new Dropout(dropout);
    this.dropout2 = new Dropout(dropout);
  }

  /** A layer like this one with the same values. */
  copy(): this {
    const twin = new (this.constructor as new (...args: LayerArgs) => this)(...this.#args);
    const { dtype } = this.linear1.weight;
    if (dtype !== "f32") twin.to(dtype);
    twin.loadStateDict(this.stateDict());
    return twin.train(this.training);
  }

  protected attention(): MultiheadAttention {
    const [dModel, nhead, { dropout = 0.1, bias = true } = {}] = this.#args;
    return new MultiheadAttention(dModel, nhead, { dropout, bias });
  }

  protected norm(): LayerNorm {
    const [dModel, , { layerNormEps: eps = 1e-5, bias = true } = {}] = this.#args;
    return new LayerNorm(dModel, { eps, bias });
  }

  /** x + f(norm(x)), or norm(x + f(x)). */
  protected around(x: Tensor, norm: LayerNorm, dropout: Dropout, f: (x: Tensor) => Tensor): Tensor {
    const with_ = (y: Tensor) => x.add(dropout.forward(f(y)));
    return this.normFirst ? with_(norm.forward(x)) : norm.forward(with_(x));
  }

  protected feedForward(x: Tensor): Tensor {
    return this.linear2.forward(this.dropout.forward(this.#activation(this.linear1.forward(x))));
  }

  /** From the caller's order of axes to MultiheadAttention's, and back. */
  protected turned(x: Tensor): Tensor {
    return this.batchFirst || x.ndim < 3 ? x : x.transpose(0, 1);
  }

  override extraRepr(): string {
    return `normFirst=${this.normFirst}, batchFirst=${this.batchFirst}`;
  }
}

/** Attention of a sequence to itself, then a perceptron, each beside a residual connection. */
export class TransformerEncoderLayer extends TransformerLayer {
  forward(src: Tensor, masks: EncoderMasks = {}): Tensor {
    const options: AttendOptions = {
      attnMask: masks.srcMask,
      keyPaddingMask: masks.srcKeyPaddingMask,
      isCausal: masks.isCausal,
    };
    let x = this.turned(src);
    x = this.around(x, this.norm1, this.dropout1, (y) => this.selfAttn.forward(y, y, y, options));
    x = this.around(x, this.norm2, this.dropout2, (y) => this.feedForward(y));
    return this.turned(x);
  }
}

/** As TransformerEncoderLayer, with attention to the encoder's result (`memory`) before the perceptron. */
export class TransformerDecoderLayer extends TransformerLayer {
  multiheadAttn: MultiheadAttention;
  norm3: LayerNorm;
  dropout3: Dropout;

  constructor(...args: LayerArgs) {
    super(...args);
    this.multiheadAttn = this.attention();
    this.norm3 = this.norm();
    this.dropout3 = new Dropout(args[2]?.dropout ?? 0.1);
  }

  forward(tgt: Tensor, memory: Tensor, masks: DecoderMasks = {}): Tensor {
    const own: AttendOptions = {
      attnMask: masks.tgtMask,
      keyPaddingMask: masks.tgtKeyPaddingMask,
      isCausal: masks.tgtIsCausal,
    };
    const others: AttendOptions = {
      attnMask: masks.memoryMask,
      keyPaddingMask: masks.memoryKeyPaddingMask,
      isCausal: masks.memoryIsCausal,
    };
    const m = this.turned(memory);
    let x = this.turned(tgt);
    x = this.around(x, this.norm1, this.dropout1, (y) => this.selfAttn.forward(y, y, y, own));
    x = this.around(x, this.norm2, this.dropout2, (y) =>
      this.multiheadAttn.forward(y, m, m, others),
    );
    x = this.around(x, this.norm3, this.dropout3, (y) => this.feedForward(y));
    return this.turned(x);
  }
}

/** `numLayers` copies of a layer, which start with its values, and a norm behind them if one is given. */
export class TransformerEncoder extends Module {
  layers: ModuleList<TransformerEncoderLayer>;
  norm: LayerNorm | null;

  constructor(layer: TransformerEncoderLayer, numLayers: number, norm: LayerNorm | null = null) {
    super();
    this.layers = new ModuleList(Array.from({ length: numLayers }, () => layer.copy()));
    this.norm = norm;
  }

  forward(src: Tensor, masks: EncoderMasks = {}): Tensor {
    let x = src;
    for (const layer of this.layers) x = layer.forward(x, masks);
    return this.norm ? this.norm.forward(x) : x;
  }
}

/** As TransformerEncoder, of decoder layers. */
export class TransformerDecoder extends Module {
  layers: ModuleList<TransformerDecoderLayer>;
  norm: LayerNorm | null;

  constructor(layer: TransformerDecoderLayer, numLayers: number, norm: LayerNorm | null = null) {
    super();
    this.layers = new ModuleList(Array.from({ length: numLayers }, () => layer.copy()));
    this.norm = norm;
  }

  forward(tgt: Tensor, memory: Tensor, masks: DecoderMasks = {}): Tensor {
    let x = tgt;
    for (const layer of this.layers) x = layer.forward(x, memory, masks);
    return this.norm ? this.norm.forward(x) : x;
  }
}

export interface TransformerOptions extends TransformerLayerOptions {
  /** 6 by default. */
  readonly numEncoderLayers?: number;
  /** 6 by default. */
  readonly numDecoderLayers?: number;
}

export interface TransformerMasks extends Omit<EncoderMasks, "isCausal">, DecoderMasks {
  readonly srcIsCausal?: boolean;
}

/** Encoder and decoder: sources and targets → [T, N, D]. All matrices start as xavierUniform_ has them. */
export class Transformer extends Module {
  encoder: TransformerEncoder;
  decoder: TransformerDecoder;

  constructor(dModel = 512, nhead = 8, options: TransformerOptions = {}) {
    super();
    const { numEncoderLayers = 6, numDecoderLayers = 6, layerNormEps: eps = 1e-5 } = options;
    const norm = () => new LayerNorm(dModel, { eps, bias: options.bias ?? true });
    const encoding = new TransformerEncoderLayer(dModel, nhead, options);
    const decoding = new TransformerDecoderLayer(dModel, nhead, options);
    this.encoder = new TransformerEncoder(encoding, numEncoderLayers, norm());
    this.decoder = new TransformerDecoder(decoding, numDecoderLayers, norm());
    for (const p of this.parameters()) if (p.ndim > 1) xavierUniform_(p);
  }

  forward(src: Tensor, tgt: Tensor, masks: TransformerMasks = {}): Tensor {
    const { srcMask, srcKeyPaddingMask, srcIsCausal: isCausal } = masks;
    const memory = this.encoder.forward(src, { srcMask, srcKeyPaddingMask, isCausal });
    return this.decoder.forward(tgt, memory, masks);
  }

  /** [size, size]: 0 where a position is seen, −∞ at later ones. */
  static generateSquareSubsequentMask(size: number): Tensor {
    return full([size, size], -Infinity).triu(1);
  }
}
