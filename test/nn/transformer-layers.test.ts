/** @file PyTorch's transformer layers: the formula of each, order of axes, masks, copies. */
import { arange, compile, manualSeed, nn, ones, randn, type Tensor, tensor, zeros } from "hinode";
import { beforeAll, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const close = { rtol: 1e-4, atol: 1e-5 };
const [N, T, S, D] = [2, 3, 4, 8];
const quiet = { dropout: 0, dimFeedforward: 6 };

async function expectClose(got: Tensor, want: Tensor): Promise<void> {
  expect(got.shape).toEqual(want.shape);
  expect(difference(await got.data(), await want.data(), close)).toBeNull();
}

onEachDevice("transformer layers", (device) => {
  // What they are made of has tests on GPUs; a layer of each kind is enough there.
  const onCpus = test.skipIf(device === "webgpu");
  let src: Tensor, tgt: Tensor;
  beforeAll(() => {
    manualSeed(61);
    [src, tgt] = [randn([N, S, D]), randn([N, T, D])];
  });

  test("an encoder layer, with the norm behind and before", async () => {
    for (const normFirst of [false, true]) {
      const layer = new nn.TransformerEncoderLayer(D, 2, { ...quiet, normFirst, batchFirst: true });
      const norm = (n: nn.LayerNorm, x: Tensor, own: Tensor) =>
        normFirst ? x.add(own) : n.forward(x.add(own));
      const of = (n: nn.LayerNorm, x: Tensor) => (normFirst ? n.forward(x) : x);
      const y = norm(layer.norm1, src, layer.selfAttn.forward(of(layer.norm1, src)));
      const inner = layer.linear1.forward(of(layer.norm2, y)).relu();
      const want = norm(layer.norm2, y, layer.linear2.forward(inner));
      await expectClose(layer.forward(src), want);
    }
  });

  test("a decoder layer looks at itself, then at the memory", async () => {
    const layer = new nn.TransformerDecoderLayer(D, 2, {
      ...quiet,
      batchFirst: true,
      activation: "gelu",
    });
    const a = layer.norm1.forward(
      tgt.add(layer.selfAttn.forward(tgt, tgt, tgt, { isCausal: true })),
    );
    const b = layer.norm2.forward(a.add(layer.multiheadAttn.forward(a, src)));
    const inner = layer.linear1.forward(b).gelu();
    const want = layer.norm3.forward(b.add(layer.linear2.forward(inner)));
    await expectClose(layer.forward(tgt, src, { tgtIsCausal: true }), want);
  });

  onCpus("the batch comes second unless batchFirst; one sequence needs no batch", async () => {
    const first = new nn.TransformerEncoderLayer(D, 2, { ...quiet, batchFirst: true });
    const second = new nn.TransformerEncoderLayer(D, 2, quiet);
    second.loadStateDict(first.stateDict());
    const want = first.forward(src);
    await expectClose(second.forward(src.transpose(0, 1)), want.transpose(0, 1));
    await expectClose(second.forward(src.select(0, 1)), want.select(0, 1));
  });

  onCpus("masks: later positions and padding have no influence", async () => {
    const layer = new nn.TransformerEncoderLayer(D, 2, { ...quiet, batchFirst: true });
    const causal = layer.forward(src, { isCausal: true });
    const mask = nn.Transformer.generateSquareSubsequentMask(S);
    await expectClose(layer.forward(src, { srcMask: mask }), causal);
    await expectClose(
      causal.narrow(1, 0, 2),
      layer.forward(src.narrow(1, 0, 2), { isCausal: true }),
    );
    const padding = arange(S).ge(3).unsqueeze(0).expand([N, S]);
    const padded = layer.forward(src, { srcKeyPaddingMask: padding });
    await expectClose(padded.narrow(1, 0, 3), layer.forward(src.narrow(1, 0, 3)));
  });

  onCpus("the whole transformer: stacks, norms, all masks; dropout in training", async () => {
    const options = { ...quiet, numEncoderLayers: 2, numDecoderLayers: 1, batchFirst: true };
    const model = new nn.Transformer(D, 2, options);
    const padding = tensor([[false, false, false, true], [false, false, true, true]]); // biome-ignore format: rows
    const masks = {
      srcKeyPaddingMask: padding,
      memoryKeyPaddingMask: padding,
      tgtIsCausal: true,
    };
    const y = model.forward(src, tgt, masks);
    expect(y.shape).toEqual([N, T, D]);
    const [one, two] = model.encoder.layers;
    const seen = { srcKeyPaddingMask: padding };
    const memory = model.encoder.norm!.forward(two.forward(one.forward(src, seen), seen));
    const decoded = model.decoder.layers.at(0).forward(tgt, memory, masks);
    await expectClose(y, model.decoder.norm!.forward(decoded));
    // What is padded may be anything.
    const noise = padding.unsqueeze(-1).float().mul(100);
    await expectClose(model.forward(src.add(noise), tgt, masks), y);
    const dropping = new nn.Transformer(D, 2, { ...options, dropout: 0.5 });
    const forward = compile((a: Tensor, b: Tensor) => dropping.forward(a, b));
    expect(await forward(src, tgt).data()).not.toEqual(await forward(src, tgt).data());
    dropping.eval();
    expect(await forward(src, tgt).data()).toEqual(await forward(src, tgt).data());
  });

  onCpus("a stack copies its layer: equal values, separate parameters", async () => {
    const layer = new nn.TransformerEncoderLayer(D, 2, quiet);
    const stack = new nn.TransformerEncoder(layer, 2);
    const weights = [layer, ...stack.layers].map((l) => l.linear1.weight);
    expect(new Set(weights).size).toBe(3);
    for (const weight of weights) expect(await weight.data()).toEqual(await weights[0].data());
    expect(stack.parameters().length).toBe(2 * layer.parameters().length);
    expect([...stack.namedParameters()][0][0]).toBe("layers.0.selfAttn.qkv.weight");
  });

  onCpus("PyTorch's names and shapes load, strictly", async () => {
    const layer = new nn.TransformerDecoderLayer(D, 2, { ...quiet, batchFirst: true });
    const attention = (name: string) => ({
      [`${name}.in_proj_weight`]: zeros([3 * D, D]),
      [`${name}.in_proj_bias`]: zeros([3 * D]),
      [`${name}.out_proj.weight`]: zeros([D, D]),
      [`${name}.out_proj.bias`]: zeros([D]),
    });
    const norms = ["norm1", "norm2", "norm3"].flatMap((name) => [
      [`${name}.weight`, ones([D])],
      [`${name}.bias`, zeros([D])],
    ]);
    layer.loadStateDict({
      ...attention("self_attn"),
      ...attention("multihead_attn"),
      "linear1.weight": zeros([6, D]),
      "linear1.bias": zeros([6]),
      "linear2.weight": zeros([D, 6]),
      "linear2.bias": ones([D]),
      ...Object.fromEntries(norms),
    });
    const want = layer.norm3.forward(layer.norm2.forward(layer.norm1.forward(tgt)).add(1));
    await expectClose(layer.eval().forward(tgt, src), want);
  });

  onCpus("an unknown activation is refused", () => {
    const options = { activation: "swish" as "relu" };
    expect(() => new nn.TransformerEncoderLayer(D, 2, options)).toThrow(/'relu', 'gelu'/);
    const own = { ...quiet, activation: (x: Tensor) => x.tanh() };
    expect(new nn.TransformerEncoderLayer(D, 2, own).copy().forward(src).shape).toEqual([N, S, D]);
  });

  onCpus("a copy has the values and the dtype", async () => {
    const layer = new nn.TransformerEncoderLayer(D, 2, quiet).to("bf16");
    const twin = layer.copy();
    expect(twin.linear1.weight.dtype).toBe("bf16");
    expect(await twin.linear2.weight.tolist()).toEqual(await layer.linear2.weight.tolist());
  });
});
