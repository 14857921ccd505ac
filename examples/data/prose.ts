/**
 * @file English prose that every clone has: Node's documentation, which the package `@types/node` (MIT) carries as
 * comments in its declarations. About 660,000 characters; PyTorch's examples download Shakespeare, of 1,100,000.
 */
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

/** A paragraph per line, each once: synchronous and asynchronous functions share many. */
export function nodeProse(): string {
  const folder = dirname(createRequire(import.meta.url).resolve("@types/node/package.json"));
  const files = readdirSync(folder).filter((name) => name.endsWith(".d.ts"));
  const all = files.sort().flatMap((name) => paragraphs(readFileSync(join(folder, name), "utf8")));
  return `${[...new Set(all)].join("\n")}\n`;
}

/** The text of doc comments: without code blocks, tags such as @param, and the targets of links. */
function paragraphs(declarations: string): string[] {
  return [...declarations.matchAll(/\/\*\*([\s\S]*?)\*\//g)]
    .flatMap(([, comment]) =>
      comment
        .replace(/^\s*\* ?/gm, "")
        .replace(/```[\s\S]*?(```|$)/g, "")
        .replace(/^@[\s\S]*/m, "")
        .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
        .replace(/\{@link (\S+?)( [^}]*)?\}/g, "$1")
        .split(/\n\s*\n/),
    )
    .map((text) => text.replace(/\s+/g, " ").trim())
    .filter((text) => text.length >= 40 && /^[\x20-\x7e]*[.:]$/.test(text));
}
