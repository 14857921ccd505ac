/** @file Opens a page for a test, and remembers what it should not have said. */
import type { Browser, BrowserContextOptions, Page } from "playwright-core";

/** What the page's tests find in place of process.env, and whether it is cross-origin isolated. */
export type Environment = { readonly isolated: boolean } & Readonly<Record<string, unknown>>;

export interface Opened extends AsyncDisposable {
  readonly page: Page;
  /** Errors and warnings of the page, and requests to anywhere else than its origin. */
  readonly complaints: readonly string[];
}

export async function openPage(
  browser: Browser,
  origin: string,
  environment: Environment,
  options: BrowserContextOptions = {},
): Promise<Opened> {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning")
      complaints.push(`${message.type()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`uncaught: ${error.stack ?? error.message}`));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(`${origin}/`) && !/^(data|blob):/.test(url))
      complaints.push(`request: ${url}`);
  });
  await page.addInitScript(`globalThis.testEnvironment = ${JSON.stringify(environment)}`);
  await page.goto(`${origin}/`);
  return { page, complaints, [Symbol.asyncDispose]: () => context.close() };
}
