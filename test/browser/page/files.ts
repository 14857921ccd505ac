/** @file Stands in for test/golden/files.ts: the fixtures are fetched before any test asks for them. */
import { modelFiles } from "../../golden/models/counts.ts";

const names = [
  ...["ops", "nn", "transforms", "optim", "half", "dtypes", "images"].flatMap((group) => [
    `${group}.json`,
    `${group}.safetensors`,
  ]),
  ...modelFiles,
];

const files = new Map(
  await Promise.all(
    names.map(async (name): Promise<[string, Uint8Array]> => {
      const response = await fetch(`/golden/${name}`);
      if (!response.ok) throw new Error(`${name}: ${response.status}`);
      return [name, new Uint8Array(await response.arrayBuffer())];
    }),
  ),
);

export const fixture = (name: string): Uint8Array => files.get(name)!;
