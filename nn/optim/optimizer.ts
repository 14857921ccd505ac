/**
 * @file What optimizers share: groups of parameters with their options, the learning rates and the step counts as cells on
 * the device (so that a compiled step reads them anew at each replay), clearing gradients, and the state dict.
 *
 * Everything that an optimizer remembers is created in its constructor: a compiled step may change state, but it may
 * not make any. Each update is written as one element-wise expression per parameter, gradient in, parameter and
 * moments out, so that it becomes one kernel.
 */

import { ArgumentError, describe } from "../../core/errors.ts";
import { noGrad, Tensor, tensor, where, zeros } from "../../core/index.ts";
import { formatShape, sameShape } from "../../core/shape.ts";
import type { StateDict } from "../module.ts";

/** Parameters with options of their own, as PyTorch's; what is left out is as the optimizer's options say. */
export type ParamGroup<O> = Partial<O> & { readonly params: Iterable<Tensor> };

export interface Group<O> {
  readonly params: readonly Tensor[];
  /** The position of its first parameter among all. */
  readonly first: number;
  readonly options: O;
  /** 0-d. */
  readonly lr: Tensor;
}

/**
 * Gives a cell of the step its next value; every change that an update makes goes through it. What it returns is that
 * value: an update that goes on with it remains one kernel, also where steps may be skipped.
 */
export type Write = (cell: Tensor, value: Tensor) => Tensor;

export interface StepOptions {
  /** 0-d bool: where it is true nothing changes, neither parameters nor moments nor counts. `GradScaler` passes it. */
  readonly skip?: Tensor;
}

export abstract class Optimizer<O extends { readonly lr: number } = { readonly lr: number }> {
  readonly groups: readonly Group<O>[];
  /** Of all groups. */
  readonly params: readonly Tensor[];
  /** [P]: updates made so far, per parameter: one that is unfrozen late starts its own count. */
  readonly steps: Tensor;

  /** `options` are complete. */
  constructor(params: Iterable<Tensor> | Iterable<ParamGroup<O>>, options: O) {
    const items: (Tensor | ParamGroup<O>)[] = [...params];
    const grouped = items.length > 0 && items.every((x) => !(x instanceof Tensor) && x?.params);
    const parts = (grouped ? items : [{ params: items }]) as ParamGroup<O>[];
    const lists = parts.map((part) => [...part.params]);
    this.params = lists.flat();
    this.#checkParameters();
    const { device } = this.params[0];
    let first = 0;
    this.groups = parts.map(({ params: _, ...own }, g) => {
      const all = { ...options, ...own } as unknown as O;
      if (!(all.lr >= 0))
        throw new ArgumentError(describe(this.constructor.name, "lr ≥ 0", `${all.lr}`));
      const lr = tensor(all.lr, { device });
      const group = { params: lists[g], first, options: all, lr };
      first += lists[g].length;
      return group;
    });
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
      group.lr.assign(tensor(rate, { device: group.lr.device }));
    }
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
      for (const group of this.groups) {
        const update = this.updater(group, count, write);
        group.params.forEach((p, i) => {
          if (p.grad) update(p, p.grad, group.first + i);
        });
      }
    });
  }

  /** What a step reads and changes besides the parameters, by name: moments are "name.i" for parameter i. */
  *stateCells(): Generator<[string, Tensor]> {
    yield ["steps", this.steps];
    for (const [i, group] of this.groups.entries()) yield [`lr.${i}`, group.lr];
    for (const [name, cells] of Object.entries(this.moments()))
      for (const [i, cell] of cells.entries()) yield [`${name}.${i}`, cell];
  }

  /** Step counts, learning rates and moments at this moment. The other options are the constructor's to set. */
  stateDict(): StateDict {
    return Object.fromEntries([...this.stateCells()].map(([name, t]) => [name, t.detach()]));
  }

  /** @throws ArgumentError that lists whatever is missing, unexpected or of another shape; then nothing changes. */
  loadStateDict(state: StateDict): void {
    loadCells(`${this.constructor.name}.loadStateDict`, new Map(this.stateCells()), state);
  }

  /** Cells per parameter, by name: a list as long as `params`, or empty. */
  protected abstract moments(): Readonly<Record<string, readonly Tensor[]>>;

  /**
   * Prepares what a group's parameters share in this step, `count` [P] being the number of updates with this one; the
   * result updates parameter i of all from its gradient, by `write`.
   */
  protected abstract updater(
    group: Group<O>,
    count: Tensor,
    write: Write,
  ): (p: Tensor, grad: Tensor, i: number) => void;

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

/** Element i of a vector, 0-d. */
export const elementOf = (vector: Tensor, i: number): Tensor => vector.narrow(0, i, 1).reshape([]);

/**
 * 1 − βᵗ for t ≥ 1, without the cancellation that loses four digits for β = 0.999 and t = 1:
 * 1 − eʸ = −2h / (1 − h) with h = tanh(y / 2), y = t · ln β.
 */
export function biasCorrection(beta: number, t: Tensor): Tensor {
  if (beta === 0) return t.mul(0).add(1);
  const h = t.mul(Math.log(beta) / 2).tanh();
  return h.mul(-2).div(h.neg().add(1));
}

export function checkFraction(op: string, name: string, value: number): void {
  if (!(value >= 0 && value < 1))
    throw new ArgumentError(describe(op, `0 ≤ ${name} < 1`, `${value}`));
}
