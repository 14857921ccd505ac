/**
 * @file GPU schedules of matrix products: every form, on shapes around all edges, run invocation by invocation with race
 * detection and compared with the reference.
 */
import { describe, expect, test } from "vitest";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import type { DType } from "../../core/dtype.ts";
import * as g from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { placeholder } from "../../core/graph/primitives.ts";
import {
  type Choose,
  candidates,
  chooseForm,
  evenSplits,
  type Form,
  fitTile,
  type MatrixTile,
  matrixSharedBytes,
  matrixThreads,
  type ProductShape,
  sharedBytesOf,
  type Tile,
  threadsOf,
} from "../../core/kernel/gpu/matmul-tile.ts";
import type { Stmt } from "../../core/kernel/ir.ts";
import { formatKernel } from "../../core/kernel/print.ts";
import { conv2d } from "../../core/ops/convolution.ts";
import { fromNode } from "../../core/tensor.ts";
import { lowerRegions } from "../../core/transform/region.ts";
import { gradients } from "../../core/transform/vjp.ts";
import { runGraph } from "../support/differential.ts";
import { difference, type RandomGraph } from "../support/graphs.ts";
import { gpuTarget, InterpretedBackend, type Lower } from "../support/interpreted.ts";
import {
  epilogues,
  graphOf,
  layouts,
  type ProductCase,
  productGraph,
  withForms,
} from "../support/products.ts";

const reference = new ReferenceBackend();
const large = { invocations: 1024, sharedBytes: 49152 };
const small = { invocations: 128, sharedBytes: 16384 };
/** As an H100. */
const matrices = { f16: true, subgroupMatrix: true, subgroupMin: 32, subgroupMax: 32 };

function agree(graph: RandomGraph, lower: Lower, what: string): void {
  const want = runGraph(reference, graph);
  const got = runGraph(new InterpretedBackend(lower), graph);
  graph.outputs.forEach((n, i) => {
    expect(difference(got[i], want[i], n.dtype, 1e-6), `${what}: output ${i}`).toBeNull();
  });
}

const check = (c: ProductCase, lower: Lower = withForms()): void =>
  agree(productGraph(c), lower, JSON.stringify(c));

/** The kernels of a product as text. */
function stagesOf(c: ProductCase, lower: Lower): string {
  const texts: string[] = [];
  const shown: Lower = (group, inMemory) => {
    const lowered = lower(group, inMemory);
    texts.push(...lowered.stages.map((s) => formatKernel(s.kernel)));
    return { ...lowered, stages: [] };
  };
  runGraph(new InterpretedBackend(shown), productGraph(c));
  return texts.join("\n");
}

const tiled = (tile: Partial<Tile>, splits = 1): Choose => {
  const base: Tile = {
    m: 32,
    n: 32,
    k: 8,
    rows: 4,
    columns: 4,
    stages: 1,
    prefetch: true,
    pad: 0,
  };
  const whole = { ...base, ...tile };
  return (shape) => ({ form: "tiled", tile: whole, splits: evenSplits(shape.k, whole.k, splits) });
};

const sizes = [1, 2, 3, 5, 17, 31, 33, 64, 65, 127, 129, 257];

// Small products are done without tiles: so both what is chosen, and tiles.
describe.each([
  ["the chosen form", withForms()],
  ["tiles", withForms(tiled({ k: 16 }))],
])("%s", (_, lower) => {
  test("every size in every place", () => {
    // Beside others whose product stays small.
    for (const [i, size] of sizes.entries())
      for (const turn of [0, 1]) {
        const [x, y] = [sizes[(i + 5 + turn) % 7], sizes[(2 * i + turn) % 7]];
        check({ m: size, n: x, k: y }, lower);
        check({ m: y, n: size, k: x }, lower);
        check({ m: x, n: y, k: size }, lower);
      }
  });

  test("batches, layouts and computed operands", () => {
    for (const [i, a] of layouts.entries())
      for (const turn of [0, 1, 3]) {
        const b = layouts[(i + turn) % layouts.length];
        check({ batch: 2, m: 19, n: 23, k: 37, a, b }, lower);
        check({ batch: 2, m: 3, n: 34, k: 68, a, b }, lower);
      }
  });

  test("epilogues", () => {
    for (const epilogue of epilogues) {
      check({ batch: 2, m: 37, n: 18, k: 21, epilogue }, lower);
      check({ batch: 2, m: 36, n: 20, k: 24, epilogue, b: "transposed" }, lower);
      check({ batch: 1, m: 5, n: 36, k: 90, epilogue }, lower);
      check({ batch: 1, m: 41, n: 3, k: 90, epilogue }, lower);
      check({ batch: 2, m: 41, n: 43, k: 3, epilogue }, lower);
    }
  });

  test.each<DType>(["f16", "bf16", "i32", "u32", "i8", "u8"])("%s", (dtype) => {
    for (const epilogue of ["none", "two"] as const) {
      check({ batch: 2, m: 33, n: 19, k: 40, dtype, epilogue }, lower);
      check({ m: 2, n: 31, k: 70, dtype, epilogue, b: "transposed", a: "computed" }, lower);
      check({ m: 2, n: 32, k: 70, dtype, epilogue }, lower);
    }
  });

  test("an empty sum, and nothing at all", () => {
    check({ m: 3, n: 5, k: 0, epilogue: "bias" });
    check({ m: 70, n: 66, k: 0 });
    check({ m: 0, n: 5, k: 4 });
  });
});

