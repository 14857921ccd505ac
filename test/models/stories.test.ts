/** @file A real Llama, of 260,000 parameters, tells the story that its documentation says it tells. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { noGrad, tensor } from "hinode";
import { Generator, type LanguageModel, readLlama2c, readLlama2cTokenizer } from "hinode/models";
import { beforeAll, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";

const fixture = (name: string) =>
  new Uint8Array(readFileSync(join(import.meta.dirname, "..", "fixtures", name)));

/** github.com/karpathy/llama2.c, doc/stories260K.md, at temperature 0. */
const story = `Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do. She said, "I want to play with your ball, but I can't find it."
Lily was sad and didn't know what to do. She said, "I'm sorry, Lily. I didn't know what to do."
Lily didn't want to help her mom, so she said, "I'm sorry, mom. I didn't know what to do." Her mom said, "Don't worry, Lily. We can help you.`;

const tokenizer = readLlama2cTokenizer(fixture("tok512.bin"), 512);
/** How many tokens are told one by one; the reference and a software GPU take a second for a few. */
const told = { wasm: 256, reference: 8, webgpu: 4 };

onEachDevice("stories260K", (device) => {
  let model: LanguageModel;
  beforeAll(async () => {
    model = await readLlama2c(fixture("stories260K.bin"));
    model.eval();
  });

  test("tells its story, greedily and token by token", async () => {
    const length = told[device] + 8;
    const generator = new Generator(model, { length });
    const options = { maxNewTokens: told[device], tokenizer, stopTokens: [1] };
    const texts: string[] = [];
    for await (const step of generator.stream([tokenizer.encode("")], options))
      texts.push(step.texts[0]);
    const text = texts.join("");
    if (device === "wasm") expect(text).toBe(story);
    else expect([text.length > 8, story.startsWith(text)]).toEqual([true, true]);
    // It came in parts.
    expect(texts.filter(Boolean).length).toBeGreaterThan(told[device] / 2);
  });

  // A software GPU takes ten seconds for its kernels.
  test.skipIf(device === "webgpu")(
    "finds every token of it the likeliest, in one pass",
    async () => {
      const ids = tokenizer.encode(story);
      const hidden = noGrad(() => model.forward(model.embed(tensor([ids], { dtype: "i32" }))));
      const best = (await model.logits(hidden).argmax(-1).tolist()) as number[][];
      expect(best[0].slice(0, -1)).toEqual(ids.slice(1));
    },
  );
});

test("its tokenizer", () => {
  const ids = tokenizer.encode(story);
  expect(tokenizer.decode(ids)).toBe(story);
  expect(ids[0]).toBe(1);
  expect(tokenizer.decode(tokenizer.encode("Ü 日"))).toBe("Ü 日");
});

test("other files are refused", async () => {
  const file = fixture("stories260K.bin");
  await expect(readLlama2c(file.subarray(0, 1000))).rejects.toThrow(/bytes/);
  await expect(readLlama2c(file.subarray(4))).rejects.toThrow(/seven sizes|bytes/);
  expect(() => readLlama2cTokenizer(fixture("tok512.bin"), 513)).toThrow(/513 tokens, got 512/);
});
