/**
 * @file What each kind of work computes, written once in the operations of ops.ts: the inputs, the function, and what is to be
 * done with it (run it, differentiate it, train with it). Models are GPT-2 (Radford et al. 2019), ViT (arXiv 2010.11929) and
 * the small MM1 of examples/mm1 (arXiv 2403.09611), over named weights.
 *
 * Shape letters: B batch, T positions, H heads, D width, d = D / H, V vocabulary.
 */
import type { Case, Work } from "./cases.ts";
import type { Input } from "./inputs.ts";
import type { Ops } from "./ops.ts";

export interface Program {
  /**
   * forward: the results of `forward`. gradient: those and the gradients of `wrt` for the cotangent called "g".
   * training: one step of AdamW on the weights `wrt`, the loss. update: one step of AdamW on `wrt` with the gradients
   * called "grad." + name. decode: see `Decoding`.
   */
  readonly kind: "forward" | "gradient" | "training" | "update" | "decode";
  readonly inputs: Readonly<Record<string, Input>>;
  readonly wrt: readonly string[];
  forward<T>(ops: Ops<T>, x: Readonly<Record<string, T>>): T[];
}

/** The settings of every AdamW: PyTorch's. */
export const adamw = { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01 };

type Inputs = Record<string, Input>;
const f32 = (shape: readonly number[], scale = 1): Input => ({ shape, dtype: "f32", scale });
const weight = (shape: readonly number[], scale = 1): Input => ({
  shape,
  dtype: "f32",
  scale,
  weight: true,
});
const ids = (shape: readonly number[], below: number): Input => ({
  shape,
  dtype: "i32",
  scale: below,
});
/** [out, in], as spread as PyTorch's. */
const linear = (out: number, wide: number): Input => weight([out, wide], 1 / Math.sqrt(wide));
const around1 = (width: number): Input => ({ ...weight([width], 0.1), shift: 1 });

function norm(at: string, width: number): Inputs {
  return { [`${at}.weight`]: around1(width), [`${at}.bias`]: weight([width], 0.1) };
}

function blockInputs(at: string, D: number, hidden = 4 * D): Inputs {
  return {
    ...norm(`${at}.norm1`, D),
    [`${at}.qkv.weight`]: linear(3 * D, D),
    [`${at}.qkv.bias`]: weight([3 * D], 0.1),
    [`${at}.out.weight`]: linear(D, D),
    [`${at}.out.bias`]: weight([D], 0.1),
    ...norm(`${at}.norm2`, D),
    [`${at}.up.weight`]: linear(hidden, D),
    [`${at}.up.bias`]: weight([hidden], 0.1),
    [`${at}.down.weight`]: linear(D, hidden),
    [`${at}.down.bias`]: weight([D], 0.1),
  };
}

/** A model's pieces over operations and named values. */
function layers<T>(ops: Ops<T>, x: Readonly<Record<string, T>>) {
  const dense = (h: T, at: string): T =>
    ops.add(ops.matmul(h, x[`${at}.weight`], true), x[`${at}.bias`]);
  const layerNorm = (h: T, at: string): T => ops.layerNorm(h, x[`${at}.weight`], x[`${at}.bias`]);
  /** [B·T, 3·D] → three times [B, H, T, d]. */
  const split = (qkv: T, B: number, L: number, H: number, D: number): T[] =>
    [0, 1, 2].map((i) =>
      ops.transpose(ops.reshape(ops.slice(qkv, 1, i * D, D), [B, L, H, D / H]), [0, 2, 1, 3]),
    );
  const join = (h: T, rows: number, D: number): T =>
    ops.reshape(ops.transpose(h, [0, 2, 1, 3]), [rows, D]);
  /** [B·T, D] → the same. */
  const block = (
    h: T,
    at: string,
    B: number,
    L: number,
    H: number,
    D: number,
    causal: boolean,
  ): T => {
    const [q, k, v] = split(dense(layerNorm(h, `${at}.norm1`), `${at}.qkv`), B, L, H, D);
    const y = ops.add(h, dense(join(ops.attention(q, k, v, causal), B * L, D), `${at}.out`));
    return ops.add(
      y,
      dense(ops.gelu(dense(layerNorm(y, `${at}.norm2`), `${at}.up`)), `${at}.down`),
    );
  };
  return { dense, layerNorm, split, join, block };
}

