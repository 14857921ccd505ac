/**
 * @file What is measured on a GPU, as plain data: Hinode (hinode.ts) and PyTorch (pytorch.py) read the same list. Bars are those of
 * an H100; `quick` has the same cases in sizes that a GPU simulated on the processor can do.
 */

export type Precision = "f32" | "f16";

export type Case = {
  readonly id: string;
  readonly name: string;
  readonly bars: readonly Bar[];
} & (
  | {
      readonly kind: "matmul";
      readonly dtype: Precision;
      readonly m: number;
      readonly k: number;
      readonly n: number;
    }
  | {
      readonly kind: "rows";
      readonly op: "elementwise" | "softmax" | "layerNorm";
      readonly rows: number;
      readonly columns: number;
    }
  | {
      readonly kind: "attention";
      readonly dtype: Precision;
      readonly batch: number;
      readonly heads: number;
      readonly length: number;
      readonly width: number;
    }
  | {
      readonly kind: "gpt";
      /** f16: parameters in f32, products in f16, the loss scaled. */
      readonly precision: Precision;
      readonly depth: number;
      readonly width: number;
      readonly heads: number;
      readonly length: number;
      readonly batch: number;
      readonly vocabulary: number;
    }
);

/** A figure of a measurement, and what it must reach. */
export type Bar = {
  readonly atLeast?: number;
  readonly atMost?: number;
  /** Holds only with robustness (bounds checks by Dawn) on, or only without. */
  readonly robustness?: boolean;
} & (
  | { readonly of: "ratio" /** PyTorch's variant. */; readonly to: string }
  | { readonly of: "rate" | "milliseconds" | "dispatches" | "launchShare" }
);

const ratio = (to: string, atLeast: number): Bar => ({ of: "ratio", to, atLeast });

interface Sizes {
  readonly square: number;
  readonly odd: readonly (readonly [number, number, number])[];
  readonly rows: readonly [number, number];
  readonly attention: readonly [batch: number, heads: number, length: number, width: number];
  readonly small: Gpt;
  readonly large: Gpt;
}

type Gpt = readonly [
  depth: number,
  width: number,
  heads: number,
  length: number,
  batch: number,
  vocabulary: number,
];

const full: Sizes = {
  square: 4096,
  odd: [
    [577, 1024, 3072],
    [8192, 8192, 64],
  ],
  rows: [8192, 4096],
  attention: [4, 16, 2048, 64],
  small: [4, 256, 4, 256, 4, 4096],
  large: [12, 768, 12, 1024, 8, 50304],
};

const tiny: Sizes = {
  square: 32,
  odd: [
    [17, 16, 24],
    [32, 32, 8],
  ],
  rows: [32, 64],
  attention: [1, 2, 16, 8],
  small: [1, 16, 2, 8, 2, 32],
  large: [1, 16, 2, 8, 2, 32],
};

export function cases({ quick = false }: { quick?: boolean } = {}): Case[] {
  const { square, odd, rows, attention, small, large } = quick ? tiny : full;
  const matmul = (
    dtype: Precision,
    [m, k, n]: readonly [number, number, number],
    bars: readonly Bar[],
  ): Case => {
    const name = `matmul ${dtype} ${m}×${k}×${n}`;
    return { kind: "matmul", id: `matmul-${dtype}-${m}x${k}x${n}`, name, dtype, m, k, n, bars };
  };
  const byRows = (op: "elementwise" | "softmax" | "layerNorm", atLeast: number): Case => {
    const name = `${op === "elementwise" ? "relu(x·a + b)" : op} ${rows.join("×")} f32`;
    const bars = [ratio("f32", atLeast)];
    return { kind: "rows", id: op, name, op, rows: rows[0], columns: rows[1], bars };
  };
  const attends = (dtype: Precision, atLeast: number): Case => {
    const [batch, heads, length, width] = attention;
    return {
      kind: "attention",
      id: `attention-${dtype}`,
      name: `causal attention, forward + backward, B${batch} H${heads} T${length} D${width} ${dtype}`,
      dtype,
      batch,
      heads,
      length,
      width,
      bars: [ratio(dtype, atLeast)],
    };
  };
  const gpt = (size: string, shape: Gpt, precision: Precision, bars: readonly Bar[]): Case => {
    const [depth, width, heads, length, batch, vocabulary] = shape;
    return {
      kind: "gpt",
      id: `gpt-${size}-${precision}`,
      name: `GPT step, ${depth} layers d${width} T${length} B${batch} vocab ${vocabulary}, ${precision === "f32" ? "f32" : "mixed f16"}`,
      precision,
      depth,
      width,
      heads,
      length,
      batch,
      vocabulary,
      bars,
    };
  };
  return [
    matmul("f32", [square, square, square], [ratio("f32", 0.95)]),
    ...odd.map((shape) => matmul("f32", shape, [ratio("f32", 0.8)])),
    matmul(
      "f16",
      [square, square, square],
      [
        { of: "rate", atLeast: 240e12, robustness: false },
        { of: "rate", atLeast: 160e12, robustness: true },
      ],
    ),
    byRows("elementwise", 0.97),
    byRows("softmax", 1.1),
    byRows("layerNorm", 1.1),
    attends("f16", 0.3),
    attends("f32", 1),
    gpt("small", small, "f32", [
      ratio("eager", 1.5),
      { of: "milliseconds", atMost: 3.6 },
      { of: "dispatches", atMost: 110 },
    ]),
    gpt("large", large, "f32", [ratio("eager", 1), { of: "launchShare", atMost: 0.1 }]),
    gpt("large", large, "f16", [ratio("eager bf16", 0.5), { of: "launchShare", atMost: 0.1 }]),
  ];
}

/** What one run does: operations for products and attention, bytes that must move for the rest, tokens for steps. */
export function workOf(c: Case): { readonly amount: number; readonly unit: string } {
  switch (c.kind) {
    case "matmul":
      return { amount: 2 * c.m * c.k * c.n, unit: "FLOP/s" };
    case "rows":
      return { amount: 8 * c.rows * c.columns, unit: "B/s" };
    case "attention":
      // Two products forward and five backward, of which the mask leaves half.
      return { amount: 7 * c.batch * c.heads * c.length ** 2 * c.width, unit: "FLOP/s" };
    case "gpt":
      return { amount: c.batch * c.length, unit: "tokens/s" };
  }
}
