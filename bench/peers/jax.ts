/**
 * @file jax-js on WebAssembly or WebGPU: each program is one `jit` function. Every operation takes `.ref` of its operands, so that nothing is
 * freed under a trace. Its threads are the web's workers; Node gets a `Worker` made of worker_threads.
 */
import { Worker as NodeWorker } from "node:worker_threads";
import { defaultToggles } from "../../core/backend/webgpu/adapter.ts";
import { type Device, type Framework, type Prepared, Unsupported } from "../suite/framework.ts";
import { valuesOf } from "../suite/inputs.ts";
import type { Ops } from "../suite/ops.ts";
import { adamw, decodingFeeds, type Program } from "../suite/programs.ts";
import { record } from "../suite/record.ts";
import { type Foreign, importPeer, versionOf } from "./foreign.ts";

/** The web's `Worker` for sources in blobs, as far as jax-js uses it. */
function provideWorkers(threads: number): void {
  Object.defineProperty(globalThis.navigator, "hardwareConcurrency", { value: threads });
  const sources = new Map<string, Promise<string>>();
  const prelude = `const { parentPort } = require("node:worker_threads");
    globalThis.self = globalThis;
    globalThis.postMessage = (m) => parentPort.postMessage(m);
    parentPort.on("message", (data) => globalThis.onmessage?.({ data }));\n`;
  URL.createObjectURL = (blob) => {
    const url = `blob:${sources.size}`;
    sources.set(url, (blob as Blob).text());
    return url;
  };
  URL.revokeObjectURL = () => {};
  class BlobWorker {
    onmessage?: (event: { data: unknown }) => void;
    onerror?: (error: Error) => void;
    readonly #worker: Promise<NodeWorker>;
    constructor(url: string) {
      this.#worker = sources.get(url)!.then((source) => {
        const worker = new NodeWorker(prelude + source, { eval: true });
        worker.on("message", (data) => this.onmessage?.({ data }));
        worker.on("error", (error) => this.onerror?.(error as Error));
        return worker;
      });
    }
    postMessage(message: unknown): void {
      this.#worker.then((worker) => worker.postMessage(message));
    }
  }
  (globalThis as Foreign).Worker = BlobWorker;
}

function opsOf(jax: Foreign): Ops<Foreign> {
  const { numpy: np, nn, lax } = jax;
  const swap = (x: Foreign) => np.transpose(x.ref, [0, 2, 1, 3]);
  return {
    matmul: (a, b, transposed) => np.matmul(a.ref, transposed ? np.swapaxes(b.ref, -1, -2) : b.ref),
    add: (a, b) => a.ref.add(b.ref),
    mul: (a, b) => a.ref.mul(b.ref),
    affine: (x, scale, shift) => x.ref.mul(scale).add(shift),
    gelu: (x) => nn.gelu(x.ref, { approximate: false }),
    silu: (x) => nn.silu(x.ref),
    softmax: (x) => nn.softmax(x.ref, -1),
    layerNorm: (x, weight, bias) => nn.standardize(x.ref, -1).mul(weight.ref).add(bias.ref),
    rmsNorm: (x, weight) => {
      const mean = np.mean(np.square(x.ref), -1, { keepdims: true });
      return x.ref.mul(np.reciprocal(np.sqrt(mean.add(1e-5)))).mul(weight.ref);
    },
    reshape: (x, shape) => np.reshape(x.ref, [...shape]),
    transpose: (x, permutation) => np.transpose(x.ref, [...permutation]),
    slice: (x, axis, start, length) => {
      const ranges = x.shape.map(() => []);
      ranges[axis] = [start, start + length];
      return x.ref.slice(...ranges);
    },
    concat: (a, b, axis) => np.concatenate([a.ref, b.ref], axis),
    mean: (x, axis) => np.mean(x.ref, axis),
    embedding: (table, ids) => np.take(table.ref, ids.ref, 0),
    attention: (q, k, v, isCausal) =>
      swap(nn.dotProductAttention(swap(q), swap(k), swap(v), { isCausal })),
    conv2d: (x, weight, stride, padding) =>
      lax.convGeneralDilated(
        x.ref,
        weight.ref,
        [stride, stride],
        [
          [padding, padding],
          [padding, padding],
        ],
      ),
    crossEntropy: (logits, targets) => {
      const [rows, classes] = logits.shape;
      const picked = nn.logSoftmax(logits.ref, -1).mul(nn.oneHot(targets.ref, classes));
      return np.sum(picked).mul(-1 / rows);
    },
    sort: (x) => np.sort(x.ref, -1),
    topk: (x, k) => {
      const [values, indices] = lax.topK(x.ref, k);
      indices.dispose();
      return values;
    },
  };
}

