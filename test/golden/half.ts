/**
 * @file The group `half`: the tables of rounding and widening, and operations on f16 and bf16, which are computed in f32 or
 * better and rounded once. The fixtures hold each tensor natively and as bits.
 */
import type { DType, Tensor } from "hinode";
import { decodeSafetensors } from "hinode/nn";
import { codecs } from "../../core/dtype.ts";
import { bfloat16ToFloat, floatToBfloat16, floatToHalf, halfToFloat } from "../../core/half.ts";
import { type Measure, measure, worst } from "./comparison.ts";
import { evaluate } from "./expression.ts";
import { type Files, type GoldenCase, readJson } from "./group.ts";
import { parseCall } from "./python.ts";

interface HalfCase {
  readonly id: string;
  readonly op: string;
  readonly call: string;
  readonly dtype: "float16" | "bfloat16";
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly inputs_bits: readonly string[];
  readonly output_bits: string;
  readonly output_f32: string;
  readonly rtol_f32: number;
  readonly atol_f32: number;
  readonly max_ulp_half: number;
}

type Stored = ReturnType<typeof decodeSafetensors>["tensors"];

/** Tables of bits must agree but for the payload of NaNs. */
const exact = (what: string, got: ArrayLike<number>, want: ArrayLike<number>): Measure =>
  measure(what, got, want, () => Infinity);

const bits32 = (numbers: ArrayLike<number>): Float32Array =>
  new Float32Array(Int32Array.from(numbers).buffer);

const tables: Readonly<Record<string, (c: HalfCase, stored: Stored) => Measure[]>> = {
  round: (c, stored) => {
    const values = bits32(stored.get(c.inputs[0])!.data());
    return (
      [
        [floatToHalf, halfToFloat],
        [floatToBfloat16, bfloat16ToFloat],
      ] as const
    ).map(([convert, back], i) => {
      const want = Uint16Array.from(stored.get(c.outputs[i])!.data());
      // Any pattern of a NaN will do, and −0 is not 0.
      const plain = (patterns: Uint16Array) =>
        Array.from(patterns, (p) => (Number.isNaN(back(Uint16Array.of(p))[0]) ? Number.NaN : p));
      return exact(c.outputs[i], plain(convert(values)), plain(want));
    });
  },
  widen: (c, stored) => {
    const bits = Uint16Array.from(stored.get(c.inputs[0])!.data());
    return [halfToFloat, bfloat16ToFloat].map((convert, i) => {
      const want = bits32(stored.get(c.outputs[i])!.data());
      const plain = (x: Float32Array) =>
        Array.from(x, (v, j) => (Number.isNaN(v) ? v : new Int32Array(x.buffer)[j]));
      return exact(c.outputs[i], plain(convert(bits)), plain(want));
    });
  },
};

/** Bits as integers whose difference counts the representable numbers between. */
const ordered = (bits: number): number => (bits >= 32768 ? 32768 - bits : bits);

async function runOperation(c: HalfCase, stored: Stored): Promise<Measure[]> {
  const dtype: DType = c.dtype === "float16" ? "f16" : "bf16";
  const { encode } = codecs[dtype]!;
  const inputs: Tensor[] = c.inputs.map((key) => stored.get(key)!.tensor());
  const measures: Measure[] = [];
  for (const [i, t] of inputs.entries()) {
    if (t.dtype !== dtype) throw new Error(`input ${i}: dtype ${t.dtype} instead of ${dtype}`);
    const got = Array.from(await t.data(), encode);
    measures.push(exact(`input ${i}`, got, stored.get(c.inputs_bits[i])!.data()));
  }
  const out: Tensor = await evaluate(parseCall(c.call), { $: inputs });
  if (out.dtype !== dtype) throw new Error(`output: dtype ${out.dtype} instead of ${dtype}`);
  const full = stored.get(c.output_f32)!;
  if (`${out.shape}` !== `${full.shape}`)
    throw new Error(`output: shape [${out.shape}] instead of [${full.shape}]`);
  const [want, values, data] = [stored.get(c.output_bits)!.data(), full.data(), await out.data()];
  const ulps = measure("output (bits)", Array.from(data, encode), want, (g, w, i) => {
    // Where f32 itself cancels (gelu's left tail) the bound is f32's.
    const inF32 = Math.abs(data[i] - values[i]) / (c.atol_f32 + c.rtol_f32 * Math.abs(values[i]));
    return Math.min(Math.abs(ordered(g) - ordered(w)) / c.max_ulp_half, inF32);
  });
  return [...measures, ulps];
}

export function halfGroup(files: Files, name: string): GoldenCase[] {
  const { tensors } = decodeSafetensors(files(`${name}.safetensors`));
  return (readJson(files, name).cases as HalfCase[]).map((c) => ({
    id: c.id,
    call: c.call ?? c.op,
    run: async () =>
      worst(tables[c.id] ? tables[c.id](c, tensors) : await runOperation(c, tensors)),
  }));
}
