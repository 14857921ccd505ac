/**
 * @file Forms of matrix products that were measured, per adapter and shape: where one is known it takes the place of
 * matmul-tile.ts's guess. The table is plain data, so that it can be kept as JSON; a row that does not fit the GPU, or that
 * an older version wrote, is passed over.
 */
import {
  type Choose,
  candidates,
  chooseForm,
  type Form,
  fitTile,
  type ProductShape,
} from "./matmul-tile.ts";
import type { GpuTarget } from "./target.ts";

/** Per adapter (its description), and in it per product (shapeKey), the form that was the fastest. */
export type Tiles = Readonly<Record<string, Readonly<Record<string, Form>>>>;

/** Everything that the form may depend on, readable: "aAlongK batch=1 dtype=f32 k=64 m=577 n=577". */
export const shapeKey = (shape: ProductShape): string =>
  Object.entries(shape)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([name, value]) =>
      typeof value !== "boolean" ? [`${name}=${value}`] : value ? [name] : [],
    )
    .join(" ");

/** The choice by a table of one adapter. */
export function chooseFrom(forms: Readonly<Record<string, Form>> | undefined): Choose {
  if (!forms) return chooseForm;
  return (shape, target) => {
    const form = forms[shapeKey(shape)];
    return form && fits(form, shape, target) ? form : chooseForm(shape, target);
  };
}

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

function fits(form: Form, shape: ProductShape, target: GpuTarget): boolean {
  if (candidates(shape, target).some((c) => same(c, form))) return true;
  // Tiles that only a tuner tries.
  return form.form === "tiled" && same(fitTile(form.tile, shape, target), form.tile);
}
