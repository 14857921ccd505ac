/** @file Figures of all peers → ratios, bars, and the table in Markdown. Pure. */
import type { Case } from "../suite/cases.ts";
import type { Device } from "../suite/framework.ts";
import { type Peer, titles } from "./processes.ts";

/** What one peer did with one case on a number of threads. */
export interface Figure {
  readonly case: string;
  readonly peer: Peer;
  readonly threads: number;
  /** Median milliseconds (bytes for the case "size"); null: none, and why. */
  readonly ms: number | null;
  readonly runs?: number;
  readonly why?: string;
  /** It never can: a dash in the table, where others show their error. */
  readonly unsupported?: boolean;
  /** Largest difference from Hinode's values, as a share of the largest value. */
  readonly error?: number;
}

/** Differences that float32 and approximations of erf and exp explain; more is another function. */
export const tolerance = 1e-3;

/** The largest difference as a share of the largest value; Infinity where the shapes differ or a NaN is alone. */
export function difference(
  ours: readonly (readonly number[])[],
  theirs: readonly (readonly number[])[],
): number {
  if (ours.length !== theirs.length) return Infinity;
  let worst = 0;
  ours.forEach((values, i) => {
    if (values.length !== theirs[i].length) worst = Infinity;
    let [largest, apart] = [0, 0];
    values.forEach((x, j) => {
      largest = Math.max(largest, Math.abs(x));
      const d = Math.abs(x - theirs[i][j]);
      // JSON makes null of NaN and infinities: those, too, must be alike.
      apart = Math.max(apart, Number.isNaN(d) ? Infinity : d);
    });
    worst = Math.max(worst, largest === 0 ? apart : apart / largest);
  });
  return worst;
}

export const formatMs = (ms: number): string =>
  ms >= 1000
    ? `${(ms / 1000).toPrecision(3)} s`
    : ms >= 100
      ? ms.toFixed(0)
      : ms.toPrecision(ms >= 1 ? 3 : 2);

const formatRatio = (ratio: number): string =>
  ratio >= 10 ? ratio.toFixed(0) : ratio.toPrecision(2);

const formatBytes = (bytes: number): string => `${(bytes / 2 ** 20).toPrecision(3)} MiB`;

/** Cases that are no programs. */
export const special: readonly Pick<Case, "id" | "name" | "family">[] = [
  { id: "start", name: "start to first product (256³)", family: "start" },
  { id: "size", name: "installed", family: "start" },
];

type Row = Pick<Case, "id" | "name"> & Partial<Pick<Case, "bars" | "gpuBars">>;

const find = (
  figures: readonly Figure[],
  id: string,
  peer: Peer,
  threads: number,
): Figure | undefined =>
  figures.find((f) => f.case === id && f.peer === peer && f.threads === threads);

/** One peer's cell: "milliseconds on each number of threads (times Hinode's)". */
function cell(
  row: Row,
  peer: Peer,
  figures: readonly Figure[],
  threads: readonly number[],
): string {
  const parts = threads.map((n) => {
    const figure = find(figures, row.id, peer, n);
    if (!figure) return "not run";
    if (figure.ms === null) return figure.unsupported ? "–" : `✗ ${figure.why}`;
    if (row.id === "size") return formatBytes(figure.ms);
    const wrong = (figure.error ?? 0) > tolerance ? " ≠" : "";
    const few = figure.runs !== undefined && figure.runs < 10 ? "¹" : "";
    const ours = find(figures, row.id, "hinode", n)?.ms;
    const ratio = peer.startsWith("hinode") || !ours ? "" : ` (${formatRatio(figure.ms / ours)}×)`;
    return `${formatMs(figure.ms)}${few}${ratio}${wrong}`;
  });
  const numbers = threads.some((n) => find(figures, row.id, peer, n)?.ms);
  // Words need not be said twice.
  if (row.id === "size" || (!numbers && new Set(parts).size === 1)) return parts[0];
  return parts.join(" / ");
}

