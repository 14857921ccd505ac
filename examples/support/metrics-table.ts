/**
 * @file Metrics of any nesting as one table: groups become headings, shares get a bar, an interval of two numbers goes
 * beside the value that it belongs to.
 *
 * An interval belongs to a value if its name continues the value's (`exactMatch`, `exactMatchInterval`), if it is called
 * interval… and comes next (`exactMatch`, `interval95`), or if both stand in an object of their own
 * (`exactMatch: { value: 0.33, interval: [0.28, 0.39] }`).
 */
import { html, type Markup } from "./markup.ts";
import { isShare, plain, quantity, words } from "./numbers.ts";

type Interval = readonly [low: number, high: number];

interface Row {
  readonly depth: number;
  /** The innermost name, which says what kind of number it is. */
  readonly name: string;
  readonly label: string;
  /** Missing on a heading. */
  readonly value?: unknown;
  readonly interval?: Interval;
}

export function metricsTable(metrics: object): Markup {
  const rows = [...rowsOf(metrics, 0, "")];
  if (rows.length === 0) return html`<p class="note">No metrics were recorded.</p>`;
  const withInterval = rows.some((row) => row.interval);
  const columns = withInterval ? 3 : 2;
  return html`<table class="metrics">
<thead><tr><th scope="col">Metric</th><th scope="col">Value</th>${
    withInterval && html`<th scope="col">Interval</th>`
  }</tr></thead>
<tbody>${rows.map((row) => {
    const indent = html`<th scope="row" style="--depth:${row.depth}">${row.label}</th>`;
    if (!("value" in row))
      return html`<tr class="group"><th scope="colgroup" colspan="${columns}" style="--depth:${row.depth}">${row.label}</th></tr>\n`;
    return html`<tr>${indent}<td>${shown(row)}</td>${
      withInterval && html`<td>${row.interval && spanText(row.name, row.interval)}</td>`
    }</tr>\n`;
  })}</tbody></table>`;
}

function* rowsOf(object: object, depth: number, path: string): Generator<Row> {
  const entries = Object.entries(object).filter(([, value]) => value !== undefined);
  const owner = (name: string, value: unknown): string | undefined => {
    if (!isInterval(value)) return undefined;
    const numbers = entries.filter(([, v]) => typeof v === "number").map(([n]) => n);
    const before = entries[entries.findIndex(([n]) => n === name) - 1]?.[0];
    const follows = name.startsWith("interval") && numbers.includes(before);
    return numbers.find((n) => name.startsWith(n)) ?? (follows ? before : undefined);
  };
  const intervals = new Map<string, Interval>();
  for (const [name, value] of entries) {
    const owned = owner(name, value);
    if (owned !== undefined) intervals.set(owned, value as Interval);
  }
  for (const [name, value] of entries) {
    if (owner(name, value) !== undefined) continue;
    const label = path + words(name);
    const measured = measurement(value);
    if (measured) yield { depth, name, label, ...measured };
    else if (isInterval(value)) yield { depth, name, label, value: "", interval: value };
    else if (value === null || typeof value !== "object" || Array.isArray(value))
      yield { depth, name, label, value, interval: intervals.get(name) };
    // A heading for a single row would only make the table longer.
    else if (Object.keys(value).length === 1) yield* rowsOf(value, depth, `${label} · `);
    else {
      yield { depth, name, label };
      yield* rowsOf(value, depth + 1, "");
    }
  }
}

const isInterval = (value: unknown): value is Interval =>
  Array.isArray(value) &&
  value.length === 2 &&
  value.every((v) => typeof v === "number") &&
  value[0] <= value[1];

/** { value, interval } (however the second is called), or null. */
function measurement(value: unknown): { value: number; interval: Interval } | null {
  if (typeof value !== "object" || value === null || !("value" in value)) return null;
  const others = Object.entries(value).filter(([name]) => name !== "value");
  if (typeof value.value !== "number" || others.length !== 1) return null;
  const interval: unknown = others[0][1];
  return isInterval(interval) ? { value: value.value, interval } : null;
}

function shown({ name, value, interval }: Row): Markup | string {
  if (typeof value !== "number") return value === "" ? "" : asText(value);
  const text = quantity(name, value);
  return isShare(name, value)
    ? html`<span class="share">${text}</span>${bar(value, interval)}`
    : text;
}

/** The unit once when both ends have the same. */
function spanText(name: string, [low, high]: Interval): string {
  const [from, to] = [quantity(name, low), quantity(name, high)];
  const percent = from.endsWith("%") && to.endsWith("%");
  return `${percent ? from.slice(0, -2) : from} – ${to}`;
}

function asText(value: unknown): string {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "string") return value;
  if (Array.isArray(value) && value.every((v) => typeof v === "number"))
    return value.slice(0, 8).map(plain).join(", ") + (value.length > 8 ? ", …" : "");
  return value === null ? "–" : JSON.stringify(value);
}

/** The value against the whole; the interval as a line across. The number beside it says the same. */
function bar(value: number, interval?: Interval): Markup {
  const percent = (v: number) => (100 * Math.min(1, Math.max(0, v))).toFixed(1);
  return html`<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
<rect class="track" width="100" height="10"/><rect class="fill" width="${percent(value)}" height="10"/>${
    interval &&
    html`<path d="M${percent(interval[0])} 5H${percent(interval[1])}M${percent(interval[0])} 1v8M${percent(interval[1])} 1v8"/>`
  }</svg>`;
}
