/**
 * @file detectAnomaly: finds the operation that made the first NaN or infinity, and the line that called it. After PyTorch's
 * `autograd.detect_anomaly`, but for forward values too.
 *
 * While it is on, every node remembers the stack of the call that made it, and every run's results are checked
 * (diagnose.ts searches when one of them is bad). This file has the switch, the memory of call sites, and the message;
 * off, it costs a comparison per node.
 */
import { AnomalyError, type CallSite } from "./errors.ts";
import { copying, differentiating, type Node, observeNodes } from "./graph/node.ts";
import { formatShape } from "./shape.ts";

/** Where a node comes from. */
interface Origin {
  /** Formatted, and read, only for a message. */
  readonly stack: Error;
  /** What ran, from the outermost module inwards. */
  readonly modules: readonly object[];
  /** The node that it is a part of the derivative of. */
  readonly forward: Node | null;
}

const origins = new WeakMap<Node, Origin>();
/** More than V8's ten: modules and transforms nest, and the user's line lies below them. */
const maxFrames = 60;

let detecting = false;
const modules: object[] = [];
let describeModules: (path: readonly object[]) => string = () => "";

/** Whether runs are checked for NaN and infinities. */
export const isAnomalyEnabled = (): boolean => detecting;

/**
 * Switches the search for NaN and infinities on or off, for tensors that are made from now on. `detectAnomaly` does so for
 * one function.
 */
export function setDetectAnomaly(on: boolean): void {
  detecting = on;
  // Whatever an error left behind.
  modules.length = 0;
  differentiating(null);
  copying(null);
  observeNodes(on ? remember : null);
}

function remember(made: Node, differentiated: Node | null, copied: Node | null): void {
  const known = copied && !differentiated && origins.get(copied);
  if (known) origins.set(made, known);
  else if (!copied || differentiated)
    origins.set(made, { stack: here(), modules: [...modules], forward: differentiated });
}

function here(): Error {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = maxFrames;
  const error = new Error();
  Error.stackTraceLimit = limit;
  return error;
}

/** Runs `fn` while the nodes it makes count as copies of those that they are made of: they keep their call sites. */
export function keepingOrigins<R>(fn: () => R): R {
  const before = observeNodes(remember);
  try {
    return fn();
  } finally {
    observeNodes(before);
  }
}

/** Runs `fn`, whose nodes nobody will ask about. */
export function unobserved<R>(fn: () => R): R {
  const before = observeNodes(null);
  try {
    return fn();
  } finally {
    observeNodes(before);
  }
}

// --- modules ---------------------------------------------------------------------------------------------------------

/** Says how a path of modules reads; nn/ does, which this file does not know. */
export function describeModulesBy(describe: (path: readonly object[]) => string): void {
  describeModules = describe;
}

/** Around a module's `forward`: nodes made meanwhile remember the module. */
export function enterModule(module: object): void {
  if (detecting) modules.push(module);
}
export function leaveModule(): void {
  if (detecting) modules.pop();
}

// --- messages --------------------------------------------------------------------------------------------------------

/** What was found of a node: filled in by diagnose.ts. */
export interface Anomaly {
  readonly node: Node;
  /** "NaN in 2 of 6 elements" */
  readonly got: string;
  /** The ranges of its inputs. */
  readonly inputs: string;
  /** The regions that it is in, from the outside inwards. */
  readonly regions: readonly Node<"region">[];
}

export function anomalyError({ node, got, inputs, regions }: Anomaly): AnomalyError {
  const all = [node, ...regions.toReversed()].map((n) => origins.get(n));
  // What a framework's region makes inside has no line of its own but the region's.
  const origin = all.find((o) => o && siteOf(o)) ?? all.find(Boolean);
  const site = origin ? siteOf(origin) : null;
  const forward = origin?.forward ?? null;
  const forwardOrigin = forward ? origins.get(forward) : undefined;
  const forwardSite = forwardOrigin ? siteOf(forwardOrigin) : null;
  const path = forwardOrigin?.modules ?? origin?.modules ?? [];
  const module = path.length > 0 ? describeModules(path) || null : null;

  const inside = regions.map((r) => ` in ${r.attrs.region.name}`).join("");
  const part = forward ? ` (gradient of ${nameOf(forward)})` : "";
  const lines = [
    `${nameOf(node)}${inside}${part}: ${got} of ${node.dtype}${formatShape(node.shape)}`,
  ];
  if (inputs) lines.push(`from ${inputs}`);
  const at = site ? text(site) : "a line unknown: it was recorded before detectAnomaly was on";
  if (forward) {
    lines.push(`gradient asked for at ${at}`);
    if (forwardSite) lines.push(`of the value made at ${text(forwardSite)}`);
  } else lines.push(`made at ${at}`);
  if (module) lines.push(`in ${module}`);
  return new AnomalyError(lines.join("\n  "), {
    op: nameOf(node),
    shape: node.shape,
    dtype: node.dtype,
    gradient: forward !== null,
    site,
    forward: forward && { op: nameOf(forward), site: forwardSite },
    module,
  });
}

const nameOf = (n: Node): string =>
  n.op === "region" || n.op === "project"
    ? ((n.op === "region" ? n : n.src[0]) as Node<"region">).attrs.region.name
    : n.op;

const text = ({ file, line, column }: CallSite): string => `${file}:${line}:${column}`;

const plainPath = (url: string): string => url.replace(/^file:\/\/(?=\/)/, "");
/** Apart from its use: a bundler takes `new URL(…, import.meta.url)` for a file to copy. A classic script has no address. */
const address: string | undefined = import.meta.url;
/** The folders whose frames are the framework's own. */
const ownFolders = (address ? ["./", "../nn/"] : []).map((folder) =>
  plainPath(new URL(folder, address).href),
);

/** The innermost frame that is neither the framework's nor the engine's. */
function siteOf({ stack }: Origin): CallSite | null {
  for (const frame of (stack.stack ?? "").split("\n")) {
    // "    at f (file:1:2)", "    at async file:1:2", and Firefox's "f@file:1:2".
    const inside = /\((.*)\)$/.exec(frame)?.[1];
    const place = inside ?? frame.replace(/^\s*at (?:async )?/, "").replace(/^[^@/]*@/, "");
    const [, file, line, column] = /^(.*):(\d+):(\d+)$/.exec(place) ?? [];
    if (!file || file.startsWith("node:")) continue;
    const path = plainPath(file);
    if (!ownFolders.some((folder) => path.startsWith(folder)))
      return { file: path, line: Number(line), column: Number(column) };
  }
  return null;
}
