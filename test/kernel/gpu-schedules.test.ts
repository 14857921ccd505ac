/**
 * GPU schedules of maps and rows: every kernel is run invocation by invocation, with race detection, and its results are
 * compared with the reference, for sizes around every boundary and for GPUs of different limits.
 */
import { describe, expect, test } from "vitest";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import * as g from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { constant, node } from "../../core/graph/primitives.ts";
import { lowerForGpu, type Stage } from "../../core/kernel/gpu/lower.ts";
import type { GpuTarget } from "../../core/kernel/gpu/target.ts";
import { interpret } from "../../core/kernel/interpret.ts";
import type { Stmt } from "../../core/kernel/ir.ts";
import { formatKernel } from "../../core/kernel/print.ts";
import { schedule } from "../../core/schedule/schedule.ts";
import { compareOnRandomGraphs, runGraph } from "../support/differential.ts";
import { difference, randomGradientGraph, randomStateGraph } from "../support/graphs.ts";
import { gpuTarget, InterpretedGpuBackend } from "../support/interpreted.ts";
import * as cases from "../support/schedule-cases.ts";
import { type Case, graphOf, inputsOf, leaf, softmax } from "../support/schedule-cases.ts";
import { seed as first } from "../support/seed.ts";

const targets: Record<string, Partial<GpuTarget>> = {
  usual: {},
  large: { invocations: 1024, sharedBytes: 49152, subgroups: true, subgroupMin: 32 },
  tiny: { invocations: 64, sharedBytes: 16384 },
};
const backends = Object.values(targets).map((t) => new InterpretedGpuBackend(t));
const reference = new ReferenceBackend();
const sizes = [1, 2, 3, 4, 5, 31, 32, 33, 255, 256, 257, 1000];
let seed = first;

/** The outputs are the reference's, on one target after the other or on `on`. */
function agree(list: Iterable<Case>, on?: InterpretedGpuBackend): void {
  for (const c of list) {
    const graph = graphOf(c, seed++);
    const backend = on ?? backends[seed % backends.length];
    const [got, want] = [runGraph(backend, graph), runGraph(reference, graph)];
    c.outputs.forEach((n, i) => {
      const found = difference(got[i], want[i], n.dtype);
      expect(found, `${n.op} ${n.dtype}[${n.shape}] of seed ${seed - 1}`).toBeNull();
    });
  }
}

/** The kernels of a graph. */
function stages(outputs: readonly Node[], target: GpuTarget = gpuTarget): Stage[] {
  return schedule(inputsOf(outputs), outputs).steps.flatMap((step) => {
    if (step.k === "loop") return [];
    const reads = new Set(step.reads);
    return [...lowerForGpu(step.group, (n) => reads.has(n), target).stages];
  });
}
const text = (outputs: readonly Node[]): string =>
  stages(outputs)
    .map((s) => formatKernel(s.kernel))
    .join("\n");

/** Statements of a kernel, inner ones too, for which `test` holds. */
const count = (body: readonly Stmt[], test: (s: Stmt) => boolean): number =>
  body.reduce(
    (n, s) => n + Number(test(s)) + (s.k === "loop" || s.k === "if" ? count(s.body, test) : 0),
    0,
  );

