/**
 * @file Loop structure: which axes a nest has after splitting and merging, and which of them the lanes run along.
 *
 * Splitting turns divisions by reshapes into variables of their own; merging turns neighbouring axes that every access
 * walks as one into one long loop. Both only look at the index expressions that an unscheduled evaluation produced.
 */
import {
  affineIn,
  type Cond,
  type Index,
  iadd,
  imul,
  ivar,
  num,
  splitPoints,
  substitute,
} from "../schedule/symbolic.ts";
import type { Stmt, Value } from "./ir.ts";

export interface Axis {
  readonly name: string;
  readonly extent: number;
  readonly reduced: boolean;
}

/** Neighbouring axes (outer to inner) that run as one loop, named after the last. */
export interface Loop {
  readonly axes: readonly Axis[];
  readonly extent: number;
  readonly reduced: boolean;
}

/** Splits axes until no access divides by a divisor of one; returns the axes and the space in their variables. */
export function splitAxes(
  axes: readonly Axis[],
  space: readonly Index[],
  accesses: readonly Index[],
): { axes: Axis[]; space: readonly Index[]; accesses: readonly Index[] } {
  let current = [...axes];
  for (let round = 0; round < 8; round++) {
    const points = splitPoints(accesses);
    if (points.size === 0) break;
    const env = new Map<string, Index>();
    current = current.flatMap((axis) => {
      const inner = points.get(axis.name);
      if (!inner || inner >= axis.extent) return [axis];
      const high = { ...axis, name: `${axis.name}o`, extent: axis.extent / inner };
      const low = { ...axis, name: `${axis.name}i`, extent: inner };
      env.set(
        axis.name,
        iadd(imul(ivar(high.name, high.extent), inner), ivar(low.name, low.extent)),
      );
      return [high, low];
    });
    if (env.size === 0) break;
    space = space.map((x) => substitute(x, env));
    accesses = accesses.map((x) => substitute(x, env));
  }
  return { axes: current.filter((a) => a.extent > 1), space, accesses };
}

export function mergeAxes(axes: readonly Axis[], accesses: readonly Index[]): Loop[] {
  const loops: Loop[] = [];
  for (const axis of axes) {
    const previous = loops[loops.length - 1];
    const outer = previous?.axes[previous.axes.length - 1];
    const together =
      outer !== undefined &&
      outer.reduced === axis.reduced &&
      accesses.every((x) => {
        const [a, b] = [affineIn(x, outer.name), affineIn(x, axis.name)];
        return a !== null && b !== null && a === b * axis.extent;
      });
    if (together)
      loops[loops.length - 1] = {
        axes: [...previous.axes, axis],
        extent: previous.extent * axis.extent,
        reduced: axis.reduced,
      };
    else loops.push({ axes: [axis], extent: axis.extent, reduced: axis.reduced });
  }
  return loops;
}

/** The innermost variable of a loop: along it neighbouring elements lie. */
export const laneOf = (loop: Loop): string => loop.axes[loop.axes.length - 1].name;

/** Rewrites a merged loop's accesses: outer variables vanish, the last one runs over the whole loop as `by`. */
export function loopEnv(loop: Loop, by: Index): Map<string, Index> {
  const env = new Map<string, Index>();
  for (const axis of loop.axes) env.set(axis.name, num(0));
  env.set(laneOf(loop), by);
  return env;
}

/** Substitutes loop variables in every index expression of the statements. */
export function mapIndices(stmts: readonly Stmt[], env: ReadonlyMap<string, Index>): Stmt[] {
  const at = (x: Index): Index => substitute(x, env);
  const conds = (c: Cond): Cond => c.map(at);
  const masked = (m: { mask?: Cond }) => (m.mask ? { mask: conds(m.mask) } : {});
  const value = (v: Value): Value => {
    switch (v.k) {
      case "load":
        return { ...v, index: at(v.index), ...masked(v) };
      case "localLoad":
      case "index":
        return { ...v, index: at(v.index) };
      case "select":
        return { ...v, cond: conds(v.cond), a: value(v.a), b: value(v.b) };
      case "op":
      case "threefry":
        return { ...v, args: v.args.map(value) } as Value;
      default:
        return v;
    }
  };
  return stmts.map((s): Stmt => {
    switch (s.k) {
      case "loop":
        return { ...s, extent: at(s.extent), body: mapIndices(s.body, env) };
      case "if":
        return { ...s, cond: conds(s.cond), body: mapIndices(s.body, env) };
      case "let":
      case "position":
        return { ...s, value: value(s.value) };
      case "update":
        return {
          ...s,
          value: value(s.value),
          ...(s.times ? { times: value(s.times) } : {}),
          ...(s.at ? { at: at(s.at) } : {}),
        };
      case "store":
        return { ...s, index: at(s.index), value: value(s.value), ...masked(s) };
      case "storeAdd":
      case "localStore":
        return { ...s, index: at(s.index), value: value(s.value) };
      case "matrixLoad":
      case "matrixStore":
        return { ...s, at: at(s.at), index: at(s.index) };
      case "matrixMultiply":
        return { ...s, at: at(s.at), leftAt: at(s.leftAt), rightAt: at(s.rightAt) };
      default:
        return s;
    }
  });
}
