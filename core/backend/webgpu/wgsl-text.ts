/** @file Lines that are short enough to read. */

const widest = 100;

/** A line, or several: the arguments of the outermost call on lines of their own where the text is too long. */
export function broken(text: string, indent: number): string[] {
  const line = " ".repeat(indent) + text;
  if (line.length <= widest) return [line];
  const groups: { start: number; end: number; cuts: number[] }[] = [];
  const open: { start: number; cuts: number[] }[] = [];
  for (let i = 0; i < text.length; i++) {
    if (text[i] === "(") open.push({ start: i, cuts: [] });
    else if (text[i] === ",") open.at(-1)?.cuts.push(i);
    // The rest of a line that was broken begins with one that closes nothing here.
    else if (text[i] === ")" && open.length > 0) groups.push({ ...open.pop()!, end: i });
  }
  const [longest] = groups
    .filter((group) => group.cuts.length > 0)
    .sort((a, b) => b.end - b.start - (a.end - a.start));
  // Breaking a short part out of a long line would not help to read it.
  if (!longest || longest.end - longest.start < text.length / 2) return [line];
  const { start, end, cuts } = longest;
  const parts = [start, ...cuts].map((from, i) => text.slice(from + 1, cuts[i] ?? end).trim());
  return [
    " ".repeat(indent) + text.slice(0, start + 1),
    ...parts.flatMap((part) => broken(`${part},`, indent + 2)),
    ...broken(text.slice(end), indent),
  ];
}
