/**
 * @file Runs test files of the other folders in a page, with vitest's own runner and `expect`. What they read of process.env
 * comes from `testEnvironment` (the bundle replaces it), and the results go back to the test that opened the page.
 */

import { files } from "virtual:tests";
import type { VitestTestRunner } from "vitest";
import { config } from "./config.ts";
import "../../support/seed.ts";

export interface Report {
  readonly passed: number;
  readonly skipped: number;
  /** The test's full name, and what went wrong. */
  readonly failures: readonly string[];
  readonly seconds: number;
}

interface Task {
  readonly type: string;
  readonly name: string;
  readonly mode: string;
  readonly tasks?: readonly Task[];
  readonly result?: { readonly state: string; readonly errors?: readonly { message: string }[] };
}

function* leaves(tasks: readonly Task[], path: string): Generator<[string, Task]> {
  for (const task of tasks) {
    const name = `${path} > ${task.name}`;
    // A file or a block can fail by itself, in a hook for example.
    if (!task.tasks || task.result?.errors?.length) yield [name, task];
    yield* leaves(task.tasks ?? [], name);
  }
}

/** Runs the files whose paths match, and of their tests those whose names match. */
async function runTests(pattern: string, tests = ""): Promise<Report> {
  const wanted = Object.keys(files).filter((path) => new RegExp(pattern).test(path));
  if (wanted.length === 0) throw new Error(`no test file matches ${pattern}`);
  const settings = { ...config, ...(tests && { testNamePattern: new RegExp(tests) }) };
  Object.defineProperty(globalThis, "__vitest_worker__", {
    configurable: true,
    value: { config: settings, ctx: {}, providedContext: {}, environment: { name: "browser" } },
  });
  // Only now: vitest reads the object above when it is loaded.
  const [{ startTests }, { expect }] = await Promise.all([
    import("vitest/internal/browser"),
    import("vitest"),
  ]);
  const runner: VitestTestRunner = {
    config: settings as unknown as VitestTestRunner["config"],
    importFile: (path) => files[path](),
    onBeforeTryTask: ({ name }) => expect.setState({ currentTestName: name }),
  };
  const begin = performance.now();
  const found = (await startTests(wanted, runner)) as unknown as readonly Task[];
  let [passed, skipped] = [0, 0];
  const failures: string[] = [];
  for (const file of found)
    for (const [name, task] of leaves([file], "")) {
      const state = task.result?.state ?? task.mode;
      if (state === "pass") passed++;
      else if (state === "fail")
        failures.push(`${name}: ${task.result?.errors?.map((e) => e.message).join("\n")}`);
      else skipped++;
    }
  return { passed, skipped, failures, seconds: (performance.now() - begin) / 1000 };
}

Object.assign(globalThis, { runTests });
