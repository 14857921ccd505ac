/** @file Hooks of modules and of tensors: when they run, what they may replace, and what compile makes of them. */
import {
  checkpoint,
  compile,
  grad,
  gradients,
  jvp,
  manualSeed,
  noGrad,
  ones,
  randn,
  scan,
  type Tensor,
  tensor,
  vmap,
} from "hinode";
import { Linear, Module, parameter, Sequential } from "hinode/nn";
import { beforeAll, describe, expect, test } from "vitest";
import { difference } from "../support/close.ts";
import { onEachDevice } from "../support/devices.ts";

/** x · scale, in which a gradient is easy to follow. */
class Scale extends Module {
  scale: Tensor;
  constructor(value: number) {
    super();
    this.scale = parameter(tensor(value));
  }
  forward(x: Tensor): Tensor {
    return x.mul(this.scale);
  }
}

/** Calls super.forward. */
class Shifted extends Scale {
  override forward(x: Tensor): Tensor {
    return super.forward(x).add(1);
  }
}

/** Two arguments, an option, two results. */
class Pair extends Module {
  forward(a: Tensor, b: Tensor, options: { flip?: boolean } = {}): { sum: Tensor; first: Tensor } {
    const [x, y] = options.flip ? [b, a] : [a, b];
    return { sum: x.add(y.mul(2)), first: x };
  }
}

