/** @file The group `dtypes`: a safetensors file with one tensor of every stored type, whose values are in the JSON too. */
import type { DType } from "hinode";
import { decodeSafetensors } from "hinode/nn";
import { measure, worst } from "./comparison.ts";
import { type Files, type GoldenCase, readJson } from "./group.ts";

interface Value {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly values: readonly (number | string)[];
}

/** What a stored type becomes here: f32 and i32 where we have none as wide (SEMANTICS: dtypes). */
const ours: Readonly<Record<string, DType>> = {
  float16: "f16",
  bfloat16: "bf16",
  float32: "f32",
  float64: "f32",
  bool: "bool",
  uint8: "u8",
  int8: "i8",
  int16: "i32",
  uint16: "i32",
  int32: "i32",
  int64: "i32",
};

export function dtypesGroup(files: Files, name: string): GoldenCase[] {
  const { metadata, values }: { metadata: unknown; values: Record<string, Value> } = readJson(
    files,
    name,
  );
  const decoded = decodeSafetensors(files(`${name}.safetensors`));
  return Object.entries(values).map(([key, { dtype, shape, values }]) => ({
    id: key,
    call: `safetensors: ${key}, ${dtype} [${shape}]`,
    run: async () => {
      if (JSON.stringify(Object.fromEntries(decoded.metadata)) !== JSON.stringify(metadata))
        throw new Error(`metadata ${JSON.stringify(Object.fromEntries(decoded.metadata))}`);
      const stored = decoded.tensors.get(key);
      if (!stored) throw new Error("not in the file");
      const tensor = stored.tensor();
      if (tensor.dtype !== ours[dtype] || `${tensor.shape}` !== `${shape}`)
        throw new Error(`${tensor.dtype} [${tensor.shape}]`);
      const numbers = values.map(Number);
      const want = tensor.dtype === "f32" ? numbers.map(Math.fround) : numbers;
      const equal = (got: ArrayLike<number>) => measure("values", got, want, () => Infinity);
      return worst([equal(stored.data()), equal(await tensor.data())]);
    },
  }));
}
