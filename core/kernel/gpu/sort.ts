/** @file argsort on a GPU: the keys of sort-keys.ts, merged by merge.ts. */
import type { Node } from "../../graph/node.ts";
import type { Group } from "../../schedule/group.ts";
import { linearize } from "../../schedule/symbolic.ts";
import { Evaluator } from "../evaluate.ts";
import { wideType } from "../ir.ts";
import { keyOf } from "../sort-keys.ts";
import { operand } from "../templates.ts";
import { numberedLines, Scratch } from "./lines.ts";
import type { GpuLowered } from "./lower.ts";
import { sortLines } from "./merge.ts";
import type { GpuTarget } from "./target.ts";

export function lowerSort(
  group: Group,
  inMemory: (n: Node) => boolean,
  target: GpuTarget,
): GpuLowered {
  const [n] = group.members.keys() as IterableIterator<Node<"argsort">>;
  const { axis, descending } = n.attrs;
  const { lines, count, at } = numberedLines(n.shape, axis);
  const ev = new Evaluator(inMemory);
  const stages = sortLines(
    {
      group,
      kind: "sort",
      lines,
      count,
      ev,
      key: (line, j) =>
        keyOf({ dtype: wideType(n.src[0].dtype), descending }, operand(ev, n.src[0], at(line, j))),
      sinks: [{ node: n, what: "order", at: (line, j) => linearize(at(line, j), n.shape) }],
    },
    new Scratch(),
    target,
  );
  return { stages, overwritable: () => false };
}
