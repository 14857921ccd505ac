/**
 * @file Mixture of experts (Shazeer et al., https://arxiv.org/abs/1701.06538): a block's
 * feed-forward layer as E gated MLPs (SwiGLUs), of which each token goes through k.
 *
 * Decides: which experts a token takes and with which weights (top-k of a softmax, as GShard,
 * https://arxiv.org/abs/2006.16668, and Mixtral, https://arxiv.org/abs/2401.04088), how the tokens
 * are brought to them, and the two losses that keep the router balanced and its logits small. Where
 * such layers stand is the decoder's matter.
 *
 * Shapes are static, so the tokens of an expert cannot be a matrix of just their number. They stand
 * in blocks of rows, each of one expert, and the products are batched over the blocks: what that
 * costs grows with the active experts S·k, not with S·E. With a capacity C there is one block of
 * G·C rows per expert, and a token that finds its expert full is passed over. Without one no token
 * is dropped: blocks are small, an expert has as many as it needs, and there are as many as the
 * worst case needs, of at most twice the active rows. Where there are no more choices than experts
 * (decoding) each is a block of one row, and only the weights of chosen experts are read.
 *
 * Tokens compete for an expert's places within their sequence only, and padding has no part in it:
 * what a sequence gets depends neither on its neighbours in the batch nor on how far it is filled
 * up.
 *
 * Shape letters: G sequences (GShard's groups) of T tokens, S = G·T tokens in all, D width, H
 * hidden width, E experts, k of them per token, N blocks of R rows.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import {
  arange,
  autocast,
  cat,
  oneHot,
  type Tensor,
  tensor,
  where,
  zeros,
} from "../../core/index.ts";
import { init, Linear, Module } from "../../nn/index.ts";
import { staysFloat } from "../../nn/quantized.ts";

export interface ExpertsConfig {
  /** E */
  readonly count: number;
  /** k; 2 unless given. */
  readonly perToken?: number;
  /** Every n-th block has experts, the last of each n: 1 (all blocks) unless given. */
  readonly every?: number;
  /**
   * An expert takes at most max(1, ⌊n · this / E⌋) of a sequence's n tokens (padding is none of
   * them; the examples of a packed row are one sequence), all first choices before any second one;
   * GShard's is 2, in training and evaluation. Tokens beyond get nothing from it, and the weights
   * of their others stay. No limit unless given.
   *
   * With a cache n counts the tokens of the pass: a prompt's scores are those of a pass over it
   * without a cache, and a token that comes alone always finds a place. A pass over prompt and
   * continuation at once may drop one more token or one less, because its n is larger and because
   * first choices of later tokens go before second ones of earlier tokens; without drops both are
   * equal.
   */
  readonly capacityFactor?: number;
  /**
   * What the load-balance loss counts: "first" choices, per layer (GShard), which is the default;
   * or "all" choices, the tokens of all layers together (Mixtral).
   */
  readonly balance?: "first" | "all";
  /** The factor of the load-balance loss; 0.01, MM1's, unless given. */
  readonly balanceWeight?: number;
  /**
   * The factor of the router's z-loss (https://arxiv.org/abs/2202.08906); 0 unless given, MM1's is
   * 0.001.
   */
  readonly zWeight?: number;
}

/**
 * The experts that each token takes [S, k], the likeliest first, and their weights [S, k], which
 * sum to 1. Of logits [S, E].
 */
export function topExperts(logits: Tensor, k: number): { experts: Tensor; weights: Tensor } {
  const { values, indices } = logits.float().softmax(-1).topk(k, -1);
  return { experts: indices, weights: values.div(values.sum(-1, true)) };
}

/**
 * Where the choices stand among the experts' blocks. J = G·k·T choices: of each sequence all first
 * ones, then all second ones, …
 */
export interface Dispatch {
  /** Rows per block. */
  readonly rows: number;
  /** The expert of each block [N]; null if block e is expert e's. */
  readonly owners: Tensor | null;
  /** The token in each row [N·R]; rows that nobody has taken name token 0. */
  readonly tokens: Tensor;
  /** The row of each choice [J]; 0 for one that was dropped. */
  readonly places: Tensor;
  /** Which choices count [J]; null if all do. */
  readonly kept: Tensor | null;
}

