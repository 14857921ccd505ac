/**
 * @file Pictures: decoding, resizing, the image processors of CLIP, LLaVA, LLaVA-NeXT and MM1, and
 * patches.
 */
export {
  type AnyresLayout,
  type AnyresOptions,
  anyresLayout,
  anyresTokens,
  cutTiles,
  fitInside,
  LLAVA_NEXT_PINPOINTS,
  type LlavaNextBatch,
  LlavaNextImageProcessor,
  mergeAnyres,
  selectBestResolution,
} from "./anyres.ts";
export {
  type RandomCropOptions,
  randomCropRegion,
  randomFlip,
  randomResizedCrop,
  type Uniform,
} from "./augment.ts";
export { type DecodeOptions, decodeImage } from "./decode.ts";
export type { Resample } from "./filters.ts";
export {
  centerCrop,
  convertImage,
  cropImage,
  type Fill,
  flipImage,
  type ImageMode,
  type ImageSize,
  type Pixels,
  padImage,
  padToSquare,
  type RawImage,
  type Region,
} from "./image.ts";
export { normalizedPatches, patchify, unpatchify } from "./patches.ts";
export {
  CLIP_MEAN,
  CLIP_STD,
  CLIPImageProcessor,
  IMAGENET_MEAN,
  IMAGENET_STD,
  LlavaImageProcessor,
  type PreprocessorConfig,
  type ProcessorOptions,
  type SizeConfig,
} from "./processor.ts";
export { type ResizeOptions, resizeImage, squashImage } from "./resize.ts";
export {
  type SubImageBatch,
  type SubImageOptions,
  SubImageProcessor,
  subImageLayout,
} from "./sub-images.ts";
