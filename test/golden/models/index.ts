/**
 * @file The group `models`: tiny instances of the reference implementations, with their weights,
 * outputs, losses, gradients and one AdamW step.
 *
 * Every `models-<name>.json` is a set of cases, named `<name>/outputs/logits`, `<name>/loss`,
 * `<name>/grads/<weight>`, `<name>/adamw/<weight>`, `<name>/extra/<key>`, …, judged with the
 * tolerances that the file gives. Which of our models is built is decided by the file's `class` and
 * `config`, never by its name: the tables of vision.ts, language.ts and multimodal.ts have an entry
 * (architecture.ts) for each class. A class that none of them knows has failed all its cases.
 *
 * A model is run once per device, and all cases are judged by that run: build, load, `extra`,
 * forward, backward, AdamW, forward again. An output named `grad_<input>` is the gradient of that
 * input and is found here.
 */
import { defaultDevice, realize, type Tensor, tensor, zeros } from "hinode";
import { loadWeights, toStored } from "hinode/models";
import { type Module, optim } from "hinode/nn";
import { readSafetensors, type StoredTensor } from "../../support/safetensors.ts";
import { type Measure, measure, measureTensor, shareOf, type Tolerance } from "../comparison.ts";
import { type Files, type GoldenCase, readJson } from "../group.ts";
import { dtypes } from "../special.ts";
import { NotCovered } from "../values.ts";
import type { Architecture, Fixture, Tensors } from "./architecture.ts";
import { language } from "./language.ts";
import { multimodal } from "./multimodal.ts";
import { vision } from "./vision.ts";

const architectures: readonly Architecture[] = [...vision, ...language, ...multimodal];

/** Entries of `extra` that are inputs, not results. */
export const isGiven = (key: string): boolean =>
  /\.(pixel_values|prompt|attention_mask|input_ids|image_sizes)$/.test(key);

type Store = ReadonlyMap<string, StoredTensor>;
/** Everything that a run has found, by the names of the cases. */
type Found = ReadonlyMap<string, Tensor | number>;

export function modelsGroup(files: Files, name: string): GoldenCase[] {
  const fixture: Fixture = readJson(files, name);
  const store = readSafetensors(files(fixture.tensors));
  const runs = new Map<string, Promise<Found>>();
  const found = (): Promise<Found> => {
    const device = defaultDevice().name;
    const run = runs.get(device) ?? runModel(fixture, files, store);
    runs.set(device, run);
    return run;
  };
  return [...expectations(fixture, store)].map(([key, judge]) => ({
    id: `${fixture.model}/${key}`,
    call: `${fixture.class}: ${key}`,
    run: async () => {
      const value = (await found()).get(key);
      if (value === undefined) throw new NotCovered(`${fixture.class} without ${key}`);
      return await judge(value);
    },
  }));
}

type Judge = (value: Tensor | number) => Measure | Promise<Measure>;

/** What is expected of a run, by case. */
function* expectations(fixture: Fixture, store: Store): Generator<[key: string, judge: Judge]> {
  const { rtol, atol_outputs, atol_grads, atol_adamw, loss_atol } = fixture.tolerance;
  const tensorJudge =
    (key: string, tolerance: Tolerance): Judge =>
    (value) =>
      measureTensor(key, value as Tensor, store.get(key)!, dtypeOf(fixture, key), tolerance);
  const numberJudge =
    (key: string, want: number, tolerance: Tolerance): Judge =>
    (value) =>
      measure(key, [value as number], [want], shareOf(tolerance));
  const outputs = { rtol, atol: atol_outputs };
  for (const key of Object.keys(fixture.outputs))
    yield [`outputs/${key}`, tensorJudge(fixture.outputs[key], outputs)];
  yield ["loss", numberJudge("loss", fixture.loss, { rtol: 0, atol: loss_atol })];
  yield ["grad_norm", numberJudge("grad_norm", fixture.grad_norm, { rtol, atol: 0 })];
  for (const name of fixture.params) {
    yield [`grads/${name}`, tensorJudge(`grads/${name}`, { rtol, atol: atol_grads })];
    yield [`adamw/${name}`, tensorJudge(`adamw/${name}`, { rtol, atol: atol_adamw })];
  }
  // The weights that it is the loss of are themselves known to their tolerance only.
  const after = { rtol, atol: loss_atol };
  yield ["loss_after_step", numberJudge("loss_after_step", fixture.loss_after_step, after)];
  for (const [key, at] of Object.entries(fixture.extra ?? {}))
    if (!isGiven(key)) yield [`extra/${key}`, tensorJudge(at, outputs)];
  for (const key of store.keys())
    if (key.startsWith("buffers_after/")) yield [key, tensorJudge(key, outputs)];
}

