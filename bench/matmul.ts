/** @file Matrix products on one thread, as a share of a loop of multiply-adds that only touches registers. */
import { compile, randn, realize, type Tensor } from "hinode";
import { type Figure, seconds } from "./measure.ts";
import { fmaPeak } from "./peak.ts";

/** [m, k, n] and which operand is stored transposed, as the gradients of a linear layer read them. */
const shapes: [number, number, number, "" | "a" | "b"][] = [
  [512, 512, 512, ""],
  [512, 512, 512, "a"],
  [512, 512, 512, "b"],
  [577, 64, 577, "b"],
  [1024, 784, 10, "b"],
  [128, 64, 64, ""],
];

export async function matmul(): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const [m, k, n, transposed] of shapes) {
    const a = randn(transposed === "a" ? [k, m] : [m, k]);
    const b = randn(transposed === "b" ? [n, k] : [k, n]);
    await realize(a, b);
    const product = compile((x: Tensor, y: Tensor) =>
      (transposed === "a" ? x.T : x).matmul(transposed === "b" ? y.T : y),
    );
    // The limit is measured again beside each figure: neighbours on the machine slow both.
    const peak = fmaPeak();
    const reached = (2 * m * k * n) / (await seconds(() => product(a, b))) / 1e9;
    const suffix =
      transposed === ""
        ? ""
        : transposed === "a"
          ? ", a stored transposed"
          : ", b stored transposed";
    figures.push({
      name: `matmul ${m}×${k}×${n}${suffix}`,
      text: `${reached.toFixed(1)} GFLOP/s of ${peak.toFixed(1)} in registers: ${(reached / peak).toFixed(2)}`,
      value: reached / peak,
      bar: figures.length === 0 ? 0.45 : null,
    });
  }
  return figures;
}
