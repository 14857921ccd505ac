/**
 * @file The loss by step as SVG, on a logarithmic axis, in the colour of the device that computed it. Redrawn whole: at most
 * some hundreds of points are kept, and older ones are merged two by two.
 */
import type { DeviceName } from "hinode";

interface Point {
  readonly step: number;
  readonly loss: number;
  readonly device: DeviceName;
}

const MOST = 480;
/** Room for the labels, in CSS pixels. */
const [LEFT, RIGHT, TOP, BOTTOM] = [44, 10, 8, 24];

export class LossPlot {
  readonly #svg: SVGSVGElement;
  #points: Point[] = [];
  /** Losses that make one point, and those of the point that is being made. */
  #merge = 1;
  #open: Point[] = [];

  constructor(svg: SVGSVGElement) {
    this.#svg = svg;
    new ResizeObserver(() => this.draw()).observe(svg);
  }

  clear(): void {
    this.#points = [];
    this.#open = [];
    this.#merge = 1;
    this.draw();
  }

  add(step: number, loss: number, device: DeviceName): void {
    if (this.#open.length > 0 && this.#open[0].device !== device) this.#close();
    this.#open.push({ step, loss, device });
    if (this.#open.length >= this.#merge) this.#close();
  }

  #close(): void {
    this.#points.push(mean(this.#open));
    this.#open = [];
    if (this.#points.length < MOST) return;
    const merged: Point[] = [];
    for (let i = 0; i < this.#points.length; i++) {
      const [a, b] = [this.#points[i], this.#points[i + 1]];
      if (a.device === b?.device) {
        merged.push(mean([a, b]));
        i++;
      } else merged.push(a);
    }
    this.#points = merged;
    this.#merge *= 2;
  }

  draw(): void {
    const { clientWidth: width, clientHeight: height } = this.#svg;
    if (width === 0) return;
    const points = this.#points;
    const last = Math.max(points.at(-1)?.step ?? 0, 100);
    const losses = points.length > 0 ? points.map((p) => p.loss) : [0.01, 0.1];
    const [low, high] = [Math.log10(Math.min(...losses)) - 0.06, Math.log10(Math.max(...losses)) + 0.06]; // biome-ignore format: a pair
    const x = (step: number) => LEFT + ((width - LEFT - RIGHT) * step) / last;
    const y = (loss: number) =>
      TOP + ((height - TOP - BOTTOM) * (high - Math.log10(loss))) / (high - low);

    const parts: string[] = [];
    for (const tick of logTicks(low, high)) {
      const at = y(tick).toFixed(1);
      parts.push(
        `<line class="grid" x1="${LEFT}" x2="${width - RIGHT}" y1="${at}" y2="${at}"/>`,
        `<text x="${LEFT - 8}" y="${at}" dy=".32em" text-anchor="end">${plain(tick)}</text>`,
      );
    }
    for (const tick of linearTicks(last, Math.max(2, Math.floor(width / 75)))) {
      // The last one may stand at the very edge.
      const anchor = x(tick) > width - 30 ? "end" : "middle";
      const text = tick === 0 ? "step 0" : tick.toLocaleString("en");
      parts.push(
        `<text x="${x(tick).toFixed(1)}" y="${height - 4}" text-anchor="${anchor}">${text}</text>`,
      );
    }
    for (const run of runs(points)) {
      const line = run.map((p) => `${x(p.step).toFixed(1)} ${y(p.loss).toFixed(1)}`).join("L");
      parts.push(`<path class="${run.at(-1)!.device}" d="M${line}"/>`);
    }
    const end = points.at(-1);
    if (end)
      parts.push(
        `<circle class="${end.device}" cx="${x(end.step).toFixed(1)}" cy="${y(end.loss).toFixed(1)}" r="3.5"/>`,
      );
    this.#svg.innerHTML = parts.join("");
  }
}

function mean(points: readonly Point[]): Point {
  const { step, device } = points.at(-1)!;
  return { step, device, loss: points.reduce((sum, p) => sum + p.loss, 0) / points.length };
}

/** Stretches of one device; each begins where the one before ended, so that no gap stays. */
function runs(points: readonly Point[]): Point[][] {
  const all: Point[][] = [];
  for (const [i, p] of points.entries()) {
    if (i === 0 || p.device !== points[i - 1].device) all.push(i === 0 ? [] : [points[i - 1]]);
    all.at(-1)!.push(p);
  }
  return all;
}

/** Powers of ten, and between them what there is room for. */
function logTicks(low: number, high: number): number[] {
  const steps = high - low > 3 ? [1] : high - low > 1.5 ? [1, 3] : [1, 2, 5];
  const ticks: number[] = [];
  for (let power = Math.floor(low); power <= high; power++)
    for (const m of steps) {
      const tick = Math.log10(m) + power;
      if (tick >= low && tick <= high) ticks.push(m * 10 ** power);
    }
  return ticks;
}

function linearTicks(last: number, count: number): number[] {
  const rough = last / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((m) => m * power >= rough) ?? 10);
  const ticks: number[] = [];
  for (let tick = 0; tick <= last; tick += step) ticks.push(tick);
  return ticks;
}

/** Losses and rates to two digits, without exponents. */
export const plain = (x: number): string =>
  x.toLocaleString("en", { maximumSignificantDigits: 2, useGrouping: false });
