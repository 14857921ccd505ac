/** @file docs/api.md: up to date, complete, and every gap with its reason. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { resolve } from "../golden/call.ts";
import { special } from "../golden/special.ts";
import { file, page, statusOf } from "./api.ts";
import { others } from "./gaps.ts";
import { modules } from "./names.ts";

const data = join(import.meta.dirname, "../golden/data");

/** The functions that the fixtures call, methods under torch.Tensor. */
function called(): Set<string> {
  const found = new Set<string>();
  // biome-ignore lint/suspicious/noExplicitAny: a tree from JSON
  const walk = (e: any): void => {
    if (e === null || typeof e !== "object") return;
    if (typeof e.fn === "string") found.add(e.fn);
    if (e.call?.attr) found.add(`torch.Tensor.${e.call.attr}`);
    for (const part of Object.values(e)) walk(part);
  };
  for (const group of ["ops", "nn", "transforms"])
    for (const c of JSON.parse(readFileSync(join(data, `${group}.json`), "utf8")).cases)
      walk(c.expr);
  return found;
}

describe("the table of PyTorch's names", () => {
  test("is up to date: `npm run api` writes it", () => {
    expect(readFileSync(file, "utf8")).toBe(page());
  });

  test("gives the reason of every gap", () => {
    const silent = Object.entries(modules).flatMap(([module, names]) =>
      names
        .filter((name) => {
          const { ours, gap } = statusOf(module, name);
          return !ours && !gap;
        })
        .map((name) => `${module}.${name}`),
    );
    expect(silent).toEqual([]);
  });

  test("names what has no function of the same name", () => {
    const unnamed = Object.keys(special).filter(
      (name) =>
        !others[name] &&
        Object.entries(modules).some(([module, names]) =>
          names.some((n) => `${module}.${n}` === name && !statusOf(module, n).ours),
        ),
    );
    expect(unnamed).toEqual([]);
  });

  test("has every function that the fixtures call", () => {
    const listed = new Set(
      Object.entries(modules).flatMap(([module, names]) => names.map((n) => `${module}.${n}`)),
    );
    const missing = [...called()].filter((name) => {
      if (/^torch\.(float|int|bool)\d*$|Tensor\.reduce$/.test(name)) return false; // dtypes, functools.reduce
      const plain = name.replace("torch.Tensor.", "torch.");
      return (
        !(listed.has(name) || listed.has(plain) || (name.includes(".nn.") && listed.has(name))) ||
        !(resolve(name) || statusOf("torch.nn", name.replace("torch.nn.", "")).ours)
      );
    });
    expect(missing).toEqual([]);
  });
});
