/** @file The parity runner as a program, on a folder with cases that must fail; and the reader of Python calls. */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { groups } from "./groups.ts";
import { parseCall } from "./python.ts";

const data = join(import.meta.dirname, "data");
const folder = mkdtempSync(join(tmpdir(), "hinode-parity-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ops = JSON.parse(readFileSync(join(data, "ops.json"), "utf8"));

function parity(...args: string[]): { code: number; text: string; last: string } {
  const script = join(import.meta.dirname, "parity.ts");
  const command = ["--conditions=source", script, ...args];
  let [code, text] = [0, ""];
  try {
    text = execFileSync(process.execPath, command, { encoding: "utf8", stdio: "pipe" });
  } catch (error) {
    const { status, stdout, stderr } = error as { status: number; stdout: string; stderr: string };
    [code, text] = [status, stdout || stderr];
  }
  return { code, text, last: text.trimEnd().split("\n").at(-1)! };
}

describe("npm run parity", () => {
  const good = ops.cases.find((c: { id: string }) => c.id === "exp-0");
  const call = (fn: string) => ({ ...good.expr, call: { fn } });
  const cases = [
    good,
    { ...good, id: "wrong", expr: call("torch.expm1") },
    { ...good, id: "unknown", call: "torch.frobnicate($0)", expr: call("torch.frobnicate") },
  ];
  writeFileSync(join(folder, "ops.json"), JSON.stringify({ ...ops, cases }));
  copyFileSync(join(data, "ops.safetensors"), join(folder, "ops.safetensors"));
  writeFileSync(
    join(folder, "alchemy.json"),
    JSON.stringify({ cases: [{ id: "a" }, { id: "b" }] }),
  );
  const common = ["--golden", folder, "--device", "reference"];

  test("counts what is wrong and what is unknown as failed, and says why", () => {
    const json = join(folder, "score");
    const { code, text, last } = parity(...common, "--json", json);
    expect([code, last]).toEqual([1, "1 passed, 2 failed"]);
    expect(text).toMatch(/nothing here runs these groups yet: alchemy/);
    expect(text).toMatch(
      /FAILED ops\/wrong: .*exp\(\$0\)\n.*element \d+: got .*, want .* tolerances off/,
    );
    expect(text).toMatch(/FAILED ops\/unknown: torch.frobnicate\(\$0\)\n.*not covered: frobnicate/);
    const { device, groups, failures } = JSON.parse(readFileSync(json, "utf8"));
    expect([device, groups.ops.passed, groups.ops.failed]).toEqual(["reference", 1, 2]);
    expect(failures.map((f: { id: string }) => f.id)).toEqual(["wrong", "unknown"]);
  });

  test("a group that nothing runs fails case by case if asked for", () => {
    const { code, last } = parity(...common, "--group", "alchemy,ops", "--case", "a,b,exp*");
    expect([code, last]).toEqual([1, "1 passed, 2 failed"]);
  });

  test("mistakes in the command line are told, with the help", () => {
    const absent = parity("--golden", join(folder, "absent"));
    expect([absent.code, absent.text]).toEqual([
      2,
      expect.stringMatching(/absent: .*[\s\S]*Usage/),
    ]);
    expect(parity("--device", "abacus").code).toBe(2);
  });
});

test("Python calls are read as the fixtures' own trees", () => {
  const plain = ops.cases.filter((c: { call: string; invoke?: object }) => c.invoke && /^[a-z]/i.test(c.call)); // biome-ignore format: one line
  expect(plain.length).toBeGreaterThan(500);
  for (const { call, expr } of plain) expect(parseCall(call), call).toEqual(expr);
});

test("docs/parity.md counts the cases that there are", () => {
  const page = readFileSync(resolve(import.meta.dirname, "../../docs/parity.md"), "utf8");
  for (const device of ["reference", "wasm", "webgpu"])
    for (const group of Object.keys(groups))
      expect(page).toMatch(
        new RegExp(`^\\| ${device} \\| ${group} \\| (\\d+) \\| \\1 \\| 0 \\|`, "m"),
      );
});
