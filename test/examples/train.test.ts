/** @file The training loop of `npm run mm1`: stopped after any step and started again, it ends with the same bits. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { compile, manualSeed, rand, type Tensor } from "hinode";
import { Dropout, Linear, Module, optim } from "hinode/nn";
import { afterAll, afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Training, train } from "../../examples/mm1/train.ts";
import { onEachDevice } from "../support/devices.ts";

const folder = mkdtempSync(join(tmpdir(), "hinode-train-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(() => void vi.spyOn(console, "log").mockImplementation(() => {}));
afterEach(() => void vi.restoreAllMocks());

class Net extends Module {
  first = new Linear(4, 8);
  drop = new Dropout(0.2);
  second = new Linear(8, 1);

  forward(x: Tensor): Tensor {
    return this.second.forward(this.drop.forward(this.first.forward(x).tanh()));
  }
}

const STEPS = 9;
const SAVE_EVERY = 4;

class Killed extends Error {}

interface End {
  /** Ctrl-C during this update; the first is 1. */
  readonly interruptIn?: number;
  /** The process dies in this update, and saves nothing. */
  readonly killIn?: number;
  readonly settings?: Training["settings"];
}

/** One process: a model made anew, trained until it ends. */
async function session(path: string, { interruptIn, killIn, settings }: End = {}) {
  manualSeed(3);
  const model = new Net();
  const optimizer = new optim.AdamW(model.parameters(), { lr: 0.05 });
  // Dropout and data are drawn from the generator: its place is part of the state.
  const step = compile(() => {
    const x = rand([5, 4]);
    const loss = model.forward(x).sub(x.sum(1, true)).square().mean();
    optimizer.zeroGrad();
    loss.backward();
    optimizer.step();
    return loss;
  });
  const controller = new AbortController();
  let updates = 0;
  const { losses } = await train({
    label: "training",
    path,
    settings: settings ?? { steps: STEPS, seed: 3 },
    ...{ model, optimizer, steps: STEPS, saveEvery: SAVE_EVERY, batch: 5 },
    learningRate: (k) => 0.05 / (k + 1),
    signal: controller.signal,
    update: async () => {
      updates++;
      if (updates === interruptIn) controller.abort();
      const loss = Number(await step().item());
      if (updates === killIn) throw new Killed();
      return loss;
    },
  });
  const weights = await Promise.all(model.parameters().map((p) => p.data()));
  return { losses, weights, updates };
}

let made = 0;
const fresh = () => join(folder, `${made++}`, "training.safetensors");

onEachDevice("resuming", () => {
  test("after an interruption at any step", async () => {
    const { losses, weights } = await session(fresh());
    expect(losses).toHaveLength(STEPS);
    for (let interruptIn = 1; interruptIn < STEPS; interruptIn++) {
      const path = fresh();
      await expect(session(path, { interruptIn })).rejects.toThrow(
        `Interrupted after step ${interruptIn} of ${STEPS}; saved in ${path}`,
      );
      const rest = await session(path);
      expect(rest.updates).toBe(STEPS - interruptIn);
      expect(rest.losses).toEqual(losses);
      expect(rest.weights).toEqual(weights);
    }
  });

  test("after several interruptions, and once it is finished", async () => {
    const { losses, weights } = await session(fresh());
    const path = fresh();
    for (const interruptIn of [2, 1, 3])
      await expect(session(path, { interruptIn })).rejects.toThrow(/Interrupted/);
    for (const updates of [STEPS - 6, 0]) {
      const rest = await session(path);
      expect(rest.updates).toBe(updates);
      expect(rest.losses).toEqual(losses);
      expect(rest.weights).toEqual(weights);
    }
  });

  test("a kill loses what was done since the last periodic save, and nothing else", async () => {
    const { losses, weights } = await session(fresh());
    for (let killIn = 1; killIn <= STEPS; killIn++) {
      const path = fresh();
      await expect(session(path, { killIn })).rejects.toThrow(Killed);
      const saved = SAVE_EVERY * Math.floor((killIn - 1) / SAVE_EVERY);
      expect(existsSync(path)).toBe(saved > 0);
      const rest = await session(path);
      expect(rest.updates).toBe(STEPS - saved);
      expect(rest.losses).toEqual(losses);
      expect(rest.weights).toEqual(weights);
    }
  });
});

test("a file of another run is refused, by the settings that differ", async () => {
  const path = fresh();
  await expect(session(path, { interruptIn: 2 })).rejects.toThrow(/Interrupted/);
  const settings = { steps: STEPS, seed: 4 };
  await expect(session(path, { settings })).rejects.toThrow(
    /unfinished run with seed 3; this one has seed 4\.\n.*same options.*another --out/s,
  );
  expect((await session(path)).updates).toBe(STEPS - 2);
});

test("copies that a kill left unfinished go when the next run begins", async () => {
  const path = fresh();
  mkdirSync(dirname(path));
  writeFileSync(`${path}.tmp-1234`, "half");
  writeFileSync(join(dirname(path), "mine.txt"), "stays");
  await session(path);
  expect(readdirSync(dirname(path)).sort()).toEqual(["mine.txt", "training.safetensors"]);
});
