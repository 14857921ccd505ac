/**
 * @file The group `models`: Llama and Mixtral. Greedy generation is Generator's, with its cache.
 */
import { cat, type Tensor, tensor } from "hinode";
import {
  type GenerationStep,
  Generator,
  LanguageModel,
  languageConfigOf,
  languageNames,
  loadBalanceLoss,
  nextTokens,
  topExperts,
} from "hinode/models";
import type { Architecture } from "./architecture.ts";

const causal: Architecture<LanguageModel> = {
  class: /\.(Llama|Mistral|Mixtral|Qwen2|Qwen3)ForCausalLM$/,
  arguments: ["output_router_logits"],

  build: ({ config }) => new LanguageModel(languageConfigOf(config)),

  weights: (model) => languageNames(model),

  forward(model, { input_ids: ids, attention_mask: mask, position_ids: positions, labels }) {
    const pass = model.run(model.embed(ids), { mask, positions });
    const loss = model.lossOf(pass, nextTokens(labels), { mask });
    const outputs: Record<string, Tensor> = { logits: model.logits(pass.states.at(-1)!) };
    for (const [i, state] of pass.states.entries()) outputs[`hidden_states.${i}`] = state;
    const { experts } = model.config;
    if (!experts) return { outputs, loss };
    const k = experts.perToken ?? 2;
    for (const [i, logits] of pass.routerLogits.entries()) {
      const top = topExperts(logits, k);
      outputs[`router_logits.${i}`] = logits;
      outputs[`router_top_index.${i}`] = top.experts;
      outputs[`router_top_weight.${i}`] = top.weights;
    }
    const real = mask && cat(pass.routerLogits.map(() => mask.reshape([-1])));
    outputs.aux_loss = loadBalanceLoss(cat(pass.routerLogits), k, real);
    return { outputs, loss };
  },

  async extra(model, given, fixture) {
    const found: Record<string, Tensor> = {};
    for (const [key, prompt] of Object.entries(given)) {
      if (!key.endsWith(".prompt")) continue;
      const name = key.slice(0, -".prompt".length);
      const mask = (await given[`${name}.attention_mask`]?.tolist()) as number[][] | undefined;
      const rows = (await prompt.tolist()) as number[][];
      const prompts = rows.map((ids, b) => ids.filter((_, t) => mask?.[b][t] ?? true));
      const maxNewTokens: number = fixture[name].max_new_tokens;
      const generator = new Generator(model, { length: rows[0].length + maxNewTokens });
      const steps: GenerationStep[] = [];
      for await (const step of generator.stream(prompts, { maxNewTokens })) steps.push(step);
      const V = model.config.vocabulary;
      found[`${name}.tokens`] = tensor(
        prompts.map((_, b) => steps.map((step) => step.tokens[b]!)),
        { dtype: "i32" },
      );
      found[`${name}.step_logits`] = tensor(
        Float32Array.from(steps.flatMap((s) => [...s.scores])),
        {
          shape: [steps.length, prompts.length, V],
        },
      );
    }
    return found;
  },
};

export const language: readonly Architecture[] = [causal as Architecture];
