/** @file LoRA: what is trained, what is saved, merging, and adapters on quantised layers. */
import { compile, manualSeed, noGrad, randn, type Tensor } from "hinode";
import {
  applyLora,
  Linear,
  LoRALinear,
  loadLoraStateDict,
  loraStateDict,
  MLP,
  Module,
  MultiheadAttention,
  mergeLora,
  optim,
  QuantizedLinear,
  quantize,
  unmergeLora,
} from "hinode/nn";
import { beforeAll, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

const close = { rtol: 1e-4, atol: 1e-5 };

class Net extends Module {
  attention = new MultiheadAttention(8, 2, { kvHeads: 1 });
  mlp = new MLP(8, 6);

  forward(x: Tensor): Tensor {
    return this.mlp.forward(this.attention.forward(x));
  }
}

const targets = ["qkv", /mlp\.(up|down)$/];

onEachDevice("LoRA", () => {
  beforeAll(() => {
    manualSeed(8);
  });

  test("a layer is the base and the product of two matrices", async () => {
    const base = new Linear(5, 4);
    const layer = new LoRALinear(base, { rank: 2, alpha: 6 });
    const x = randn([3, 5]);
    expect(
      difference(await layer.forward(x).data(), await base.forward(x).data(), close),
    ).toBeNull();
    noGrad(() => layer.loraB.assign(randn([4, 2])));
    const matrix = base.weight.add(layer.loraB.matmul(layer.loraA).mul(3));
    const want = x.matmul(matrix.T).add(base.bias!);
    expect(difference(await layer.forward(x).data(), await want.data(), close)).toBeNull();
    const middle = layer.part(x, 1, 2);
    expect(difference(await middle.data(), await want.narrow(-1, 1, 2).data(), close)).toBeNull();
  });

  test("training changes the adapters only; merged is unmerged; the adapters alone restore it", async () => {
    const model = new Net();
    const x = randn([2, 3, 8]);
    const start = await model.forward(x).data();
    const layers = applyLora(model, { targets, rank: 2, alpha: 4, dropout: 0.1 });
    expect([...layers.keys()]).toEqual(["attention.qkv", "mlp.up", "mlp.down"]);
    expect(difference(await model.forward(x).data(), start, close)).toBeNull();

    const frozen = model.stateDict();
    const before = new Map(
      await Promise.all(Object.entries(frozen).map(async ([n, t]) => [n, await t.data()] as const)),
    );
    const trained = model.parameters().filter((p) => p.requiresGrad);
    expect(trained.length).toBe(6);
    const adamw = new optim.AdamW(trained, { lr: 0.05 });
    const goal = randn([2, 3, 8]);
    const step = compile(() => {
      const loss = model.forward(x).sub(goal).square().mean();
      adamw.zeroGrad();
      loss.backward();
      adamw.step();
      return loss;
    });
    const losses: number[] = [];
    for (let i = 0; i < 8; i++) losses.push((await step().item()) as number);
    expect(losses.at(-1)).toBeLessThan(losses[0]);
    for (const [name, t] of Object.entries(model.stateDict())) {
      const same = difference(await t.data(), before.get(name)!, { rtol: 0, atol: 0 }) === null;
      expect(same, name).toBe(!/lora[AB]$/.test(name));
    }

    model.eval();
    const run = compile((x: Tensor) => model.forward(x));
    const adapted = await run(x).data();
    expect(difference(adapted, start, close)).not.toBeNull();
    mergeLora(model);
    // The compiled function notices.
    expect(difference(await run(x).data(), adapted, { rtol: 1e-3, atol: 1e-4 })).toBeNull();
    expect(
      difference(await model.forward(x).data(), adapted, { rtol: 1e-3, atol: 1e-4 }),
    ).toBeNull();
    expect(() => model.train().forward(x)).toThrow(/unmerge\(\)/);
    model.eval();
    unmergeLora(model);
    expect(difference(await run(x).data(), adapted, { rtol: 1e-3, atol: 1e-4 })).toBeNull();
    const weight = await model.stateDict()["mlp.up.base.weight"].data();
    expect(
      difference(weight, before.get("mlp.up.base.weight")!, { rtol: 1e-5, atol: 1e-6 }),
    ).toBeNull();

    const state = loraStateDict(model);
    expect(Object.keys(state)).toEqual(
      [...layers.keys()].flatMap((path) => [`${path}.loraA`, `${path}.loraB`]),
    );
    const fresh = new Net();
    applyLora(fresh, { targets, rank: 2, alpha: 4 });
    const baseOnly = Object.entries(model.stateDict()).filter(([n]) => !/lora[AB]$/.test(n));
    fresh.loadStateDict(Object.fromEntries(baseOnly), { strict: false });
    loadLoraStateDict(fresh, state);
    expect(
      difference(await fresh.forward(x).data(), adapted, { rtol: 1e-3, atol: 1e-4 }),
    ).toBeNull();
  });

  test("on quantised layers, and a second set beside the first", async () => {
    const model = new Net();
    await quantize(model, { bits: 8 });
    const x = randn([1, 2, 8]);
    const want = await model.forward(x).data();
    applyLora(model, { targets: ["up"], rank: 2 });
    const [layer] = applyLora(model, { targets: ["down"], rank: 2 }).values();
    expect(layer.base).toBeInstanceOf(QuantizedLinear);
    expect(difference(await model.forward(x).data(), want, close)).toBeNull();
    model.forward(x).square().sum().backward();
    const trained = model.parameters().filter((p) => p.requiresGrad);
    expect(trained.length).toBe(4);
    // A has no gradient while B is 0.
    expect(await layer.loraB.grad!.abs().sum().item()).toBeGreaterThan(0);
    expect(() => layer.merge()).toThrow(/float weights, got QuantizedLinear/);
  });

  test("mistakes are named", () => {
    const model = new Net();
    expect(() => applyLora(model, { targets: ["nothing"] })).toThrow(
      /attention\.qkv, attention\.out, mlp\.up, mlp\.down, got nothing/,
    );
    expect(model.parameters().every((p) => p.requiresGrad)).toBe(true);
    applyLora(model, { targets: ["up"], rank: 2 });
    expect(() => loadLoraStateDict(model, { "mlp.up.loraA": randn([2, 8]) })).toThrow(
      /missing: mlp\.up\.loraB; unexpected: none/,
    );
    expect(() => new LoRALinear(new Linear(2, 2), { rank: 0 })).toThrow(/positive integer rank/);
  });
});
