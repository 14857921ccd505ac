/** @file Command lines of the examples: typed options with --help, and Ctrl-C as an AbortSignal. */
import { parseArgs } from "node:util";

export interface Option<T extends string | number = string | number> {
  readonly default: T;
  readonly help: string;
  /** Numbers: the least value that makes sense. */
  readonly min?: number;
  /** Strings: the values that are allowed. */
  readonly choices?: readonly string[];
}

/** The device that an example runs on. */
export const deviceOption = {
  default: "auto",
  choices: ["auto", "wasm", "reference"],
  help: "auto, wasm or reference",
} as const;

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
    if (!(number >= min)) fail(`--${name}: expected a number ≥ ${min}, got "${given}"`);
    return [name, number];
  };
  return Object.fromEntries(Object.entries(options).map(read)) as never;
}

function helpText(usage: string, options: Record<string, Option>): string {
  const lines = Object.entries(options).map(
    ([name, o]) => `  --${name.padEnd(10)} ${o.help} (default: ${o.default})`,
  );
  return [usage, "", "options:", ...lines, `  --${"help".padEnd(10)} this text`].join("\n");
}

/** Aborts at the first Ctrl-C; the second one ends the process as usual. */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  process.once("SIGINT", () => controller.abort(new Error("interrupted")));
  return controller.signal;
}

/** Runs an example; an interruption ends it with one line and exit code 130, as shells expect. */
export async function run(main: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const signal = interruptSignal();
  try {
    await main(signal);
  } catch (error) {
    if (!signal.aborted) throw error;
    console.log("\nInterrupted: nothing was saved, and no process is left behind.");
    process.exitCode = 130;
  }
}
