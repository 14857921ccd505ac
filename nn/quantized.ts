/**
 * @file Linear layers with integer weights. Decides the format: symmetric, one scale per group of
 * neighbouring inputs of a row, 8 bits as i8 or 4 bits as two to a byte. Weights are unpacked where
 * a product fetches them (schedule/stores.ts), so that memory holds and moves the integers only.
 */
import { autocastType } from "../core/autocast.ts";
import { bytesOf } from "../core/dtype.ts";
import { ArgumentError, describe, ShapeError } from "../core/errors.ts";
import { arange, linear, noGrad, realize, type Tensor, where, zeros } from "../core/index.ts";
import { formatShape, sameShape } from "../core/shape.ts";
import { positive } from "./checks.ts";
import { Linear } from "./linear.ts";
import { Module } from "./module.ts";
import { replaceLayers, type Targets } from "./replace.ts";

export interface QuantizedFormat {
  /** 8 unless given. */
  readonly bits?: 8 | 4;
  /**
   * How many neighbouring inputs share a scale; the last group of a row may be smaller. 128 unless
   * given.
   */
  readonly groupSize?: number;
}

/**
 * y = x Wᵀ + b with W = scale · integer: [..., in] → [..., out]. The integers are −127 … 127 or −7
 * … 7, the scale makes the largest of a group one of the ends, so an element is off by at most half
 * a scale: 0.4 % of the group's largest with 8 bits, 7 % with 4. Weights have no gradients; inputs
 * and the bias do.
 */
export class QuantizedLinear extends Module {
  /**
   * 8 bits: i8 [out, in]. 4 bits: u8 [out, groups · h], h bytes for a group of up to 2h inputs: its
   * first h in the lower bits, the others in the upper, plus 8 each. So either half of the bits is
   * a matrix whose rows are read in order.
   */
  readonly weightQ: Tensor;
  /** f32 [out, groups] */
  readonly scales: Tensor;
  /** [out] */
  readonly bias: Tensor | null;
  readonly bits: 8 | 4;
  readonly groupSize: number;
  readonly inFeatures: number;
  readonly outFeatures: number;

  /** A layer of zeros, to load into. `from` makes one of a Linear. */
  constructor(
    inFeatures: number,
    outFeatures: number,
    options: QuantizedFormat & { readonly bias?: Tensor | null } = {},
  ) {
    super();
    const { bits = 8, groupSize = 128, bias = null } = options;
    if (bits !== 8 && bits !== 4)
      throw new ArgumentError(describe("QuantizedLinear", "8 or 4 bits", `${bits}`));
    positive("QuantizedLinear", { inFeatures, outFeatures, groupSize });
    this.bits = bits;
    this.groupSize = Math.min(groupSize, inFeatures);
    this.inFeatures = inFeatures;
    this.outFeatures = outFeatures;
    const groups = Math.ceil(inFeatures / this.groupSize);
    this.weightQ =
      bits === 8
        ? zeros([outFeatures, inFeatures], { dtype: "i8" })
        : zeros([outFeatures, groups * this.#half], { dtype: "u8" });
    this.scales = zeros([outFeatures, groups]);
    this.bias = bias;
  }

  /**
   * The nearest quantised weights of a Linear; its bias is shared. Lazy: the float weights go when
   * this is realised.
   */
  static from(layer: Linear, format: QuantizedFormat = {}): QuantizedLinear {
    const { inFeatures, outFeatures, bias } = layer;
    const made = new QuantizedLinear(inFeatures, outFeatures, { ...format, bias });
    return made.assign(layer.weight);
  }

  /** Bytes of a group, with 4 bits. */
  get #half(): number {
    return Math.ceil(this.groupSize / 2);
  }

  /**
   * Who reads a Linear's weights where this layer stands now (a saver, a name map) would pass over
   * them. @throws ArgumentError, always.
   */
  get weight(): never {
    const { bits } = this;
    throw new ArgumentError(
      describe("QuantizedLinear.weight", "a layer of floats", `integers of ${bits} bits`, "save a model before it is quantised; dequantize() makes floats of a layer"), // biome-ignore format: one line
    );
  }

  /** Takes the nearest quantised weights of a matrix [out, in], lazily. */
  assign(weight: Tensor): this {
    const { bits, inFeatures, outFeatures, scales } = this;
    if (!sameShape(weight.shape, [outFeatures, inFeatures]))
      throw new ShapeError(
        describe("QuantizedLinear.assign", `[${outFeatures}, ${inFeatures}]`, formatShape(weight.shape)), // biome-ignore format: one line
      );
    const top = bits === 8 ? 127 : 7;
    noGrad(() => {
      const grouped = this.#grouped(weight.float()); // [out, groups, groupSize]
      const scale = grouped.abs().amax(-1, true).div(top);
      const q = grouped
        .div(where(scale.eq(0), 1, scale))
        .round()
        .clamp(-top, top);
      scales.assign(scale.squeeze(-1));
      if (bits === 8) this.weightQ.assign(q.flatten(1).narrow(1, 0, inFeatures).to("i8"));
      else {
        const pairs = this.#halves(q.add(8), 8); // [out, groups, 2, h]
        const bytes = pairs.select(2, 0).add(pairs.select(2, 1).mul(16));
        this.weightQ.assign(bytes.flatten(1).to("u8"));
      }
    });
    return this;
  }

  /** [..., in] → [..., groups, groupSize], with zeros in the places that the last group lacks. */
  #grouped(x: Tensor): Tensor {
    const { groupSize, inFeatures, scales } = this;
    const rest = scales.shape[1] * groupSize - inFeatures;
    return (rest > 0 ? x.pad([0, rest]) : x).unflatten(-1, [-1, groupSize]);
  }

