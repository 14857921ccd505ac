/** @file Greedy captions. */
import { compile, noGrad, type Tensor, tensor } from "../../core/index.ts";
import type { Mm1 } from "./mm1.ts";

export interface CaptionOptions {
  readonly bos: number;
  readonly eos: number;
  readonly pad: number;
  /** The most tokens of a caption. */
  readonly maxTokens: number;
}

/**
 * Makes a captioner of one model: images [B, C, S, S] → B lists of ids, without <bos> and <eos>. The image is encoded
 * once; then every new token costs one pass over all text positions. With the length fixed, each of the two functions
 * is planned once per batch size.
 */
export function captioner(model: Mm1, options: CaptionOptions) {
  const { bos, eos, pad, maxTokens } = options;
  const encode = compile((images: Tensor) => noGrad(() => model.encode(images)));
  const best = compile((imageTokens: Tensor, ids: Tensor) =>
    noGrad(() => model.decode(imageTokens, ids).argmax(-1)),
  ); // [B, T]

  return async (images: Tensor): Promise<number[][]> => {
    const B = images.shape[0];
    const imageTokens = encode(images);
    const captions: number[][] = Array.from({ length: B }, () => []);
    const ended = new Array<boolean>(B).fill(false);
    const ids = new Int32Array(B * maxTokens).fill(pad);
    for (let b = 0; b < B; b++) ids[b * maxTokens] = bos;
    for (let t = 0; t < maxTokens && !ended.every(Boolean); t++) {
      const choice = await best(
        imageTokens,
        tensor(ids, { shape: [B, maxTokens], device: images.device }),
      ).data();
      for (let b = 0; b < B; b++) {
        const token = choice[b * maxTokens + t];
        if (token === eos) ended[b] = true;
        if (ended[b]) continue;
        captions[b].push(token);
        if (t + 1 < maxTokens) ids[b * maxTokens + t + 1] = token;
      }
    }
    return captions;
  };
}
