/**
 * @file Connectors: the C-Abstractor's numbers and sizes, cells of a grid, and other resolutions.
 */
import { init, manualSeed, randn, type Tensor, tensor, zeros } from "hinode";
import {
  AttentionPoolConnector,
  AveragePoolConnector,
  CAbstractor,
  type Connector,
  type ConnectorChoice,
  cAbstractorNames,
  createConnector,
  loadWeights,
  resizeCAbstractor,
  storedShape,
} from "hinode/models";
import type { Module } from "hinode/nn";
import { beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const close = { rtol: 1e-4, atol: 1e-5 };
const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
const parametersOf = (model: Module) => model.parameters().reduce((n, p) => n + sizeOf(p.shape), 0);

onEachDevice("connectors", (device) => {
  beforeAll(() => {
    manualSeed(3);
  });

  test("the C-Abstractor gives Honeybee's numbers", async () => {
    const connector = new CAbstractor({
      ...{ visionWidth: 4, patches: 4, tokens: 4, width: 3, hidden: 6, depth: 1 },
    });
    const names = cAbstractorNames(connector);
    const block = (name: string, ...more: string[]) =>
      ["conv1", "conv2", "se", "conv3", ...more].flatMap((part) =>
        part === "se"
          ? ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"].map((w) => `${name}.se.${w}`)
          : ["conv.weight", "bn.weight", "bn.bias"].map((w) => `${name}.${part}.${w}`),
      );
    const order = [
      "pos_emb",
      ...block("net.0.b1", "downsample"),
      ...block("net.2.b1"),
      ...["readout.0.weight", "readout.0.bias", "readout.2.weight", "readout.2.bias"],
    ];
    expect([...names.keys()].sort()).toEqual([...order].sort());
    const weights = order.map((name, k): [string, Tensor] => {
      const shape = storedShape(names.get(name)!);
      const norm = name.endsWith("bn.weight") ? 1 : 0;
      const values = Array.from({ length: sizeOf(shape) }, (_, i) => norm + 0.4 * Math.sin(0.7 * i + 1.3 * k)); // biome-ignore format: one line
      return [name, tensor(Float32Array.from(values), { shape })];
    });
    await loadWeights(names, Object.fromEntries(weights));
    const x = tensor(Float32Array.from({ length: 64 }, (_, i) => Math.sin(0.37 * i)), { shape: [1, 16, 4] }); // biome-ignore format: one line
    const want = [
      [-0.418874, -0.229602, 0.271773],
      [-0.49204, -0.172375, 0.287158],
      [-0.397699, -0.252042, 0.273255],
      [-0.426117, -0.170303, 0.219143],
    ];
    expect(difference(await connector.forward(x).data(), want.flat(), { rtol: 1e-5, atol: 2e-6 })).toBeNull(); // biome-ignore format: one line
  });

  test("its first norm has timm's eps on its own, and learned tokens stand at the end", async () => {
    const connector = new CAbstractor({
      ...{ visionWidth: 2, patches: 1, tokens: 1, width: 2, depth: 0, mlpDepth: 1 },
      ...{ preNorm: true, eosTokens: 1, positions: false },
    });
    const { preNorm, readout, eos } = connector;
    // A variance of 1e-6, as large as what is added to it: ±1/√2.
    const [a, b] = await preNorm!.forward(tensor([0, 2e-3])).data();
    expect([a, b].map((v) => Math.abs(v).toFixed(3))).toEqual(["0.707", "0.707"]);
    const x = randn([1, 1, 2]);
    const want = [...(await readout[0].forward(preNorm!.forward(x)).data()), ...(await eos!.data())]; // biome-ignore format: one line
    expect(difference(await connector.forward(x).data(), want, close)).toBeNull();
  });

  test("cells are the means of rows ⌊i·n/k⌋ … ⌈(i+1)·n/k⌉, also where they overlap", async () => {
    for (const [h, w, g] of [
      [5, 5, 3],
      [4, 6, 2],
      [3, 3, 3],
    ]) {
      // biome-ignore format: pairs
      const connector = new AveragePoolConnector({ visionWidth: 1, grid: g, width: 1 });
      connector.projection.weight = tensor([[1]]);
      connector.projection.bias = tensor([0]);
      const x = Array.from({ length: h * w }, (_, i) => (i * i) % 7);
      const range = (i: number, n: number) => {
        const [from, to] = [Math.floor((i * n) / g), Math.ceil(((i + 1) * n) / g)];
        return Array.from({ length: to - from }, (_, j) => from + j);
      };
      const want = Array.from({ length: g * g }, (_, cell) => {
        const rows = range(Math.floor(cell / g), h);
        const columns = range(cell % g, w);
        const values = rows.flatMap((r) => columns.map((c) => x[r * w + c]));
        return values.reduce((a, b) => a + b) / values.length;
      });
      const got = connector.forward(tensor([x.map((v) => [v])]), [h, w]);
      expect(difference(await got.data(), want, close)).toBeNull();
    }
  });

  test("attention pooling is q + attention(norm(q), norm(x) + positions), then a linear map", async () => {
    const connector = new AttentionPoolConnector({ visionWidth: 2, patches: [1, 3], tokens: 2, width: 1 }); // biome-ignore format: one line
    const [round] = connector.rounds;
    connector.queries = tensor([[0.3, -0.4], [0.1, 0.5]]); // biome-ignore format: rows
    connector.positions = tensor([[0, 0.1], [0.2, 0], [0.3, 0.3]]); // biome-ignore format: rows
    connector.projection.weight = tensor([[1, -2]]);
    connector.projection.bias = tensor([0.5]);
    // Queries, keys and values 2, 1 and 3 times their inputs; the MLP adds nothing.
    const eye = [[1, 0], [0, 1]]; // biome-ignore format: rows
    round.attention.qkv!.weight = tensor([2, 1, 3].flatMap((f) => eye.map((row) => row.map((v) => f * v)))); // biome-ignore format: one line
    round.attention.out.weight = tensor(eye);
    round.feedForward.down.weight = zeros(round.feedForward.down.weight.shape);
    round.feedForward.down.bias = null;
    const x = [[1, 2], [0, -1], [3, 1]]; // biome-ignore format: rows
    const norm = ([a, b]: number[]) => {
      const half = (a - b) / 2;
      return [half, -half].map((v) => v / Math.sqrt(half * half + 1e-5));
    };
    const positions = (await connector.positions.tolist()) as number[][];
    const keys = x.map((row, i) => norm(row).map((v, j) => v + positions[i][j]));
    const want = ((await connector.queries.tolist()) as number[][]).map((q) => {
      const n = norm(q);
      const scores = keys.map((k) => Math.exp((2 * (n[0] * k[0] + n[1] * k[1])) / Math.SQRT2));
      const total = scores.reduce((a, b) => a + b);
      const mixed = [0, 1].map((j) => keys.reduce((a, k, i) => a + (scores[i] / total) * 3 * k[j], q[j])); // biome-ignore format: one line
      return mixed[0] - 2 * mixed[1] + 0.5;
    });
    const got = await connector.forward(tensor([x]), [1, 3]).data();
    expect(difference(got, want, close)).toBeNull();
  });

  test("attention pooling knows places by its positions alone", async () => {
    const config = { visionWidth: 4, patches: 2, tokens: 3, width: 5 };
    const x = randn([1, 4, 4]);
    const shuffled = x.indexSelect(1, tensor([2, 0, 3, 1], { dtype: "i32" }));
    const both = async (connector: Connector) => [
      await connector.forward(x).data(),
      await connector.forward(shuffled).data(),
    ];
    const [a, b] = await both(new AttentionPoolConnector({ ...config, positions: false }));
    expect(a.length).toBe(15);
    expect(difference(a, b, close)).toBeNull();
    const [c, d] = await both(new AttentionPoolConnector(config));
    expect(difference(c, d, { rtol: 0, atol: 1e-7 })).not.toBeNull();
  });

  test.skipIf(device === "webgpu")("positions follow the resolution", async () => {
    const config = { visionWidth: 4, patches: 4, tokens: 4, width: 3, hidden: 4, depth: 1 };
    const connector = new CAbstractor(config);
    const x = randn([2, 36, 4]);
    const resized = resizeCAbstractor(connector, 6);
    expect(resized.positions!.shape).toEqual([36, 4]);
    expect(resized.readout[0]).toBe(connector.readout[0]);
    const [a, b] = [await connector.forward(x).data(), await resized.forward(x).data()];
    expect(difference(a, b, close)).toBeNull();
    const wide = await connector.forward(randn([1, 24, 4]), [4, 6]).data();
    expect(wide.length).toBe(12);
    const pool = new AttentionPoolConnector({ visionWidth: 4, patches: 4, tokens: 2, width: 3 });
    expect(pool.forward(x).shape).toEqual([2, 2, 3]);
  });
});

describe("sizes", () => {
  beforeAll(async () => {
    await init({ device: "wasm" });
  });

  test("parameters of Honeybee's module, without making them", () => {
    const counts = [[1024, 24, 2048], [1280, 27, 3072], [1280, 27, 4096]].map(
      ([visionWidth, patches, width]) =>
        parametersOf(new CAbstractor({ visionWidth, patches, width, tokens: 144 })),
    ); // biome-ignore format: a table
    expect(counts).toEqual([22_713_856, 31_056_704, 39_447_360]);
  });

  test("every kind has its number of tokens, and wrong ones are refused", () => {
    const ends = { visionWidth: 4, patches: [4, 4], width: 6 } as const;
    const kinds: [ConnectorChoice, number][] = [
      [{ kind: "average", tokens: 9 }, 9],
      [{ kind: "attention", tokens: 5 }, 5],
      [{ kind: "c-abstractor", tokens: 4, hidden: 4, depth: 1, eosTokens: 2, preNorm: true }, 6],
      [{ kind: "c-abstractor", tokens: 4, depth: 0, mlpDepth: 1, positions: false }, 4],
      [{ kind: "linear" }, 16],
      [{ kind: "mlp", bias: false }, 16],
    ];
    for (const [choice, tokens] of kinds) {
      const connector = createConnector(choice, ends);
      expect(connector.forward(randn([2, 16, 4])).shape).toEqual([2, tokens, 6]);
      expect(connector.tokensOf([4, 4])).toBe(tokens);
    }
    const other = { kind: "perceiver" } as unknown as ConnectorChoice;
    expect(() => createConnector(other, ends)).toThrow(
      /c-abstractor, linear or mlp, got perceiver/,
    );
    const abstract = new CAbstractor({ ...ends, tokens: 4, hidden: 4 });
    expect(() => abstract.forward(randn([1, 17, 4]))).toThrow(/N = n · n, got \[1, 17, 4\]/);
    expect(() => abstract.forward(randn([1, 16, 4]), [3, 5])).toThrow(/\[B, 3 · 5, 4\]/);
    expect(() => new CAbstractor({ ...ends, tokens: 5 })).toThrow(/a square, got 5/);
    expect(() => new CAbstractor({ ...ends, tokens: 4, mlpDepth: 0 })).toThrow(/mlpDepth/);
  });
});