describe("maps", () => {
  test("of every size and dtype", () => agree(cases.elementwise(sizes)));

  test("with broadcast operands", () =>
    agree(cases.broadcasts([[3, 5], [7, 4], [33, 31], [64, 32], [5, 256], [257, 3]]))); // biome-ignore format: one line

  test("across the grain: tiles through workgroup memory", () => {
    agree(cases.transposes([[16, 16], [33, 64], [64, 33], [100, 68], [31, 257], [40, 1000]])); // biome-ignore format: one line
    expect(text([g.permute(leaf([64, 64]), [1, 0])])).toContain("shared");
    expect(text([g.permute(leaf([2, 64, 8, 64]), [0, 2, 1, 3])])).not.toContain("shared");
  });

  test("through movement, look-ups and joins", () => agree(cases.movements([5, 32, 100])));

  test("store bytes by whole words, but for the last ones", () => {
    const [x, y] = [leaf([1003]), leaf([1003])];
    expect(text([node("lt", [x, y])])).toMatchInlineSnapshot(`
      "map map_lt_1003(buf0: read f32[1003], buf1: read f32[1003], buf2: write bool[1003])
      parallel g < 4, threads t < 64 {
        if 64*g + t <= 249 {
          vector l < 4 {
            let t0 = buf0[256*g + l + 4*t]
            let t1 = buf1[256*g + l + 4*t]
            let t2 = (t0 < t1)
            buf2[256*g + l + 4*t] = t2
          }
        }
        if 64*g + t >= 250 && 64*g + t <= 252 {
          let t0 = buf0[64*g + t + 750]
          let t1 = buf1[64*g + t + 750]
          let t2 = (t0 < t1)
          buf2[64*g + t + 750] = t2
        }
      }
      "
    `);
  });

  test("in parallel: no result is computed twice, and 256 invocations suffice", () => {
    for (const n of [1000, 100_000, 5_000_000]) {
      const [{ kernel }] = stages([g.exp(leaf([n]))]);
      expect(kernel.threads!.extent).toBeLessThanOrEqual(256);
      expect(4 * kernel.range.extent * kernel.threads!.extent).toBeLessThan(n + 1024);
    }
  });
});

describe("reductions", () => {
  test("of every size along either axis", () => {
    for (const n of sizes)
      for (const m of n < 500 ? [1, 3, 4, 33, 100] : [4, 33]) agree(cases.reduces([[n, m], [m, n]])); // biome-ignore format: one line
  });

  test("over outer, inner and middle axes", () =>
    agree(cases.reducesOfAxes([[3, 40, 5], [40, 3, 33], [2, 100, 64], [17, 2, 64]]))); // biome-ignore format: one line

  test("of every dtype, and of NaN, which wins", () => agree(cases.reducesOfTypes(70, 90)));

  test("of few long rows take several workgroups, whose parts are combined", () => {
    agree(cases.longRows([[40_001], [2, 34_000], [34_000, 3], [9000, 10], [300, 301]]), backends[0]); // biome-ignore format: one line
    expect(stages([g.sum(leaf([1_000_000]), [0])])).toHaveLength(2);
    expect(stages([g.sum(leaf([8192, 768]), [0])])).toHaveLength(2);
    expect(stages([g.sum(leaf([1000, 1000]), [1])])).toHaveLength(1);
  });

  test("are as exact as sums of parts", () => {
    const n = 200_000;
    const data = Float32Array.from({ length: n }, (_, i) => 1 + ((i * 7919) % 1000) / 997);
    const graph = { ...graphOf({ outputs: [g.sum(leaf([n]), [0])] }, 0), data: [data] };
    const [got] = runGraph(backends[0], graph);
    const want = data.reduce((a, b) => a + b, 0);
    expect(Math.abs(got[0] - want) / want).toBeLessThan(3e-7);
  });
});

