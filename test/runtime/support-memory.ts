/** @file The measure of leaks: bytes per step that a collection does not free. */
import { expect } from "vitest";
import { pendingCells } from "../../core/cells.ts";
import type { Device } from "../../core/device.ts";

/** Bytes of heap and device per step after a collection, measured behind a warm-up. */
export async function expectNoGrowth(
  device: Device,
  step: () => Promise<unknown>,
  steps: number,
): Promise<void> {
  for (let i = 0; i < 200; i++) await step();
  const before = await settled(device);
  for (let i = 0; i < steps; i++) await step();
  const after = await settled(device);
  expect((after.heap - before.heap) / steps).toBeLessThan(1024);
  expect((after.bytes - before.bytes) / steps).toBeLessThan(1);
  expect(pendingCells.size).toBe(0);
}

async function settled(device: Device): Promise<{ heap: number; bytes: number }> {
  await device.ready();
  for (let i = 0; i < 3; i++) await device.collect();
  return { heap: process.memoryUsage().heapUsed, bytes: device.memory().liveBytes };
}
