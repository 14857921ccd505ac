/**
 * @file Adam (https://arxiv.org/abs/1412.6980) and AdamW (https://arxiv.org/abs/1711.05101), as in torch.optim.
 */
import { type Tensor, zeros } from "../../core/index.ts";
import {
  biasCorrection,
  checkFraction,
  elementOf,
  type Group,
  Optimizer,
  type ParamGroup,
  type Write,
} from "./optimizer.ts";

export interface AdamOptions {
  readonly lr?: number;
  readonly betas?: readonly [number, number];
  readonly eps?: number;
  readonly weightDecay?: number;
}

type Complete = Required<AdamOptions>;

/** Weight decay is an L2 penalty on the loss: it passes through the moments. */
export class Adam extends Optimizer<Complete> {
  /** Of groups that set none of their own. */
  readonly options: Complete;
  /** Running means of the gradient and of its square, per parameter. */
  readonly mean: readonly Tensor[];
  readonly square: readonly Tensor[];
  /** AdamW: weights shrink by lr · weightDecay instead. */
  protected readonly decoupled: boolean = false;

  constructor(
    params: Iterable<Tensor> | Iterable<ParamGroup<AdamOptions>>,
    options: AdamOptions = {},
  ) {
    const all = { lr: 1e-3, betas: [0.9, 0.999] as const, eps: 1e-8, weightDecay: 0, ...options };
    super(params, all);
    this.options = all;
    for (const { betas } of this.groups.map((group) => group.options)) {
      checkFraction(new.target.name, "betas[0]", betas[0]);
      checkFraction(new.target.name, "betas[1]", betas[1]);
    }
    const like = (p: Tensor) => zeros(p.shape, { dtype: p.dtype, device: p.device });
    this.mean = this.params.map(like);
    this.square = this.params.map(like);
  }

  protected moments() {
    return { mean: this.mean, square: this.square };
  }

  protected updater({ options, lr }: Group<Complete>, count: Tensor, write: Write) {
    const { betas, eps, weightDecay } = options;
    const [beta1, beta2] = betas;
    const correction1 = biasCorrection(beta1, count);
    const correction2 = biasCorrection(beta2, count);
    const rate = lr.div(correction1);
    const keep = lr.mul(-weightDecay).add(1); // 1 − lr · weightDecay
    return (p: Tensor, grad: Tensor, i: number) => {
      // Halves are updated in f32; assigning rounds them, once.
      const [w, raw] = [p.float(), grad.float()];
      const g = weightDecay > 0 && !this.decoupled ? raw.add(w.mul(weightDecay)) : raw;
      const [before, squareBefore] = [this.mean[i].float(), this.square[i].float()];
      const m = write(this.mean[i], before.mul(beta1).add(g.mul(1 - beta1)));
      const v = write(this.square[i], squareBefore.mul(beta2).add(g.mul(g).mul(1 - beta2)));
      const kept = weightDecay > 0 && this.decoupled ? w.mul(keep) : w;
      const denominator = v.div(elementOf(correction2, i)).sqrt().add(eps);
      write(p, kept.sub(m.mul(elementOf(rate, i)).div(denominator)));
    };
  }
}

/** Adam with decoupled weight decay (default 0.01). */
export class AdamW extends Adam {
  protected override readonly decoupled = true;

  constructor(
    params: Iterable<Tensor> | Iterable<ParamGroup<AdamOptions>>,
    options: AdamOptions = {},
  ) {
    super(params, { weightDecay: 0.01, ...options });
  }
}