  /** [..., groupSize] → [..., 2, h] */
  #halves(grouped: Tensor, filling = 0): Tensor {
    const odd = this.groupSize % 2;
    return (odd ? grouped.pad([0, 1], filling) : grouped).unflatten(-1, [2, this.#half]);
  }

  /** The weights [out, in] as floats. */
  dequantize(): Tensor {
    const { bits, groupSize, inFeatures, outFeatures, scales } = this;
    if (bits === 8) return this.#bytes(this.weightQ, scales);
    // [2, out, groups, h]
    const halves = this.#nibbles(this.weightQ, scales).unflatten(-1, [-1, this.#half]);
    const grouped = halves.permute([1, 2, 0, 3]).flatten(2).narrow(2, 0, groupSize);
    return grouped.reshape([outFeatures, -1]).narrow(1, 0, inFeatures);
  }

  /** 8 bits: rows of the matrix, [rows, in]. */
  #bytes(weightQ: Tensor, scales: Tensor): Tensor {
    const { groupSize, inFeatures } = this;
    return weightQ.float().mul(repeated(scales, groupSize).narrow(1, 0, inFeatures));
  }

  /**
   * 4 bits: of the same rows the first halves of the groups and the second ones, [2, rows, groups ·
   * h].
   */
  #nibbles(weightQ: Tensor, scales: Tensor): Tensor {
    // The upper half counts sixteens, exactly: its scale is a sixteenth, so no bits need to be
    // moved.
    const isFirst = arange(2).eq(0).reshape([2, 1, 1]);
    const either = (first: number, second: number) => where(isFirst, first, second);
    const four = weightQ.unsqueeze(0).bitwiseAnd(either(15, 240).to("u8"));
    const scale = repeated(scales, this.#half).mul(either(1, 1 / 16));
    return four.float().sub(either(8, 128)).mul(scale);
  }

  forward(x: Tensor): Tensor {
    return this.#product(x, this.weightQ, this.scales, this.bias);
  }

  /** Only the features start … start + count − 1 of the result. */
  part(x: Tensor, start: number, count: number): Tensor {
    const cut = (t: Tensor) => t.narrow(0, start, count);
    return this.#product(x, cut(this.weightQ), cut(this.scales), this.bias && cut(this.bias));
  }

