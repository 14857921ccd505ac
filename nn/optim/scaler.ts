/**
 * @file Dynamic loss scaling, as torch.amp.GradScaler: the loss is multiplied by a large number before `backward`, so that
 * gradients which are too small for f16 survive in it, and gradients are divided by it before the update. If one of them
 * overflowed, the update is skipped and the scale halved; after many good steps it is doubled.
 * Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740
 *
 * Scale, count and skipping are values on the device: nothing is read back, so a whole step can be compiled.
 */
import { ArgumentError, DTypeError, describe, TransformError } from "../../core/errors.ts";
import {
  type DeviceName,
  isfinite,
  noGrad,
  type Tensor,
  tensor,
  where,
  zeros,
} from "../../core/index.ts";
import { activeTrace, type Trace } from "../../core/trace.ts";
import type { StateDict } from "../module.ts";
import { loadCells, type Optimizer } from "./optimizer.ts";

export interface GradScalerOptions {
  /** 2¹⁶ by default. */
  readonly initScale?: number;
  /** What the scale is multiplied by after `growthInterval` steps without overflow; 2 by default. */
  readonly growthFactor?: number;
  /** What it is multiplied by after an overflow; ½ by default. */
  readonly backoffFactor?: number;
  /** 2000 by default. */
  readonly growthInterval?: number;
  /** false: `scale` returns the loss, `step` is the optimizer's, nothing else happens; for f32 and bf16. */
  readonly enabled?: boolean;
  /** Where the state is: the parameters' device. The default device unless given. */
  readonly device?: DeviceName;
}

/** What a step has done with an optimizer's gradients so far. */
interface Unscaled {
  /** 0-d bool: whether a gradient is infinite or NaN. */
  readonly found: Tensor;
  readonly trace: Trace | null;
  stepped: boolean;
}

/**
 *     scaler.scale(loss).backward();
 *     scaler.unscale(optimizer); // only to see or clip the gradients
 *     optim.clipGradNorm(model.parameters(), 1);
 *     scaler.step(optimizer);
 *     scaler.update();
 *
 * Compiled, `unscale`, `step` and `update` are called in one function; `scale(…).backward()` may be in others, for
 * accumulation.
 */
export class GradScaler {
  readonly enabled: boolean;
  /** 0-d; the scale now. */
  readonly factor: Tensor;
  /** 0-d, i32: steps without overflow since the scale last changed. */
  readonly growthTracker: Tensor;
  readonly #growthFactor: number;
  readonly #backoffFactor: number;
  readonly #growthInterval: number;
  /** Since the last `update`. */
  readonly #unscaled = new Map<Optimizer, Unscaled>();

  constructor(options: GradScalerOptions = {}) {
    const { initScale = 2 ** 16, growthFactor = 2, backoffFactor = 0.5 } = options;
    const { growthInterval = 2000, enabled = true, device } = options;
    const check = (holds: boolean, expected: string, got: number) => {
      if (!holds) throw new ArgumentError(describe("GradScaler", expected, `${got}`));
    };
    check(initScale > 0 && Number.isFinite(initScale), "a finite initScale > 0", initScale);
    check(growthFactor > 1, "growthFactor > 1", growthFactor);
    check(backoffFactor > 0 && backoffFactor < 1, "0 < backoffFactor < 1", backoffFactor);
    check(
      Number.isSafeInteger(growthInterval) && growthInterval > 0,
      "an integral growthInterval > 0",
      growthInterval,
    );
    this.enabled = enabled;
    this.factor = tensor(initScale, { device });
    this.growthTracker = zeros([], { dtype: "i32", device });
    this.#growthFactor = growthFactor;
    this.#backoffFactor = backoffFactor;
    this.#growthInterval = growthInterval;
  }

  /** The loss times the scale, in f32. */
  scale(loss: Tensor): Tensor {
    return this.enabled ? loss.float().mul(this.factor) : loss;
  }

