/** @file The devices that every test of tensors runs on, with the same body. */
import { defaultDevice, init, setDefaultDevice } from "hinode";
import { beforeAll, describe } from "vitest";

export type TestDevice = "reference" | "wasm" | "webgpu";

/** All of them, or those that HINODE_TEST_DEVICES names, separated by commas. */
export const devices: readonly TestDevice[] = (process.env.HINODE_TEST_DEVICES?.split(",") ?? [
  "reference",
  "wasm",
  "webgpu",
]) as TestDevice[];

/** Makes a device the default one; a GPU is opened at its first use. */
export async function useDevice(device: TestDevice): Promise<void> {
  if (device === "webgpu") await init({ device });
  else setDefaultDevice(device);
}

/** A block of tests once per device; tensors are made on that device by default. */
export function onEachDevice(name: string, tests: (device: TestDevice) => void): void {
  describe.each(devices)(`${name} on %s`, (device) => {
    beforeAll(() => useDevice(device));
    tests(device);
  });
}

/**
 * How many cases a property is tried on. Each shape is a new kernel, and SwiftShader takes 20 to 300 ms to compile one
 * (WebAssembly's whole module: 1 ms), so there are fewer of them there.
 */
export const numRuns = (count: number): { readonly numRuns: number } => ({
  get numRuns() {
    return defaultDevice().name === "webgpu" ? Math.max(2, Math.round(count / 12)) : count;
  },
});
