/**
 * @file Reads one Python call with literal arguments, `torch.softmax($0, dim=-1)`, as the syntax tree that the other groups'
 * fixtures bring along (`expr`): half.json has the text alone.
 */
import type { Expr } from "./expression.ts";

const token =
  /\s*(\$\d+|\$\$|-inf|[A-Za-z_][\w.]*|-?\d[\d.]*(?:e[+-]?\d+)?|"[^"]*"|'[^']*'|[()[\],=])/y;

function tokens(text: string): string[] {
  const found: string[] = [];
  token.lastIndex = 0;
  while (token.lastIndex < text.trimEnd().length) {
    const at = token.lastIndex;
    const match = token.exec(text);
    if (!match) throw new Error(`cannot read ${text} from its character ${at}`);
    found.push(match[1]);
  }
  return found;
}

const words: Readonly<Record<string, Expr>> = { True: true, False: false, None: null };

export function parseCall(text: string): Expr {
  const rest = tokens(text);
  const next = (): string => rest.shift() ?? "";
  const expect = (wanted: string): void => {
    const got = next();
    if (got !== wanted) throw new Error(`${text}: "${wanted}" expected, "${got}" found`);
  };
  /** Items up to the closing bracket; a trailing comma is allowed. */
  const items = <T>(close: string, item: () => T): T[] => {
    const list: T[] = [];
    while (rest[0] !== close) {
      list.push(item());
      if (rest[0] !== close) expect(",");
    }
    expect(close);
    return list;
  };
  const value = (): Expr => {
    const t = next();
    if (t === "(") return { tuple: items(")", value) };
    if (t === "[") return { list: items("]", value) };
    if (t === "$$") return { inputs: "all" };
    if (t[0] === "$") return { input: Number(t.slice(1)) };
    if (/^-?\d/.test(t)) return /[.e]/.test(t) ? { float: Number(t) } : { int: Number(t) };
    if (/^["']/.test(t)) return { str: t.slice(1, -1) };
    if (t === "-inf") return { unary: "-", of: { name: "inf" } };
    if (t in words) return words[t];
    if (rest[0] !== "(") return t.includes(".") ? { fn: t } : { name: t };
    expect("(");
    const args = items(")", () => {
      if (rest[1] !== "=") return { value: value() };
      const name = next();
      expect("=");
      return { name, value: value() };
    });
    const keywords = args.flatMap((a) => ("name" in a ? [[a.name, a.value]] : []));
    return {
      call: { fn: t.replace(/^F\./, "torch.nn.functional.") },
      args: args.flatMap((a) => ("name" in a ? [] : [a.value])),
      ...(keywords.length && { kwargs: Object.fromEntries(keywords) }),
    };
  };
  return value();
}
