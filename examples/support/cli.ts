/** @file Command lines of the examples: typed options with --help, and Ctrl-C as an AbortSignal. */
import { parseArgs } from "node:util";
import {
  ArgumentError,
  type AutocastOptions,
  DeviceError,
  type DeviceOptions,
  deviceInfo,
  init,
} from "hinode";

export interface Option<T extends string | number = string | number> {
  readonly default: T;
  readonly help: string;
  /** Numbers: the least value that makes sense. */
  readonly min?: number;
  /** Numbers: whether only whole ones do. */
  readonly integer?: boolean;
  /** Strings: the values that are allowed. */
  readonly choices?: readonly string[];
}

/** The device that an example runs on. */
export const deviceOption = {
  default: "auto",
  choices: ["auto", "wasm", "reference", "webgpu"],
  help: "auto, wasm, reference or webgpu",
} as const;

/** Threads of the wasm device; results are the same bits for any number. */
export const threadsOption = {
  default: 0,
  min: 0,
  integer: true,
  help: "threads of the wasm device; 0: as many as the machine has",
} as const;

/** What products are computed in: f32, or a half by autocast. Parameters are f32 either way. */
export const precisionOption = {
  default: "f32",
  choices: ["f32", "f16", "bf16"],
  help: "of products: f32, f16 (with a scaled loss) or bf16",
} as const;

/** The options of autocast for one of these. */
export const autocastOf = (precision: (typeof precisionOption.choices)[number]): AutocastOptions =>
  precision === "f32" ? { enabled: false } : { dtype: precision };

type ValueOf<O extends Option> = O extends { choices: readonly (infer C)[] }
  ? C
  : O["default"] extends number
    ? number
    : string;

/** Reads `--name value` options; prints the usage and exits on --help (0) and on a mistake (2). */
export function readOptions<O extends Record<string, Option>>(
  usage: string,
  options: O,
): { [K in keyof O]: ValueOf<O[K]> } {
  const fail = (message: string): never => {
    console.error(`${message}\n\n${helpText(usage, options)}`);
    process.exit(2);
  };
  const strings = Object.fromEntries(
    Object.keys(options).map((name) => [name, { type: "string" as const }]),
  );
  let values: Record<string, unknown> = {};
  try {
    values = parseArgs({ options: { ...strings, help: { type: "boolean", short: "h" } } }).values;
  } catch (error) {
    fail((error as Error).message);
  }
  if (values.help) {
    console.log(helpText(usage, options));
    process.exit(0);
  }
  const read = ([name, option]: [string, Option]): [string, string | number] => {
    const given = values[name] as string | undefined;
    if (given === undefined) return [name, option.default];
    if (option.choices?.includes(given) === false)
      fail(`--${name}: expected ${option.choices.join(", ")}, got "${given}"`);
    if (typeof option.default === "string") return [name, given];
    const number = given.trim() === "" ? Number.NaN : Number(given);
    const min = option.min ?? 0;
    const kind = option.integer ? "an integer" : "a number";
    const fits = option.integer ? Number.isSafeInteger(number) : Number.isFinite(number);
    if (!fits || number < min) fail(`--${name}: expected ${kind} ≥ ${min}, got "${given}"`);
    return [name, number];
  };
  return Object.fromEntries(Object.entries(options).map(read)) as never;
}

function helpText(usage: string, options: Record<string, Option>): string {
  const lines = Object.entries(options).map(([name, o]) => {
    const preset = o.default === "" ? "" : ` (default: ${o.default})`;
    return `  --${name.padEnd(10)} ${o.help}${preset}`;
  });
  return [usage, "", "options:", ...lines, `  --${"help".padEnd(10)} this text`].join("\n");
}

/** A mistake of the user's, or an interruption: its message is all there is to say. */
export class Stop extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** Chooses the device and says which one and why; how many threads it computes on. */
export async function startDevice(options: { device: string; threads?: number }): Promise<number> {
  const { device, threads: asked = 0 } = options;
  try {
    await init({
      device: device as DeviceOptions["device"],
      ...(asked > 0 && { threads: asked }),
    });
  } catch (error) {
    if (error instanceof ArgumentError) throw new Stop(`--threads: ${error.message}`, 2);
    if (error instanceof DeviceError) throw new Stop(error.message);
    throw error;
  }
  const { name, reason, threads = 1 } = deviceInfo();
  const count = threads > 1 ? `${threads} threads` : "1 thread";
  if (asked > threads)
    throw new Stop(`--threads: the ${name} device computes on ${count}, got ${asked}`, 2);
  console.log(`device: ${name}${name === "wasm" ? `, ${count}` : ""} (${reason})`);
  return threads;
}

/** Between this and a second Ctrl-C the signal is the same key press: npm passes it on to its children once more. */
const SAME_PRESS = 500; // ms

/** Aborts at the first Ctrl-C; the second one ends the process at once. */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  let first: number | undefined;
  process.on("SIGINT", () => {
    const now = performance.now();
    first ??= now;
    if (now - first > SAME_PRESS) process.exit(130);
    controller.abort(
      new Stop("Interrupted: nothing was saved, and no process is left behind.", 130),
    );
  });
  return controller.signal;
}

/** Runs an example; an interruption ends it with one line and exit code 130, as shells expect. */
export async function run(main: (signal: AbortSignal) => Promise<void>): Promise<void> {
  try {
    await main(interruptSignal());
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    console.error(`\n${error.message}`);
    process.exitCode = error.exitCode;
  }
}