export interface Verdict {
  readonly case: string;
  readonly peer: Peer;
  readonly threads: number;
  readonly bar: number;
  readonly ms: number;
  readonly met: boolean;
}

/** On a GPU the bars are ratios: Hinode takes at most the peer's time divided by the wanted ratio. */
export function gpuVerdicts(rows: readonly Row[], figures: readonly Figure[]): Verdict[] {
  return rows.flatMap(({ id, gpuBars }) =>
    (["jax-js", "torch"] as const).flatMap((peer): Verdict[] => {
      const ms = find(figures, id, "hinode", 1)?.ms;
      const theirs = find(figures, id, peer, 1)?.ms;
      if (!gpuBars || !ms || !theirs) return [];
      const bar = theirs / gpuBars[peer];
      return [{ case: id, peer, threads: 1, bar, ms, met: ms <= bar }];
    }),
  );
}

/** Each bar of Hinode's figures, on one and two threads, plain and with 256 bits. */
export function verdicts(rows: readonly Row[], figures: readonly Figure[]): Verdict[] {
  return rows.flatMap((row) =>
    (
      [
        ["hinode", row.bars?.plain],
        ["hinode-wide", row.bars?.wide],
      ] as const
    ).flatMap(([peer, bars]) =>
      (bars ?? []).flatMap((bar, i): Verdict[] => {
        const ms = find(figures, row.id, peer, i + 1)?.ms;
        if (ms === undefined || ms === null) return [];
        return [{ case: row.id, peer, threads: i + 1, bar, ms, met: ms <= bar }];
      }),
    ),
  );
}

function bars(row: Row, judged: readonly Verdict[], device: Device): string {
  const mine = judged.filter((v) => v.case === row.id);
  if (device === "webgpu")
    return mine
      .map(
        ({ peer, met }) =>
          `≥ ${row.gpuBars![peer as "torch"]} × ${titles[peer]} ${met ? "✓" : "✗"}`,
      )
      .join("; ");
  return (["hinode", "hinode-wide"] as const)
    .flatMap((peer) => {
      const list = mine.filter((v) => v.peer === peer);
      if (list.length === 0) return [];
      const text = list.map((v) => `${formatMs(v.bar)} ${v.met ? "✓" : "✗"}`).join(" / ");
      return [peer === "hinode" ? `≤ ${text}` : `256 bits ≤ ${text}`];
    })
    .join("; ");
}

export function markdown(
  rows: readonly Row[],
  chosen: readonly Peer[],
  figures: readonly Figure[],
  threads: readonly number[],
  device: Device = "wasm",
): string {
  const judged = device === "webgpu" ? gpuVerdicts(rows, figures) : verdicts(rows, figures);
  const table = [
    [
      device === "webgpu" ? "ms" : `ms, ${threads.join(" / ")} threads`,
      ...chosen.map((p) => titles[p]),
      "bar",
    ],
    ...rows.map((row) => [
      row.name,
      ...chosen.map((p) => cell(row, p, figures, threads)),
      bars(row, judged, device) || " ",
    ]),
  ];
  const widths = table[0].map((_, i) => Math.max(3, ...table.map((r) => r[i].length)));
  const [head, ...body] = table.map(
    (r) => `| ${r.map((c, i) => c.padEnd(widths[i])).join(" | ")} |`,
  );
  return [head, `| ${widths.map((w) => "-".repeat(w)).join(" | ")} |`, ...body].join("\n");
}

/** `text` with what stands between the two markers named `name` replaced, or with a new section at its end. */
export function replaceSection(text: string, section: string, name = "bench:peers"): string {
  const [begin, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`];
  const made = `${begin}\n${section.trim()}\n${end}`;
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from) return `${text.trimEnd()}\n\n${made}\n`;
  return text.slice(0, from) + made + text.slice(to + end.length);
}
