/** @file Dropout: https://jmlr.org/papers/v15/srivastava14a.html */

import { ArgumentError, describe } from "../core/errors.ts";
import { dropout, type Tensor } from "../core/index.ts";
import { Module } from "./module.ts";

/** While training, zeroes each element with probability p and scales the others by 1 / (1 − p). */
export class Dropout extends Module {
  readonly p: number;

  constructor(p = 0.5) {
    super();
    if (!(p >= 0 && p <= 1)) throw new ArgumentError(describe("Dropout", "p within 0 … 1", `${p}`));
    this.p = p;
  }

  forward(x: Tensor): Tensor {
    return this.p > 0 && this.training ? dropout(x, this.p) : x;
  }
}
