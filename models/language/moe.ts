/**
 * @file Mixture of experts (Shazeer et al., https://arxiv.org/abs/1701.06538): a block's feed-forward layer as
 * E SwiGLUs, of which each token goes through k.
 *
 * Decides: which experts a token takes and with which weights (top-k of a softmax, as GShard,
 * https://arxiv.org/abs/2006.16668, and Mixtral, https://arxiv.org/abs/2401.04088), how the tokens are brought
 * to them, and the two losses that keep the router balanced and its logits small. Where such layers stand is
 * the decoder's matter.
 *
 * Shapes are static, so the tokens of an expert cannot be a matrix of just their number. They stand in blocks
 * of rows, each of one expert, and the products are batched over the blocks: what that costs grows with the
 * active experts S·k, not with S·E. With a capacity C there is one block of C rows per expert, and a token that
 * finds its expert full is passed over. Without one no token is dropped: blocks are small, an expert has as
 * many as it needs, and there are as many as the worst case needs, of at most twice the active rows.
 *
 * Shape letters: S tokens, D width, H hidden width, E experts, k of them per token, N blocks of R rows.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { arange, autocast, cat, oneHot, type Tensor, where, zeros } from "../../core/index.ts";
import { init, Linear, Module } from "../../nn/index.ts";

export interface ExpertsConfig {
  /** E */
  readonly count: number;
  /** k; 2 unless given. */
  readonly perToken?: number;
  /** Every n-th block has experts, the last of each n: 1 (all blocks) unless given. */
  readonly every?: number;
  /**
   * An expert takes at most max(1, ⌊S · this / E⌋) tokens of a call, all first choices before any second one;
   * GShard's is 2. Tokens beyond get nothing from it, and the weights of their others stay. No limit unless
   * given.
   */
  readonly capacityFactor?: number;
  /**
   * What the load-balance loss counts: "first" choices, per layer (GShard), which is the default; or "all"
   * choices, the tokens of all layers together (Mixtral).
   */
  readonly balance?: "first" | "all";
  /** The factor of the load-balance loss; 0.01, MM1's, unless given. */
  readonly balanceWeight?: number;
  /** The factor of the router's z-loss (https://arxiv.org/abs/2202.08906); 0 unless given, MM1's is 0.001. */
  readonly zWeight?: number;
}

/**
 * The experts that each token takes [S, k], the likeliest first, and their weights [S, k], which sum to 1. Of
 * logits [S, E].
 */
export function topExperts(logits: Tensor, k: number): { experts: Tensor; weights: Tensor } {
  const { values, indices } = logits.float().softmax(-1).topk(k, -1);
  return { experts: indices, weights: values.div(values.sum(-1, true)) };
}

/** Where the choices stand among the experts' blocks. J = k·S choices: all first ones, then all second ones, … */
export interface Dispatch {
  /** Rows per block. */
  readonly rows: number;
  /** The expert of each block [N]; null if block e is expert e's. */
  readonly owners: Tensor | null;
  /** The token in each row [N·R]; rows that nobody has taken name token 0. */
  readonly tokens: Tensor;
  /** The row of each choice [J]; 0 for one that was dropped. */
  readonly places: Tensor;
  /** Which choices have a row [J]; null if all have one. */
  readonly kept: Tensor | null;
}

/** Gives choices [S, k] of E experts their rows. `capacity`: the rows of an expert; null: as many as needed. */
export function dispatch(experts: Tensor, E: number, capacity: number | null): Dispatch {
  const [S, k] = experts.shape;
  const J = S * k;
  const choice = experts.transpose(0, 1).reshape([J]);
  const hot = oneHot(choice, E); // [J, E]
  const rank = hot.cumsum(0).mul(hot).sum(1).sub(1); // [J]: how many took this expert before
  const token = arange(J).remainder(S);
  const rowsOf = (place: Tensor, count: number) =>
    zeros([count], { dtype: "i32" }).scatterAdd(0, place, token); // Places differ: nothing adds up.
  if (capacity !== null) {
    const kept = rank.lt(capacity);
    const place = choice.mul(capacity).add(rank);
    const count = E * capacity;
    const tokens = rowsOf(where(kept, place, count), count + 1).narrow(0, 0, count);
    return { rows: capacity, owners: null, tokens, places: where(kept, place, 0), kept };
  }
  const rows = Math.ceil(J / E);
  // Every expert that is taken at all may have one block that is not full.
  const blocks = Math.floor((J + Math.min(E, J) * (rows - 1)) / rows);
  const ends = hot
    .sum(0)
    .add(rows - 1)
    .div(rows, { roundingMode: "floor" })
    .cumsum(0); // [E], in blocks
  const starts = cat([zeros([1], { dtype: "i32" }), ends.narrow(0, 0, E - 1)]);
  const places = starts.gather(0, choice).mul(rows).add(rank);
  // Blocks that nobody has taken are the last expert's; nobody reads what it makes of them.
  const owners = arange(blocks)
    .unsqueeze(1)
    .ge(ends)
    .sum(1)
    .clamp(0, E - 1);
  return { rows, owners, tokens: rowsOf(places, blocks * rows), places, kept: null };
}

