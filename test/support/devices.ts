/** @file The devices that every test of tensors runs on, with the same body. */
import { setDefaultDevice } from "hinode";
import { beforeAll, describe } from "vitest";

export type TestDevice = "reference" | "wasm";

/** All of them, or those that HINODE_TEST_DEVICES names, separated by commas. */
export const devices: readonly TestDevice[] = (process.env.HINODE_TEST_DEVICES?.split(",") ?? [
  "reference",
  "wasm",
]) as TestDevice[];

/** A block of tests once per device; tensors are made on that device by default. */
export function onEachDevice(name: string, tests: (device: TestDevice) => void): void {
  describe.each(devices)(`${name} on %s`, (device) => {
    beforeAll(() => setDefaultDevice(device));
    tests(device);
  });
}