/** Patches of images [B, C, S, S] as rows [B·n², C·P²]. */
function patchRows<T>(ops: Ops<T>, images: T, B: number, C: number, S: number, P: number): T {
  const n = S / P;
  const parts = ops.transpose(ops.reshape(images, [B, C, n, P, n, P]), [0, 2, 4, 1, 3, 5]);
  return ops.reshape(parts, [B * n * n, C * P * P]);
}

type Sized<K extends Work["kind"]> = Extract<Work, { kind: K }>;

function gpt(w: Sized<"gpt">): Omit<Program, "kind" | "wrt"> {
  const { batch: B, length: L, depth, width: D, heads: H, vocabulary: V } = w;
  const inputs: Inputs = { tokens: weight([V, D], 0.03), positions: weight([L, D], 0.03) };
  for (let i = 0; i < depth; i++) Object.assign(inputs, blockInputs(`blocks.${i}`, D));
  Object.assign(inputs, norm("norm", D), {
    head: linear(V, D),
    ids: ids([B * L], V),
    targets: ids([B * L], V),
  });
  return {
    inputs,
    forward: (ops, x) => {
      const { block, layerNorm } = layers(ops, x);
      const embedded = ops.reshape(ops.embedding(x.tokens, x.ids), [B, L, D]);
      let h = ops.reshape(ops.add(embedded, x.positions), [B * L, D]);
      for (let i = 0; i < depth; i++) h = block(h, `blocks.${i}`, B, L, H, D, true);
      return [ops.crossEntropy(ops.matmul(layerNorm(h, "norm"), x.head, true), x.targets)];
    },
  };
}

function vit(w: Sized<"vit">): Omit<Program, "kind" | "wrt"> {
  const { batch: B, side: S, patch: P, depth, width: D, heads: H, classes } = w;
  const L = (S / P) ** 2;
  const inputs: Inputs = {
    "patches.weight": linear(D, 3 * P * P),
    "patches.bias": weight([D], 0.1),
    positions: weight([L, D], 0.03),
  };
  for (let i = 0; i < depth; i++) Object.assign(inputs, blockInputs(`blocks.${i}`, D));
  Object.assign(inputs, norm("norm", D), {
    "head.weight": linear(classes, D),
    "head.bias": weight([classes], 0.1),
    images: f32([B, 3, S, S]),
    targets: ids([B], classes),
  });
  return {
    inputs,
    forward: (ops, x) => {
      const { block, dense, layerNorm } = layers(ops, x);
      const rows = dense(patchRows(ops, x.images, B, 3, S, P), "patches");
      let h = ops.reshape(ops.add(ops.reshape(rows, [B, L, D]), x.positions), [B * L, D]);
      for (let i = 0; i < depth; i++) h = block(h, `blocks.${i}`, B, L, H, D, false);
      const pooled = ops.mean(ops.reshape(layerNorm(h, "norm"), [B, L, D]), 1);
      return [ops.crossEntropy(dense(pooled, "head"), x.targets)];
    },
  };
}

