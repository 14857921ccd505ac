/**
 * @file hinode/models: vision encoders, connectors, language models, and MM1 assembled from them.
 */
export { type ActivationName, activationNamed } from "./activations.ts";
export { type AttentionPoolConfig, AttentionPoolConnector } from "./connectors/attention-pool.ts";
export { AveragePoolConnector, type ConnectorConfig } from "./connectors/average-pool.ts";
export {
  CAbstractor,
  type CAbstractorConfig,
  resizeCAbstractor,
} from "./connectors/c-abstractor.ts";
export { type ConnectorChoice, createConnector } from "./connectors/choice.ts";
export type { Connector } from "./connectors/connector.ts";
export { cAbstractorNames, mlpConnectorNames } from "./connectors/names.ts";
export {
  LinearConnector,
  MlpConnector,
  type MlpConnectorConfig,
  type ProjectionConfig,
} from "./connectors/projection.ts";
export {
  bleu,
  type CaptionOptions,
  type CaptionScore,
  captionTokens,
  ciderD,
  rougeL,
} from "./evaluation/captions.ts";
export * from "./image/index.ts";
export { BpeTokenizer, type BpeTrainOptions, specials } from "./language/bpe.ts";
export {
  type ChatMessage,
  type ChatPart,
  type ChatTemplate,
  chatParts,
  chatText,
} from "./language/chat.ts";
export {
  loadLanguageModel,
  type SaveLanguageOptions,
  saveLanguageModel,
} from "./language/checkpoint.ts";
export { clipTokenizer, clipTokens } from "./language/clip-bpe.ts";
export {
  DecoderBlock,
  type LanguageConfig,
  LanguageModel,
  type LanguageOptions,
  type LanguagePass,
  NO_TARGET,
  nextTokens,
} from "./language/decoder.ts";
export {
  type GenerateOptions,
  type Generation,
  type GenerationStep,
  Generator,
  type GeneratorOptions,
} from "./language/generate.ts";
export {
  huggingFaceConfigOf,
  languageConfigOf,
  languageNames,
} from "./language/huggingface.ts";
export { readLlama2c, readLlama2cTokenizer } from "./language/llama2c.ts";
export {
  type ExpertsConfig,
  loadBalanceLoss,
  MixtureOfExperts,
  routerZLoss,
  topExperts,
} from "./language/moe.ts";
export { languagePresets, type ParameterCount, parameterCount } from "./language/presets.ts";
export type { GenerativeModel, Prompts } from "./language/prompts.ts";
export { type RopeParameters, rotaryOf } from "./language/rope.ts";
export { candidates, chooseToken, type SamplingSettings } from "./language/sampling.ts";
export { TextStream } from "./language/text-stream.ts";
export { Tokenizer, type TokenizerFile } from "./language/tokenizer.ts";
export { upcycle } from "./language/upcycle.ts";
export { loadMm1, saveMm1 } from "./mm1/checkpoint.ts";
export {
  type Mm1Encoder,
  type Mm1Options,
  type Mm1Size,
  mm1Config,
  mm1Sizes,
} from "./mm1/presets.ts";
export { loadVisionLanguageModel, saveVisionLanguageModel } from "./multimodal/checkpoint.ts";
export {
  llavaConfigOf,
  llavaJson,
  llavaNames,
  loadLlava,
  saveLlava,
} from "./multimodal/huggingface.ts";
export {
  expandImageTokens,
  type Images,
  spliceImages,
  type TiledImages,
  type VisionLanguageConfig,
  VisionLanguageModel,
} from "./multimodal/vision-language.ts";
export type { ConfigJson } from "./settings.ts";
export {
  Aim,
  type AimPass,
  type AimSize,
  aimConfig,
  aimConfigOf,
  aimHead,
  aimNames,
  aimProbeLayers,
  aimSizes,
  aimTrunkConfig,
  aimTrunkNames,
  hiddenFrom,
  outsidePrefix,
  PixelHead,
  type PixelHeadConfig,
  samplePrefix,
} from "./vision/aim.ts";
export {
  AimClassifier,
  type AimProbeConfig,
  AttentionProbe,
  aimClassifierConfigOf,
  aimClassifierNames,
} from "./vision/aim-probe.ts";
export {
  AttentionPool,
  type Pooling,
  ViTClassifier,
  type ViTClassifierConfig,
} from "./vision/classifier.ts";
export {
  CLIP,
  type ClipConfig,
  type ClipSize,
  ClipText,
  type ClipTextConfig,
  clipConfig,
  clipSizes,
  clipVisionConfig,
  contrastiveLoss,
} from "./vision/clip.ts";
export {
  clipConfigOf,
  clipJson,
  clipVisionConfigOf,
  clipVisionJson,
  loadCLIP,
  loadCLIPVision,
  loadViT,
  saveCLIP,
  saveViT,
  timmConfigOf,
  vitConfigOf,
  vitJson,
} from "./vision/huggingface.ts";
export {
  type BlockStyle,
  blockNames,
  clipNames,
  clipVisionNames,
  openClipNames,
  timmBlock,
  timmNames,
  vitNames,
} from "./vision/names.ts";
export { loadOpenCLIP, openClipConfigOf, openClipJson, saveOpenCLIP } from "./vision/open-clip.ts";
export { type Grid, resizePositions, sinCosPositions } from "./vision/positions.ts";
export {
  encoderBlock,
  type ImageOptions,
  PatchEmbedding,
  resizeViT,
  type SelectOptions,
  ViT,
  type ViTConfig,
} from "./vision/vit.ts";
export {
  simpleTemplates,
  type ZeroShotOptions,
  zeroShotLogits,
  zeroShotWeights,
} from "./vision/zero-shot.ts";
export {
  type LoadCheckpointOptions,
  type LoadOptions,
  type LoadReport,
  layerNames,
  loadCheckpoint,
  loadWeights,
  loadWeightsFile,
  type NameMap,
  type Names,
  ownNames,
  type Place,
  qkvNames,
  readConfig,
  type SaveOptions,
  saveCheckpoint,
  storedShape,
  storedWeights,
  toStored,
} from "./weights.ts";
