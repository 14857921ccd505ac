/**
 * @file What the device can do at most, measured in the same run: the loops of peak.ts on as many threads as are to be measured, each
 * in a worker of its own beyond the first; on a GPU the two kernels of core/roofline.ts. A share is the time that the stricter of
 * the two limits would take over the time that was taken.
 */
import { Worker } from "node:worker_threads";
import { profile, rand, realize } from "hinode";
import { copyPeak, fmaPeak } from "./peak.ts";

export interface Limits {
  /** GFLOP/s. */
  flops(): Promise<number>;
  /** GB/s, read and written, of copying within `bytes` in all. */
  bytes(bytes: number): Promise<number>;
}

async function onThreads(
  threads: number,
  what: "fmaPeak" | "copyPeak",
  bytes: number,
): Promise<number> {
  const here = () => (what === "fmaPeak" ? fmaPeak() : copyPeak(bytes));
  if (threads === 1) return here();
  const source = `import(${JSON.stringify(new URL("./peak.ts", import.meta.url).href)}).then((peak) => {
    const { parentPort, workerData } = process.getBuiltinModule("node:worker_threads");
    parentPort.once("message", () => parentPort.postMessage(peak[workerData.what](...workerData.args)));
    parentPort.postMessage("ready");
  })`;
  const workerData = { what, args: what === "fmaPeak" ? [] : [bytes] };
  const workers = Array.from(
    { length: threads },
    () => new Worker(source, { eval: true, workerData }),
  );
  const next = (w: Worker) =>
    new Promise<unknown>((resolve, reject) => {
      w.once("message", resolve);
      w.once("error", reject);
    });
  await Promise.all(workers.map(next));
  const found = workers.map(next);
  for (const w of workers) w.postMessage("go");
  const rates = (await Promise.all(found)) as number[];
  await Promise.all(workers.map((w) => w.terminate()));
  return rates.reduce((sum, rate) => sum + rate, 0);
}

export function processorLimits(threads: number): Limits {
  return {
    flops: () => onThreads(threads, "fmaPeak", 0),
    bytes: (bytes) => {
      const size = Math.min(2 ** 26, Math.max(2 ** 12, bytes / 2));
      return onThreads(threads, "copyPeak", Math.ceil(size / threads));
    },
  };
}

/** null where the GPU does not tell the time. */
export async function gpuLimits(): Promise<Limits | null> {
  const x = rand([1024]);
  await realize(x);
  const { rooflines } = await profile(() => x.neg(), { runs: 1, roofline: true });
  const roofline = rooflines.get("webgpu");
  if (!roofline) return null;
  return {
    flops: async () => roofline.flopsPerSecond / 1e9,
    bytes: async () => roofline.bytesPerSecond / 1e9,
  };
}
