/**
 * @file Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): a frozen Linear layer and a trained product of two thin
 * matrices beside it. Decides what is trained and what a file of adapters contains. The layer may be quantised (QLoRA, arXiv
 * 2305.14314).
 */
import { ArgumentError, describe, TransformError } from "../core/errors.ts";
import { isGradEnabled, linear, noGrad, type Tensor } from "../core/index.ts";
import { activeTrace, traceGuard } from "../core/trace.ts";
import { positive } from "./checks.ts";
import { Dropout } from "./dropout.ts";
import { kaimingUniform, zeros } from "./init.ts";
import { Linear } from "./linear.ts";
import { Module, type StateDict } from "./module.ts";
import { QuantizedLinear } from "./quantized.ts";
import { replaceLayers, type Targets } from "./replace.ts";

export interface LoraOptions {
  /** r, the inner width of the product; 8 unless given. */
  readonly rank?: number;
  /** The product counts alpha / rank times; 8 unless given. */
  readonly alpha?: number;
  /** The probability with which an input of the product is dropped while training. */
  readonly dropout?: number;
}

/** base(x) + alpha/r · (dropout(x) Aᵀ) Bᵀ: [..., in] → [..., out]. B is 0 at first, so nothing changes before training. */
export class LoRALinear extends Module {
  /** The layer that was there, frozen. */
  readonly base: Linear | QuantizedLinear;
  /** A [r, in] */
  readonly loraA: Tensor;
  /** B [out, r] */
  readonly loraB: Tensor;
  readonly dropout: Dropout;
  readonly rank: number;
  readonly alpha: number;
  #merged = false;

  constructor(base: Linear | QuantizedLinear, options: LoraOptions = {}) {
    super();
    const { rank = 8, alpha = 8, dropout = 0 } = options;
    positive("LoRALinear", { rank });
    this.base = base;
    base.requiresGrad_(false);
    this.loraA = kaimingUniform([rank, base.inFeatures], base.inFeatures);
    this.loraB = zeros([base.outFeatures, rank]);
    this.dropout = new Dropout(dropout);
    this.rank = rank;
    this.alpha = alpha;
  }

  get inFeatures(): number {
    return this.base.inFeatures;
  }

  get outFeatures(): number {
    return this.base.outFeatures;
  }

  /** Whether the base's weight contains the product. */
  get merged(): boolean {
    const merged = this.#merged;
    traceGuard(() => this.#merged === merged);
    return merged;
  }

  forward(x: Tensor): Tensor {
    return this.#adapted(this.base.forward(x), x, this.loraB);
  }

  /** Only the features start … start + count − 1 of the result. */
  part(x: Tensor, start: number, count: number): Tensor {
    return this.#adapted(this.base.part(x, start, count), x, this.loraB.narrow(0, start, count));
  }

  #adapted(y: Tensor, x: Tensor, b: Tensor): Tensor {
    if (!this.merged) {
      const inner = linear(this.dropout.forward(x).to(b.dtype), this.loraA);
      return y.add(linear(inner.mul(this.alpha / this.rank), b).to(y.dtype));
    }
    if (this.training && isGradEnabled())
      throw new ArgumentError(
        describe("LoRALinear", "an adapter on its own while training", "a merged one", "unmerge()"),
      );
    return y;
  }

  /** Adds the product to the base's weight: then it costs nothing more. No-op if it is there. */
  merge(): this {
    return this.#setMerged("merge", true);
  }

  /** Takes it away again, exactly but for one rounding. */
  unmerge(): this {
    return this.#setMerged("unmerge", false);
  }

