/**
 * @file The processes of the peers: which there are, how each is started, and how run.ts talks with one. A process that dies,
 * or takes longer than its limit, is a result too, and the next case gets a new one.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Device } from "../suite/framework.ts";

export const peers = [
  "hinode",
  "hinode-wide",
  "torch",
  "jax-js",
  "tfjs-wasm",
  "tfjs-cpu",
  "ort-web",
  "ort-node",
] as const;
export type Peer = (typeof peers)[number];

/** Those that compute on a GPU, too. */
export const onGpu: readonly Peer[] = ["hinode", "torch", "jax-js"];

export const titles: Record<Peer, string> = {
  hinode: "Hinode",
  "hinode-wide": "Hinode, 256 bits",
  torch: "PyTorch",
  "jax-js": "jax-js",
  "tfjs-wasm": "TensorFlow.js wasm",
  "tfjs-cpu": "TensorFlow.js cpu",
  "ort-web": "onnxruntime-web",
  "ort-node": "onnxruntime-node",
};

/** Why a peer gave no figure. */
export class Refusal extends Error {
  /** It never can (as opposed to: it failed). */
  readonly unsupported: boolean;
  constructor(message: string, unsupported = false) {
    super(message);
    this.unsupported = unsupported;
  }
}

const here = import.meta.dirname;

/** python3, or what PYTHON names. */
const python = process.env.PYTHON ?? "python3";

export const hasTorch = (): boolean =>
  spawnSync(python, ["-c", "import torch"], { stdio: "ignore" }).status === 0;

function start(peer: Peer, threads: number, device: Device, built: boolean): ChildProcess {
  const args = [peer, String(threads), device];
  const env = {
    ...process.env,
    OMP_NUM_THREADS: String(threads),
    HINODE_REVECTORIZE: peer === "hinode-wide" ? "1" : "0",
  };
  const stdio = ["pipe", "pipe", "ignore"] as const;
  if (peer === "torch")
    return spawn(python, [join(here, "pytorch.py"), ...args], { env, stdio: [...stdio] });
  const flags = [...(built ? [] : ["--conditions=source"]), "--expose-gc"];
  return spawn(process.execPath, [...flags, join(here, "worker.ts"), ...args], {
    env,
    stdio: [...stdio],
  });
}

export class PeerProcess {
  readonly peer: Peer;
  readonly threads: number;
  readonly device: Device;
  /** Takes the built package instead of the sources. */
  readonly #built: boolean;
  #child: ChildProcess | undefined;
  #lines: AsyncIterator<string> | undefined;
  version = "";

  constructor(peer: Peer, threads: number, device: Device, built = false) {
    this.#built = built;
    this.device = device;
    this.peer = peer;
    this.threads = threads;
  }

  get key(): string {
    return `${this.peer}/${this.threads}`;
  }

  /** The answer to a request; starts the process first if there is none. */
  async ask(request: object, limitMs: number): Promise<Record<string, unknown>> {
    if (!this.#child) {
      this.#child = start(this.peer, this.threads, this.device, this.#built);
      this.#child.on("error", () => {});
      // A request to a process that has just died: the missing answer tells.
      this.#child.stdin!.on("error", () => {});
      this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]();
      const { version } = await this.#answer(60_000);
      this.version = String(version);
    }
    this.#child.stdin!.write(`${JSON.stringify(request)}\n`);
    return this.#answer(limitMs);
  }

  async #answer(limitMs: number): Promise<Record<string, unknown>> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<"late">((resolve) => {
      timer = setTimeout(() => resolve("late"), limitMs);
    });
    try {
      for (;;) {
        const line = await Promise.race([this.#lines!.next(), late]);
        if (line === "late") {
          this.end();
          throw new Refusal(`over ${(limitMs / 1000).toFixed(0)} s`);
        }
        if (line.done) {
          this.end();
          throw new Refusal("its process ended");
        }
        if (!line.value.startsWith("@bench ")) continue;
        const answer = JSON.parse(line.value.slice(7)) as Record<string, unknown>;
        if ("error" in answer) throw new Refusal(String(answer.error), answer.unsupported === true);
        return answer;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  end(): void {
    this.#child?.kill("SIGKILL");
    this.#child = undefined;
  }
}