  #product(x: Tensor, weightQ: Tensor, scales: Tensor, bias: Tensor | null): Tensor {
    if (this.bits === 8) return linear(x, this.#bytes(weightQ, scales).to(x.dtype), bias);
    if (x.ndim === 1) return this.#product(x.unsqueeze(0), weightQ, scales, bias).squeeze(0);
    if (x.shape.at(-1) !== this.inFeatures)
      throw new ShapeError(
        describe("QuantizedLinear", `[..., ${this.inFeatures}]`, formatShape(x.shape)),
      );
    const lead = x.shape.slice(0, -1);
    // Each half of the bits meets its own inputs: [2, rows of x, groups · h].
    const halves = this.#halves(this.#grouped(x)).flatten(0, -4).permute([2, 0, 1, 3]).flatten(2);
    const both = halves.matmul(this.#nibbles(weightQ, scales).to(x.dtype).transpose(1, 2));
    const y = both
      .select(0, 0)
      .add(both.select(0, 1))
      .reshape([...lead, scales.shape[0]]);
    if (!bias) return y;
    // linear's rule: of the product's type, or in autocast converted to it.
    const own = autocastType() ? bias.to(y.dtype) : bias;
    if (own.dtype === y.dtype) return y.add(own);
    const expected = `a bias [${scales.shape[0]}] of ${y.dtype}`;
    throw new ShapeError(describe("QuantizedLinear", expected, `${own.dtype}[${own.shape[0]}]`));
  }

  override extraRepr(): string {
    const { inFeatures, outFeatures, bits, groupSize, bias } = this;
    const size = `inFeatures=${inFeatures}, outFeatures=${outFeatures}`;
    return `${size}, bits=${bits}, groupSize=${groupSize}, bias=${bias !== null}`;
  }
}

/** Scales [rows, groups] → [rows, groups · times]: each for as many neighbours. */
const repeated = (scales: Tensor, times: number): Tensor =>
  scales
    .unsqueeze(-1)
    .expand([...scales.shape, times])
    .flatten(1);

export interface QuantizeOptions extends QuantizedFormat {
  /** Which Linear layers; all but routers of experts unless given. */
  readonly targets?: Targets;
}

/** What quantisation did to the weights. */
export interface QuantizeReport {
  readonly layers: ReadonlyMap<string, QuantizedLinear>;
  /** Of the weights, without biases, in bytes. */
  readonly bytesBefore: number;
  readonly bytesAfter: number;
}

/**
 * Puts a QuantizedLinear of zeros in place of a model's Linear layers, to be given the weights
 * later; by the cells that hold these weights now, of which layers may share one.
 */
export function emptyQuantized(
  model: Module,
  { targets, ...format }: QuantizeOptions,
): Map<Tensor, QuantizedLinear[]> {
  const made = new Map<Tensor, QuantizedLinear[]>();
  replaceLayers("quantize", model, kindFor(targets), targets, (layer) => {
    const { inFeatures, outFeatures, bias } = layer;
    const next = new QuantizedLinear(inFeatures, outFeatures, { ...format, bias });
    made.set(layer.weight, [...(made.get(layer.weight) ?? []), next]);
    return next;
  });
  return made;
}

const isLinear = (m: Module): m is Linear => m instanceof Linear;

const floats = new WeakSet<Linear>();

/**
 * Marks a small layer whose rounding would be dear (a router's): quantised only if a target names
 * it.
 */
export function staysFloat(layer: Linear): Linear {
  floats.add(layer);
  return layer;
}

const kindFor = (targets: Targets | undefined) =>
  targets ? isLinear : (m: Module): m is Linear => isLinear(m) && !floats.has(m);

/**
 * Puts a QuantizedLinear in place of a model's Linear layers, and computes it, so that the float
 * weights are freed (unless something else has them: a tied embedding). To load quantised weights
 * from a file, quantise a fresh model with the same options and load into it. @throws ArgumentError
 * if a target names no layer.
 */
export async function quantize(
  model: Module,
  { targets, ...format }: QuantizeOptions = {},
): Promise<QuantizeReport> {
  let bytesBefore = 0;
  const layers = replaceLayers("quantize", model, kindFor(targets), targets, (layer) => {
    bytesBefore += bytesOf(layer.weight);
    return QuantizedLinear.from(layer, format);
  });
  const made = [...layers.values()].flatMap(({ weightQ, scales }) => [weightQ, scales]);
  await realize(...made);
  return { layers, bytesBefore, bytesAfter: made.reduce((n, t) => n + bytesOf(t), 0) };
}
