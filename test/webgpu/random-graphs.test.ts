/**
 * Random graphs on WebGPU against the reference: few, as SwiftShader takes most of a second to compile one.
 */
import { describe, test } from "vitest";
import { requestGpu } from "../../core/backend/webgpu/adapter.ts";
import { WebGpuBackend } from "../../core/backend/webgpu/backend.ts";
import { compareOnRandomGraphsOn } from "../support/differential.ts";
import {
  randomGradientGraph,
  randomGraph,
  randomHalfGradientGraph,
  randomHalfGraph,
  randomStateGraph,
} from "../support/graphs.ts";
import { seed as first } from "../support/seed.ts";

/** More of them for a night: HINODE_GRAPHS=20. */
const times = Number(process.env.HINODE_GRAPHS ?? 1);
const webgpu = new WebGpuBackend(await requestGpu());

describe("random graphs on webgpu", () => {
  test.for([
    ["values", randomGraph, 40, 12],
    ["large graphs", randomGraph, 6, 40],
    ["gradients", randomGradientGraph, 16, 12],
    ["state overwritten in place", randomStateGraph, 20, 14],
    ["halves", randomHalfGraph, 12, 12],
    ["gradients of halves", randomHalfGradientGraph, 8, 12],
  ] as const)("%s", { timeout: 600_000 }, async ([, make, count, size]) => {
    await compareOnRandomGraphsOn(webgpu, first, first + count * times, size, make);
  });
});
