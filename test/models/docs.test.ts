/** @file The code of docs/language.md runs as it stands there. */
import { test } from "vitest";
import { runDocument } from "../support/documents.ts";

test("docs/language.md", () => runDocument("docs/language.md"));
