/**
 * @file Gradient hooks of tensors, as PyTorch's `Tensor.register_hook`. Where a hook hangs in the graph, and what calls
 * it, is transform/hooks.ts's.
 */
import { cells } from "./cells.ts";
import { isFloat } from "./dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError, TransformError } from "./errors.ts";
import * as g from "./graph/build.ts";
import type { Node } from "./graph/node.ts";
import { formatShape, sameShape } from "./shape.ts";
import { leafTensor, rebind, Tensor } from "./tensor.ts";
import { activeTrace, insideTransform, isInsideTransform } from "./trace.ts";
import { gate, hooksOf, setHooks } from "./transform/hooks.ts";

/** Sees a gradient; what it returns, if anything, goes on in its place. It must not change it otherwise. */
// biome-ignore lint/suspicious/noConfusingVoidType: a hook that only looks returns nothing
export type GradientHook = (gradient: Tensor) => Tensor | void;

/** Takes its hook away again; `using handle = …` does so at the end of the block. */
export class HookHandle {
  #remove: (() => void) | null;

  constructor(remove: () => void) {
    this.#remove = remove;
  }

  remove(): void {
    this.#remove?.();
    this.#remove = null;
  }

  [Symbol.dispose](): void {
    this.remove();
  }
}

const text = (n: Node): string => `${n.dtype}${formatShape(n.shape)}`;

/**
 * Calls `hook` with the whole gradient of x whenever `backward` or `gradients` has computed it: of a leaf before it is
 * added to `.grad`, of a result before it goes further back. Hooks run in the order of registration, on lazy tensors:
 * to look at the numbers, keep the gradient and read it after `backward`. Inside a transform (grad, vmap, checkpoint, …) a
 * hook sees the uses of x after the registration only. A compiled step calls its hooks when it is traced; a hook
 * that is added to a captured tensor, or removed, makes it trace again.
 * @throws DTypeError for integers; TransformError inside a compiled function for a tensor made outside.
 */
export function registerHook(x: Tensor, hook: GradientHook): HookHandle {
  const op = "registerHook";
  if (typeof hook !== "function") throw new ArgumentError(describe(op, "a function", String(hook)));
  if (!isFloat(x.dtype))
    throw new DTypeError(
      describe(op, "a float tensor", x.dtype, "tensors of other types have no gradient"),
    );
  const trace = activeTrace();
  if (trace && cells.isOutside(x))
    throw new TransformError(
      describe(
        op,
        "a result of the compiled function",
        `a tensor made outside of "${trace.name}", on which a replay would not register it again`,
        "register the hook before the call",
      ),
    );
  let on = true;
  const run = (gradient: Node): Node => (on ? replaced(op, hook, gradient) : gradient);
  const remove = () => {
    on = false;
  };
  const n = x.node;
  if (isInsideTransform() && n.owner !== x) {
    rebind(x, gate([n], [], ([gradient]) => [run(gradient)])[0]);
    return new HookHandle(remove);
  }
  // A view that changes nothing has the other tensor's node, whose gradient is more than this one's.
  if (n.owner && n.owner !== x) rebind(x, g.alias(n));
  const key = x.node.owner ?? x.node;
  setHooks(key, [...(hooksOf(key) ?? []), run]);
  return new HookHandle(() => {
    remove();
    setHooks(
      key,
      hooksOf(key)!.filter((other) => other !== run),
    );
  });
}

function replaced(op: string, hook: GradientHook, gradient: Node): Node {
  // Compiled functions inside it are inlined: a plan's result would be a constant to a second derivative.
  const result = insideTransform(() => hook(leafTensor(gradient)));
  return result === undefined ? gradient : checkedGradient(op, result, gradient);
}

/** The node of what a hook returned in place of `gradient`. */
export function checkedGradient(op: string, result: unknown, gradient: Node): Node {
  if (!(result instanceof Tensor))
    throw new ArgumentError(
      describe(op, "a hook that returns a tensor or nothing", String(result)),
    );
  const n = result.node;
  if (n.dtype !== gradient.dtype || !sameShape(n.shape, gradient.shape))
    throw new ShapeError(describe(op, `a gradient ${text(gradient)} from the hook`, text(n)));
  return n;
}
