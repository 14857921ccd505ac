/**
 * @file The figures as a picture: for each case, each peer's time as a multiple of Hinode's on as many threads, on a logarithmic
 * axis. Left of the line at 1: faster than Hinode. Pure; colours are told apart by readers who see no red or green (Okabe and Ito).
 */
import type { Case } from "../suite/cases.ts";
import type { Device } from "../suite/framework.ts";
import { type Peer, titles } from "./processes.ts";
import type { Figure } from "./table.ts";

const colours: Record<Peer, string> = {
  hinode: "#000000",
  "hinode-wide": "#56b4e9",
  torch: "#d55e00",
  "jax-js": "#cc79a7",
  "tfjs-wasm": "#e69f00",
  "tfjs-cpu": "#8a7500",
  "ort-web": "#0072b2",
  "ort-node": "#009e73",
};

const escapeXml = (text: string): string => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

export const placeOf = (threads: number, device: Device): string =>
  device === "webgpu" ? "on a GPU" : `${threads} thread${threads > 1 ? "s" : ""}`;

export function chart(
  rows: readonly Pick<Case, "id" | "name">[],
  chosen: readonly Peer[],
  figures: readonly Figure[],
  threads: number,
  device: Device = "wasm",
): string {
  const candidates = chosen.filter((p) => p !== "hinode");
  const points = rows.map((row) => {
    const at = (peer: Peer) =>
      figures.find((f) => f.case === row.id && f.peer === peer && f.threads === threads)?.ms ??
      null;
    const ours = at("hinode");
    const ratios = candidates.flatMap((peer) => {
      const ms = at(peer);
      return ours && ms ? [{ peer, ratio: ms / ours }] : [];
    });
    return { row, ours, ratios };
  });
  const shown = points.filter(({ ratios }) => ratios.length > 0);
  const others = candidates.filter((p) =>
    shown.some(({ ratios }) => ratios.some((r) => r.peer === p)),
  );
  const all = shown.flatMap(({ ratios }) => ratios.map(({ ratio }) => ratio));
  const low = Math.floor(Math.log10(Math.min(0.1, ...all)));
  const high = Math.ceil(Math.log10(Math.max(10, ...all)));
  const [right, top, line] = [24, 66, 20];
  /** About what a letter takes. */
  const letter = 6.4;
  const left = 24 + letter * Math.max(1, ...shown.map(({ row }) => row.name.length));
  const width = left + 640;
  const bottom = top + shown.length * line;
  const x = (ratio: number): number =>
    left + ((Math.log10(ratio) - low) / (high - low)) * (width - left - right);
  const title = `Time as a multiple of Hinode's, ${placeOf(threads, device)}`;
  const out: string[] = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${bottom + 40}" font-family="system-ui, sans-serif" font-size="12">`,
    `<title>${title}</title>`,
    `<rect width="100%" height="100%" fill="#ffffff"/>`,
    `<text x="12" y="20" font-size="15" font-weight="600">${title}</text>`,
    `<text x="${width - right}" y="20" text-anchor="end" fill="#555555">right of 1: slower than Hinode</text>`,
  ];
  let at = 18;
  for (const peer of others) {
    out.push(
      `<circle cx="${at.toFixed(1)}" cy="42" r="5" fill="${colours[peer]}"/>`,
      `<text x="${(at + 10).toFixed(1)}" y="46">${escapeXml(titles[peer])}</text>`,
    );
    at += 34 + letter * titles[peer].length;
  }
  for (let power = low; power <= high; power++) {
    const tick = x(10 ** power).toFixed(1);
    const strong = power === 0;
    out.push(
      `<line x1="${tick}" y1="${top - 6}" x2="${tick}" y2="${bottom}" stroke="${strong ? "#000000" : "#dddddd"}"/>`,
      `<text x="${tick}" y="${bottom + 18}" text-anchor="middle">${10 ** power}</text>`,
    );
  }
  shown.forEach(({ row, ratios }, i) => {
    const y = top + i * line + line / 2;
    if (i % 2 === 0)
      out.splice(
        5,
        0,
        `<rect x="0" y="${y - line / 2}" width="${width}" height="${line}" fill="#f6f6f6"/>`,
      );
    out.push(`<text x="${left - 12}" y="${y + 4}" text-anchor="end">${escapeXml(row.name)}</text>`);
    for (const { peer, ratio } of ratios)
      out.push(
        `<circle cx="${x(ratio).toFixed(1)}" cy="${y}" r="4.5" fill="${colours[peer]}"><title>${escapeXml(titles[peer])}: ${ratio.toPrecision(3)}</title></circle>`,
      );
  });
  out.push("</svg>");
  return `${out.join("\n")}\n`;
}
