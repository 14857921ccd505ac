/**
 * @file A model's weights in a file. A shared (tied) tensor is written once, under its first path,
 * and read from any of its paths, or PyTorch's names for them. All that does not fit is found in
 * the header and said in one error, before a byte of data is read; the module changes only when
 * everything has been read (with `dtype`: tensor by tensor).
 */
import { isFloat, isHalf } from "../../core/dtype.ts";
import { CheckpointError, describe } from "../../core/errors.ts";
import { noGrad, realize, type Tensor } from "../../core/index.ts";
import { formatShape, sameShape } from "../../core/shape.ts";
import type { Module, StateDict } from "../module.ts";
import { type ConvertOptions, Receiver } from "./convert.ts";
import { saveSafetensors } from "./files.ts";
import { openTensors, type TensorFile } from "./sharded.ts";

export interface LoadModelOptions extends ConvertOptions {
  /**
   * Whether missing and unexpected names are errors (the default); a wrong shape or dtype always
   * is.
   */
  readonly strict?: boolean;
  /**
   * What the file puts before the module's names, such as "vision.": names without it are not
   * looked at.
   */
  readonly prefix?: string;
}

/** Writes all parameters and buffers, as they are at the call. */
export function saveModel(
  path: string,
  module: Module,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  // Other libraries ask for this format before they read a file.
  return saveSafetensors(path, distinctTensors(module), { format: "pt", ...metadata });
}

/**
 * Fills a module from a file or the index of several (`….index.json`); resolves to the names that
 * did not match, empty unless `strict: false`. With `dtype` the weights are converted while they
 * are read, one after the other: the file has those of the module as it is, in any float type.
 */
export async function loadModel(
  path: string,
  module: Module,
  { strict = true, prefix = "", ...options }: LoadModelOptions = {},
): Promise<{ missing: string[]; unexpected: string[] }> {
  await using file = await openTensors(path);
  const converts = options.dtype !== undefined;
  const match = matchNames(module.loadableNames(), file, prefix, converts);
  throwMisfits(path, [match], strict, 'other names: prefix: "…"; a part: strict: false');
  const receiver = new Receiver(module, options);
  if (!converts) await fill(file, match.pairs);
  else {
    for (const [cell, name] of match.pairs) {
      const value = await file.tensor(name, { device: cell.device });
      await receiver.take(cell, value);
      value.dispose();
    }
    await receiver.finish();
  }
  return { missing: match.missing, unexpected: match.unexpected };
}

/** Every tensor under its first path. */
export function distinctTensors(module: Module): StateDict {
  const seen = new Set<Tensor>();
  const first = [...module.namedTensors()].filter(([, t]) => !seen.has(t) && seen.add(t));
  return Object.fromEntries(first);
}

export interface Match {
  /** Cells and the names that fill them. */
  readonly pairs: readonly (readonly [cell: Tensor, name: string])[];
  readonly missing: string[];
  readonly unexpected: string[];
  /** Tensors of another shape or dtype, one line each. */
  readonly misfits: string[];
}

/**
 * Compares named cells with a file's entries below `prefix`; `round`: any float type fits a float
 * cell.
 */
export function matchNames(
  named: Iterable<[string, Tensor]>,
  { entries }: TensorFile,
  prefix: string,
  round = false,
): Match {
  const names = new Map<Tensor, string[]>();
  for (const [name, cell] of named) {
    const paths = names.get(cell);
    if (paths) paths.push(prefix + name);
    else names.set(cell, [prefix + name]);
  }
  const pairs: [Tensor, string][] = [];
  const missing: string[] = [];
  const misfits: string[] = [];
  for (const [cell, paths] of names) {
    const present = paths.filter((name) => entries.has(name));
    if (present.length === 0) missing.push(paths[0]);
    else pairs.push([cell, present[0]]);
    for (const name of present) {
      const { dtype, stored, shape } = entries.get(name)!;
      // An f32 holds every half; the other way digits would be lost unasked.
      const holds =
        cell.dtype === dtype ||
        (cell.dtype === "f32" && isHalf(dtype)) ||
        (round && isFloat(cell.dtype) && isFloat(dtype));
      if (holds && sameShape(cell.shape, shape)) continue;
      const wanted = `${cell.dtype}${formatShape(cell.shape)}`;
      misfits.push(`${name}: expected ${wanted}, got ${stored}${formatShape(shape)}`);
    }
  }
  const known = new Set([...names.values()].flat());
  const unexpected = [...entries.keys()].filter((n) => n.startsWith(prefix) && !known.has(n));
  return { pairs, missing, unexpected, misfits };
}

/** One error for everything that does not fit. */
export function throwMisfits(
  path: string,
  matches: readonly Match[],
  strict: boolean,
  hint?: string,
): void {
  const lines: string[] = [];
  const add = (title: string, items: string[]) => {
    if (items.length > 0) lines.push(`${title}: ${items.join(", ")}`);
  };
  if (strict) {
    const missing = matches.flatMap((m) => m.missing);
    add("missing", missing);
    add(
      "unexpected",
      matches.flatMap((m) => m.unexpected),
    );
  }
  lines.push(...matches.flatMap((m) => m.misfits));
  if (lines.length === 0) return;
  const count = matches.reduce((n, m) => n + m.pairs.length + m.missing.length, 0);
  throw new CheckpointError(
    describe(path, `the names, shapes and dtypes of ${count} tensors`, lines.join("\n  "), hint),
  );
}

/** Reads every tensor first and assigns then: a file that fails half-way changes nothing. */
export async function fill(file: TensorFile, pairs: Match["pairs"]): Promise<void> {
  const values: Tensor[] = [];
  for (const [cell, name] of pairs) values.push(await file.tensor(name, { device: cell.device }));
  noGrad(() => {
    for (const [i, [cell]] of pairs.entries()) cell.assign(values[i]);
  });
  if (pairs.length > 0) await realize(...pairs.map(([cell]) => cell));
  for (const value of values) value.dispose();
}