test("large sides together", () => {
  check({ m: 129, n: 127, k: 17 });
  check({ m: 65, n: 33, k: 129 });
  check({ m: 64, n: 64, k: 64 }, withForms(undefined, small));
});

/** A choice whatever the shape. */
const always =
  (form: Form): Choose =>
  () =>
    form;

const forms: readonly [name: string, choose: Choose][] = [
  ["32 × 32, 4 × 4", tiled({})],
  ["32 × 32, rows of 2, columns of 8", tiled({ rows: 2, columns: 8 })],
  ["16 × 64, one row, padded", tiled({ m: 16, n: 64, rows: 1, columns: 4, pad: 4 })],
  ["64 × 16, 8 × 4, without prefetch", tiled({ m: 64, n: 16, rows: 8, prefetch: false })],
  ["two stages", tiled({ stages: 2 })],
  ["two stages without prefetch", tiled({ stages: 2, prefetch: false, k: 12 })],
  ["deeper than there are invocations for", tiled({ m: 16, n: 16, k: 20 })],
  ["three parts", tiled({}, 3)],
  ["seven parts, uneven", tiled({ k: 4, m: 16, n: 16, rows: 2 }, 7)],
  [
    "dot, one invocation a column",
    always({ form: "dot", swap: false, threads: 32, width: 1, columns: 2, splits: 1 }),
  ],
  [
    "dot, swapped, in parts",
    (shape) => ({
      form: "dot",
      swap: true,
      threads: 32,
      width: 8,
      columns: 1,
      splits: evenSplits(shape.k, 32, 3),
    }),
  ],
  ["columns", always({ form: "columns", swap: false, across: 4, along: 4, splits: 1 })],
  [
    "columns, swapped, in parts",
    (shape) => ({
      form: "columns",
      swap: true,
      across: 2,
      along: 3,
      splits: evenSplits(shape.k, 3, 5),
    }),
  ],
  ["direct", always({ form: "direct", swap: false, threads: 32, rows: 4 })],
  ["direct, swapped", always({ form: "direct", swap: true, threads: 32, rows: 1 })],
];

describe("forms on every shape", () => {
  test.each(forms)("%s", (_, choose) => {
    const lower = withForms(choose);
    for (const [m, n, k] of [
      [1, 1, 1],
      [1, 33, 5],
      [2, 3, 64],
      [33, 1, 17],
      [32, 32, 32],
      [5, 31, 33],
      [17, 34, 40],
    ])
      for (const swapped of [false, true]) {
        const layout = swapped ? "transposed" : "plain";
        check({ m, n, k, a: layout, b: layout, epilogue: "bias" }, lower);
      }
    check({ batch: 3, m: 18, n: 19, k: 25, a: "shared", b: "computed", epilogue: "two" }, lower);
    check({ batch: 2, m: 7, n: 12, k: 29, a: "padded", b: "mixed", epilogue: "long" }, lower);
    check({ m: 20, n: 24, k: 29, dtype: "f16", epilogue: "update" }, lower);
  });

  // One step of a whole tile and one over all its edges.
  const shape: ProductShape = {
    batch: 1,
    m: 1024,
    n: 1024,
    k: 1024,
    dtype: "f32",
    aAlongK: true,
    bAlongK: false,
  };
  const table = candidates(shape, { ...gpuTarget, ...large }).flatMap((f) =>
    f.form === "tiled" && f.splits === 1 ? [f.tile] : [],
  );
  test.each(table.map((tile) => [`${tile.m} × ${tile.n} × ${tile.k}`, tile] as const))(
    "the table's %s",
    (_, tile) => {
      const lower = withForms(tiled({ ...tile, k: 4 }), large);
      check({ m: tile.m, n: tile.n, k: 8 }, lower);
      check({ m: tile.m + 1, n: tile.n - 3, k: 5, b: "transposed", epilogue: "long" }, lower);
    },
  );
});

