/**
 * @file The architecture as a test: which layer may import which, that the library needs no package and no Node, and how
 * long files may get.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, test } from "vitest";

const root = resolve(import.meta.dirname, "..");

/** From the bottom to the top: a layer imports itself and what stands above its line, nothing sideways. */
const layers: readonly (readonly [name: string, files: RegExp])[] = [
  ["base", /^core\/(dtype|half|shape|errors|math)\.ts$/],
  ["graph", /^core\/graph\//],
  ["transform", /^core\/transform\//],
  ["schedule", /^core\/schedule\//],
  ["kernel", /^core\/kernel\//],
  ["backend", /^core\/backend\//],
  // Device, Tensor, operations, compile: methods need the Tensor class and the class shows its methods.
  ["tensor", /^core\/([\w-]+|ops\/[\w-]+)\.ts$/],
  ["nn", /^nn\//],
  ["data", /^data\//],
  ["models", /^models\//],
  ["testing", /^testing\//],
  ["package", /^index\.ts$/],
];

function* sources(folder: string): Generator<string> {
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = `${folder}/${entry.name}`;
    if (entry.name === "node_modules") continue;
    if (entry.isDirectory()) yield* sources(path);
    else if (entry.name.endsWith(".ts")) yield path;
  }
}

const layerOf = (file: string): number => layers.findIndex(([, pattern]) => pattern.test(file));
const read = (file: string): string => readFileSync(join(root, file), "utf8");
const lineCount = (file: string): number => read(file).trimEnd().split("\n").length;

/** The modules named in import and export statements, dynamic imports and import types. */
function imported(file: string): string[] {
  const code = read(file).replace(/^\s*(\/\/|\*|\/\*).*$/gm, "");
  const pattern = /(?:\bfrom\s+|\bimport\s*\(?\s*)"([^"]+)"/g;
  return [...code.matchAll(pattern)].map((m) => m[1]);
}

const library = [
  "index.ts",
  ...["core", "nn", "data", "models", "testing"].flatMap((folder) => [...sources(folder)]),
];

describe("allowed imports", () => {
  test("every library file belongs to a layer", () => {
    expect(library.filter((file) => layerOf(file) < 0)).toEqual([]);
    expect(library.length).toBeGreaterThan(20);
  });

  test("imports go one way", () => {
    const violations = library.flatMap((file) =>
      imported(file)
        .filter((name) => name.startsWith("."))
        .map((name) => relative(root, resolve(root, dirname(file), name)))
        .filter((target) => layerOf(target) < 0 || layerOf(target) > layerOf(file))
        .map((target) => `${file} → ${target}`),
    );
    expect(violations).toEqual([]);
  });

  /** What a part of the library is about may come from a package, an optional peer dependency. */
  const packages: Readonly<Record<string, RegExp>> = {
    "fast-check": /^testing\//,
    hyparquet: /^data\/parquet\.ts$/,
    "hyparquet-compressors": /^data\/parquet\.ts$/,
  };

  test("the library imports no package but where it is the matter, and Node's modules only where they are optional", () => {
    const foreign = library.flatMap((file) =>
      imported(file)
        .filter((name) => !name.startsWith(".") && !packages[name]?.test(file))
        .map((name) => `${file} → ${name}`),
    );
    expect(foreign).toEqual([]);
  });

  test("who loads an optional package for Node does it so that no bundler follows", () => {
    const loading = library.filter((file) =>
      /createRequire\(|\bimport\(\s*[^"\s]/.test(read(file)),
    );
    expect(loading).toEqual(["core/backend/webgpu/adapter.ts", "models/image/decode.ts"]);
  });

  test("examples use the library as its users do, by its name", () => {
    const inside = [...sources("examples")].flatMap((file) =>
      imported(file)
        .filter((name) => name.startsWith("."))
        .filter((name) => layerOf(relative(root, resolve(root, dirname(file), name))) >= 0)
        .map((name) => `${file} → ${name}`),
    );
    expect(inside).toEqual([]);
  });
});

describe("file lengths", () => {
  const all = ["core", "nn", "data", "models", "testing", "examples", "bench", "test"].flatMap(
    (f) => [...sources(f)],
  );

  test("no file is longer than 800 lines", () => {
    const long = all.filter((file) => lineCount(file) > 800);
    expect(long.map((file) => `${file}: ${lineCount(file)}`)).toEqual([]);
  });

  test("the median library file has at most 250 lines", () => {
    const lengths = library.map(lineCount).sort((a, b) => a - b);
    expect(lengths[Math.floor(lengths.length / 2)]).toBeLessThanOrEqual(250);
  });

  test("autodiff is at most 400 lines", () => {
    const files = ["gradient", "vjp", "jvp"].map((name) => `core/transform/${name}.ts`);
    const total = files.reduce((n, file) => n + lineCount(file), 0);
    expect(total).toBeLessThanOrEqual(400);
  });

  test("every file says what it is for", () => {
    const silent = library.filter((file) => !/^\/\*\*[\s\S]{0,20}@file/.test(read(file)));
    expect(silent).toEqual([]);
  });
});
