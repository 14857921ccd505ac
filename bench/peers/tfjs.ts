/**
 * @file TensorFlow.js on its cpu and its wasm backend. It computes at once and in one thread (its threads exist in browsers only).
 * Images lie as it wants them, channels last, before the clock starts. Where its backend lacks the kernel for the gradient of a
 * look-up, the look-up is a product with one-hot rows.
 */
import { type Framework, type Prepared, Unsupported } from "../suite/framework.ts";
import { valuesOf } from "../suite/inputs.ts";
import type { Ops } from "../suite/ops.ts";
import { adamw, decodingFeeds, type Program } from "../suite/programs.ts";
import { type Foreign, requirePeer, versionOf } from "./foreign.ts";

function opsOf(tf: Foreign, differentiated: boolean): Ops<Foreign> & { read(x: Foreign): Foreign } {
  /** Inputs of convolutions in the layout that they are computed in, and results that are left in it. */
  const laid = new Map<Foreign, Foreign>();
  const channelsLast = new WeakSet();
  const inLayout = (x: Foreign, permutation: number[]): Foreign => {
    if (differentiated) return tf.transpose(x, permutation);
    if (!laid.has(x)) laid.set(x, tf.keep(tf.transpose(x, permutation)));
    return laid.get(x);
  };
  const norm = (x: Foreign, centred: Foreign) =>
    tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(centred), -1, true), 1e-5)));
  const attention = (q: Foreign, k: Foreign, v: Foreign, causal: boolean) => {
    const [T, d] = q.shape.slice(-2);
    let scores = tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(d));
    if (causal) scores = tf.add(scores, maskOf(T));
    return tf.matMul(tf.softmax(scores), v);
  };
  const masks = new Map<number, Foreign>();
  const maskOf = (T: number): Foreign => {
    if (!masks.has(T)) {
      const values = Float32Array.from({ length: T * T }, (_, i) =>
        i % T <= Math.floor(i / T) ? 0 : -1e9,
      );
      masks.set(T, tf.keep(tf.tensor(values, [T, T])));
    }
    return masks.get(T);
  };
  const lacksScatter = !tf.getKernel("UnsortedSegmentSum", tf.getBackend());
  /** [..., k] · weights: products of a batch with one matrix are one matrix product. */
  return {
    matmul: (a, b, transposed) => tf.matMul(a, b, false, transposed ?? false),
    add: (a, b) => tf.add(a, b),
    mul: (a, b) => tf.mul(a, b),
    affine: (x, scale, shift) => {
      const scaled = tf.mul(x, scale);
      return shift === 0 ? scaled : tf.add(scaled, shift);
    },
    gelu: (x) => tf.mul(tf.mul(x, 0.5), tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1)),
    silu: (x) => tf.mul(x, tf.sigmoid(x)),
    softmax: (x) => tf.softmax(x),
    layerNorm: (x, weight, bias) => {
      const centred = tf.sub(x, tf.mean(x, -1, true));
      return tf.add(tf.mul(norm(centred, centred), weight), bias);
    },
    rmsNorm: (x, weight) => tf.mul(norm(x, x), weight),
    reshape: (x, shape) => tf.reshape(x, shape),
    transpose: (x, permutation) => tf.transpose(x, permutation),
    slice: (x, axis, start, length) =>
      tf.slice(
        x,
        x.shape.map((_: number, i: number) => (i === axis ? start : 0)),
        x.shape.map((size: number, i: number) => (i === axis ? length : size)),
      ),
    concat: (a, b, axis) => tf.concat([a, b], axis),
    mean: (x, axis) => tf.mean(x, axis),
    embedding: (table, ids) =>
      differentiated && lacksScatter
        ? tf.matMul(tf.cast(tf.oneHot(ids, table.shape[0]), "float32"), table)
        : tf.gather(table, ids),
    attention,
    conv2d: (x, weight, stride, padding) => {
      const out = tf.conv2d(
        inLayout(x, [0, 2, 3, 1]),
        inLayout(weight, [2, 3, 1, 0]),
        stride,
        padding,
      );
      if (differentiated) return tf.transpose(out, [0, 3, 1, 2]);
      channelsLast.add(out);
      return out;
    },
    crossEntropy: (logits, targets) => {
      const [rows, classes] = logits.shape;
      const picked = tf.mul(tf.logSoftmax(logits), tf.cast(tf.oneHot(targets, classes), "float32"));
      return tf.mul(tf.sum(picked), -1 / rows);
    },
    sort: (x) => tf.reverse(tf.topk(x, x.shape.at(-1), true).values, -1),
    topk: (x, k) => tf.topk(x, k, true).values,
    read: (x) => (channelsLast.has(x) ? tf.transpose(x, [0, 3, 1, 2]) : x),
  };
}

