/** @file The group `optim`: optimizers fed with the recorded gradients, and tables of learning rates (optimizers.ts). */
import { readSafetensors } from "../support/safetensors.ts";
import type { Measure } from "./comparison.ts";
import { type Files, type GoldenCase, readJson } from "./group.ts";
import { judgeOptimizer, judgeSchedule, type OptimFile, type Outcome } from "./optimizers.ts";

const measured = ({ worst, where }: Outcome): Measure => ({ share: worst, what: where });

export function optimGroup(files: Files, name: string): GoldenCase[] {
  const { cases, schedules }: OptimFile = readJson(files, name);
  const store = readSafetensors(files(`${name}.safetensors`));
  const text = (f: string, kwargs: object) => `${f}(${JSON.stringify(kwargs).slice(1, -1)})`;
  return [
    ...cases.map((c) => ({
      id: c.id,
      call: text(c.optimizer, c.kwargs),
      run: async () => measured(await judgeOptimizer(c, store)),
    })),
    ...schedules.map((c) => ({
      id: c.id,
      call: text(c.schedule, c.kwargs),
      run: async () => measured(judgeSchedule(c)),
    })),
  ];
}