function mm1(w: Sized<"mm1">): Omit<Program, "kind" | "wrt"> {
  const {
    batch: B,
    side: S,
    patch: P,
    channels: C,
    grid,
    depth,
    width: D,
    heads: H,
    vocabulary: V,
    length: L,
  } = w;
  const n = S / P;
  const I = grid ** 2;
  const half = D / H / 2;
  const inputs: Inputs = {
    "patches.weight": linear(D, C * P * P),
    "patches.bias": weight([D], 0.1),
    positions: weight([n * n, D], 1),
  };
  for (let i = 0; i < depth; i++)
    Object.assign(inputs, blockInputs(`vision.${i}`, D, w.visionHidden));
  Object.assign(inputs, norm("norm", D), {
    "connector.weight": linear(D, D),
    "connector.bias": weight([D], 0.1),
    tokens: weight([V, D], 0.03),
  });
  for (let i = 0; i < depth; i++)
    Object.assign(inputs, {
      [`language.${i}.norm1`]: around1(D),
      [`language.${i}.qkv`]: linear(3 * D, D),
      [`language.${i}.out`]: linear(D, D),
      [`language.${i}.norm2`]: around1(D),
      [`language.${i}.gate`]: linear(w.languageHidden, D),
      [`language.${i}.up`]: linear(w.languageHidden, D),
      [`language.${i}.down`]: linear(D, w.languageHidden),
    });
  Object.assign(inputs, {
    "language.norm": around1(D),
    head: linear(V, D),
    // Any numbers turn as fast as true angles do.
    cos: f32([I + L, half]),
    sin: f32([I + L, half]),
    images: f32([B, C, S, S]),
    ids: ids([B * L], V),
    targets: ids([B * L], V),
  });
  return {
    inputs,
    forward: (ops, x) => {
      const { block, dense, layerNorm, split, join } = layers(ops, x);
      const rows = dense(patchRows(ops, x.images, B, C, S, P), "patches");
      let h = ops.reshape(ops.add(ops.reshape(rows, [B, n * n, D]), x.positions), [B * n * n, D]);
      for (let i = 0; i < depth; i++) h = block(h, `vision.${i}`, B, n * n, H, D, false);
      const cells = ops.reshape(layerNorm(h, "norm"), [B * grid, n / grid, grid, n / grid, D]);
      const pooled = ops.reshape(ops.mean(ops.mean(cells, 3), 1), [B * I, D]);
      const seen = ops.reshape(dense(pooled, "connector"), [B, I, D]);
      const text = ops.reshape(ops.embedding(x.tokens, x.ids), [B, L, D]);
      const all = B * (I + L);
      let y = ops.reshape(ops.concat(seen, text, 1), [all, D]);
      const turn = (t: T_<typeof x>): T_<typeof x> => {
        const [a, b] = [ops.slice(t, 3, 0, half), ops.slice(t, 3, half, half)];
        const minus = ops.affine(ops.mul(b, x.sin), -1, 0);
        return ops.concat(
          ops.add(ops.mul(a, x.cos), minus),
          ops.add(ops.mul(b, x.cos), ops.mul(a, x.sin)),
          3,
        );
      };
      for (let i = 0; i < depth; i++) {
        const p = (name: string) => x[`language.${i}.${name}`];
        const [q, k, v] = split(
          ops.matmul(ops.rmsNorm(y, p("norm1")), p("qkv"), true),
          B,
          I + L,
          H,
          D,
        );
        const attended = join(ops.attention(turn(q), turn(k), v, true), all, D);
        y = ops.add(y, ops.matmul(attended, p("out"), true));
        const u = ops.rmsNorm(y, p("norm2"));
        const gated = ops.mul(
          ops.silu(ops.matmul(u, p("gate"), true)),
          ops.matmul(u, p("up"), true),
        );
        y = ops.add(y, ops.matmul(gated, p("down"), true));
      }
      const hidden = ops.slice(
        ops.reshape(ops.rmsNorm(y, x["language.norm"]), [B, I + L, D]),
        1,
        I,
        L,
      );
      return [
        ops.crossEntropy(ops.matmul(ops.reshape(hidden, [B * L, D]), x.head, true), x.targets),
      ];
    },
  };
}

type T_<R> = R extends Readonly<Record<string, infer T>> ? T : never;

/**
 * One position of greedy decoding: `mask` [T] has 0 for positions that are filled (this one too) and -1e9 for the others, `at` [T, 1]
 * 1 for this one and 0 for the others, `cache` [2·depth, H, T, d] keys and values. Results: the scores [1, V], the new cache. The
 * loop around it (argmax, the next `id`) is each framework's: `decoding`.
 */
