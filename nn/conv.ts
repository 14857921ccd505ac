/**
 * @file Convolutions and transposed convolutions over 1, 2 or 3 spatial axes as layers; the functions are
 * core/ops/convolution.ts's. Decides: the weights' shapes and first values (PyTorch's), padding that is not zeros, and
 * which output padding gives a wanted size.
 *
 * Shape letters: N batch (may be missing), C channels in, O channels out, S… spatial axes, K… the kernel's.
 */
import { ArgumentError, describe, ShapeError } from "../core/errors.ts";
import {
  type ConvOptions,
  conv1d,
  conv2d,
  conv3d,
  convTranspose1d,
  convTranspose2d,
  convTranspose3d,
  type PadMode,
  pad,
  type Tensor,
} from "../core/index.ts";
import { type PerAxis, perAxis } from "../core/ops/convolution.ts";
import { formatShape, numel } from "../core/shape.ts";
import { kaimingUniform } from "./init.ts";
import { Module } from "./module.ts";

interface SharedOptions {
  /** Step between windows (default 1). */
  readonly stride?: PerAxis;
  /** Step inside a window (default 1). */
  readonly dilation?: PerAxis;
  /** Channels are cut into this many groups that do not see one another (default 1). */
  readonly groups?: number;
  /** Whether a learned number per output channel is added (default true). */
  readonly bias?: boolean;
}

export interface ConvLayerOptions extends SharedOptions {
  /** On both sides (default 0); "same" keeps the size (stride 1), "valid" is 0. */
  readonly padding?: PerAxis | "same" | "valid";
  /** What the padding holds (default "zeros"). */
  readonly paddingMode?: "zeros" | PadMode;
}

export interface ConvTransposeLayerOptions extends SharedOptions {
  /** Cut off on both sides of the result (default 0). */
  readonly padding?: PerAxis;
  /** Further elements at the end of the result (default 0). */
  readonly outputPadding?: PerAxis;
}

const functions = {
  1: { conv: conv1d, transposed: convTranspose1d },
  2: { conv: conv2d, transposed: convTranspose2d },
  3: { conv: conv3d, transposed: convTranspose3d },
} as const;

/** What both kinds have: a weight, a bias, and the geometry with one number per spatial axis. */
abstract class ConvBase extends Module {
  weight: Tensor;
  /** [O] */
  bias: Tensor | null;
  readonly rank: 1 | 2 | 3;
  readonly inChannels: number;
  readonly outChannels: number;
  readonly kernelSize: readonly number[];
  readonly stride: readonly number[];
  readonly dilation: readonly number[];
  readonly groups: number;

  constructor(
    rank: 1 | 2 | 3,
    inChannels: number,
    outChannels: number,
    kernelSize: PerAxis,
    { stride = 1, dilation = 1, groups = 1, bias = true }: SharedOptions,
    transposed: boolean,
  ) {
    super();
    const op = this.constructor.name;
    const counts = [inChannels, outChannels, groups];
    if (!counts.every((n) => Number.isInteger(n) && n > 0) || inChannels % groups || outChannels % groups)
      throw new ArgumentError(
        describe(op, "positive channels that are multiples of groups", counts.join(", ")),
      ); // biome-ignore format: one condition
    this.rank = rank;
    this.inChannels = inChannels;
    this.outChannels = outChannels;
    this.kernelSize = perAxis(op, "kernelSize", kernelSize, rank, 1);
    this.stride = perAxis(op, "stride", stride, rank, 1);
    this.dilation = perAxis(op, "dilation", dilation, rank, 1);
    this.groups = groups;
    const [rows, columns] = transposed ? [inChannels, outChannels] : [outChannels, inChannels];
    // PyTorch's fan-in is what the second axis says, also where that is the outputs'.
    const fanIn = (columns / groups) * numel(this.kernelSize);
    this.weight = kaimingUniform([rows, columns / groups, ...this.kernelSize], fanIn);
    this.bias = bias ? kaimingUniform([outChannels], fanIn) : null;
  }

  /** What is not as it is by default, as PyTorch prints it. */
  protected repr(more: Readonly<Record<string, unknown>>): string {
    const { inChannels, outChannels, kernelSize, stride, dilation, groups, bias } = this;
    const all = (value: number) => kernelSize.map(() => value);
    const usual: Record<string, unknown> = {
      padding: all(0),
      outputPadding: all(0),
      dilation: all(1),
      groups: 1,
      bias: true,
      paddingMode: "zeros",
    };
    const said = Object.entries({ kernelSize, stride, ...more, dilation, groups, bias: !!bias })
      .filter(([name, value]) => `${value}` !== `${usual[name]}`)
      .map(([name, value]) => `${name}=${Array.isArray(value) ? formatShape(value) : value}`);
    return [inChannels, outChannels, ...said].join(", ");
  }
}

/** [N, C, S…] → [N, O, S'…] */
export abstract class Conv extends ConvBase {
  readonly padding: readonly number[] | "same" | "valid";
  readonly paddingMode: "zeros" | PadMode;

  constructor(
    rank: 1 | 2 | 3,
    inChannels: number,
    outChannels: number,
    kernelSize: PerAxis,
    options: ConvLayerOptions = {},
  ) {
    super(rank, inChannels, outChannels, kernelSize, options, false);
    const { padding = 0, paddingMode = "zeros" } = options;
    const op = this.constructor.name;
    if (!["zeros", "reflect", "replicate", "circular"].includes(paddingMode))
      throw new ArgumentError(
        describe(op, "paddingMode 'zeros', 'reflect', 'replicate' or 'circular'", paddingMode),
      );
    if (padding === "same" && this.stride.some((s) => s !== 1))
      throw new ArgumentError(describe(op, "stride 1 with padding 'same'", `${this.stride}`));
    const named = padding === "same" || padding === "valid";
    this.padding = named ? padding : perAxis(op, "padding", padding, rank, 0);
    this.paddingMode = paddingMode;
  }

