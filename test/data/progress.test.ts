/** @file Progress lines: on a terminal, in a log, around an iteration. */
import { Progress, progress } from "hinode/data";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

/** What was written. */
function output(terminal: boolean, columns?: number) {
  const written: string[] = [];
  return { isTTY: terminal, columns, write: (text: string) => written.push(text), written };
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["performance"] });
});
afterEach(() => {
  vi.useRealTimers();
});
const pass = (ms: number) => vi.advanceTimersByTime(ms);

describe("a line", () => {
  test("on a terminal overwrites itself, not more often than ten times a second", () => {
    const out = output(true);
    const line = new Progress({ description: "training", total: 4, output: out });
    pass(1000);
    line.update(1, () => "loss 2");
    pass(50);
    line.update(2);
    expect(out.written).toEqual(["\rtraining ▕█████               ▏  25 %  1/4  loss 2  3 s left"]);
    pass(1950);
    line.update(3, (rate) => `${rate}/s`);
    // The second to the third item took the time from the first on.
    expect(out.written[1]).toBe(
      "\rtraining ▕███████████████     ▏  75 %  3/4  1/s  1 s left".padEnd(out.written[0].length),
    );
    line.update(4);
    expect(out.written[2]).toMatch(/^\rtraining ▕█{20}▏ 100 % {2}4\/4 {2}3 s in all *\n$/);
  });

  test("in a log comes every ten seconds and at the end", () => {
    const out = output(false);
    const line = new Progress({ total: 1000, from: 200, output: out });
    line.update(201);
    for (let done = 202; done <= 320; done++) {
      pass(100);
      line.update(done);
    }
    expect(out.written).toEqual([" 30 %  301/1000  1 min 10 s left\n"]);
    line.finish(400);
    expect(out.written[1]).toBe(" 40 %  400/1000  12 s in all\n");
  });

  test("is cut where the terminal ends", () => {
    const out = output(true, 12);
    new Progress({ description: "a long description", total: 2, output: out }).update(1);
    expect(out.written).toEqual(["\ra long descr"]);
  });
});

describe("an iteration", () => {
  test("shows speed and values; the total is the iterable's", async () => {
    const out = output(true);
    const bar = progress([1, 2, 3], { description: "epoch", output: out });
    let sum = 0;
    for await (const x of bar) {
      pass(500);
      sum += x;
      bar.postfix({ loss: 1 / 3, phase: "warm" });
    }
    expect(sum).toBe(6);
    expect(out.written.length).toBe(3);
    expect(out.written[1]).toMatch(
      / 66 % {2}2\/3 {2}2 it\/s {2}loss 0\.3333 {2}phase warm {2}1 s left/,
    );
    expect(out.written[2]).toMatch(/3\/3 .* 2 s in all *\n$/);
  });

  test("of unknown length, left early, of a plain for", async () => {
    const out = output(false);
    async function* endless() {
      for (let i = 0; ; i++) yield i;
    }
    for await (const i of progress(endless(), { unit: "step", output: out })) {
      pass(4000);
      if (i === 3) break;
    }
    expect(out.written).toEqual(["3  4 s/step  12 s\n", "3  6 s/step  16 s in all\n"]);
    const seen: number[] = [];
    for (const x of progress(new Set([4, 5]), { output: out })) seen.push(x);
    expect(seen).toEqual([4, 5]);
    expect(out.written[2]).toMatch(/^100 % {2}2\/2 /);
    for await (const _ of progress([] as number[], { output: out }));
    expect(out.written.length).toBe(4);
    await expect(
      (async () => {
        for await (const _ of progress([1], { output: out })) throw new RangeError("mine");
      })(),
    ).rejects.toThrow(RangeError);
  });
});
