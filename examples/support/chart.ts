/**
 * @file The loss curve as inline SVG: every measured value as a faint point, a smoothed line over them, axes.
 *
 * The drawing is stretched to the page's width while its strokes and letters keep their size: the curves are in an
 * inner SVG of 1000 × 1000 units with strokes that do not scale, the labels sit outside of it at percentages.
 */
import { html, type Markup } from "./markup.ts";
import { linearTicks, logTicks, plain } from "./numbers.ts";

export interface LossPoint {
  readonly step: number;
  readonly loss: number;
  /** Which model: the one with its images (the default), or the same one trained on blank images. */
  readonly label?: "train" | "blank";
}

interface Point {
  readonly x: number;
  readonly y: number;
}

const names = { train: "with its images", blank: "with blank images" } as const;
/** Points drawn per curve: more would only make the file larger. */
const DRAWN = 2000;
/** A loss that falls by this factor fills a logarithmic axis better than a linear one. */
const LOGARITHMIC = 20;

export function lossChart(loss: readonly LossPoint[]): Markup {
  const series = (["train", "blank"] as const)
    .map((label) => {
      const points = loss
        .filter((p) => (p.label ?? "train") === label && Number.isFinite(p.loss + p.step))
        .map((p) => ({ x: p.step, y: p.loss }))
        .toSorted((a, b) => a.x - b.x);
      return { label, points, line: smooth(points) };
    })
    .filter(({ points }) => points.length > 0);
  if (series.length === 0) return html`<p class="note">No finite loss was recorded.</p>`;

  const { x, y, logarithmic } = scales(series);
  const at = (scale: Scale, tick: number) => `${(100 * scale.at(tick)).toFixed(2)}%`;
  const flip = (tick: number) => `${(100 - 100 * y.at(tick)).toFixed(2)}%`;
  const lost = loss.filter((p) => !Number.isFinite(p.loss + p.step)).length;
  const spoken = series.map(
    ({ label, points, line }) =>
      `${names[label]}: from ${plain(line[0].y)} at step ${plain(points[0].x)} ` +
      `to ${ending(line)} at step ${plain(points.at(-1)!.x)}`,
  );

  return html`<figure class="chart">
<figcaption><ul class="legend">${series.map(
    ({ label, line }) => html`<li class="${label}">
<svg width="28" height="8" aria-hidden="true"><path class="line" d="M1 4H27"/></svg>
<span>${names[label]}: ends at <b>${ending(line)}</b></span></li>`,
  )}</ul>
<p class="note">Loss per step: points as measured, lines smoothed; ${
    logarithmic ? "logarithmic" : "linear"
  } axis.${lost > 0 && ` ${plain(lost)} values that are not finite are left out.`}</p></figcaption>
<svg class="plot" role="img" aria-label="Loss by training step, ${spoken.join("; ")}">
<g class="grid">${y.ticks.map(
    (t) => html`<line x1="0" x2="100%" y1="${flip(t)}" y2="${flip(t)}"/>`,
  )}</g>
<g class="labels">${y.ticks.map(
    (t) => html`<text x="0" dx="-8" y="${flip(t)}" dy=".32em" text-anchor="end">${plain(t)}</text>`,
  )}${x.ticks.map(
    (t) =>
      html`<text x="${at(x, t)}" y="100%" dy="1.6em" text-anchor="middle">${plain(t)}</text>
<line x1="${at(x, t)}" x2="${at(x, t)}" y1="100%" y2="100%" class="tick"/>`,
  )}<text class="title" x="100%" y="100%" dy="3.1em" text-anchor="end">step</text></g>
<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%">${series.map(
    ({ label, points }) =>
      html`<path class="points ${label}" d="${path(thin(points, DRAWN), x, y, "points")}"/>`,
  )}${series.map(
    ({ label, line }) =>
      html`<path class="line ${label}" d="${path(thin(line, DRAWN / 4), x, y, "line")}"/>`,
  )}</svg>
</svg>
</figure>`;
}

