/**
 * @file The interpreter's memories: elements as a device stores them, and who touched each of them, from which races and reads of
 * what nobody wrote are told.
 */
import { type Codec, codecs, type DType, dtypes, isHalf, type StoredArray } from "../dtype.ts";

/** Who touched each element of a memory. Invocations and lanes are numbered from 1; 0 is nobody, -1 several. */
export interface Tracks {
  readonly written: Uint8Array;
  readonly writer: Int32Array;
  readonly reader: Int32Array;
  /** Workgroup memory: between which barriers writer and reader were seen. */
  readonly interval: Int32Array;
  /** The same between lanes, valid where `epoch` is that of the running vector loop. */
  readonly epoch: Int32Array;
  readonly laneWriter: Int32Array;
  readonly laneReader: Int32Array;
}

export interface Memory {
  readonly label: string;
  readonly data: StoredArray;
  /** For halves, which stand here as their bits. */
  readonly codec: Codec | undefined;
  readonly size: number;
  /** Who may race for it: anybody at any time, the invocations of a workgroup between two barriers, or nobody. */
  readonly scope: "buffer" | "workgroup" | "private";
  readonly tracks: Tracks | null;
}

/** The array that stores elements of a dtype. */
export const storedAs = (dtype: DType): (new (size: number) => StoredArray) =>
  isHalf(dtype) ? Uint16Array : dtypes[dtype].array;

export function makeMemory(
  label: string,
  dtype: DType,
  size: number,
  scope: Memory["scope"],
  detect: boolean,
): Memory {
  const data = new (storedAs(dtype))(size);
  const tracks = detect ? makeTracks(size) : null;
  return { label, data, codec: codecs[dtype], size, scope, tracks };
}

export function makeTracks(size: number): Tracks {
  const ints = () => new Int32Array(size);
  return {
    written: new Uint8Array(size),
    writer: ints(),
    reader: ints(),
    interval: ints(),
    epoch: ints(),
    laneWriter: ints(),
    laneReader: ints(),
  };
}