describe("tensor cores", () => {
  const tile = (t: Partial<MatrixTile>, splits = 1): Choose => {
    const base: MatrixTile = { m: 32, n: 32, k: 32, rows: 16, columns: 32, pad: 8 };
    const whole = { ...base, ...t };
    return (shape) => ({
      form: "matrix",
      tile: whole,
      width: 8,
      splits: evenSplits(shape.k, whole.k, splits),
    });
  };
  const target = { ...large, ...matrices };
  test.each([
    ["subgroups above one another", tile({})],
    ["in parts, two by two", tile({ m: 32, n: 64, rows: 16, columns: 32, k: 16 }, 2)],
    ["one subgroup, not padded", tile({ m: 16, n: 16, columns: 16, pad: 0 })],
  ])("%s", (_, choose) => {
    const lower = withForms(choose, target);
    const dtype = "f16";
    check({ m: 32, n: 32, k: 32, dtype }, lower);
    check({ m: 1, n: 3, k: 5, dtype, epilogue: "bias" }, lower);
    check({ m: 33, n: 47, k: 65, dtype, a: "transposed", b: "transposed" }, lower);
    check({ batch: 2, m: 20, n: 30, k: 40, dtype, a: "computed", epilogue: "residual" }, lower);
    check({ batch: 2, m: 20, n: 28, k: 40, dtype, b: "padded", epilogue: "two" }, lower);
    check({ m: 40, n: 36, k: 17, dtype, a: "mixed", b: "cast", epilogue: "update" }, lower);
    check({ m: 34, n: 33, k: 20, dtype, epilogue: "long" }, lower);
  });

  test("the chosen tiles", () => {
    check({ m: 66, n: 70, k: 40, dtype: "f16" }, withForms(undefined, target));
    const chosen = withForms(undefined, target);
    expect(stagesOf({ m: 128, n: 128, k: 128, dtype: "f16" }, chosen)).toContain(
      "matrix sum: result",
    );
  });
});

describe("convolutions", () => {
  const leaf = (shape: readonly number[]): Node => placeholder("f32", shape, "wasm");
  test.each([
    ["3 × 3, padding 1", [2, 3, 7, 6], [5, 3, 3, 3], { padding: 1 }],
    ["5 × 3, stride 2", [2, 2, 9, 11], [4, 2, 5, 3], { stride: 2, padding: [2, 0] }],
    ["1 × 1", [1, 9, 5, 5], [8, 9, 1, 1], {}],
    ["groups, dilation", [2, 4, 9, 9], [6, 2, 3, 3], { groups: 2, dilation: 2, padding: 2 }],
  ] as const)("%s, and both gradients", (_, x, w, options) => {
    const [input, weight] = [leaf(x), leaf(w)];
    const y = conv2d(fromNode(input), fromNode(weight), null, options).node;
    const back = gradients([y], [leaf(y.shape)], [input, weight]) as Node[];
    const roots = lowerRegions([g.max(y, g.scalarLike(y, 0)), ...back]);
    const graph = graphOf(roots);
    for (const lower of [withForms(), withForms(tiled({ m: 16, n: 16, k: 8 }, 2))])
      agree(graph, lower, "conv2d");
  });
});

