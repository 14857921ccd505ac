/**
 * @file Linear layers with integer weights. Decides the format: symmetric, one scale per group of neighbouring inputs of a row,
 * 8 bits as i8 or 4 bits as two to a byte. Weights are unpacked where a product fetches them (schedule/stores.ts), so that
 * memory holds and moves the integers only.
 */
import { bytesOf } from "../core/dtype.ts";
import { ArgumentError, describe } from "../core/errors.ts";
import { arange, linear, noGrad, realize, type Tensor, where, zeros } from "../core/index.ts";
import { positive } from "./checks.ts";
import { Linear } from "./linear.ts";
import { Module } from "./module.ts";
import { replaceLayers, type Targets } from "./replace.ts";

export interface QuantizedFormat {
  /** 8 unless given. */
  readonly bits?: 8 | 4;
  /** How many neighbouring inputs share a scale; the last group of a row may be smaller. 128 unless given. */
  readonly groupSize?: number;
}

/**
 * y = x Wᵀ + b with W = scale · integer: [..., in] → [..., out]. The integers are −127 … 127 or −7 … 7, the scale makes the
 * largest of a group one of the ends, so an element is off by at most half a scale: 0.4 % of the group's largest with
 * 8 bits, 7 % with 4. Weights have no gradients; inputs and the bias do.
 */
export class QuantizedLinear extends Module {
  /** 8 bits: i8 [out, in]. 4 bits: u8 [out, ⌈in/2⌉], input 2i in the lower bits and 2i + 1 in the upper, plus 8 each. */
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
    this.weightQ =
      bits === 8
        ? zeros([outFeatures, inFeatures], { dtype: "i8" })
        : zeros([outFeatures, Math.ceil(inFeatures / 2)], { dtype: "u8" });
    this.scales = zeros([outFeatures, Math.ceil(inFeatures / this.groupSize)]);
    this.bias = bias;
  }

  /** The nearest quantised weights of a Linear; its bias is shared. Lazy: the float weights go when this is realised. */
  static from(layer: Linear, format: QuantizedFormat = {}): QuantizedLinear {
    const { inFeatures, outFeatures, bias } = layer;
    const made = new QuantizedLinear(inFeatures, outFeatures, { ...format, bias });
    noGrad(() => made.#quantize(layer.weight.float()));
    return made;
  }

  #quantize(weight: Tensor): void {
    const { bits, groupSize, inFeatures, scales } = this;
    const rest = scales.shape[1] * groupSize - inFeatures;
    const grouped = weight.pad([0, rest]).unflatten(1, [-1, groupSize]); // [out, groups, groupSize]
    const top = bits === 8 ? 127 : 7;
    const scale = grouped.abs().amax(-1, true).div(top);
    const safe = where(scale.eq(0), 1, scale);
    const q = grouped.div(safe).round().clamp(-top, top).flatten(1).narrow(1, 0, inFeatures);
    scales.assign(scale.squeeze(-1));
    if (bits === 8) this.weightQ.assign(q.to("i8"));
    else {
      const pairs = q
        .add(8)
        .pad([0, inFeatures % 2])
        .unflatten(1, [-1, 2]);
      this.weightQ.assign(pairs.select(-1, 0).add(pairs.select(-1, 1).mul(16)).to("u8"));
    }
  }

  /** The weights [out, in] as floats. */
  dequantize(): Tensor {
    return this.#rows(this.weightQ, this.scales);
  }

  #rows(weightQ: Tensor, scales: Tensor): Tensor {
    const { bits, groupSize, inFeatures } = this;
    const [rows, groups] = scales.shape;
    let q = weightQ;
    if (bits === 4) {
      const bytes = weightQ.unsqueeze(-1); // [rows, in/2, 1]
      const [low, high] = [bytes.bitwiseAnd(15), bytes.bitwiseRightShift(4)];
      const nibbles = where(arange(2).eq(0), low, high).float().sub(8);
      q = nibbles.flatten(1).narrow(1, 0, inFeatures);
    }
    const each = scales.unsqueeze(-1).expand([rows, groups, groupSize]).flatten(1);
    return q.float().mul(each.narrow(1, 0, inFeatures));
  }

  forward(x: Tensor): Tensor {
    return linear(x, this.dequantize().to(x.dtype), this.bias);
  }

  /** Only the features start … start + count − 1 of the result. */
  part(x: Tensor, start: number, count: number): Tensor {
    const cut = (t: Tensor) => t.narrow(0, start, count);
    const weight = this.#rows(cut(this.weightQ), cut(this.scales));
    return linear(x, weight.to(x.dtype), this.bias && cut(this.bias));
  }

  override extraRepr(): string {
    const { inFeatures, outFeatures, bits, groupSize, bias } = this;
    const size = `inFeatures=${inFeatures}, outFeatures=${outFeatures}`;
    return `${size}, bits=${bits}, groupSize=${groupSize}, bias=${bias !== null}`;
  }
}

export interface QuantizeOptions extends QuantizedFormat {
  /** Which Linear layers; all unless given. */
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
 * Puts a QuantizedLinear in place of a model's Linear layers, and computes it, so that the float weights are freed (unless
 * something else has them: a tied embedding). To load quantised weights from a file, quantise a fresh model with the same
 * options and load into it.
 * @throws ArgumentError if a target names no layer.
 */
export async function quantize(
  model: Module,
  { targets, ...format }: QuantizeOptions = {},
): Promise<QuantizeReport> {
  let bytesBefore = 0;
  const isLinear = (m: Module): m is Linear => m instanceof Linear;
  const layers = replaceLayers("quantize", model, isLinear, targets, (layer) => {
    bytesBefore += bytesOf(layer.weight);
    return QuantizedLinear.from(layer, format);
  });
  const made = [...layers.values()].flatMap(({ weightQ, scales }) => [weightQ, scales]);
  await realize(...made);
  return { layers, bytesBefore, bytesAfter: made.reduce((n, t) => n + bytesOf(t), 0) };
}
