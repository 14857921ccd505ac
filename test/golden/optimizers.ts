/**
 * @file Optimizers and schedules by PyTorch's names and arguments, and the judgement of a case of optim.json: the recorded gradients
 * are fed to our optimizer, its parameters compared after every step. No table by case: names become camelCase and are looked
 * up. What is unknown throws, which counts as failed.
 */
import { type Tensor, tensor } from "hinode";
import { Module, optim, parameter } from "hinode/nn";
import type { StoredTensor } from "../support/safetensors.ts";

export type Kwargs = Readonly<Record<string, unknown>>;

export interface OptimCase {
  readonly id: string;
  readonly optimizer: string;
  readonly kwargs: Kwargs;
  readonly param_groups?: readonly (Kwargs & { readonly params: readonly string[] })[];
  readonly steps: number;
  readonly tensors: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** Per step; a list where there are several groups, null where the optimizer has its own. */
  readonly lr: readonly (number | readonly number[] | null)[];
  readonly loss: readonly number[];
  readonly total_norm?: readonly number[];
  readonly clip_grad_norm?: Kwargs & { readonly max_norm: number };
  readonly clip_grad_value?: number;
  readonly rtol: number;
  readonly atol: number;
}

export interface ScheduleCase {
  readonly id: string;
  readonly schedule: string;
  readonly kwargs: Kwargs;
  readonly base_lr: number;
  readonly lr: readonly number[];
  /** Of schedules that turn it. */
  readonly momentum?: readonly number[];
  /** Passed to step(), for the schedule that follows one. */
  readonly metrics?: readonly number[];
}

export interface OptimFile {
  readonly cases: readonly OptimCase[];
  readonly schedules: readonly ScheduleCase[];
  readonly problem: {
    readonly A: string;
    readonly Y: string;
    readonly c: string;
    readonly params: Readonly<Record<string, string>>;
  };
}

export type Store = ReadonlyMap<string, StoredTensor>;

// ---- by name

/** How PyTorch computes, or what it prints. */
const withoutMeaning = new Set([
  ...["foreach", "fused", "capturable", "differentiable", "use_addmm", "verbose", "last_epoch"],
]);

const camelCase = (name: string): string =>
  name
    .replace(/_+(\w)/g, (_, c: string) => c.toUpperCase())
    .replace(/^[A-Z]/, (c) => c.toLowerCase());

function optionsFrom(kwargs: Kwargs): Record<string, unknown> {
  const entries = Object.entries(kwargs).filter(([name]) => !withoutMeaning.has(name));
  return Object.fromEntries(
    entries.map(([name, value]) => [camelCase(name), value === "inf" ? Infinity : value]),
  );
}

/** The export of `optim` that a dotted Python name means. */
function exported(name: string): unknown {
  const last = name.split(".").at(-1)!;
  const ours = name.startsWith("transformers.") && last === "Adafactor" ? "FairseqAdafactor" : last;
  const all = optim as unknown as Record<string, unknown>;
  const found = all[ours] ?? all[camelCase(ours)];
  if (found === undefined) throw new Error(`nothing here is called ${name}`);
  return found;
}

type OptimizerClass = new (params: unknown, options: object) => optim.Optimizer;

/** Our optimizer for PyTorch's, transformers' or timm's; `params` as ours takes them, groups with Python's argument names. */
export function makeOptimizer(
  name: string,
  kwargs: Kwargs,
  params: readonly Tensor[] | readonly (Kwargs & { readonly params: readonly Tensor[] })[],
): optim.Optimizer {
  const groups = params.map((p) => ("params" in p ? optionsFrom(p) : p));
  return new (exported(name) as OptimizerClass)(groups, optionsFrom(kwargs));
}

/** Our schedule for torch.optim.lr_scheduler's or transformers'. */
export function makeScheduler(
  name: string,
  kwargs: Kwargs,
  optimizer: optim.Optimizer,
): optim.LRScheduler {
  const { lrLambda, schedulers, ...options } = optionsFrom(kwargs);
  const make = exported(name) as (o: optim.Optimizer, options: unknown) => optim.LRScheduler;
  const call = (argument: unknown) =>
    /^[A-Z]/.test(name.split(".").at(-1)!)
      ? Reflect.construct(make, [optimizer, argument])
      : make(optimizer, argument);
  if (typeof lrLambda === "string") return call(stepFormula(lrLambda));
  if (!Array.isArray(schedulers)) return call(options);
  // "LinearLR(start_factor=0.1, total_iters=4)"
  const inner = schedulers.map((text: string) => {
    const [, own, args] = text.match(/^(\w+)\((.*)\)$/) ?? [];
    const pairs = args.split(/,\s*(?=\w+\s*=)/).filter(Boolean);
    const own_kwargs = pairs.map((pair) => {
      const [key, value] = pair.split("=");
      return [key.trim(), JSON.parse(value.replaceAll("'", '"').toLowerCase())];
    });
    return makeScheduler(own, Object.fromEntries(own_kwargs), optimizer);
  });
  return call({ ...options, schedulers: inner });
}

/** A Python expression of `step` in numbers and arithmetic, which JavaScript reads alike. */
function stepFormula(text: string): (step: number) => number {
  if (!/^([\d.e+\-*/() ]|step)+$/.test(text)) throw new Error(`no formula of step: ${text}`);
  return new Function("step", `return ${text}`) as (step: number) => number;
}

// ---- judging

/** The largest |got − want| as a share of what the tolerance allows: at most 1 is passed. */
export interface Outcome {
  readonly worst: number;
  /** Where that is. */
  readonly where: string;
}

class Judge implements Outcome {
  worst = 0;
  where = "";
  readonly #rtol: number;
  readonly #atol: number;