describe("choices", () => {
  const shapeOf = (m: number, n: number, k: number, rest = {}): ProductShape => ({
    batch: 1,
    m,
    n,
    k,
    dtype: "f32",
    aAlongK: true,
    bAlongK: false,
    ...rest,
  });
  const tensorCores = { ...gpuTarget, ...large, ...matrices };
  const targets = [tensorCores, { ...gpuTarget, ...small }, gpuTarget];
  const name = (form: Form): string => {
    if (form.form === "tiled" || form.form === "matrix") {
      const { m, n, k } = form.tile;
      const of = form.form === "matrix" ? "matrices, " : "";
      return `${of}${m} × ${n} × ${k}${form.splits > 1 ? ` in ${form.splits}` : ""}`;
    }
    const splits = form.form !== "direct" && form.splits > 1 ? ` in ${form.splits}` : "";
    return `${form.form}${form.swap ? " swapped" : ""}${splits}`;
  };

  test("by shape", () => {
    const shapes: ProductShape[] = [
      shapeOf(4096, 4096, 4096),
      shapeOf(1024, 1024, 1024),
      shapeOf(577, 1024, 3072),
      shapeOf(8192, 8192, 64),
      shapeOf(256, 256, 256),
      shapeOf(64, 64, 100000),
      shapeOf(768, 768, 8192, { aAlongK: false }),
      shapeOf(16, 4096, 4096),
      shapeOf(1, 4096, 4096),
      shapeOf(1, 4096, 4096, { bAlongK: true }),
      shapeOf(4096, 1, 4096),
      shapeOf(10, 7, 100000),
      shapeOf(1000, 1000, 3),
      shapeOf(10, 12, 14),
      shapeOf(197, 197, 64, { batch: 96, bAlongK: true }),
      shapeOf(4096, 4096, 4096, { halves: true }),
      shapeOf(768, 768, 8192, { halves: true }),
      shapeOf(1000, 60, 300, { halves: true }),
      shapeOf(1, 4096, 4096, { halves: true }),
    ];
    const lines = shapes.map(
      (s) => `${s.batch} × ${s.m} × ${s.n} × ${s.k}: ${name(chooseForm(s, tensorCores))}`,
    );
    expect(lines).toMatchInlineSnapshot(`
      [
        "1 × 4096 × 4096 × 4096: 128 × 128 × 16",
        "1 × 1024 × 1024 × 1024: 128 × 64 × 16",
        "1 × 577 × 1024 × 3072: 128 × 64 × 16 in 8",
        "1 × 8192 × 8192 × 64: 128 × 128 × 16",
        "1 × 256 × 256 × 256: 32 × 32 × 32",
        "1 × 64 × 64 × 100000: 64 × 64 × 16 in 128",
        "1 × 768 × 768 × 8192: 128 × 64 × 16 in 16",
        "1 × 16 × 4096 × 4096: 16 × 64 × 32 in 2",
        "1 × 1 × 4096 × 4096: columns",
        "1 × 1 × 4096 × 4096: dot",
        "1 × 4096 × 1 × 4096: dot swapped",
        "1 × 10 × 7 × 100000: dot swapped in 11",
        "1 × 1000 × 1000 × 3: direct",
        "1 × 10 × 12 × 14: direct",
        "96 × 197 × 197 × 64: 128 × 128 × 16",
        "1 × 4096 × 4096 × 4096: matrices, 128 × 128 × 32",
        "1 × 768 × 768 × 8192: matrices, 128 × 128 × 32 in 8",
        "1 × 1000 × 60 × 300: matrices, 32 × 32 × 32",
        "1 × 1 × 4096 × 4096: columns",
      ]
    `);
  });

  test("all candidates fit their GPU", () => {
    for (const target of targets)
      for (const m of [...sizes, 4096])
        for (const [n, k] of [
          [64, 64],
          [3, 5000],
          [1000, 1000],
          [4096, 1],
        ])
          for (const form of candidates(shapeOf(m, n, k, { halves: true }), target)) {
            const s = shapeOf(m, n, k);
            if (form.form === "tiled") {
              expect(threadsOf(form.tile)).toBeLessThanOrEqual(target.invocations);
              expect(sharedBytesOf(form.tile, "f32")).toBeLessThanOrEqual(target.sharedBytes);
              expect(fitTile(form.tile, s, target)).toEqual(form.tile);
            } else if (form.form === "matrix") {
              expect(matrixThreads(form.tile, form.width)).toBeLessThanOrEqual(target.invocations);
              expect(matrixSharedBytes(form.tile, s)).toBeLessThanOrEqual(target.sharedBytes);
            } else if (form.form === "columns") {
              const few = Math.min(m, n);
              expect(16 * few * form.across * form.along).toBeLessThanOrEqual(target.sharedBytes);
              expect(form.across * form.along).toBeLessThanOrEqual(target.invocations);
            } else expect(form.threads).toBeLessThanOrEqual(target.invocations);
          }
  });
});

