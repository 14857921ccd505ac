/**
 * @file The models that `npm test` runs, and how many cases each has: a reader that overlooks some
 * would pass without them.
 */
export const modelCounts: Readonly<Record<string, number>> = {
  "aim-pretrain": 89,
  "aim-probe": 79,
  "c-abstractor": 180,
  "clip-gelu": 173,
  "clip-quickgelu": 173,
  "clip-vision": 120,
  llama: 53,
  "llama-tied": 49,
  llava: 135,
  "llava-next": 135,
  mixtral: 98,
  "mm1-like": 193,
  "timm-vit": 69,
  vit: 87,
};

/** Their files. In a page they are fetched ahead. */
export const modelFiles: readonly string[] = Object.keys(modelCounts).flatMap((name) =>
  ["json", "safetensors", "weights.safetensors"].map((ending) => `models-${name}.${ending}`),
);
