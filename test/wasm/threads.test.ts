/**
 * @file Threads: the same bits for any number of them, errors that do not depend on who found them, processes that end by
 * themselves, and what happens when a worker does not start, dies or hangs. Other tests compute on one thread (vitest.config.ts).
 */
import { spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import workerThreads from "node:worker_threads";
import { afterAll, afterEach, describe, expect, test, vi } from "vitest";
import { WasmBackend, type WasmOptions } from "../../core/backend/wasm/backend.ts";
import { threadCount } from "../../core/backend/wasm/engine.ts";
import { Device, registerDevice } from "../../core/device.ts";
import { DeviceError, IndexOutOfRangeError } from "../../core/errors.ts";
import { tensor, zeros } from "../../core/index.ts";
import { runGraph } from "../support/differential.ts";
import { graphOf, leaf, softmax } from "../support/schedule-cases.ts";
import { seed } from "../support/seed.ts";
import {
  differentBits,
  graphsFrom,
  sharedBy,
  sharing,
  use,
  workOfEveryKind,
} from "../support/threads.ts";

const one = new WasmBackend({ threads: 1 });
const pools: WasmBackend[] = [];
const pool = async (...args: Parameters<typeof sharing>): Promise<WasmBackend> => {
  const backend = await sharing(...args);
  pools.push(backend);
  return backend;
};
afterEach(() => {
  vi.unstubAllEnvs();
  for (const backend of pools.splice(0)) backend.destroy();
});
afterAll(() => registerDevice(new Device(one)));

describe.each([2, 3, 4])("on %d threads", (threads) => {
  test("random graphs have the bits of one thread", async () => {
    const backend = await pool(threads, { address: threads === 3 ? 64 : 32 });
    const graphs = graphsFrom(seed, 8);
    const want = graphs.map((graph) => runGraph(one, graph));
    // In the first round workers are sent the modules, in the second they take part.
    for (let round = 0; round < 2; round++) {
      for (const [i, graph] of graphs.entries())
        expect(differentBits(runGraph(backend, graph), want[i]), `graph ${i}`).toBeNull();
      await backend.ready();
    }
    expect(sharedBy(backend)).toBeGreaterThan(20);
  });

  test("so has work of every kind", async () => {
    const want = await workOfEveryKind(one);
    const backend = await pool(threads);
    expect(differentBits(await workOfEveryKind(backend), want)).toBeNull();
    expect(sharedBy(backend)).toBeGreaterThan(20);
  });
});

describe("an index out of range", () => {
  const lookup = async (backend: WasmBackend, bad: readonly number[]): Promise<Error> => {
    use(backend);
    const table = zeros([50, 16]);
    const ones = new Float32Array(4000 * 16).fill(1);
    const at = Int32Array.from({ length: 4000 }, (_, i) => i % 50);
    for (const i of bad) at[i] = 1000 + i;
    const look = (indices: Int32Array) => table.indexSelect(0, tensor(indices)).exp().data();
    // Twice, so that the threads know the kernel.
    for (let i = 0; i < 2; i++) {
      expect(await look(at.map((x) => Math.min(x, 49)))).toEqual(ones);
      await backend.ready();
    }
    const error = await look(at).catch((e: Error) => e);
    expect(error).toBeInstanceOf(IndexOutOfRangeError);
    expect(await look(at.map(() => 7))).toEqual(ones);
    return error as Error;
  };

  test.each([[[3999]], [[1, 2, 3, 2500]], [[2017, 1803, 3111]], [[0, 3999]]])(
    "the first of %j is told, whoever finds it",
    async (bad) => {
      const { message } = await lookup(one, bad);
      expect(message).toMatch(`got ${1000 + Math.min(...bad)}`);
      const backend = await pool(3);
      for (let i = 0; i < 3; i++) expect((await lookup(backend, bad)).message).toBe(message);
      expect(sharedBy(backend)).toBeGreaterThan(10);
    },
  );
});

describe("a worker that", () => {
  const graph = graphOf({ outputs: [softmax(leaf([64, 32]), 1)] }, 1);
  const want = runGraph(one, graph);
  const same = (backend: WasmBackend) =>
    expect(differentBits(runGraph(backend, graph), want)).toBeNull();

  const { Worker } = workerThreads;
  const made: InstanceType<typeof Worker>[] = [];
  /** Workers with another program. */
  const replace = (program: (source: string) => string): void => {
    workerThreads.Worker = class extends Worker {
      constructor(source: string, options: object) {
        super(program(source), options);
        made.push(this);
      }
    };
  };
  afterEach(() => {
    workerThreads.Worker = Worker;
    made.length = 0;
  });

  /** A backend whose threads know the kernel. */
  const knowing = async (options: WasmOptions = {}, threads = 2): Promise<WasmBackend> => {
    const backend = await pool(threads, options);
    same(backend);
    await backend.ready();
    return backend;
  };

  test("cannot be made leaves the others", async () => {
    replace(() => {
      throw new Error("no more threads");
    });
    const backend = await knowing();
    expect(backend.threadCount).toBe(1);
    expect(backend.threads!.reason).toMatch("no more threads");
    same(backend);
    expect(sharedBy(backend)).toBe(0);
  });

  test("fails at the start leaves the others", async () => {
    replace(() => "throw new Error('not here')");
    const backend = await knowing();
    expect(backend.threadCount).toBe(1);
    expect(backend.threads!.reason).toMatch("not here");
    same(backend);
  });

  test("ends between two runs is done without", async () => {
    replace((source) => source);
    const backend = await knowing({}, 3);
    /** Whether a run is shared. */
    const shares = () => {
      const before = sharedBy(backend);
      same(backend);
      return sharedBy(backend) > before;
    };
    for (const [alive, worker] of [[3], [2, made[0]], [1, made[1]]] as const) {
      await worker?.terminate();
      expect(shares()).toBe(alive > 1);
      expect(backend.threadCount).toBe(alive);
    }
  });

  test.each([
    ["throws", "throw new Error('a trap')"],
    ["ends", "process.exit(3)"],
    ["hangs", "for (;;);"],
  ])("%s in the middle of a kernel makes an error, and is done without", async (_, fault) => {
    replace((source) => source.replace("run(Math", `${fault}; run(Math`));
    const backend = await pool(2, { patience: 100 });
    // It takes part once it has loaded the module, unless the other one has done everything before it comes.
    const work = async () => {
      same(backend);
      await backend.ready();
      for (const end = performance.now() + 60_000; performance.now() < end; ) same(backend);
    };
    await expect(work()).rejects.toThrow(DeviceError);
    expect(backend.threadCount).toBe(1);
    same(backend);
  });

  test("belongs to a backend that nobody holds ends", async () => {
    replace((source) => source);
    // A function of its own: no frame that goes on may hold the backend.
    await (async () => same(await sharing(2)))();
    const ended = new Promise((resolve) => void made[0].on("exit", resolve));
    const collecting = setInterval(() => void new Device(one).collect(), 50);
    await ended;
    clearInterval(collecting);
  });

  test("finds no room for its scratch is done without", async () => {
    const rows = graphOf({ outputs: [softmax(leaf([2, 16_000]), 1)] }, 1);
    const bits = runGraph(one, rows);
    // Each thread keeps a row of 64 KB.
    const backend = await pool(8, { budget: 2 ** 19 });
    expect(differentBits(runGraph(backend, rows), bits)).toBeNull();
    await backend.ready();
    expect(differentBits(runGraph(backend, rows), bits)).toBeNull();
    expect(sharedBy(backend)).toBe(0);
  });
});

/** Runs a script as a user's program; kills it if it does not end. */
function run(
  script: string,
  environment: Record<string, string> = {},
): Promise<{ readonly code: number | null; readonly output: string }> {
  const child = spawn(
    process.execPath,
    ["--conditions=source", "--no-liftoff", "--input-type=module", "--eval", script],
    {
      cwd: resolve(import.meta.dirname, "../.."),
      env: { ...process.env, HINODE_THREADS: "", ...environment },
      timeout: 100_000,
    },
  );
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (text) => {
      output += text;
    });
  return new Promise((done) => {
    child.on("close", (code) => done({ code, output }));
  });
}

