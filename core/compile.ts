/**
 * @file compile(fn): runs fn once per signature and replays what it recorded. The signature is the arguments'
 * structure, shapes, dtypes, devices and static values, the gradient mode, autocast, and whatever fn looked at: flags
 * of modules, requiresGrad and the presence of gradients of the cells it met.
 *
 * State is found by cell (trace.ts). Idea: JAX's `jit` for the tracing, PyTorch's CUDA graphs for the replay.
 */
import { isAnomalyEnabled } from "./anomaly.ts";
import { autocastType, type HalfType } from "./autocast.ts";
import { cells } from "./cells.ts";
import { type Device, defaultDevice, deviceNamed } from "./device.ts";
import type { DType } from "./dtype.ts";
import { DeviceError, describe } from "./errors.ts";
import type { DeviceName, Node } from "./graph/node.ts";
import { isGradEnabled } from "./mode.ts";
import { canonical, compare, NO_CELL, type Recorded, record, undoDraws } from "./record.ts";
import { type InputRef, type OutputRef, Replay } from "./replay.ts";
import { type Shape, sameShape } from "./shape.ts";
import type { Handle } from "./storage.ts";
import type { Tensor } from "./tensor.ts";
import { activeTrace, isInsideTransform } from "./trace.ts";
import { flatten, matches, refuseArrays, type TreeSpec, unflatten } from "./tree.ts";

export interface CompileOptions {
  /** For messages; the function's own name by default. */
  readonly name?: string;
  /** Plans that are kept, the least recently used goes first. */
  readonly cacheSize?: number;
  /** Traces twice and reports the first difference: a captured Math.random, a counter, a changed field. */
  readonly debug?: boolean;
}

interface ArgumentType {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly device: DeviceName;
  readonly requiresGrad: boolean;
  /** The first argument that is the same cell: two names of one cell see each other's changes. */
  readonly first: number;
}

interface Signature {
  readonly spec: TreeSpec;
  readonly types: readonly ArgumentType[];
  /** Different cells among the arguments. */
  readonly distinct: number;
  readonly gradMode: boolean;
  readonly autocast: HalfType | null;
  /** Plans that detectAnomaly checks are other plans. */
  readonly checked: boolean;
  readonly device: DeviceName;
}

interface Variant {
  readonly signature: Signature;
  readonly replay: Replay;
  readonly result: TreeSpec;
}

/** The machinery behind each compiled function, for explain(). */
export const compiledFunctions = new WeakMap<object, Compiled>();

/**
 * Returns a function that does what `fn` does, but runs `fn` only once per signature; later calls replay its
 * kernels. State that `fn` reads is read anew at each call, state that it assigns is updated in place. `fn` must be
 * synchronous and may not read values.
 */
export function compile<A extends readonly unknown[], R>(
  fn: (...args: A) => R,
  options: CompileOptions = {},
): (...args: A) => R {
  const compiled = new Compiled(fn as unknown as (...args: unknown[]) => unknown, options);
  const wrapper = (...args: A): R => {
    // A plan's results would be constants to an outer trace or transform: there fn is inlined.
    if (activeTrace() || isInsideTransform()) return fn(...args);
    return compiled.call(args) as R;
  };
  compiledFunctions.set(wrapper, compiled);
  return wrapper;
}

export class Compiled {
  readonly #fn: (...args: unknown[]) => unknown;
  readonly name: string;
  readonly #limit: number;
  readonly #debug: boolean;
  /** Most recently used first. */
  readonly #variants: Variant[] = [];
  #warned = false;

  constructor(fn: (...args: unknown[]) => unknown, options: CompileOptions) {
    this.#fn = fn;
    this.name = options.name ?? (fn.name || "compiled function");
    this.#limit = options.cacheSize ?? 8;
    this.#debug = options.debug ?? false;
  }

  call(args: readonly unknown[]): unknown {
    const tensors: Tensor[] = [];
    let variant = this.#find(args, tensors);
    let words: Uint32Array | undefined;
    if (!variant) {
      const signature = this.#signature(args, tensors);
      variant = this.#add(signature, tensors, this.#trace(tensors, signature.spec));
      words = variant.replay.parts.words;
    }
    return unflatten(variant.result, variant.replay.run(this.name, tensors, words));
  }

  /** The plan for these arguments, without running it. */
  prepare(args: readonly unknown[]): Replay {
    const tensors: Tensor[] = [];
    const known = this.#find(args, tensors);
    if (known) return known.replay;
    const signature = this.#signature(args, tensors);
    const recorded = this.#trace(tensors, signature.spec);
    undoDraws(recorded.trace);
    return this.#add(signature, tensors, recorded).replay;
  }

