import { defineConfig } from "vitest/config";
import { swiftshaderEnvironment } from "./test/support/swiftshader.ts";

// In this process, so that workers start with it: the dynamic linker reads it only then.
if (process.env.HINODE_GPU !== "hardware") Object.assign(process.env, swiftshaderEnvironment());

export default defineConfig({
  resolve: { conditions: ["source"] },
  ssr: { resolve: { conditions: ["source"] } },
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 120_000,
  },
});
