/**
 * @file In which order an `allReduce` combines the invocations of a group, so that printers and the interpreter agree to the
 * bit: up to 16 one after the other; more in two levels, `steps` values that stand `rest` apart each, then those `rest`
 * results. Serial steps cost less than the barriers of a tree of halves.
 */

const serial = 16;

export function reductionLevels(width: number): { readonly steps: number; readonly rest: number } {
  if (width <= serial) return { steps: 1, rest: width };
  const steps = 2 ** Math.ceil(Math.log2(width) / 2);
  return { steps, rest: width / steps };
}

/** Workgroup memory that combining one f32 or i32 accumulator takes; an argmax takes twice as much. Accumulators of one type
 *  share it. */
export function reductionBytes(threads: number, width: number): number {
  if (width === 1) return 0;
  const { steps, rest } = reductionLevels(width);
  return 4 * (threads + (steps === 1 ? 0 : (threads / width) * rest));
}
