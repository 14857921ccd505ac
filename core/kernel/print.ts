/**
 * @file A kernel as text: what `explain()` shows, what error messages quote and what tests keep as snapshots. Buffers
 * print as buf0, buf1, …, scalars as word0, word1, …; a constant shows its type by its form (1.0 f32, 1 i32, 1u u32).
 */
import type { Atom, Cond, Index } from "../schedule/symbolic.ts";
import type { Kernel, MatrixStmt, Stmt, Value } from "./ir.ts";

export function formatIndex(x: Index): string {
  // 50 - 8*p rather than -8*p + 50.
  const constantFirst = x.constant > 0 && x.terms.every((t) => t.coef < 0);
  let text = constantFirst ? `${x.constant}` : "";
  for (const { atom, coef } of x.terms) {
    const sign = coef < 0 ? (text ? " - " : "-") : text ? " + " : "";
    const magnitude = Math.abs(coef);
    text += sign + (magnitude === 1 ? "" : `${magnitude}*`) + formatAtom(atom);
  }
  if (!text) return `${x.constant}`;
  if (x.constant === 0 || constantFirst) return text;
  return text + (x.constant < 0 ? ` - ${-x.constant}` : ` + ${x.constant}`);
}

function formatAtom(atom: Atom): string {
  switch (atom.k) {
    case "var":
    case "value":
      return atom.name;
    case "min":
      return `min(${formatIndex(atom.a)}, ${formatIndex(atom.b)})`;
    default: {
      const of = formatIndex(atom.of);
      const plain = /^\w+$/.test(of);
      return `(${plain ? of : `(${of})`}${atom.k === "div" ? "/" : "%"}${atom.by})`;
    }
  }
}

/** Entries print as `x >= 0`; those of the form c - x as `x <= c`. */
export function formatCond(cond: Cond): string {
  if (cond.length === 0) return "true";
  const entry = (x: Index): string => {
    const flip = x.terms.length > 0 && x.terms.every((t) => t.coef < 0);
    const s = flip ? -1 : 1;
    const terms = x.terms.map((t) => ({ atom: t.atom, coef: s * t.coef }));
    const left = formatIndex({ ...x, terms, constant: 0 });
    return `${left} ${flip ? "<=" : ">="} ${flip ? x.constant : -x.constant + 0}`;
  };
  return cond.map(entry).join(" && ");
}

const infix: { readonly [op: string]: string } = {
  add: "+",
  sub: "-",
  mul: "*",
  div: "/",
  idiv: "div",
  rem: "%",
  lt: "<",
  le: "<=",
  eq: "==",
  and: "&",
  or: "|",
  xor: "^",
  shl: "<<",
  shr: ">>",
};

function formatConst(dtype: Value["dtype"], value: number): string {
  switch (dtype) {
    case "f32":
      return Number.isInteger(value) && Math.abs(value) < 1e15
        ? `${Object.is(value, -0) ? "-0" : value}.0`
        : `${value}`;
    case "bool":
      return value ? "true" : "false";
    case "i32":
      return `${value}`;
    case "u32":
      return `${value}u`;
    default:
      return `${value}${dtype}`;
  }
}

const masked = (mask: Cond | undefined): string =>
  mask && mask.length > 0 ? ` if ${formatCond(mask)}` : "";

export function formatValue(v: Value): string {
  switch (v.k) {
    case "const":
      return formatConst(v.dtype, v.value);
    case "var":
      return v.name;
    case "load":
      return `buf${v.buffer}[${formatIndex(v.index)}${masked(v.mask)}]`;
    case "localLoad":
      return `${v.local}[${formatIndex(v.index)}]`;
    case "index":
      return `int(${formatIndex(v.index)})`;
    case "select":
      return `(${formatCond(v.cond)} ? ${formatValue(v.a)} : ${formatValue(v.b)})`;
    case "scalar":
      return v.dtype === "f32" ? `word${v.slot}` : `word${v.slot}:${v.dtype}`;
    case "threefry":
      return `threefry(${v.args.map(formatValue).join(", ")})`;
    case "op": {
      const args = v.args.map(formatValue);
      if (v.op === "cast") return `${v.dtype}(${args[0]})`;
      if (v.op === "bitcast") return `bits_${v.dtype}(${args[0]})`;
      const sign = infix[v.op];
      return sign ? `(${args[0]} ${sign} ${args[1]})` : `${v.op}(${args.join(", ")})`;
    }
  }
}

