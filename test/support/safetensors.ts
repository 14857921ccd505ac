/**
 * @file Reads the safetensors files of the golden fixtures: 8 bytes of header length, a JSON header, then the data,
 * little-endian and row-major.
 */

export interface StoredTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array | Uint8Array;
}

const arrays = { F32: Float32Array, I32: Int32Array, U8: Uint8Array } as const;

export function readSafetensors(file: Uint8Array): Map<string, StoredTensor> {
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> =
    JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
  const tensors = new Map<string, StoredTensor>();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const Typed = arrays[dtype as keyof typeof arrays];
    if (!Typed) throw new Error(`${name} has the dtype ${dtype}`);
    const [begin, end] = data_offsets.map((o) => 8 + length + o);
    // Copied, because the data may start at any byte of the file.
    const bytes = file.buffer.slice(file.byteOffset + begin, file.byteOffset + end);
    tensors.set(name, { shape, data: new Typed(bytes as ArrayBuffer) });
  }
  return tensors;
}