export class MixtureOfExperts extends Module {
  /** [E, D] */
  router: Linear;
  /** [E, H, D] */
  gate: Tensor;
  up: Tensor;
  /** [E, D, H] */
  down: Tensor;
  readonly perToken: number;
  readonly capacityFactor: number | null;

  constructor(width: number, hidden: number, config: ExpertsConfig) {
    super();
    const { count, perToken = 2, capacityFactor } = config;
    if (!(Number.isInteger(perToken) && perToken >= 1 && perToken <= count))
      throw new ArgumentError(
        describe("MixtureOfExperts", `perToken in 1 … ${count}`, `${perToken}`),
      );
    this.perToken = perToken;
    this.capacityFactor = capacityFactor ?? null;
    this.router = new Linear(width, count, { bias: false });
    // As the linear layers of a SwiGLU: uniform within ±1/√in.
    const weight = (out: number, from: number) => init.kaimingUniform([count, out, from], from);
    this.gate = weight(hidden, width);
    this.up = weight(hidden, width);
    this.down = weight(width, hidden);
  }

  /** Tokens [..., D] → the weighted sum of their experts [..., D], and the router's logits [S, E] for the losses. */
  forward(x: Tensor): [output: Tensor, routerLogits: Tensor] {
    const D = x.shape.at(-1)!;
    const E = this.router.outFeatures;
    const flat = x.reshape([-1, D]); // [S, D]
    const S = flat.shape[0];
    // In halves close calls between experts would be decided by rounding.
    const logits = autocast({ enabled: false }, () => this.router.forward(flat).float());
    const { experts, weights } = topExperts(logits, this.perToken);
    const factor = this.capacityFactor;
    const capacity = factor === null ? null : Math.max(1, Math.floor((S * factor) / E));
    const { rows, owners, tokens, places, kept } = dispatch(experts, E, capacity);
    const own = (w: Tensor) => (owners ? w.indexSelect(0, owners) : w).transpose(-2, -1);
    const inputs = flat.indexSelect(0, tokens).reshape([-1, rows, D]); // [N, R, D]
    const hidden = inputs
      .matmul(own(this.gate))
      .silu()
      .mul(inputs.matmul(own(this.up)));
    const outputs = hidden.matmul(own(this.down)).reshape([-1, D]); // [N·R, D]
    const share = weights.transpose(0, 1).reshape([-1]); // [J]
    const seen = kept ? where(kept, share, 0) : share;
    const summed = outputs
      .indexSelect(0, places)
      .mul(seen.to(outputs.dtype).unsqueeze(1))
      .reshape([this.perToken, S, D])
      .sum(0);
    return [summed.reshape(x.shape), logits];
  }
}

/** The mean over the first axis, of the rows that `mask` [S] marks. */
function meanOf(x: Tensor, mask: Tensor | null): Tensor {
  if (!mask) return x.mean(0);
  const m = mask.float();
  return x
    .mul(m.reshape([-1, ...new Array<number>(x.ndim - 1).fill(1)]))
    .sum(0)
    .div(m.sum());
}

/**
 * E · Σₑ fₑ Pₑ over experts: fₑ the share of tokens that choose e (among their first `choices`), Pₑ its mean
 * probability. `choices` if balanced. Only P has a gradient. `mask` [S] (true: counts) leaves padding out.
 */
export function loadBalanceLoss(
  logits: Tensor,
  choices: number,
  mask: Tensor | null = null,
): Tensor {
  const E = logits.shape.at(-1)!;
  const p = logits.float().softmax(-1); // [S, E]
  const chosen = oneHot(p.topk(choices, -1).indices, E).sum(1).float();
  return meanOf(chosen, mask).mul(meanOf(p, mask)).sum().mul(E);
}

/** mean (log Σₑ exp logitₑ)² over tokens: keeps the router's logits small. */
export const routerZLoss = (logits: Tensor, mask: Tensor | null = null): Tensor =>
  meanOf(logits.float().logsumexp(-1).square(), mask);

/**
 * Both losses with their weights, of the router logits [S, E] of all sparse layers. Where they are counted per
 * layer, it is the mean over the layers that counts, so that the weights need not follow the depth.
 */
export function routerLoss(
  routerLogits: readonly Tensor[],
  config: ExpertsConfig,
  mask: Tensor | null = null,
): Tensor {
  const { balance = "first", balanceWeight = 0.01, zWeight = 0, perToken = 2 } = config;
  const layers = routerLogits.length;
  const mean = (of: (logits: Tensor) => Tensor) =>
    routerLogits
      .map(of)
      .reduce((a, b) => a.add(b))
      .div(layers);
  const balanced =
    balance === "all"
      ? loadBalanceLoss(cat(routerLogits), perToken, mask && cat(routerLogits.map(() => mask)))
      : mean((logits) => loadBalanceLoss(logits, 1, mask));
  const loss = balanced.mul(balanceWeight);
  return zWeight === 0 ? loss : loss.add(mean((l) => routerZLoss(l, mask)).mul(zWeight));
}
