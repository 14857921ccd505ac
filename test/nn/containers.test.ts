/** @file Containers, buffers, freezing, moving, and the text of a module tree. */
import { compile, ones, rand, type Tensor, tensor, zeros } from "hinode";
import {
  buffer,
  Dropout,
  Linear,
  Module,
  ModuleDict,
  ModuleList,
  MultiheadAttention,
  optim,
  ParameterList,
  parameter,
  Sequential,
} from "hinode/nn";
import { describe, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";

class Net extends Module {
  blocks = new ModuleList([1, 2, 3].map(() => new Linear(2, 2, { bias: false })));
  heads = new ModuleDict({ small: new Linear(2, 1), large: new Linear(2, 3) });
  scales = new ParameterList([ones([1]), parameter(ones([2]))]);
  /** Not in the state dict. */
  mask = buffer(ones([2]), { persistent: false });
  mean = buffer(zeros([2]));
  forward(x: Tensor, head = "small"): Tensor {
    for (const block of this.blocks) x = block.forward(x);
    return this.heads.get(head).forward(x.mul(this.mask)).mul(this.scales.at(0));
  }
}

/** Structure in plain values. */
class Plain extends Module {
  grid = [[new Linear(1, 1, { bias: false })], [parameter(ones([1]))]];
  named = { a: new Linear(1, 1, { bias: false }), sizes: [1, 2] };
  byKey = new Map([["x", parameter(zeros([1]))]]);
  empty = null;
}

onEachDevice("containers", (device) => {
  test("names are PyTorch's", () => {
    const net = new Net();
    expect([...net.namedParameters()].map(([name]) => name)).toEqual([
      "blocks.0.weight",
      "blocks.1.weight",
      "blocks.2.weight",
      "heads.small.weight",
      "heads.small.bias",
      "heads.large.weight",
      "heads.large.bias",
      "scales.0",
      "scales.1",
    ]);
    expect(
      [...new Sequential(new Linear(1, 1), new Dropout()).namedModules()].map(([n]) => n),
    ).toEqual(["", "0", "1"]);
    expect(net.forward(ones([4, 2]), "large").shape).toEqual([4, 3]);
  });

  test("arrays, plain objects and maps count, however deep", () => {
    const plain = new Plain();
    expect([...plain.namedTensors()].map(([name]) => name)).toEqual([
      "grid.1.0",
      "byKey.x",
      "grid.0.0.weight",
      "named.a.weight",
    ]);
    expect(plain.parameters().length).toBe(4);
  });

  test("lists and dicts behave as such", () => {
    const list = new ModuleList([new Dropout(0.1)]);
    expect(list.append(new Dropout(0.2)).length).toBe(2);
    expect(list.at(-1).p).toBe(0.2);
    expect([...list].map((m) => m.p)).toEqual([0.1, 0.2]);
    expect(() => list.at(2)).toThrow(/within 2 items, got 2/);
    const dict = new ModuleDict<Dropout>();
    expect(dict.set("a", new Dropout(0.3)).has("a")).toBe(true);
    expect([...dict].map(([name, m]) => [name, m.p])).toEqual([["a", 0.3]]);
    expect([dict.size, [...dict.keys()], [...dict.values()].length]).toEqual([1, ["a"], 1]);
    expect(() => dict.get("b")).toThrow(/one of a, got b/);
    expect(dict.delete("a")).toBe(true);
    expect(new ParameterList().append(ones([2])).parameters()[0].requiresGrad).toBe(true);
  });

  test("buffers: in the state dict unless they are not to be", async () => {
    const net = new Net();
    expect([...net.namedBuffers()].map(([name]) => name)).toEqual(["mask", "mean"]);
    expect(net.buffers()).toEqual([net.mask, net.mean]);
    expect(Object.keys(net.stateDict())).not.toContain("mask");
    expect(Object.keys(net.stateDict())).toContain("mean");
    const { mean: _, ...partial } = net.stateDict();
    expect(net.loadStateDict({ ...partial, more: ones([1]) }, { strict: false })).toEqual({
      missing: ["mean"],
      unexpected: ["more"],
    });
  });

  test("walks: children, modules, apply, getSubmodule", () => {
    const net = new Net();
    expect(net.children()).toEqual([net.blocks, net.heads, net.scales]);
    expect(net.modules().length).toBe(1 + 3 + 3 + 2);
    const order: string[] = [];
    net.heads.apply((m) => order.push(m.constructor.name));
    expect(order).toEqual(["Linear", "Linear", "ModuleDict"]);
    expect(net.getSubmodule("heads.large")).toBe(net.heads.get("large"));
    expect(() => net.getSubmodule("heads.huge")).toThrow(/one of blocks, .*heads\.large.*huge/);
  });

  test("freezing, counting, forgetting gradients", async () => {
    const net = new Net();
    net.blocks.requiresGrad_(false);
    expect(net.numParameters()).toBe(12 + 3 + 9 + 3);
    expect(net.numParameters({ trainable: true })).toBe(3 + 9 + 3);
    net
      .forward(ones([1, 2]))
      .sum()
      .backward();
    const frozen = net.blocks.at(0).weight;
    expect(frozen.grad).toBeNull();
    expect(await net.heads.get("small").bias!.grad!.tolist()).toEqual([1]);
    net.zeroGrad();
    expect(net.heads.get("small").bias!.grad).toBeNull();
    net.requiresGrad_();
    expect(frozen.requiresGrad).toBe(true);
    expect(net.blocks.at(1).weight.name).toBe("blocks.1.weight");
  });

  test("a compiled step is traced again when a layer is frozen", async () => {
    const [a, b] = [new Linear(1, 1, { bias: false }), new Linear(1, 1, { bias: false })];
    const net = new Sequential(a, b);
    const step = compile((x: Tensor) => {
      net.zeroGrad();
      net.forward(x).sum().backward();
    });
    await step(ones([1, 1]));
    expect(a.weight.grad).not.toBeNull();
    a.requiresGrad_(false);
    await step(ones([1, 1]));
    expect(a.weight.grad).toBeNull();
    expect(b.weight.grad).not.toBeNull();
  });

  test("moving to another device, and training there", async () => {
    const net = new Sequential(new Linear(2, 3), new Linear(3, 1));
    const x = rand([4, 2]);
    const want = await net.forward(x).data();
    const other = device === "wasm" ? "reference" : "wasm";
    expect(await net.to(other)).toBe(net);
    const there = await x.to(other);
    const got = await net.forward(there).data();
    for (const [i, v] of got.entries()) expect(v).toBeCloseTo(want[i], 5);
    const sgd = new optim.SGD(net.parameters(), { lr: 0.1 });
    net.forward(there).sum().backward();
    sgd.step();
    const [weight] = net.parameters();
    expect([weight.device, weight.requiresGrad, weight.grad?.device]).toEqual([other, true, other]);
    expect(await net.forward(there).data()).not.toEqual(got);
  });

  test("another dtype: floats only, and compiled functions follow", async () => {
    class Counted extends Module {
      weight = parameter(tensor([1.5]));
      count = tensor([3], { dtype: "i32" });
      forward(x: Tensor): Tensor {
        return x.mul(this.weight);
      }
    }
    const net = new Counted();
    expect(() => net.to("i32")).toThrow(/Counted\.to: expected a float dtype, got i32/);
    const run = compile((x: Tensor) => net.forward(x));
    const third = tensor([1 / 3]);
    expect(await run(third).item()).toBe(0.5);
    net.weight.grad = ones([1]);
    expect(net.to("bf16")).toBe(net);
    expect([net.weight.dtype, net.count.dtype, net.weight.grad]).toEqual(["bf16", "i32", null]);
    expect(run(third.to("bf16")).dtype).toBe("bf16");
    net
      .forward(ones([1], { dtype: "bf16" }))
      .float()
      .sum()
      .backward();
    expect(net.weight.grad!.dtype).toBe("bf16");
    expect(await net.to("f32").forward(third).item()).toBe(0.5);
  });
});

describe("text", () => {
  test("a tree of modules as PyTorch prints it", () => {
    class Model extends Module {
      embed = new Sequential(new Linear(4, 8), (x) => x.relu(), new Dropout(0.1));
      blocks = [1, 2, 3].map(() => new MultiheadAttention(8, 2, { bias: false }));
      scale = parameter(ones([8]));
      readonly width = 8;
    }
    expect(String(new Model())).toBe(`\
Model(
  scale=f32[8], width=8
  (embed): Sequential(
    (0): Linear(inFeatures=4, outFeatures=8, bias=true)
    (2): Dropout(p=0.1)
  )
  (blocks.0-2): 3 x MultiheadAttention(
    heads=2, kvHeads=2, causal=false, dropout=0
    (qkv): Linear(inFeatures=8, outFeatures=24, bias=false)
    (out): Linear(inFeatures=8, outFeatures=8, bias=false)
  )
)`);
    expect(String(new Net())).toContain(
      "(0-2): 3 x Linear(inFeatures=2, outFeatures=2, bias=false)",
    );
  });

  test("a module that refers back to one above it", () => {
    class Child extends Module {
      parent: Module;
      constructor(parent: Module) {
        super();
        this.parent = parent;
      }
    }
    class Parent extends Module {
      child = new Child(this);
    }
    expect(String(new Parent())).toBe(
      "Parent(\n  (child): Child(\n    (parent): Parent(…)\n  )\n)",
    );
  });
});
