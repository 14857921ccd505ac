/** @file The code of docs/data.md runs as it stands there. */
import { test } from "vitest";
import { runDocument } from "../support/documents.ts";

test("docs/data.md", () => runDocument("docs/data.md"));