test("no barrier is one too many: without any one of them, invocations race", () => {
  const barriers = (body: readonly Stmt[]): number =>
    body.reduce((n, s) => n + (s.k === "barrier" ? 1 : "body" in s ? barriers(s.body) : 0), 0);
  const without = (body: readonly Stmt[], which: { left: number }): Stmt[] =>
    body.flatMap((s): Stmt[] => {
      if (s.k === "barrier") return which.left-- === 0 ? [] : [s];
      return "body" in s ? [{ ...s, body: without(s.body, which) }] : [s];
    });
  const tile = { m: 32, n: 32, k: 16, rows: 16, columns: 32, pad: 0 };
  const choices: Choose[] = [
    tiled({}),
    tiled({ stages: 2 }),
    always({ form: "matrix", tile, width: 8, splits: 1 }),
    always({ form: "columns", swap: false, across: 4, along: 4, splits: 1 }),
  ];
  for (const choose of choices) {
    let counted = 1;
    for (let i = 0; i < counted; i++) {
      const lower = withForms(choose, { ...large, ...matrices });
      const graph = productGraph({ m: 32, n: 32, k: 48, dtype: "f16" });
      const broken: Lower = (group, inMemory) => {
        const lowered = lower(group, inMemory);
        const [stage] = lowered.stages;
        counted = barriers(stage.kernel.body);
        const body = without(stage.kernel.body, { left: i });
        return { ...lowered, stages: [{ ...stage, kernel: { ...stage.kernel, body } }] };
      };
      const run = () => runGraph(new InterpretedBackend(broken), graph);
      expect(run, `barrier ${i} of ${counted}`).toThrow(/race|before it is written/);
    }
  }
});

test("the kernel of a tile", () => {
  const lower = withForms(tiled({ m: 64, n: 64, k: 16, rows: 8, columns: 8 }));
  const text = stagesOf({ m: 64, n: 64, k: 64, epilogue: "bias" }, lower);
  expect(text).toMatchInlineSnapshot(`
    "matmul matmul_add_1x64x64(buf0: read f32[4096], buf1: read f32[4096], buf2: read f32[64], buf3: write f32[4096])
    parallel g < 1, threads t < 64 {
      shared tileA: f32[1024]
      shared tileB: f32[1024]
      local heldA: f32[16]
      local heldB: f32[16]
      local left: f32[8]
      local right: f32[8]
      local sum: f32[64]
      for z < 16 unroll 16 {
        vector l < 4 {
          sum[l + 4*z] = 0.0
        }
      }
      for r < 4 unroll 4 {
        vector l < 4 {
          heldA[l + 4*r] = buf0[4*(((t/8))%4) + 256*(t%8) + 2048*(t/32) + l + 64*r]
        }
      }
      for i < 4 unroll 4 {
        vector l < 4 {
          heldB[4*i + l] = buf1[256*i + l + 4*t]
        }
      }
      for step < 4 {
        for r < 4 unroll 4 {
          vector l < 4 {
            tileA[256*(((t/8))%4) + 4*(t%8) + 32*(t/32) + l + 64*r] = heldA[4*l + r]
          }
        }
        for i < 4 unroll 4 {
          vector l < 4 {
            tileB[256*i + l + 4*t] = heldB[4*i + l]
          }
        }
        barrier
        if step <= 2 {
          for r < 4 unroll 4 {
            vector l < 4 {
              heldA[l + 4*r] = buf0[4*(((t/8))%4) + 256*(t%8) + 2048*(t/32) + l + 16*min(3, step + 1) + 64*r]
            }
          }
          for i < 4 unroll 4 {
            vector l < 4 {
              heldB[4*i + l] = buf1[256*i + l + 1024*min(3, step + 1) + 4*t]
            }
          }
        }
        for k < 16 {
          for r < 2 unroll 2 {
            vector l < 4 {
              left[l + 4*r] = tileA[4*(t/8) + 64*k + l + 32*r]
            }
          }
          for j < 2 unroll 2 {
            vector l < 4 {
              right[4*j + l] = tileB[4*(t%8) + 32*j + 64*k + l]
            }
          }
          for r < 8 unroll 8 {
            for j < 2 unroll 2 {
              vector l < 4 {
                sum[4*j + l + 8*r] = (sum[4*j + l + 8*r] + (left[r] * right[4*j + l]))
              }
            }
          }
        }
        barrier
      }
      for r < 8 unroll 8 {
        for j < 2 unroll 2 {
          vector l < 4 {
            let t8 = buf2[4*(t%8) + 32*j + l]
            let t9 = (sum[4*j + l + 8*r] + t8)
            buf3[64*(r%4) + 2048*(r/4) + 4*(t%8) + 256*(t/8) + 32*j + l] = t9
          }
        }
      }
    }
    "
  `);
});
