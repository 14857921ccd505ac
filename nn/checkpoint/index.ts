/**
 * @file Checkpoints: safetensors as bytes, as files, of a model, and of a whole training run; and
 * what other programs wrote: NumPy's arrays, GGUF, torch.save.
 */
export { type ConvertOptions, convertWeights, type WeightType } from "./convert.ts";
export {
  loadSafetensors,
  openSafetensors,
  type SafetensorsFile,
  saveSafetensors,
} from "./files.ts";
export { type GgufEntry, type GgufFile, type GgufValue, loadGguf, openGguf } from "./gguf.ts";
export type { StoredDType, StoredEntry } from "./header.ts";
export { type LoadModelOptions, loadModel, saveModel } from "./model.ts";
export { decodeNpy, encodeNpy, loadNpy, saveNpy } from "./npy.ts";
export { decodeNpz, encodeNpz, loadNpz, saveNpz } from "./npz.ts";
export {
  decodeSafetensors,
  encodeSafetensors,
  type HostTensor,
  type Storable,
  type StoredTensor,
} from "./safetensors.ts";
export {
  loadShardedSafetensors,
  openShardedSafetensors,
  type ShardedSafetensors,
  saveShardedSafetensors,
} from "./sharded.ts";
export { loadTorch, type TorchValue } from "./torch.ts";
export { type Json, loadTraining, saveTraining, type TrainingParts } from "./training.ts";
