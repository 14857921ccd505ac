/** @file State dicts and files with PyTorch's names load strictly into our modules. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { manualSeed, nn, rand, randn, type Tensor, tensor } from "hinode";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { useDevice } from "../support/devices.ts";

const folder = mkdtempSync(join(tmpdir(), "hinode-names-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

class Net extends nn.Module {
  conv1 = new nn.Conv2d(1, 2, 3, { bias: false });
  bn1 = new nn.BatchNorm2d(2);
  layer1 = new nn.Sequential(new nn.Conv2d(2, 2, 1), new nn.BatchNorm2d(2));
  selfAttention = new nn.MultiheadAttention(2, 1);
  fc = new nn.Linear(2, 3);

  forward(x: Tensor): Tensor {
    const y = this.layer1.forward(this.bn1.forward(this.conv1.forward(x)).relu());
    return this.fc.forward(this.selfAttention.forward(y.flatten(2).transpose(1, 2)).mean(1));
  }
}

/** As `torch.nn.Module.state_dict()` of the same network has it, also in that order. */
const torchState = (): nn.StateDict => {
  const norm = (name: string) => ({
    [`${name}.weight`]: rand([2]),
    [`${name}.bias`]: randn([2]),
    [`${name}.running_mean`]: randn([2]),
    [`${name}.running_var`]: rand([2]).add(0.5),
    [`${name}.num_batches_tracked`]: tensor(7, { dtype: "i32" }),
  });
  return {
    "conv1.weight": randn([2, 1, 3, 3]),
    ...norm("bn1"),
    "layer1.0.weight": randn([2, 2, 1, 1]),
    "layer1.0.bias": randn([2]),
    ...norm("layer1.1"),
    "self_attention.in_proj_weight": randn([6, 2]),
    "self_attention.in_proj_bias": randn([6]),
    "self_attention.out_proj.weight": randn([2, 2]),
    "self_attention.out_proj.bias": randn([2]),
    "fc.weight": randn([3, 2]),
    "fc.bias": randn([3]),
  };
};

describe("PyTorch's names", () => {
  beforeAll(async () => {
    await useDevice("wasm");
    manualSeed(71);
  });

  test("a state dict loads, and its values arrive", async () => {
    const net = new Net();
    const state = torchState();
    expect(net.loadStateDict(state)).toEqual({ missing: [], unexpected: [] });
    expect(await net.bn1.runningVar!.data()).toEqual(await state["bn1.running_var"].data());
    expect(await (net.layer1.at(1) as nn.BatchNorm2d).numBatchesTracked!.item()).toBe(7);
    const qkv = await net.selfAttention.qkv!.weight.data();
    expect(qkv).toEqual(await state["self_attention.in_proj_weight"].data());
    // Ours and PyTorch's names may be mixed.
    const { "bn1.running_mean": mean, ...rest } = state;
    net.loadStateDict({ ...rest, "bn1.runningMean": mean });
    const other = new Net();
    other.loadStateDict(net.stateDict());
    const x = randn([1, 1, 4, 4]);
    expect(await other.eval().forward(x).data()).toEqual(await net.eval().forward(x).data());
  });

  test("what does not fit is said", () => {
    const { "bn1.running_mean": mean, ...rest } = torchState();
    expect(() => new Net().loadStateDict(rest)).toThrow(
      /missing: bn1.runningMean; unexpected: none/,
    );
    const odd = { ...rest, "bn1.running_mean": mean, "bn1.runningmean": mean };
    expect(() => new Net().loadStateDict(odd)).toThrow(/unexpected: bn1.runningmean/);
    const both = { ...rest, "bn1.running_mean": mean, "bn1.runningMean": mean };
    expect(() => new Net().loadStateDict(both)).toThrow(/unexpected: bn1.running_mean/);
    const wrong = { ...rest, "bn1.running_mean": randn([3]) };
    expect(() => new Net().loadStateDict(wrong)).toThrow(/bn1.runningMean: f32\[2\]/);
  });

  test("a file loads", async () => {
    const path = join(folder, "net.safetensors");
    const state = torchState();
    await nn.saveSafetensors(path, state);
    const net = new Net();
    expect(await nn.loadModel(path, net)).toEqual({ missing: [], unexpected: [] });
    expect(await net.bn1.runningMean!.data()).toEqual(await state["bn1.running_mean"].data());
  });

  test("a name is one tensor's, also where the other's in snake case is the same", async () => {
    class Twins extends nn.Module {
      fooBar = new nn.Linear(1, 1, { bias: false });
      foo_bar = new nn.Linear(1, 1, { bias: false });
    }
    const twins = new Twins();
    expect(() => twins.loadStateDict({ "foo_bar.weight": tensor([[2]]) })).toThrow(
      /missing: fooBar/,
    );
  });
});