/** How many tokens of a sequence an expert takes. */
export interface Limit {
  /** C */
  readonly most: number;
  /** Of each sequence [G], none above C; C unless given. */
  readonly each?: Tensor;
  /** Which tokens are no padding [G, T] bool: the others take no place. All unless given. */
  readonly real?: Tensor;
}

/** Gives choices [G, T, k] of E experts their rows. `limit` null: as many as needed. */
export function dispatch(experts: Tensor, E: number, limit: Limit | null): Dispatch {
  const [G, T, k] = experts.shape;
  const J = G * k * T;
  const choice = experts.transpose(1, 2).reshape([J]);
  const token = arange(G * T)
    .reshape([G, 1, T])
    .expand([G, k, T])
    .reshape([J]);
  const hot = oneHot(choice, E); // [J, E]
  const within = limit && placesWithin(hot.reshape([G, k, T, E]), limit);
  const kept = within?.kept.reshape([J]) ?? null;
  // No more choices than experts, as in decoding: each is a block of its own, and the other experts
  // are not touched.
  if (J <= E) return { rows: 1, owners: choice, tokens: token, places: arange(J), kept };
  const rowsOf = (place: Tensor, count: number) =>
    zeros([count], { dtype: "i32" }).scatterAdd(0, place, token); // Places differ: nothing adds up.
  const rows = Math.ceil(J / E);
  // Every expert that is taken at all may have one block that is not full.
  const blocks = Math.floor((J + Math.min(E, J) * (rows - 1)) / rows);
  // With very many experts a row for each of them and each sequence would be more than the choices
  // need.
  if (within && limit && E * G * limit.most <= blocks * rows) {
    const own = arange(G).unsqueeze(1).mul(limit.most).add(within.rank); // [G, k·T]
    const place = choice.mul(G * limit.most).add(own.reshape([J]));
    const count = E * G * limit.most;
    const tokens = rowsOf(where(kept!, place, count), count + 1).narrow(0, 0, count);
    const places = where(kept!, place, 0);
    return { rows: G * limit.most, owners: null, tokens, places, kept };
  }
  const ends = hot
    .sum(0)
    .add(rows - 1)
    .div(rows, { roundingMode: "floor" })
    .cumsum(0); // [E], in blocks
  const starts = cat([zeros([1], { dtype: "i32" }), ends.narrow(0, 0, E - 1)]);
  const places = starts.gather(0, choice).mul(rows).add(ranksOf(hot, 0));
  // Blocks that nobody has taken are the last expert's; nobody reads what it makes of them.
  const owners = arange(blocks)
    .unsqueeze(1)
    .ge(ends)
    .sum(1)
    .clamp(0, E - 1);
  return { rows, owners, tokens: rowsOf(places, blocks * rows), places, kept };
}

/**
 * Of choices one-hot [..., J, E], J at `dim`: how many before each took its expert, [..., J]; −1
 * for rows of zeros.
 */
const ranksOf = (hot: Tensor, dim: number): Tensor => hot.cumsum(dim).mul(hot).sum(-1).sub(1);

/**
 * Of choices one-hot [G, k, T, E]: the rank of each at its expert within the sequence, and who
 * finds a place, both [G, k·T].
 */
