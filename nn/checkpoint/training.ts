/**
 * @file A training run in one file: weights, what the optimizer remembers, learning rates, averages of the
 * weights, the scale of the loss, the generator's place, the step and whatever else the program notes. A run that is resumed from it goes on with the same bits.
 *
 * Not in the file: accumulated gradients (save after `optimizer.step()`), the hyper-parameters that are an optimizer's
 * constructor's, and train or eval mode.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { defaultGenerator, type Generator, type Tensor } from "../../core/index.ts";
import { formatShape } from "../../core/shape.ts";
import type { Module } from "../module.ts";
import type {
  AveragedModel,
  GradScaler,
  LRScheduler,
  Optimizer,
  SchedulerState,
} from "../optim/index.ts";
import { openSafetensors, saveSafetensors } from "./files.ts";
import { fault } from "./json.ts";
import { distinctTensors, fill, matchNames, throwMisfits } from "./model.ts";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface TrainingParts {
  readonly model: Module;
  /** Its parameters must be the model's. */
  readonly optimizer: Optimizer;
  readonly scheduler?: LRScheduler;
  readonly scaler?: GradScaler;
  /** Of the model's weights. */
  readonly average?: AveragedModel;
  /** Where dropout and shuffling draw from: the default generator unless given. */
  readonly generator?: Generator;
}

/** The metadata's key, and its value before it is text. */
const KEY = "hinode.training";
interface Record1 {
  readonly version: 1;
  readonly step: number;
  readonly generator: { readonly seed: number; readonly counter: number };
  /** The optimizer's parameters by name, in its order: its moments are numbered. */
  readonly parameters: readonly string[];
  readonly scheduler?: SchedulerState;
  readonly extra?: Json;
}

/** Writes the state of a run as it is at the call. `step`: steps made so far. */
export async function saveTraining(
  path: string,
  state: TrainingParts & { readonly step: number; readonly extra?: Json },
): Promise<void> {
  const { model, optimizer, scheduler, scaler, average } = state;
  const { generator = defaultGenerator, step, extra } = state;
  if (!isCount(step))
    throw new ArgumentError(describe("saveTraining", "step: an integer ≥ 0", `${step}`));
  const { seed, counter } = generator.state;
  const parameters = parameterNames(model, optimizer);
  const record: Record1 = {
    version: 1,
    step,
    generator: { seed, counter },
    parameters,
    scheduler: scheduler?.stateDict(),
    extra,
  };
  const tensors = {
    ...prefixed("model.", distinctTensors(model)),
    ...prefixed("optimizer.", optimizer.stateDict()),
    ...prefixed("scaler.", scaler?.stateDict() ?? {}),
    ...prefixed("average.", average?.stateDict() ?? {}),
  };
  await saveSafetensors(path, tensors, { format: "pt", [KEY]: JSON.stringify(record) });
}

/** Brings a fresh model, optimizer, scheduler, scaler, average and generator to where the saved run was. Changes nothing when it throws. */
export async function loadTraining(
  path: string,
  { model, optimizer, scheduler, scaler, average, generator = defaultGenerator }: TrainingParts,
): Promise<{ step: number; extra: Json | undefined }> {
  await using file = await openSafetensors(path);
  const record = parseRecord(path, file.metadata.get(KEY));
  const names = parameterNames(model, optimizer);
  if (record.parameters.length !== names.length || names.some((n, i) => n !== record.parameters[i]))
    throw fault(
      path,
      `an optimizer of ${list(record.parameters)}`,
      list(names),
      "pass the parameters in the same order as in the saved run",
    );
  const { scheduler: schedule } = record;
  const parts: [part: string, saved: boolean, wanted: boolean][] = [
    ["a scheduler", schedule !== undefined, scheduler !== undefined],
    ["a scaler", file.entries.has("scaler.scale"), scaler?.enabled ?? false],
    ["an average", file.entries.has("average.updates"), average !== undefined],
  ];
  for (const [part, saved, wanted] of parts)
    if (saved !== wanted)
      throw fault(
        path,
        `${wanted ? "the" : "no"} state of ${part}`,
        saved ? "one" : "none",
        "save and load with the same parts",
      );
  if (schedule !== undefined && !scheduler!.accepts(schedule))
    throw fault(path, "a scheduler's step and base rates", JSON.stringify(schedule));
  const matches = [
    matchNames(model.namedTensors(), file, "model."),
    matchNames(optimizer.stateCells(), file, "optimizer."),
    matchNames(scaler?.stateCells() ?? [], file, "scaler."),
    matchNames(average?.stateCells() ?? [], file, "average."),
  ];
  throwMisfits(path, matches, true);
  await fill(
    file,
    matches.flatMap((m) => m.pairs),
  );
  generator.state = record.generator;
  if (schedule) scheduler!.loadStateDict(schedule);
  return { step: record.step, extra: record.extra };
}

function parameterNames(model: Module, optimizer: Optimizer): string[] {
  const names = new Map<Tensor, string>();
  for (const [name, t] of model.namedTensors()) if (!names.has(t)) names.set(t, name);
  return optimizer.params.map((p, i) => {
    const name = names.get(p);
    if (name !== undefined) return name;
    throw new ArgumentError(
      describe(
        "training state",
        "an optimizer of the model's parameters",
        `parameter ${i}, ${p.dtype}${formatShape(p.shape)}, which is not in the model`,
        "put all trained modules into one",
      ),
    );
  });
}

/** A file is not to be trusted: each field is checked. */
function parseRecord(path: string, text: string | undefined): Record1 {
  const refuse = (got: string) =>
    fault(path, `a training state (metadata "${KEY}")`, got, "loadModel reads weights alone");
  if (text === undefined) throw refuse("a file without");
  let record: Partial<Record1> | null;
  try {
    record = JSON.parse(text);
  } catch {
    throw refuse("text that is not JSON");
  }
  if (record?.version !== 1) throw refuse(`version ${String(record?.version)}`);
  const { step, generator, parameters } = record;
  if (!isCount(step)) throw refuse(`step ${String(step)}`);
  if (!isCount(generator?.seed) || !isCount(generator?.counter))
    throw refuse("no generator state of two integers");
  if (!Array.isArray(parameters) || !parameters.every((name) => typeof name === "string"))
    throw refuse("no list of parameters");
  return record as Record1;
}

const isCount = (x: unknown): x is number => Number.isSafeInteger(x) && (x as number) >= 0;

function prefixed(prefix: string, tensors: Readonly<Record<string, Tensor>>) {
  return Object.fromEntries(Object.entries(tensors).map(([name, t]) => [prefix + name, t]));
}

const list = (names: readonly string[]): string =>
  names.length > 20
    ? `${names.slice(0, 20).join(", ")} … (${names.length} parameters)`
    : names.join(", ");
