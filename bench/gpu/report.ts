/** @file Results of Hinode and PyTorch side by side: rates, ratios, and which bars are met. */
import { type Bar, type Case, workOf } from "./cases.ts";
import type { Measured } from "./hinode.ts";

export interface PyTorch {
  readonly version: string;
  readonly device: string;
  /** By case and variant. */
  readonly milliseconds: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

export interface Verdict {
  readonly bar: Bar;
  readonly value: number;
  readonly met: boolean;
}

export interface Result {
  readonly case: Case;
  /** null: it failed, and `error` says why. */
  readonly hinode: Measured | null;
  readonly error?: string;
  readonly pytorch: Readonly<Record<string, number>> | null;
  /** Of the bars that apply and whose competitor was measured. */
  readonly verdicts: readonly Verdict[];
}

/** What a bar is about; null if that was not measured. */
function figureOf(bar: Bar, c: Case, hinode: Measured, pytorch: Result["pytorch"]): number | null {
  const { milliseconds, dispatches, launchMilliseconds } = hinode;
  switch (bar.of) {
    case "ratio":
      return pytorch?.[bar.to] ? pytorch[bar.to] / milliseconds : null;
    case "rate":
      return (1000 * workOf(c).amount) / milliseconds;
    case "milliseconds":
      return milliseconds;
    case "dispatches":
      return dispatches;
    case "launchShare":
      return launchMilliseconds === null ? null : launchMilliseconds / milliseconds;
  }
}

export function judge(
  c: Case,
  hinode: Measured,
  pytorch: Result["pytorch"],
  robust: boolean,
): Verdict[] {
  return c.bars.flatMap((bar) => {
    const value = figureOf(bar, c, hinode, pytorch);
    const applies = bar.robustness === undefined || bar.robustness === robust;
    if (value === null || !applies) return [];
    const met = value >= (bar.atLeast ?? -Infinity) && value <= (bar.atMost ?? Infinity);
    return [{ bar, value, met }];
  });
}

/** 48600000000000 → "48.6 T". */
function short(n: number): string {
  const step = n < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(n) / 3));
  return `${(n / 1000 ** step).toPrecision(4)} ${["", "k", "M", "G", "T"][step]}`;
}

const rate = (c: Case, milliseconds: number): string => {
  const { amount, unit } = workOf(c);
  return `${short((1000 * amount) / milliseconds)}${unit}`;
};

function describeBar({ bar, value, met }: Verdict): string {
  const limit = bar.atLeast ?? bar.atMost!;
  const [what, shown, wanted] =
    bar.of === "ratio"
      ? [` × ${bar.to}`, value.toFixed(2), `${limit}`]
      : bar.of === "rate"
        ? ["FLOP/s", short(value), short(limit)]
        : bar.of === "launchShare"
          ? [" of the step to launch it", `${(100 * value).toFixed(1)} %`, `${100 * limit} %`]
          : [` ${bar.of === "milliseconds" ? "ms" : bar.of}`, value.toPrecision(3), `${limit}`];
  const sign = bar.atLeast === undefined ? "≤" : "≥";
  return `${shown}${what}, bar ${sign} ${wanted}: ${met ? "met" : "MISSED"}`;
}

const ms = (n: number): string => `${n.toPrecision(4)} ms`;

function describeHinode(c: Case, m: Measured): string {
  const { milliseconds, clock, dispatches, launchMilliseconds: launch } = m;
  const parts = [`${ms(milliseconds)}${clock === "wall" ? " (wall)" : ""}`, rate(c, milliseconds)];
  parts.push(`${dispatches} dispatches`);
  if (launch !== null)
    parts.push(
      `launch ${launch.toPrecision(3)} ms = ${((1000 * launch) / dispatches).toPrecision(3)} µs each`,
    );
  return parts.join(", ");
}

/** A table in Markdown. */
export function formatTable(results: readonly Result[]): string {
  const rows = results.map(({ case: c, hinode, pytorch, error, verdicts }) => {
    const theirs = Object.entries(pytorch ?? {}).map(([variant, time]) => {
      const times = hinode ? ` (${(time / hinode.milliseconds).toFixed(2)}×)` : "";
      return `${variant} ${ms(time)}${times}`;
    });
    return [
      c.name,
      hinode ? describeHinode(c, hinode) : `failed: ${error?.split("\n")[0]}`,
      theirs.join("; ") || "–",
      verdicts.map(describeBar).join("; ") || "–",
    ];
  });
  const table = [["", "Hinode", "PyTorch (its time / Hinode's)", "bars"], ...rows];
  const widths = table[0].map((_, i) => Math.max(...table.map((row) => row[i].length)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i])).join(" | ")} |`;
  const [head, ...body] = table.map(line);
  return [head, `|${widths.map((w) => "-".repeat(w + 2)).join("|")}|`, ...body].join("\n");
}