describe("rows", () => {
  test("softmax, norms, cross-entropy, several results", () => {
    agree(cases.rows(sizes));
    agree([{ outputs: [softmax(leaf([2, 5000]), 1)] }]);
  });

  test("softmax reads memory once", () => {
    for (const n of [100, 1000, 4096]) {
      const [{ kernel }, ...more] = stages([softmax(leaf([64, n]), 1)]);
      expect(more).toEqual([]);
      // One load for each element that an invocation has: none in the later passes.
      const loads = count(kernel.body, (s) => s.k === "let" && s.value.k === "load");
      expect(loads).toBeLessThanOrEqual(2);
    }
    expect(text([softmax(leaf([64, 1024]), 1)])).toMatchInlineSnapshot(`
      "row row_amax_sub_exp_sum_div_64x1024(buf0: read f32[65536], buf1: write f32[65536])
      parallel g < 64, threads t < 256 {
        local k7: f32[4]
        local k2: f32[4]
        acc a0: f32 max
        vector l < 4 {
          let t1 = buf0[1024*g + l + 4*t]
          a0 <- t1
          k2[l] = t1
        }
        allReduce a0 over 256
        acc a3: f32 sum
        vector l < 4 {
          let t4 = k2[l]
          let t5 = (t4 - a0)
          let t6 = exp(t5)
          a3 <- t6
          k7[l] = t6
        }
        allReduce a3 over 256
        vector l < 4 {
          let t8 = k7[l]
          let t9 = (t8 / a3)
          buf1[1024*g + l + 4*t] = t9
        }
      }
      "
    `);
  });

  test("the gradient of a bias", () => {
    expect(text([g.sum(leaf([512, 96]), [0])])).toMatchInlineSnapshot(`
      "reduce reduce_sum_512x96(buf0: read f32[49152], buf1: write f32[96])
      parallel g < 3, threads t < 256 {
        shared w2: f32[256]
        acc a0: f32 sum
        for i < 16 {
          vector l < 4 {
            let t1 = buf0[(t%32) + 96*(t/32) + 32*g + 3072*i + 768*l]
            a0 <- t1
          }
        }
        w2[t] = a0
        barrier
        if t <= 31 {
          acc a3: f32 sum
          for y < 8 {
            a3 <- w2[t + 32*y]
          }
          w2[t] = a3
        }
        barrier
        let a4 = w2[(t%32)]
        if (t/32) <= 0 {
          buf1[(t%32) + 32*g] = a4
        }
      }
      "
    `);
  });

  test("need each of their barriers", () => {
    // Without one of them the interpreter must find an error: else it would find none that is there.
    const [{ kernel }] = stages([softmax(leaf([100, 40]), 0)]);
    const barriers = kernel.body.filter((s) => s.k === "barrier");
    expect(barriers.length).toBe(4);
    const run = (body: readonly Stmt[]) => {
      const buffers = kernel.buffers.map((b) => new Float32Array(b.size));
      interpret({ ...kernel, body }, buffers, new Uint32Array(0));
    };
    run(kernel.body);
    for (const barrier of barriers)
      expect(() => run(kernel.body.filter((s) => s !== barrier))).toThrow(
        /race|before it is written/,
      );
  });
});

describe("updates in place", () => {
  test("wherever the writer alone reads the old value", () => {
    // An optimizer's parameter, whose gradient comes turned or from a reduction.
    const p = leaf([48, 64]);
    const half = (x: Node) => g.mul(x, constant(0.5, "f32"));
    const turned = g.permute(leaf([64, 48]), [1, 0]);
    const bias = leaf([40]);
    const scalar = leaf([]);
    for (const [state, value, expected] of [
      [p, g.add(half(p), turned), true],
      [p, g.add(half(p), node("flip", [p], { axes: [0] })), false],
      [bias, g.add(half(bias), g.sum(leaf([300, 40]), [0])), true],
      [bias, g.add(half(bias), g.sum(g.mul(leaf([300, 40]), bias), [0])), false],
      [scalar, g.add(scalar, constant(1, "f32")), true],
      [p, softmax(p, 1), false],
    ] as const) {
      const output = g.assign(state, value);
      const plan = schedule(inputsOf([output]), [output]);
      const [{ first }] = plan.outputs;
      const step = plan.steps.find((s) => s.group.stores.has(first))!;
      const reads = new Set(step.k === "group" ? step.reads : []);
      const { overwritable } = lowerForGpu(step.group, (n) => reads.has(n), gpuTarget);
      expect(overwritable(state, first), formatKernel(stages([output]).at(-1)!.kernel)).toBe(
        expected,
      );
      for (const backend of backends) agree([{ outputs: [output] }], backend);
    }
  });
});

describe("random graphs", () => {
  test("agree with the reference on every target", () => {
    for (const [i, backend] of backends.entries())
      compareOnRandomGraphs(backend, first + 100 * i, first + 100 * i + 60);
  });

  test("and with gradients, and with state that is overwritten in place", () => {
    const [usual, , tiny] = backends;
    compareOnRandomGraphs(usual, first, first + 60, 12, randomGradientGraph);
    compareOnRandomGraphs(tiny, first, first + 60, 14, randomStateGraph);
  });
});