function decode(w: Sized<"decode">): Omit<Program, "kind" | "wrt"> {
  const { length: L, depth, width: D, heads: H, vocabulary: V } = w;
  const inputs: Inputs = { tokens: weight([V, D], 0.5), positions: weight([L, D], 0.5) };
  for (let i = 0; i < depth; i++) Object.assign(inputs, blockInputs(`blocks.${i}`, D));
  Object.assign(inputs, norm("norm", D), {
    head: linear(V, D),
    id: ids([1], V),
    at: f32([L, 1]),
    rest: f32([L, 1]),
    mask: f32([L]),
    cache: f32([2 * depth, H, L, D / H], 0),
  });
  return {
    inputs,
    forward: (ops, x) => {
      const { dense, layerNorm } = layers(ops, x);
      const place = ops.reshape(x.at, [1, L]);
      let h = ops.add(ops.embedding(x.tokens, x.id), ops.matmul(place, x.positions));
      const caches: T_<typeof x>[] = [];
      for (let i = 0; i < depth; i++) {
        const at = `blocks.${i}`;
        const qkv = dense(layerNorm(h, `${at}.norm1`), `${at}.qkv`);
        const [q, k, v] = [0, 1, 2].map((j) =>
          ops.reshape(ops.slice(qkv, 1, j * D, D), [1, H, 1, D / H]),
        );
        const [keys, values] = [k, v].map((fresh, j) => {
          const kept = ops.mul(ops.slice(x.cache, 0, 2 * i + j, 1), x.rest);
          return ops.add(kept, ops.mul(fresh, x.at));
        });
        caches.push(keys, values);
        const scores = ops.affine(ops.matmul(q, keys, true), 1 / Math.sqrt(D / H), 0);
        const attended = ops.matmul(ops.softmax(ops.add(scores, x.mask)), values);
        h = ops.add(h, dense(ops.reshape(attended, [1, D]), `${at}.out`));
        h = ops.add(
          h,
          dense(ops.gelu(dense(layerNorm(h, `${at}.norm2`), `${at}.up`)), `${at}.down`),
        );
      }
      const cache = caches.reduce((all, one) => ops.concat(all, one, 0));
      return [ops.matmul(layerNorm(h, "norm"), x.head, true), cache];
    },
  };
}

function plain(w: Work): {
  inputs: Inputs;
  result: readonly number[];
  forward: Program["forward"];
} {
  switch (w.kind) {
    case "matmul":
      return {
        inputs: { a: f32([w.m, w.k]), b: weight([w.k, w.n]) },
        result: [w.m, w.n],
        forward: (ops, { a, b }) => [ops.matmul(a, b)],
      };
    case "scores": {
      const lead = [w.batch, w.heads, w.length];
      return {
        inputs: { q: f32([...lead, w.width]), k: f32([...lead, w.width]) },
        result: [...lead, w.length],
        forward: (ops, { q, k }) => [ops.matmul(q, k, true)],
      };
    }
    case "attention": {
      const shape = [w.batch, w.heads, w.length, w.width];
      return {
        inputs: { q: f32(shape), k: f32(shape), v: f32(shape) },
        result: shape,
        forward: (ops, { q, k, v }) => [ops.attention(q, k, v, w.causal)],
      };
    }
    case "gelu":
      return {
        inputs: { x: f32([w.size], 3) },
        result: [w.size],
        forward: (ops, { x }) => [ops.gelu(ops.affine(x, 1.5, 0.5))],
      };
    case "rows": {
      const shape = [w.rows, w.columns];
      if (w.op === "softmax")
        return {
          inputs: { x: f32(shape, 3) },
          result: shape,
          forward: (ops, { x }) => [ops.softmax(x)],
        };
      return {
        inputs: { x: f32(shape, 3), weight: around1(w.columns), bias: weight([w.columns], 0.1) },
        result: shape,
        forward: (ops, x) => [ops.layerNorm(x.x, x.weight, x.bias)],
      };
    }
    case "conv": {
      const out = (w.side + 2 * w.padding - w.kernel) / w.stride + 1;
      return {
        inputs: {
          x: f32([w.batch, w.channels, w.side, w.side]),
          weight: weight([w.filters, w.channels, w.kernel, w.kernel], 0.1),
        },
        result: [w.batch, w.filters, out, out],
        forward: (ops, x) => [ops.conv2d(x.x, x.weight, w.stride, w.padding)],
      };
    }
    case "embedding":
      return {
        inputs: { table: weight([w.vocabulary, w.width]), ids: ids([w.count], w.vocabulary) },
        result: [w.count, w.width],
        forward: (ops, x) => [ops.embedding(x.table, x.ids)],
      };
    case "sort":
      return {
        inputs: { x: f32([w.rows, w.columns]) },
        result: [w.rows, w.columns],
        forward: (ops, { x }) => [ops.sort(x)],
      };
    case "topk":
      return {
        inputs: { x: f32([w.rows, w.columns]) },
        result: [w.rows, w.k],
        forward: (ops, { x }) => [ops.topk(x, w.k)],
      };
    case "block": {
      const shape = [w.batch * w.length, w.width];
      return {
        inputs: { x: f32(shape), ...blockInputs("block", w.width) },
        result: shape,
        forward: (ops, x) => [
          layers(ops, x).block(x.x, "block", w.batch, w.length, w.heads, w.width, true),
        ],
      };
    }
    default:
      throw new Error(`${w.kind} has a program of its own`);
  }
}

