import { defineConfig } from "vitest/config";
import { swiftshaderEnvironment } from "./test/support/swiftshader.ts";

// In this process, so that workers start with it: the dynamic linker reads it only then.
if (process.env.HINODE_GPU !== "hardware") Object.assign(process.env, swiftshaderEnvironment());

// Read by test/support/seed.ts, also in workers.
process.env.HINODE_SEED ??= process.env.CI ? "1" : String(Date.now() % 1_000_000_000);
console.log(`HINODE_SEED=${process.env.HINODE_SEED} repeats the random cases of this run`);

// Two processes already share the machine; test/wasm/threads.test.ts makes its threads itself.
process.env.HINODE_THREADS ??= "1";

export default defineConfig({
  resolve: { conditions: ["source"] },
  ssr: { resolve: { conditions: ["source"] } },
  test: {
    setupFiles: ["test/support/seed.ts"],
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 120_000,
  },
});
