/** @file MNIST as a dataset of tensors: what torchvision's `datasets.MNIST` is to PyTorch's examples. */
import { tensor } from "hinode";
import { TensorDataset } from "hinode/data";
import { loadMnist } from "./idx.ts";

/** The first `count` images [N, 1, 28, 28], u8, as in the file, and their digits [N], i32. */
export function mnistTensors(split: "train" | "test", count = Infinity): TensorDataset {
  const { images, labels, count: all } = loadMnist(split);
  const n = Math.min(count, all);
  return new TensorDataset(
    tensor(images.subarray(0, n * 28 * 28), { shape: [n, 1, 28, 28] }),
    tensor(Int32Array.from(labels.subarray(0, n))),
  );
}
