/**
 * @file Tiny instances of the reference implementations' models, with their weights: outputs,
 * losses, all gradients and one AdamW step.
 */
import { init } from "hinode";
import { beforeAll, describe, expect, test } from "vitest";
import { devices } from "../support/devices.ts";
import { fixture } from "./files.ts";
import { casesOf } from "./groups.ts";
import { modelCounts } from "./models/counts.ts";
import { judge } from "./run.ts";

const cases = (name: string) => casesOf(fixture, "models", [`models-${name}`]);

test("every model has its number of cases", () => {
  const counts = Object.keys(modelCounts).map((name) => [name, cases(name).length]);
  expect(Object.fromEntries(counts)).toEqual(modelCounts);
});

/**
 * On WebGPU one model, as SwiftShader takes long to compile them; HINODE_GOLDEN=1 for all of them.
 */
const smallest = ["timm-vit"];

describe.each(devices)("on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
  });

  const some = device === "webgpu" && process.env.HINODE_GOLDEN !== "1";
  test.for(some ? smallest : Object.keys(modelCounts))("%s", async (name) => {
    // A model's cases share one run: they are one test.
    const failed: string[] = [];
    for (const c of cases(name)) {
      const reason = await judge(c);
      if (reason !== null) failed.push(`${c.id}: ${reason}`);
    }
    expect(failed).toEqual([]);
  });
});

describe("what must fail", () => {
  const changed = (
    edit: (json: { class: string; config: Record<string, unknown>; input_args: object }) => void,
  ) => {
    const files = (name: string) => {
      if (!name.endsWith(".json")) return fixture(name);
      const json = JSON.parse(new TextDecoder().decode(fixture(name)));
      edit(json);
      return new TextEncoder().encode(JSON.stringify(json));
    };
    return casesOf(files, "models", ["models-vit"]);
  };
  beforeAll(async () => {
    await init({ device: "reference" });
  });

  test("a class that nothing here knows fails all its cases", async () => {
    const cases = changed((json) => {
      json.class = "transformers.NonesuchModel";
    });
    const reasons = new Set(await Promise.all(cases.map((c) => judge(c))));
    expect([...reasons]).toEqual(["not covered: transformers.NonesuchModel"]);
  });

  test("so does an argument of the call that nothing here knows; those of outputs do nothing", async () => {
    const known = changed((json) => {
      json.input_args = { output_hidden_states: true, interpolate_pos_encoding: false };
    });
    expect(await judge(known[0])).toBeNull();
    const [logits] = changed((json) => {
      json.input_args = { bool_masked_pos: true };
    });
    expect(await judge(logits)).toMatch(/ViTForImageClassification with bool_masked_pos/);
    // Nor does what is another class's argument go by unseen.
    const [others] = changed((json) => {
      json.input_args = { vision_feature_layer: -1 };
    });
    expect(await judge(others)).toMatch(/ViTForImageClassification with vision_feature_layer/);
  });

  test("another configuration gives other numbers", async () => {
    const [logits] = changed((json) => {
      json.config.num_attention_heads = 3;
    });
    expect(await judge(logits)).toMatch(/tolerances off/);
  });
});