type Named = Record<string, Foreign>;

const refs = (named: Named): Named =>
  Object.fromEntries(Object.entries(named).map(([name, x]) => [name, x.ref]));

function prepareWith(jax: Foreign): (program: Program) => Promise<Prepared> {
  const { numpy: np } = jax;
  const ops = opsOf(jax);
  const upload = (values: Float32Array | Int32Array, shape: readonly number[]) =>
    np.array(values).reshape([...shape]);

  /** AdamW on lists; `scales` [2] has what corrects the bias of the two means. */
  const adamwOn = (
    parameters: Foreign[],
    gradients: Foreign[],
    m: Foreign[],
    v: Foreign[],
    scales: Foreign,
  ) => {
    const [first, second] = [scales.ref.slice(0), scales.ref.slice(1)];
    const means = m.map((x, i) =>
      x.ref.mul(adamw.beta1).add(gradients[i].ref.mul(1 - adamw.beta1)),
    );
    const squares = v.map((x, i) =>
      x.ref.mul(adamw.beta2).add(np.square(gradients[i].ref).mul(1 - adamw.beta2)),
    );
    const next = parameters.map((p, i) => {
      const root = np.sqrt(squares[i].ref.mul(second.ref)).add(adamw.eps);
      const step = means[i].ref.mul(first.ref).mul(adamw.lr).mul(np.reciprocal(root));
      return p.ref.mul(1 - adamw.lr * adamw.weightDecay).sub(step);
    });
    return [next, means, squares];
  };

  /** A training or an update: state that the function consumes and gives anew. */
  const stateful = (program: Program, x: Named) => {
    const { wrt, kind } = program;
    let state = [
      wrt.map((name) => x[name]),
      ...[0, 1].map(() => wrt.map((name) => np.zeros([...program.inputs[name].shape]))),
    ];
    const rest = Object.fromEntries(Object.entries(x).filter(([name]) => !wrt.includes(name)));
    // Its jit refuses the scatter of a gradient that it has just computed ("scatter input is not imm"), so rows are looked up
    // before, and scattered after, the function that is differentiated.
    const [table, ids] =
      kind === "training"
        ? (record(program).nodes.find(({ op }) => op === "embedding")?.of ?? [])
        : [];
    const at = wrt.indexOf(table);
    const lookUp = jax.jit((weights: Foreign, rows: Foreign) => ops.embedding(weights, rows));
    const scatter = jax.jit((weights: Foreign, rows: Foreign, gradient: Foreign) => {
      const [, pull] = jax.vjp((w: Foreign) => ops.embedding(w, rows), [weights.ref]);
      return pull(gradient.ref)[0];
    });
    const differentiate = jax.jit((parameters: Foreign[], looked: Foreign, others: Named) => {
      const loss = (list: Foreign[], rows: Foreign) => {
        const named = Object.fromEntries(wrt.map((name, i) => [name, list[i]]));
        const found = { ...ops, embedding: () => rows.ref };
        return program.forward(table ? found : ops, { ...others, ...named })[0];
      };
      const both = jax.valueAndGrad(loss, { argnums: [0, 1] });
      return both(
        parameters.map((p) => p.ref),
        looked.ref,
      );
    });
    const update = jax.jit(adamwOn);
    let t = 0;
    const step = async () => {
      t++;
      const scales = np.array(
        new Float32Array([1 / (1 - adamw.beta1 ** t), 1 / (1 - adamw.beta2 ** t)]),
      );
      let [loss, gradients]: [Foreign, Foreign[]] = [np.zeros([]), []];
      if (kind === "update") gradients = wrt.map((name) => x[`grad.${name}`].ref);
      else {
        const parameters = state[0].map((p: Foreign) => p.ref);
        const looked = table ? lookUp(state[0][at].ref, x[ids].ref) : np.zeros([]);
        const [value, [all, ofRows]] = differentiate(parameters, looked, refs(rest));
        [loss, gradients] = [value, all];
        if (table) {
          all[at].dispose();
          gradients[at] = scatter(state[0][at].ref, x[ids].ref, ofRows);
        } else ofRows.dispose();
      }
      state = update(state[0], gradients, state[1], state[2], scales);
      await jax.blockUntilReady([loss, state]);
      return loss;
    };
    return { step, parameters: () => state[0] };
  };

  return async (program) => {
    const { inputs, kind, wrt } = program;
    const x: Named = {};
    for (const [name, input] of Object.entries(inputs)) {
      x[name] = upload(valuesOf(name, input), input.shape);
      await x[name].blockUntilReady();
    }
    if (kind === "training" || kind === "update") {
      const { step, parameters } = stateful(program, x);
      return {
        run: async () => (await step()).dispose(),
        outputs: async () => {
          const losses: number[] = [];
          for (let i = 0; i < (kind === "update" ? 1 : 3); i++)
            losses.push((await (await step()).data())[0]);
          return kind === "update"
            ? Promise.all(parameters().map((p: Foreign) => p.ref.data()))
            : [losses];
        },
        dispose: () => {},
      };
    }
    if (kind === "decode") {
      const length = inputs.at.shape[0];
      const fn = jax.jit((named: Named) => {
        const [scores, cache] = program.forward(ops, named);
        return [np.argmax(scores, -1), cache];
      });
      const feeds = decodingFeeds(length, upload);
      const decode = async () => {
        const tokens: Foreign[] = [];
        let [id, cache] = [x.id.ref, x.cache.ref];
        for (const feed of feeds) {
          const { id: _, cache: __, at: ___, rest: ____, mask: _____, ...weights } = x;
          const [next, grown] = fn({ ...refs(weights), ...refs(feed), id, cache });
          tokens.push(next.ref);
          [id, cache] = [next, grown];
        }
        id.dispose();
        cache.dispose();
        const found: number[] = [];
        for (const token of tokens) found.push((await token.data())[0]);
        return found;
      };
      return {
        run: async () => void (await decode()),
        outputs: async () => [await decode()],
        dispose: () => {},
      };
    }
    const fn = jax.jit((named: Named) => {
      if (kind === "forward") return program.forward(ops, named);
      const forward = (...list: Foreign[]) =>
        program.forward(ops, {
          ...named,
          ...Object.fromEntries(wrt.map((name, i) => [name, list[i]])),
        })[0];
      const [out, pull] = jax.vjp(
        forward,
        wrt.map((name) => named[name].ref),
      );
      return [out, ...pull(named.g.ref)];
    });
    return {
      run: async () => {
        const results = fn(refs(x));
        await jax.blockUntilReady(results);
        for (const r of results) r.dispose();
      },
      outputs: () => Promise.all(fn(refs(x)).map((r: Foreign) => r.data())),
      dispose: () => {
        for (const t of Object.values(x)) t.dispose();
        fn.dispose?.();
      },
    };
  };
}

/** Kept for good: a collected instance of Dawn crashes the process. */
let dawn: Foreign;

/** The web's `navigator.gpu` and its constants, by the package and with the toggles that Hinode has. */
async function provideGpu(): Promise<void> {
  const { create, globals } = await import("webgpu");
  Object.assign(globalThis, globals);
  dawn = create([`enable-dawn-features=${defaultToggles.join(",")}`]);
  Object.defineProperty(globalThis.navigator, "gpu", { value: dawn });
}

export async function open(threads: number, device: Device): Promise<Framework> {
  if (device === "webgpu") await provideGpu();
  else if (threads > 1) provideWorkers(threads);
  const jax = await importPeer("@jax-js/jax");
  const found: string[] = await jax.init(device);
  if (!found.includes(device)) throw new Unsupported(`no ${device}`);
  jax.defaultDevice(device);
  return { name: "jax-js", version: versionOf("@jax-js/jax"), prepare: prepareWith(jax) };
}
