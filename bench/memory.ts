/**
 * @file Memory over 2,000 training steps, eager and compiled, after 200 steps of warm-up and a forced collection; the
 * script neither disposes of anything nor tidies up.
 */
import { compile, defaultDevice, randn, realize } from "hinode";
import { Linear, optim } from "hinode/nn";
import type { Figure } from "./measure.ts";

const collect = async (): Promise<void> => {
  for (let i = 0; i < 4; i++) {
    (globalThis as { gc?: () => void }).gc?.();
    // Finalisers run in turns of their own.
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

/** Bytes that the host and the device hold. */
const held = (): number => process.memoryUsage().heapUsed + defaultDevice().memory().liveBytes;

async function growth(compiled: boolean): Promise<number> {
  const model = new Linear(16, 16);
  const adamw = new optim.AdamW(model.parameters(), { lr: 1e-3 });
  const x = randn([8, 16]);
  const y = randn([8, 16]);
  await realize(x, y);
  const step = () => {
    const loss = model.forward(x).sub(y).square().mean();
    adamw.zeroGrad();
    loss.backward();
    adamw.step();
    return loss;
  };
  const run = compiled ? compile(step) : step;
  for (let i = 0; i < 200; i++) await run().item();
  await collect();
  const before = held();
  for (let i = 0; i < 2000; i++) await run().item();
  await collect();
  return (held() - before) / 2000;
}

export async function memory(where: Pick<Figure, "device" | "threads">): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const compiled of [false, true]) {
    const bytes = await growth(compiled);
    figures.push({
      ...where,
      name: `memory growth, ${compiled ? "compiled" : "eager"}`,
      family: "memory",
      ms: null,
      gflops: null,
      gbs: null,
      roofline: null,
      other: { text: `${bytes.toFixed(0)} bytes per step over 2,000 steps`, value: bytes },
      bar: { atMost: 1000 },
    });
  }
  return figures;
}
