/**
 * @file What is measured on the CPU, as plain data, once for `npm run bench` (Hinode next to the machine's limits) and
 * `npm run bench:peers` (next to other frameworks). programs.ts says what a kind of work computes; here stand only sizes, amounts
 * and bars. `quick` has the same cases in sizes that show that everything runs, and measure nothing.
 */

export type Work =
  | { readonly kind: "matmul"; readonly m: number; readonly k: number; readonly n: number }
  | Heads<"scores">
  | (Heads<"attention"> & { readonly causal: boolean })
  | { readonly kind: "gelu"; readonly size: number }
  | {
      readonly kind: "rows";
      readonly op: "softmax" | "layerNorm";
      readonly rows: number;
      readonly columns: number;
    }
  | {
      readonly kind: "conv";
      readonly batch: number;
      readonly channels: number;
      readonly side: number;
      readonly filters: number;
      readonly kernel: number;
      readonly stride: number;
      readonly padding: number;
    }
  | {
      readonly kind: "embedding";
      readonly vocabulary: number;
      readonly width: number;
      readonly count: number;
    }
  | { readonly kind: "sort"; readonly rows: number; readonly columns: number }
  | {
      readonly kind: "topk";
      readonly rows: number;
      readonly columns: number;
      readonly k: number;
    }
  | { readonly kind: "adamw"; readonly shapes: readonly (readonly number[])[] }
  | {
      readonly kind: "block";
      readonly batch: number;
      readonly length: number;
      readonly width: number;
      readonly heads: number;
    }
  | GptSize<"gpt">
  | (GptSize<"decode"> & { readonly prompt: number })
  | {
      readonly kind: "vit";
      readonly batch: number;
      readonly side: number;
      readonly patch: number;
      readonly depth: number;
      readonly width: number;
      readonly heads: number;
      readonly classes: number;
    }
  | {
      readonly kind: "mm1";
      readonly batch: number;
      readonly side: number;
      readonly patch: number;
      readonly channels: number;
      readonly grid: number;
      readonly depth: number;
      readonly width: number;
      readonly heads: number;
      readonly visionHidden: number;
      readonly languageHidden: number;
      readonly vocabulary: number;
      readonly length: number;
    };

interface Heads<K> {
  readonly kind: K;
  readonly batch: number;
  readonly heads: number;
  readonly length: number;
  readonly width: number;
}

interface GptSize<K> {
  readonly kind: K;
  readonly batch: number;
  readonly length: number;
  readonly depth: number;
  readonly width: number;
  readonly heads: number;
  readonly vocabulary: number;
}

export interface Case {
  readonly id: string;
  readonly name: string;
  /** The suite: `--filter` looks for its text in ids and families. */
  readonly family: string;
  readonly work: Work;
  /** Also the gradients of all float inputs; the result is computed and kept too. */
  readonly backward: boolean;
  /** Floating-point operations of the products, and bytes that must move at least; 0: not counted. */
  readonly flops: number;
  readonly bytes: number;
  /** The most milliseconds on one thread and on two; `wide` with V8's registers of 256 bits. */
  readonly bars?: { readonly plain: Pair; readonly wide?: Pair };
  /** On a GPU: how many times Hinode's time these frameworks must take at least. */
  readonly gpuBars?: { readonly "jax-js": number; readonly torch: number };
}

type Pair = readonly [one: number, two: number];

/** [forward, forward + backward] bars, where there are any. */
interface Bars {
  readonly forward?: Case["bars"];
  readonly backward?: Case["bars"];
}

interface Amount {
  readonly flops?: number;
  readonly bytes?: number;
}

/** Milliseconds at a rate in GFLOP/s. */
const at = (flops: number, one: number, two: number): Pair => [
  flops / one / 1e6,
  flops / two / 1e6,
];

/** A case and, where `both`, a second one with gradients: twice the products more, and inputs, results and a gradient of each that move once. */
function pair(
  base: Pick<Case, "id" | "name" | "family" | "work">,
  { flops = 0, bytes = 0 }: Amount,
  bars: Bars = {},
  both = true,
): Case[] {
  const forward = { ...base, backward: false, flops, bytes, bars: bars.forward };
  if (!both) return [forward];
  return [
    forward,
    {
      ...base,
      id: `${base.id}+backward`,
      name: `${base.name}, forward + backward`,
      backward: true,
      flops: 3 * flops,
      bytes: 2 * bytes,
      bars: bars.backward,
    },
  ];
}

