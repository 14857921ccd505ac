/** @file The table of the golden groups in docs/parity.md, from what a run has measured. */
import { writeFileSync } from "node:fs";
import { relative, resolve } from "node:path";
import type { Score } from "./run.ts";

const root = resolve(import.meta.dirname, "../..");

export async function writeReport(
  file: string,
  scores: readonly Score[],
  every: number,
): Promise<void> {
  const text = `# Parity with PyTorch

Every value, dtype, shape and gradient in [\`test/golden/data\`](${relative(resolve(file, ".."), resolve(root, "test/golden/data/README.md"))}) was computed by PyTorch 2.11 and the libraries
around it, in float64 from float32 inputs. This table comes from

\`\`\`sh
npm run parity -- --device ${scores.map((s) => s.device).join(",")}${every > 1 ? ` --every ${every}` : ""} --report ${relative(root, resolve(file))}
\`\`\`

The worst error is a share of the tolerance that the fixtures suggest, \`|got − want| ≤ atol + rtol · |want|\`: at 100 % a
case would just pass. It counts values and gradients; cases of integers and other exact ones have no error to show.
${every > 1 ? `\nEvery ${every}th case of each group.\n` : ""}
| device | group | cases | passed | failed | worst error | where |
| --- | --- | ---: | ---: | ---: | ---: | --- |
${scores.flatMap(rowsOf).join("\n")}

\`npm test\` runs all of them on the reference and on WebAssembly, and every fourth on WebGPU, of the optimizers six and of the models the
smallest (a software GPU compiles them slowly; \`HINODE_GOLDEN=1\` runs all cases of the other groups there too).
`;
  writeFileSync(file, text);
}

const rowsOf = ({ device, groups }: Score): string[] =>
  Object.entries(groups).map(([group, { passed, failed, worst }]) => {
    const error = worst ? `${(worst.share * 100).toPrecision(2)} %` : "0 %";
    return `| ${device} | ${group} | ${passed + failed} | ${passed} | ${failed} | ${error} | ${worst?.share ? `${worst.id}, ${worst.what}` : ""} |`;
  });
