/**
 * @file One progress line that overwrites itself on a terminal. Where the output is not a terminal (a log file) a line
 * is written every ten seconds and at the end instead.
 */
const INTERVAL = { terminal: 100, log: 10_000 }; // ms

export class Progress {
  readonly #label: string;
  readonly #total: number;
  readonly #start = performance.now();
  #shown = -Infinity;
  #width = 0;

  constructor(label: string, total: number) {
    this.#label = label;
    this.#total = total;
  }

  /** Seconds since the start. */
  get seconds(): number {
    return (performance.now() - this.#start) / 1000;
  }

  update(done: number, details = ""): void {
    const now = performance.now();
    const last = done >= this.#total;
    const interval = process.stdout.isTTY ? INTERVAL.terminal : INTERVAL.log;
    // In a log the first line comes after one interval, not at once.
    if (this.#shown === -Infinity) this.#shown = process.stdout.isTTY ? -Infinity : this.#start;
    if (!last && now - this.#shown < interval) return;
    this.#shown = now;
    const left = done > 0 ? (this.seconds / done) * (this.#total - done) : Number.NaN;
    const time = last ? `${format(this.seconds)} in all` : `${format(left)} left`;
    const share = `${Math.floor((100 * done) / this.#total)} %`.padStart(5);
    const line = `${this.#label} ${share}  ${done}/${this.#total}  ${details}${details && "  "}${time}`;
    if (!process.stdout.isTTY) {
      console.log(line);
      return;
    }
    process.stdout.write(`\r${line.padEnd(this.#width)}${last ? "\n" : ""}`);
    this.#width = line.length;
  }
}

function format(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  const s = Math.round(seconds);
  return s < 60 ? `${s} s` : `${Math.floor(s / 60)} min ${s % 60} s`;
}
