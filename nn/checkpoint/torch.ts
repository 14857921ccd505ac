/**
 * @file PyTorch's own files: what `torch.save` wrote of tensors, numbers, strings and containers of them (state dicts,
 * checkpoints), since version 1.6. Nothing of the file is run (pickle.ts). Written is safetensors, which PyTorch reads.
 */
import type { TypedArray } from "../../core/dtype.ts";
import { type DeviceName, type Tensor, uploadTensor } from "../../core/index.ts";
import { formatShape, numel, sameShape, stridesOf } from "../../core/shape.ts";
import { type ByteFile, openFile } from "./disk.ts";
import { elementsOf, gathered } from "./elements.ts";
import { type StoredDType, storedDTypes } from "./header.ts";
import { fault, quoted } from "./json.ts";
import { unpickle } from "./pickle.ts";
import { readDirectory, readMember, type ZipMember } from "./zip.ts";

/** What a file holds: dictionaries are objects, tuples and lists arrays. */
export type TorchValue =
  | Tensor
  | number
  | bigint
  | string
  | boolean
  | null
  | TorchValue[]
  | { [key: string]: TorchValue };

const storages: Readonly<Record<string, StoredDType>> = {
  Float: "F32",
  Double: "F64",
  Half: "F16",
  BFloat16: "BF16",
  Long: "I64",
  Int: "I32",
  Short: "I16",
  Char: "I8",
  Byte: "U8",
  Bool: "BOOL",
};

/** Levels of containers. */
const MAX_DEPTH = 100;

/** A storage that the pickle mentions. */
class Storage {
  readonly stored: StoredDType;
  readonly key: string;
  readonly length: number;

  constructor(stored: StoredDType, key: string, length: number) {
    this.stored = stored;
    this.key = key;
    this.length = length;
  }
}

/** A tensor that the pickle mentions: a strided view of a storage. */
class View {
  readonly storage: Storage;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];

  constructor(
    storage: Storage,
    offset: number,
    shape: readonly number[],
    strides: readonly number[],
  ) {
    this.storage = storage;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
  }
}

/**
 * Reads a file of `torch.save` (a path, in Node, or bytes) with its tensors on the default device or the given one; int64
 * becomes i32 and float64 f32. Of a checkpoint, take the part that is the state dict:
 *
 *     const { model } = await loadTorch("checkpoint.pt");
 *
 * @throws CheckpointError for files of before PyTorch 1.6, objects of other classes (also whole modules), and whatever is
 *   damaged.
 */
export async function loadTorch(
  source: string | Uint8Array,
  options: { device?: DeviceName } = {},
): Promise<TorchValue> {
  return openFile(source, async (file) => {
    const members = await readDirectory(file);
    const pickle = [...members.keys()].find((name) => /^[^/]+\/data\.pkl$/.test(name));
    if (pickle === undefined)
      throw fault(file.name, "a file of torch.save, with a data.pkl", "another archive");
    const folder = pickle.slice(0, -"data.pkl".length);
    const order = members.get(`${folder}byteorder`);
    if (order && new TextDecoder().decode(await readMember(file, order)) !== "little")
      throw fault(file.name, "little-endian data", "another order of bytes");
    const value = unpickle(await readMember(file, members.get(pickle)!), names(file), file.name);
    const reader = new Reader(file, members, folder, options.device);
    const read = await reader.value(value, 0);
    await file.close();
    return read;
  });
}

/** What a pickle may name. */
function names(file: ByteFile) {
  const counts = (x: unknown): x is number[] =>
    Array.isArray(x) && x.every((n) => Number.isSafeInteger(n) && n >= 0);
  const rebuild = ([storage, offset, shape, strides]: readonly unknown[]) => {
    const fits = counts([offset]) && counts(shape) && counts(strides);
    if (!(storage instanceof Storage) || !fits || shape.length !== strides.length)
      throw fault(file.name, "a tensor: storage, offset, shape and strides", "other values");
    return new View(storage, offset as number, shape, strides);
  };
  return {
    global(name: string) {
      if (name === "collections.OrderedDict") return () => new Map();
      if (name === "torch._utils._rebuild_tensor_v2") return rebuild;
      if (name === "torch._utils._rebuild_parameter" || name === "torch.Size")
        return ([first]: readonly unknown[]) => first;
      const stored = storages[/^torch\.(\w+)Storage$/.exec(name)?.[1] ?? ""];
      // Named in a persistent id, never called.
      return stored && Object.assign(() => null, { stored });
    },
    persistent(id: unknown) {
      const [kind, type, key, , length] = Array.isArray(id) ? id : [];
      const stored = (type as { stored?: StoredDType } | undefined)?.stored;
      if (kind !== "storage" || !stored || typeof key !== "string" || !counts([length]))
        throw fault(file.name, "a storage: type, key, device and length", "other values");
      return new Storage(stored, key, length as number);
    },
  };
}