function placesWithin(hot: Tensor, { most, each, real }: Limit): { rank: Tensor; kept: Tensor } {
  const [G, k, T, E] = hot.shape;
  const counted = real ? hot.mul(real.int().reshape([G, 1, T, 1])) : hot;
  const rank = ranksOf(counted.reshape([G, k * T, E]), 1);
  const kept = rank.lt(each ? each.unsqueeze(1) : most);
  return { rank, kept: real ? kept.logicalAnd(rank.ge(0)) : kept };
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
  readonly activation: (x: Tensor) => Tensor;

  /** `activation`: SiLU unless given. */
  constructor(
    width: number,
    hidden: number,
    config: ExpertsConfig,
    activation: (x: Tensor) => Tensor = (x) => x.silu(),
  ) {
    super();
    const { count, perToken = 2, capacityFactor } = config;
    if (!(Number.isInteger(perToken) && perToken >= 1 && perToken <= count))
      throw new ArgumentError(
        describe("MixtureOfExperts", `perToken in 1 … ${count}`, `${perToken}`),
      );
    this.perToken = perToken;
    this.activation = activation;
    this.capacityFactor = capacityFactor ?? null;
    this.router = staysFloat(new Linear(width, count, { bias: false }));
    // As the linear layers of a SwiGLU: uniform within ±1/√in.
    const weight = (out: number, from: number) => init.kaimingUniform([count, out, from], from);
    this.gate = weight(hidden, width);
    this.up = weight(hidden, width);
    this.down = weight(width, hidden);
  }

  /**
   * Tokens [..., T, D] → the weighted sum of their experts [..., T, D], and the router's logits [S,
   * E] for the losses. `real` [..., T] bool: false for padding, which takes no expert's place where
   * those are limited.
   */
  forward(x: Tensor, real: Tensor | null = null): [output: Tensor, routerLogits: Tensor] {
    const [T, D] = [1, ...x.shape].slice(-2);
    const E = this.router.outFeatures;
    const k = this.perToken;
    const flat = x.reshape([-1, D]); // [S, D]
    const G = x.shape.slice(0, -2).reduce((a, b) => a * b, 1);
    // In halves close calls between experts would be decided by rounding.
    const logits = autocast({ enabled: false }, () => this.router.forward(flat).float());
    const { experts, weights } = topExperts(logits, k);
    const limit = this.#limit([G, T], real);
    const { rows, owners, tokens, places, kept } = dispatch(experts.reshape([G, T, k]), E, limit);
    const inputs = flat.indexSelect(0, tokens).reshape([-1, rows, D]); // [N, R, D]
    const product = (x: Tensor, w: Tensor) => {
      const own = owners ? w.indexSelect(0, owners) : w;
      // Vectors: a sum of products reads the weights where they are, while a matrix product would
      // copy them first.
      return rows === 1 && owners
        ? own.mul(x).sum(-1).unsqueeze(1)
        : x.matmul(own.transpose(-2, -1));
    };
    const hidden = this.activation(product(inputs, this.gate)).mul(product(inputs, this.up));
    const outputs = product(hidden, this.down).reshape([-1, D]); // [N·R, D]
    const share = weights.reshape([G, T, k]).transpose(1, 2).reshape([-1]); // [J]
    const seen = kept ? where(kept, share, 0) : share;
    const summed = outputs
      .indexSelect(0, places)
      .mul(seen.to(outputs.dtype).unsqueeze(1))
      .reshape([G, k, T, D])
      .sum(1);
    return [summed.reshape(x.shape), logits];
  }

  #limit([G, T]: readonly [number, number], real: Tensor | null): Limit | null {
    const factor = this.capacityFactor;
    if (factor === null) return null;
    const of = (n: number) => Math.max(1, Math.floor((n * factor) / this.router.outFeatures));
    const most = of(T);
    // A token takes an expert once: there is room for all.
    if (most >= T) return null;
    if (!real) return { most };
    const own = real.reshape([G, T]);
    // A table, because a quotient that the device has rounded might not be the one of a pass
    // without padding.
    const table = tensor(
      Int32Array.from({ length: T + 1 }, (_, n) => of(n)),
      { device: own.device },
    );
    return { most, each: table.indexSelect(0, own.int().sum(1)), real: own };
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
 * E · Σₑ fₑ Pₑ over experts: fₑ the share of tokens that choose e (among their first `choices`), Pₑ
 * its mean probability. `choices` if balanced. Only P has a gradient. `mask` [S] (true: counts)
 * leaves padding out.
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
 * Both losses with their weights, of the router logits [S, E] of all sparse layers. Where they are
 * counted per layer, it is the mean over the layers that counts, so that the weights need not
 * follow the depth.
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
