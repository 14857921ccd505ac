/**
 * @file Module: a plain class whose fields are its parameters, buffers and sub-modules.
 *
 * Decides: names (paths of field names: "blocks.3.attention.out.weight"), the state dict, train and eval, and that
 * `forward` is wrapped once per class, so that hooks (hooks.ts) run and an error says in which module it happened
 * (trail.ts). What a tensor in a field is, parameter.ts says. The idea of a class that needs no registration is from
 * Equinox; the names are PyTorch's.
 */

import { enterModule, leaveModule } from "../core/anomaly.ts";
import { dtypes, isFloat } from "../core/dtype.ts";
import {
  ArgumentError,
  DTypeError,
  describe,
  HinodeError,
  ShapeError,
  TransformError,
} from "../core/errors.ts";
import { type DeviceName, type DType, HookHandle, noGrad, Tensor } from "../core/index.ts";
import { formatShape, numel, sameShape } from "../core/shape.ts";
import { rebind } from "../core/tensor.ts";
import { activeTrace, traceGuard } from "../core/trace.ts";
import {
  type BackwardHook,
  type BackwardPreHook,
  callHooked,
  type ForwardHook,
  type ForwardPreHook,
  type HookKind,
  type ModuleHooks,
  noHooks,
} from "./hooks.ts";
import { torchName } from "./names.ts";
import { isParameter, isPersistent } from "./parameter.ts";
import { factsOf, moduleText } from "./print.ts";
import { extendTrail } from "./trail.ts";

export type StateDict = Record<string, Tensor>;

export abstract class Module {
  #training = true;
  #hooks = noHooks;

  constructor() {
    Module.#wrap(new.target.prototype);
  }

  // ---- structure

  /**
   * What this module consists of, by name: its fields. Arrays, maps and plain objects of modules and tensors count element
   * by element ("blocks.0"). Containers name their elements otherwise.
   */
  protected members(): Iterable<readonly [string, unknown]> {
    return Object.entries(this);
  }

