/**
 * @file What optimizers share: groups of parameters with their options, the learning rates and the step counts as cells on
 * the device (so that a compiled step reads them anew at each replay), `maximize`, weight decay, clearing gradients, and the
 * state dict. An optimizer itself is its defaults, its cells and one rule: the next value of a parameter.
 *
 * Everything that an optimizer remembers is created in its constructor: a compiled step may change state, but it may
 * not make any. Each rule is one element-wise expression per parameter where the method allows it, gradient in, parameter
 * and moments out, so that it becomes one kernel.
 */

import { ArgumentError, describe } from "../../core/errors.ts";
import { noGrad, Tensor, tensor, where, zeros } from "../../core/index.ts";
import { formatShape, sameShape } from "../../core/shape.ts";
import { traceGuard } from "../../core/trace.ts";
import type { StateDict } from "../module.ts";
import { checkOptions, completed } from "./options.ts";
import { type Write, zerosFor } from "./rule.ts";

/** Parameters with options of their own, as PyTorch's; what is left out is as the optimizer's options say. */
export type ParamGroup<O> = Partial<O> & { readonly params: Iterable<Tensor> };

/** What an optimizer takes: parameters, or groups of them. */
export type Params<O> = Iterable<Tensor> | Iterable<ParamGroup<O>>;

/** What the base class itself reads. */
export interface BaseOptions {
  /** Null where the rule finds a step size of its own. */
  readonly lr: number | null;
  readonly weightDecay?: number;
  readonly decoupledWeightDecay?: boolean;
  readonly maximize?: boolean;
  /** This, or the first of betas, is what schedules turn that cycle the momentum. */
  readonly momentum?: number;
  readonly betas?: readonly [number, number];
}

export interface Group<O> {
  readonly params: readonly Tensor[];
  /** The position of its first parameter among all. */
  readonly first: number;
  readonly options: O;
  /** 0-d. */
  readonly lr: Tensor;
}

export interface StepOptions {
  /** 0-d bool: where it is true nothing changes, neither parameters nor moments nor counts. `GradScaler` passes it. */
  readonly skip?: Tensor;
}

/** A parameter in its step. All in f32: halves are updated so, and rounded once when they are assigned. */
export interface Due {
  /** Its place among all parameters. */
  readonly i: number;
  /** Its value before the step. */
  readonly p: Tensor;
  /** The same after decoupled weight decay: what the rule goes on from. */
  readonly w: Tensor;
  /** The gradient; negated if the aim is a maximum, with the penalty's if weight decay is one. */
  readonly g: Tensor;
}

/** Gives the next value of a parameter. */
export type Rule = (due: Due) => Tensor;

/**
 * How weights decay: "penalty" adds weightDecay · p to the gradient, "decoupled" shrinks p by lr · weightDecay, "own" leaves it to
 * the rule.
 */
export type Decay = "penalty" | "decoupled" | "own";

/**
 * A method of one's own is its defaults and its rule; what it remembers, fields made by `cells`:
 *
 *     class SignMomentum extends optim.Optimizer<{ lr: number; momentum: number }> {
 *       readonly velocity = this.cells("velocity");
 *       constructor(params: Iterable<Tensor>) {
 *         super(params, { lr: 0.01, momentum: 0.9 }, {});
 *       }
 *       protected rule({ options, lr }: optim.Group<this["options"]>, _: Tensor, write: optim.Write) {
 *         return ({ i, w, g }: optim.Due) => {
 *           const v = write(this.velocity[i], this.velocity[i].mul(options.momentum).add(g));
 *           return w.sub(v.sign().mul(lr));
 *         };
 *       }
 *     }
 */
export abstract class Optimizer<O extends BaseOptions = BaseOptions> {
  /** Of groups that set none of their own. */
  readonly options: O;
  readonly groups: readonly Group<O>[];
  /** Of all groups. */
  readonly params: readonly Tensor[];
  /** [P]: updates made so far, per parameter: one that is unfrozen late starts its own count. */
  readonly steps: Tensor;
  readonly #cells = new Map<string, readonly Tensor[]>();
  /** Per group, 0-d, once a schedule sets them; before, momentum is a constant of the kernels. */
  #momenta: readonly Tensor[] | null = null;

