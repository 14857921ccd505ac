/**
 * @file Known sizes of language models, and how many parameters a configuration has.
 *
 * The paper on MM1 (https://arxiv.org/abs/2403.09611) names its language models by size and says nothing about
 * widths and heads. These are our reconstruction, not "MM1's": 12·depth·width² with SwiGLU layers of 8/3·width,
 * rounded up to 256, gives every size that it names, and Apple's public AXLearn (experiments/text/gpt) has 85M,
 * 302M, 1.2B and 6.4B in just these dimensions ("gala": RMSNorm, normalised heads, SwiGLU, 32·1024 tokens, 4096
 * positions). The 3B-MoE's total fits, 64.8 of 64 billion; the 7B-MoE's does not, 40.0 of 47: its geometry is
 * another one, and not known.
 */
import { isSparse, type LanguageConfig } from "./decoder.ts";
import type { ExpertsConfig } from "./moe.ts";

const gala = (width: number, depth: number, heads: number, hidden: number): LanguageConfig => ({
  ...{ vocabulary: 32 * 1024, width, depth, heads, hidden },
  ...{ eps: 1e-5, qkNorm: true, maxPositions: 4096 },
});

/** GShard's gating, with the factors that MM1 gives for its losses. */
const mm1Experts = (count: number, every: number): ExpertsConfig => ({
  ...{ count, every, perToken: 2, capacityFactor: 2 },
  ...{ balance: "first", balanceWeight: 0.01, zWeight: 0.001 },
});

const dense = {
  "9M": gala(256, 12, 4, 768),
  "85M": gala(768, 12, 12, 2048),
  "302M": gala(1024, 24, 16, 2816),
  "1.2B": gala(2048, 24, 32, 5632),
  "2.9B": gala(3072, 26, 24, 8192),
  "6.4B": gala(4096, 32, 32, 11_008),
  // The z-loss is for this size alone.
  "30B": { ...gala(7168, 48, 56, 19_200), zLoss: 1e-4 },
} as const satisfies Record<string, LanguageConfig>;

export const languagePresets = {
  ...dense,
  "3B-MoE": { ...dense["2.9B"], experts: mm1Experts(64, 2) },
  "7B-MoE": { ...dense["6.4B"], experts: mm1Experts(32, 4) },
} as const satisfies Record<string, LanguageConfig>;

export interface ParameterCount {
  readonly total: number;
  /** Without embedding table and head: the N of scaling laws. */
  readonly nonEmbedding: number;
  /** What one token meets: of the experts only those that it takes. */
  readonly active: number;
}

/** Without making the model. */
export function parameterCount(config: LanguageConfig): ParameterCount {
  const { vocabulary, width, depth, heads, hidden, experts, attentionBias, mlpBias } = config;
  const { kvHeads = heads, headDim = width / heads, qkNorm, tied } = config;
  const [inner, shared] = [heads * headDim, kvHeads * headDim];
  const attention =
    width * (2 * inner + 2 * shared) +
    (attentionBias ? inner + 2 * shared : 0) +
    (attentionBias === true ? width : 0) +
    (qkNorm ? 2 * headDim : 0);
  const feedForward = 3 * width * hidden;
  const bias = mlpBias ? 2 * hidden + width : 0;
  const sparse = Array.from({ length: depth }, (_, i) => i).filter((i) => isSparse(experts, i));
  const blocks = depth * (attention + 2 * width) + (depth - sparse.length) * (feedForward + bias);
  const mixed = (count: number) =>
    experts ? sparse.length * (count * feedForward + experts.count * width) : 0;
  const nonEmbedding = blocks + mixed(experts?.count ?? 0) + width;
  const total = nonEmbedding + vocabulary * width * (tied ? 1 : 2);
  const idle = mixed(experts?.count ?? 0) - mixed(experts?.perToken ?? 2);
  return { total, nonEmbedding, active: total - idle };
}
