/**
 * @file Looking for a counterexample: fast-check draws cases and shrinks one that fails, and what is left becomes an error whose
 * message is a program that shows the failure.
 */
import fc from "fast-check";
import { HinodeError } from "../core/errors.ts";
import type { DeviceName } from "../core/graph/node.ts";
import { defaultDevice } from "../core/index.ts";
import { arbitraryOf } from "./arbitraries.ts";
import type { TensorCase } from "./cases.ts";
import type { TensorFunction } from "./values.ts";

export interface CheckOptions {
  /** How many cases (default 50). */
  readonly runs?: number;
  /** Repeats a search; fast-check's global configuration has the default. */
  readonly seed?: number;
  /** What the function is called in the printed program; by default its own name. */
  readonly name?: string;
}

interface SearchOptions extends CheckOptions {
  readonly devices?: readonly DeviceName[];
}

/** What is checked of one case: a function and its inputs, with the lines that a program needs before it can call it. */
export interface Case {
  readonly f: TensorFunction;
  readonly inputs: readonly TensorCase[];
  /** Statements that define `name`, if the program has not got it already. */
  readonly lines: readonly string[];
  readonly name: string;
}

/** Per input a case or an arbitrary, or one for all of them together where their shapes depend on one another. */
export type Inputs =
  | readonly (TensorCase | fc.Arbitrary<TensorCase>)[]
  | fc.Arbitrary<readonly TensorCase[]>;

/** Cases of one function. */
export function casesOf(f: TensorFunction, inputs: Inputs, name: string): fc.Arbitrary<Case> {
  const all =
    inputs instanceof fc.Arbitrary
      ? inputs
      : fc.tuple(...inputs.map((x) => arbitraryOf<TensorCase>(x)));
  return all.map((list) => ({ f, inputs: list, lines: [], name }));
}

/** A case that a check found wrong. */
export class CounterexampleError extends HinodeError {
  /** The smallest case as a program. */
  declare readonly code: string;
  /** What is wrong with it. */
  declare readonly difference: string;
  declare readonly inputs: readonly TensorCase[];

  constructor(
    message: string,
    details: Pick<CounterexampleError, "code" | "difference" | "inputs">,
  ) {
    super(message);
    Object.assign(this, details);
  }
}

/** What a check says of a case: what is wrong, and the expressions that show it. */
export interface Finding {
  readonly difference: string;
  readonly device?: DeviceName;
  /** Names that the program imports from "hinode" besides `tensor`. */
  readonly imports?: readonly string[];
  /** Expressions in the names of the inputs, which the program prints. */
  readonly show: readonly string[];
}

/** The names of the inputs in the printed program. */
export const inputNames = (inputs: readonly TensorCase[]): string[] =>
  inputs.map((_, i) => (inputs.length === 1 ? "x" : `x${i}`));

const library = JSON.stringify("hinode");

function programOf({ inputs, lines }: Case, { device, imports = [], show }: Finding): string {
  const names = inputNames(inputs);
  const used = [...new Set([...(device ? ["init"] : []), ...imports, "tensor"])].sort();
  return [
    `import { ${used.join(", ")} } from ${library};`,
    ...(device ? [`await init({ device: "${device}" });`] : []),
    ...inputs.map((x, i) => `const ${names[i]} = ${x.code};`),
    ...lines,
    ...show.map((expression) => `console.log(await ${expression}.tolist());`),
  ].join("\n");
}

/** Looks for a case that `check` finds wrong, or that throws, and throws a CounterexampleError of the smallest. */
export async function search(
  title: string,
  cases: fc.Arbitrary<Case>,
  check: (c: Case) => Promise<Finding | null>,
  { runs = 50, seed, devices = [defaultDevice().name] }: SearchOptions,
): Promise<void> {
  // The last case that failed is the one that shrinking ends with.
  let last: { readonly finding: Finding; readonly c: Case; readonly cause?: unknown } | null = null;
  const property = fc.asyncProperty(cases, async (c) => {
    let finding: Finding | null;
    let cause: unknown;
    try {
      finding = await check(c);
    } catch (error) {
      cause = error;
      const call = `${c.name}(${inputNames(c.inputs).join(", ")})`;
      finding = { difference: `throws ${error}`, device: devices[0], show: [call] };
    }
    if (finding) last = { finding, c, cause };
    return finding === null;
  });
  const found = await fc.check(property, {
    numRuns: runs,
    ...(seed === undefined ? {} : { seed }),
  });
  if (!found.failed || !last) return;
  const { finding, c, cause } = last as { finding: Finding; c: Case; cause?: unknown };
  const code = programOf(c, finding);
  const { difference } = finding;
  const message =
    `${title}\n  ${difference}\n  seed ${found.seed}, shrunk ${found.numShrinks} times, to:\n\n` +
    code.replace(/^/gm, "    ");
  const error = new CounterexampleError(message, { code, difference, inputs: c.inputs });
  if (cause !== undefined) error.cause = cause;
  throw error;
}
