/**
 * @file The core in a real page: the test files of the other folders run in Chromium, bundled as a user's program is, on
 * WebAssembly with and without cross-origin isolation and on WebGPU (SwiftShader), and the page's console stays silent.
 */
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Site, serve } from "./bundle.ts";
import { launch, noBrowser } from "./chromium.ts";
import { type Environment, openPage } from "./open.ts";
import type { Report } from "./page/main.ts";
import { suitePage } from "./suites.ts";

declare global {
  function runTests(files: string, tests?: string): Promise<Report>;
}

/**
 * What pages do not have: a garbage collector to call, `process`, snapshots' files, stack frames of separate files, clocks
 * finer than a small kernel, and the name of the GPU's driver.
 */
const nodeOnly =
  "memory pressure|leaves? nothing behind|reports the kernels|detectAnomaly|what waits, and what comes later|garbage goes first|auto does not take|profile on";
describe.skipIf(noBrowser)(`the core in Chromium${noBrowser ? `: ${noBrowser}` : ""}`, () => {
  let site: Site;
  let browser: Browser;

  beforeAll(async () => {
    [site, browser] = await Promise.all([suitePage(), launch()]);
  }, 120_000);
  afterAll(() => browser?.close());

  /** Runs tests in a page of their own; all must pass, at least `least` of them, and nothing is logged but what tests log. */
  async function run(
    environment: Environment,
    files: string,
    tests: string,
    least: number,
  ): Promise<void> {
    await using server = await serve(site, environment);
    await using opened = await openPage(browser, server.origin, environment);
    const report = await opened.page.evaluate(([f, t]) => globalThis.runTests(f, t), [
      files,
      tests,
    ] as const);
    const { passed, skipped, failures, seconds } = report;
    const where = `${environment.HINODE_TEST_DEVICES}${environment.isolated ? ", isolated" : ""}`;
    console.log(`${where}: ${passed} passed, ${skipped} skipped, ${seconds.toFixed(1)} s`);
    expect(failures).toEqual([]);
    expect(opened.complaints).toEqual([]);
    expect(passed).toBeGreaterThanOrEqual(least);
  }

  /** SwiftShader compiles some kernels per second: a quarter of the random graphs, and every 20th of PyTorch's cases. */
  const seeds = {
    HINODE_SEED: process.env.HINODE_SEED ?? "1",
    HINODE_GRAPHS: "0.25",
    HINODE_GOLDEN: "20",
  };

  test.concurrent("on wasm", { timeout: 300_000 }, () =>
    run(
      { HINODE_TEST_DEVICES: "wasm", isolated: true, ...seeds },
      "^(golden|graph|nn|ops|runtime|transform)/|environment|threads|images",
      `^(?!.*(${nodeOnly}))`,
      2000,
    ),
  );

  test.concurrent("on webgpu", { timeout: 300_000 }, () =>
    run(
      { HINODE_TEST_DEVICES: "webgpu", isolated: true, ...seeds },
      "^webgpu/|golden/golden|training",
      `^(?!.*(${nodeOnly}))`,
      75,
    ),
  );

  test("without cross-origin isolation", { timeout: 300_000 }, () =>
    run(
      { HINODE_TEST_DEVICES: "wasm", isolated: false, ...seeds },
      "^transform/|ops/(elementwise|matmul|random)|environment|threads",
      "",
      500,
    ),
  );
});
