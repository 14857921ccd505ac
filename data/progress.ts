/**
 * @file One progress line with a bar that overwrites itself on a terminal. Where the output is not a terminal (a log file, a
 * browser's console) a line is written every ten seconds and at the end instead. What the line says besides is up to
 * the caller.
 */
const INTERVAL = { terminal: 100, log: 10_000 }; // ms
/** Characters of the bar. */
const BAR = 20;
/** A bar grows by eighths of a character. */
const EIGHTHS = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/** Where lines go; a stream of Node's is one. */
export interface ProgressOutput {
  write(text: string): unknown;
  /** Whether a line can be overwritten. */
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface ProgressOptions {
  /** What is going on; the line begins with it. */
  readonly description?: string;
  /** How many items there will be; without it there is no bar and no time left. */
  readonly total?: number;
  /** Where this process began: a resumed run has done some before. */
  readonly from?: number;
  /** Standard output unless given. */
  readonly output?: ProgressOutput;
}

/** A line that the caller moves on: `update(done)`. For something to iterate over, see `progress`. */
export class Progress {
  readonly #label: string;
  readonly #total: number | undefined;
  readonly #from: number;
  readonly #output: ProgressOutput;
  readonly #start = performance.now();
  /** The first update: the time before it goes to preparations, such as compiling, that do not come again. */
  #first: { readonly done: number; readonly at: number } | undefined;
  #shown: number;
  #width = 0;

  constructor(options: ProgressOptions = {}) {
    const { description = "", total, from = 0, output = standardOutput() } = options;
    this.#label = description;
    this.#total = total;
    this.#from = from;
    this.#output = output;
    // In a log the first line comes after one interval, not at once.
    this.#shown = output.isTTY ? -Infinity : this.#start;
  }

  /** Seconds since the start. */
  get seconds(): number {
    return (performance.now() - this.#start) / 1000;
  }

  /**
   * Says that `done` items of all are done; the line ends when they are all. `details` is given the items per second,
   * without the time before the first update.
   */
  update(done: number, details: (rate: number) => string = () => ""): void {
    this.#show(done, details, done >= (this.#total ?? Infinity));
  }

  /** Ends the line where it is, for work that was left early or whose total nobody knew. */
  finish(done: number, details: (rate: number) => string = () => ""): void {
    this.#show(done, details, true);
  }

  #show(done: number, details: (rate: number) => string, last: boolean): void {
    const { isTTY, columns } = this.#output;
    const now = performance.now();
    this.#first ??= { done, at: now };
    const rate =
      done > this.#first.done
        ? (1000 * (done - this.#first.done)) / (now - this.#first.at)
        : (done - this.#from) / this.seconds;
    if (!last && now - this.#shown < (isTTY ? INTERVAL.terminal : INTERVAL.log)) return;
    this.#shown = now;
    const line = [this.#where(done), details(rate), this.#time(done, rate, last)]
      .filter((part) => part !== "")
      .join("  ");
    if (!isTTY) {
      this.#output.write(`${line}\n`);
      return;
    }
    // A line that wraps could not be overwritten.
    const shown = line.slice(0, columns || undefined);
    this.#output.write(`\r${shown.padEnd(this.#width)}${last ? "\n" : ""}`);
    this.#width = shown.length;
  }

  #where(done: number): string {
    const total = this.#total;
    const label = this.#label && `${this.#label} `;
    if (total === undefined) return `${label}${done}`;
    const part = total > 0 ? Math.min(done / total, 1) : 1;
    const bar = this.#output.isTTY ? `${barOf(part)} ` : "";
    return `${label}${bar}${`${Math.floor(100 * part)} %`.padStart(5)}  ${done}/${total}`;
  }

  #time(done: number, rate: number, last: boolean): string {
    if (last) return `${format(this.seconds)} in all`;
    if (this.#total === undefined) return format(this.seconds);
    return `${format((this.#total - done) / rate)} left`;
  }
}

/** What is iterated over, with its line. */
export interface Tracked<T> extends AsyncIterable<T> {
  /** Shows values at the end of the line, such as `{ loss: 0.25 }`, from its next change on. */
  postfix(values: Readonly<Record<string, number | string>>): void;
}

/**
 * Shows how far an iteration is, how fast it goes and how long it will take, as Python's tqdm does:
 *
 *     const batches = progress(loader, { description: "epoch 1" });
 *     for await (const batch of batches) batches.postfix({ loss: await step(batch) });
 *
 * `total` is the iterable's own length or size unless given. An array's items may be taken with a plain `for` as well.
 */
export function progress<T>(
  items: Iterable<T>,
  options?: ProgressOptions & { unit?: string },
): Tracked<T> & Iterable<T>;
export function progress<T>(
  items: AsyncIterable<T>,
  options?: ProgressOptions & { unit?: string },
): Tracked<T>;
export function progress<T>(
  items: Iterable<T> | AsyncIterable<T>,
  options: ProgressOptions & { unit?: string } = {},
): Tracked<T> & Iterable<T> {
  const { length, size } = items as { length?: number; size?: number };
  const { unit = "it", total = length ?? size } = options;
  let values: Readonly<Record<string, number | string>> = {};
  const details = (rate: number): string => {
    const speed =
      rate >= 1 || rate === 0 ? `${digits(rate)} ${unit}/s` : `${digits(1 / rate)} s/${unit}`;
    return [speed, ...Object.entries(values).map(([k, v]) => `${k} ${digits(v)}`)].join("  ");
  };
  /** Counts an item when the next one is asked for: its work is done then. */
  const track = () => {
    const line = new Progress({ ...options, total });
    let done = options.from ?? 0;
    let ended = false;
    return {
      next() {
        ended = ++done >= (total ?? Infinity);
        line.update(done, details);
      },
      end: () => ended || line.finish(done, details),
    };
  };
  return {
    postfix(shown) {
      values = shown;
    },
    *[Symbol.iterator]() {
      const line = track();
      try {
        for (const item of items as Iterable<T>) {
          yield item;
          line.next();
        }
      } finally {
        line.end();
      }
    },
    async *[Symbol.asyncIterator]() {
      const line = track();
      try {
        for await (const item of items) {
          yield item;
          line.next();
        }
      } finally {
        line.end();
      }
    },
  };
}

/** Node's stream, or lines on a console. */
const standardOutput = (): ProgressOutput =>
  globalThis.process?.stdout ?? { write: (text: string) => console.log(text.trimEnd()) };

const digits = (x: number | string): string =>
  typeof x === "string" ? x : Number.isFinite(x) ? `${Number(x.toPrecision(4))}` : `${x}`;

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
