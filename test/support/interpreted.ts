/**
 * @file Backends for tests: plans are scheduled and lowered as for WebAssembly or for a GPU, every kernel is checked, and
 * the interpreter runs it, looking for races and accesses outside buffers. Memory is one byte array, so that an
 * error of the memory plan shows as a wrong value.
 */
import type { Backend, CanonicalGraph, Executable } from "../../core/backend/backend.ts";
import {
  bytesOf,
  type DType,
  dtypes,
  fromStored,
  isHalf,
  type StoredArray,
  type TypedArray,
  toStored,
} from "../../core/dtype.ts";
import { IndexOutOfRangeError } from "../../core/errors.ts";
import type { Node } from "../../core/graph/node.ts";
import type { Storage } from "../../core/graph/primitives.ts";
import { checkKernel } from "../../core/kernel/check.ts";
import { lowerForGpu, type Stage, type Temporary } from "../../core/kernel/gpu/lower.ts";
import type { GpuTarget } from "../../core/kernel/gpu/target.ts";
import { interpret } from "../../core/kernel/interpret.ts";
import type { Kernel } from "../../core/kernel/ir.ts";
import { lowerGroup } from "../../core/kernel/templates.ts";
import type { Group } from "../../core/schedule/group.ts";
import { type Place, type Plan, type Step, schedule } from "../../core/schedule/schedule.ts";
import { type Claims, claimsNothing } from "../../core/schedule/simplify.ts";
import { asIs, type Rewrite } from "../../core/schedule/split.ts";
import { numel } from "../../core/shape.ts";

interface Bytes extends Storage {
  data: Uint8Array;
}

const view = (dtype: DType, bytes: Uint8Array, offset: number, size: number): StoredArray =>
  new (
    (isHalf(dtype) ? Uint16Array : dtypes[dtype].array) as unknown as new (
      b: ArrayBufferLike,
      o: number,
      n: number,
    ) => StoredArray
  )(bytes.buffer, bytes.byteOffset + offset, size);

/** What this needs of a schedule. */
interface Lowering {
  readonly stages: readonly Stage[];
  overwritable(old: Node, n: Node): boolean;
  /** Called before each kernel runs. */
  observe?(kernel: Kernel, buffers: readonly StoredArray[], scalars: Uint32Array): void;
}
export type Lower = (group: Group, inMemory: (n: Node) => boolean) => Lowering;

export const forCpu: Lower = (group, inMemory) => {
  const { kernel, nodes, randoms, overwritable } = lowerGroup(group, inMemory);
  checkKernel(kernel, "wasm");
  return { stages: [{ kernel, buffers: nodes, randoms }], overwritable };
};

export class InterpretedBackend implements Backend {
  readonly name = "wasm";
  private readonly lower: Lower;
  private readonly claims: Claims;
  private readonly own: Rewrite;

  constructor(lower: Lower = forCpu, claims: Claims = claimsNothing, own: Rewrite = asIs) {
    this.lower = lower;
    this.claims = claims;
    this.own = own;
  }

  prepare(graph: CanonicalGraph): Executable {
    const plan = schedule(graph.inputs, graph.outputs, this.claims, this.own);
    return {
      kernels: [],
      scratchBytes: plan.scratchBytes,
      run: (inputs, words, donate) => {
        const { lower } = this;
        const over = overwrites(plan, lower);
        const outputs = plan.outputs.map(({ node }, i) => {
          const slot = over[i];
          if (slot !== null && donate[slot]) return inputs[slot] as Bytes;
          return this.upload(new Uint8Array(bytesOf(node)), "u8") as Bytes;
        });
        const slots = inputs.map((s) => (s as Bytes).data);
        const data = outputs.map((o) => o.data);
        runPlan({ plan, lower, slots, outputs: data, words, randoms: graph.randoms });
        return outputs;
      },
    };
  }

  upload(data: TypedArray, dtype: DType): Storage {
    const { buffer, byteOffset, byteLength } = toStored(dtype, data);
    const copy = new Uint8Array(Math.ceil(byteLength / 8) * 8);
    copy.set(new Uint8Array(buffer, byteOffset, byteLength));
    return { bytes: byteLength, data: copy } as Storage;
  }

  download(storage: Storage, dtype: DType, size: number): TypedArray {
    return fromStored(dtype, view(dtype, (storage as Bytes).data, 0, size).slice().buffer);
  }

