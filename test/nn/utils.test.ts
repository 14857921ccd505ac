/** @file Parameters as one vector, tied weights, convolution and norm in one, and the layers that own a matrix. */
import { compile, einsum, manualSeed, nn, rand, randn, type Tensor, tensor } from "hinode";
import { beforeAll, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const { utils } = nn;
const close = { rtol: 1e-4, atol: 1e-5 };
const ids = (...list: number[]): Tensor => tensor(list, { dtype: "i32" });

onEachDevice("nn.utils", () => {
  beforeAll(() => {
    manualSeed(81);
  });

  test("parameters to a vector and back", async () => {
    const layer = new nn.Linear(2, 3);
    const vector = utils.parametersToVector(layer.parameters());
    expect(vector.shape).toEqual([9]);
    const other = new nn.Linear(2, 3);
    utils.vectorToParameters(vector, other.parameters());
    expect(await other.weight.data()).toEqual(await layer.weight.data());
    expect(await other.bias!.data()).toEqual(await layer.bias!.data());
    expect(other.weight.requiresGrad).toBe(true);
    expect(() => utils.vectorToParameters(rand([8]), other.parameters())).toThrow(/\[9\]/);
    expect(() => utils.parametersToVector([])).toThrow(/parameters/);
  });

  test("a convolution and the norm behind it as one", async () => {
    const conv = new nn.Conv2d(2, 4, 3, { padding: 1, groups: 2, bias: false });
    const bn = new nn.BatchNorm2d(4);
    const x = randn([3, 2, 4, 4]);
    bn.forward(conv.forward(x)); // running statistics other than 0 and 1
    expect(() => utils.fuseConvBnEval(conv, bn)).toThrow(/eval/);
    const fused = utils.fuseConvBnEval(conv.eval(), bn.eval());
    const want = await bn.forward(conv.forward(x)).data();
    expect(difference(await fused.forward(x).data(), want, close)).toBeNull();
    expect(fused.parameters().length).toBe(2);
  });

  test("a tied weight is one parameter, with the gradients of both uses", async () => {
    class Tied extends nn.Module {
      tokens = new nn.Embedding(4, 3);
      head = new nn.Linear(3, 4, { bias: false });
      constructor() {
        super();
        this.head.weight = this.tokens.weight;
      }
      forward(index: Tensor): Tensor {
        return this.head.forward(this.tokens.forward(index));
      }
    }
    const model = new Tied();
    expect([...model.namedParameters()].map(([name]) => name)).toEqual(["tokens.weight"]);
    model.forward(ids(1)).sum().backward();
    const rows = (await model.tokens.weight.tolist()) as number[][];
    const total = [0, 1, 2].map((c) => rows.reduce((sum, row) => sum + row[c], 0));
    const want = rows.flatMap((_, r) => rows[1].map((v, c) => v + (r === 1 ? total[c] : 0)));
    expect(difference(await model.tokens.weight.grad!.data(), want, close)).toBeNull();
  });
});

onEachDevice("layers that own a matrix", () => {
  beforeAll(() => {
    manualSeed(82);
  });

  test("Bilinear", async () => {
    const layer = new nn.Bilinear(3, 2, 4);
    const [a, b] = [randn([5, 3]), randn([5, 2])];
    const want = einsum("ni,oij,nj->no", a, layer.weight, b).add(layer.bias!);
    expect(difference(await layer.forward(a, b).data(), await want.data(), close)).toBeNull();
    expect(String(layer)).toBe("Bilinear(in1Features=3, in2Features=2, outFeatures=4, bias=true)");
    expect(new nn.Bilinear(3, 2, 4, { bias: false }).bias).toBeNull();
  });

  test("GEGLU is down(gelu(gate) · up)", async () => {
    const layer = new nn.GEGLU(2, 3);
    const x = tensor([[0.5, -1]]);
    const [g, u] = [x.matmul(layer.gate.weight.T), x.matmul(layer.up.weight.T)];
    const want = g.gelu().mul(u).matmul(layer.down.weight.T);
    expect(difference(await layer.forward(x).data(), await want.data(), close)).toBeNull();
  });

  test("Embedding: the padding row is 0 and stays; long rows are cut to maxNorm", async () => {
    const layer = new nn.Embedding(4, 2, { paddingIdx: -3 });
    expect(layer.paddingIdx).toBe(1);
    const first = await layer.weight.tolist();
    expect((first as number[][]).map((row) => row.every((x) => x === 0))).toEqual([false, true, false, false]); // biome-ignore format: one line
    layer.forward(ids(0, 1)).sum().backward();
    expect(await layer.weight.grad!.data()).toEqual(new Float32Array([1, 1, 0, 0, 0, 0, 0, 0]));
    expect(() => new nn.Embedding(4, 2, { paddingIdx: 4 })).toThrow(/4 rows/);
    // A table that is only counted costs nothing, also when something else is computed: this one has 4 TB.
    const counted = new nn.Embedding(1e6, 1e6, { paddingIdx: 0 });
    expect(await tensor([1]).add(1).tolist()).toEqual([2]);
    expect(counted.numParameters()).toBe(1e12);
    const short = new nn.Embedding(3, 2, { maxNorm: 2 });
    short.loadStateDict({ weight: tensor([[3, 4], [1, 1], [30, 40]]) }); // biome-ignore format: rows
    const forward = compile((index: Tensor) => short.forward(index));
    const y = await forward(ids(0, 1)).data();
    expect(difference(y, [1.2, 1.6, 1, 1], close)).toBeNull();
    // In place, of what was looked up only.
    const after = [1.2, 1.6, 1, 1, 30, 40];
    expect(difference(await short.weight.data(), after, close)).toBeNull();
    short.forward(ids(2, 2)).sum().backward();
    expect(await short.weight.grad!.data()).toEqual(new Float32Array([0, 0, 0, 0, 2, 2]));
    expect(String(short)).toBe("Embedding(3, 2, maxNorm=2)");
  });

  test("EmbeddingBag combines rows, in bags by rows or by offsets", async () => {
    const layer = new nn.EmbeddingBag(4, 2, { mode: "sum", paddingIdx: 0 });
    layer.loadStateDict({ weight: tensor([[9, 9], [1, 2], [3, 4], [5, 6]]) }); // biome-ignore format: rows
    const y = layer.forward(tensor([[1, 2], [3, 0]], { dtype: "i32" })); // biome-ignore format: rows
    expect(await y.tolist()).toEqual([[4, 6], [5, 6]]); // biome-ignore format: rows
    const bags = { offsets: ids(0, 1), perSampleWeights: tensor([2, 1, 1]) };
    const z = layer.forward(ids(3, 1, 2), bags);
    expect(await z.tolist()).toEqual([[10, 12], [4, 6]]); // biome-ignore format: rows
    expect(String(layer)).toBe("EmbeddingBag(4, 2, paddingIdx=0, mode=sum)");
    expect(new nn.EmbeddingBag(4, 2).mode).toBe("mean");
  });
});