  constructor(params: Params<O>, defaults: O, options: Partial<O>) {
    this.options = completed(this.constructor.name, defaults, options);
    const items: (Tensor | ParamGroup<O>)[] = [...params];
    const grouped = items.length > 0 && items.every((x) => !(x instanceof Tensor) && x?.params);
    const parts = (grouped ? items : [{ params: items }]) as ParamGroup<O>[];
    const lists = parts.map((part) => [...part.params]);
    this.params = lists.flat();
    this.#checkParameters();
    const { device } = this.params[0];
    let first = 0;
    this.groups = parts.map(({ params: _, ...own }, g) => {
      const all = completed(this.constructor.name, this.options, own as unknown as Partial<O>);
      checkOptions(this.constructor.name, all);
      const lr = tensor(all.lr ?? 0, { device });
      const group = { params: lists[g], first, options: all, lr };
      first += lists[g].length;
      return group;
    });
    this.require("lr: a number", ({ lr }) => lr !== null || defaults.lr === null);
    this.steps = zeros([this.params.length], { device });
  }

  /** The learning rate of the first group, 0-d; `setLearningRate` or `assign` changes it between steps. */
  get lr(): Tensor {
    return this.groups[0].lr;
  }

  /** One rate for all groups, or a list with one for each. */
  setLearningRate(lr: number | readonly number[]): void {
    if (typeof lr !== "number" && lr.length !== this.groups.length)
      throw new ArgumentError(
        describe("setLearningRate", `${this.groups.length} rates`, `${lr.length}`),
      );
    for (const [i, group] of this.groups.entries()) {
      const rate = typeof lr === "number" ? lr : lr[i];
      if (Number.isNaN(rate))
        throw new ArgumentError(describe("setLearningRate", "a number", `NaN for group ${i}`));
      group.lr.assign(tensor(rate, { device: group.lr.device }));
    }
  }

