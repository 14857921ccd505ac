/**
 * @file Custom kernels in the kernel language, run on the host invocation by invocation: the interpreter finds races, reads of what
 * nobody wrote and accesses outside of tensors, which compiled code would only show as a wrong number, or not at all.
 */
import { fromStored, type StoredArray, toStored } from "../core/dtype.ts";
import type { CustomKernelFunction, Tensor, TensorSpec } from "../core/index.ts";
import { interpret } from "../core/kernel/interpret.ts";
import type { Kernel } from "../core/kernel/ir.ts";
import type { TensorCase } from "./cases.ts";
import {
  compareWith,
  type Difference,
  poison,
  Recorded,
  type TensorFunction,
  type Tolerance,
  type Values,
  wholeValues,
} from "./values.ts";

/** What is wrong with the first of a kernel's forms that has something wrong, or null. */
export async function interpretedDifference(
  kernel: CustomKernelFunction<Tensor | readonly Tensor[]>,
  reference: TensorFunction,
  cases: readonly TensorCase[],
  tolerance?: Tolerance,
): Promise<Difference | null> {
  const inputs = await wholeValues(cases);
  const results = kernel.outputs(...inputs);
  // Empty tensors are the reference's.
  if ([...inputs, ...results].some(({ shape }) => shape.includes(0))) return null;
  const meaning = await Recorded.of(reference, cases);
  for (const [device, form] of Object.entries(kernel.kernels(...inputs))) {
    if (form.body.length === 0) continue;
    const run = async () => interpreted(form, inputs, results);
    const found = await compareWith(meaning, run, cases, tolerance);
    if (found) return { ...found, text: `interpreted as for ${device}: ${found.text}` };
  }
  return null;
}

/** Runs a kernel; what it does not write is NaN, or a number that nobody expects. */
function interpreted(
  kernel: Kernel,
  inputs: readonly Values[],
  results: readonly TensorSpec[],
): Values[] {
  const arrays = kernel.buffers.map(({ dtype, size }, i): StoredArray => {
    const data = poison(dtype, size);
    if (i < inputs.length) data.set(inputs[i].data);
    return toStored(dtype, data);
  });
  interpret(kernel, arrays, new Uint32Array(0));
  return results.map(({ dtype, shape }, i) => {
    const { buffer, byteOffset, byteLength } = arrays[inputs.length + i];
    const data = fromStored(dtype, buffer.slice(byteOffset, byteOffset + byteLength));
    return { dtype, shape, data };
  });
}
