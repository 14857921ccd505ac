import { compile, init, manualSeed, ones, type Tensor, tensor, zeros } from "hinode";
import {
  Dropout,
  init as initial,
  isParameter,
  LayerNorm,
  Linear,
  Module,
  optim,
  parameter,
  Sequential,
} from "hinode/nn";
import { beforeAll, describe, expect, test } from "vitest";
import { devices } from "../support/devices.ts";

class Block extends Module {
  norm = new LayerNorm(4);
  linear = new Linear(4, 4, { bias: false });
  forward(x: Tensor): Tensor {
    return x.add(this.linear.forward(this.norm.forward(x)));
  }
}

class Net extends Module {
  blocks = [new Block(), new Block()];
  head = new Linear(4, 2);
  scale = parameter(ones([1]));
  /** A buffer: in the state dict, no parameter. */
  count = zeros([1]);
  readonly width = 4;
  forward(x: Tensor): Tensor {
    for (const block of this.blocks) x = block.forward(x);
    return this.head.forward(x).mul(this.scale);
  }
}

describe.each(devices)("Module on %s", (device) => {
  beforeAll(async () => {
    await init({ device });
    manualSeed(1);
  });

  test("names are paths of fields, a module's own tensors before those of its parts", () => {
    const net = new Net();
    expect([...net.namedParameters()].map(([name]) => name)).toEqual([
      "scale",
      "blocks.0.norm.weight",
      "blocks.0.norm.bias",
      "blocks.0.linear.weight",
      "blocks.1.norm.weight",
      "blocks.1.norm.bias",
      "blocks.1.linear.weight",
      "head.weight",
      "head.bias",
    ]);
    expect(Object.keys(net.stateDict())).toContain("count");
    expect(isParameter(net.count)).toBe(false);
    expect([...net.namedModules()].map(([name]) => name)).toContain("blocks.1.linear");
  });

  test("a shared parameter is one parameter under its first name, and every path is in the state dict", () => {
    class Tied extends Module {
      a = new Linear(2, 2, { bias: false });
      b = new Linear(2, 2, { bias: false });
    }
    const tied = new Tied();
    tied.b.weight = tied.a.weight;
    expect([...tied.namedParameters()].map(([name]) => name)).toEqual(["a.weight"]);
    expect(Object.keys(tied.stateDict())).toEqual(["a.weight", "b.weight"]);
  });

  test("the state dict is a snapshot, and loading restores it", async () => {
    const net = new Net();
    const x = tensor([[1, -2, 3, 0.5]]);
    const before = await net.forward(x).data();
    const state = net.stateDict();
    const sgd = new optim.SGD(net.parameters(), { lr: 0.5 });
    net.forward(x).sum().backward();
    sgd.step();
    expect(await net.forward(x).data()).not.toEqual(before);
    net.loadStateDict(state);
    expect(await net.forward(x).data()).toEqual(before);
    const other = new Net();
    other.loadStateDict(state);
    expect(await other.forward(x).data()).toEqual(before);
  });

  test("loading names what is missing, unexpected, or of another shape, and then changes nothing", async () => {
    const net = new Net();
    const before = await net.scale.item();
    const { scale: _, ...missing } = net.stateDict();
    expect(() => net.loadStateDict({ ...missing, extra: ones([1]) })).toThrow(
      /missing: scale; unexpected: extra/,
    );
    expect(() => net.loadStateDict({ ...net.stateDict(), scale: ones([2]) })).toThrow(
      /scale: f32\[1\], got f32\[2\]/,
    );
    expect(await net.scale.item()).toBe(before);
    net.loadStateDict({ scale: ones([1]).mul(3), extra: ones([1]) }, { strict: false });
    expect(await net.scale.item()).toBe(3);
  });

  test("train and eval reach every module; a compiled function follows them", async () => {
    const net = new Sequential(new Linear(8, 8), new Dropout(0.5));
    const run = compile((x: Tensor) => net.forward(x));
    const x = ones([4, 8]);
    const evaluated = await net.eval().forward(x).data();
    expect(await run(x).data()).toEqual(evaluated);
    net.train();
    const trained = await run(x).data();
    expect(trained.some((v) => v === 0)).toBe(true);
    net.eval();
    expect(await run(x).data()).toEqual(evaluated);
  });

  test("an error names the path of the module in which it happened", () => {
    const net = new Net();
    net.blocks[1].linear.weight = initial.ones([4, 5]);
    expect(() => net.forward(ones([1, 4]))).toThrow(/in blocks\.1\.linear \(Linear\) of Net/);
    expect(() => net.head.forward(ones([1, 3]))).toThrow(/in forward \(Linear\) of Linear/);
  });
});
