/**
 * @file explain(): which kernels a value or a compiled step needs, how many bytes each moves, and why each stored
 * value was materialised. Plans are made (and cached) for it, nothing runs.
 */
import type { Executable, KernelReport } from "./backend/backend.ts";
import { cells } from "./cells.ts";
import { compiledFunctions } from "./compile.ts";
import { defaultDevice, deviceNamed, handleOf } from "./device.ts";
import { ArgumentError, describe } from "./errors.ts";
import { formatShape } from "./shape.ts";
import { Tensor } from "./tensor.ts";

export interface Explanation {
  readonly kernels: readonly KernelReport[];
  /** Bytes read and written by all kernels. */
  readonly bytes: number;
  readonly flops: number;
  /** Memory for values between kernels. */
  readonly scratchBytes: number;
  /** All memory in use while it runs: what it reads (parameters, state, arguments), its results, values between kernels. */
  readonly peakBytes: number;
  /** A lower bound of that: no order of these kernels needs less (schedule/footprint.ts derives it). */
  readonly leastBytes: number;
  toString(): string;
}

// biome-ignore lint/suspicious/noExplicitAny: any function that compile() returned
type AnyFunction = (...args: any[]) => unknown;

/** Explains what reading `target` would run, or one call of a compiled function with these arguments. */
export function explain(target: Tensor): Explanation;
export function explain<F extends AnyFunction>(target: F, ...args: Parameters<F>): Explanation;
export function explain(target: Tensor | AnyFunction, ...args: unknown[]): Explanation {
  if (target instanceof Tensor) {
    const n = cells.peek(target);
    if (handleOf(n)) return report("a value that is computed already", null);
    const device = n.device ? deviceNamed(n.device) : defaultDevice();
    const name = `${target.name ?? "tensor"} ${n.dtype}${formatShape(n.shape)}`;
    return report(`${name} on ${device.name}`, device.plan(device.canonical([n])));
  }
  const compiled = compiledFunctions.get(target);
  if (!compiled)
    throw new ArgumentError(
      describe("explain", "a tensor or a compiled function", target.name || typeof target),
    );
  const { device, executable } = compiled.prepare(args).parts;
  return report(`${compiled.name} on ${device.name}`, executable);
}

function report(title: string, executable: Executable | null): Explanation {
  const kernels = executable?.kernels ?? [];
  const scratchBytes = executable?.scratchBytes ?? 0;
  const total = (of: (k: KernelReport) => number) => kernels.reduce((n, k) => n + of(k), 0);
  const bytes = total((k) => k.bytes);
  const flops = total((k) => k.flops);
  const lines = kernels.flatMap((k, i) => [
    `${i + 1}. ${k.kind} ${k.name}: ${count(k.bytes)}B, ${count(k.flops)}FLOP`,
    ...k.writes.map((w) => `     writes ${w.dtype}${formatShape(w.shape)}: ${w.reason}`),
  ]);
  const { peakBytes, leastBytes } = executable?.footprint?.() ?? { peakBytes: 0, leastBytes: 0 };
  const peak = peakBytes > 0 ? `, ${count(peakBytes)}B at most` : "";
  const sum = `${kernels.length} kernels, ${count(bytes)}B moved, ${count(flops)}FLOP, ${count(scratchBytes)}B scratch${peak}`;
  const text = [`${title}: ${sum}`, ...lines].join("\n");
  return { kernels, bytes, flops, scratchBytes, peakBytes, leastBytes, toString: () => text };
}

/** 1234567 → "1.23 M": enough digits to compare, a prefix to read. */
export function count(n: number): string {
  const step = n < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(n) / 3));
  const scaled = n / 1000 ** step;
  return `${step === 0 ? n : scaled.toFixed(2)} ${["", "k", "M", "G", "T"][step]}`;
}
