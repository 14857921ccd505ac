/**
 * @file What experts cost: one feed-forward layer with more and more of them, of which each token
 * takes two. Arithmetic grows with what a token takes, not with how many there are; so does what a
 * token of generation reads. Memory holds them all.
 *
 *     npx node --conditions=source examples/experts.ts
 */
import { compile, explain, init, manualSeed, randn, type Tensor } from "hinode";
import { type ExpertsConfig, MixtureOfExperts } from "hinode/models";
import { SwiGLU } from "hinode/nn";

const [WIDTH, HIDDEN, TOKENS] = [128, 384, 512];

await init({ device: "wasm" });
manualSeed(0);

/**
 * Gigaflop of a pass over many tokens; megabytes of one over one token, and the best of some times
 * of it.
 */
async function cost(forward: (x: Tensor) => Tensor) {
  const pass = compile(forward);
  const one = randn([1, WIDTH]);
  const { bytes } = explain(pass, one);
  let best = Infinity;
  for (let i = 0; i < 40; i++) {
    const start = performance.now();
    await pass(one).data();
    best = Math.min(best, performance.now() - start);
  }
  const { flops } = explain(compile(forward), randn([TOKENS, WIDTH]));
  return { gigaflop: flops / 1e9, megabytes: bytes / 1e6, milliseconds: best };
}

const experts = (count: number, more: Partial<ExpertsConfig>) => {
  const layer = new MixtureOfExperts(WIDTH, HIDDEN, { count, perToken: 2, ...more });
  return cost((x) => layer.forward(x)[0]);
};
const dense = new SwiGLU(WIDTH, HIDDEN);
const rows: [string, Awaited<ReturnType<typeof cost>>][] = [
  ["dense", await cost((x) => dense.forward(x))],
];
for (const count of [4, 16, 64]) {
  rows.push([`${count} experts, capacity 2`, await experts(count, { capacityFactor: 2 })]);
  rows.push([`${count} experts, none dropped`, await experts(count, {})]);
}

console.log(`${"".padEnd(26)}${TOKENS} tokens      one token`);
for (const [name, { gigaflop, megabytes, milliseconds }] of rows) {
  const work = `${gigaflop.toFixed(2)} GFLOP`.padStart(10);
  const read = `${megabytes.toFixed(2)} MB`.padStart(12);
  console.log(`${name.padEnd(26)}${work}${read}${`${milliseconds.toFixed(2)} ms`.padStart(10)}`);
}