const start = `
  import { deviceInfo, init, rand } from "hinode";
  const work = () => rand([300, 300]).matmul(rand([300, 300])).sum().data();
`;

describe("a process", () => {
  test.concurrent.for([
    [
      "that asks for them",
      `console.log((await init({ threads: 3, device: "wasm" })) && deviceInfo().threads);
       for (let i = 0; i < 5; i++) await work();`,
      { code: 0, output: "3\n" },
    ],
    ["that leaves work behind", "for (let i = 0; i < 5; i++) work();", { code: 0, output: "" }],
    [
      "that throws",
      `await init({ threads: 2 }); await work(); setTimeout(() => { throw 7; });`,
      { code: 1, output: expect.stringMatching(/throw 7/) },
    ],
  ] as const)("%s ends by itself", async ([, script, outcome]) => {
    expect(await run(start + script)).toEqual(outcome);
  });
});

test.each([
  [undefined, undefined, availableParallelism()],
  [undefined, "3", 3],
  [2, "3", 2],
  [0, undefined, /init: expected threads within 1 … 256, got 0/],
  [1.5, undefined, /got 1.5/],
  [undefined, "many", /HINODE_THREADS: .*got "many"/],
])("asked for %s, HINODE_THREADS=%s: %s threads", (asked, variable, expected) => {
  vi.stubEnv("HINODE_THREADS", variable);
  const count = () => threadCount(asked);
  if (typeof expected === "number") expect(count()).toBe(expected);
  else expect(count).toThrow(expected);
});
