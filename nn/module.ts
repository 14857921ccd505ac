/**
 * @file Module: a plain class whose fields are its parameters, buffers and sub-modules.
 *
 * Decides: names (paths of field names: "blocks.3.attention.out.weight"), what is a parameter (a tensor made by
 * `parameter()`) and what a buffer (every other tensor in a field), the state dict, train and eval, and that an error
 * thrown below a `forward` says in which module it happened. The idea of a class that needs no registration is from
 * Equinox; the names are PyTorch's.
 */

import { ArgumentError, describe, HinodeError, ShapeError } from "../core/errors.ts";
import { noGrad, Tensor } from "../core/index.ts";
import { formatShape, sameShape } from "../core/shape.ts";
import { traceGuard } from "../core/trace.ts";

const parameters = new WeakSet<Tensor>();

/** Makes a tensor a trainable parameter: it requires a gradient and optimizers find it. */
export function parameter(value: Tensor): Tensor {
  value.requiresGrad = true;
  parameters.add(value);
  return value;
}

export const isParameter = (t: Tensor): boolean => parameters.has(t);

export type StateDict = Record<string, Tensor>;

export abstract class Module {
  #training = true;

  constructor() {
    namePathsInErrors(new.target.prototype);
  }

  /** Whether dropout and the like are active. A compiled function that reads it is traced again when it changes. */
  get training(): boolean {
    const mode = this.#training;
    traceGuard(() => this.#training === mode);
    return mode;
  }

  train(mode = true): this {
    for (const [, module] of this.namedModules()) module.#training = mode;
    return this;
  }

  eval(): this {
    return this.train(false);
  }

  /** This module ("") and all below it, each once, with its path. */
  *namedModules(prefix = "", seen = new Set<Module>()): Generator<[string, Module]> {
    if (seen.has(this)) return;
    seen.add(this);
    yield [prefix, this];
    for (const [name, child] of members(this))
      if (child instanceof Module) yield* child.namedModules(join(prefix, name), seen);
  }

  /** All tensors below this module with their paths; a shared tensor comes once per path. */
  *namedTensors(): Generator<[string, Tensor]> {
    for (const [path, module] of this.namedModules())
      for (const [name, value] of members(module))
        if (value instanceof Tensor) yield [join(path, name), value];
  }

  /** Parameters with their paths; a shared (tied) parameter comes once, under its first path. */
  *namedParameters(): Generator<[string, Tensor]> {
    const seen = new Set<Tensor>();
    for (const [name, t] of this.namedTensors()) {
      if (!isParameter(t) || seen.has(t)) continue;
      seen.add(t);
      yield [name, t];
    }
  }

  parameters(): Tensor[] {
    return [...this.namedParameters()].map(([, t]) => t);
  }

  /** The values of all parameters and buffers at this moment: later updates do not change them. */
  stateDict(): StateDict {
    return Object.fromEntries([...this.namedTensors()].map(([name, t]) => [name, t.detach()]));
  }

  /**
   * Assigns every tensor from `state`.
   * @throws ArgumentError that lists all missing and unexpected names (unless `strict: false`), ShapeError that lists
   *   every tensor of another shape or dtype. Nothing is assigned when it throws.
   */
  loadStateDict(state: StateDict, options: { strict?: boolean } = {}): void {
    const own = new Map(this.namedTensors());
    const missing = [...own.keys()].filter((name) => !Object.hasOwn(state, name));
    const unexpected = Object.keys(state).filter((name) => !own.has(name));
    if ((options.strict ?? true) && missing.length + unexpected.length > 0)
      throw new ArgumentError(
        describe(
          "loadStateDict",
          `the names of ${this.constructor.name}'s ${own.size} tensors`,
          `missing: ${list(missing)}; unexpected: ${list(unexpected)}`,
          "strict: false loads what fits by name",
        ),
      );
    const matching = [...own].filter(([name]) => Object.hasOwn(state, name));
    const misfits = matching.filter(
      ([name, t]) => !sameShape(t.shape, state[name].shape) || t.dtype !== state[name].dtype,
    );
    if (misfits.length > 0) {
      const type = (t: Tensor) => `${t.dtype}${formatShape(t.shape)}`;
      throw new ShapeError(
        describe(
          "loadStateDict",
          misfits.map(([name, t]) => `${name}: ${type(t)}`).join(", "),
          misfits.map(([name]) => type(state[name])).join(", "),
        ),
      );
    }
    noGrad(() => {
      for (const [name, t] of matching) t.assign(state[name]);
    });
  }
}

const join = (prefix: string, name: string): string => (prefix ? `${prefix}.${name}` : name);
const list = (names: string[]): string => (names.length ? names.join(", ") : "none");

/** The fields of a module that hold tensors or modules; arrays count element by element ("blocks.0"). */
function* members(module: Module): Generator<[string, unknown]> {
  for (const [name, value] of Object.entries(module)) {
    if (Array.isArray(value))
      for (let i = 0; i < value.length; i++) yield [`${name}.${i}`, value[i]];
    else yield [name, value];
  }
}

// ---- where an error happened

interface Trail {
  readonly message: string;
  /** Modules from the innermost `forward` outwards. */
  readonly modules: Module[];
}
const trails = new WeakMap<HinodeError, Trail>();
const wrapped = new WeakSet<object>();

/**
 * Wraps `forward` once per class, so that a bare `model.forward(x)` needs no call operator. While an error unwinds,
 * each module prepends the name under which it holds the one below.
 */
function namePathsInErrors(prototype: object): void {
  if (wrapped.has(prototype)) return;
  wrapped.add(prototype);
  const own = Object.getOwnPropertyDescriptor(prototype, "forward");
  const parent = Object.getPrototypeOf(prototype);
  if (parent && parent !== Module.prototype) namePathsInErrors(parent);
  if (typeof own?.value !== "function") return;
  const forward = own.value as (this: Module, ...args: unknown[]) => unknown;
  const named = function (this: Module, ...args: unknown[]): unknown {
    try {
      return forward.apply(this, args);
    } catch (error) {
      if (error instanceof HinodeError) extendTrail(error, this);
      throw error;
    }
  };
  Object.defineProperty(named, "name", { value: "forward" });
  Object.defineProperty(prototype, "forward", { ...own, value: named });
}

function extendTrail(error: HinodeError, module: Module): void {
  const trail = trails.get(error) ?? { message: error.message, modules: [] };
  trails.set(error, trail);
  if (trail.modules.at(-1) === module) return; // super.forward()
  trail.modules.push(module);
  const names: string[] = [];
  for (let i = trail.modules.length - 1; i > 0; i--)
    names.push(nameWithin(trail.modules[i], trail.modules[i - 1]));
  const path = names.join(".") || "forward";
  const [inner, outer] = [trail.modules[0], module].map((m) => m.constructor.name);
  error.message = `${trail.message}\n  in ${path} (${inner}) of ${outer}`;
}

/** The name under which `outer` holds `inner`, directly or further down. */
function nameWithin(outer: Module, inner: Module): string {
  for (const [path, module] of outer.namedModules()) if (module === inner) return path;
  return inner.constructor.name;
}
