/**
 * @file Where an error happened: while it unwinds through `forward`s, each module prepends the name under which it holds
 * the one below, so the message ends with "in blocks.3.attention.qkv (Linear) of Net".
 */
import { describeModulesBy } from "../core/anomaly.ts";
import type { HinodeError } from "../core/errors.ts";
import type { Module } from "./module.ts";

interface Trail {
  readonly message: string;
  /** Modules from the innermost `forward` outwards. */
  readonly modules: Module[];
}
const trails = new WeakMap<HinodeError, Trail>();

/** Called for each module that an error leaves, from the inside out. */
export function extendTrail(error: HinodeError, module: Module): void {
  const trail = trails.get(error) ?? { message: error.message, modules: [] };
  trails.set(error, trail);
  if (trail.modules.at(-1) === module) return; // super.forward()
  trail.modules.push(module);
  error.message = `${trail.message}\n  in ${pathOf(trail.modules)}`;
}

/** "blocks.3.attention (Attention) of Net" for modules from the innermost outwards. */
function pathOf(modules: readonly Module[]): string {
  const names: string[] = [];
  for (let i = modules.length - 1; i > 0; i--)
    if (modules[i] !== modules[i - 1]) names.push(nameWithin(modules[i], modules[i - 1]));
  const path = names.join(".") || "forward";
  return `${path} (${modules[0].constructor.name}) of ${modules.at(-1)!.constructor.name}`;
}

describeModulesBy((path) => pathOf(path.toReversed() as Module[]));

/** The name under which `outer` holds `inner`, directly or further down. */
function nameWithin(outer: Module, inner: Module): string {
  for (const [path, module] of outer.namedModules()) if (module === inner) return path;
  return inner.constructor.name;
}
