/**
 * @file The program of a worker thread, as text: Node evaluates it, pages load it from a Blob, so no bundler has to find a
 * second file. It waits for jobs in the control words below, and knows of nothing else.
 *
 * Messages (a set-up, then modules) come through the event loop, to which it returns whenever more were posted
 * than it has read. Between jobs it spins for a moment before it sleeps, and for longer within a program: waking it then
 * takes 0.3 µs and not 60.
 */

/** Words of the control block that belong to the job. */
export const job = {
  /** Not 0 while pieces may be taken. */
  open: 0,
  /** Number of the kernel in every worker's table. */
  kernel: 1,
  extent: 2,
  pieces: 3,
  /** Threads that the pieces are dealt out to. */
  threads: 4,
  /** Address of the argument blocks (low word, high word), and bytes from one thread's to the next. */
  args: 5,
  stride: 7,
  /** Whether the kernel checks indices. */
  checks: 8,
  /** Not 0 while a program runs: the next job is a matter of microseconds. */
  expected: 9,
} as const;

/** Words of each thread, at lineWords · (1 + 2 · number): what others write seldom, then what changes with every piece. */
export const thread = {
  /** Changes whenever there is something to look at. */
  signal: 0,
  asleep: 1,
  /** Messages that were posted to it. */
  mail: 2,
  /** Kernels with lower numbers are in its table. */
  kernels: 3,
  failed: 4,
  /** The lowest piece in which an index was out of range, the number of its position, and the index. */
  errorPiece: 5,
  errorCode: 6,
  errorIndex: 7,
  /** 1 from before it looks whether the job is open until it is done with it. */
  inside: 16,
  /** The next piece of its part. */
  next: 17,
  /** The main thread sleeps until `inside` is 0. */
  awaited: 18,
} as const;

/** A cache line. */
export const lineWords = 16;
export const noPiece = 0x7fffffff;
/** How long a thread looks for work, or for the others to end, before it sleeps. */
export const spinMilliseconds = 0.1;
/** How long a thread looks for work within a program: some kernels are not shared. */
export const expectMilliseconds = 2;

const { open, kernel, extent, pieces, threads, args, stride, checks, expected } = job;
const { signal, asleep, mail, kernels, failed, inside, next, awaited } = thread;
const { errorPiece, errorCode, errorIndex } = thread;

export const workerSource = `"use strict";
const port = globalThis.process?.getBuiltinModule?.("node:worker_threads").parentPort ?? self;
const load = Atomics.load, store = Atomics.store;
const pause = Atomics.pause ?? (() => {});
const table = new Map();
let c, me, number, memory, wide, words, read = 0;
port.onmessage = ({ data }) => {
  try {
    if (data.control) {
      ({ control: c, number, memory, wide } = data);
      me = ${lineWords} * (1 + 2 * number);
      words = new WebAssembly.Instance(data.words, { m: { m: memory } }).exports;
    } else if (data.module) {
      const { exports } = new WebAssembly.Instance(data.module, { m: { m: memory } });
      for (let i = 0; i < data.count; i++) table.set(data.base + i, exports["k" + i]);
      store(c, me + ${kernels}, data.base + data.count);
    } else for (let i = 0; i < data.count; i++) table.delete(data.base + i);
    read++;
    if (data.control) port.postMessage("ready");
    while (load(c, me + ${mail}) === read) look();
  } catch (error) {
    if (c) {
      store(c, me + ${failed}, 1);
      leave();
    }
    throw error;
  }
};
const address = (x) => (wide ? BigInt(x) : x);
function look() {
  const seen = load(c, me + ${signal});
  store(c, me + ${inside}, 1);
  if (load(c, ${open}) !== 0) take();
  leave();
  if (load(c, me + ${mail}) !== read) return;
  const begin = performance.now();
  for (let passed = 0; passed < (load(c, ${expected}) ? ${expectMilliseconds} : ${spinMilliseconds}); ) {
    for (let i = 0; i < 64; i++) {
      if (load(c, me + ${signal}) !== seen) return;
      pause();
    }
    passed = performance.now() - begin;
  }
  store(c, me + ${asleep}, 1);
  Atomics.wait(c, me + ${signal}, seen);
  store(c, me + ${asleep}, 0);
}
function leave() {
  store(c, me + ${inside}, 0);
  if (load(c, me + ${awaited}) !== 0) Atomics.notify(c, me + ${inside});
}
function take() {
  const run = table.get(c[${kernel}]);
  const n = c[${threads}], pieces = c[${pieces}], extent = c[${extent}], checks = c[${checks}];
  if (!run || number >= n) return;
  const at = (c[${args}] >>> 0) + (c[${args + 1}] >>> 0) * 4294967296 + number * c[${stride}];
  const pointer = address(at);
  for (let k = 0; k < n; k++) {
    const part = (number + k) % n;
    const end = Math.floor(((part + 1) * pieces) / n);
    const claim = ${lineWords} * (1 + 2 * part) + ${next};
    for (;;) {
      const i = Atomics.add(c, claim, 1);
      if (i >= end) break;
      run(Math.floor((i * extent) / pieces), Math.floor(((i + 1) * extent) / pieces), pointer);
      if (checks !== 0) check(i, at);
    }
  }
}
function check(piece, at) {
  const flag = address(at + 8);
  const code = words.get(flag);
  if (code === 0) return;
  words.set(flag, 0);
  if (piece >= c[me + ${errorPiece}]) return;
  c[me + ${errorPiece}] = piece;
  c[me + ${errorCode}] = code;
  c[me + ${errorIndex}] = words.get(address(at + 12));
}
`;
