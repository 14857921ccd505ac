/**
 * @file Halves against PyTorch: the tables of rounding and widening, and operations on f16 and bf16, which are computed in
 * f32 or better and rounded once. The fixtures hold each tensor natively and as bits.
 */
import {
  type DType,
  gelu,
  init,
  layerNorm,
  matmul,
  rmsNorm,
  scaledDotProductAttention,
  softmax,
  sum,
  type Tensor,
} from "hinode";
import { decodeSafetensors } from "hinode/nn";
import { beforeAll, describe, expect, test } from "vitest";
import { codecs } from "../../core/dtype.ts";
import { bfloat16ToFloat, floatToBfloat16, floatToHalf, halfToFloat } from "../../core/half.ts";
import { devices } from "../support/devices.ts";
import { fixture } from "./files.ts";

interface HalfCase {
  readonly id: string;
  readonly op: string;
  readonly dtype: "float16" | "bfloat16";
  readonly inputs: readonly string[];
  readonly inputs_bits: readonly string[];
  readonly outputs: readonly string[];
  readonly output_bits: string;
  readonly output_f32: string;
  readonly atol_f32: number;
  readonly args?: { readonly normalized_shape: number[]; readonly eps: number };
  readonly max_ulp_half: number;
}

const { cases } = JSON.parse(new TextDecoder().decode(fixture("half.json"))) as {
  cases: HalfCase[];
};
const { tensors } = decodeSafetensors(fixture("half.safetensors"));
const stored = (key: string) => tensors.get(key)!.data();
const named = (id: string) => cases.find((c) => c.id === id)!;

/** The calls of half.json, which has no syntax trees. */
const calls: Record<string, (x: Tensor[], args: NonNullable<HalfCase["args"]>) => Tensor> = {
  "torch.matmul": ([a, b]) => matmul(a, b),
  "torch.nn.functional.layer_norm": ([x, w, b], a) => layerNorm(x, a.normalized_shape, w, b, a.eps),
  "torch.nn.functional.rms_norm": ([x, w], a) => rmsNorm(x, a.normalized_shape, w, a.eps),
  "torch.softmax": ([x]) => softmax(x, -1),
  "torch.sum": ([x]) => sum(x, -1),
  "torch.nn.functional.gelu": ([x]) => gelu(x),
  "torch.nn.functional.scaled_dot_product_attention": ([q, k, v]) =>
    scaledDotProductAttention(q, k, v, { isCausal: true }),
};

/** Bits as integers whose difference counts the representable numbers between. */
const ordered = (bits: number): number => (bits >= 32768 ? 32768 - bits : bits);

test("rounding", () => {
  const { inputs, outputs } = named("round");
  const values = new Float32Array(new Int32Array(stored(inputs[0])).buffer);
  for (const [i, [convert, back]] of (
    [
      [floatToHalf, halfToFloat],
      [floatToBfloat16, bfloat16ToFloat],
    ] as const
  ).entries()) {
    const want = Uint16Array.from(stored(outputs[i]));
    const got = convert(values);
    const wrong = want.findIndex((w, j) => {
      const invalid = Number.isNaN(back(Uint16Array.of(w))[0]);
      return invalid ? !Number.isNaN(back(got)[j]) : got[j] !== w;
    });
    expect(wrong, outputs[i]).toBe(-1);
  }
});

test("widening", () => {
  const { inputs, outputs } = named("widen");
  const bits = Uint16Array.from(stored(inputs[0]));
  for (const [i, convert] of [halfToFloat, bfloat16ToFloat].entries()) {
    const want = new Float32Array(new Int32Array(stored(outputs[i])).buffer);
    const got = convert(bits);
    expect(want.findIndex((w, j) => !Object.is(w, got[j]))).toBe(-1);
  }
});

describe.each(devices)("operations on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
  });

  test.for(cases.filter((c) => c.dtype).map((c) => [c.id, c] as const))("%s", async ([, c]) => {
    const dtype: DType = c.dtype === "float16" ? "f16" : "bf16";
    const { encode } = codecs[dtype]!;
    const inputs = c.inputs.map((key) => tensors.get(key)!.tensor());
    for (const [i, t] of inputs.entries()) {
      expect(t.dtype).toBe(dtype);
      expect(Array.from(await t.data(), encode)).toEqual([...stored(c.inputs_bits[i])]);
    }
    const out = calls[c.op](inputs, c.args!);
    expect(out.dtype).toBe(dtype);
    const want = stored(c.output_bits);
    const exact = stored(c.output_f32);
    const data = await out.data();
    const wrong = want.findIndex((w, i) => {
      const ulp = Math.abs(ordered(encode(data[i])) - ordered(w));
      // Where f32 itself cancels (gelu's left tail) the bound is f32's.
      return ulp > c.max_ulp_half && Math.abs(data[i] - exact[i]) > c.atol_f32;
    });
    expect(wrong).toBe(-1);
  });
});
