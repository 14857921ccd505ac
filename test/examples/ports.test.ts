/** @file The ports of PyTorch's programs: a few steps of each, from end to end, and that docs/porting.md quotes them. */
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { openSafetensors } from "hinode/nn";
import sharp from "sharp";
import { afterAll, describe, expect, test } from "vitest";

const root = resolve(import.meta.dirname, "../..");
const folder = mkdtempSync(join(tmpdir(), "hinode-ports-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What a port prints; throws unless it ends well. */
async function output(name: string, ...args: string[]): Promise<string> {
  const command = ["--conditions=source", `examples/${name}.ts`, ...args];
  return (await promisify(execFile)(process.execPath, command, { cwd: root })).stdout;
}

/** The numbers in the places of `expression`'s groups. */
const numbers = (text: string, expression: RegExp): number[] =>
  [...text.matchAll(expression)].flatMap((match) => match.slice(1).map(Number));

const small = ["--device", "wasm", "--threads", "1"];

describe("ports of PyTorch's programs", { timeout: 120_000 }, () => {
  test("mnist-conv: its loss falls from epoch to epoch, and it saves its weights", async () => {
    const save = join(folder, "mnist.safetensors");
    const settings = ["--train", "128", "--test", "64", "--batch", "8", "--epochs", "2"];
    const text = await output("mnist-conv", ...small, ...settings, "--save", save);
    const losses = numbers(text, /average loss ([\d.]+)/g);
    expect(losses).toHaveLength(2);
    expect(losses[1]).toBeLessThan(losses[0]);
    expect(losses[1]).toBeLessThan(0.6 * Math.log(10)); // log 10: of a guess
    await using file = await openSafetensors(save);
    expect(file.entries.get("fc1.weight")?.shape).toEqual([128, 9216]);
  });

  test("char-gpt: it learns how often characters are, and writes", async () => {
    const size = ["--layers", "2", "--width", "32", "--block", "32", "--lr", "0.01"];
    const text = await output("char-gpt", ...small, ...size, "--steps", "60", "--sample", "50");
    const [characters] = numbers(text, /, (\d+) different ones/g);
    const [nats, bits] = numbers(text, /validation loss ([\d.]+): ([\d.]+) bits/g);
    expect(bits).toBeCloseTo(nats / Math.LN2, 2);
    expect(nats).toBeLessThan(0.75 * Math.log(characters));
    const sample = text.slice(text.indexOf("bits per character") + "bits per character\n\n".length);
    expect(sample).toHaveLength(1 + 50 + 1); // what it begins with, and the end of the line
  });

  test("vae: its loss falls from epoch to epoch, and its pictures are there", async () => {
    const settings = ["--train", "512", "--test", "64", "--batch", "32", "--epochs", "2"];
    const text = await output("vae", ...small, ...settings, "--out", join(folder, "vae"));
    const [train1, test1, train2, test2] = numbers(text, /training ([\d.]+), test ([\d.]+)/g);
    expect(train2).toBeLessThan(0.8 * train1);
    expect(test2).toBeLessThan(test1);
    const names = ["reconstruction_1", "reconstruction_2", "sample_1", "sample_2"];
    expect(readdirSync(join(folder, "vae")).sort()).toEqual(names.map((name) => `${name}.png`));
    const sizes = await Promise.all(
      ["reconstruction_2.png", "sample_2.png"].map(async (name) => {
        const { width, height } = await sharp(join(folder, "vae", name)).metadata();
        return [width, height];
      }),
    );
    expect(sizes).toEqual([[242, 62], [242, 242]]); // biome-ignore format: one line
  });

  test("--help, and a mistake", async () => {
    const texts = ["mnist-conv", "char-gpt", "vae"].map((name) => output(name, "--help"));
    for (const text of await Promise.all(texts))
      expect(text).toMatch(/--(epochs|steps).*--seed.*--threads.*--device/s);
    await expect(output("char-gpt", ...small, "--text", "no.txt")).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/--text: expected a file of text.*no\.txt/),
    });
  });
});

test("docs/porting.md quotes the programs as they are", () => {
  const sources = ["mnist-conv", "char-gpt", "vae"].map((name) =>
    readFileSync(join(root, "examples", `${name}.ts`), "utf8"),
  );
  const lines = new Set(sources.flatMap((text) => text.split("\n").map((line) => line.trim())));
  const page = readFileSync(join(root, "docs/porting.md"), "utf8");
  const quoted = [...page.matchAll(/```ts\n([\s\S]*?)```/g)].flatMap(([, code]) =>
    code.split("\n").map((line) => line.trim()),
  );
  expect(quoted.length).toBeGreaterThan(50);
  expect(quoted.filter((line) => line !== "" && !lines.has(line))).toEqual([]);
});