  #find(args: readonly unknown[], tensors: Tensor[]): Variant | undefined {
    for (let i = 0; i < this.#variants.length; i++) {
      const variant = this.#variants[i];
      tensors.length = 0;
      if (!accepts(variant.signature, args, tensors) || !variant.replay.accepts(tensors)) continue;
      if (i > 0) {
        this.#variants.splice(i, 1);
        this.#variants.unshift(variant);
      }
      return variant;
    }
    return undefined;
  }

  #signature(args: readonly unknown[], tensors: Tensor[]): Signature {
    const { spec, tensors: found } = flatten(args);
    refuseArrays(this.name, spec);
    tensors.splice(0, tensors.length, ...found);
    const types = found.map((t) => ({
      dtype: t.dtype,
      shape: t.shape,
      device: t.device,
      requiresGrad: t.requiresGrad,
      first: found.indexOf(t),
    }));
    const distinct = new Set(found).size;
    const mode = { gradMode: isGradEnabled(), autocast: autocastType() };
    const place = { checked: isAnomalyEnabled(), device: defaultDevice().name };
    return { spec, types, distinct, ...mode, ...place };
  }

  #trace(tensors: readonly Tensor[], spec: TreeSpec): Recorded {
    const recorded = record(this.#fn, this.name, tensors, spec);
    if (this.#debug) {
      const second = record(this.#fn, this.name, tensors, spec);
      undoDraws(second.trace);
      compare(this.name, canonical(recorded), canonical(second));
    }
    return recorded;
  }

  #add(signature: Signature, tensors: readonly Tensor[], recorded: Recorded): Variant {
    const variant = { signature, replay: plan(recorded, tensors), result: recorded.result };
    this.#variants.unshift(variant);
    if (this.#variants.length > this.#limit) {
      this.#variants.pop();
      if (!this.#warned)
        console.warn(
          `${this.name}: more than ${this.#limit} signatures, so plans are made again and again` +
            "\n  hint: pass changing numbers as 0-d tensors, pad to a few shapes, or raise cacheSize",
        );
      this.#warned = true;
    }
    return variant;
  }
}

function accepts(signature: Signature, args: readonly unknown[], tensors: Tensor[]): boolean {
  const { spec, types, distinct, gradMode, checked, device } = signature;
  if (gradMode !== isGradEnabled() || device !== defaultDevice().name) return false;
  if (signature.autocast !== autocastType()) return false;
  if (checked !== isAnomalyEnabled()) return false;
  if (!matches(spec, args, tensors)) return false;
  if (types.length > 1 && new Set(tensors).size !== distinct) return false;
  for (let i = 0; i < types.length; i++) {
    const type = types[i];
    const t = tensors[i];
    const n = cells.peek(t);
    if (n.shape !== type.shape && !sameShape(n.shape, type.shape)) return false;
    if (n.dtype !== type.dtype || (n.device ?? device) !== type.device) return false;
    if (t.requiresGrad !== type.requiresGrad || t !== tensors[type.first]) return false;
  }
  return true;
}

/** The one device of the step. */
function deviceOf(roots: readonly Node[], slots: readonly (Node | Handle)[]): Device {
  const names = new Set([...roots, ...slots].map((s) => s.device).filter((d) => d !== null));
  if (names.size > 1)
    throw new DeviceError(describe("compile", "tensors of one device", [...names].join(" and ")));
  const [name] = names;
  return name ? deviceNamed(name) : defaultDevice();
}

function plan(recorded: Recorded, tensors: readonly Tensor[]): Replay {
  const { trace, roots, targets, leaves, results, cleared, cellGuards, captured } = recorded;
  const graph = canonical(recorded);
  const device = deviceOf(roots, graph.slots);
  const executable = device.plan(graph);
  const slotIndex = new Map(graph.slots.map((s, i) => [s, i]));
  const inputs = graph.slots.map((s): InputRef => {
    const part = leaves.get(s as Node);
    return part ? { ...part, handle: null } : { ...NO_CELL, handle: s as Handle };
  });
  const outputs = targets.map(({ leaf, ...target }, i): OutputRef => {
    const { dtype, shape } = roots[i];
    const input = (leaf && slotIndex.get(leaf)) ?? -1;
    return { ...target, output: graph.outputOf[i], input, dtype, shape };
  });
  // vmap and scan make wider leaves of a drawn one, with its key and counter: by these they are found, not by identity.
  const drawn = ({ attrs }: Node<"random">) => `${attrs.key},${attrs.counter}`;
  const positions = trace.randoms.map(({ leaf }) =>
    graph.randoms.flatMap((n, i) => (drawn(n) === drawn(leaf) ? [i] : [])),
  );
  const words = new Uint32Array(3 * graph.randoms.length);
  for (const [i, { attrs }] of graph.randoms.entries())
    words.set([attrs.key[0], attrs.key[1], attrs.counter], 3 * i);
  return new Replay({
    device,
    executable,
    inputs,
    outputs,
    results,
    guards: trace.guards,
    cellGuards,
    captured,
    own: tensors.map((t) => (captured.has(t) ? t : null)),
    cleared,
    randoms: trace.randoms.map(({ draw }) => draw),
    positions,
    words,
  });
}
