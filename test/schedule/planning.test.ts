/**
 * Planning takes time in proportion to the graph. Counted, not timed: V8 counts how often each block of core/ runs while
 * a graph is traced, canonicalised, scheduled, lowered and emitted, and while one of twice the size is.
 */
import { Session } from "node:inspector";
import { afterAll, expect, test } from "vitest";

// Before core/ is loaded: V8 puts counters only into what it compiles from now on.
const session = new Session();
session.connect();
session.post("Profiler.enable");
session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true });
const { init } = await import("hinode");
const { graphs, plan } = await import("../../bench/planning.ts");
await init({ device: "wasm" });

afterAll(() => session.disconnect());

/** Executions of blocks in core/ since the last look. */
function counted(): number {
  let total = 0;
  session.post("Profiler.takePreciseCoverage", (error, { result }) => {
    if (error) throw error;
    for (const { url, functions } of result)
      if (url.includes("/core/"))
        for (const { ranges } of functions) for (const { count } of ranges) total += count;
  });
  return total;
}

test.each(Object.keys(graphs))("a %s of twice the nodes is twice the work", (name) => {
  const work = (nodes: number): number => {
    const fn = graphs[name](nodes);
    counted();
    plan(fn);
    return counted();
  };
  const nodes = 1000;
  const once = work(nodes);
  expect(once).toBeGreaterThan(100 * nodes);
  // Something that grows with the square has at most a tenth of the whole then.
  const ratio = work(2 * nodes) / once;
  expect(ratio).toBeGreaterThan(1.5);
  expect(ratio).toBeLessThan(2.2);
});
