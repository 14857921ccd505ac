/**
 * @file What this machine can do at most from WebAssembly, measured by two loops written by hand with the assembler:
 * multiply-adds that only touch registers, and a copy. Benchmarks divide by these, so their figures carry over.
 *
 * V8 replaces code only between calls and only after some time, so both run in blocks, warm up, and report the best.
 */
import {
  assemble,
  Code,
  compileModule,
  type FunctionSource,
} from "../core/backend/wasm/assembler.ts";
import { detectRelaxed } from "../core/backend/wasm/module.ts";

const accumulators = 12;

/** (rounds: i32) → f32: `accumulators` independent chains; the result keeps the engine from dropping them. */
function fmaLoop(relaxed: boolean): FunctionSource {
  const body = new Code();
  const [factor, first] = [1, 2];
  const sums = Array.from({ length: accumulators }, (_, i) => first + i);
  const splat = (x: number, to: number): void => {
    body.f32(x);
    body.op("f32x4.splat");
    body.set(to);
  };
  splat(0.999999, factor);
  for (const s of sums) splat(s, s);
  body.open("loop");
  for (let repeat = 0; repeat < 4; repeat++) {
    for (const s of sums) {
      body.get(s);
      body.get(factor);
      if (relaxed) {
        body.get(factor);
        body.op("f32x4.relaxed_madd");
      } else {
        body.op("f32x4.mul");
        body.get(factor);
        body.op("f32x4.add");
      }
      body.set(s);
    }
  }
  body.get(0);
  body.i32(1);
  body.op("i32.sub");
  body.tee(0);
  body.opU("br_if", 0);
  body.end();
  body.get(first);
  for (const s of sums.slice(1)) {
    body.get(s);
    body.op("f32x4.add");
  }
  body.opU("f32x4.extract_lane", 0);
  const locals = Array.from({ length: 1 + accumulators }, () => "v128" as const);
  return { params: ["i32"], results: ["f32"], locals, body, exported: "fma" };
}

/** (from: i32, to: i32, bytes: i32): 64 bytes per round. */
function copyLoop(): FunctionSource {
  const body = new Code();
  const [from, to, bytes] = [0, 1, 2];
  const advance = (local: number, by: number): void => {
    body.get(local);
    body.i32(by);
    body.op("i32.add");
    body.set(local);
  };
  body.open("loop");
  for (let offset = 0; offset < 64; offset += 16) {
    body.get(to);
    body.get(from);
    body.memory("v128.load", offset);
    body.memory("v128.store", offset);
  }
  advance(from, 64);
  advance(to, 64);
  advance(bytes, -64);
  body.get(bytes);
  body.opU("br_if", 0);
  body.end();
  return { params: ["i32", "i32", "i32"], results: [], locals: [], body, exported: "copy" };
}

function bind<F>(source: FunctionSource, memory: WebAssembly.Memory): F {
  const module = compileModule(assemble([source], { address: 32, shared: false }));
  return new WebAssembly.Instance(module, { m: { m: memory } }).exports[source.exported!] as F;
}

/** The shortest of several timings, in seconds, after half as many unmeasured ones. */
export function best(run: () => void, repeats = 20): number {
  let shortest = Infinity;
  for (let i = -repeats / 2; i < repeats; i++) {
    const start = performance.now();
    run();
    if (i >= 0) shortest = Math.min(shortest, performance.now() - start);
  }
  return shortest / 1000;
}

/** GFLOP/s of one thread without memory traffic. */
export function fmaPeak(relaxed = detectRelaxed()): number {
  const fma = bind<(rounds: number) => number>(
    fmaLoop(relaxed),
    new WebAssembly.Memory({ initial: 0 }),
  );
  const rounds = 20_000;
  const flops = rounds * 4 * accumulators * 4 * 2;
  return flops / best(() => fma(rounds), 40) / 1e9;
}

/** GB/s, read and written bytes counted, of one thread copying arrays of `bytes`. */
export function copyPeak(bytes = 1 << 24): number {
  const size = Math.max(64, bytes & -64);
  const memory = new WebAssembly.Memory({ initial: Math.ceil((2 * size) / 65536) });
  // Pages never written are all one page of zeros, which caches hold however much of it is read.
  new Uint8Array(memory.buffer).fill(1);
  const copy = bind<(from: number, to: number, bytes: number) => void>(copyLoop(), memory);
  const block = Math.min(size, 1 << 16);
  const run = (): void => {
    for (let at = 0; at < size; at += block) copy(at, size + at, Math.min(block, size - at));
  };
  return (2 * size) / best(run) / 1e9;
}
