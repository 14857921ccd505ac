/**
 * @file ONNX Runtime, in WebAssembly and native: inference only. Weights are part of the model, so it lays them out once; other
 * inputs are fed, which in WebAssembly copies them in, and results out, at every run.
 */
import { type Framework, type Prepared, Unsupported } from "../suite/framework.ts";
import { valuesOf } from "../suite/inputs.ts";
import { decodingFeeds, type Program } from "../suite/programs.ts";
import { record } from "../suite/record.ts";
import { type Foreign, requirePeer, versionOf } from "./foreign.ts";
import { onnxModel } from "./onnx.ts";

export async function open(threads: number, kind: "web" | "node"): Promise<Framework> {
  const ort: Foreign = requirePeer(`onnxruntime-${kind}`);
  if (kind === "web") ort.env.wasm.numThreads = threads;
  const options = {
    executionProviders: [kind === "web" ? "wasm" : "cpu"],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
  };
  const tensor = (values: Float32Array | Int32Array, shape: readonly number[]) =>
    new ort.Tensor(values instanceof Float32Array ? "float32" : "int32", values, shape);

  const prepare = async (program: Program): Promise<Prepared> => {
    const { kind, inputs } = program;
    if (kind !== "forward" && kind !== "decode") throw new Unsupported("forward only");
    const recording = record(program);
    const session = await ort.InferenceSession.create(onnxModel(recording), options);
    const feeds: Record<string, Foreign> = {};
    for (const [name, input] of Object.entries(inputs))
      if (!input.weight) feeds[name] = tensor(valuesOf(name, input), input.shape);
    const dispose = () => void session.release();
    const { outputs } = recording;
    if (kind === "forward") {
      return {
        run: async () => void (await session.run(feeds)),
        outputs: async () => {
          const found = await session.run(feeds);
          return outputs.map((name) => found[name].data);
        },
        dispose,
      };
    }
    const length = inputs.at.shape[0];
    const steps = decodingFeeds(length, tensor);
    const decode = async (): Promise<number[]> => {
      const tokens: number[] = [];
      let { id, cache } = feeds;
      for (const step of steps) {
        const found = await session.run({ ...step, id, cache });
        const scores: Float32Array = found[outputs[0]].data;
        let best = 0;
        for (let i = 1; i < scores.length; i++) if (scores[i] > scores[best]) best = i;
        tokens.push(best);
        id = tensor(Int32Array.of(best), [1]);
        cache = found[outputs[1]];
      }
      return tokens;
    };
    return {
      run: async () => void (await decode()),
      outputs: async () => [await decode()],
      dispose,
    };
  };
  return { name: `onnxruntime-${kind}`, version: versionOf(`onnxruntime-${kind}`), prepare };
}
