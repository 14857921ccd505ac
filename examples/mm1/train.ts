/**
 * @file A training loop that can be stopped anywhere. Ctrl-C saves after the step that is running; a crash or a kill loses
 * what was done since the last periodic save. Either way the next run with the same settings goes on from the file,
 * and since a step depends on its number and the saved state alone, ends with the same bits as if it had never stopped.
 */
import { access, mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { Progress } from "hinode/data";
import { loadTraining, type Module, type optim, saveTraining } from "hinode/nn";
import { Stop } from "../support/cli.ts";
import { removeWithLeftovers } from "../support/files.ts";

export interface Training {
  readonly label: string;
  /** The file that keeps the run's state until it is finished with. */
  readonly path: string;
  /** What a step depends on besides the state: a file with other settings is refused. */
  readonly settings: Readonly<Record<string, string | number>>;
  readonly model: Module;
  readonly optimizer: optim.Optimizer;
  readonly scaler?: optim.GradScaler;
  readonly learningRate: (step: number) => number;
  readonly steps: number;
  /** Steps between periodic saves. */
  readonly saveEvery: number;
  /** Images per step, for the rate that is shown. */
  readonly batch: number;
  readonly signal: AbortSignal;
  /** Makes one update and returns its loss. */
  readonly update: (step: number) => Promise<number>;
}

export interface Trained {
  /** Of every step, those of earlier processes too. */
  readonly losses: readonly number[];
  /** Likewise. */
  readonly seconds: number;
  /** Of these, seconds in earlier processes. */
  readonly earlier: number;
}

type Notes = { settings: Record<string, string | number>; losses: number[]; seconds: number };

export async function train(training: Training): Promise<Trained> {
  const { label, path, settings, model, optimizer, scaler, steps, saveEvery, signal } = training;
  const saved = await resume(training);
  const { losses } = saved;
  const from = losses.length;
  if (from > 0) console.log(`${label}: goes on after step ${from}, from ${path}`);
  const progress = new Progress({ description: label, total: steps, from });
  const save = async () => {
    const extra = { settings, losses, seconds: saved.seconds + progress.seconds } satisfies Notes;
    await saveTraining(path, { model, optimizer, scaler, step: losses.length, extra });
  };

  let smooth = losses.at(-1) ?? Number.NaN;
  for (let step = from; step < steps; step++) {
    if (signal.aborted) {
      await save();
      throw new Stop(
        `Interrupted after step ${step} of ${steps}; saved in ${path}.\nThe same command goes on from there.`,
        130,
      );
    }
    optimizer.setLearningRate(training.learningRate(step));
    const loss = await training.update(step);
    if (!Number.isFinite(loss))
      throw new Stop(`${label}, step ${step}: the loss is ${loss}; try a smaller --lr`);
    losses.push(loss);
    if (losses.length % saveEvery === 0 || losses.length === steps) await save();
    smooth = Number.isNaN(smooth) ? loss : 0.95 * smooth + 0.05 * loss;
    progress.update(
      step + 1,
      (rate) => `loss ${smooth.toFixed(3)}  ${(rate * training.batch).toFixed(0)} images/s`,
    );
  }
  const seconds = saved.seconds + progress.seconds;
  return { losses, seconds, earlier: saved.seconds };
}

/** The state of an unfinished run goes into model and optimizer; without a file, nothing happens. */
async function resume({
  path,
  settings,
  model,
  optimizer,
  scaler,
  steps,
}: Training): Promise<Notes> {
  const found = await access(path).then(
    () => true,
    () => false,
  );
  if (!found) {
    await mkdir(dirname(path), { recursive: true }).catch((error: Error) => {
      throw new Stop(`--out: expected a folder that can be written, got ${error.message}`);
    });
    await removeWithLeftovers(path);
    return { settings, losses: [], seconds: 0 };
  }
  const { step, extra } = await loadTraining(path, { model, optimizer, scaler });
  const notes = extra as unknown as Notes;
  const other = Object.keys(settings).filter((name) => notes.settings?.[name] !== settings[name]);
  if (other.length > 0) {
    const list = (of: Notes["settings"]) => other.map((name) => `${name} ${of[name]}`).join(", ");
    throw new Stop(
      `${path} holds an unfinished run with ${list(notes.settings ?? {})}; this one has ${list(settings)}.\n` +
        "Run with the same options to finish it, with another --out, or delete that file.",
      2,
    );
  }
  if (step !== notes.losses.length || step > steps)
    throw new Stop(`${path}: ${step} steps, but ${notes.losses.length} losses; delete that file`);
  return notes;
}
