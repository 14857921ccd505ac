/**
 * @file Dropout (https://jmlr.org/papers/v15/srivastava14a.html) and its kin as modules: what is dropped together is an
 * element, a channel or an example, and what takes its place is 0 or the value at which SELU saturates. All are the
 * identity in evaluation and for p = 0; masks are drawn from the global generator.
 */
import { ArgumentError, describe } from "../core/errors.ts";
import {
  alphaDropout,
  bernoulli,
  dropout,
  dropout1d,
  dropout2d,
  dropout3d,
  featureAlphaDropout,
  full,
  type Tensor,
} from "../core/index.ts";
import { Module } from "./module.ts";

abstract class DropoutBase extends Module {
  readonly p: number;

  constructor(p = 0.5) {
    super();
    if (!(p >= 0 && p <= 1))
      throw new ArgumentError(describe(this.constructor.name, "p within 0 … 1", `${p}`));
    this.p = p;
  }

  forward(x: Tensor): Tensor {
    return this.p > 0 && this.training ? this.dropped(x) : x;
  }

  protected abstract dropped(x: Tensor): Tensor;
}

/** While training, zeroes each element with probability p and scales the others by 1 / (1 − p). */
export class Dropout extends DropoutBase {
  protected dropped(x: Tensor): Tensor {
    return dropout(x, this.p);
  }
}

/** While training, zeroes each channel of x [N, C, L] or [C, L] with probability p and scales the others by 1 / (1 − p). */
export class Dropout1d extends DropoutBase {
  protected dropped(x: Tensor): Tensor {
    return dropout1d(x, this.p);
  }
}

/** As Dropout1d, of x [N, C, H, W]; three axes are [N, C, L], as in PyTorch. */
export class Dropout2d extends DropoutBase {
  protected dropped(x: Tensor): Tensor {
    return dropout2d(x, this.p);
  }
}

/** As Dropout1d, of x [N, C, D, H, W] or [C, D, H, W]. */
export class Dropout3d extends DropoutBase {
  protected dropped(x: Tensor): Tensor {
    return dropout3d(x, this.p);
  }
}

/**
 * For networks of SELU: drops to SELU's limit instead of 0, and then scales and shifts such that mean 0 and variance 1 stay.
 * https://arxiv.org/abs/1706.02515
 */
export class AlphaDropout extends DropoutBase {
  protected dropped(x: Tensor): Tensor {
    return alphaDropout(x, this.p, { training: true });
  }
}

/** AlphaDropout of whole channels of x [N, C, S…]. */
export class FeatureAlphaDropout extends DropoutBase {
  protected dropped(x: Tensor): Tensor {
    return featureAlphaDropout(x, this.p, { training: true });
  }
}

/**
 * Stochastic depth (https://arxiv.org/abs/1603.09382): while training, zeroes whole examples of x [N, …] with probability
 * p, before a residual connection, and scales the others by 1 / (1 − p) unless `scaleByKeep: false`. timm's DropPath.
 */
export class DropPath extends DropoutBase {
  readonly scaleByKeep: boolean;

  constructor(p = 0, options: { readonly scaleByKeep?: boolean } = {}) {
    super(p);
    this.scaleByKeep = options.scaleByKeep ?? true;
  }

  protected dropped(x: Tensor): Tensor {
    const { p, scaleByKeep } = this;
    const keep = bernoulli(full([x.shape[0], ...x.shape.slice(1).map(() => 1)], 1 - p));
    const scale = scaleByKeep && p < 1 ? 1 / (1 - p) : 1;
    return x.mul(keep.mul(scale).to(x.dtype));
  }
}
