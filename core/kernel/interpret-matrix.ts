/**
 * @file The interpreter's matrices: the first invocation of a subgroup holds and moves them for all, so that accesses without a
 * barrier in between show as races. Positions must agree within a subgroup. Sums are rounded to f32 after each product.
 */
import type { Index } from "../schedule/symbolic.ts";
import { type Memory, makeMemory } from "./interpret-memory.ts";
import { type Kernel, type MatrixStmt, matrixSide } from "./ir.ts";

const elements = matrixSide * matrixSide;

/** What a machine of invocations `I` that knows names `N` gives to matrices. */
export interface MatrixHost<I, N> {
  readonly kernel: Kernel;
  readonly detect: boolean;
  declareHeld(names: N, name: string): number;
  heldSlot(names: N, name: string): number;
  index(x: Index, names: N): () => number;
  agreed(all: readonly I[], what: string, value: () => number): number;
  enter(one: I): void;
  hold(slot: number, memory: Memory): void;
  memory(slot: number): Memory;
  read(memory: Memory, i: number): number;
  write(memory: Memory, i: number, value: number): void;
}

/** A statement on matrices, run by all invocations of a workgroup together. */
export function matrixStatement<I, N>(
  host: MatrixHost<I, N>,
  s: MatrixStmt,
  names: N,
): (all: readonly I[]) => void {
  /** Calls `body` as the first invocation of each subgroup, with values that its invocations agree on. */
  const subgroups = (
    values: readonly (() => number)[],
    body: (...values: number[]) => void,
  ): ((all: readonly I[]) => void) => {
    const { width } = host.kernel.subgroups!;
    return (all) => {
      for (let first = 0; first < all.length; first += width) {
        const group = all.slice(first, first + width);
        const agreed = values.map((value) => host.agreed(group, "the place of a matrix", value));
        host.enter(group[0]);
        body(...agreed);
      }
    };
  };
  const index = (x: Index) => host.index(x, names);
  switch (s.k) {
    case "matrix": {
      const slot = host.declareHeld(names, s.name);
      const dtype = s.role === "result" ? "f32" : "f16";
      return subgroups([], () => {
        const memory = makeMemory(s.name, dtype, s.size * elements, "private", host.detect);
        if (s.role === "result") memory.tracks?.written.fill(1);
        host.hold(slot, memory);
      });
    }
    case "matrixLoad": {
      const [to, from] = [host.heldSlot(names, s.name), host.heldSlot(names, s.local)];
      return subgroups([index(s.at), index(s.index)], (at, start) => {
        const [matrix, memory] = [host.memory(to), host.memory(from)];
        for (let i = 0; i < matrixSide; i++)
          for (let j = 0; j < matrixSide; j++) {
            const [row, column] = s.transposed ? [j, i] : [i, j];
            const value = host.read(memory, start + s.stride * row + column);
            host.write(matrix, at * elements + i * matrixSide + j, value);
          }
      });
    }
    case "matrixMultiply": {
      const [sum, left, right] = [s.name, s.left, s.right].map((n) => host.heldSlot(names, n));
      const places = [index(s.at), index(s.leftAt), index(s.rightAt)];
      return subgroups(places, (at, leftAt, rightAt) => {
        const [result, a, b] = [host.memory(sum), host.memory(left), host.memory(right)];
        for (let i = 0; i < matrixSide; i++)
          for (let j = 0; j < matrixSide; j++) {
            const place = at * elements + i * matrixSide + j;
            let value = host.read(result, place);
            for (let k = 0; k < matrixSide; k++) {
              const x = host.read(a, leftAt * elements + i * matrixSide + k);
              value = Math.fround(
                value + x * host.read(b, rightAt * elements + k * matrixSide + j),
              );
            }
            host.write(result, place, value);
          }
      });
    }
    case "matrixStore": {
      const [from, to] = [host.heldSlot(names, s.name), host.heldSlot(names, s.local)];
      return subgroups([index(s.at), index(s.index)], (at, start) => {
        const [matrix, memory] = [host.memory(from), host.memory(to)];
        for (let i = 0; i < matrixSide; i++)
          for (let j = 0; j < matrixSide; j++) {
            const value = host.read(matrix, at * elements + i * matrixSide + j);
            host.write(memory, start + s.stride * i + j, value);
          }
      });
    }
  }
}
