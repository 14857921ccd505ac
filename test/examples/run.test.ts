/** @file The examples' command lines: they run to the end with small settings, explain themselves, and survive kills. */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, test } from "vitest";

const root = resolve(import.meta.dirname, "../..");
const folder = mkdtempSync(join(tmpdir(), "hinode-run-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Outcome {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly output: string;
}

interface Stop {
  /** Looked at every few milliseconds, and when something is printed. */
  readonly when: (output: string) => boolean;
  readonly signals: readonly NodeJS.Signals[];
}

/** Runs an example as `npm run` does, until its end or until it is stopped. */
function example(name: string, args: readonly string[], stop?: Stop): Promise<Outcome> {
  const child = spawn(process.execPath, ["--conditions=source", `examples/${name}.ts`, ...args], {
    cwd: root,
  });
  let output = "";
  const look = () => {
    if (!stop?.when(output)) return;
    for (const signal of stop.signals) child.kill(signal);
    clearInterval(timer);
  };
  const timer = setInterval(look, 5);
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (text: Buffer) => {
      output += text;
    });
  return new Promise((done) => {
    child.on("close", (code, signal) => {
      clearInterval(timer);
      done({ code, signal, output });
    });
  });
}

describe("npm run mm1", () => {
  const settings = ["--steps", "48", "--batch", "4", "--save", "5"];
  const whole = join(folder, "whole");

  // Renders the emoji when the cache is empty: about 20 s on two cores.
  test("trains, evaluates both held-out sets against the baselines, and leaves its files", {
    timeout: 240_000,
  }, async () => {
    const { code, output } = await example("mm1", [...settings, "--out", whole]);
    expect(code).toBe(0);
    expect(output).toMatch(
      /786 training images of 262 concepts; held out: 256 by another vendor \(fluent\), 87 of other concepts; 1024 tokens/,
    );
    expect(output).toMatch(
      /training 100 % {2}48\/48 {2}loss \d\.\d+ {2}\d+ images\/s {2}\d+ s in all/,
    );
    expect(output).toMatch(/this model +\d+\.\d % +\d+\.\d %/);
    expect(readdirSync(whole).sort()).toEqual(
      ["losses.csv", "metrics.json", "model.safetensors", "report.html", "tokenizer.json"], // biome-ignore format: one line
    );
    const share = expect.closeTo(0.5, -0.5);
    const baseline = { exactMatch: share, tokenAccuracy: share };
    const scores = {
      exactMatch: share,
      tokenAccuracy: share,
      exactMatchInterval: [share, share],
      tokenAccuracyInterval: [share, share],
      baselines: { mostFrequent: baseline, shuffledImages: baseline, blankImage: baseline },
    };
    expect(JSON.parse(readFileSync(join(whole, "metrics.json"), "utf8"))).toMatchObject({
      seconds: expect.any(Number),
      steps: 48,
      threads: 1,
      heldOut: { images: 256, concepts: 256, ...scores },
      unseenConcept: { images: 87, concepts: 29, ...scores },
      blankTraining: { steps: 16 },
    });
    const report = readFileSync(join(whole, "report.html"), "utf8");
    for (const text of ["OpenMoji", "CC BY-SA 4.0", "Twemoji", "Noto Emoji", "Fluent Emoji"])
      expect(report).toContain(text);
    expect(report.match(/data:image\/png/g)).toHaveLength(256 + 87);
  });

  test("interrupted and killed in every phase, it ends with the same bits", {
    timeout: 240_000,
  }, async () => {
    const out = join(folder, "stopped");
    const stamp = (name: string) =>
      existsSync(join(out, name)) ? statSync(join(out, name)).mtimeMs : 0;
    const [first, second] = ["training.safetensors", "training-blank.safetensors"];
    /** When a file has been saved so many times in this process. */
    const saved = (name: string, times: number) => {
      let last = stamp(name);
      let seen = 0;
      return () => {
        const now = stamp(name);
        if (now !== last) seen++;
        last = now;
        return seen >= times;
      };
    };
    const run = (stop?: Stop) => example("mm1", [...settings, "--out", out], stop);

    // npm passes Ctrl-C on, so its children get it twice.
    const interrupted = await run({ when: saved(first, 2), signals: ["SIGINT", "SIGINT"] });
    expect(interrupted.code).toBe(130);
    const [, step] = /Interrupted after step (\d+) of 48; saved in/.exec(interrupted.output)!;
    expect(interrupted.output).not.toMatch(/at .*\.ts:\d+/);
    const killed = await run({ when: saved(first, 2), signals: ["SIGKILL"] });
    expect(killed.signal).toBe("SIGKILL");
    expect(killed.output).toContain(`goes on after step ${step}`);
    const again = await run({ when: saved(second, 1), signals: ["SIGKILL"] });
    expect(again.signal).toBe("SIGKILL");
    expect(again.output).toMatch(/training: goes on after step \d+/);
    const evaluating = await run({
      when: (output) => /blank 100 %/.test(output),
      signals: ["SIGINT"],
    });
    expect(evaluating.code).toBe(130);
    expect(evaluating.output).toMatch(/training is saved/);
    const finished = await run();
    expect(finished.code).toBe(0);

    expect(readdirSync(out).sort()).toEqual(readdirSync(whole).sort());
    for (const name of ["model.safetensors", "losses.csv", "tokenizer.json"])
      expect(readFileSync(join(out, name)).equals(readFileSync(join(whole, name))), name).toBe(
        true,
      );
    const scores = (at: string) => {
      const { heldOut, unseenConcept } = JSON.parse(readFileSync(join(at, "metrics.json"), "utf8"));
      return { heldOut, unseenConcept };
    };
    expect(scores(out)).toEqual(scores(whole));
  });

  test("--caption names what is on a picture", { timeout: 60_000 }, async () => {
    const picture = "node_modules/@lobehub/fluent-emoji-3d/assets/1f34e.webp";
    const { code, output } = await example("mm1", ["--out", whole, "--caption", picture]);
    expect(code).toBe(0);
    expect(output.split("\n")).toHaveLength(3); // the device, the caption, the end
    const missing = await example("mm1", ["--out", whole, "--caption", "no.png"]);
    expect(missing).toMatchObject({
      code: 1,
      output: expect.stringMatching(/no\.png: no such file/),
    });
    const text = await example("mm1", ["--out", whole, "--caption", "README.md"]);
    expect(text).toMatchObject({ code: 1, output: expect.stringMatching(/expected an image/) });
    const untrained = await example("mm1", ["--out", folder, "--caption", picture]);
    expect(untrained.output).toMatch(/model\.safetensors: no such file; npm run mm1 trains/);
  });

  test("--help and mistakes print the options", async () => {
    const help = await example("mm1", ["--help"]);
    expect(help.code).toBe(0);
    expect(help.output).toMatch(/--steps.*--seed.*--out.*--caption.*--threads.*--device/s);
    const mistakes: [string[], RegExp][] = [
      [["--steps", "2.5"], /--steps: expected an integer ≥ 1, got "2.5"/],
      [["--device", "tpu"], /--device: expected auto, wasm, reference, webgpu, got "tpu"/],
      [
        ["--device", "reference", "--threads", "64"],
        /--threads: the reference device computes on 1 thread, got 64/,
      ],
      [["--threads", "1000"], /--threads: .*threads within 1 … 256, got 1000/],
      [["--colour"], /colour/],
    ];
    for (const [args, message] of mistakes) {
      const { code, output } = await example("mm1", args);
      expect(output).toMatch(message);
      expect(code).toBe(2);
    }
  });
});

test("npm run mnist learns digits", { timeout: 120_000 }, async () => {
  const { code, output } = await example("mnist", ["--steps", "100", "--batch", "64"]);
  const accuracy = Number(/test accuracy: ([\d.]+) %/.exec(output)?.[1]);
  expect(accuracy).toBeGreaterThan(85);
  expect(code).toBe(0);
});
