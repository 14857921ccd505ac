/**
 * @file A backend for tests: plans are scheduled and lowered as for WebAssembly, every kernel is checked, and the
 * interpreter runs it, looking for races and accesses outside buffers. Memory is one byte array, so that an
 * error of the memory plan shows as a wrong value.
 */
import type { Backend, CanonicalGraph, Executable } from "../../core/backend/backend.ts";
import { type DType, dtypes, type TypedArray } from "../../core/dtype.ts";
import { IndexOutOfRangeError } from "../../core/errors.ts";
import type { Node } from "../../core/graph/node.ts";
import type { Storage } from "../../core/graph/primitives.ts";
import { checkKernel } from "../../core/kernel/check.ts";
import { interpret } from "../../core/kernel/interpret.ts";
import { lowerGroup } from "../../core/kernel/templates.ts";
import {
  bytesOf,
  type Place,
  type Plan,
  type Step,
  schedule,
} from "../../core/schedule/schedule.ts";
import { numel } from "../../core/shape.ts";

interface Bytes extends Storage {
  data: Uint8Array;
}

const view = (dtype: DType, bytes: Uint8Array, offset: number, size: number): TypedArray =>
  new (
    dtypes[dtype].array as unknown as new (
      b: ArrayBufferLike,
      o: number,
      n: number,
    ) => TypedArray
  )(bytes.buffer, bytes.byteOffset + offset, size);

export class InterpretedBackend implements Backend {
  readonly name = "wasm";

  prepare(graph: CanonicalGraph): Executable {
    const plan = schedule(graph.inputs, graph.outputs);
    return {
      kernels: [],
      scratchBytes: plan.scratchBytes,
      run: (inputs, words) => {
        const outputs = plan.outputs.map(
          ({ node }) => this.upload(new Uint8Array(bytesOf(node)), "u8") as Bytes,
        );
        const slots = inputs.map((s) => (s as Bytes).data);
        runPlan(
          plan,
          slots,
          outputs.map((o) => o.data),
          words,
          graph.randoms,
        );
        return outputs;
      },
    };
  }

  upload(data: TypedArray, _dtype: DType): Storage {
    const copy = new Uint8Array(Math.ceil(data.byteLength / 8) * 8);
    copy.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    return { bytes: data.byteLength, data: copy } as Storage;
  }

  download(storage: Storage, dtype: DType, size: number): TypedArray {
    return view(dtype, (storage as Bytes).data, 0, size).slice();
  }

  free(): void {}

  memory(): { liveBytes: number; reservedBytes: number } {
    return { liveBytes: 0, reservedBytes: 0 };
  }
}

export function runPlan(
  plan: Plan,
  slots: readonly Uint8Array[],
  outputs: readonly Uint8Array[],
  words: Uint32Array,
  randoms: readonly Node<"random">[],
): void {
  // Garbage everywhere: what is read before it is written shows.
  const scratch = new Uint8Array(plan.scratchBytes + 64).fill(0x7f);
  const at = (place: Place): Uint8Array =>
    place.k === "slot"
      ? slots[place.slot]
      : place.k === "output"
        ? outputs[place.output]
        : scratch.subarray(place.offset);
  const array = (n: Node): TypedArray => view(n.dtype, at(plan.places.get(n)!), 0, numel(n.shape));

  for (const step of plan.steps) {
    if (step.k === "loop") {
      runLoop(plan, step, array);
      continue;
    }
    const reads = new Set(step.reads);
    const low = lowerGroup(step.group, (n) => reads.has(n));
    checkKernel(low.kernel, "wasm");
    const scalars = new Uint32Array(low.kernel.scalars);
    low.randoms.forEach((n, i) => {
      scalars.set(words.subarray(3 * randoms.indexOf(n), 3 * randoms.indexOf(n) + 3), 3 * i);
    });
    const { error } = interpret(low.kernel, low.nodes.map(array), scalars);
    if (error)
      throw new IndexOutOfRangeError(
        `gather: got index ${error.value} (kernel ${low.kernel.name})`,
      );
  }
}

function runLoop(
  plan: Plan,
  step: Extract<Step, { k: "loop" }>,
  array: (n: Node) => TypedArray,
): void {
  const { scan } = step.region.attrs.region;
  const { length, carries, xs, reverse } = scan!;
  const bytes = (n: Node): Uint8Array => new Uint8Array(array(n).slice().buffer);
  const params = step.region.src.map(bytes);
  const results = step.body.outputs.map(({ node }) => node);
  const projections = [...step.group.stores.keys()] as Node<"project">[];
  for (let i = 0; i < length; i++) {
    const t = reverse ? length - 1 - i : i;
    const slots = params.map((p, j) => {
      if (j < carries || j >= carries + xs) return p;
      const size = bytesOf(step.body.inputs[j]);
      return p.slice(t * size, (t + 1) * size);
    });
    const outs = results.map((n) => new Uint8Array(Math.ceil(bytesOf(n) / 8) * 8 + 8));
    runPlan(step.body, slots, outs, new Uint32Array(0), []);
    for (let j = 0; j < carries; j++) params[j] = outs[j];
    for (const p of projections) {
      const { index } = p.attrs;
      if (index < carries) continue;
      const size = numel(results[index].shape);
      array(p).set(view(p.dtype, outs[index], 0, size), t * size);
    }
  }
  for (const p of projections)
    if (p.attrs.index < carries)
      array(p).set(view(p.dtype, params[p.attrs.index], 0, numel(p.shape)));
  void plan;
}
