/** Made by suites.ts: the test files that run in pages, each with a function that imports it. */
declare module "virtual:tests" {
  export const files: Readonly<Record<string, () => Promise<unknown>>>;
}
