/**
 * @file hinode: everything that a program needs, `import { compile, grad, nn, optim, random, tensor } from "hinode"`. The
 * parts are also modules of their own: hinode/nn, hinode/models.
 */
export * from "./core/index.ts";
export * as random from "./core/random.ts";
export * as nn from "./nn/index.ts";
export * as optim from "./nn/optim/index.ts";
