/** @file The settings that vitest's runner wants, as its command would give them. */
export const config = {
  root: "/",
  setupFiles: [],
  passWithNoTests: false,
  allowOnly: false,
  includeTaskLocation: false,
  maxConcurrency: 5,
  testTimeout: 120_000,
  hookTimeout: 60_000,
  retry: 0,
  tags: [],
  strictTags: true,
  sequence: { shuffle: false, concurrent: false, seed: 1, hooks: "stack", setupFiles: "list" },
  expect: {},
  experimental: {},
  snapshotOptions: { updateSnapshot: "none", expand: false },
  chaiConfig: {},
};
