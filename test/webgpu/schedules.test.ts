/**
 * GPU schedules of maps and rows as shaders: a GPU computes what the reference does. (The interpreter runs many more of them,
 * see test/kernel/gpu-schedules.test.ts; here the printed code is what may be wrong.)
 */
import { afterAll, expect, test } from "vitest";
import { ReferenceBackend } from "../../core/backend/reference.ts";
import { requestGpu } from "../../core/backend/webgpu/adapter.ts";
import { WebGpuBackend } from "../../core/backend/webgpu/backend.ts";
import { runGraph, runGraphOn } from "../support/differential.ts";
import { difference } from "../support/graphs.ts";
import * as cases from "../support/schedule-cases.ts";
import { type Case, graphOf, leaf, softmax } from "../support/schedule-cases.ts";
import { seed as first } from "../support/seed.ts";

const backend = new WebGpuBackend(await requestGpu());
const reference = new ReferenceBackend();
let seed = first;

afterAll(() => backend.destroy());

/** Several graphs at a time: shaders compile in parallel. */
async function agree(list: Iterable<Case>): Promise<void> {
  const one = async (c: Case): Promise<void> => {
    const own = seed++;
    const graph = graphOf(c, own);
    const [got, want] = [await runGraphOn(backend, graph), runGraph(reference, graph)];
    for (const [i, n] of c.outputs.entries()) {
      const found = difference(got[i], want[i], n.dtype);
      expect(found, `${n.op} ${n.dtype}[${n.shape}] of seed ${own}`).toBeNull();
    }
  };
  const queue = [...list];
  const worker = async (): Promise<void> => {
    for (let c = queue.pop(); c; c = queue.pop()) await one(c);
  };
  await Promise.all([worker(), worker(), worker(), worker()]);
}

test("maps", async () => {
  await agree(cases.elementwise([1003]));
  await agree(cases.broadcasts([[33, 31]]));
  await agree(cases.transposes([[33, 64]]));
  await agree(cases.movements([33]));
});

test("reductions", async () => {
  await agree(cases.reduces([[5, 33], [257, 4]])); // biome-ignore format: one line
  await agree(cases.reducesOfAxes([[3, 40, 5]]));
  await agree(cases.reducesOfTypes(30, 50, ["f16", "i8"]));
  await agree(cases.longRows([[40_001]]));
});

test("rows", async () => {
  await agree(cases.rows([33]));
  await agree([{ outputs: [softmax(leaf([3, 1000]), 1)] }]);
});