onEachDevice("hooks", () => {
  beforeAll(() => {
    manualSeed(3);
  });

  describe("of forward", () => {
    test("see arguments and result in order, may replace both, and go with their handle", async () => {
      const module = new Scale(3);
      const log: string[] = [];
      const handles = [
        module.registerForwardPreHook((m, [x]) => {
          log.push(`pre ${m === module} ${x.shape}`);
          return x.add(1); // A single value stands for [value].
        }),
        module.registerForwardPreHook((_, [x]) => [x.add(1)]),
        module.registerForwardHook((_, [x], y) => {
          log.push(`post ${x.shape} ${y.shape}`);
          return y.mul(10);
        }),
        module.registerForwardHook(() => {
          log.push("only looks");
        }),
      ];
      const x = tensor([1, 2]);
      expect(await module.forward(x).tolist()).toEqual([90, 120]);
      expect(log).toEqual(["pre true 2", "post 2 2", "only looks"]);
      handles[2].remove();
      handles[2].remove();
      expect(await module.forward(x).tolist()).toEqual([9, 12]);
      for (const handle of handles) handle.remove();
      expect(await module.forward(x).tolist()).toEqual([3, 6]);
    });

    test("run once when forward calls super.forward, and end with `using`", async () => {
      const module = new Shifted(2);
      let calls = 0;
      {
        using _ = module.registerForwardHook(() => {
          calls++;
        });
        expect(await module.forward(tensor(5)).item()).toBe(11);
      }
      module.forward(tensor(5));
      expect(calls).toBe(1);
    });

    test("an error in a hook, or behind it, names the module", () => {
      const net = new Sequential(new Scale(1), new Linear(2, 2));
      net.getSubmodule("1").registerForwardPreHook(() => ones([3]));
      expect(() => net.forward(ones([2]))).toThrow(/in 1 \(Linear\) of Sequential/);
    });

    test("a compiled function is traced again when a hook comes or goes, and not otherwise", async () => {
      const module = new Scale(2);
      let traces = 0;
      const run = compile((x: Tensor) => {
        traces++;
        return module.forward(x);
      });
      const x = tensor([1, 2]);
      const plain = async () => expect(await run(x).tolist()).toEqual([2, 4]);
      await plain();
      const handle = module.registerForwardHook((_, __, y) => y.add(1));
      for (let i = 0; i < 2; i++) expect(await run(x).tolist()).toEqual([3, 5]);
      expect(traces).toBe(2);
      handle.remove();
      await plain();
      expect(traces).toBe(2);
      const inside = compile((y: Tensor) => {
        module.registerForwardHook(() => {});
        return y;
      });
      expect(() => inside(x)).toThrow(/outside of compile/);
    });

    test("mistakes are named", () => {
      class Field extends Module {
        forward = (x: Tensor) => x;
      }
      expect(() => new Field().registerForwardHook(() => {})).toThrow(/a field, which hooks/);
      // @ts-expect-error: no function
      expect(() => new Scale(1).registerForwardHook(3)).toThrow(/a function/);
    });
  });

  describe("of the gradient", () => {
    const values = (gradients: readonly (Tensor | null)[]) =>
      Promise.all(gradients.map((g) => g?.tolist()));

    test("see it at the results and at the arguments, and may replace it", async () => {
      const module = new Scale(3);
      const x = tensor([1, 2], { requiresGrad: true });
      const seen: (readonly (Tensor | null)[])[] = [];
      module.registerFullBackwardPreHook((_, [g]) => [g!.mul(10)]);
      module.registerFullBackwardHook((m, gradInput, gradOutput) => {
        expect(m).toBe(module);
        seen.push(gradInput, gradOutput);
        return [gradInput[0]!.add(1)];
      });
      module
        .forward(x)
        .mul(tensor([1, 2]))
        .sum()
        .backward();
      expect(await values(seen[0])).toEqual([[30, 60]]);
      expect(await values(seen[1])).toEqual([[10, 20]]);
      expect(await x.grad!.tolist()).toEqual([31, 61]);
      // The parameter's gradient has passed the first hook alone.
      expect(await module.scale.grad!.item()).toBe(10 * 1 + 20 * 2);
    });

    test("of data there is none: the hook of a first layer is called all the same", async () => {
      const net = new Sequential(new Linear(2, 3), new Linear(3, 1));
      const calls: string[] = [];
      for (const [name, module] of net.namedChildren())
        module.registerFullBackwardHook((_, gradInput, gradOutput) => {
          calls.push(`${name}: ${gradInput.map((g) => g?.shape)} ← ${gradOutput[0]!.shape}`);
        });
      net
        .forward(ones([4, 2]))
        .sum()
        .backward();
      expect(calls).toEqual(["1: 4,3 ← 4,1", "0:  ← 4,3"]);
      await net.parameters()[0].grad!.data();
    });

    test("several arguments and results, in trees; what has no gradient is null", async () => {
      const module = new Pair();
      const [a, b] = [tensor([1, 1], { requiresGrad: true }), tensor([2, 2])];
      let given: readonly (Tensor | null)[] = [];
      let outputs: readonly (Tensor | null)[] = [];
      module.registerFullBackwardHook((_, gradInput, gradOutput) => {
        [given, outputs] = [gradInput, gradOutput];
      });
      const { sum, first } = module.forward(a, b, { flip: true });
      expect(await first.tolist()).toEqual([2, 2]);
      sum.sum().backward();
      expect(await values(given)).toEqual([[2, 2], undefined]);
      expect(await values(outputs)).toEqual([
        [1, 1],
        [0, 0],
      ]);
      expect(await a.grad!.tolist()).toEqual([2, 2]);
    });

    test("is complete when several paths meet, and differentiable", async () => {
      const module = new Scale(2);
      const calls: Tensor[] = [];
      module.registerFullBackwardPreHook((_, [g]) => {
        calls.push(g!);
      });
      const x = tensor([3], { requiresGrad: true });
      const y = module.forward(x);
      const [first] = gradients(y.square().add(y).sum(), x, { createGraph: true });
      expect(calls.length).toBe(1);
      expect(await calls[0].tolist()).toEqual([13]); // 2y + 1
      const [second] = gradients(first!, x);
      expect(await second!.tolist()).toEqual([8]); // d²/dx² (2x)² + 2x
    });

    test("under compile, checkpoint, grad and vmap", async () => {
      const module = new Scale(2);
      module.registerFullBackwardHook((_, [g]) => (g ? [g.mul(5)] : undefined));
      const f = (x: Tensor) => module.forward(x).square().sum();
      const x = tensor([1, 2]);
      const want = [40, 80];
      expect(await grad(f)(x).tolist()).toEqual(want);
      expect(await compile(grad(f))(x).tolist()).toEqual(want);
      expect(await grad((z: Tensor) => checkpoint(f)(z))(x).tolist()).toEqual(want);
      expect(await vmap(grad(f))(x.unsqueeze(0)).tolist()).toEqual([want]);
      const outer = grad((z: Tensor) => vmap(f)(z).sum())(x.unsqueeze(0));
      expect(await outer.tolist()).toEqual([want]);
    });

    test("in a loop: at each step of it", async () => {
      const module = new Scale(2);
      module.registerFullBackwardHook((_, [g]) => (g ? [g.mul(3)] : undefined));
      const step = (c: Tensor) => module.forward(c).sin();
      const looped = (x: Tensor) =>
        scan((c: Tensor, y: Tensor): [Tensor, Tensor] => [step(c), y], x, ones([3]))[0].sum();
      const written = (x: Tensor) => step(step(step(x))).sum();
      const x = tensor([0.1, 0.2]);
      const want = await grad(written)(x).data();
      expect(difference(await grad(looped)(x).data(), want, { rtol: 1e-5, atol: 0 })).toBeNull();
      expect(await jvp(written, [x], [ones([2])])[0].item()).toBe(await written(x).item());
    });

    test("cost no kernel and change no bit when they only look", async () => {
      const net = new Sequential(new Linear(3, 4), new Linear(4, 2));
      const x = randn([5, 3]);
      const step = () => {
        net.zeroGrad();
        net.forward(x).square().sum().backward();
        return Promise.all(net.parameters().map((p) => p.grad!.data()));
      };
      const before = await step();
      net.apply((m) => void m.registerFullBackwardHook(() => {}));
      expect(await step()).toEqual(before);
    });

    test("what a hook returns is checked", () => {
      const x = tensor([1, 2], { requiresGrad: true });
      const broken = (result: unknown) => () => {
        const module = new Scale(1);
        module.registerFullBackwardHook(() => result as Tensor[]);
        module.forward(x).sum().backward();
      };
      expect(broken([ones([3])])).toThrow(/a gradient f32\[2\] from the hook, got f32\[3\]/);
      expect(broken([])).toThrow(/an array of 1 gradients/);
      expect(broken([3])).toThrow(/returns a tensor or nothing/);
    });
  });

  describe("of tensors", () => {
    test("of a leaf: before the gradient is accumulated, at every backward, after every step", async () => {
      const w = parameter(tensor([1, 2]));
      const handle = w.registerHook((g) => g.mul(10));
      w.registerHook((g) => g.add(1));
      for (let i = 0; i < 2; i++) w.mul(3).sum().backward();
      expect(await w.grad!.tolist()).toEqual([62, 62]);
      noGrad(() => w.assign(w.mul(2)));
      handle.remove();
      w.grad = null;
      w.square().sum().backward();
      expect(await w.grad!.tolist()).toEqual([5, 9]);
      expect(await gradients(w.sum(), w)[0]!.tolist()).toEqual([2, 2]);
    });

    test("of a result: the whole gradient, also of uses before the registration", async () => {
      const x = tensor([1, 2], { requiresGrad: true });
      const y = x.mul(2);
      const loss = y.square().sum().add(y.sum());
      let seen: Tensor | undefined;
      const handle = y.registerHook((g) => {
        seen = g;
        return g.mul(0);
      });
      loss.backward();
      expect(await seen!.tolist()).toEqual([5, 9]);
      expect(await x.grad!.tolist()).toEqual([0, 0]);
      handle.remove();
      loss.backward();
      expect(await x.grad!.tolist()).toEqual([10, 18]);
    });

    test("of a view that changes nothing: not the other tensor's", async () => {
      const x = tensor([1, 2], { requiresGrad: true });
      const same = x.reshape([2]);
      same.registerHook((g) => g.mul(10));
      x.sum().add(same.sum()).backward();
      expect(await x.grad!.tolist()).toEqual([11, 11]);
    });

    test("inside transforms", async () => {
      const f = (x: Tensor) => {
        const y = x.square();
        y.registerHook((g) => g.mul(3));
        return y.sum();
      };
      const x = tensor([1, 2]);
      expect(await grad(f)(x).tolist()).toEqual([6, 12]);
      expect(await grad((z: Tensor) => checkpoint(f)(z))(x).tolist()).toEqual([6, 12]);
      const batch = x.unsqueeze(0);
      expect(await vmap(grad(f))(batch).tolist()).toEqual([[6, 12]]);
      expect(await grad((z: Tensor) => vmap(f)(z).sum())(batch).tolist()).toEqual([[6, 12]]);
    });

    test("a checkpoint does not call a parameter's hook twice", async () => {
      const w = parameter(tensor([1, 2]));
      w.registerHook((g) => g.add(1));
      const x = ones([2]);
      checkpoint((z: Tensor) => z.mul(w).mul(w))(x)
        .sum()
        .backward();
      expect(await w.grad!.tolist()).toEqual([3, 5]);
    });

    test("compiled: hooks of parameters take part in the signature", async () => {
      const w = parameter(tensor([1, 2]));
      let traces = 0;
      const step = compile((x: Tensor) => {
        traces++;
        w.grad = null;
        const y = w.mul(x);
        y.registerHook((g) => g.mul(2));
        y.sum().backward();
        return w.grad!;
      });
      const run = async () => await step(ones([2])).tolist();
      expect(await run()).toEqual([2, 2]);
      const handle = w.registerHook((g) => g.add(1));
      expect(await run()).toEqual([3, 3]);
      expect(await run()).toEqual([3, 3]);
      handle.remove();
      expect(await run()).toEqual([2, 2]);
      expect(traces).toBe(2);
      const inside = compile((x: Tensor) => {
        x.registerHook(() => {});
        return x;
      });
      expect(() => inside(ones([2]))).toThrow(/before the call/);
    });

    test("mistakes are named", () => {
      expect(() => tensor([1], { dtype: "i32" }).registerHook(() => {})).toThrow(/a float tensor/);
      const x = tensor([1], { requiresGrad: true });
      x.registerHook(() => ones([2]));
      expect(() => x.sum().backward()).toThrow(/a gradient f32\[1\]/);
    });
  });
});
