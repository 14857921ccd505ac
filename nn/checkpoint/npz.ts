/** @file NumPy's `.npz`: a zip archive of one `.npy` per array. */
import { type DeviceName, type Tensor, uploadTensor } from "../../core/index.ts";
import type { StateDict } from "../module.ts";
import { type ByteFile, fileOf, openFile, writeFile } from "./disk.ts";
import { fault, quoted } from "./json.ts";
import { decodeNpy, encodeNpy } from "./npy.ts";
import type { HostTensor, Storable } from "./safetensors.ts";
import { collect, readDirectory, readMember, zipped } from "./zip.ts";

/**
 * Reads all arrays of an archive, also a compressed one. `source` names it in errors.
 * @throws CheckpointError for whatever is not a well-formed archive of well-formed arrays.
 */
export async function decodeNpz(
  bytes: Uint8Array,
  source = "decodeNpz",
): Promise<Map<string, HostTensor>> {
  return arraysOf(fileOf(bytes, source));
}

/** The bytes of an archive with these arrays; `compress` deflates them (as `numpy.savez_compressed`). */
export async function encodeNpz(
  tensors: Readonly<Record<string, Storable>>,
  options: { compress?: boolean } = {},
): Promise<Uint8Array> {
  return collect(archive(tensors, options));
}

/** Reads an `.npz` file to the default device or the given one (Node). */
export async function loadNpz(
  path: string,
  options: { device?: DeviceName } = {},
): Promise<StateDict> {
  const arrays = await openFile(path, async (file) => {
    const found = await arraysOf(file);
    await file.close();
    return found;
  });
  const upload = ({ data, dtype, shape }: HostTensor) =>
    uploadTensor(data, dtype, shape, options.device);
  const tensors = [...arrays].map(([name, array]): [string, Tensor] => [name, upload(array)]);
  return Object.fromEntries(tensors);
}

/** Writes tensors to an `.npz` file, whole or not at all (Node). */
export async function saveNpz(
  path: string,
  tensors: Readonly<Record<string, Storable>>,
  options: { compress?: boolean } = {},
): Promise<void> {
  await writeFile(path, archive(tensors, options));
}

const archive = (
  tensors: Readonly<Record<string, Storable>>,
  { compress = false }: { compress?: boolean },
) =>
  zipped(
    (async function* () {
      for (const [name, value] of Object.entries(tensors))
        yield [`${name}.npy`, await encodeNpy(value)] as const;
    })(),
    compress,
  );

async function arraysOf(file: ByteFile): Promise<Map<string, HostTensor>> {
  const arrays = new Map<string, HostTensor>();
  for (const member of (await readDirectory(file)).values()) {
    if (!member.name.endsWith(".npy"))
      throw fault(file.name, "members whose names end in .npy", quoted(member.name));
    const name = member.name.slice(0, -4);
    const where = `${file.name}: ${quoted(name)}`;
    arrays.set(name, decodeNpy(await readMember(file, member), where));
  }
  return arrays;
}