  forward(x: Tensor): Tensor {
    const { stride, dilation, groups, padding, paddingMode, rank } = this;
    const options: ConvOptions = { stride, dilation, groups };
    const { conv } = functions[rank];
    if (paddingMode === "zeros") return conv(x, this.weight, this.bias, { ...options, padding });
    if (x.ndim !== rank + 1 && x.ndim !== rank + 2)
      throw new ShapeError(
        describe(
          this.constructor.name,
          `[N, C, …] or [C, …] with ${rank} spatial axes`,
          formatShape(x.shape),
        ),
      );
    const padded = pad(x, this.#sides(), paddingMode);
    return conv(padded, this.weight, this.bias, options);
  }

  /** Before and after, the last axis first. */
  #sides(): number[] {
    const { padding, kernelSize, dilation } = this;
    return kernelSize
      .map((k, i) => {
        if (padding === "valid") return [0, 0];
        if (padding !== "same") return [padding[i], padding[i]];
        const total = dilation[i] * (k - 1);
        return [total >> 1, total - (total >> 1)];
      })
      .reverse()
      .flat();
  }

  override extraRepr(): string {
    return this.repr({ padding: this.padding, paddingMode: this.paddingMode });
  }
}

/** The transpose of a convolution, which enlarges: [N, C, S…] → [N, O, S'…]. */
abstract class ConvTranspose extends ConvBase {
  readonly padding: readonly number[];
  readonly outputPadding: readonly number[];

  constructor(
    rank: 1 | 2 | 3,
    inChannels: number,
    outChannels: number,
    kernelSize: PerAxis,
    options: ConvTransposeLayerOptions = {},
  ) {
    super(rank, inChannels, outChannels, kernelSize, options, true);
    const { padding = 0, outputPadding = 0 } = options;
    this.padding = perAxis(this.constructor.name, "padding", padding, rank, 0);
    this.outputPadding = perAxis(this.constructor.name, "outputPadding", outputPadding, rank, 0);
  }

  /** `outputSize`: the spatial sizes, or the whole shape, of the result; it takes the place of `outputPadding`. */
  forward(x: Tensor, outputSize?: readonly number[]): Tensor {
    const { stride, dilation, groups, padding, rank } = this;
    const outputPadding = outputSize ? this.#paddingFor(x, outputSize) : this.outputPadding;
    const options = { stride, dilation, groups, padding, outputPadding };
    return functions[rank].transposed(x, this.weight, this.bias, options);
  }

  #paddingFor(x: Tensor, outputSize: readonly number[]): number[] {
    const { stride, dilation, padding, kernelSize, rank } = this;
    const least = x.shape
      .slice(-rank)
      .map((d, i) => (d - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernelSize[i] - 1) + 1);
    const wanted = outputSize.length === x.ndim ? outputSize.slice(-rank) : outputSize;
    const extra = wanted.map((d, i) => d - least[i]);
    if (wanted.length === rank && extra.every((e, i) => e >= 0 && e < stride[i])) return extra;
    const most = least.map((d, i) => d + stride[i] - 1);
    const range = `an outputSize from ${formatShape(least)} to ${formatShape(most)}`;
    throw new ArgumentError(describe(this.constructor.name, range, formatShape(outputSize)));
  }

  override extraRepr(): string {
    return this.repr({ padding: this.padding, outputPadding: this.outputPadding });
  }
}

type ConvArgs<O> = [inChannels: number, outChannels: number, kernelSize: PerAxis, options?: O];

/** [N, C, L] or [C, L] → [N, O, L']; weight [O, C/groups, K]. */
export class Conv1d extends Conv {
  constructor(...args: ConvArgs<ConvLayerOptions>) {
    super(1, ...args);
  }
}

/** [N, C, H, W] or [C, H, W] → [N, O, H', W']; weight [O, C/groups, KH, KW]. */
export class Conv2d extends Conv {
  constructor(...args: ConvArgs<ConvLayerOptions>) {
    super(2, ...args);
  }
}

/** [N, C, D, H, W] or [C, D, H, W] → [N, O, D', H', W']; weight [O, C/groups, KD, KH, KW]. */
export class Conv3d extends Conv {
  constructor(...args: ConvArgs<ConvLayerOptions>) {
    super(3, ...args);
  }
}

/** [N, C, L] or [C, L] → [N, O, L']; weight [C, O/groups, K]. */
export class ConvTranspose1d extends ConvTranspose {
  constructor(...args: ConvArgs<ConvTransposeLayerOptions>) {
    super(1, ...args);
  }
}

/** [N, C, H, W] or [C, H, W] → [N, O, H', W']; weight [C, O/groups, KH, KW]. */
export class ConvTranspose2d extends ConvTranspose {
  constructor(...args: ConvArgs<ConvTransposeLayerOptions>) {
    super(2, ...args);
  }
}

/** [N, C, D, H, W] or [C, D, H, W] → [N, O, D', H', W']; weight [C, O/groups, KD, KH, KW]. */
export class ConvTranspose3d extends ConvTranspose {
  constructor(...args: ConvArgs<ConvTransposeLayerOptions>) {
    super(3, ...args);
  }
}
