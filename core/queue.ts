/**
 * @file The command queue of a device: jobs are submitted in the order of their calls, later than the call, and at most
 * two steps are in flight. Enqueueing never waits, so a training loop runs ahead of the device; beyond 64 waiting steps it is told to
 * await. A job that fails tells its own results and leaves the queue alive.
 */
import { describe, OutOfMemoryError, QueueFullError } from "./errors.ts";

export interface Job {
  /** Steps count towards the two limits; reads, uploads and frees are short, and somebody awaits them. */
  readonly step: boolean;
  /** What must happen before run(): the queue waits for it, and asks again until it returns nothing. */
  prepare?(): Promise<void> | undefined;
  /** Submits the work; the promise tells that it has ended. Jobs run one after another on the device. */
  run(): void | Promise<void>;
  fail(error: unknown): void;
  /** Called instead of run() when the job is aborted before it is submitted. */
  cancel(reason: unknown): void;
}

/** What the queue asks of the device's memory. */
export interface MemoryKeeper {
  /** True when a collection is due before the next job. */
  pressed(): boolean;
  /** Collects garbage and lets finalizers run. */
  collect(): Promise<void>;
  /** The error to report when nothing more can be freed. */
  explain(error: OutOfMemoryError): Error;
}

const MAX_IN_FLIGHT = 2;
const MAX_QUEUED = 64;
const MEMORY_ATTEMPTS = 3;

/** Runs `fn` in a later macrotask, so that timers, finalizers and input come in between. */
const macrotask: (fn: () => void) => void = (() => {
  if (typeof setImmediate === "function") return (fn) => void setImmediate(fn);
  if (typeof MessageChannel === "function") {
    // setTimeout is clamped to 4 ms in browsers; a message is not.
    const channel = new MessageChannel();
    const waiting: (() => void)[] = [];
    channel.port1.onmessage = () => waiting.shift()?.();
    return (fn) => {
      waiting.push(fn);
      channel.port2.postMessage(null);
    };
  }
  return (fn) => void setTimeout(fn, 0);
})();

export const nextTurn = (): Promise<void> => new Promise((resolve) => macrotask(resolve));

export class Queue {
  readonly #keeper: MemoryKeeper;
  #jobs: Job[] = [];
  #waitingSteps = 0;
  #scheduled = false;
  /** What was submitted and has not ended. */
  readonly #flying = new Set<Promise<void>>();
  /** True while a collection runs or a job prepares: nothing is submitted meanwhile. */
  #paused = false;
  /** Errors after the last attempt. */
  readonly #final = new WeakSet<Error>();
  readonly #pump = () => this.#run();

  constructor(keeper: MemoryKeeper) {
    this.#keeper = keeper;
  }

  /** True when what is submitted now comes after everything that was enqueued. */
  get idle(): boolean {
    return this.#jobs.length === 0 && !this.#paused;
  }

  /** Resolves when what is in flight now has ended; null if nothing is. */
  settled(): Promise<void> | null {
    if (this.#flying.size === 0) return null;
    return Promise.all(this.#flying).then(() => {});
  }

  /** Throws when too many steps wait; called before a step changes anything. */
  checkRoom(op: string): void {
    if (this.#waitingSteps < MAX_QUEUED) return;
    throw new QueueFullError(
      describe(
        op,
        `at most ${MAX_QUEUED} steps waiting`,
        `${this.#waitingSteps} that nobody awaits`,
        "await device.ready(), or await a value of each step",
      ),
    );
  }

  enqueue(job: Job): void {
    this.#jobs.push(job);
    if (job.step) this.#waitingSteps++;
    this.#schedule();
  }

  /** Resolves when all that is queued now has run. An abort cancels whatever was not submitted, and rejects. */
  ready(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        this.cancel(() => true, signal.reason);
        reject(signal.reason);
      } else if (this.idle && this.#flying.size === 0) resolve();
      else {
        const abort = () => this.cancel(() => true, signal!.reason);
        const settle = () => signal?.removeEventListener("abort", abort);
        signal?.addEventListener("abort", abort);
        const end = (reason: unknown) => {
          settle();
          reject(reason);
        };
        const done = () => {
          settle();
          resolve();
        };
        const run = () => void (this.settled()?.then(done) ?? done());
        this.enqueue({ step: false, run, fail: end, cancel: end });
      }
    });
  }

  /** Takes jobs that were not submitted out of the queue, in their order. */
  cancel(which: (job: Job) => boolean, reason: unknown): void {
    const removed = this.#jobs.filter(which);
    this.#jobs = this.#jobs.filter((job) => !removed.includes(job));
    for (const job of removed) {
      if (job.step) this.#waitingSteps--;
      job.cancel(reason);
    }
  }

  #schedule(): void {
    if (this.#scheduled || this.#paused || this.#jobs.length === 0) return;
    this.#scheduled = true;
    macrotask(this.#pump);
  }

  /** One turn: short jobs, then at most one step, then the event loop again. */
  #run(): void {
    this.#scheduled = false;
    while (this.#jobs.length > 0 && !this.#paused) {
      const job = this.#jobs[0];
      if (job.step && this.#flying.size >= MAX_IN_FLIGHT) return;
      this.#jobs.shift();
      if (job.step) this.#waitingSteps--;
      if (job.step && this.#keeper.pressed()) {
        this.#collectThen(() => this.#submit(job, 1));
        return;
      }
      this.#submit(job, 1);
      if (job.step) break;
    }
    this.#schedule();
  }

  #submit(job: Job, attempt: number): void {
    const failed = (error: unknown) => this.#failed(job, error, attempt);
    try {
      const waiting = job.prepare?.();
      if (waiting) {
        this.#pause(waiting, () => this.#submit(job, attempt), failed);
        return;
      }
      const running = job.run();
      if (!running) return;
      const flight = running
        .catch((error) => job.fail(error))
        .finally(() => {
          this.#flying.delete(flight);
          this.#schedule();
        });
      this.#flying.add(flight);
    } catch (error) {
      failed(error);
    }
  }

  #failed(job: Job, error: unknown, attempt: number): void {
    // Also what a job rethrows because one that it depends on has failed.
    if (!(error instanceof OutOfMemoryError) || this.#final.has(error)) job.fail(error);
    // What the program has dropped may not have been collected yet: yield, collect, and try again.
    else if (attempt < MEMORY_ATTEMPTS) this.#collectThen(() => this.#submit(job, attempt + 1));
    else {
      const explained = this.#keeper.explain(error);
      this.#final.add(explained);
      job.fail(explained);
    }
  }

  #collectThen(next: () => void): void {
    this.#pause(this.#keeper.collect(), next, next);
  }

  /** Submits nothing until the promise is settled. */
  #pause(waiting: Promise<void>, next: () => void, failed: (error: unknown) => void): void {
    this.#paused = true;
    const resume = (go: () => void) => {
      this.#paused = false;
      go();
      this.#schedule();
    };
    waiting.then(
      () => resume(next),
      (error) => resume(() => failed(error)),
    );
  }
}
