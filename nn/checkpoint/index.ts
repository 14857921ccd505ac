/** @file Checkpoints: safetensors as bytes, as files, of a model, and of a whole training run. */
export {
  loadSafetensors,
  openSafetensors,
  type SafetensorsFile,
  saveSafetensors,
} from "./files.ts";
export type { StoredDType, StoredEntry } from "./header.ts";
export { type LoadModelOptions, loadModel, saveModel } from "./model.ts";
export {
  decodeSafetensors,
  encodeSafetensors,
  type HostTensor,
  type Storable,
  type StoredTensor,
} from "./safetensors.ts";
export { type Json, loadTraining, saveTraining, type TrainingParts } from "./training.ts";