const floats = (inputs: Inputs): string[] =>
  Object.keys(inputs).filter((name) => inputs[name].dtype === "f32");

export function programOf({ work, backward }: Case): Program {
  switch (work.kind) {
    case "gpt":
    case "vit":
    case "mm1": {
      const model = work.kind === "gpt" ? gpt(work) : work.kind === "vit" ? vit(work) : mm1(work);
      const wrt = Object.keys(model.inputs).filter((name) => model.inputs[name].weight);
      return { kind: "training", wrt, ...model };
    }
    case "decode":
      return { kind: "decode", wrt: [], ...decode(work) };
    case "adamw": {
      const inputs: Inputs = {};
      work.shapes.forEach((shape, i) => {
        inputs[`p${i}`] = weight(shape);
        inputs[`grad.p${i}`] = f32(shape);
      });
      const wrt = work.shapes.map((_, i) => `p${i}`);
      return { kind: "update", wrt, inputs, forward: (_, x) => wrt.map((name) => x[name]) };
    }
    default: {
      const { inputs, result, forward } = plain(work);
      if (!backward) return { kind: "forward", wrt: [], inputs, forward };
      return {
        kind: "gradient",
        wrt: floats(inputs),
        inputs: { ...inputs, g: f32(result) },
        forward,
      };
    }
  }
}

/** What the loop of greedy decoding feeds, per step, as the framework's tensors. */
export const decodingFeeds = <T>(
  length: number,
  tensor: (data: Float32Array<ArrayBuffer>, shape: number[]) => T,
): { at: T; rest: T; mask: T }[] =>
  Array.from({ length }, (_, t) => {
    const { at, rest, mask } = decodingInputs(length, t);
    return {
      at: tensor(at, [length, 1]),
      rest: tensor(rest, [length, 1]),
      mask: tensor(mask, [length]),
    };
  });

/** At step t the one-hot position, what it leaves, and the mask. */
function decodingInputs(
  length: number,
  t: number,
): {
  at: Float32Array<ArrayBuffer>;
  rest: Float32Array<ArrayBuffer>;
  mask: Float32Array<ArrayBuffer>;
} {
  return {
    at: Float32Array.from({ length }, (_, i) => (i === t ? 1 : 0)),
    rest: Float32Array.from({ length }, (_, i) => (i === t ? 0 : 1)),
    mask: Float32Array.from({ length }, (_, i) => (i <= t ? 0 : -1e9)),
  };
}