function matmul(m: number, k: number, n: number, bars: Bars = {}, both = false): Case[] {
  const id = m === k && k === n ? `matmul-${m}` : `matmul-${m}x${k}x${n}`;
  const name = m === k && k === n ? `matmul ${m}³` : `matmul ${m}×${k}×${n}`;
  const amount = { flops: 2 * m * k * n, bytes: 4 * (m * k + k * n + m * n) };
  return pair(
    { id, name, family: "matmul", work: { kind: "matmul", m, k, n } },
    amount,
    bars,
    both,
  );
}

export function cases({ quick = false } = {}): Case[] {
  const n = 2 * 1024 ** 3;
  const side = (full: number, small: number): number => (quick ? small : full);
  const heads = {
    batch: side(8, 2),
    heads: side(12, 2),
    length: side(197, 19),
    width: side(64, 16),
  };
  const lines = heads.batch * heads.heads * heads.length;
  const chain = side(2 ** 22, 2 ** 12);
  const [rows, columns] = [side(4096, 32), side(1024, 64)];
  const image = side(224, 28);
  const patches = side(8, 1) * (image / 14) ** 2;
  const patchWidth = side(1024, 32);
  const maps = { batch: side(8, 1), channels: side(64, 8), side: side(56, 8) };
  const [vocabulary, width] = [side(4096, 64), side(256, 16)];
  const gpt = {
    batch: side(4, 2),
    length: side(256, 16),
    depth: side(4, 2),
    width,
    heads: 4,
    vocabulary,
  };
  const block = { batch: gpt.batch, length: gpt.length, width, heads: 4 };
  const tokens = gpt.batch * gpt.length;
  const attend = 4 * tokens * gpt.length * width;
  const blockFlops = 24 * tokens * width ** 2 + attend;
  const vit = {
    batch: side(16, 2),
    side: side(64, 16),
    patch: 8,
    depth: side(12, 1),
    width: side(384, 16),
    heads: side(6, 2),
    classes: side(10, 4),
  };
  const vitTokens = vit.batch * (vit.side / vit.patch) ** 2;
  const mm1Width = side(96, 16);
  const mm1 = {
    batch: side(16, 2),
    side: side(32, 16),
    patch: side(8, 8),
    channels: 3,
    grid: side(2, 1),
    depth: side(2, 1),
    width: mm1Width,
    heads: 4,
    visionHidden: 2 * mm1Width,
    languageHidden: side(256, 24),
    vocabulary: side(1024, 32),
    length: side(12, 5),
  };
  const decode = {
    batch: 1,
    length: side(128, 16),
    depth: gpt.depth,
    width,
    heads: 4,
    vocabulary,
    prompt: side(16, 4),
  };
  const weights = [
    [vocabulary, width],
    ...Array.from({ length: 4 * gpt.depth }, () => [4 * width, width]),
    ...Array.from({ length: 8 * gpt.depth }, () => [width]),
  ];
  const scoreFlops = 2 * lines * heads.length * heads.width;
  const square = (full: number): number => side(full, full / 16);
  return [
    ...[128, 256, 512].flatMap((s) => matmul(square(s), square(s), square(s))),
    ...matmul(
      square(1024),
      square(1024),
      square(1024),
      {
        forward: { plain: at(n, 50, 95), wide: at(n, 95, 180) },
        backward: { plain: at(3 * n, 48, 92), wide: at(3 * n, 90, 170) },
      },
      true,
    ),
    ...matmul(square(2048), square(2048), square(2048), {
      forward: { plain: at(8 * n, 50, 95), wide: at(8 * n, 95, 180) },
    }),
    ...matmul(side(257, 17), side(768, 24), side(768, 24)),
    ...matmul(side(577, 19), side(1024, 24), side(3072, 40)),
    ...matmul(side(730, 23), side(1024, 24), side(1024, 24)),
    ...matmul(1, side(1024, 24), side(4096, 40)),
    ...pair(
      {
        id: "scores",
        name: `scores q·kᵀ ${heads.batch}×${heads.heads}×${heads.length}×${heads.width}`,
        family: "attention",
        work: { kind: "scores", ...heads },
      },
      { flops: scoreFlops, bytes: 4 * lines * (2 * heads.width + heads.length) },
      { forward: { plain: [14, 8] }, backward: { plain: [40, 22] } },
    ),
    ...pair(
      {
        id: "attention",
        name: `attention ${heads.batch}×${heads.heads}×${heads.length}×${heads.width}`,
        family: "attention",
        work: { kind: "attention", causal: false, ...heads },
      },
      { flops: 2 * scoreFlops, bytes: 16 * lines * heads.width },
    ),
    ...pair(
      {
        id: "gelu",
        name: `gelu(x·a + b), ${chain} elements`,
        family: "elementwise",
        work: { kind: "gelu", size: chain },
      },
      { bytes: 8 * chain },
      { forward: { plain: [15, 9] }, backward: { plain: [25, 15] } },
    ),
    ...pair(
      {
        id: "softmax",
        name: `softmax ${rows}×${columns}`,
        family: "rows",
        work: { kind: "rows", op: "softmax", rows, columns },
      },
      { bytes: 8 * rows * columns },
      { forward: { plain: [5, 3] }, backward: { plain: [9, 6] } },
    ),
    ...pair(
      {
        id: "layernorm",
        name: `layerNorm ${rows}×${columns}`,
        family: "rows",
        work: { kind: "rows", op: "layerNorm", rows, columns },
      },
      { bytes: 8 * rows * columns },
      { forward: { plain: [5, 3] }, backward: { plain: [12, 8] } },
    ),
    ...pair(
      {
        id: "patches",
        name: `patch embedding 14×14, ${side(8, 1)}×3×${image}² → ${patchWidth}`,
        family: "conv",
        work: {
          kind: "conv",
          batch: side(8, 1),
          channels: 3,
          side: image,
          filters: patchWidth,
          kernel: 14,
          stride: 14,
          padding: 0,
        },
      },
      { flops: 2 * patches * 3 * 14 ** 2 * patchWidth },
      { forward: { plain: [50, 28], wide: [28, 16] } },
      false,
    ),
    ...pair(
      {
        id: "conv3x3",
        name: `conv 3×3 ${maps.batch}×${maps.channels}×${maps.side}² → ${maps.channels}`,
        family: "conv",
        work: { kind: "conv", ...maps, filters: maps.channels, kernel: 3, stride: 1, padding: 1 },
      },
      { flops: 18 * maps.batch * maps.channels ** 2 * maps.side ** 2 },
      { forward: { plain: [40, 22] } },
    ),
    ...pair(
      {
        id: "embedding",
        name: `embedding ${vocabulary}×${width}, ${side(8192, 64)} ids`,
        family: "indexing",
        work: { kind: "embedding", vocabulary, width, count: side(8192, 64) },
      },
      { bytes: 8 * side(8192, 64) * width },
    ),
    ...pair(
      {
        id: "sort",
        name: `sort ${side(256, 4)}×${side(4096, 64)}`,
        family: "indexing",
        work: { kind: "sort", rows: side(256, 4), columns: side(4096, 64) },
      },
      {},
      {},
      false,
    ),
    ...pair(
      {
        id: "topk",
        name: `top 50 of ${side(4096, 64)}, ${side(256, 4)} rows`,
        family: "indexing",
        work: { kind: "topk", rows: side(256, 4), columns: side(4096, 64), k: 50 },
      },
      {},
      {},
      false,
    ),
    ...pair(
      {
        id: "adamw",
        name: `AdamW on ${weights.length} tensors`,
        family: "optimizer",
        work: { kind: "adamw", shapes: weights },
      },
      { bytes: 28 * weights.reduce((sum, s) => sum + s.reduce((a, b) => a * b), 0) },
      {},
      false,
    ),
    ...pair(
      {
        id: "block",
        name: `GPT block ${block.batch}×${block.length}×${width}`,
        family: "model",
        work: { kind: "block", ...block },
      },
      { flops: blockFlops },
    ),
    {
      id: "gpt",
      name: `GPT step, ${gpt.depth} layers d${width} T${gpt.length} B${gpt.batch} vocab ${vocabulary}, AdamW`,
      family: "model",
      work: { kind: "gpt", ...gpt },
      backward: true,
      bytes: 0,
      flops: 3 * (gpt.depth * blockFlops + 2 * tokens * width * vocabulary),
      bars: { plain: [680, 370], wide: [360, 200] },
      gpuBars: { "jax-js": 60, torch: 1.5 },
    },
    {
      id: "vit",
      name: `ViT step, ${vit.depth} layers d${vit.width}, ${vit.batch} images ${vit.side}², AdamW`,
      family: "model",
      work: { kind: "vit", ...vit },
      backward: true,
      bytes: 0,
      flops:
        3 *
        vit.depth *
        (24 * vitTokens * vit.width ** 2 + 4 * vitTokens * (vit.side / vit.patch) ** 2 * vit.width),
    },
    {
      id: "mm1",
      name: `MM1 step of examples/mm1, ${mm1.batch} images ${mm1.side}², AdamW`,
      family: "model",
      work: { kind: "mm1", ...mm1 },
      backward: true,
      bytes: 0,
      flops: 0,
    },
    {
      id: "decode",
      name: `greedy decoding, ${decode.length - decode.prompt} tokens with a cache, ${decode.depth} layers d${width}`,
      family: "model",
      work: { kind: "decode", ...decode },
      backward: false,
      flops: 0,
      bytes: 0,
    },
  ];
}
