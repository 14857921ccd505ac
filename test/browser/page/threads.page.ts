/** @file Threads in a page: as many as the machine has where memory can be shared, else one. Runs in pages only. */
import { deviceInfo, setDefaultDevice } from "hinode";
import { expect, test } from "vitest";
import { WasmBackend } from "../../../core/backend/wasm/backend.ts";
import { differentBits, sharedBy, sharing, workOfEveryKind } from "../../support/threads.ts";

const { isolated } = (globalThis as { testEnvironment?: { isolated: boolean } }).testEnvironment!;

test("there are threads where memory can be shared", () => {
  setDefaultDevice("wasm");
  expect(deviceInfo()).toMatchObject({
    name: "wasm",
    threads: isolated ? navigator.hardwareConcurrency : 1,
  });
});

test.each([32, 64] as const)("three of them give the bits of one, %d bit", async (address) => {
  const want = await workOfEveryKind(new WasmBackend({ threads: 1, address }));
  const backend = await sharing(3, { address });
  expect(await backend.ready()).toBe(isolated ? 3 : 1);
  expect(differentBits(await workOfEveryKind(backend), want)).toBeNull();
  if (isolated) expect(sharedBy(backend)).toBeGreaterThan(20);
  else expect(backend.threads).toBeNull();
  backend.destroy();
});
