/** @file The pure parts of the benchmarks: the list of work, its programs, inputs, the model writer, ratios, table, chart. */
import { describe, expect, test } from "vitest";
import { chart } from "../../bench/peers/chart.ts";
import { onnxModel } from "../../bench/peers/onnx.ts";
import {
  difference,
  type Figure,
  gpuVerdicts,
  markdown,
  replaceSection,
  verdicts,
} from "../../bench/peers/table.ts";
import { cases } from "../../bench/suite/cases.ts";
import { median, runsFor } from "../../bench/suite/clock.ts";
import { sampled, seedOf, valuesOf } from "../../bench/suite/inputs.ts";
import { programOf } from "../../bench/suite/programs.ts";
import { record } from "../../bench/suite/record.ts";

const rows = [
  { id: "a", name: "first", bars: { plain: [10, 4] as const, wide: [5, 3] as const } },
  { id: "b", name: "second" },
];
const figures: Figure[] = [
  { case: "a", peer: "hinode", threads: 1, ms: 8, runs: 20, error: 0 },
  { case: "a", peer: "hinode", threads: 2, ms: 5, runs: 20, error: 0 },
  { case: "a", peer: "hinode-wide", threads: 1, ms: 4, runs: 20, error: 0 },
  { case: "a", peer: "jax-js", threads: 1, ms: 16, runs: 3, error: 1e-6 },
  { case: "a", peer: "jax-js", threads: 2, ms: 10, runs: 20, error: 0.5 },
  { case: "b", peer: "hinode", threads: 1, ms: 2, runs: 20, error: 0 },
  { case: "b", peer: "jax-js", threads: 1, ms: null, why: "no such thing" },
  { case: "b", peer: "jax-js", threads: 2, ms: null, why: "no such thing" },
];

describe("the table", () => {
  test("shows ratios to Hinode on as many threads, few runs, wrong outputs, failures and bars", () => {
    const lines = markdown(rows, ["hinode", "jax-js"], figures, [1, 2]).split("\n");
    const cells = lines.map((line) => line.split("|").map((cell) => cell.trim()));
    expect(cells[0].slice(1, -1)).toEqual(["ms, 1 / 2 threads", "Hinode", "jax-js", "bar"]);
    expect(cells[2].slice(2, -1)).toEqual([
      "8.00 / 5.00",
      "16.0¹ (2.0×) / 10.0 (2.0×) ≠",
      "≤ 10.0 ✓ / 4.00 ✗; 256 bits ≤ 5.00 ✓",
    ]);
    expect(cells[3].slice(2, -1)).toEqual(["2.00 / not run", "✗ no such thing", ""]);
    expect(new Set(lines.map(({ length }) => length)).size).toBe(1);
  });

  test("judges each bar that has a figure", () => {
    expect(verdicts(rows, figures).map(({ peer, threads, met }) => [peer, threads, met])).toEqual([
      ["hinode", 1, true],
      ["hinode", 2, false],
      ["hinode-wide", 1, true],
    ]);
  });

  test("on a GPU a bar is a ratio to a peer of the same run", () => {
    const step = { id: "gpt", name: "step", gpuBars: { "jax-js": 60, torch: 1.5 } };
    const found: Figure[] = [
      { case: "gpt", peer: "hinode", threads: 1, ms: 4, error: 0 },
      { case: "gpt", peer: "torch", threads: 1, ms: 5, error: 0 },
      { case: "gpt", peer: "jax-js", threads: 1, ms: 260, error: 0 },
    ];
    expect(gpuVerdicts([step], found).map(({ peer, met }) => [peer, met])).toEqual([
      ["jax-js", true],
      ["torch", false],
    ]);
    const [head, , row] = markdown([step], ["hinode"], found, [1], "webgpu").split("\n");
    expect(head).toMatch(/^\| ms +\| Hinode +\| bar/);
    expect(row).toContain("≥ 60 × jax-js ✓; ≥ 1.5 × PyTorch ✗");
  });

  test("replaces its section of a document and nothing else", () => {
    const first = replaceSection("# Title\n\ntext\n", "one");
    expect(first).toContain("text\n\n<!-- bench:peers -->\none\n");
    const second = replaceSection(`${first}after\n`, "two");
    expect(second).toBe(`${first.replace("one", "two")}after\n`);
    const third = replaceSection(second, "three", "bench:peers:gpu");
    expect(third).toBe(`${second}\n<!-- bench:peers:gpu -->\nthree\n<!-- /bench:peers:gpu -->\n`);
  });

  test("the chart has a mark for each ratio, named by peer", () => {
    const svg = chart(rows, ["hinode", "hinode-wide", "jax-js"], figures, 1);
    expect([...svg.matchAll(/<title>(.*?)<\/title>/g)].map(([, text]) => text)).toEqual([
      "Time as a multiple of Hinode's, 1 thread",
      "Hinode, 256 bits: 0.500",
      "jax-js: 2.00",
    ]);
  });
});

