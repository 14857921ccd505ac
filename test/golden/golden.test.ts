/**
 * @file PyTorch's values and gradients for operations, nn functions, transforms, halves, stored dtypes and images, on
 * every device: all cases must pass, and none is skipped.
 */
import { init } from "hinode";
import { beforeAll, describe, expect, test } from "vitest";
import { devices } from "../support/devices.ts";
import { fixture } from "./files.ts";
import { casesOf, groups } from "./groups.ts";
import { judge } from "./run.ts";

/** How many cases PyTorch's side has made: a reader that overlooks some would pass without them. */
const COUNT: Readonly<Record<string, number>> = {
  ops: 721,
  nn: 205,
  transforms: 135,
  optim: 60,
  half: 30,
  dtypes: 13,
  images: 46,
};

/** On WebGPU every fourth case, as SwiftShader takes long to compile them; HINODE_GOLDEN=1 for all of them. */
const every = Number(process.env.HINODE_GOLDEN ?? 4);

// A group of models has several files: models.test.ts runs it.
const ours = Object.keys(groups).filter((name) => name !== "models");

test("every group has its number of cases", () => {
  const counts = ours.map((name) => [name, casesOf(fixture, name, [name]).length]);
  expect(Object.fromEntries(counts)).toEqual(COUNT);
});

describe.each(devices)("on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
  });

  // optim.test.ts runs the optimizers, also with gradients of our own.
  const names = ours.filter((name) => name !== "optim");
  describe.each(names)("%s", (name) => {
    const step = device === "webgpu" ? every : 1;
    const cases = casesOf(fixture, name, [name]).filter((_, i) => i % step === 0);
    test.for(cases.map((c) => [c.id, c] as const))("%s", async ([, c]) => {
      expect(await judge(c), c.call).toBeNull();
    });
  });
});
