/**
 * @file Values that a program can have checked: those of a kernel of its own against its reference, and those of devices against
 * float64. Which values are right is values.ts's, finding a small case search.ts's; gradient.ts and transforms.ts check the rest.
 */
import fc from "fast-check";
import type { DeviceName } from "../core/graph/node.ts";
import { type CustomKernelFunction, defaultDevice, type Tensor } from "../core/index.ts";
import { interpretedDifference } from "./interpreted.ts";
import {
  type Case,
  type CheckOptions,
  casesOf,
  type Inputs,
  inputNames,
  search,
} from "./search.ts";
import { compare, type TensorFunction, type Tolerance } from "./values.ts";

export interface CompareOptions extends CheckOptions {
  /** Default: the default device. A GPU must have been opened by init(). */
  readonly devices?: readonly DeviceName[];
  /** In place of the bound that is computed from the conditioning of each case. */
  readonly tolerance?: Tolerance;
}

/**
 * A kernel against what it should compute: on each device, and, if it is written in the kernel language, in an interpreter
 * that also finds races, reads of what nobody wrote and accesses outside of tensors. `reference`: null for the kernel's own.
 */
export async function checkKernel(
  kernel: CustomKernelFunction<Tensor | readonly Tensor[]>,
  reference: TensorFunction | null,
  inputs: Inputs,
  options: CompareOptions = {},
): Promise<void> {
  const { devices = [defaultDevice().name], tolerance, name = kernel.name } = options;
  const want = reference ?? kernel.reference;
  const other = reference ? reference.name || "reference" : `${name}.reference`;
  await search(
    `${name} differs from its reference`,
    casesOf(kernel, inputs, name),
    async ({ inputs }) => {
      const args = inputNames(inputs).join(", ");
      const show = (at: string) => [`${name}(${args})${at}`, `${other}(${args})${at}`];
      const traced = await interpretedDifference(kernel, want, inputs, tolerance);
      if (traced) return { difference: traced.text, show: show(traced.at) };
      for (const device of devices) {
        const found = await compare(device, kernel, want, inputs, tolerance);
        if (found)
          return { difference: `on ${device}: ${found.text}`, device, show: show(found.at) };
      }
      return null;
    },
    options,
  );
}

/** Cases of a function, or those that an arbitrary of graphs draws. */
export const casesFrom = (
  f: TensorFunction | fc.Arbitrary<Case>,
  inputs: Inputs | null,
  { name }: CheckOptions,
): fc.Arbitrary<Case> =>
  f instanceof fc.Arbitrary ? f : casesOf(f, inputs ?? [], name ?? (f.name || "f"));

/** A function of such inputs, or random graphs (then `inputs` is null), on devices: each against the values in float64. */
export async function compareDevices(
  f: TensorFunction | fc.Arbitrary<Case>,
  inputs: Inputs | null,
  options: CompareOptions = {},
): Promise<void> {
  const { devices = [defaultDevice().name], tolerance } = options;
  await search(
    "a device differs from the reference",
    casesFrom(f, inputs, options),
    async ({ f, inputs, name }) => {
      for (const device of devices) {
        const found = await compare(device, f, f, inputs, tolerance);
        if (!found) continue;
        const show = [`${name}(${inputNames(inputs).join(", ")})${found.at}`];
        return { difference: `on ${device}: ${found.text}`, device, show };
      }
      return null;
    },
    options,
  );
}
