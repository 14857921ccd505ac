/** Tuning while a program runs: products are measured once, results stay right, and what was found serves the next start. */
import { expect, test } from "vitest";
import { requestGpu } from "../../core/backend/webgpu/adapter.ts";
import { WebGpuBackend } from "../../core/backend/webgpu/backend.ts";
import { usualForms } from "../../core/backend/webgpu/tuner.ts";
import { Device, registerDevice } from "../../core/device.ts";
import {
  compile,
  deviceInfo,
  profile,
  setDefaultDevice,
  type Tensor,
  tensor,
} from "../../core/index.ts";
import type { ProductShape } from "../../core/kernel/gpu/matmul-tile.ts";
import type { Tiles } from "../../core/kernel/gpu/tuned.ts";

const gpu = await requestGpu();

function open(options: { readonly tiles?: Tiles; readonly autotune?: boolean }): WebGpuBackend {
  const backend = new WebGpuBackend(gpu, options);
  registerDevice(new Device(backend));
  setDefaultDevice("webgpu");
  return backend;
}

const [rows, inner, columns] = [6, 40, 24];
const make = (height: number, width: number) =>
  tensor(
    Array.from({ length: height }, (_, i) =>
      Array.from({ length: width }, (_, j) => (i * 7 + j) % 5),
    ),
  );

async function product(): Promise<number> {
  const [a, b] = [make(rows, inner), make(inner, columns)];
  const step = compile((x: Tensor, y: Tensor) => x.matmul(y).relu().sum());
  const first = await step(a, b).item();
  expect(await step(a, b).item()).toBe(first);
  return first as number;
}

function expected(): number {
  let total = 0;
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++)
      for (let k = 0; k < inner; k++) total += ((i * 7 + k) % 5) * ((k * 7 + j) % 5);
  return total;
}

const tilesNow = (): Record<string, unknown> => Object.values(deviceInfo().tiles!)[0];

test("a plan's products are measured before its first run, and only once", async () => {
  open({ autotune: true });
  expect(tilesNow()).toEqual({});
  expect(await product()).toBe(expected());
  const found = deviceInfo().tiles!;
  expect(Object.keys(tilesNow())).toEqual([
    `aAlongK batch=1 dtype=f32 k=${inner} m=${rows} n=${columns}`,
  ]);
  const [form] = Object.values(tilesNow());
  const shape: ProductShape = {
    batch: 1,
    m: rows,
    n: columns,
    k: inner,
    dtype: "f32",
    aAlongK: true,
    bAlongK: false,
  };
  expect(usualForms(shape, open({}))).toContainEqual(form);

  // The table as it is kept between two starts.
  open({ autotune: true, tiles: JSON.parse(JSON.stringify(found)) });
  const measured: string[] = [];
  const { createComputePipelineAsync } = gpu.device;
  gpu.device.createComputePipelineAsync = function (descriptor) {
    measured.push(descriptor.label ?? "");
    return createComputePipelineAsync.call(this, descriptor);
  };
  try {
    expect(await product()).toBe(expected());
  } finally {
    gpu.device.createComputePipelineAsync = createComputePipelineAsync;
  }
  // The product, its sum, and nothing that was tried.
  expect(measured.length).toBeLessThanOrEqual(3);
});

test("a profile that runs meanwhile does not see the trials", async () => {
  open({ autotune: true });
  const { kernels } = await profile(() => product());
  const calls = kernels.reduce((sum, kernel) => sum + kernel.calls, 0);
  expect(calls).toBeLessThanOrEqual(8);
  expect(await product()).toBe(expected());
});

test("without autotune nothing is measured", async () => {
  open({});
  expect(await product()).toBe(expected());
  expect(tilesNow()).toEqual({});
});
