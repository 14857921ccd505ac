/**
 * @file The groups whose cases are expressions (ops, nn, transforms): values, dtypes, shapes and gradients against
 * PyTorch's.
 */
import { type DType, defaultDevice, gradients, Tensor, tensor, zeros } from "hinode";
import { readSafetensors, type StoredTensor } from "../support/safetensors.ts";
import { type Measure, measureTensor, worst } from "./comparison.ts";
import { type Expr, evaluate, evaluateSequence } from "./expression.ts";
import { type Group, readJson } from "./group.ts";
import { callModule, type ModuleArgs } from "./modules.ts";
import { dtypes } from "./special.ts";
import { NotCovered } from "./values.ts";

export interface Case {
  readonly id: string;
  readonly op?: string;
  readonly args?: ModuleArgs;
  readonly call: string;
  readonly expr: Expr;
  readonly inputs?: readonly string[];
  readonly input_names?: readonly string[];
  readonly outputs: readonly string[];
  readonly cotangents?: readonly (string | null)[];
  readonly grads?: readonly (string | null)[];
  readonly dtypes?: Readonly<Record<string, string>>;
  readonly rtol: number;
  readonly atol: number;
  readonly grad_atol?: number;
  readonly grad_rtol?: number;
  readonly edge?: boolean;
  readonly note?: string;
}

type Store = ReadonlyMap<string, StoredTensor>;

/** What a case's call gives, in the order of its stored outputs. */
type Outputs = (c: Case, inputs: Tensor[]) => Tensor[] | Promise<Tensor[]>;

/** A group of cases with inputs, outputs and perhaps gradients. */
export const caseGroup =
  (outputs: Outputs): Group =>
  (files, name) => {
    const cases: Case[] = readJson(files, name).cases;
    const store = readSafetensors(files(`${name}.safetensors`));
    return cases.map((c) => ({ id: c.id, call: c.call, run: () => runCase(c, store, outputs) }));
  };

export const expressionGroup = caseGroup((c, inputs) => evaluateOutputs(c, inputs));

const dtypeOf = (c: Case, key: string): DType =>
  c.dtypes?.[key] ? dtypes[`torch.${c.dtypes[key]}`] : "f32";

/** Throws NotCovered when the library lacks something, or an error that says what differs. */
async function runCase(c: Case, store: Store, outputsOf: Outputs): Promise<Measure> {
  const inputs = (c.inputs ?? []).map((key, i) => {
    const { data, shape } = store.get(key)!;
    // Reading a result keeps its history only when something below it requires a gradient.
    const requiresGrad = Boolean(c.grads?.[i]);
    return tensor(data, { dtype: dtypeOf(c, key), shape, requiresGrad });
  });
  const outputs = await outputsOf(c, inputs);
  const skipped = c.edge && defaultDevice().name === "webgpu" ? subnormalPlaces(c, store) : null;
  if (outputs.length !== c.outputs.length)
    throw new Error(`${outputs.length} outputs instead of ${c.outputs.length}`);
  const measures: Measure[] = [];
  for (const [i, key] of c.outputs.entries()) {
    const want = store.get(key)!;
    measures.push(
      await measureTensor(`output ${i}`, outputs[i], want, dtypeOf(c, key), c, skipped),
    );
  }
  if (!c.grads) return worst(measures);

  const gradOutputs = c.cotangents!.map((key) => {
    if (key === null) return null;
    const { data, shape } = store.get(key)!;
    return tensor(data, { shape });
  });
  const differentiable = outputs.filter((_, i) => gradOutputs[i]);
  const cotangents = gradOutputs.filter((v) => v !== null);
  const wanted = c.grads.flatMap((key, i) => (key === null ? [] : [{ key, input: inputs[i] }]));
  const found = gradients(differentiable, wanted.map((w) => w.input), { gradOutputs: cotangents, allowUnused: true }); // biome-ignore format: one line
  const tolerance = { rtol: c.grad_rtol ?? c.rtol, atol: c.grad_atol ?? c.atol };
  for (const [i, { key, input }] of wanted.entries()) {
    // No gradient where PyTorch has zeros (the result does not depend on the input) says the same.
    const gradient = found[i] ?? zeros(input.shape);
    const want = store.get(key)!;
    measures.push(await measureTensor(`gradient ${i}`, gradient, want, "f32", tolerance));
  }
  return worst(measures);
}

/** Where an input, broadcast, is subnormal: GPUs may take such numbers as 0. */
function subnormalPlaces(c: Case, store: Store): (i: number) => boolean {
  const { shape } = store.get(c.outputs[0])!;
  const inputs = c.inputs!.map((key) => {
    const { data, shape: own } = store.get(key)!;
    const missing = shape.length - own.length;
    const sizeFrom = (sizes: readonly number[], axis: number) =>
      sizes.slice(axis).reduce((n, d) => n * d, 1);
    return (i: number) => {
      const places = own.map((d, axis) => {
        const outer = axis + missing;
        const index = Math.floor(i / sizeFrom(shape, outer + 1)) % shape[outer];
        return d === 1 ? 0 : index * sizeFrom(own, axis + 1);
      });
      return data[places.reduce((n, p) => n + p, 0)];
    };
  });
  return (i) => inputs.some((at) => at(i) !== 0 && Math.abs(at(i)) < 2 ** -126);
}

async function evaluateOutputs(c: Case, inputs: Tensor[]): Promise<Tensor[]> {
  const named = (): Record<string, Tensor> =>
    Object.fromEntries(inputs.map((t, i) => [c.input_names![i], t]));
  if (c.expr.sequence) return evaluateSequence(c.expr.sequence, named());
  if (/^torch\.nn\.[A-Z]/.test(c.op ?? "")) return callModule(c.op!, c.args!, named());
  // What depends on the data for its shape is a promise.
  const value = await evaluate(c.expr, { $: inputs });
  const list = [value].flat(2);
  if (!list.every((t) => t instanceof Tensor)) throw new NotCovered("results that are not tensors");
  return list;
}