const ending = (line: readonly Point[]) => plain(Number(line.at(-1)!.y.toPrecision(3)));

interface Scale {
  /** 0 at the start of the axis, 1 at its end. */
  readonly at: (value: number) => number;
  readonly ticks: readonly number[];
}

function scales(series: readonly { points: readonly Point[]; line: readonly Point[] }[]) {
  const all = (part: "points" | "line", axis: "x" | "y") =>
    extent(series.flatMap((s) => s[part].map((p) => p[axis])));
  const [left, right] = all("points", "x");
  const [low, high] = all("points", "y");
  const [lowest, highest] = all("line", "y");
  const logarithmic = low > 0 && highest / lowest >= LOGARITHMIC;
  const x: Scale = {
    at: (v) => (right > left ? (v - left) / (right - left) : 0.5),
    ticks: linearTicks(left, right, 5),
  };
  if (logarithmic) {
    const ratio = Math.log(high / low);
    const y: Scale = { at: (v) => Math.log(v / low) / ratio, ticks: logTicks(low, high, 8) };
    return { x, y, logarithmic };
  }
  // A linear axis shows how large a loss is only if it starts at nothing.
  const [bottom, top] = [Math.min(0, low), high > 0 ? high * 1.02 : 1];
  const y: Scale = { at: (v) => (v - bottom) / (top - bottom), ticks: linearTicks(bottom, top, 5) };
  return { x, y, logarithmic };
}

/** Not Math.min(...values): a long run has more steps than a call takes arguments. */
function extent(values: readonly number[]): [number, number] {
  return [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
}

/** Path data on the 1000 × 1000 plane; a point is a line of no length, which round caps turn into a dot. */
function path(points: readonly Point[], x: Scale, y: Scale, as: "points" | "line"): string {
  return points
    .map((p, i) => {
      const place = `${round(1000 * x.at(p.x))} ${round(1000 - 1000 * y.at(p.y))}`;
      if (as === "points") return `M${place}h0`;
      // One value alone would be a line without length.
      return i === 0 ? `M${place}${points.length === 1 ? "h0" : ""}` : `L${place}`;
    })
    .join("");
}

const round = (v: number): number => Math.round(v * 10) / 10;

/**
 * The mean of the neighbourhood: 1/40 of the run to each side, less at its start, where the loss falls fast and a
 * wide window would hide the first value. Two-sided, so the line does not lag behind the points.
 */
export function smooth(points: readonly Point[]): Point[] {
  const half = Math.floor(points.length / 40);
  const sums = [0];
  for (const { y } of points) sums.push(sums.at(-1)! + y);
  return points.map(({ x }, i) => {
    const reach = Math.min(half, i);
    const end = Math.min(points.length, i + Math.max(reach, Math.min(half, 4)) + 1);
    return { x, y: (sums[end] - sums[i - reach]) / (end - i + reach) };
  });
}

/**
 * At most `limit` of the points, in order: of every stretch its smallest, its largest, its first and its middle one.
 * The first two keep each spike, the others keep the cloud from becoming hollow.
 */
export function thin<P extends { readonly y: number }>(points: readonly P[], limit: number): P[] {
  if (points.length <= limit) return [...points];
  const stretches = Math.max(1, Math.floor(limit / 4));
  const kept = new Set<number>();
  for (let s = 0; s < stretches; s++) {
    const begin = Math.floor((s * points.length) / stretches);
    const end = Math.floor(((s + 1) * points.length) / stretches);
    let [least, most] = [begin, begin];
    for (let i = begin; i < end; i++) {
      if (points[i].y < points[least].y) least = i;
      if (points[i].y > points[most].y) most = i;
    }
    const middle = s === stretches - 1 ? end - 1 : (begin + end) >> 1;
    for (const i of [begin, least, most, middle]) kept.add(i);
  }
  return [...kept].sort((a, b) => a - b).map((i) => points[i]);
}
