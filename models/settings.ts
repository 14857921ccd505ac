/**
 * @file Reading configurations of other libraries: each setting by its name, of its kind, or an
 * error that says so. What a setting means is decided beside the models.
 */
import { ArgumentError, describe } from "../core/errors.ts";
import { type ActivationName, activationNamed } from "./activations.ts";

/**
 * A parsed configuration: a `config.json` of the Hugging Face library, open_clip's file, arguments
 * of timm's.
 */
export type ConfigJson = Readonly<Record<string, unknown>>;

export const refuse = (what: string, expected: string, got: unknown): never => {
  throw new ArgumentError(describe("configuration", `${what}: ${expected}`, JSON.stringify(got)));
};

/** Not there, or null, is `otherwise`. */
export function number(json: ConfigJson, name: string, otherwise?: number): number {
  const value = json[name] ?? otherwise;
  return typeof value === "number" ? value : refuse(name, "a number", value);
}

/** Not there, or null, is undefined. */
export const optional = (json: ConfigJson, name: string): number | undefined =>
  (json[name] ?? null) === null ? undefined : number(json, name);

export function numbers(json: ConfigJson, name: string): number[] {
  const value = json[name];
  const isList = Array.isArray(value) && value.every((x) => typeof x === "number");
  return isList ? value : refuse(name, "a list of numbers", value);
}

export function flag(json: ConfigJson, name: string, otherwise = false): boolean {
  const value = json[name] ?? otherwise;
  return typeof value === "boolean" ? value : refuse(name, "true or false", value);
}

export function activation(
  json: ConfigJson,
  name: string,
  otherwise: ActivationName,
): ActivationName {
  const value = `${json[name] ?? otherwise}`;
  activationNamed(value); // Throws for a name that is none.
  return value as ActivationName;
}

const pairOf = (value: unknown): readonly [number, number] | null =>
  Array.isArray(value) && value.length === 2 && value.every((n) => Number.isInteger(n))
    ? [value[0], value[1]]
    : null;

/** One side, or height and width. */
export const imageSize = (
  json: ConfigJson,
  name: string,
  otherwise?: number,
): number | readonly [height: number, width: number] =>
  pairOf(json[name]) ?? number(json, name, otherwise);

/** A patch's side, also where both sides are said. */
export function patchSize(json: ConfigJson, name: string, otherwise?: number): number {
  const pair = pairOf(json[name]);
  if (!pair) return number(json, name, otherwise);
  return pair[0] === pair[1] ? pair[0] : refuse(name, "square patches", pair);
}

/** Refuses settings that are there with another value than the only one that we have. */
export function refuseOthers(json: ConfigJson, fixed: ConfigJson): void {
  for (const [name, value] of Object.entries(fixed))
    if ((json[name] ?? value) !== value) refuse(name, `${value}`, json[name]);
}

/** Refuses settings that are in none of the lists: a list of names, or a table of them. */
export function refuseUnknown(
  json: ConfigJson,
  ...known: (readonly string[] | ConfigJson)[]
): void {
  const names = new Set(known.flatMap((k) => (Array.isArray(k) ? k : Object.keys(k))));
  for (const [name, value] of Object.entries(json))
    if (!names.has(name)) refuse(name, "no such setting", value);
}
