/** @file Generation with a cache of keys and values gives the rows of a full pass. */
import {
  compile,
  explain,
  IndexOutOfRangeError,
  manualSeed,
  noGrad,
  randn,
  type Tensor,
  tensor,
} from "hinode";
import {
  type AttentionOptions,
  KVCache,
  LayerNorm,
  MLP,
  Module,
  MultiheadAttention,
  TransformerBlock,
} from "hinode/nn";
import { beforeAll, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const close = { rtol: 1e-4, atol: 1e-5 };
const [B, T, S, D, H] = [2, 5, 6, 8, 4];

class Decoder extends Module {
  blocks: TransformerBlock[];

  constructor(options: AttentionOptions) {
    super();
    this.blocks = [1, 2].map(
      () =>
        new TransformerBlock({
          norm1: new LayerNorm(D),
          attention: new MultiheadAttention(D, H, { causal: true, ...options }),
          norm2: new LayerNorm(D),
          feedForward: new MLP(D, 4),
        }),
    );
  }

  forward(x: Tensor): Tensor {
    return this.blocks.reduce((y, block) => block.forward(y), x);
  }
}

onEachDevice("KVCache", (device) => {
  beforeAll(() => {
    manualSeed(3);
  });

  const rotaryGroups = { rotary: true, kvHeads: 2 };
  test.each<AttentionOptions>(device === "webgpu" ? [rotaryGroups] : [{}, rotaryGroups])(
    "prefill and one position after the other: as all at once, %o",
    async (options) => {
      const model = new Decoder(options);
      const x = randn([B, T, D]);
      const want = noGrad(() => model.forward(x));
      const cache = new KVCache(model, { batchSize: B, length: S });
      let traces = 0;
      const next = compile((x: Tensor) => {
        traces++;
        return cache.use(() => model.forward(x));
      });
      const check = async (from: number, to: number) => {
        const got = await next(x.narrow(1, from, to - from)).data();
        const rows = await want.narrow(1, from, to - from).data();
        expect(difference(got, rows, close), `${from} … ${to}`).toBeNull();
      };
      await check(0, 3);
      await check(3, 4);
      await check(4, 5);
      expect(await cache.position.item()).toBe(5);
      // One plan for the prompt, one for all single positions.
      expect(traces).toBe(2);

      cache.reset();
      await check(0, 3);
    },
  );

  test("positions are written in place: what a step writes does not grow with the cache", () => {
    if (device === "reference") return; // it has no kernels
    const m = new MultiheadAttention(D, H, { rotary: true });
    const written = [8, 800].map((length) => {
      const cache = new KVCache([m], { batchSize: B, length });
      const { kernels } = explain(
        compile((x: Tensor) => cache.use(() => m.forward(x))),
        randn([B, 1, D]),
      );
      const writing = kernels.filter((k) => k.writes.some((w) => w.reason === "new state"));
      expect(writing.length).toBeGreaterThanOrEqual(2);
      // The name ends with the elements that the kernel goes over.
      return writing.map((k) => `${k.name} ${k.flops}`);
    });
    expect(written[1]).toEqual(written[0]);
  });

  test("beyond the end is an error when it is read", async () => {
    const m = new MultiheadAttention(D, H);
    const cache = new KVCache([m], { batchSize: 1, length: 2 });
    const step = (x: Tensor) => cache.use(() => m.forward(x));
    const x = randn([1, 1, D]);
    await step(x).data();
    await step(x).data();
    await expect(step(x).data()).rejects.toThrow(IndexOutOfRangeError);
  });

  test("of given modules, with padding on the left, in half precision", async () => {
    const m = new MultiheadAttention(D, H);
    const x = randn([B, 3, D]);
    const cache = new KVCache([m], { batchSize: B, length: 3, dtype: "f16" });
    const padding = [
      [false, false, false],
      [true, false, false],
    ];
    const keyPaddingMask = tensor(padding, { dtype: "bool" });
    const step = (x: Tensor) => cache.use(() => m.forward(x, x, x, { keyPaddingMask }));
    await step(x.narrow(1, 0, 2)).data();
    const got = await step(x.narrow(1, 2, 1)).data();
    const want = m.forward(x, x, x, { keyPaddingMask, isCausal: true }).narrow(1, 2, 1);
    // Keys and values of order 1 are rounded to 11 bits.
    expect(difference(got, await want.data(), { rtol: 0, atol: 5e-3 })).toBeNull();
    expect(cache.keys[0].dtype).toBe("f16");
    // Elsewhere, and with keys from elsewhere, nothing is cached.
    const outside = m.forward(x);
    const cross = noGrad(() => cache.use(() => m.forward(x, randn([B, 4, D]))));
    expect([outside.shape, cross.shape]).toEqual([x.shape, x.shape]);
    expect(await cache.position.item()).toBe(3);
  });

  test("mistakes are named", () => {
    const m = new MultiheadAttention(D, H);
    expect(() => new KVCache(m, { batchSize: 1, length: 2 })).toThrow(/none in it/);
    const cache = new KVCache([m], { batchSize: 1, length: 2 });
    expect(() => cache.use(() => m.forward(randn([1, 3, D])))).toThrow(
      /at most 2 new positions, got 3/,
    );
    expect(() => cache.use(() => m.forward(randn([2, 1, D])))).toThrow(
      /\[1, 4, 1, 2\], got \[2, 4, 1, 2\]/,
    );
    expect(`${cache}`).toBe("KVCache(1 layers, batchSize=1, length=2, f32)");
  });
});
