/** @file Losses as modules: each is its function with the options given once; the functions are also in `nn`. */
import * as hinode from "hinode";
import { compile, manualSeed, nn, ones, rand, randn, type Tensor, tensor } from "hinode";
import { beforeAll, expect, test } from "vitest";
import { onEachDevice } from "../support/devices.ts";

onEachDevice("loss modules", () => {
  let a: Tensor, b: Tensor, p: Tensor, q: Tensor, classes: Tensor, signs: Tensor;
  beforeAll(() => {
    manualSeed(5);
    [a, b, p, q] = [randn([4, 3]), randn([4, 3]), rand([4, 3]), rand([4, 3]).add(0.5)];
    classes = tensor([0, 2, 1, 1], { dtype: "i32" });
    signs = tensor([1, -1, 1, -1]);
  });

  const sum = { reduction: "sum" } as const;
  const weight = () => tensor([1, 2, 3]);
  const labels = () => tensor([[0, -1, 0], [2, 1, -1], [1, -1, -1], [0, 2, -1]], { dtype: "i32" }); // biome-ignore format: rows
  const twoLabels = () => tensor([1, 0], { dtype: "i32" });
  const cases: [string, () => [Tensor, Tensor]][] = [
    [
      "CrossEntropyLoss",
      () => [
        new nn.CrossEntropyLoss({ labelSmoothing: 0.1, weight: weight() }).forward(a, classes),
        nn.crossEntropy(a, classes, { labelSmoothing: 0.1, weight: weight() }),
      ],
    ],
    ["NLLLoss", () => [new nn.NLLLoss(sum).forward(a, classes), nn.nllLoss(a, classes, sum)]],
    ["MSELoss", () => [new nn.MSELoss().forward(a, b), nn.mseLoss(a, b)]],
    ["L1Loss", () => [new nn.L1Loss(sum).forward(a, b), nn.l1Loss(a, b, sum)]],
    [
      "SmoothL1Loss",
      () => [
        new nn.SmoothL1Loss({ beta: 0.5 }).forward(a, b),
        nn.smoothL1Loss(a, b, { beta: 0.5 }),
      ],
    ],
    [
      "HuberLoss",
      () => [new nn.HuberLoss({ delta: 0.5 }).forward(a, b), nn.huberLoss(a, b, { delta: 0.5 })],
    ],
    ["BCELoss", () => [new nn.BCELoss(sum).forward(p, p), nn.binaryCrossEntropy(p, p, sum)]],
    [
      "BCEWithLogitsLoss",
      () => [
        new nn.BCEWithLogitsLoss({ posWeight: weight() }).forward(a, p),
        nn.binaryCrossEntropyWithLogits(a, p, { posWeight: weight() }),
      ],
    ],
    [
      "KLDivLoss",
      () => [
        new nn.KLDivLoss({ reduction: "batchmean" }).forward(a, p),
        nn.klDiv(a, p, { reduction: "batchmean" }),
      ],
    ],
    ["PoissonNLLLoss", () => [new nn.PoissonNLLLoss().forward(a, p), nn.poissonNllLoss(a, p)]],
    [
      "GaussianNLLLoss",
      () => [
        new nn.GaussianNLLLoss({ full: true }).forward(a, b, q),
        nn.gaussianNllLoss(a, b, q, { full: true }),
      ],
    ],
    [
      "CosineEmbeddingLoss",
      () => [
        new nn.CosineEmbeddingLoss({ margin: 0.2 }).forward(a, b, signs),
        nn.cosineEmbeddingLoss(a, b, signs, { margin: 0.2 }),
      ],
    ],
    [
      "MarginRankingLoss",
      () => [
        new nn.MarginRankingLoss().forward(a.select(1, 0), b.select(1, 0), signs),
        nn.marginRankingLoss(a.select(1, 0), b.select(1, 0), signs),
      ],
    ],
    [
      "TripletMarginLoss",
      () => [
        new nn.TripletMarginLoss({ swap: true }).forward(a, b, p),
        nn.tripletMarginLoss(a, b, p, { swap: true }),
      ],
    ],
    [
      "HingeEmbeddingLoss",
      () => [
        new nn.HingeEmbeddingLoss({ margin: 2 }).forward(a.select(1, 0), signs),
        nn.hingeEmbeddingLoss(a.select(1, 0), signs, { margin: 2 }),
      ],
    ],
    [
      "SoftMarginLoss",
      () => [
        new nn.SoftMarginLoss(sum).forward(a.select(1, 0), signs),
        nn.softMarginLoss(a.select(1, 0), signs, sum),
      ],
    ],
    [
      "MultiMarginLoss",
      () => [
        new nn.MultiMarginLoss({ p: 2, weight: weight() }).forward(a, classes),
        nn.multiMarginLoss(a, classes, { p: 2, weight: weight() }),
      ],
    ],
    [
      "MultiLabelMarginLoss",
      () => [
        new nn.MultiLabelMarginLoss(sum).forward(a, labels()),
        nn.multilabelMarginLoss(a, labels(), sum),
      ],
    ],
    [
      "MultiLabelSoftMarginLoss",
      () => [
        new nn.MultiLabelSoftMarginLoss({ weight: weight() }).forward(a, p),
        nn.multilabelSoftMarginLoss(a, p, { weight: weight() }),
      ],
    ],
    [
      "TripletMarginWithDistanceLoss",
      () => [
        new nn.TripletMarginWithDistanceLoss({ margin: 2 }).forward(a, b, p),
        nn.tripletMarginWithDistanceLoss(a, b, p, { margin: 2 }),
      ],
    ],
    [
      "CTCLoss",
      () => [
        new nn.CTCLoss({ blank: 2 }).forward(a.logSoftmax(1), twoLabels(), [4], [2]),
        nn.ctcLoss(a.logSoftmax(1), twoLabels(), [4], [2], { blank: 2 }),
      ],
    ],
  ];

  test.each(cases)("%s is its function", async (_, pair) => {
    const [module, direct] = pair();
    const [got, want] = [await module.item(), await direct.item()];
    expect(Number.isFinite(want)).toBe(true);
    expect(got).toBe(want);
  });

  test("every loss function has its module", () => {
    const functions = Object.keys(hinode).filter((name) => /Loss$|^klDiv$|[eE]ntropy/.test(name));
    expect(functions.length).toBe(cases.length);
  });

  test("is a module: a name, options, buffers, hooks, a compiled step", async () => {
    const loss = new nn.CrossEntropyLoss({ weight: weight(), reduction: "sum" });
    expect(loss).toBeInstanceOf(nn.Loss);
    expect(String(loss)).toBe("CrossEntropyLoss(weight=f32[3], reduction=sum)");
    expect(Object.keys(loss.stateDict())).toEqual(["weight"]);
    expect(loss.parameters()).toEqual([]);
    const run = compile((x: Tensor) => loss.forward(x, classes));
    const before = await run(a).item();
    loss.registerForwardHook((_, __, y) => y.mul(2));
    expect(await run(a).item()).toBeCloseTo(2 * Number(before), 4);
    expect(() => loss.forward(a, ones([4, 3, 1]))).toThrow(/in forward \(CrossEntropyLoss\)/);
    // @ts-expect-error: no option of this loss
    void new nn.MSELoss({ labelSmoothing: 1 });
  });
});
