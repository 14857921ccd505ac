/**
 * @file Losses as modules, under PyTorch's names: `new MSELoss({ reduction: "sum" }).forward(input, target)` is
 * `mseLoss(input, target, { reduction: "sum" })`. Shapes, formulas and errors are the functions'. Tensors among the options
 * (`weight`) are buffers.
 */
import {
  binaryCrossEntropy,
  binaryCrossEntropyWithLogits,
  type CTCLossOptions,
  cosineEmbeddingLoss,
  crossEntropy,
  ctcLoss,
  gaussianNllLoss,
  hingeEmbeddingLoss,
  huberLoss,
  klDiv,
  l1Loss,
  marginRankingLoss,
  mseLoss,
  multilabelMarginLoss,
  multilabelSoftMarginLoss,
  multiMarginLoss,
  nllLoss,
  poissonNllLoss,
  smoothL1Loss,
  softMarginLoss,
  type Tensor,
  tripletMarginLoss,
  tripletMarginWithDistanceLoss,
} from "../core/index.ts";
import { Module } from "./module.ts";

/** A loss with its options: A are the tensors that it takes, O its options. */
export abstract class Loss<
  A extends Tensor[] = Tensor[],
  O extends object = object,
> extends Module {
  readonly options: O;

  constructor(options: O = {} as O) {
    super();
    this.options = options;
  }

  abstract forward(...tensors: A): Tensor;

  protected override members(): Iterable<readonly [string, unknown]> {
    return Object.entries(this.options);
  }
}

type LossClass<A extends Tensor[], O extends object> = new (options?: O) => Loss<A, O>;
type Two = [input: Tensor, target: Tensor];
type Three = [input1: Tensor, input2: Tensor, target: Tensor];

/** The class of a loss function of two tensors. */
const pairLoss = <O extends object>(
  name: string,
  loss: (input: Tensor, target: Tensor, options?: O) => Tensor,
): LossClass<Two, O> => classOf<Two, O>(name, loss);

/** The class of a loss function of three tensors. */
const tripleLoss = <O extends object>(
  name: string,
  loss: (input1: Tensor, input2: Tensor, target: Tensor, options?: O) => Tensor,
): LossClass<Three, O> => classOf<Three, O>(name, loss);

function classOf<A extends Tensor[], O extends object>(
  name: string,
  loss: (...args: [...A, O]) => Tensor,
): LossClass<A, O> {
  const made = class extends Loss<A, O> {
    forward(...tensors: A): Tensor {
      return loss(...tensors, this.options);
    }
  };
  Object.defineProperty(made, "name", { value: name });
  return made;
}

export const CrossEntropyLoss = pairLoss("CrossEntropyLoss", crossEntropy);
export const NLLLoss = pairLoss("NLLLoss", nllLoss);
export const MSELoss = pairLoss("MSELoss", mseLoss);
export const L1Loss = pairLoss("L1Loss", l1Loss);
export const SmoothL1Loss = pairLoss("SmoothL1Loss", smoothL1Loss);
export const HuberLoss = pairLoss("HuberLoss", huberLoss);
export const BCELoss = pairLoss("BCELoss", binaryCrossEntropy);
export const BCEWithLogitsLoss = pairLoss("BCEWithLogitsLoss", binaryCrossEntropyWithLogits);
export const KLDivLoss = pairLoss("KLDivLoss", klDiv);
export const PoissonNLLLoss = pairLoss("PoissonNLLLoss", poissonNllLoss);
export const HingeEmbeddingLoss = pairLoss("HingeEmbeddingLoss", hingeEmbeddingLoss);
export const SoftMarginLoss = pairLoss("SoftMarginLoss", softMarginLoss);
export const MultiMarginLoss = pairLoss("MultiMarginLoss", multiMarginLoss);
export const MultiLabelMarginLoss = pairLoss("MultiLabelMarginLoss", multilabelMarginLoss);
export const MultiLabelSoftMarginLoss = pairLoss(
  "MultiLabelSoftMarginLoss",
  multilabelSoftMarginLoss,
);
/** Takes input, target and variance. */
export const GaussianNLLLoss = tripleLoss("GaussianNLLLoss", gaussianNllLoss);
export const CosineEmbeddingLoss = tripleLoss("CosineEmbeddingLoss", cosineEmbeddingLoss);
export const MarginRankingLoss = tripleLoss("MarginRankingLoss", marginRankingLoss);
/** Takes anchor, positive and negative. */
export const TripletMarginLoss = tripleLoss("TripletMarginLoss", tripletMarginLoss);
/** As TripletMarginLoss, with `distanceFunction` among the options. */
export const TripletMarginWithDistanceLoss = tripleLoss(
  "TripletMarginWithDistanceLoss",
  tripletMarginWithDistanceLoss,
);

type Lengths = Parameters<typeof ctcLoss>[2];

/** Connectionist temporal classification: see ctcLoss. */
export class CTCLoss extends Module {
  readonly options: CTCLossOptions;

  constructor(options: CTCLossOptions = {}) {
    super();
    this.options = options;
  }

  forward(
    logProbs: Tensor,
    targets: Tensor,
    inputLengths: Lengths,
    targetLengths: Lengths,
  ): Tensor {
    return ctcLoss(logProbs, targets, inputLengths, targetLengths, this.options);
  }

  protected override members(): Iterable<readonly [string, unknown]> {
    return Object.entries(this.options);
  }
}
