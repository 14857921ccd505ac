/** @file What a run leaves in its folder: the model, its tokenizer, metrics, losses, and a report to look at. */
import { join } from "node:path";
import { type BpeTokenizer, saveMm1, type VisionLanguageModel } from "hinode/models";
import sharp from "sharp";
import { shuffled, uniform } from "../data/batches.ts";
import { attributions, type Rendering, type Vendor } from "../data/emoji.ts";
import { writeAtomic } from "../support/files.ts";
import { type Report, type ReportItem, writeReport } from "../support/report.ts";
import type { Comparison } from "./evaluate.ts";

/** The names are the project's; more fields may follow. */
export interface Metrics {
  readonly seconds: number;
  readonly steps: number;
  readonly threads: number;
  /** Renderings by a vendor never seen, of concepts seen. */
  readonly heldOut: Comparison;
  /** Renderings of concepts never seen, by vendors seen. */
  readonly unseenConcept: Comparison;
  readonly [more: string]: unknown;
}

export interface CaptionedSet {
  readonly renderings: readonly Rendering[];
  /** The model's. */
  readonly captions: readonly string[];
}

export interface Outputs {
  readonly out: string;
  readonly model: VisionLanguageModel;
  readonly tokenizer: BpeTokenizer;
  readonly metrics: Metrics;
  readonly losses: Readonly<Record<"seeing" | "blank", readonly number[]>>;
  readonly settings: Readonly<Record<string, string | number>>;
  readonly sets: Readonly<Record<"unseenVendor" | "unseenConcept", CaptionedSet>>;
  /** All images by vendor, those of training too. */
  readonly images: ReadonlyMap<Vendor, readonly Rendering[]>;
}

export async function writeOutputs(outputs: Outputs): Promise<void> {
  const { out, model, tokenizer, metrics, losses } = outputs;
  await saveMm1(join(out, "model.safetensors"), model, tokenizer);
  await writeAtomic(join(out, "tokenizer.json"), JSON.stringify(tokenizer));
  await writeAtomic(join(out, "metrics.json"), `${JSON.stringify(metrics, null, 2)}\n`);
  const rows = losses.seeing.map((loss, step) => `${step},${loss},${losses.blank[step] ?? ""}`);
  await writeAtomic(join(out, "losses.csv"), `step,seeing,blank\n${rows.join("\n")}\n`);
  await writeReport(join(out, "report.html"), await reportOf(outputs));
}

/** What a terminal shows at the end. */
export function summary(metrics: Metrics, sets: Outputs["sets"], out: string): string {
  const examples = ({ renderings, captions }: CaptionedSet, count: number) =>
    Array.from({ length: count }, (_, k) => {
      const i = Math.floor(((k + 0.5) * renderings.length) / count);
      const truth = renderings[i].concept.label;
      return `  ${truth.padEnd(24)} ${captions[i] === truth ? "=" : "≠"} ${captions[i]}`;
    }).join("\n");
  const scores = ({ baselines, ...own }: Comparison) => {
    const { mostFrequent, shuffledImages, blankImage } = baselines;
    const line = (name: string, of: typeof mostFrequent) =>
      `  ${name.padEnd(46)} ${percent(of.exactMatch).padStart(8)} ${percent(of.tokenAccuracy).padStart(8)}`;
    const interval = (bounds: readonly number[]) => bounds.map(percent).join(" – ");
    return [
      `  ${"".padEnd(46)}    exact   tokens`,
      line("this model", { ...own }),
      line("the same, images shuffled", shuffledImages),
      line("trained on blank images", blankImage),
      line(`always "${mostFrequent.caption}"`, mostFrequent),
      `  95 % intervals: exact ${interval(own.exactMatchInterval)}, tokens ${interval(own.tokenAccuracyInterval)}`,
    ].join("\n");
  };
  const { heldOut, unseenConcept } = metrics;
  return `
A vendor never seen, ${heldOut.images} pictures of known concepts:
${examples(sets.unseenVendor, 12)}
${scores(heldOut)}

Concepts never seen, ${unseenConcept.images} pictures by known vendors:
${examples(sets.unseenConcept, 6)}
${scores(unseenConcept)}

${Math.round(metrics.seconds)} s in all. Look at ${join(out, "report.html")}; caption a picture of yours with
  npm run mm1 -- --out ${out} --caption picture.png`;
}

async function reportOf(outputs: Outputs): Promise<Report> {
  const { metrics, losses, settings, sets, images } = outputs;
  const { heldOut, unseenConcept } = metrics;
  const best = bestBaseline(heldOut);
  return {
    title: "A tiny MM1 captions pictures",
    summary: [
      {
        label: "exact captions, unseen vendor",
        value: percent(heldOut.exactMatch),
        note: `95 % interval ${heldOut.exactMatchInterval.map(percent).join(" – ")}, ${heldOut.images} images`,
      },
      {
        label: "best answer without eyes",
        value: percent(best.exactMatch),
        note: words(best.name),
      },
      {
        label: "tokens, unseen vendor",
        value: percent(heldOut.tokenAccuracy),
        note: `trained on blank images: ${percent(heldOut.baselines.blankImage.tokenAccuracy)}`,
      },
      {
        label: "tokens, unseen concepts",
        value: percent(unseenConcept.tokenAccuracy),
        note: `trained on blank images: ${percent(unseenConcept.baselines.blankImage.tokenAccuracy)}`,
      },
      {
        label: "time",
        value: `${Math.round(metrics.seconds)} s`,
        note: `${metrics.steps} steps, ${metrics.threads} thread${metrics.threads > 1 ? "s" : ""}`,
      },
    ],
    loss: [
      ...losses.seeing.map((loss, step) => ({ step, loss, label: "train" as const })),
      ...losses.blank.map((loss, step) => ({ step, loss, label: "blank" as const })),
    ],
    sections: [
      {
        title: "A vendor never seen",
        note: `The model has seen these things, drawn by others; in the style of ${name("fluent")} it has seen nothing.`,
        items: spread(await items(sets.unseenVendor)),
      },
      {
        title: "Concepts never seen",
        note:
          "Neither these things nor variants of them were among the training images. Their names are as new as " +
          "their looks, so look at what the model takes them for.",
        items: await items(sets.unseenConcept),
      },
    ],
    metrics,
    settings,
    attribution: [...images].map(([vendor, list]) => ({
      ...attributions[vendor],
      images: list.length,
    })),
  };
}

/** The answer without eyes that is right most often. */
function bestBaseline({ baselines }: Comparison): { name: string; exactMatch: number } {
  const all = Object.entries(baselines).map(([name, { exactMatch }]) => ({ name, exactMatch }));
  return all.reduce((a, b) => (b.exactMatch > a.exactMatch ? b : a));
}

function items({ renderings, captions }: CaptionedSet): Promise<ReportItem[]> {
  return Promise.all(
    renderings.map(async ({ pixels, concept, vendor }, i) => {
      const side = Math.sqrt(pixels.length / 3);
      const image = sharp(pixels, { raw: { width: side, height: side, channels: 3 } });
      return {
        png: await image.png().toBuffer(),
        predicted: captions[i],
        truth: concept.label,
        correct: captions[i] === concept.label,
        source: name(vendor),
      };
    }),
  );
}

/** In a fixed random order: Unicode's begins with sixty mammals. */
const spread = <T>(list: readonly T[]): T[] =>
  shuffled(list.length, uniform(0)).map((i) => list[i]);

const name = (vendor: Vendor): string => attributions[vendor].name;
const words = (camel: string): string => camel.replace(/[A-Z]/g, (c) => ` ${c.toLowerCase()}`);
const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
