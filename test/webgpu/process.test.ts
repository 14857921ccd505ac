/** What only a process of its own shows: that it ends by itself, and what init() does without a GPU or without the package. */
import { spawn } from "node:child_process";
import { resolve } from "node:path";
import { expect, test } from "vitest";

const root = resolve(import.meta.dirname, "../..");

interface Outcome {
  readonly code: number | null;
  readonly signal: string | null;
  readonly output: string;
}

/** Runs a script like a user's program; kills it if it does not end. */
function run(
  script: string,
  environment: Record<string, string | undefined> = {},
): Promise<Outcome> {
  const child = spawn(
    process.execPath,
    ["--conditions=source", "--input-type=module", "--eval", script],
    { cwd: root, env: { ...process.env, ...environment }, timeout: 60_000 },
  );
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (text) => {
      output += text;
    });
  return new Promise((done) => {
    child.on("close", (code, signal) => done({ code, signal, output }));
  });
}

const start = `
  import { compile, deviceInfo, init, realize, tensor } from "hinode";
  const device = await init({ device: "webgpu" });
  const w = tensor([1, 2]);
  const step = compile(() => w.assign(w.add(1)).sum());
`;

test.concurrent.for([
  ["that read its results", `console.log(await step().item());`, /^5\n$/],
  ["that left work behind", `for (let i = 0; i < 9; i++) step(); console.log("left");`, /^left\n$/],
  [
    "that destroyed its device",
    `await step().item(); device.destroy(); console.log("gone");`,
    /gone/,
  ],
  [
    "that destroyed it with work in flight",
    `step(); step(); step(); device.destroy(); console.log("gone");`,
    /gone/,
  ],
  [
    "that worked for a while, with collections between",
    `for (let i = 0; i < 30; i++) { await step().item(); await realize(tensor([i]).exp()); if (i % 5 === 0) await device.collect(); }
     console.log(await w.tolist());`,
    /^\[ 31, 32 \]\n$/,
  ],
] as const)("a process ends by itself: one %s", async ([, script, output]) => {
  expect(await run(start + script)).toEqual({
    code: 0,
    signal: null,
    output: expect.stringMatching(output),
  });
});

const report = `
  import { deviceInfo, init, tensor } from "hinode";
  await init();
  console.log(deviceInfo().name, "|", deviceInfo().reason, "|", await tensor([1]).add(1).item());
  await init({ device: "webgpu" }).then(() => console.log("opened"), (e) => console.log(e.name, e.message));
`;

test("without a driver auto takes WebAssembly and says why; webgpu is refused", async () => {
  const none = { VK_ICD_FILENAMES: "/nowhere", VK_DRIVER_FILES: "/nowhere", LD_LIBRARY_PATH: "" };
  const { code, output } = await run(report, none);
  expect(code).toBe(0);
  expect(output).toMatch(
    /^wasm \| auto: WebAssembly.*no GPU: webgpu: expected a GPU adapter, got .* \| 2$/m,
  );
  expect(output).toMatch(/^DeviceError webgpu: expected a GPU adapter/m);
});

test("without the package too", async () => {
  const hidden = `
    import { registerHooks } from "node:module";
    registerHooks({
      resolve(name, context, next) {
        if (name !== "webgpu") return next(name, context);
        throw Object.assign(new Error("Cannot find package 'webgpu'"), { code: "ERR_MODULE_NOT_FOUND" });
      },
    });
  `;
  const dynamic = report.replace(
    /import (\{.*\}) from "hinode";/,
    'const $1 = await import("hinode");',
  );
  const { code, output } = await run(hidden + dynamic);
  expect(code).toBe(0);
  expect(output).toMatch(/^wasm \| auto: .* got the package webgpu is not installed \| 2$/m);
  expect(output).toMatch(/^DeviceError webgpu: .* the package webgpu is not installed$/m);
});

test("a GPU is used only after init() was awaited", async () => {
  const { output } = await run(`
    import { setDefaultDevice, deviceInfo, tensor } from "hinode";
    console.log(tensor([1]).device, "|", deviceInfo().reason);
    try { setDefaultDevice("webgpu"); } catch (e) { console.log(e.name, e.message); }
  `);
  expect(output).toMatch(/^wasm \| auto: WebAssembly .* init\(\) was not awaited/m);
  expect(output).toMatch(/^DeviceError webgpu: expected await init\(\{ device: "webgpu" \}\)/m);
});