type Named = Record<string, Foreign>;

function prepareWith(tf: Foreign): (program: Program) => Promise<Prepared> {
  const update = (p: Foreign, g: Foreign, m: Foreign, v: Foreign, t: number): void => {
    m.assign(tf.add(tf.mul(m, adamw.beta1), tf.mul(g, 1 - adamw.beta1)));
    v.assign(tf.add(tf.mul(v, adamw.beta2), tf.mul(tf.square(g), 1 - adamw.beta2)));
    const root = tf.add(tf.sqrt(tf.mul(v, 1 / (1 - adamw.beta2 ** t))), adamw.eps);
    const step = tf.div(tf.mul(m, adamw.lr / (1 - adamw.beta1 ** t)), root);
    p.assign(tf.sub(tf.mul(p, 1 - adamw.lr * adamw.weightDecay), step));
  };
  return async (program) => {
    const { inputs, kind, wrt } = program;
    const ops = opsOf(tf, kind === "gradient" || kind === "training");
    const x: Named = Object.fromEntries(
      Object.entries(inputs).map(([name, input]) => [
        name,
        tf.tensor(valuesOf(name, input), input.shape, input.dtype === "f32" ? "float32" : "int32"),
      ]),
    );
    const dispose = () => tf.disposeVariables();
    if (kind === "training" || kind === "update") {
      const variables = wrt.map((name) => tf.variable(x[name]));
      const [m, v] = [0, 1].map(() => variables.map((p) => tf.variable(tf.zerosLike(p))));
      const named = { ...x, ...Object.fromEntries(wrt.map((name, i) => [name, variables[i]])) };
      let t = 0;
      const step = (): Foreign =>
        tf.tidy(() => {
          t++;
          const { value, grads } =
            kind === "update"
              ? { value: tf.scalar(0), grads: null }
              : tf.variableGrads(() => program.forward(ops, named)[0], variables);
          variables.forEach((p, i) => {
            update(p, grads ? grads[p.name] : x[`grad.${wrt[i]}`], m[i], v[i], t);
          });
          return value;
        });
      return {
        run: () => step().dispose(),
        outputs: async () => {
          const losses: number[] = [];
          for (let i = 0; i < (kind === "update" ? 1 : 3); i++)
            losses.push((await step().data())[0]);
          return kind === "update" ? Promise.all(variables.map((p) => p.data())) : [losses];
        },
        dispose,
      };
    }
    if (kind === "decode") {
      const length = inputs.at.shape[0];
      const feeds = decodingFeeds(length, (data, shape) => tf.tensor(data, shape));
      const decode = async () => {
        const tokens: number[] = [];
        let [id, cache] = [tf.clone(x.id), tf.clone(x.cache)];
        for (const feed of feeds) {
          const [next, grown] = tf.tidy(() => {
            const [scores, all] = program.forward(ops, { ...x, ...feed, id, cache });
            return [tf.argMax(scores, -1), all];
          });
          id.dispose();
          cache.dispose();
          [id, cache] = [next, grown];
          tokens.push((await id.data())[0]);
        }
        id.dispose();
        cache.dispose();
        return tokens;
      };
      return {
        run: async () => void (await decode()),
        outputs: async () => [await decode()],
        dispose,
      };
    }
    if (wrt.some((name) => inputs[name].dtype !== "f32"))
      throw new Unsupported("gradients of integers");
    const compute = (): Foreign[] =>
      tf.tidy(() => {
        if (kind === "forward") return program.forward(ops, x);
        const fn = (...list: Foreign[]) =>
          program.forward(ops, {
            ...x,
            ...Object.fromEntries(wrt.map((name, i) => [name, list[i]])),
          })[0];
        const { value, grads } = tf.valueAndGrads(fn)(
          wrt.map((name) => x[name]),
          x.g,
        );
        return [value, ...grads];
      });
    return {
      run: () => tf.dispose(compute()),
      outputs: async () => {
        const results = compute();
        const found = await Promise.all(results.map((r) => ops.read(r).data()));
        tf.dispose(results);
        return found;
      },
      dispose: () => tf.dispose(x),
    };
  };
}

export async function open(threads: number, backend: "cpu" | "wasm"): Promise<Framework> {
  if (threads > 1) throw new Unsupported("one thread outside browsers");
  const tf = requirePeer("@tensorflow/tfjs");
  if (backend === "wasm") requirePeer("@tensorflow/tfjs-backend-wasm");
  if (!(await tf.setBackend(backend))) throw new Unsupported(`no backend ${backend}`);
  await tf.ready();
  return {
    name: `TensorFlow.js ${backend}`,
    version: versionOf("@tensorflow/tfjs"),
    prepare: prepareWith(tf),
  };
}
