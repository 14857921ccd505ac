/**
 * @file Upcycling (https://arxiv.org/abs/2212.05055): a dense model's weights as the beginning of a sparse one.
 * Every expert is a copy of the feed-forward layer in whose place it stands, and the router is new. As all
 * experts are alike at first and a token's weights sum to 1, the sparse model computes what the dense one did
 * (where no token is dropped).
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import { noGrad } from "../../core/index.ts";
import { LanguageModel } from "./decoder.ts";
import { type ExpertsConfig, MixtureOfExperts } from "./moe.ts";

/** A model with experts as `experts` says, from a dense one, which stays as it is. */
export function upcycle(dense: LanguageModel, experts: ExpertsConfig): LanguageModel {
  const { experts: already, mlpBias } = dense.config;
  if (already || mlpBias)
    throw new ArgumentError(
      describe(
        "upcycle",
        "a dense model without biases in its MLPs",
        already ? "experts" : "biases",
      ),
    );
  const model = new LanguageModel({ ...dense.config, experts });
  const from = new Map(dense.namedTensors());
  noGrad(() => {
    for (const [name, cell] of model.namedTensors()) {
      const same = from.get(name);
      if (same) cell.assign(same);
    }
    for (const [name, layer] of model.namedModules()) {
      if (!(layer instanceof MixtureOfExperts)) continue;
      for (const part of ["gate", "up", "down"] as const) {
        const cell = layer[part];
        cell.assign(from.get(`${name}.${part}.weight`)!.unsqueeze(0).expand(cell.shape));
      }
    }
  });
  return model;
}