class Reader {
  readonly #file: ByteFile;
  readonly #members: ReadonlyMap<string, ZipMember>;
  readonly #folder: string;
  readonly #device: DeviceName | undefined;
  readonly #storages = new Map<string, TypedArray>();
  /** A pickle may mention one object many times. */
  readonly #made = new Map<object, TorchValue>();

  constructor(
    file: ByteFile,
    members: ReadonlyMap<string, ZipMember>,
    folder: string,
    device: DeviceName | undefined,
  ) {
    this.#file = file;
    this.#members = members;
    this.#folder = folder;
    this.#device = device;
  }

  async value(value: unknown, depth: number): Promise<TorchValue> {
    if (depth > MAX_DEPTH)
      throw fault(this.#file.name, `at most ${MAX_DEPTH} levels of containers`, "more");
    if (typeof value === "function" || value instanceof Storage)
      throw fault(this.#file.name, "tensors, numbers, strings and containers", "a class");
    if (typeof value !== "object" || value === null) return value as TorchValue;
    const known = this.#made.get(value);
    if (known !== undefined) return known;
    const made = await this.#container(value, depth);
    this.#made.set(value, made);
    return made;
  }

  async #container(value: object, depth: number): Promise<TorchValue> {
    if (value instanceof View) return this.#tensor(value);
    if (Array.isArray(value)) {
      const list: TorchValue[] = [];
      for (const item of value) list.push(await this.value(item, depth + 1));
      return list;
    }
    const pairs: [string, TorchValue][] = [];
    for (const [key, item] of value as Map<unknown, unknown>) {
      // An optimizer's state is numbered.
      if (typeof key !== "string" && typeof key !== "number")
        throw fault(this.#file.name, "strings or numbers as keys", typeof key);
      pairs.push([`${key}`, await this.value(item, depth + 1)]);
    }
    return Object.fromEntries(pairs);
  }

  async #tensor({ storage, offset, shape, strides }: View): Promise<Tensor> {
    const count = numel(shape);
    const span = shape.reduce((sum, d, i) => sum + (d - 1) * strides[i], 1);
    const text = `${storage.stored}${formatShape(shape)}`;
    // A view may repeat elements without end: what is read is no more than what is there.
    if (count > storage.length || (count > 0 && offset + span > storage.length))
      throw fault(
        this.#file.name,
        `${text}, strides ${formatShape(strides)} from ${offset}, within its storage`,
        `a storage of ${storage.length}`,
        "save an expanded tensor as x.contiguous()",
      );
    const data = await this.#storage(storage);
    const { dtype } = storedDTypes[storage.stored];
    const plain = count === 0 || sameShape(strides, stridesOf(shape));
    const own = plain
      ? data.subarray(offset, offset + count)
      : gathered(data, offset, shape, strides);
    return uploadTensor(own, dtype, shape, this.#device);
  }

  async #storage({ stored, key, length }: Storage): Promise<TypedArray> {
    const known = this.#storages.get(`${key} ${stored}`);
    if (known) return known;
    const where = `${this.#file.name}: storage ${quoted(key)}`;
    const member = this.#members.get(`${this.#folder}data/${key}`);
    const bytes = length * storedDTypes[stored].bytes;
    if (!member || member.size < bytes)
      throw fault(where, `${bytes} bytes of ${stored}`, member ? `${member.size}` : "none");
    const data = (await readMember(this.#file, member)).subarray(0, bytes);
    const fail = (expected: string, got: string, at: number) =>
      fault(where, expected, `${got} at position ${at}`);
    const elements = elementsOf(stored, data, fail);
    this.#storages.set(`${key} ${stored}`, elements);
    return elements;
  }
}
