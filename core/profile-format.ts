/** @file A profile as a table: one line per kernel, columns only where there is something to say. */
import { count } from "./explain.ts";
import type { KernelProfile, Profile } from "./profile.ts";

const aligned = (rows: readonly (readonly string[])[]): string[] => {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  const last = widths.length - 1;
  return rows.map((row) =>
    row.map((cell, i) => (i === last ? cell : cell.padStart(widths[i]))).join("  "),
  );
};

/** 0.01234 → "12.3 µs". */
export function duration(milliseconds: number): string {
  const [value, unit] =
    milliseconds >= 1000
      ? [milliseconds / 1000, "s"]
      : milliseconds >= 1
        ? [milliseconds, "ms"]
        : [milliseconds * 1000, "µs"];
  return `${value.toPrecision(value >= 1000 ? 4 : 3)} ${unit}`;
}

const percent = (share: number | null): string =>
  share === null ? "–" : `${(100 * share).toFixed(1)} %`;

type Column = readonly [title: string, cell: (k: KernelProfile) => string];

export function formatProfile(p: Omit<Profile, "toString" | "chromeTrace">): string {
  const used = [...new Set(p.kernels.map((k) => k.device))];
  const within =
    p.kernelMilliseconds === null ? "" : `${duration(p.kernelMilliseconds)} in kernels of `;
  const title =
    `${p.name}${used.length > 0 ? ` on ${used.join(", ")}` : ""}: ${within}${duration(p.milliseconds)}` +
    ` per call (${p.runs} measured), ${calls(p.calls)} kernels, ${count(Math.round(p.bytes))}B moved,` +
    ` ${count(Math.round(p.flops))}FLOP, host ${duration(p.hostMilliseconds)}`;
  const rate = (amount: number, k: KernelProfile) =>
    k.milliseconds ? `${count((amount * k.calls * 1000) / k.milliseconds)}` : "–";
  const timed = p.kernelMilliseconds !== null;
  const columns: Column[] = [
    ...(timed
      ? [
          ["time", (k) => (k.milliseconds === null ? "–" : duration(k.milliseconds))] as Column,
          ["share", (k) => percent(k.share)] as Column,
        ]
      : []),
    ["calls", (k) => calls(k.calls)],
    ["B", (k) => count(k.bytes)],
    ["FLOP", (k) => count(k.flops)],
    ...(timed
      ? [["B/s", (k) => rate(k.bytes, k)] as Column, ["FLOP/s", (k) => rate(k.flops, k)] as Column]
      : []),
    ...(p.rooflines.size > 0 ? [["roofline", (k) => percent(k.roofline)] as Column] : []),
    ["kernel", (k) => `${used.length > 1 ? `${k.device} ` : ""}${k.kind} ${k.name}`],
  ];
  const table =
    p.kernels.length === 0
      ? ["nothing ran: what is to be measured must be made within the function"]
      : aligned([
          columns.map(([name]) => name),
          ...p.kernels.map((k) => columns.map(([, cell]) => cell(k))),
        ]);
  return [title, ...table, ...notes(p)].join("\n");
}

const calls = (n: number): string => (Number.isInteger(n) ? `${n}` : n.toFixed(1));

function notes(p: Omit<Profile, "toString" | "chromeTrace">): string[] {
  const found: string[] = [];
  if (p.kernelMilliseconds === null)
    found.push("times of kernels are unknown: this GPU has no timestamp-query");
  if (p.resolution > 0.001)
    found.push(`the clock goes in steps of ${duration(p.resolution)}: times of kernels are means`);
  for (const [device, { bytesPerSecond, flopsPerSecond }] of p.rooflines)
    found.push(
      `roofline of ${device}: copies ${count(bytesPerSecond)}B/s, f32 products ${count(flopsPerSecond)}FLOP/s`,
    );
  return found;
}