test("differences are shares of the largest value; other shapes and lonely NaNs are infinitely far", () => {
  expect(difference([[1, -4]], [[1.5, -4]])).toBeCloseTo(0.125, 12);
  expect(difference([[0, 0]], [[0, 0]])).toBe(0);
  expect(difference([[1, 2]], [[1]])).toBe(Infinity);
  expect(difference([[1], [2]], [[1]])).toBe(Infinity);
  expect(difference([[1]], [[Number.NaN]])).toBe(Infinity);
});

test("medians, and how often a call of so many milliseconds is repeated", () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 3])).toBe(2.5);
  const patience = { warm: 300, measure: 500, atLeast: 10, atMost: 100 };
  expect([0.1, 20, 200, 2000, 9000].map((ms) => runsFor(ms, patience))).toEqual([
    100, 25, 10, 3, 1,
  ]);
});

describe("the work", () => {
  test("inputs are the same numbers everywhere", () => {
    // FNV-1a of "a", and the values that pytorch.py computes.
    expect(seedOf("a")).toBe(0xe40c292c);
    const floats = valuesOf("a", { shape: [2, 3], dtype: "f32", scale: 2, shift: 1 });
    expect(Array.from(floats)).toEqual([
      -0.585895299911499, -0.6237599849700928, 0.4148595333099365, 1.6095190048217773,
      0.45529723167419434, -0.640568733215332,
    ]);
    const integers = valuesOf("ids", { shape: [5], dtype: "i32", scale: 10 });
    expect(Array.from(integers)).toEqual([2, 5, 7, 0, 0]);
    expect(
      sampled(
        Float32Array.from({ length: 100 }, (_, i) => i),
        10,
      ),
    ).toHaveLength(10);
  });

  test("ids are unique, quick has the same cases, every program can be recorded", () => {
    const all = cases();
    expect(new Set(all.map(({ id }) => id)).size).toBe(all.length);
    expect(cases({ quick: true }).map(({ family }) => family)).toEqual(
      all.map(({ family }) => family),
    );
    for (const c of cases({ quick: true })) {
      const program = programOf(c);
      const { outputs, shapes } = record(program);
      for (const name of outputs) expect(shapes[name], c.id).toBeDefined();
      if (program.kind === "gradient") expect(shapes[outputs[0]]).toEqual(program.inputs.g.shape);
      if (program.kind === "training") expect(shapes[outputs[0]]).toEqual([]);
    }
  });
});

/** The fields of a protocol buffer's message: [number, value or bytes]. */
function fields(bytes: Uint8Array): [field: number, value: number | Uint8Array][] {
  const found: [number, number | Uint8Array][] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return Number(BigInt.asIntN(64, value));
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    if ((tag & 7) === 0) found.push([tag >> 3, varint()]);
    else {
      const length = (tag & 7) === 5 ? 4 : varint();
      found.push([tag >> 3, bytes.subarray(at, at + length)]);
      at += length;
    }
  }
  return found;
}

test("the ONNX writer's bytes read back as the graph that was recorded", () => {
  const c = cases({ quick: true }).find(({ id }) => id === "layernorm")!;
  const program = programOf(c);
  const model = fields(onnxModel(record(program)));
  const text = (bytes: number | Uint8Array): string =>
    new TextDecoder().decode(bytes as Uint8Array);
  const all = (list: typeof model, field: number) =>
    list.filter(([f]) => f === field).map(([, value]) => value);
  const graph = fields(all(model, 7)[0] as Uint8Array);
  const [node] = all(graph, 1).map((n) => fields(n as Uint8Array));
  expect(text(all(node, 4)[0])).toBe("LayerNormalization");
  expect(all(node, 1).map(text)).toEqual(["x", "weight", "bias"]);
  const attributes = all(node, 5).map((a) => fields(a as Uint8Array));
  expect(attributes.map((a) => text(all(a, 1)[0]))).toEqual(["axis", "epsilon"]);
  expect(all(attributes[0], 3)).toEqual([-1]);
  const weights = all(graph, 5).map((t) => fields(t as Uint8Array));
  expect(weights.map((t) => text(all(t, 8)[0]))).toEqual(["weight", "bias"]);
  const data = all(weights[0], 9)[0] as Uint8Array;
  const values = valuesOf("weight", program.inputs.weight);
  expect(new Float32Array(Uint8Array.from(data).buffer)).toEqual(values);
  expect(all(weights[0], 1)).toEqual([...program.inputs.weight.shape]);
});
