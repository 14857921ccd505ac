/**
 * @file The page of examples/browser, clicked through in Chromium: it learns, moves from WebAssembly to WebGPU and back in the
 * middle of the training, starts over, and fits every screen. Screenshots are left in runs/demo/.
 */
import { join, resolve } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import config from "../../examples/browser/vite.config.ts";
import { bundle, serve } from "./bundle.ts";
import { launch, noBrowser } from "./chromium.ts";
import { openPage } from "./open.ts";

const shots = resolve(import.meta.dirname, "../../runs/demo");
const patience = { timeout: 100_000 };

const text = async (page: Page, id: string): Promise<string> =>
  (await page.locator(`#${id}`).textContent()) ?? "";
const number = async (page: Page, id: string): Promise<number> =>
  Number((await text(page, id)).replace(/,| dB/g, ""));

/** Waits until the page shows so many steps. */
const steps = (page: Page, count: number) =>
  page.waitForFunction(
    (n) => Number(document.getElementById("steps")!.textContent!.replaceAll(",", "")) >= n,
    count,
    patience,
  );

const ready = (page: Page) => page.locator("#run:enabled").waitFor(patience);
const shoot = (page: Page, name: string) =>
  page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });

/** How far a painting is from the original, as the page shows them: 0 is the same. */
const distance = (page: Page): Promise<number> =>
  page.evaluate(() => {
    const pixels = (id: string) => {
      const small = new OffscreenCanvas(48, 32);
      const c = small.getContext("2d", { willReadFrequently: true })!;
      c.drawImage(document.getElementById(id) as HTMLCanvasElement, 0, 0, 48, 32);
      return c.getImageData(0, 0, 48, 32).data;
    };
    const [a, b] = [pixels("painting"), pixels("original")];
    return Math.sqrt(a.reduce((sum, x, i) => sum + (x - b[i]) ** 2, 0) / a.length);
  });

describe.skipIf(noBrowser)(`the demo${noBrowser ? `: ${noBrowser}` : ""}`, () => {
  let browser: Browser;
  let server: Awaited<ReturnType<typeof serve>>;

  beforeAll(async () => {
    const [site, started] = await Promise.all([bundle(config), launch()]);
    browser = started;
    server = await serve(site, { isolated: true });
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await server?.[Symbol.asyncDispose]();
  });

  const open = (width: number, height: number, colorScheme: "light" | "dark") =>
    openPage(browser, server.origin, { isolated: true }, {
      viewport: { width, height },
      deviceScaleFactor: width < 500 ? 2 : 1,
      colorScheme,
    }); // biome-ignore format: a call

  test("learns, moves between devices, starts over", { timeout: 300_000 }, async () => {
    await using opened = await open(1200, 900, "light");
    const { page, complaints } = opened;
    await ready(page);
    const untrained = await distance(page);
    await shoot(page, "untrained");

    await page.getByRole("button", { name: "Start", exact: true }).click();
    await steps(page, 120);
    expect(await number(page, "likeness")).toBeGreaterThan(20);
    const loss = await number(page, "loss");
    expect(await text(page, "device")).toMatch(/^WebAssembly/);

    await page.getByLabel("WebGPU").check();
    await page.getByText("computed on the CPU.").waitFor(patience);
    // The network came along: nothing is learned anew.
    expect(await number(page, "loss")).toBeLessThan(1.5 * loss);
    await page.locator("#plot path.webgpu").waitFor({ state: "attached", ...patience });
    await shoot(page, "webgpu");

    await page.getByLabel("WebAssembly").check();
    await page.getByText(/^\d+ kernels per step/).waitFor(patience);
    await steps(page, 400);
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByRole("button", { name: "Go on" }).waitFor();
    await page.waitForTimeout(500);
    expect(await number(page, "likeness")).toBeGreaterThan(25);
    expect(await distance(page)).toBeLessThan(untrained / 5);
    await shoot(page, "trained");

    await page.getByRole("button", { name: "Original" }).click();
    expect(await page.locator("#frame.comparing").count()).toBe(1);
    await page.getByRole("button", { name: "Original" }).click();

    await page.getByRole("button", { name: "Start over" }).click();
    await page.getByText("Untrained").waitFor(patience);
    expect(await number(page, "steps")).toBe(0);
    expect(await distance(page)).toBeGreaterThan(untrained / 2);
    expect(complaints).toEqual([]);
  });

  test("other pictures, one's own, and other rates", { timeout: 120_000 }, async () => {
    await using opened = await open(390, 844, "dark");
    const { page, complaints } = opened;
    await ready(page);
    await page.getByLabel("Fireworks").check();
    await page.locator("#learning-rate").fill("-2.5");
    expect(await text(page, "pace")).toBe("0.0032");
    await page.getByRole("button", { name: "Start", exact: true }).click();
    await steps(page, 150);
    await shoot(page, "phone-dark");

    // A screenshot is a picture too; the training goes on with it, from the beginning.
    await page.locator("#own").setInputFiles(join(shots, "phone-dark.png"));
    await page.waitForFunction(() => !document.querySelector("[name=picture]:checked"));
    await steps(page, 30);
    expect(complaints).toEqual([]);
  });

  test("says why there is no WebGPU, and goes on without", { timeout: 120_000 }, async () => {
    await using opened = await open(390, 844, "light");
    const { page, complaints } = opened;
    await page.addInitScript(() => Object.defineProperty(navigator, "gpu", { value: undefined }));
    await page.reload();
    await ready(page);
    await page.getByRole("button", { name: "Start", exact: true }).click();
    await page.getByLabel("WebGPU").click();
    await page.getByText(/^No WebGPU: .*this browser has no WebGPU/).waitFor(patience);
    expect(await page.getByLabel("WebAssembly").isChecked()).toBe(true);
    await steps(page, 30);
    expect(complaints).toEqual([]);
  });

  test("fits every screen", { timeout: 120_000 }, async () => {
    for (const [width, height] of [
      [320, 568],
      [390, 844],
      [820, 1180],
      [1200, 900],
      [2560, 1300],
    ]) {
      await using opened = await open(width, height, "light");
      await ready(opened.page);
      const wide = await opened.page.evaluate(() => document.documentElement.scrollWidth);
      expect(wide).toBeLessThanOrEqual(width);
      await shoot(opened.page, `${width}`);
    }
  });
});
