/**
 * @file Blocks of a product's K in which operands need no division: a quantised weight's scale is the same for a group of
 * neighbours, and read once where the loop over K runs group by group. Decides how long a block is, and which statements of
 * an operand leave the innermost loop; the loops are matmul.ts's.
 */
import { affineIn, eachAtom, freeVars, type Index } from "../schedule/symbolic.ts";
import type { Stmt, Value } from "./ir.ts";
import { eachValue, indicesIn, type Operand } from "./operand.ts";

/** A shorter block costs more in loops than its divisions do. */
const shortest = 16;

/** The longest period, in `name`, of the divisions in the operands' addresses; `size` if there is none to speak of. */
export function blockOf(operands: readonly Operand[], name: string, size: number): number {
  let longest = 0;
  const measure = (index: Index): void =>
    eachAtom(index, (atom) => {
      if ((atom.k !== "div" && atom.k !== "mod") || atom.by < shortest || atom.by >= size) return;
      const { terms, constant } = atom.of;
      if (terms.length === 1 && constant === 0 && affineIn(atom.of, name) === 1)
        longest = Math.max(longest, atom.by);
    });
  for (const { stmts, value } of operands) {
    const values = [...stmts.flatMap((s) => (s.k === "let" ? [s.value] : [])), value];
    for (const v of values) eachValue(v, (part) => indicesIn(part).forEach(measure));
  }
  return longest || size;
}

/** The statements of an operand that are the same for every value of `name`, and those that are not; each in order. */
export function partition(stmts: readonly Stmt[], name: string): { fixed: Stmt[]; moving: Stmt[] } {
  const [fixed, moving]: [Stmt[], Stmt[]] = [[], []];
  const changing = new Set([name]);
  const moves = (value: Value): boolean => {
    let found = false;
    eachValue(value, (v) => {
      if (v.k === "var") found ||= changing.has(v.name);
      else found ||= indicesIn(v).some((x) => [...freeVars(x)].some((free) => changing.has(free)));
    });
    return found;
  };
  for (const s of stmts) {
    if (s.k === "let" && !moves(s.value)) fixed.push(s);
    else {
      moving.push(s);
      if (s.k === "let" || s.k === "position") changing.add(s.name);
    }
  }
  return { fixed, moving };
}