  /** Sets each group's momentum, or first of betas, for the steps to come; schedules call it that cycle the momentum. */
  setMomentum(momenta: readonly number[]): void {
    this.require("betas, or a momentum > 0", (o) => o.betas !== undefined || (o.momentum ?? 0) > 0);
    this.#momenta ??= this.groups.map(({ lr }) => tensor(0, { device: lr.device }));
    for (const [i, cell] of this.#momenta.entries())
      cell.assign(tensor(momenta[i], { device: cell.device }));
  }

  /** A group's momentum, or first of betas, in this step. */
  protected momentumOf(group: Group<O>): number | Tensor {
    const momenta = this.#momenta;
    traceGuard(() => this.#momenta === momenta);
    const { momentum, betas } = group.options;
    return momenta?.[this.groups.indexOf(group)] ?? momentum ?? betas![0];
  }

  /**
   * Forgets the gradients; until then each `backward` adds to them. So k micro-batches make one large batch, in one compiled
   * call or in several:
   *
   *     const accumulate = compile((x: Tensor, y: Tensor) => {
   *       const loss = nn.mseLoss(model.forward(x), y).div(k); // the mean over the whole batch
   *       loss.backward();
   *       return loss;
   *     });
   *     const update = compile(() => {
   *       adamw.step();
   *       adamw.zeroGrad();
   *     });
   *     for (const batch of batches) {
   *       for (const { x, y } of batch.micro) accumulate(x, y);
   *       update();
   *     }
   */
  zeroGrad(): void {
    for (const p of this.params) p.grad = null;
  }

  /** One update of every parameter that has a gradient. */
  step({ skip }: StepOptions = {}): void {
    const due = this.params.map((p) => p.grad !== null);
    if (!due.includes(true)) return;
    const write: Write = (cell, value) => {
      const next = skip ? where(skip, cell, value) : value;
      cell.assign(next);
      return next;
    };
    noGrad(() => {
      const all = due.every(Boolean);
      const more = all ? 1 : tensor(due.map(Number), { device: this.steps.device });
      const count = this.steps.add(more);
      write(this.steps, count);
      for (const group of this.groups) this.#stepGroup(group, count, write);
    });
  }

  #stepGroup(group: Group<O>, count: Tensor, write: Write): void {
    const { maximize = false, weightDecay = 0 } = group.options;
    const decay = weightDecay === 0 ? "own" : this.decay(group.options);
    const rule = this.rule(group, count, write);
    const keep = group.lr.mul(-weightDecay).add(1); // 1 − lr · weightDecay
    group.params.forEach((param, k) => {
      if (!param.grad) return;
      const [p, raw] = [param.float(), param.grad.float()];
      const aimed = maximize ? raw.neg() : raw;
      const g = decay === "penalty" ? aimed.add(p.mul(weightDecay)) : aimed;
      const w = decay === "decoupled" ? p.mul(keep) : p;
      write(param, rule({ i: group.first + k, p, w, g }));
    });
  }

  /** What a step reads and changes besides the parameters, by name: moments are "name.i" for parameter i. */
  *stateCells(): Generator<[string, Tensor]> {
    yield ["steps", this.steps];
    for (const [i, group] of this.groups.entries()) yield [`lr.${i}`, group.lr];
    for (const [i, cell] of (this.#momenta ?? []).entries()) yield [`momentum.${i}`, cell];
    for (const [name, cells] of this.#cells)
      for (const i of cells.keys()) if (cells[i]) yield [`${name}.${i}`, cells[i]];
  }

  /** Step counts, learning rates and moments at this moment. The other options are the constructor's to set. */
  stateDict(): StateDict {
    return Object.fromEntries([...this.stateCells()].map(([name, t]) => [name, t.detach()]));
  }

  /** @throws ArgumentError that lists whatever is missing, unexpected or of another shape; then nothing changes. */
  loadStateDict(state: StateDict): void {
    loadCells(`${this.constructor.name}.loadStateDict`, new Map(this.stateCells()), state);
  }

  /**
   * A cell per parameter, part of the state as "name.i": zeros of its shape and dtype, or what `make` gives; none where that is
   * null. Called where a subclass declares its fields.
   */
  protected cells(
    name: string,
    make: (p: Tensor, options: O) => Tensor | null = zerosFor,
  ): readonly Tensor[] {
    const cells = this.groups.flatMap(({ params, options }) => params.map((p) => make(p, options)));
    this.#cells.set(name, cells as Tensor[]);
    return cells as Tensor[];
  }

  /** @throws ArgumentError unless each group's options are as `expected` says. */
  protected require(expected: string, holds: (options: O, group: Group<O>) => boolean): void {
    const wrong = this.groups.find((group) => !holds(group.options, group));
    if (wrong)
      throw new ArgumentError(
        describe(this.constructor.name, expected, JSON.stringify(wrong.options)),
      );
  }

  /** As the option `decoupledWeightDecay` says. */
  protected decay({ decoupledWeightDecay }: O): Decay {
    return decoupledWeightDecay ? "decoupled" : "penalty";
  }

  /**
   * Prepares what a group's parameters share in this step, `count` [P] being the number of updates with this one. The
   * result gives the next value of each parameter and writes what it remembers.
   */
  protected abstract rule(group: Group<O>, count: Tensor, write: Write): Rule;

  #checkParameters(): void {
    const fail = (expected: string, got: string, hint?: string) =>
      new ArgumentError(describe(this.constructor.name, expected, got, hint));
    if (this.params.length === 0) throw fail("at least one parameter", "none");
    const frozen = this.params.find((p) => !(p instanceof Tensor) || !p.requiresGrad);
    if (frozen)
      throw fail(
        "tensors that require a gradient",
        String(frozen),
        "leave frozen parameters out: model.parameters().filter((p) => p.requiresGrad)",
      );
    if (new Set(this.params).size < this.params.length)
      throw fail("each parameter once", "one twice", "a tied parameter belongs to one group");
  }
}

/** Assigns the tensors of a state to the cells of the same names, all or none. */
export function loadCells(op: string, cells: ReadonlyMap<string, Tensor>, state: StateDict): void {
  const type = (t?: Tensor) => (t ? `${t.dtype}${formatShape(t.shape)}` : "nothing");
  const names = new Set([...cells.keys(), ...Object.keys(state)]);
  const wrong = [...names].filter((name) => {
    const [own, given] = [cells.get(name), Object.hasOwn(state, name) ? state[name] : undefined];
    return own?.dtype !== given?.dtype || !sameShape(own!.shape, given!.shape);
  });
  if (wrong.length > 0)
    throw new ArgumentError(
      describe(
        op,
        wrong.map((name) => `${name}: ${type(cells.get(name))}`).join(", "),
        wrong.map((name) => type(state[name])).join(", "),
      ),
    );
  noGrad(() => {
    for (const [name, cell] of cells) cell.assign(state[name]);
  });
}
