/** @file The groups of fixtures that can be run, one entry each, and those that a folder holds. */
import { expressionGroup } from "./cases.ts";
import { dtypesGroup } from "./dtypes.ts";
import { type Files, type GoldenCase, type Group, readJson } from "./group.ts";
import { halfGroup } from "./half.ts";
import { imagesGroup } from "./images.ts";
import { modelsGroup } from "./models/index.ts";
import { optimGroup } from "./trajectories.ts";

export const groups: Readonly<Record<string, Group>> = {
  ops: expressionGroup,
  nn: expressionGroup,
  transforms: expressionGroup,
  optim: optimGroup,
  half: halfGroup,
  dtypes: dtypesGroup,
  images: imagesGroup,
  models: modelsGroup,
};

/** The group of a JSON file; a group of models has a file for each. */
export const groupOf = (file: string): string => (file.startsWith("models-") ? "models" : file);

/** Group to its files (without `.json`), of the names of a folder's files. */
export function present(names: readonly string[]): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const file of names.filter((n) => n.endsWith(".json")).sort()) {
    const name = file.slice(0, -".json".length);
    found.set(groupOf(name), [...(found.get(groupOf(name)) ?? []), name]);
  }
  return found;
}

/** The cases of a group's files. A group that no entry above runs has cases all the same: each fails and says so. */
export const casesOf = (files: Files, group: string, names: readonly string[]): GoldenCase[] =>
  names.flatMap((name) => groups[group]?.(files, name) ?? unknown(files, group, name));

function unknown(files: Files, group: string, name: string): GoldenCase[] {
  const cases: readonly { id: string; call?: string }[] = readJson(files, name).cases ?? [
    { id: name },
  ];
  return cases.map(({ id, call = id }) => ({
    id,
    call,
    run: () => Promise.reject(new Error(`nothing here runs the group "${group}"`)),
  }));
}
