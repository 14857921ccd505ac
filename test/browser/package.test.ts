/**
 * @file The package as npm would publish it, in a user's project: Vite bundles a program that trains, as a module and as a
 * classic script, nothing of Node comes along, and it runs in a page.
 */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bundle, type Site, serve } from "./bundle.ts";
import { launch, noBrowser } from "./chromium.ts";
import { openPage } from "./open.ts";

const root = resolve(import.meta.dirname, "../..");

/** Methods come from the package although the program imports none of them: they must survive tree shaking. */
const program = `
import { compile, crossEntropy, init, manualSeed, rand, randint } from "hinode";
import { Linear, Module, optim } from "hinode/nn";

class Classifier extends Module {
  up = new Linear(8, 16);
  down = new Linear(16, 4);
  forward(x) {
    return this.down.forward(this.up.forward(x).gelu());
  }
}

async function train() {
  await init();
  manualSeed(0);
  const model = new Classifier();
  const adam = new optim.AdamW(model.parameters(), { lr: 1e-1 });
  const step = compile((x, y) => {
    const loss = crossEntropy(model.forward(x), y);
    adam.zeroGrad();
    loss.backward();
    adam.step();
    return loss;
  });
  const [x, y] = [rand([16, 8]), randint(0, 4, [16])];
  const losses = [];
  for (let i = 0; i < 100; i++) losses.push(await step(x, y).item());
  return losses;
}

globalThis.training = train();
`;

describe.skipIf(noBrowser)(`the package in a page${noBrowser ? `: ${noBrowser}` : ""}`, () => {
  let folder: string;
  let browser: Browser;

  beforeAll(async () => {
    mkdirSync(join(root, ".cache"), { recursive: true });
    folder = mkdtempSync(join(root, ".cache/consumer-"));
    const installed = join(folder, "node_modules/hinode");
    mkdirSync(installed, { recursive: true });
    copyFileSync(join(root, "package.json"), join(installed, "package.json"));
    const emit = ["-p", "tsconfig.build.json", "--noCheck", "--declaration", "false"];
    const tsc = join(root, "node_modules/.bin/tsc");
    execFileSync(tsc, [...emit, "--outDir", join(installed, "dist")], { cwd: root });
    writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
    writeFileSync(join(folder, "main.js"), program);
    const script =
      '<link rel="icon" href="data:," /><script type="module" src="/main.js"></script>';
    writeFileSync(join(folder, "index.html"), script);
    browser = await launch();
  }, 120_000);

  afterAll(async () => {
    await browser?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function losses(site: Site): Promise<number[]> {
    await using server = await serve(site, { isolated: false });
    await using opened = await openPage(browser, server.origin, { isolated: false });
    const found = await opened.page.evaluate(
      () => (globalThis as unknown as { training: Promise<number[]> }).training,
    );
    expect(opened.complaints).toEqual([]);
    return found;
  }

  test("as a module", { timeout: 120_000 }, async () => {
    const site = await bundle({ root: folder });
    const found = await losses(site);
    expect(found[0]).toBeGreaterThan(1);
    expect(found.at(-1)).toBeLessThan(found[0] / 4);
    const code = [...site].filter(([name]) => name.endsWith(".js")).map(([, text]) => text);
    const bytes = gzipSync(code.join("")).length;
    console.log(`a program that trains: ${(bytes / 1024).toFixed(0)} KiB, compressed`);
    expect(bytes).toBeLessThan(256 * 1024);
  });

  test("as a classic script", { timeout: 120_000 }, async () => {
    const built = await bundle({
      root: folder,
      // It warns that a classic script has no import.meta.
      logLevel: "error",
      build: { lib: { entry: "main.js", formats: ["iife"], name: "program", fileName: "main" } },
    });
    const [name] = built.keys();
    const page = `<link rel="icon" href="data:," /><script src="${name}"></script>`;
    const found = await losses(new Map([...built, ["/index.html", page]]));
    expect(found.at(-1)).toBeLessThan(found[0] / 4);
  });
});
