/**
 * @file Loops without choices: a vector loop that selects by a condition which is the same for all its lanes becomes one loop for
 * either case, and one that selects by the position of the lane is cut where the answer changes. So tensors that are joined
 * are copied part by part, and not each element picked among all parts ("loop unswitching", "index-set splitting").
 *
 * Which loops there are is decided before (nest.ts); the order of sums is not changed.
 */
import {
  affineIn,
  type Cond,
  freeVars,
  type Index,
  iadd,
  isConst,
  isub,
  ivar,
  num,
} from "../schedule/symbolic.ts";
import { constValue, type Stmt, type Value } from "./ir.ts";
import { mapIndices } from "./loops.ts";
import { eachValueIn } from "./operand.ts";

type Loop = Extract<Stmt, { k: "loop" }>;

/** The loops that one may become: more are more code than they save. */
const maxLoops = 16;
/** Shorter parts of a loop are mostly masked lanes. */
const leastLanes = 8;

export function unswitch(stmts: readonly Stmt[]): Stmt[] {
  return stmts.flatMap((s): Stmt[] => {
    if (s.k === "if") return [{ ...s, body: unswitch(s.body) }];
    if (s.k !== "loop") return [s];
    if (s.mode !== "vector") return [{ ...s, body: unswitch(s.body) }];
    return loops(s, maxLoops) ?? [s];
  });
}

/** The loop without its choices, as at most `room` loops; null: it has more, or none that can be told before it runs. */
function loops(loop: Loop, room: number): Stmt[] | null {
  const entry = choiceOf(loop);
  if (!entry) return [loop];
  if (room < 2) return null;
  const no = isub(num(-1), entry);
  const step = affineIn(entry, loop.var)!;
  const [yes, other] =
    step === 0 ? [given(loop, entry), given(loop, no)] : cut(loop, boundary(entry, step), step > 0);
  const first = loops(yes, room - 1);
  const rest = first && loops(other, room - count(first));
  if (!rest) return null;
  if (step !== 0) return step > 0 ? [...rest, ...first] : [...first, ...rest];
  const when = (cond: Cond, body: readonly Stmt[]): Stmt[] =>
    body.length > 0 ? [{ k: "if", cond, body }] : [];
  return [...when([entry], first), ...when([no], rest)];
}

/** The lane at which the answer changes; it is yes above where `step` is 1, below where it is -1. */
const boundary = (entry: Index, step: number): number =>
  step > 0 ? -entry.constant : entry.constant + 1;

const count = (stmts: readonly Stmt[]): number =>
  stmts.reduce((n, s) => n + (s.k === "if" ? count(s.body) : 1), 0);

/** A condition of a select (≥ 0 where it holds) that depends on nothing in the loop, or on the lane's position alone. */
function choiceOf(loop: Loop): Index | null {
  const inner = namesIn(loop.body);
  const length = isConst(loop.extent) ? loop.extent.constant : null;
  const mayCut = length !== null && !updatesOuter(loop.body);
  const suits = (entry: Index): boolean => {
    if (entry.min >= 0 || entry.max < 0) return false;
    const names = freeVars(entry);
    for (const name of names) if (inner.has(name)) return false;
    if (!names.has(loop.var)) return true;
    const step = affineIn(entry, loop.var);
    if (!mayCut || names.size > 1 || (step !== 1 && step !== -1)) return false;
    const at = boundary(entry, step);
    return at >= leastLanes && length - at >= leastLanes;
  };
  let found: Index | null = null;
  eachValueIn(loop.body, (v) => {
    if (!found && v.k === "select") found = v.cond.find(suits) ?? null;
  });
  return found;
}

/** Two loops, below and from lane `at` on: [where the lane's position is high enough, the other one] if `upper`. */
function cut(loop: Loop, at: number, upper: boolean): [Loop, Loop] {
  const part = (begin: number, extent: number): Loop => {
    const env = new Map([[loop.var, iadd(ivar(loop.var, extent), num(begin))]]);
    const body = mapIndices(loop.body, env);
    return given({ ...loop, extent: num(extent), body }, num(0));
  };
  const [low, high] = [part(0, at), part(at, loop.extent.constant - at)];
  return upper ? [high, low] : [low, high];
}

/** The loop where `known` ≥ 0, without what is never used then. */
const given = (loop: Loop, known: Index): Loop => ({
  ...loop,
  body: used(assuming(loop.body, known), new Set()),
});

function assuming(stmts: readonly Stmt[], known: Index): Stmt[] {
  const left = (cond: Cond): Cond | false => {
    const rest: Index[] = [];
    for (const entry of cond) {
      const [over, against] = [isub(entry, known), iadd(entry, known)];
      if (entry.max < 0 || against.max < 0) return false;
      if (entry.min < 0 && over.min < 0) rest.push(entry);
    }
    return rest;
  };
  const masked = <T extends { readonly mask?: Cond }>({ mask: _, ...rest }: T, mask?: Cond) => ({
    ...rest,
    ...(mask && mask.length > 0 ? { mask } : {}),
  });
  const value = (v: Value): Value => {
    switch (v.k) {
      case "select": {
        const cond = left(v.cond);
        if (cond === false) return value(v.b);
        return cond.length === 0 ? value(v.a) : { ...v, cond, a: value(v.a), b: value(v.b) };
      }
      case "load": {
        const mask = v.mask && left(v.mask);
        return mask === false ? constValue(v.dtype, 0) : masked(v, mask);
      }
      case "op":
      case "threefry":
        return { ...v, args: v.args.map(value) } as Value;
      default:
        return v;
    }
  };
  return stmts.flatMap((s): Stmt[] => {
    switch (s.k) {
      case "loop":
        return [{ ...s, body: assuming(s.body, known) }];
      case "if": {
        const cond = left(s.cond);
        if (cond === false) return [];
        const body = assuming(s.body, known);
        return cond.length === 0 ? body : [{ ...s, cond, body }];
      }
      case "update":
        return [{ ...s, value: value(s.value), ...(s.times && { times: value(s.times) }) }];
      case "store": {
        const mask = s.mask && left(s.mask);
        return mask === false ? [] : [{ ...masked(s, mask), value: value(s.value) }];
      }
      default:
        return ["value" in s ? ({ ...s, value: value(s.value) } as Stmt) : s];
    }
  });
}

/** Without values that nobody reads; `reads` collects the names that the rest of the scope does. */
function used(stmts: readonly Stmt[], reads: Set<string>): Stmt[] {
  const out: Stmt[] = [];
  for (const s of [...stmts].reverse()) {
    if (s.k === "let" && !reads.has(s.name)) continue;
    const kept = s.k === "loop" || s.k === "if" ? { ...s, body: used(s.body, reads) } : s;
    eachValueIn([kept], (v) => {
      if (v.k === "var") reads.add(v.name);
    });
    out.push(kept);
  }
  return out.reverse();
}

/** Loop variables and positions that the statements declare. */
function namesIn(stmts: readonly Stmt[], names = new Set<string>()): Set<string> {
  for (const s of stmts) {
    if (s.k === "position") names.add(s.name);
    if (s.k === "loop") names.add(s.var);
    if (s.k === "loop" || s.k === "if") namesIn(s.body, names);
  }
  return names;
}

/** Whether a sum goes over the lanes: two loops would add them up in another order. */
function updatesOuter(stmts: readonly Stmt[], own = new Set<string>()): boolean {
  return stmts.some((s) => {
    if (s.k === "acc") own.add(s.name);
    if (s.k === "update") return !own.has(s.name);
    return (s.k === "loop" || s.k === "if") && updatesOuter(s.body, own);
  });
}