  free(): void {}

  memory(): { liveBytes: number; reservedBytes: number } {
    return { liveBytes: 0, reservedBytes: 0 };
  }
}

/** As for a GPU with these limits; what has no GPU schedule runs as the CPU's. */
export class InterpretedGpuBackend extends InterpretedBackend {
  constructor(target: Partial<GpuTarget> = {}) {
    const whole = { ...gpuTarget, ...target };
    super((group, inMemory) => {
      const lowered = lowerForGpu(group, inMemory, whole);
      for (const { kernel } of lowered.stages) checkKernel(kernel, "webgpu");
      return lowered;
    });
  }
}

/** The limits that WebGPU guarantees, and what SwiftShader has. */
export const gpuTarget: GpuTarget = {
  f16: false,
  subgroups: false,
  subgroupMin: 4,
  subgroupMax: 4,
  subgroupMatrix: false,
  invocations: 256,
  sharedBytes: 32768,
  buffers: 10,
};

/** Which slot's storage each output may take over. */
function overwrites(plan: Plan, lower: Lower): (number | null)[] {
  return plan.outputs.map(({ first, overwrites: slot }) => {
    const step = plan.steps.find((s) => s.group.stores.has(first));
    if (slot === null || step?.k !== "group") return null;
    const reads = new Set(step.reads);
    const { overwritable } = lower(step.group, (n) => reads.has(n));
    return overwritable(plan.inputs[slot], first) ? slot : null;
  });
}

interface Run {
  readonly plan: Plan;
  readonly lower: Lower;
  readonly slots: readonly Uint8Array[];
  readonly outputs: readonly Uint8Array[];
  readonly words: Uint32Array;
  readonly randoms: readonly Node<"random">[];
}

function runPlan(run: Run): void {
  const { plan, lower, slots, outputs, words, randoms } = run;
  // Garbage everywhere: what is read before it is written shows.
  const scratch = new Uint8Array(plan.scratchBytes + 64).fill(0x7f);
  const at = (place: Place): Uint8Array =>
    place.k === "slot"
      ? slots[place.slot]
      : place.k === "output"
        ? outputs[place.output]
        : scratch.subarray(place.offset);
  // One storage under two names is one array: so the interpreter knows.
  const arrays = new Map<Uint8Array, { readonly dtype: DType; readonly made: StoredArray }>();
  const array = (n: Node): StoredArray => {
    const bytes = at(plan.places.get(n)!);
    const size = numel(n.shape);
    const known = arrays.get(bytes);
    if (known?.dtype === n.dtype && known.made.length === size) return known.made;
    const made = view(n.dtype, bytes, 0, size);
    arrays.set(bytes, { dtype: n.dtype, made });
    return made;
  };

  for (const step of plan.steps) {
    if (step.k === "loop") {
      runLoop(run, step, array);
      continue;
    }
    if (numel(step.group.space) === 0) continue;
    if (step.base) {
      const [updated] = step.group.stores.keys();
      array(updated).set(array(step.base));
    }
    const reads = new Set(step.reads);
    const temporaries = new Map<Temporary, StoredArray>();
    const storage = (b: Node | Temporary): StoredArray => {
      if ("op" in b) return array(b);
      const made =
        temporaries.get(b) ??
        view(b.dtype, new Uint8Array(b.size * dtypes[b.dtype].bytes).fill(0x7f), 0, b.size);
      temporaries.set(b, made);
      return made;
    };
    const lowering = lower(step.group, (n) => reads.has(n));
    for (const { kernel, buffers, randoms: leaves } of lowering.stages) {
      const scalars = new Uint32Array(kernel.scalars);
      leaves.forEach((n, i) => {
        scalars.set(words.subarray(3 * randoms.indexOf(n), 3 * randoms.indexOf(n) + 3), 3 * i);
      });
      lowering.observe?.(kernel, buffers.map(storage), scalars);
      const { error } = interpret(kernel, buffers.map(storage), scalars);
      if (error)
        throw new IndexOutOfRangeError(`gather: got index ${error.value} (kernel ${kernel.name})`);
    }
  }
}

function runLoop(
  { lower }: Run,
  step: Extract<Step, { k: "loop" }>,
  array: (n: Node) => StoredArray,
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
    const words = new Uint32Array(0);
    runPlan({ plan: step.body, lower, slots, outputs: outs, words, randoms: [] });
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
}
