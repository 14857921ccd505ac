/** @file What the element-wise losses share: operands of one shape, and the combination of the elements' losses. */
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import { broadcast, numel } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import type { Reduction } from "./loss.ts";
import { describeNode, floatNode } from "./promotion.ts";

/** Input and target as floats of one dtype whose shapes broadcast. */
export function lossPair(op: string, input: Tensor, target: Tensor): [Node, Node] {
  const [x, t] = [floatNode(op, input), floatNode(op, target)];
  const got = `${describeNode(x)}, ${describeNode(t)}`;
  if (x.dtype !== t.dtype) throw new DTypeError(describe(op, "one dtype", got));
  if (!broadcast(x.shape, t.shape))
    throw new ShapeError(describe(op, "input and target of one shape", got));
  return [x, t];
}

/** The losses themselves, their sum, or their mean. */
export function reducedLoss(op: string, loss: Node, reduction: Reduction): Tensor {
  if (reduction === "none") return fromNode(loss);
  const total = g.sum(loss, [...loss.shape.keys()]);
  if (reduction === "sum") return fromNode(total);
  if (reduction === "mean") return fromNode(g.div(total, g.scalarLike(total, numel(loss.shape))));
  throw new ArgumentError(describe(op, "reduction 'mean', 'sum' or 'none'", String(reduction)));
}
