/** @file Replacing the Linear layers of a model: what LoRA and quantisation have in common. */
import { ArgumentError, describe } from "../core/errors.ts";
import type { Module } from "./module.ts";

/**
 * Which layers: the end of a path ("qkv", "attention.qkv"), a whole path ("blocks.0.attention.qkv"), or an expression
 * that is found in it (/attention\.(qkv|out)$/).
 */
export type Targets = readonly (string | RegExp)[];

const matches = (path: string, target: string | RegExp): boolean =>
  typeof target === "string"
    ? path === target || path.endsWith(`.${target}`)
    : path.search(target) >= 0;

/**
 * Puts `make(layer)` in place of every layer of `kind` (all, or those that a target names) wherever the model has it; gives
 * what is new, by path.
 * @throws ArgumentError if a target names nothing; nothing is replaced then.
 */
export function replaceLayers<L extends Module, N extends Module>(
  op: string,
  model: Module,
  kind: (module: Module) => module is L,
  targets: Targets | undefined,
  make: (layer: L, path: string) => N,
): Map<string, N> {
  const all = [...model.namedModules()];
  const layers = all.filter((entry): entry is [string, L] => entry[0] !== "" && kind(entry[1]));
  const idle = (targets ?? []).filter((t) => !layers.some(([path]) => matches(path, t)));
  if (layers.length === 0 || idle.length > 0)
    throw new ArgumentError(
      describe(
        op,
        `targets among ${layers.map(([path]) => path).join(", ") || "Linear layers inside a module"}`,
        idle.join(", ") || "none",
      ),
    );
  const made = new Map<string, N>();
  for (const [path, layer] of layers) {
    if (targets && !targets.some((t) => matches(path, t))) continue;
    const next = make(layer, path).train(layer.training);
    made.set(path, next);
    for (const [, parent] of all) parent.replaceChild(layer, next);
  }
  return made;
}
