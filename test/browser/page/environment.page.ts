/** @file What a page has, and what the library makes of it. Runs in pages only. */
import { defaultDevice, deviceInfo, init, tensor } from "hinode";
import { expect, test } from "vitest";

const expected = (globalThis as { testEnvironment?: { isolated: boolean } }).testEnvironment!;

test("the page is what the server made it", () => {
  expect(crossOriginIsolated).toBe(expected.isolated);
  expect(typeof SharedArrayBuffer).toBe(expected.isolated ? "function" : "undefined");
  // Nothing pretends to be Node.
  for (const name of ["process", "Buffer", "require", "setImmediate"])
    expect(globalThis).not.toHaveProperty(name);
});

test('"auto" takes no GPU that is computed on the CPU, and says so', async () => {
  await init();
  const { name, reason } = deviceInfo();
  expect(name).toBe("wasm");
  expect(reason).toMatch(/computes on the CPU/);
  expect(await tensor([1, 2]).exp().sum().item()).toBeCloseTo(Math.E + Math.E ** 2, 4);
});

test("a program that asks for it gets it", async () => {
  await init({ device: "webgpu" });
  expect(deviceInfo()).toMatchObject({ name: "webgpu", adapter: { software: true } });
  expect(await tensor([1, 2]).exp().sum().item()).toBeCloseTo(Math.E + Math.E ** 2, 4);
  expect(defaultDevice().name).toBe("webgpu");
});
