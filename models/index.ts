/** @file hinode/models: vision encoders, connectors, language models, and MM1 assembled from them. */
export { AveragePoolConnector, type ConnectorConfig } from "./connectors/average-pool.ts";
export { BpeTokenizer, type BpeTrainOptions, specials } from "./language/bpe.ts";
export { type LanguageConfig, LanguageModel } from "./language/decoder.ts";
export { loadMm1, saveMm1 } from "./mm1/checkpoint.ts";
export { type CaptionOptions, captioner } from "./mm1/generate.ts";
export { Mm1, type Mm1Config, NO_TARGET } from "./mm1/mm1.ts";
export { PatchEmbedding, type VisionConfig, VisionTransformer } from "./vision/vit.ts";
