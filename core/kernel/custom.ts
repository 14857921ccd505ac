/**
 * @file Kernels that a program brings along, in the kernel language or as WGSL, and how they become the kernel of a group: the
 * first sources of the region are bound in order, then the results. What a definition says, and what it means, is
 * ops/custom-kernel.ts's.
 */
import { dtypes } from "../dtype.ts";
import { type DeviceName, freshUid, type Node } from "../graph/node.ts";
import type { OwnKernel } from "../graph/primitives.ts";
import type { Group } from "../schedule/group.ts";
import { numel } from "../shape.ts";
import type { Stage, Temporary } from "./gpu/lower.ts";
import type { BufferInfo, Kernel } from "./ir.ts";
import type { Lowered } from "./lower.ts";
import { batchKernel, dropBuffers } from "./rebind.ts";

/** A compute shader without its frame: bindings and `main` are written by the backend. */
export interface Shader {
  /** Of the bindings, inputs before outputs. */
  readonly names: readonly string[];
  readonly shapes: readonly (readonly number[])[];
  /** Functions, constants and workgroup variables. */
  readonly declarations: string;
  /** The statements of `main`. */
  readonly body: string;
  readonly workgroupSize: readonly [x: number, y: number, z: number];
  readonly workgroups: number;
}

/** What a call of a custom kernel runs on each device: a kernel without a shader has its body in the kernel language. */
export type Forms = {
  readonly [D in DeviceName]?: { readonly kernel: Kernel; readonly shader?: Shader };
};

export class CustomKernel implements OwnKernel {
  readonly key: string;
  readonly inputs: number;
  readonly home: DeviceName;
  readonly forms: Forms;
  /** Forms for a batch in which every input is one, if the definition gives them. */
  readonly #batch: (size: number) => Forms | null;
  readonly #batched = new Map<string, OwnKernel | null>();

  constructor(
    forms: Forms,
    inputs: number,
    home: DeviceName,
    batch: (size: number) => Forms | null,
  ) {
    this.forms = forms;
    this.inputs = inputs;
    this.home = home;
    // Kernels are made once per definition and shapes, so who is equal is the same.
    this.key = `kernel ${freshUid()}`;
    this.#batch = batch;
  }

  get devices(): readonly DeviceName[] {
    return Object.keys(this.forms) as DeviceName[];
  }

  batched(which: readonly boolean[], size: number): OwnKernel | null {
    const own = which.slice(0, this.inputs);
    const key = `${own} ${size}`;
    let found = this.#batched.get(key);
    if (found === undefined) this.#batched.set(key, (found = this.#batchOf(own, size)));
    return found;
  }

  #batchOf(own: readonly boolean[], size: number): OwnKernel | null {
    if (!own.includes(true)) return null;
    const whole = own.every(Boolean) ? this.#batch(size) : null;
    const forms: { [D in DeviceName]?: Forms[D] } = {};
    for (const device of this.devices) {
      const { kernel, shader } = this.forms[device]!;
      const marked = kernel.buffers.map((_, i) => own[i] ?? true);
      if (whole?.[device]) forms[device] = whole[device];
      else if (!shader) forms[device] = { kernel: batchKernel(kernel, marked, size) };
    }
    const again = (outer: number) => this.#batch(size * outer);
    return Object.keys(forms).length > 0
      ? new CustomKernel(forms, this.inputs, this.home, whole ? again : () => null)
      : null;
  }
}

/** The operands of a custom group, the results that somebody needs, and what runs. */
function partsOf(group: Group) {
  const [first] = group.members.keys();
  const call = first as Node<"region">;
  const { kernel, body } = call.attrs.region;
  const own = kernel as CustomKernel;
  const stored = [...group.stores.keys()] as Node<"project">[];
  const results = body.results.map((_, i) => stored.find((n) => n.attrs.index === i) ?? null);
  return { forms: own.forms, operands: call.src.slice(0, own.inputs), results };
}

const bytesOf = (buffers: readonly BufferInfo[]): number =>
  buffers.reduce((sum, b) => sum + b.size * dtypes[b.dtype].bytes, 0);

/** A kernel of the language, bound to the results that somebody needs. */
function bound(kernel: Kernel, operands: readonly Node[], results: readonly (Node | null)[]) {
  const unwanted = results.flatMap((n, i) => (n ? [] : [operands.length + i]));
  return {
    kernel: dropBuffers(kernel, new Set(unwanted)),
    nodes: [...operands, ...results.filter((n) => n !== null)],
  };
}

export function lowerCustom(group: Group): Lowered {
  const { forms, operands, results } = partsOf(group);
  const { kernel, nodes } = bound(forms.wasm!.kernel, operands, results);
  const traffic = bytesOf(kernel.buffers);
  return { kernel, nodes, traffic, randoms: [], overwritable: () => false };
}

/** The same for a GPU. A shader writes all of its results, also those that nobody needs. */
export function customStage(group: Group): Stage {
  const { forms, operands, results } = partsOf(group);
  const { kernel, shader } = forms.webgpu!;
  if (!shader) {
    const { kernel: needed, nodes } = bound(kernel, operands, results);
    return { kernel: needed, buffers: nodes, randoms: [] };
  }
  const written = kernel.buffers.slice(operands.length);
  const targets = results.map((n, i): Node | Temporary => n ?? written[i]);
  return { kernel, buffers: [...operands, ...targets], randoms: [], shader };
}

/** The frame of a shader as a kernel: what is bound, and nothing that runs. */
export const shaderKernel = (
  name: string,
  buffers: readonly BufferInfo[],
  { workgroups, workgroupSize: [x, y, z] }: Shader,
): Kernel => ({
  name,
  kind: "custom",
  buffers,
  scalars: 0,
  range: { var: "workgroup", extent: workgroups },
  threads: { var: "invocation", extent: x * y * z },
  body: [],
  flops: 0,
});

export const bufferOf = (
  { dtype, shape }: Pick<Node, "dtype" | "shape">,
  access: "read" | "write",
): BufferInfo => ({ dtype, size: numel(shape), access });
