/** @file What a group of fixtures is to those who run it: cases with a name, a description, and a measure of the error. */
import type { Measure } from "./comparison.ts";

export interface GoldenCase {
  readonly id: string;
  /** What is called, as PyTorch writes it. */
  readonly call: string;
  /** The worst error; throws where there is none to measure (a wrong shape, a function that the library lacks). */
  run(): Promise<Measure>;
}

/** The files of a folder in the golden format by their names. */
export type Files = (name: string) => Uint8Array;

/** The cases in `<name>.json`, whose tensors are in `<name>.safetensors`. */
export type Group = (files: Files, name: string) => readonly GoldenCase[];

export const readJson = (files: Files, name: string) =>
  JSON.parse(new TextDecoder().decode(files(`${name}.json`)));
