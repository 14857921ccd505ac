/**
 * @file Every error that Hinode throws on purpose. A message names the operation, what it expected, what it
 * got (all shapes and dtypes), and a hint where there is one; the class lets a program react.
 */
import type { DType } from "./dtype.ts";

/** Modules and transforms nest deeper than the engine's ten frames, and the user's line lies below them. */
const STACK_FRAMES = 100;

export class HinodeError extends Error {
  /** Set by a backend when a run failed before it overwrote anything. */
  stateIntact = false;

  constructor(message: string, options?: ErrorOptions) {
    const limit = Error.stackTraceLimit;
    // Only V8 has the limit; a program that switched stacks off is obeyed.
    if (limit > 0) Error.stackTraceLimit = Math.max(limit, STACK_FRAMES);
    super(message, options);
    if (limit > 0) Error.stackTraceLimit = limit;
    this.name = new.target.name;
  }
}

/** Shapes that do not fit an operation. */
export class ShapeError extends HinodeError {}
/** A dtype that an operation does not take. */
export class DTypeError extends HinodeError {}
/** An argument outside its range: an axis, a step, an option. */
export class ArgumentError extends HinodeError {}
/** Tensors of several devices in one operation, or a device that cannot be had. */
export class DeviceError extends HinodeError {}
/** The GPU went away, or was destroyed: its tensors are gone. init() makes a new device. */
export class DeviceLostError extends DeviceError {}
/** Something larger than the device can bind or address; collecting garbage does not help. */
export class LimitError extends DeviceError {}
/** A line of the program. */
export interface CallSite {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** What an AnomalyError knows of the operation. */
export interface AnomalyDetails {
  readonly op: string;
  readonly shape: readonly number[];
  readonly dtype: DType;
  /** A part of a derivative; `forward` is what it belongs to. */
  readonly gradient: boolean;
  /** Null if it was recorded before detectAnomaly was on. */
  readonly site: CallSite | null;
  readonly forward: { readonly op: string; readonly site: CallSite | null } | null;
  /** The path of the module that called it. */
  readonly module: string | null;
}

/** detectAnomaly found an operation that made a NaN or an infinity. */
export class AnomalyError extends HinodeError implements AnomalyDetails {
  declare readonly op: string;
  declare readonly shape: readonly number[];
  declare readonly dtype: DType;
  declare readonly gradient: boolean;
  declare readonly site: CallSite | null;
  declare readonly forward: { readonly op: string; readonly site: CallSite | null } | null;
  declare readonly module: string | null;

  constructor(message: string, details: AnomalyDetails) {
    super(message);
    Object.assign(this, details);
  }
}
/** Misuse of a transform: reading a traced value, differentiating what has no gradient. */
export class TransformError extends HinodeError {}
/** An index outside its dimension, found while a kernel ran. */
export class IndexOutOfRangeError extends HinodeError {}
/** The device's byte budget is exhausted; the message lists the largest live tensors. */
export class OutOfMemoryError extends HinodeError {}
/** More than 64 steps were queued without awaiting one. */
export class QueueFullError extends HinodeError {}
/** A checkpoint that cannot be read, written, or loaded into what it is asked to fill: the file's fault, or the disk's. */
export class CheckpointError extends HinodeError {}
/** A dataset that cannot be read: a worker that failed, a shard that is cut off, a table of another schema. */
export class DataError extends HinodeError {}
/** A kernel that breaks the rules of the kernel language: a fault of the framework or of a custom kernel. */
export class KernelError extends HinodeError {}

/** `op: expected …, got …` with an optional hint: the one format of all messages. */
export function describe(op: string, expected: string, got: string, hint?: string): string {
  return `${op}: expected ${expected}, got ${got}${hint ? `\n  hint: ${hint}` : ""}`;
}