  #setMerged(op: string, merged: boolean): this {
    const { base, loraA, loraB } = this;
    if (!(base instanceof Linear))
      throw new ArgumentError(
        describe(`LoRALinear.${op}`, "a layer with float weights", base.constructor.name),
      );
    if (activeTrace())
      throw new TransformError(
        describe(`LoRALinear.${op}`, "a call outside of compile", "one inside"),
      );
    if (merged === this.#merged) return this;
    const factor = (merged ? 1 : -1) * (this.alpha / this.rank);
    noGrad(() => {
      const product = loraB.matmul(loraA).mul(factor);
      base.weight.assign(base.weight.add(product.to(base.weight.dtype)));
    });
    this.#merged = merged;
    return this;
  }

  override extraRepr(): string {
    return `rank=${this.rank}, alpha=${this.alpha}`;
  }
}

const isLinear = (m: Module): m is Linear | QuantizedLinear =>
  m instanceof Linear || m instanceof QuantizedLinear;

/**
 * Puts a LoRALinear around the Linear (or QuantizedLinear) layers that `targets` names, and freezes all else in the model.
 * Load the model's own weights before: a layer's become "….base.weight". Gives the adapters by path.
 *
 *     applyLora(model, { targets: ["qkv", "out"], rank: 8, alpha: 16 });
 *     const adamw = new optim.AdamW(model.parameters().filter((p) => p.requiresGrad));
 *     await saveSafetensors("adapter.safetensors", loraStateDict(model));
 *
 * @throws ArgumentError if a target names no layer.
 */
export function applyLora(
  model: Module,
  { targets, ...options }: LoraOptions & { readonly targets: Targets },
): Map<string, LoRALinear> {
  // Adapters of an earlier call stay as they are, and their bases are no layers of the model's own.
  const before = new Set(adapters(model).map(([, layer]) => layer));
  const bases = new Set<Module>([...before].map(({ base }) => base));
  const free = (m: Module): m is Linear | QuantizedLinear => isLinear(m) && !bases.has(m);
  const made = replaceLayers("applyLora", model, free, targets, (l) => new LoRALinear(l, options));
  const trained = new Set(adapters(model).flatMap(([, { loraA, loraB }]) => [loraA, loraB]));
  for (const p of model.parameters()) if (!trained.has(p)) p.requiresGrad = false;
  return made;
}

const adapters = (model: Module): [string, LoRALinear][] =>
  [...model.namedModules()].filter((e): e is [string, LoRALinear] => e[1] instanceof LoRALinear);

/** Merges all adapters of a model. */
export function mergeLora(model: Module): void {
  for (const [, layer] of adapters(model)) layer.merge();
}

/** Takes all adapters of a model out of the weights again. */
export function unmergeLora(model: Module): void {
  for (const [, layer] of adapters(model)) layer.unmerge();
}

/** The state dict of the adapters alone. */
export function loraStateDict(model: Module): StateDict {
  const own = adapters(model).flatMap(([path, { loraA, loraB }]) => {
    const prefix = path && `${path}.`;
    return [
      [`${prefix}loraA`, loraA.detach()],
      [`${prefix}loraB`, loraB.detach()],
    ];
  });
  return Object.fromEntries(own);
}

/**
 * Fills the adapters, which `applyLora` has made, from what loraStateDict gave.
 * @throws ArgumentError that lists missing and unexpected names; ShapeError for another rank.
 */
export function loadLoraStateDict(model: Module, state: StateDict): void {
  const merged = adapters(model).some(([, layer]) => layer.merged);
  if (merged)
    throw new ArgumentError(
      describe("loadLoraStateDict", "adapters on their own", "merged ones", "unmergeLora(model)"),
    );
  const own = Object.keys(loraStateDict(model));
  const missing = own.filter((name) => !Object.hasOwn(state, name));
  const unexpected = Object.keys(state).filter((name) => !own.includes(name));
  if (missing.length + unexpected.length > 0)
    throw new ArgumentError(
      describe(
        "loadLoraStateDict",
        `the names of ${own.length} adapter tensors`,
        `missing: ${missing.join(", ") || "none"}; unexpected: ${unexpected.join(", ") || "none"}`,
      ),
    );
  model.loadStateDict(state, { strict: false });
}