  /** The modules and tensors of this module itself. */
  *#parts(): Generator<[string, Module | Tensor]> {
    const seen = new Set<object>();
    function* walk(name: string, value: unknown): Generator<[string, Module | Tensor]> {
      if (value instanceof Module || value instanceof Tensor) yield [name, value];
      else if (typeof value === "object" && value !== null && !seen.has(value)) {
        seen.add(value);
        for (const [key, inner] of entriesOf(value)) yield* walk(`${name}.${key}`, inner);
      }
    }
    for (const [name, value] of this.members()) yield* walk(name, value);
  }

  /** The modules directly below, each once, with their names. */
  *namedChildren(): Generator<[string, Module]> {
    const seen = new Set<Module>();
    for (const [name, part] of this.#parts()) {
      if (part instanceof Tensor || seen.has(part)) continue;
      seen.add(part);
      yield [name, part];
    }
  }

  children(): Module[] {
    return [...this.namedChildren()].map(([, module]) => module);
  }

  /** This module ("") and all below it, each once, with its path. */
  *namedModules(prefix = "", seen = new Set<Module>()): Generator<[string, Module]> {
    if (seen.has(this)) return;
    seen.add(this);
    yield [prefix, this];
    for (const [name, child] of this.namedChildren())
      yield* child.namedModules(join(prefix, name), seen);
  }

  modules(): Module[] {
    return [...this.namedModules()].map(([, module]) => module);
  }

  /**
   * The module at a path, such as "blocks.3.attention".
   * @throws ArgumentError that lists the paths there are.
   */
  getSubmodule(path: string): Module {
    const all = new Map(this.namedModules());
    const found = all.get(path);
    if (found) return found;
    const paths = [...all.keys()].filter(Boolean);
    throw new ArgumentError(describe("getSubmodule", `one of ${list(paths)}`, path));
  }

  /** Puts `next` wherever this module itself has `old`; says whether it did. Steps compiled before are traced again. */
  replaceChild(old: Module, next: Module): boolean {
    if (activeTrace())
      throw new TransformError(
        describe("replaceChild", "a call outside of compile", "one that a replay would not repeat"),
      );
    if (!this.replaceIn(old, next)) return false;
    // A changed object is what plans of either are valid with.
    for (const module of [this, old]) module.#hooks = { ...module.#hooks };
    return true;
  }

  /** As `members`: containers have their elements elsewhere. */
  protected replaceIn(old: Module, next: Module): boolean {
    return replaceWithin(this, Object.entries(this), old, next);
  }

  /** Calls `fn` with every module, the inner ones first. */
  apply(fn: (module: Module) => void): this {
    for (const child of this.children()) child.apply(fn);
    fn(this);
    return this;
  }

  // ---- tensors

  /** All tensors of the state dict with their paths; a shared tensor comes once per path. */
  *namedTensors(): Generator<[string, Tensor]> {
    for (const [name, t] of this.#allTensors()) if (isPersistent(t)) yield [name, t];
  }

  /**
   * Every name under which a state dict may have a tensor of this module: its path, then PyTorch's for it, if that is
   * another ("norm.runningMean", "norm.running_mean").
   */
  *loadableNames(): Generator<[string, Tensor]> {
    for (const [path, other, t] of this.#stateNames()) {
      yield [path, t];
      if (other !== path) yield [other, t];
    }
  }

  *#stateNames(): Generator<[path: string, torchs: string, t: Tensor]> {
    const modules = new Map(this.namedModules());
    const own = (prefix: string) => modules.get(prefix)?.torchNames();
    const all = [...this.namedTensors()];
    const paths = new Set(all.map(([path]) => path));
    for (const [path, t] of all) {
      const other = torchName(path, own);
      yield [path, paths.has(other) ? path : other, t]; // A name is one tensor's.
    }
  }

  /** PyTorch's names, below this module, for those paths where they are not the same in snake case. */
  protected torchNames(): Readonly<Record<string, string>> {
    return {};
  }

  *#allTensors(): Generator<[string, Tensor]> {
    for (const [path, module] of this.namedModules())
      for (const [name, part] of module.#parts())
        if (part instanceof Tensor) yield [join(path, name), part];
  }

  /** Parameters with their paths; a shared (tied) parameter comes once, under its first path. */
  *namedParameters(): Generator<[string, Tensor]> {
    yield* once(this.#allTensors(), isParameter);
  }

  /** As namedParameters: the other tensors, also those that the state dict leaves out. */
  *namedBuffers(): Generator<[string, Tensor]> {
    yield* once(this.#allTensors(), (t) => !isParameter(t));
  }

  /** All parameters. For messages they get their paths as names, unless they have names of their own. */
  parameters(): Tensor[] {
    return [...this.namedParameters()].map(([name, t]) => {
      // A part of this module may have named it by the end of the path.
      if (name.endsWith(t.name ?? "")) t.name = name;
      return t;
    });
  }

  buffers(): Tensor[] {
    return [...this.namedBuffers()].map(([, t]) => t);
  }

  /** The number of elements of all parameters, or of those that are not frozen. */
  numParameters(options: { trainable?: boolean } = {}): number {
    const counted = this.parameters().filter((t) => !options.trainable || t.requiresGrad);
    return counted.reduce((n, t) => n + numel(t.shape), 0);
  }

  /** Freezes (false) or unfreezes all parameters. Optimizers refuse frozen ones: leave those out. */
  requiresGrad_(on = true): this {
    for (const t of this.parameters()) t.requiresGrad = on;
    return this;
  }

  /** Forgets the gradients of all parameters. */
  zeroGrad(): void {
    for (const t of this.parameters()) t.grad = null;
  }

  /**
   * Converts the float tensors to a dtype, or moves all tensors to a device, in place; gradients are forgotten. Make the
   * optimizer afterwards: its state is of the parameters' dtype and device.
   */
  to(dtype: DType): this;
  to(device: DeviceName): Promise<this>;
  to(target: DType | DeviceName): this | Promise<this> {
    const all = [...new Set([...this.#allTensors()].map(([, t]) => t))];
    if (!(target in dtypes)) {
      const moved = all.map((t) => t.to(target as DeviceName));
      return Promise.all(moved).then((values) => {
        for (const [i, t] of all.entries()) replaceValue(t, values[i]);
        return this;
      });
    }
    const dtype = target as DType;
    if (!isFloat(dtype))
      throw new DTypeError(describe(`${this.constructor.name}.to`, "a float dtype", dtype));
    for (const t of all) if (isFloat(t.dtype)) replaceValue(t, t.to(dtype));
    return this;
  }

  // ---- mode

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

  // ---- state

  /** The values of all parameters and buffers at this moment: later updates do not change them. */
  stateDict(): StateDict {
    return Object.fromEntries([...this.namedTensors()].map(([name, t]) => [name, t.detach()]));
  }

  /**
   * Assigns every tensor from `state`, where it has its path or PyTorch's name for it ("running_mean", "in_proj_weight");
   * gives the names that did not match, none unless `strict: false`.
   * @throws ArgumentError that lists all missing and unexpected names (unless `strict: false`), ShapeError that lists
   *   every tensor of another shape or dtype. Nothing is assigned when it throws.
   */
  loadStateDict(
    state: StateDict,
    options: { strict?: boolean } = {},
  ): { missing: string[]; unexpected: string[] } {
    const has = (key: string) => Object.hasOwn(state, key);
    const own = [...this.#stateNames()].map(
      ([name, other, t]) => [name, t, has(name) ? name : other] as const,
    );
    const missing = own.filter(([, , key]) => !has(key)).map(([name]) => name);
    const known = new Set(own.map(([, , key]) => key));
    const unexpected = Object.keys(state).filter((key) => !known.has(key));
    if ((options.strict ?? true) && missing.length + unexpected.length > 0)
      throw new ArgumentError(
        describe(
          "loadStateDict",
          `the names of ${this.constructor.name}'s ${own.length} tensors`,
          `missing: ${list(missing)}; unexpected: ${list(unexpected)}`,
          "strict: false loads what fits by name",
        ),
      );
    const matching = own.filter(([, , key]) => has(key));
    const misfits = matching.filter(
      ([, t, key]) => !sameShape(t.shape, state[key].shape) || t.dtype !== state[key].dtype,
    );
    if (misfits.length > 0) {
      const type = (t: Tensor) => `${t.dtype}${formatShape(t.shape)}`;
      throw new ShapeError(
        describe(
          "loadStateDict",
          misfits.map(([name, t]) => `${name}: ${type(t)}`).join(", "),
          misfits.map(([, , key]) => type(state[key])).join(", "),
        ),
      );
    }
    noGrad(() => {
      for (const [, t, key] of matching) t.assign(state[key]);
    });
    return { missing, unexpected };
  }

  // ---- hooks: called in the order of registration; a compiled step calls them when it is traced

  /** `hook(module, args)` before each `forward`; what it returns replaces the arguments. */
  registerForwardPreHook(hook: ForwardPreHook<this>): HookHandle {
    return this.#register("forwardPre", hook);
  }

  /** `hook(module, args, output)` after each `forward`; what it returns replaces the output. */
  registerForwardHook(hook: ForwardHook<this>): HookHandle {
    return this.#register("forward", hook);
  }

  /** `hook(module, gradOutput)` when the gradients of the results are complete; what it returns replaces them. */
  registerFullBackwardPreHook(hook: BackwardPreHook<this>): HookHandle {
    return this.#register("backwardPre", hook);
  }

  /**
   * `hook(module, gradInput, gradOutput)` when the gradients of the arguments are complete; what it returns replaces
   * `gradInput`. One entry per float tensor among the arguments and results; null where no gradient is asked for.
   * The hook sees lazy tensors: keep them, and read them after `backward`.
   */
  registerFullBackwardHook(hook: BackwardHook<this>): HookHandle {
    return this.#register("backward", hook);
  }

  #register(kind: HookKind, hook: unknown): HookHandle {
    const op = `${this.constructor.name}.register hook`;
    if (typeof hook !== "function")
      throw new ArgumentError(describe(op, "a function", String(hook)));
    if (activeTrace())
      throw new TransformError(
        describe(op, "a call outside of compile", "one that a replay would not repeat"),
      );
    if (Object.hasOwn(this, "forward"))
      throw new ArgumentError(
        describe(op, "forward as a method of the class", "a field, which hooks do not see"),
      );
    const own = (...args: unknown[]): unknown => hook(...args);
    this.#setHooks(kind, [...this.#hooks[kind], own]);
    return new HookHandle(() =>
      this.#setHooks(
        kind,
        this.#hooks[kind].filter((other) => other !== own),
      ),
    );
  }

  #setHooks<K extends HookKind>(kind: K, hooks: ModuleHooks[K]): void {
    const all = { ...this.#hooks, [kind]: hooks };
    // Without hooks it is the same object as before the first: plans that were made then hold again.
    this.#hooks = Object.values(all).some((l) => l.length > 0) ? all : noHooks;
  }

  // ---- text

  /** What stands between the parentheses when the module is printed. */
  extraRepr(): string {
    return factsOf(this.members());
  }

  /** The tree of modules as PyTorch prints it. */
  toString(): string {
    return moduleText(this);
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return moduleText(this);
  }

  // ---- forward

  static readonly #wrapped = new WeakSet<object>();

  /** Wraps `forward` once per class, so that a bare `model.forward(x)` needs no call operator. */
  static #wrap(prototype: object): void {
    if (Module.#wrapped.has(prototype)) return;
    Module.#wrapped.add(prototype);
    const own = Object.getOwnPropertyDescriptor(prototype, "forward");
    const parent = Object.getPrototypeOf(prototype);
    if (parent && parent !== Module.prototype) Module.#wrap(parent);
    if (typeof own?.value !== "function") return;
    const forward = own.value as (this: Module, ...args: unknown[]) => unknown;
    const named = function (this: Module, ...args: unknown[]): unknown {
      enterModule(this);
      try {
        const hooks = this.#hooks;
        traceGuard(() => this.#hooks === hooks);
        // A super.forward() is a part of the call, not one of its own.
        const outermost = (this as { forward?: unknown }).forward === named;
        if (hooks === noHooks || !outermost) return forward.apply(this, args);
        return callHooked(this, hooks, forward, args);
      } catch (error) {
        if (error instanceof HinodeError) extendTrail(error, this);
        throw error;
      } finally {
        leaveModule();
      }
    };
    Object.defineProperty(named, "name", { value: "forward" });
    Object.defineProperty(prototype, "forward", { ...own, value: named });
  }
}

const join = (prefix: string, name: string): string => (prefix ? `${prefix}.${name}` : name);
const list = (names: string[]): string => (names.length ? names.join(", ") : "none");

function entriesOf(value: object): Iterable<[unknown, unknown]> {
  if (Array.isArray(value) || value instanceof Map) return value.entries();
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null ? Object.entries(value) : [];
}

/** Puts `next` in place of `old` in a module, array, map or plain object with these entries, and in those inside. */
export function replaceWithin(
  holder: object,
  entries: Iterable<readonly [unknown, unknown]>,
  old: Module,
  next: Module,
  seen = new Set<object>(),
): boolean {
  let found = false;
  for (const [key, value] of [...entries]) {
    if (value === old) {
      if (holder instanceof Map) holder.set(key, next);
      else (holder as Record<string, unknown>)[key as string] = next;
      found = true;
    } else if (typeof value === "object" && value !== null && !(value instanceof Module)) {
      if (seen.has(value)) continue;
      seen.add(value);
      if (replaceWithin(value, entriesOf(value), old, next, seen)) found = true;
    }
  }
  return found;
}

function* once(
  named: Iterable<[string, Tensor]>,
  wanted: (t: Tensor) => boolean,
): Generator<[string, Tensor]> {
  const seen = new Set<Tensor>();
  for (const [name, t] of named) {
    if (!wanted(t) || seen.has(t)) continue;
    seen.add(t);
    yield [name, t];
  }
}

/** Gives a cell a value of another dtype or device. */
function replaceValue(t: Tensor, value: Tensor): void {
  if (value.dtype === t.dtype && value.device === t.device) return;
  const { requiresGrad } = t;
  t.grad = null;
  // A leaf again, of the new value: backward stops there.
  t.requiresGrad = false;
  rebind(t, value.node);
  t.requiresGrad = requiresGrad;
}
