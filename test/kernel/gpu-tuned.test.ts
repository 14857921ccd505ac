/** @file Measured forms of matrix products: which row of the table is taken, and when the guess stays. */
import { expect, test } from "vitest";
import { chooseForm, type Form, type ProductShape } from "../../core/kernel/gpu/matmul-tile.ts";
import { chooseFrom, shapeKey } from "../../core/kernel/gpu/tuned.ts";
import { gpuTarget } from "../support/interpreted.ts";

const shape: ProductShape = {
  batch: 1,
  m: 577,
  n: 3072,
  k: 1024,
  dtype: "f32",
  aAlongK: true,
  bAlongK: false,
};
const target = { ...gpuTarget, invocations: 256, sharedBytes: 16384 };
const guess = chooseForm(shape, target);
const measured: Form = {
  form: "tiled",
  tile: { m: 64, n: 64, k: 8, rows: 8, columns: 8, stages: 2, prefetch: true, pad: 4 },
  splits: 1,
};

test("a measured form takes the place of the guess, for its shape only", () => {
  const choose = chooseFrom({ [shapeKey(shape)]: measured });
  expect(guess).not.toEqual(measured);
  expect(choose(shape, target)).toEqual(measured);
  const other = { ...shape, bAlongK: true };
  expect(choose(other, target)).toEqual(chooseForm(other, target));
  expect(chooseFrom(undefined)(shape, target)).toEqual(guess);
});

test("a form that does not fit the GPU is passed over", () => {
  const large: Form = { ...measured, tile: { ...measured.tile, k: 64 } };
  const choose = chooseFrom({ [shapeKey(shape)]: large });
  expect(choose(shape, { ...target, sharedBytes: 1 << 20 })).toEqual(large);
  expect(choose(shape, target)).toEqual(guess);
  const few = { ...target, invocations: 32 };
  expect(chooseFrom({ [shapeKey(shape)]: measured })(shape, few)).toEqual(chooseForm(shape, few));
  const unknown = { form: "spiral" } as unknown as Form;
  expect(chooseFrom({ [shapeKey(shape)]: unknown })(shape, target)).toEqual(guess);
});

test("keys can be read", () => {
  expect(shapeKey(shape)).toBe("aAlongK batch=1 dtype=f32 k=1024 m=577 n=3072");
});
