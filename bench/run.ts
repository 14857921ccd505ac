/**
 * @file `npm run bench [-- matmul elementwise replay memory]`: prints each figure, its bar, and whether it was met. Exits
 * with 1 if a bar was missed.
 */
import { init } from "hinode";
import { elementwise } from "./elementwise.ts";
import { matmul } from "./matmul.ts";
import { type Figure, passes } from "./measure.ts";
import { memory } from "./memory.ts";
import { replay } from "./replay.ts";

const suites: Record<string, () => Promise<Figure[]>> = { matmul, elementwise, replay, memory };

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !(name in suites));
if (unknown.length > 0) {
  console.error(`bench: expected ${Object.keys(suites).join(", ")}, got ${unknown.join(", ")}`);
  process.exit(2);
}
// The limits that figures are divided by (peak.ts) are those of one core.
await init({ device: "wasm", threads: 1 });
let missed = 0;
for (const name of wanted.length > 0 ? wanted : Object.keys(suites)) {
  for (const figure of await suites[name]()) {
    const { bar, atMost } = figure;
    const verdict =
      bar === null
        ? ""
        : `  [bar ${atMost ? "≤" : "≥"} ${bar}: ${passes(figure) ? "met" : "MISSED"}]`;
    console.log(`${figure.name.padEnd(42)} ${figure.text}${verdict}`);
    if (!passes(figure)) missed++;
  }
}
process.exitCode = missed > 0 ? 1 : 0;