const matrixAt = (s: Extract<MatrixStmt, { k: "matrixLoad" | "matrixStore" }>): string =>
  `matrix ${s.local}[${formatIndex(s.index)} by ${s.stride}]`;

/** The statement without its body. */
export function formatHead(s: Stmt): string {
  switch (s.k) {
    case "loop": {
      const unroll = s.unroll ? ` unroll ${s.unroll}` : "";
      return `${s.mode === "vector" ? "vector" : "for"} ${s.var} < ${formatIndex(s.extent)}${unroll}`;
    }
    case "let":
      return `let ${s.name} = ${formatValue(s.value)}`;
    case "acc":
      return `acc ${s.name}: ${s.dtype} ${s.combine}`;
    case "update": {
      const times = s.times ? ` * ${formatValue(s.times)}` : "";
      const at = s.at ? ` at ${formatIndex(s.at)}` : "";
      return `${s.name} <- ${formatValue(s.value)}${times}${at}`;
    }
    case "local":
      return `local ${s.name}: ${s.dtype}[${s.size}]`;
    case "localStore":
      return `${s.local}[${formatIndex(s.index)}] = ${formatValue(s.value)}`;
    case "store":
      return `buf${s.buffer}[${formatIndex(s.index)}${masked(s.mask)}] = ${formatValue(s.value)}`;
    case "storeAdd":
      return `buf${s.buffer}[${formatIndex(s.index)}] += ${formatValue(s.value)}`;
    case "if":
      return `if ${formatCond(s.cond)}`;
    case "position":
      return `position ${s.name} = ${formatValue(s.value)} in 0..${s.size - 1}`;
    case "shared":
      return `shared ${s.name}: ${s.dtype}[${s.size}]`;
    case "barrier":
      return "barrier";
    case "allReduce":
      return `allReduce ${s.name} over ${s.width}${s.lanes ? `, lanes ${s.lanes}` : ""}`;
    case "matrix":
      return `matrix ${s.name}: ${s.role}[${s.size}]`;
    case "matrixLoad": {
      const order = s.transposed ? " transposed" : "";
      return `${s.name}[${formatIndex(s.at)}] = ${matrixAt(s)}${order}`;
    }
    case "matrixMultiply": {
      const left = `${s.left}[${formatIndex(s.leftAt)}]`;
      return `${s.name}[${formatIndex(s.at)}] += ${left} * ${s.right}[${formatIndex(s.rightAt)}]`;
    }
    case "matrixStore":
      return `${matrixAt(s)} = ${s.name}[${formatIndex(s.at)}]`;
  }
}

export function formatStmts(body: readonly Stmt[], indent = ""): string {
  let text = "";
  for (const s of body) {
    text += `${indent}${formatHead(s)}`;
    if (s.k === "loop" || s.k === "if")
      text += ` {\n${formatStmts(s.body, `${indent}  `)}${indent}}`;
    text += "\n";
  }
  return text;
}

export function formatKernel(kernel: Kernel): string {
  const buffers = kernel.buffers.map((b, i) => `buf${i}: ${b.access} ${b.dtype}[${b.size}]`);
  if (kernel.scalars > 0) buffers.push(`${kernel.scalars} scalars`);
  const { range, threads, subgroups } = kernel;
  const groups = subgroups ? `, subgroups ${subgroups.var} of ${subgroups.width}` : "";
  const invocations = threads ? `, threads ${threads.var} < ${threads.extent}${groups}` : "";
  return (
    `${kernel.kind} ${kernel.name}(${buffers.join(", ")})\n` +
    `parallel ${range.var} < ${range.extent}${invocations} {\n${formatStmts(kernel.body, "  ")}}\n`
  );
}
