/** @file Numbers for people: values with units, and axis ticks at round numbers. */

/** A narrow space that does not break: between a number and its unit, and between thousands. */
const SPACE = "\u202f";

/** Names of values between 0 and 1 that read better as percentages. */
const SHARE = /match|accuracy|precision|recall|share|fraction/i;

export const isShare = (name: string, value: number): boolean =>
  SHARE.test(name) && value >= 0 && value <= 1;

/** "mostFrequent" → "most frequent"; a name in seconds becomes a time, because the value shows the unit. */
export const words = (name: string): string =>
  name
    .replace(/([a-z0-9])([A-Z])/g, "$1 $2")
    .replace(/_+/g, " ")
    .toLowerCase()
    .replace(/\bseconds$/, "time");

/** A value as its name wants it: accuracies in percent, seconds as a duration, bytes in MiB. */
export function quantity(name: string, value: number): string {
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "∞");
  if (isShare(name, value)) return `${(100 * value).toFixed(1)}${SPACE}%`;
  if (/seconds$/i.test(name)) return duration(value);
  if (/bytes$/i.test(name)) return `${plain(value / 2 ** 20)}${SPACE}MiB`;
  if (/(ms|milliseconds)$/.test(name)) return `${plain(value)}${SPACE}ms`;
  if (/perSecond$/i.test(name)) return `${plain(value)}${SPACE}/s`;
  return plain(value);
}

/** Four significant digits, all digits of an integer, thousands apart from 10 000 on. */
export function plain(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e15))
    return value.toExponential(2).replaceAll("-", "−");
  const text = String(Number.isInteger(value) ? value : Number(value.toPrecision(4)));
  const [whole, decimals] = text.replace("-", "−").split(".");
  const grouped = size < 10_000 ? whole : whole.replace(/\B(?=(\d{3})+$)/g, SPACE);
  return decimals ? `${grouped}.${decimals}` : grouped;
}

function duration(seconds: number): string {
  if (seconds < 60) return `${plain(Number(seconds.toFixed(1)))}${SPACE}s`;
  const s = Math.round(seconds);
  const parts = [Math.floor(s / 3600), Math.floor((s % 3600) / 60), s % 60];
  const shown = parts.map((n, i) => `${n}${SPACE}${["h", "min", "s"][i]}`);
  return shown.filter((_, i) => parts[i] > 0).join(" ");
}

/** About `count` round numbers (1, 2 or 5 times a power of ten apart) inside low … high. */
export function linearTicks(low: number, high: number, count: number): number[] {
  const rough = (high - low) / count;
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough * 0.999)!;
  const first = Math.ceil(low / step - 1e-9);
  const ticks = Math.floor(high / step + 1e-9) - first + 1;
  // Whole multiples, rounded: 0.1 + 0.2 is no round number.
  return Array.from({ length: ticks }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** Round numbers inside low … high for a logarithmic axis: as many per decade as leave at most `count`. */
export function logTicks(low: number, high: number, count: number): number[] {
  const [from, to] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const decades = Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const candidates = [[1, 2, 5], [1, 3], [1]].map((mantissas) =>
    decades
      .flatMap((d) => mantissas.map((m) => Number(`${m}e${d}`)))
      .filter((t) => t >= low * (1 - 1e-9) && t <= high * (1 + 1e-9)),
  );
  const fitting = candidates.find((ticks) => ticks.length <= count);
  if (fitting) return fitting;
  const stride = Math.ceil(candidates[2].length / count);
  return candidates[2].filter((_, i) => i % stride === 0);
}
