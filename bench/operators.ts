/**
 * @file Cases of `npm run bench` that are no fair comparison with others or only of interest here: operands stored transposed as
 * gradients read them, thin products, a chain that must become one copy-like kernel, sums. Two have a bar: the least share of
 * what the machine can do, on one thread.
 */
import { compile, randn, realize, type Tensor } from "hinode";

export interface Operator {
  readonly name: string;
  readonly family: string;
  readonly flops: number;
  readonly bytes: number;
  /** The least share of the limit, on one thread of the processor. */
  readonly atLeast?: number;
  make(): Promise<{ readonly run: () => Tensor; readonly inputs: readonly Tensor[] }>;
}

function product(
  m: number,
  k: number,
  n: number,
  transposed: "" | "a" | "b",
  atLeast?: number,
): Operator {
  const suffix = transposed && `, ${transposed} stored transposed`;
  return {
    name: `matmul ${m}×${k}×${n}${suffix}`,
    family: "matmul",
    flops: 2 * m * k * n,
    bytes: 4 * (m * k + k * n + m * n),
    atLeast,
    make: async () => {
      const a = randn(transposed === "a" ? [k, m] : [m, k]);
      const b = randn(transposed === "b" ? [n, k] : [k, n]);
      await realize(a, b);
      const fn = compile((x: Tensor, y: Tensor) =>
        (transposed === "a" ? x.T : x).matmul(transposed === "b" ? y.T : y),
      );
      return { run: () => fn(a, b), inputs: [a, b] };
    },
  };
}

function overElements(
  name: string,
  [rows, columns]: readonly [number, number],
  fn: (x: Tensor) => Tensor,
  bytes: number,
  atLeast?: number,
): Operator {
  return {
    name: `${name} ${rows}×${columns}`,
    family: "elementwise",
    flops: 0,
    bytes: rows * columns * bytes,
    atLeast,
    make: async () => {
      const x = randn([rows, columns]);
      await realize(x);
      const compiled = compile(fn);
      return { run: () => compiled(x), inputs: [x] };
    },
  };
}

export function operators({ quick = false } = {}): Operator[] {
  const s = quick ? 1 / 16 : 1;
  const plane = quick ? ([64, 32] as const) : ([4096, 1024] as const);
  return [
    product(512 * s, 512 * s, 512 * s, "", 0.45),
    product(512 * s, 512 * s, 512 * s, "a"),
    product(512 * s, 512 * s, 512 * s, "b"),
    product(quick ? 33 : 577, 64 * s, quick ? 33 : 577, "b"),
    product(1024 * s, 784 * s, 10, "b"),
    product(128 * s, 64 * s, 64 * s, ""),
    overElements("relu(x·a + b)", plane, (x) => x.mul(1.5).add(0.5).relu(), 8, 0.5),
    overElements("sum over rows", plane, (x) => x.sum(0), 4),
    overElements("sum of all", plane, (x) => x.sum(), 4),
  ];
}
