/** @file The fixtures' files. In a page, test/browser/page/files.ts stands in for this one. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

const folder = join(import.meta.dirname, "data");

export const fixture = (name: string): Uint8Array => readFileSync(join(folder, name));
