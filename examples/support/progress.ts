/**
 * @file One progress line with a bar that overwrites itself on a terminal. Where the output is not a terminal (a log file)
 * a line is written every ten seconds and at the end instead.
 */
const INTERVAL = { terminal: 100, log: 10_000 }; // ms
/** Characters of the bar. */
const BAR = 20;
/** A bar grows by eighths of a character. */
const EIGHTHS = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

export class Progress {
  readonly #label: string;
  readonly #total: number;
  /** Where this process began: a resumed run has done some before. */
  readonly #from: number;
  readonly #start = performance.now();
  /** The first update: the time before it goes to preparations, such as compiling, that do not come again. */
  #first: { readonly done: number; readonly at: number } | undefined;
  #shown = -Infinity;
  #width = 0;

  constructor(label: string, total: number, from = 0) {
    this.#label = label;
    this.#total = total;
    this.#from = from;
  }

  /** Seconds since the start. */
  get seconds(): number {
    return (performance.now() - this.#start) / 1000;
  }

  /** `details` is given the items per second, without the time before the first update. */
  update(done: number, details: (rate: number) => string = () => ""): void {
    const now = performance.now();
    this.#first ??= { done, at: now };
    const rate =
      done > this.#first.done
        ? (1000 * (done - this.#first.done)) / (now - this.#first.at)
        : (done - this.#from) / this.seconds;
    const last = done >= this.#total;
    const interval = process.stdout.isTTY ? INTERVAL.terminal : INTERVAL.log;
    // In a log the first line comes after one interval, not at once.
    if (this.#shown === -Infinity) this.#shown = process.stdout.isTTY ? -Infinity : this.#start;
    if (!last && now - this.#shown < interval) return;
    this.#shown = now;
    const time = last
      ? `${format(this.seconds)} in all`
      : `${format((this.#total - done) / rate)} left`;
    const share = `${Math.floor((100 * done) / this.#total)} %`.padStart(5);
    const bar = process.stdout.isTTY ? ` ${barOf(done / this.#total)}` : "";
    const text = details(rate);
    const line = `${this.#label}${bar} ${share}  ${done}/${this.#total}  ${text}${text && "  "}${time}`;
    if (!process.stdout.isTTY) {
      console.log(line);
      return;
    }
    // A line that wraps could not be overwritten.
    const shown = line.slice(0, process.stdout.columns || undefined);
    process.stdout.write(`\r${shown.padEnd(this.#width)}${last ? "\n" : ""}`);
    this.#width = shown.length;
  }
}

function barOf(share: number): string {
  const eighths = Math.round(share * BAR * 8);
  const full = "█".repeat(eighths >> 3) + EIGHTHS[eighths & 7];
  return `▕${full.padEnd(BAR)}▏`;
}

function format(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  const s = Math.round(seconds);
  return s < 60 ? `${s} s` : `${Math.floor(s / 60)} min ${s % 60} s`;
}