  constructor(rtol: number, atol: number) {
    this.#rtol = rtol;
    this.#atol = atol;
  }

  compare(where: string, got: ArrayLike<number>, want: ArrayLike<number>): void {
    for (let i = 0; i < want.length; i++) {
      const off = Math.abs(got[i] - want[i]) / (this.#atol + this.#rtol * Math.abs(want[i]));
      const same = got.length === want.length && Object.is(got[i] + 0, want[i] + 0);
      const share = same ? 0 : Number.isNaN(off) ? Infinity : off;
      if (share > this.worst)
        Object.assign(this, { worst: share, where: `${where}, element ${i}` });
    }
  }
}

/** Slice t of a stored [steps, …] tensor. */
function slice(store: Store, key: string, t: number): { data: Float32Array; tensor: () => Tensor } {
  const { data, shape } = store.get(key)!;
  const own = shape.slice(1);
  const size = own.reduce((a, b) => a * b, 1);
  const part = data.slice(t * size, (t + 1) * size) as Float32Array;
  return { data: part, tensor: () => tensor(part).reshape(own) };
}

/** The optimizer of a case with its parameters by name, as they are before the first step. */
export function startCase(c: OptimCase, store: Store) {
  const names = Object.keys(c.tensors);
  const params = Object.fromEntries(
    names.map((n) => [n, parameter(slice(store, c.tensors[n].params, 0).tensor().detach())]),
  );
  const groups = c.param_groups?.map((g) => ({ ...g, params: g.params.map((n) => params[n]) }));
  return {
    params,
    optimizer: makeOptimizer(c.optimizer, c.kwargs, groups ?? Object.values(params)),
  };
}

/** Clips as the case says; the norm, where it asks for one. */
export function clip(c: OptimCase, params: readonly Tensor[]): Tensor | null {
  if (c.clip_grad_value !== undefined) optim.clipGradValue(params, c.clip_grad_value);
  if (!c.clip_grad_norm) return null;
  const { maxNorm, ...options } = optionsFrom(c.clip_grad_norm);
  return optim.clipGradNorm(params, maxNorm as number, options as optim.NormOptions);
}

/** Whether a case of optim.json comes out as in PyTorch, given the recorded gradients. */
export async function judgeOptimizer(c: OptimCase, store: Store): Promise<Outcome> {
  const judge = new Judge(c.rtol, c.atol);
  if (c.optimizer.endsWith(".AveragedModel")) await judgeAverages(c, store, judge);
  else await judgeSteps(c, store, judge);
  return judge;
}

async function judgeSteps(c: OptimCase, store: Store, judge: Judge): Promise<void> {
  const { params, optimizer } = startCase(c, store);
  for (let t = 0; t < c.steps; t++) {
    if (c.lr[t] !== null) optimizer.setLearningRate(c.lr[t]!);
    for (const [n, p] of Object.entries(params))
      p.grad = slice(store, c.tensors[n].grads, t).tensor();
    const norm = clip(c, Object.values(params));
    if (norm)
      judge.compare(`norm before step ${t}`, [Number(await norm.item())], [c.total_norm![t]]);
    for (const [n, p] of Object.entries(params)) {
      const { clipped_grads } = c.tensors[n];
      if (clipped_grads)
        judge.compare(
          `clipped ${n}, step ${t}`,
          await p.grad!.data(),
          slice(store, clipped_grads, t).data,
        );
    }
    optimizer.step();
    for (const [n, p] of Object.entries(params))
      judge.compare(
        `${n} after step ${t}`,
        await p.data(),
        slice(store, c.tensors[n].params, t + 1).data,
      );
  }
}

class Weights extends Module {
  readonly all: Readonly<Record<string, Tensor>>;
  constructor(all: Readonly<Record<string, Tensor>>) {
    super();
    this.all = all;
  }
}

async function judgeAverages(c: OptimCase, store: Store, judge: Judge): Promise<void> {
  const at = (n: string, t: number) => slice(store, c.tensors[n].inputs, t).tensor();
  const names = Object.keys(c.tensors);
  const model = new Weights(
    Object.fromEntries(names.map((n) => [n, parameter(at(n, 0).detach())])),
  );
  const average = new optim.AveragedModel(model, optionsFrom(c.kwargs));
  for (let t = 0; t < store.get(c.tensors[names[0]].inputs)!.shape[0]; t++) {
    model.loadStateDict(Object.fromEntries(names.map((n) => [`all.${n}`, at(n, t)])));
    average.updateParameters();
    for (const n of names) {
      const want = slice(store, c.tensors[n].averages, t).data;
      judge.compare(`${n} after update ${t}`, await average.averages.get(`all.${n}`)!.data(), want);
    }
  }
}

/** Whether a table of rates comes out as in PyTorch, to 12 digits. */
export function judgeSchedule(c: ScheduleCase): Outcome {
  const kwargs = { lr: c.base_lr, momentum: 0.9 };
  const optimizer = makeOptimizer("torch.optim.SGD", kwargs, [parameter(tensor([1]))]);
  const scheduler = makeScheduler(c.schedule, c.kwargs, optimizer);
  const rates = c.lr.map((_, t) => {
    const [rate] = scheduler.getLastLr();
    if (t + 1 < c.lr.length) scheduler.step(c.metrics?.[t]);
    return rate;
  });
  const judge = new Judge(1e-12, 1e-15);
  judge.compare("rate", rates, c.lr);
  const momenta = c.momentum?.map((_, t) => scheduler.momentumAt?.(t, 0) ?? Number.NaN) ?? [];
  judge.compare("momentum", momenta, c.momentum ?? []);
  return judge;
}
