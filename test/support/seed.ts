/**
 * @file One seed for everything that tests draw at random: fast-check's cases and the random graphs. It is another one in
 * each run, and vitest.config.ts prints it; what must pass or fail for the change's sake alone (CI) takes the same always.
 */
import fc from "fast-check";

/** HINODE_SEED, which vitest.config.ts sets where nobody did. */
export const seed = Number(process.env.HINODE_SEED);

fc.configureGlobal({ seed });
