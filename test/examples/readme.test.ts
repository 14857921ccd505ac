/** @file The code of the pages runs as it stands there. */
import { test } from "vitest";
import { runDocument } from "../support/documents.ts";

test("the tour in README.md", () => runDocument("README.md"));
