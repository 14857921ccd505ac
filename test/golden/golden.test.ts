/**
 * @file PyTorch's values and gradients for operations, nn functions and transforms, on every device.
 *
 * A case that calls what the library does not have is skipped under the missing function's name; the table at the end
 * counts both, and a floor keeps a covered case from turning into a skipped one.
 */
import { init } from "hinode";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { devices } from "../support/devices.ts";
import { loadGroup, runCase } from "./cases.ts";
import { differences } from "./differences.ts";
import { NotCovered } from "./expression.ts";

/** Cases that pass today, per group: raise it when an operator is added. */
const FLOOR: Readonly<Record<string, number>> = { ops: 709, nn: 203, transforms: 134 };

/** On WebGPU every fourth case, as SwiftShader takes long to compile them; HINODE_GOLDEN=1 for all of them. */
const every = Number(process.env.HINODE_GOLDEN ?? 4);

describe.each(devices)("on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
  });

  describe.each(["ops", "nn", "transforms"])("%s", (name) => {
    const group = loadGroup(name);
    const step = device === "webgpu" ? every : 1;
    const cases = group.cases.filter((_, i) => i % step === 0);
    const missing = new Map<string, number>();
    let passed = 0;
    let failed = 0;

    test.for(cases.map((c) => [c.id, c] as const))("%s", async ([id, c], { skip }) => {
      const reason = differences[name]?.[id];
      if (reason) skip(`differs from PyTorch on purpose: ${reason}`);
      try {
        await runCase(c, group.store);
        passed++;
      } catch (error) {
        if (!(error instanceof NotCovered)) {
          failed++;
          throw new Error(`${c.call}\n${(error as Error).message}`, { cause: error });
        }
        missing.set(error.message, (missing.get(error.message) ?? 0) + 1);
        skip(`not covered: ${error.message}`);
      }
    });

    test("the covered cases stay covered", () => {
      const left = group.cases.length - FLOOR[name];
      expect(passed + failed).toBeGreaterThanOrEqual(cases.length - left);
    });

    afterAll(() => {
      const absent = [...missing].sort((a, b) => b[1] - a[1]);
      const total = absent.reduce((n, [, count]) => n + count, 0);
      const purpose = Object.keys(differences[name] ?? {}).length;
      console.log(
        `golden ${name} on ${device}: covered ${passed + failed}, passed ${passed}, ` +
          `different on purpose ${purpose}, not covered ${total}` +
          (total ? `: ${absent.map(([f, count]) => `${f} ${count}`).join(", ")}` : ""),
      );
    });
  });
});
