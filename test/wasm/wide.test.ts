/** @file Registers of 256 bits: the same bits as without, in use where they should be, and nothing that other modules notice. */
import { spawn } from "node:child_process";
import { resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { wideTarget } from "../../core/backend/wasm/module.ts";

async function run(script: string, setting: string, ...flags: string[]): Promise<string> {
  const child = spawn(
    process.execPath,
    ["--conditions=source", ...flags, "--input-type=module", "--eval", script],
    {
      cwd: resolve(import.meta.dirname, "../.."),
      env: { ...process.env, HINODE_THREADS: "", NODE_OPTIONS: "", HINODE_REVECTORIZE: setting },
      timeout: 100_000,
    },
  );
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (text) => {
      output += text;
    });
  const code = await new Promise((done) => child.on("close", done));
  return `${output}${code === 0 ? "" : `exit ${code}`}`;
}

// Products with whole and broken tiles, with and without a cut of K; calls of pow and fmod; large arguments of sin.
const work = `
  import { init, manualSeed, rand } from "hinode";
  await init({ device: "wasm", threads: 1 });
  manualSeed(1);
  const [x, w, deep] = [rand([131, 170]), rand([170, 151]), rand([900, 83])];
  const results = [
    x.matmul(w).add(1).relu(),
    x.transpose(0, 1).matmul(x),
    rand([40, 900]).matmul(deep),
    rand([600, 1024]).pow(1.7),
    rand([600, 1024]).fmod(0.3),
    rand([600, 1024]).mul(1e9).sin(),
    rand([600, 1024]).sub(0.5).gelu().softmax(-1),
    rand([600, 1024]).half().exp(),
  ];
  for (const r of results) {
    const bits = new Uint32Array(new Float32Array(await r.float().data()).buffer);
    console.log(bits.length, bits.reduce((h, b) => (Math.imul(h, 31) + b) | 0, 7));
  }`;

// Stores of two calls' results side by side: V8 ends the process when it optimises that under the flag.
const foreign = `
  import { init, rand } from "hinode";
  import { assemble, Code } from "./core/backend/wasm/assembler.ts";
  await init({ device: "wasm", threads: 1 });
  const product = () => rand([300, 300]).matmul(rand([300, 300])).data();
  await product();
  const [twice, store] = [new Code(), new Code()];
  for (const _ of "ab") twice.get(0);
  twice.op("f32x4.add");
  for (const u of [0, 1]) {
    store.get(0);
    store.memory("v128.load", 16 * u);
    store.opU("call", 1);
    store.set(1 + u);
  }
  for (const u of [0, 1]) {
    store.get(0);
    store.get(1 + u);
    store.memory("v128.store", 64 + 16 * u);
  }
  const functions = [
    { params: ["i32"], results: [], locals: ["v128", "v128"], body: store, exported: "f" },
    { params: ["v128"], results: ["v128"], locals: [], body: twice },
  ];
  const module = new WebAssembly.Module(assemble(functions, { address: 32, shared: false }));
  const m = new WebAssembly.Memory({ initial: 1 });
  const { f } = new WebAssembly.Instance(module, { m: { m } }).exports;
  for (let i = 0; i < 2e6; i++) f(0);
  await product();
  await new Promise((done) => setTimeout(done, 200));
  console.log("alive");`;

describe.runIf(wideTarget())("registers of 256 bits", () => {
  test("change no bit, and are the default", async () => {
    const [narrow, wide] = await Promise.all([run(work, "0"), run(work, "")]);
    expect(wide).toBe(narrow);
    expect(narrow).toMatch(/^(\d+ -?\d+\n){8}$/);
  });

  test("are used for large products, not for small ones", async () => {
    const product = (n: number) => `
      import { init, zeros } from "hinode";
      await init({ device: "wasm", threads: 1 });
      await zeros([${n}, ${n}]).matmul(zeros([${n}, ${n}])).data();`;
    // A product and a function of it are stored: only stores of one result are neighbours.
    const withFunction = `
      import { compile, defaultDevice, init, zeros } from "hinode";
      await init({ device: "wasm", threads: 1 });
      const f = compile((x) => [x.matmul(x), x.matmul(x).exp()]);
      f(zeros([200, 200]));
      await defaultDevice().ready();`;
    const [large, both, small, off] = await Promise.all([
      run(product(200), "1", "--trace-wasm-revectorize"),
      run(withFunction, "", "--trace-wasm-revectorize"),
      run(product(20), "1", "--trace-wasm-revectorize"),
      run(product(200), "0", "--trace-wasm-revectorize"),
    ]);
    expect(large).toMatch(/Decided to vectorize/);
    expect(both).toMatch(/Decided to vectorize/);
    expect([small, off]).toEqual(["", ""]);
  });

  test("leave other modules alone", async () => {
    const [alone, everywhere] = await Promise.all([
      run(foreign, "1", "--no-wasm-inlining"),
      run(foreign, "0", "--no-wasm-inlining", "--experimental-wasm-revectorize"),
    ]);
    expect(alone).toBe("alive\n");
    expect(everywhere).toMatch(/unreachable code/);
  });
});
