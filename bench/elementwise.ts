/** @file Memory-bound kernels over 4M elements, as a share of the bandwidth of a hand-written copy loop. */
import { compile, layerNorm, randn, realize, type Tensor } from "hinode";
import { type Figure, seconds } from "./measure.ts";
import { copyPeak } from "./peak.ts";

const [rows, columns] = [4096, 1024];

export async function elementwise(): Promise<Figure[]> {
  const x = randn([rows, columns]);
  const weight = randn([columns]);
  await realize(x, weight);
  // Name, function, bytes per element that must move, bar.
  const cases: [string, (x: Tensor) => Tensor, number, number | null][] = [
    ["relu(x·a + b)", (t) => t.mul(1.5).add(0.5).relu(), 8, 0.5],
    ["gelu", (t) => t.gelu(), 8, null],
    ["softmax", (t) => t.softmax(-1), 8, null],
    ["layerNorm", (t) => layerNorm(t, [columns], weight), 8, null],
    ["sum over rows", (t) => t.sum(0), 4, null],
    ["sum of all", (t) => t.sum(), 4, null],
  ];
  const figures: Figure[] = [];
  for (const [name, fn, bytes, bar] of cases) {
    const compiled = compile(fn);
    const copy = copyPeak(rows * columns * 4);
    const reached = (rows * columns * bytes) / (await seconds(() => compiled(x))) / 1e9;
    figures.push({
      name,
      text: `${reached.toFixed(1)} GB/s of ${copy.toFixed(1)} copying: ${(reached / copy).toFixed(2)}`,
      value: reached / copy,
      bar,
    });
  }
  return figures;
}