/** Arguments of a call that change no number. */
const harmless = /^(output_(hidden_states|attentions)|return_(dict|loss)|use_cache)$/;

/**
 * The fixture with the arguments of the call where its architecture looks for them; one that it
 * does not take is an error.
 */
function settled(fixture: Fixture, takes: readonly string[] = []): Fixture {
  const config = { ...fixture.config };
  for (const [name, value] of Object.entries(fixture.input_args ?? {})) {
    if (takes.includes(name)) config[name] = value;
    else if (!harmless.test(name)) throw new NotCovered(`${fixture.class} with ${name}`);
  }
  return { ...fixture, config };
}

async function runModel(given: Fixture, files: Files, store: Store): Promise<Found> {
  const architecture = architectures.find((a) => a.class.test(given.class));
  if (!architecture) throw new NotCovered(given.class);
  const fixture = settled(given, architecture.arguments);
  const model = architecture.build(fixture);
  const names = architecture.weights(model, fixture);
  const weights = readSafetensors(files(fixture.weights));
  const state = Object.fromEntries([
    ...[...weights].map(([name, t]) => [name, load(t)] as const),
    ...below(store, "buffers/").map(([name, t]) => [name, load(t)] as const),
  ]);
  await loadWeights(names, state);

  const inputs = Object.fromEntries(
    Object.entries(fixture.inputs).map(([name, key]) => {
      const requiresGrad = `grad_${name}` in fixture.outputs;
      return [name, load(store.get(key)!, { dtype: dtypeOf(fixture, key), requiresGrad })];
    }),
  );
  const found = new Map<string, Tensor | number>();
  const add = (folder: string, tensors: Tensors) => {
    for (const [key, t] of Object.entries(tensors)) found.set(`${folder}/${key}`, t.detach());
  };
  if (fixture.extra) {
    const given = Object.entries(fixture.extra).filter(([key]) => isGiven(key));
    const loaded = given.map(([key, at]) => [key, load(store.get(at)!, { dtype: dtypeOf(fixture, at) })]); // biome-ignore format: one line
    const extra = await architecture.extra?.(model, Object.fromEntries(loaded), fixture, inputs);
    await realize(...Object.values(extra ?? {}));
    add("extra", extra ?? {});
  }

  const { outputs, loss } = await architecture.forward(model, inputs, fixture);
  loss.backward();
  const params = model.parameters();
  const norm = optim.getTotalNorm(params.flatMap((p) => p.grad ?? []));
  add("outputs", outputs);
  for (const [name, t] of Object.entries(inputs)) if (t.grad) found.set(`outputs/grad_${name}`, t.grad); // biome-ignore format: one line
  const places = [...names].filter(([name]) => fixture.params.includes(name));
  for (const [name, place] of places)
    found.set(`grads/${name}`, toStored(place, place.cell.grad ?? zeros(place.cell.shape)));
  for (const [name] of below(store, "buffers_after/"))
    found.set(`buffers_after/${name}`, toStored(names.get(name)!).detach());
  await realize(loss, norm, ...[...found.values()].filter((t) => typeof t !== "number"));
  found.set("loss", Number(await loss.item()));
  found.set("grad_norm", Number(await norm.item()));

  await step(model, fixture);
  for (const [name, place] of places) found.set(`adamw/${name}`, toStored(place).detach());
  const after = await architecture.forward(model, inputs, fixture);
  found.set("loss_after_step", Number(await after.loss.item()));
  return found;
}

async function step(model: Module, { adamw }: Fixture): Promise<void> {
  const { lr, betas, eps, weight_decay: weightDecay } = adamw;
  const optimizer = new optim.AdamW(model.parameters(), { lr, betas, eps, weightDecay });
  optimizer.step();
  await realize(...model.parameters());
}

const below = (store: Store, folder: string): [string, StoredTensor][] =>
  [...store].flatMap(([key, t]) => (key.startsWith(folder) ? [[key.slice(folder.length), t]] : []));

const dtypeOf = ({ dtypes: said }: Fixture, key: string) =>
  said?.[key] ? dtypes[`torch.${said[key]}`] : "f32";

const load = (
  { data, shape }: StoredTensor,
  options: { dtype?: ReturnType<typeof dtypeOf>; requiresGrad?: boolean } = {},
): Tensor => tensor(data, { ...options, shape });
