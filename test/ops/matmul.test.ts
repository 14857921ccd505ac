import fc from "fast-check";
import * as h from "hinode";
import { DTypeError, ShapeError, type Tensor, tensor } from "hinode";
import { describe, expect, test } from "vitest";
import { numRuns, onEachDevice } from "../support/devices.ts";
import {
  at,
  broadcastShape,
  build,
  expectGradients,
  expectTensor,
  filled,
  make,
  type Plain,
  values,
} from "./support.ts";

/** numpy.matmul by its definition. */
function product(a: Plain, b: Plain): Plain {
  const left = a.shape.length === 1 ? [1, ...a.shape] : a.shape;
  const right = b.shape.length === 1 ? [...b.shape, 1] : b.shape;
  const [x, y] = [
    { shape: left, data: a.data },
    { shape: right, data: b.data },
  ];
  const lead = broadcastShape(left.slice(0, -2), right.slice(0, -2));
  const [m, k, n] = [left.at(-2)!, left.at(-1)!, right.at(-1)!];
  const full = build([...lead, m, n], (i) => {
    const [row, column] = i.slice(-2);
    const batch = i.slice(0, -2);
    let sum = 0;
    for (let j = 0; j < k; j++) sum += at(x, [...batch, row, j]) * at(y, [...batch, j, column]);
    return sum;
  });
  const shape = [
    ...lead,
    ...(a.shape.length === 1 ? [] : [m]),
    ...(b.shape.length === 1 ? [] : [n]),
  ];
  return { shape, data: full.data };
}

const dim = fc.integer({ min: 0, max: 6 });
/** Operands that fit: ranks 1 to 4, batches that broadcast. */
const operands = fc
  .tuple(
    dim,
    dim,
    dim,
    fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 2 }),
    fc.nat(3),
    fc.nat(3),
    fc.boolean(),
    fc.boolean(),
  )
  .chain(([m, k, n, batch, dropA, dropB, vectorA, vectorB]) => {
    const lead = (drop: number) =>
      drop > 2 ? batch.map(() => 1) : batch.slice(Math.min(drop, batch.length));
    const a = vectorA && dropA > 1 ? [k] : [...lead(dropA), m, k];
    const b = vectorB && dropB > 1 ? [k] : [...lead(dropB), k, n];
    return fc.tuple(filled(a, values.f32), filled(b, values.f32));
  });

onEachDevice("matmul", () => {
  test("follows numpy for all ranks", async () => {
    await fc.assert(
      fc.asyncProperty(operands, ([a, b]) =>
        expectTensor(make(a).matmul(make(b)), product(a, b), { rtol: 1e-5, atol: 2e-5 }),
      ),
      numRuns(60),
    );
  });

  test("larger products with odd sizes, transposed operands", async () => {
    const [a, b] = [filled([37, 65], values.f32), filled([65, 19], values.f32)].map(
      (x) => fc.sample(x, 1)[0],
    );
    const want = product(a, b);
    const tolerance = { rtol: 1e-4, atol: 2e-4 };
    await expectTensor(make(a).mm(make(b)), want, tolerance);
    await expectTensor(h.matmul(make(b).T, make(a).T).T, want, tolerance);
    await expectTensor(h.linear(make(a), make(b).T), want, tolerance);
  });

  test("integers", async () => {
    const a = tensor(
      [
        [1, 2],
        [3, -4],
      ],
      { dtype: "i32" },
    );
    const p = a.matmul(a);
    expect([p.dtype, await p.tolist()]).toEqual([
      "i32",
      [
        [7, -6],
        [-9, 22],
      ],
    ]);
    expect(() => a.matmul(a.float())).toThrow(/matmul: .*\.float\(\)/s);
    expect(() => a.bool().matmul(a.bool())).toThrow(DTypeError);
  });

  test("named products check their ranks", async () => {
    const m = tensor([
      [1, 2],
      [3, 4],
    ]);
    const v = tensor([1, 10]);
    expect(await m.mv(v).tolist()).toEqual([21, 43]);
    expect(await v.dot(v).item()).toBe(101);
    expect(await v.outer(v).tolist()).toEqual([
      [1, 10],
      [10, 100],
    ]);
    expect(await h.bmm(m.unsqueeze(0), m.unsqueeze(0)).tolist()).toEqual([
      [
        [7, 10],
        [15, 22],
      ],
    ]);
    expect(() => h.mm(m, v)).toThrow(ShapeError);
    expect(() => h.bmm(h.zeros([2, 1, 1]), h.zeros([3, 1, 1]))).toThrow(/equal batches/);
    expect(() => h.matmul(h.zeros([2, 3]), h.zeros([4, 2]))).toThrow(
      /matmul: .*f32\[2, 3\] @ f32\[4, 2\]/,
    );
    expect(() => h.matmul(tensor(1), v)).toThrow(ShapeError);
    expect(() => h.matmul(h.zeros([2, 3, 4]), h.zeros([3, 4, 2]))).toThrow(ShapeError);
  });

  test("linear", async () => {
    const w = tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    const b = tensor([10, 20]);
    expect(await h.linear(tensor([1, 0, -1]), w, b).tolist()).toEqual([8, 18]);
    expect(h.linear(h.zeros([5, 4, 3]), w, b).shape).toEqual([5, 4, 2]);
    expect(h.linear(h.zeros([0, 3]), w, b).shape).toEqual([0, 2]);
    expect(() => h.linear(h.zeros([4]), w)).toThrow(
      /an input \[\.\.\., in\] and a weight \[out, in\]/,
    );
    expect(() => h.linear(h.zeros([3]), w, h.zeros([3]))).toThrow(/a bias \[2\]/);
  });

  test("a batch on the left becomes rows: one product with B = 1", () => {
    const y = h.zeros([2, 3, 4]).matmul(h.zeros([4, 5]));
    const dot = y.node.src[0];
    expect([dot.op, dot.shape]).toEqual(["dot", [1, 6, 5]]);
  });

  describe("gradients", () => {
    const pairs: [number[], number[]][] = [
      [[3], [3]],
      [[2, 3], [3]],
      [[3], [3, 2]],
      [
        [2, 3],
        [3, 2],
      ],
      [
        [2, 2, 3],
        [3, 2],
      ],
      [
        [2, 3],
        [2, 3, 2],
      ],
      [
        [2, 1, 2, 3],
        [3, 3, 2],
      ],
    ];
    test.for(pairs)("%j @ %j", async ([a, b]) => {
      const sample = (shape: number[], seed: number): Plain =>
        build(shape, (i) => Math.sin(seed + i.reduce((s, v) => 3.1 * s + v, 0.5)));
      await expectGradients((x: Tensor, y: Tensor) => x.matmul(y), [sample(a, 1), sample(b, 2)]);
    });
  });

  test("the properties of products", async () => {
    const square = filled([4, 4], values.f32);
    await fc.assert(
      fc.asyncProperty(square, square, square, async (a, b, c) => {
        const [x, y, z] = [a, b, c].map((p) => make(p));
        const left = x.matmul(y).matmul(z);
        const right = x.matmul(y.matmul(z));
        await expectTensor(
          left,
          { shape: [4, 4], data: [...(await right.data())] },
          { rtol: 1e-3, atol: 1e-3 },
        );
      }),
      numRuns(10),
    );
    expect(
      await h
        .eye(3)
        .matmul(h.arange(9).float().reshape([3, 3]))
        .tolist(),
    ).toEqual([
      [0, 1, 2],
      [3, 4, 5],
      [6, 7, 8],
    ]);
  });
});
