/**
 * @file `npm run tune:gpu [-- 4096x4096x4096 577x1024x3072:bt:f16 …] [--json tiles.json] [--quick]`: measures every form that a
 * matrix product (m×k×n; `at`, `bt`: a, b stored transposed; b8 in front: a batch of 8) could take on this GPU, and stores
 * the fastest. `init({ tiles })` uses the file's contents on the adapters that it knows.
 */
import { existsSync, writeFileSync } from "node:fs";
import { describeAdapter } from "../../core/backend/webgpu/adapter.ts";
import type { WebGpuBackend } from "../../core/backend/webgpu/backend.ts";
import { manyForms, tune, usualForms } from "../../core/backend/webgpu/tuner.ts";
import { defaultDevice } from "../../core/device.ts";
import type { Form, ProductShape } from "../../core/kernel/gpu/matmul-tile.ts";
import { shapeKey, type Tiles } from "../../core/kernel/gpu/tuned.ts";
import { cases } from "./cases.ts";
import { openGpu, readArguments, readTiles } from "./options.ts";

const { values, positionals } = readArguments({});

function parse(text: string): ProductShape {
  const found = /^(?:b(\d+):)?(\d+)x(\d+)x(\d+)((?::(?:at|bt|f16|f32))*)$/.exec(text);
  if (!found) {
    console.error(`expected products like 577x1024x3072, b8:64x64x64:bt:f16, got ${text}`);
    process.exit(2);
  }
  const [batch, m, k, n] = found.slice(1, 5).map((s) => Number(s ?? 1));
  const flags = found[5].split(":");
  const sides = { aAlongK: !flags.includes("at"), bAlongK: flags.includes("bt") };
  return { batch, m, n, k, dtype: "f32", halves: flags.includes("f16"), ...sides };
}

async function report(text: string): Promise<[key: string, form: Form] | null> {
  const shape = parse(text);
  const { batch, m, n, k } = shape;
  const found = await tune(backend, shape, {
    runs: values.quick ? 2 : 15,
    forms: values.quick ? (...args) => usualForms(...args).slice(0, 3) : manyForms,
    refused: (form, error) =>
      console.error(`${JSON.stringify(form)}: ${error.message.split("\n")[0]}`),
  });
  if (!found) return null;
  const { form, milliseconds, guessed, measured } = found;
  const rate = (2 * batch * m * k * n) / milliseconds / 1e9;
  console.log(
    `${text}: ${milliseconds.toPrecision(4)} ms, ${rate.toPrecision(4)} TFLOP/s, ` +
      `${(guessed / milliseconds).toFixed(2)} × as fast as the guess, best of ${measured}\n` +
      `    ${JSON.stringify(form)}`,
  );
  return [shapeKey(shape), form];
}

await openGpu(values);
const backend = defaultDevice().backend as WebGpuBackend;
if (!backend.device.features.has("timestamp-query")) {
  console.error("this GPU has no timestamp-query: nothing to tune by");
  process.exit(2);
}
const own = cases({ quick: values.quick }).flatMap((c) =>
  c.kind === "matmul" ? [`${c.m}x${c.k}x${c.n}:${c.dtype}`] : [],
);
const adapter = describeAdapter(backend.info);
const winners: Record<string, Form> = {};
for (const text of positionals.length > 0 ? positionals : own) {
  const found = await report(text);
  if (found) winners[found[0]] = found[1];
}
const before: Tiles = values.json && existsSync(values.json) ? readTiles(values.json) : {};
const table: Tiles = { ...before, [adapter]: { ...before[adapter], ...winners } };
const text = `${JSON.stringify(table, null, 2)}\n`;
if (values.json) writeFileSync(values.json, text);
else console.log(text);