  /** Divides the gradients of an optimizer's parameters by the scale. `step` does it unless it has been done. */
  unscale(optimizer: Optimizer): void {
    if (!this.enabled) return;
    if (this.#unscaled.has(optimizer))
      throw new ArgumentError(
        describe("unscale", "one call between updates", "another one", "call update() after step"),
      );
    const due = optimizer.params.filter((p) => p.grad);
    if (due.length === 0)
      throw new ArgumentError(
        describe("unscale", "an optimizer with gradients", "none", "call backward() first"),
      );
    const half = due.find((p) => p.dtype === "f16");
    if (half)
      throw new DTypeError(
        describe(
          "unscale",
          "gradients that do not lose digits when they are unscaled",
          `those of a parameter of ${String(half)}`,
          "keep parameters in f32: autocast casts them for each product",
        ),
      );
    noGrad(() => {
      const inverse = this.factor.reciprocal();
      for (const p of due) p.grad = p.grad!.mul(inverse);
      // In what is stored anyway: infinities and NaN are still there.
      const wrong = due.map(({ grad }) => isfinite(grad!).logicalNot().sum());
      const found = wrong.reduce((a, b) => a.add(b)).gt(0);
      this.#unscaled.set(optimizer, { found, trace: activeTrace(), stepped: false });
    });
  }

  /**
   * The optimizer's step, unless a gradient is infinite or NaN: then parameters, moments and counts stay as they are. The
   * result, 0-d bool, tells whether it was skipped.
   */
  step(optimizer: Optimizer): Tensor {
    if (!this.enabled) {
      optimizer.step();
      return zeros([], { dtype: "bool", device: this.factor.device });
    }
    if (!this.#unscaled.has(optimizer)) this.unscale(optimizer);
    const state = this.#unscaled.get(optimizer)!;
    this.#sameTrace("step", state);
    if (state.stepped)
      throw new ArgumentError(
        describe("step", "one call between updates", "another one", "call update() after step"),
      );
    state.stepped = true;
    optimizer.step({ skip: state.found });
    return state.found;
  }

  /** Changes the scale after the steps of all optimizers; to `newScale` if given. */
  update(newScale?: number | Tensor): void {
    if (!this.enabled) return;
    const states = [...this.#unscaled.values()];
    this.#unscaled.clear();
    noGrad(() => {
      if (newScale !== undefined) {
        const { device } = this.factor;
        this.factor.assign(typeof newScale === "number" ? tensor(newScale, { device }) : newScale);
        return;
      }
      if (states.length === 0)
        throw new ArgumentError(
          describe("update", "a step(optimizer) before", "none since the last update"),
        );
      for (const state of states) this.#sameTrace("update", state);
      const found = states.map((s) => s.found).reduce((a, b) => a.logicalOr(b));
      const good = this.growthTracker.add(1);
      const due = good.eq(this.#growthInterval);
      const larger = this.factor.mul(this.#growthFactor);
      // A scale that would become infinite stays.
      const grown = where(due.logicalAnd(isfinite(larger)), larger, this.factor);
      this.factor.assign(where(found, this.factor.mul(this.#backoffFactor), grown));
      this.growthTracker.assign(where(found.logicalOr(due), 0, good));
    });
  }

  /** The scale, when it is computed. Outside of compile. */
  async getScale(): Promise<number> {
    return this.enabled ? Number(await this.factor.item()) : 1;
  }

  /** What the scaler remembers, by name; nothing if it is not enabled. */
  *stateCells(): Generator<[string, Tensor]> {
    if (!this.enabled) return;
    yield ["scale", this.factor];
    yield ["growthTracker", this.growthTracker];
  }

  /** Scale and count at this moment. The other options are the constructor's to set. */
  stateDict(): StateDict {
    return Object.fromEntries([...this.stateCells()].map(([name, t]) => [name, t.detach()]));
  }

  /** @throws ArgumentError that lists whatever is missing, unexpected or of another shape; then nothing changes. */
  loadStateDict(state: StateDict): void {
    loadCells("GradScaler.loadStateDict", new Map(this.stateCells()), state);
  }

  /** What one trace has unscaled another one cannot use: at a replay it would not exist. */
  #sameTrace(op: string, { trace }: Unscaled): void {
    if (trace === activeTrace()) return;
    this.#unscaled.clear();
    throw new TransformError(
      describe(
        op,
        "unscale, step and update in one compiled function, or all outside",
        "gradients that were unscaled elsewhere",
      ),
    );
  }
}
