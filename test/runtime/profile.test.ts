/** @file profile(): what it counts, times and prints, on each device, and that it is off at any other time. */
import {
  ArgumentError,
  compile,
  defaultDevice,
  explain,
  init,
  layerNorm,
  manualSeed,
  type Profile,
  profile,
  rand,
  realize,
  scan,
  type Tensor,
  tensor,
} from "hinode";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { observe, observer, type RunTime } from "../../core/backend/observe.ts";
import { requestGpu } from "../../core/backend/webgpu/adapter.ts";
import { WebGpuBackend } from "../../core/backend/webgpu/backend.ts";
import { DispatchTimer } from "../../core/backend/webgpu/timing.ts";
import { Device, registerDevice } from "../../core/device.ts";
import { resolutionOf, typical } from "../../core/profile.ts";
import { devices, onEachDevice } from "../support/devices.ts";

const settings = { warmup: 1, runs: 3 };

interface Event {
  readonly name: string;
  readonly ph: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts: number;
  readonly dur: number;
  readonly args?: Readonly<Record<string, unknown>>;
}

const eventsOf = (report: Profile): Event[] => JSON.parse(report.chromeTrace()).traceEvents;
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

afterEach(() => expect(observer).toBeNull());

onEachDevice("profile", (device) => {
  let x: Tensor;
  let w: Tensor;
  beforeAll(async () => {
    x = rand([8, 16]);
    w = rand([16, 8]);
    await realize(x, w);
  });

  test("adds up", async () => {
    const step = compile((t: Tensor) => layerNorm(t.matmul(w).gelu(), [8]).sum(0));
    const report = await profile(() => [step(x), x.softmax(-1)], settings);
    expect(report.kernels.length).toBeGreaterThanOrEqual(2);
    const times = report.kernels.map((k) => k.milliseconds!);
    expect(times.every((t) => t >= 0)).toBe(true);
    expect(times).toEqual(times.toSorted((a, b) => b - a));
    expect(sum(times)).toBeCloseTo(report.kernelMilliseconds!, 9);
    expect(sum(report.kernels.map((k) => k.share!))).toBeCloseTo(1, 9);
    expect(sum(report.kernels.map((k) => k.calls))).toBe(report.calls);
    expect(sum(report.kernels.map((k) => k.calls * k.bytes))).toBe(report.bytes);
    expect(sum(report.kernels.map((k) => k.calls * k.flops))).toBe(report.flops);
    expect(report.flops).toBeGreaterThan(2 * 8 * 16 * 8);
    expect(report.runs).toBe(3);
    expect(report.hostMilliseconds).toBeLessThanOrEqual(report.milliseconds);
    expect(report.hostMilliseconds).toBeGreaterThan(0);
    expect(report.kernels.every((k) => k.device === device && k.roofline === null)).toBe(true);
  });

  test.skipIf(device === "reference")("names kernels as explain does", async () => {
    const step = compile((t: Tensor) => t.matmul(w).softmax(-1).mul(2));
    const report = await profile(() => step(x), settings);
    const named = (k: { kind: string; name: string; bytes: number; flops: number }) =>
      [k.kind, k.name, k.bytes, k.flops].join(" ");
    const expected = explain(step, x);
    expect(report.kernels.map(named).sort()).toEqual(expected.kernels.map(named).sort());
    expect(report).toMatchObject({ bytes: expected.bytes, flops: expected.flops });
  });

  test("sees reads, assignments and functions that are asynchronous", async () => {
    const state = tensor([1, 2, 3]);
    await realize(state);
    const report = await profile(async function update() {
      state.assign(state.add(1));
      await x.exp().sum().item();
    }, settings);
    expect(await state.tolist()).toEqual([5, 6, 7]);
    expect(report.name).toBe("update");
    expect(report.kernels.length).toBeGreaterThanOrEqual(2);
    expect(report.calls).toBe(sum(report.kernels.map((k) => k.calls)));
  });

  test("counts what a loop repeats", async () => {
    const xs = rand([5, 4]);
    await realize(xs);
    const report = await profile(
      () =>
        scan((c: Tensor, row: Tensor) => [c.mul(0.5).add(row), c.sum()], xs.slice(0, 1).sum(0), xs),
      settings,
    );
    expect(Math.max(...report.kernels.map((k) => k.calls))).toBeGreaterThanOrEqual(
      device === "reference" ? 1 : 5,
    );
  });

  test("writes a trace that Chrome can read", async () => {
    const report = await profile(() => x.matmul(w).relu(), settings);
    const events = eventsOf(report);
    const spans = events.filter((e) => e.ph === "X");
    for (const e of spans) {
      expect(e.ts).toBeGreaterThanOrEqual(0);
      expect(e.dur).toBeGreaterThanOrEqual(0);
      expect(typeof e.name).toBe("string");
    }
    // Every line and every process has a name.
    const names = events.filter((e) => e.ph === "M");
    for (const { pid } of spans)
      expect(names.some((e) => e.pid === pid && e.name === "process_name")).toBe(true);
    const kernels = spans.filter((e) => e.args && "flops" in e.args);
    expect(kernels.length).toBe(settings.runs * report.calls);
    expect(new Set(kernels.map((e) => e.name))).toEqual(new Set(report.kernels.map((k) => k.name)));
    expect(spans.filter((e) => e.pid === 1)).toHaveLength(settings.runs);
    // In order, as a device does one thing at a time.
    for (const [i, e] of kernels.entries())
      if (i > 0) expect(e.ts).toBeGreaterThanOrEqual(kernels[i - 1].ts);
  });

  test("prints a table", async () => {
    const report = await profile(() => x.matmul(w).relu(), settings);
    const lines = `${report}`.split("\n");
    expect(lines[0]).toMatch(
      /^function on \w+: .* in kernels of .* per call \(3 measured\), \d+ kernels, /,
    );
    expect(lines[1].trim().split(/\s{2,}/)).toEqual([
      "time",
      "share",
      "calls",
      "B",
      "FLOP",
      "B/s",
      "FLOP/s",
      "kernel",
    ]);
    for (const [i, k] of report.kernels.entries())
      expect(lines[2 + i].endsWith(`  ${k.kind} ${k.name}`)).toBe(true);
    expect(`${await profile(() => 1, settings)}`).toMatch(/nothing ran/);
  });

  test("compares with what the device can do at most", async () => {
    const fn = () => x.matmul(w);
    const report = await profile(fn, { ...settings, roofline: true });
    const limit = report.rooflines.get(device)!;
    expect(limit.bytesPerSecond).toBeGreaterThan(1e6);
    expect(limit.flopsPerSecond).toBeGreaterThan(1e5);
    for (const k of report.kernels) expect(k.roofline).toBeGreaterThan(0);
    expect(`${report}`).toMatch(/roofline of \w+: copies .*B\/s, f32 products .*FLOP\/s/);
    const again = await profile(fn, { ...settings, roofline: true });
    expect(again.rooflines.get(device)).toBe(limit);
  });

  test("one at a time, and off after an error", async () => {
    const nested = () => profile(() => profile(() => x.exp(), settings), settings);
    await expect(nested()).rejects.toThrow(ArgumentError);
    await expect(nested()).rejects.toThrow(/one profile at a time/);
    let calls = 0;
    const fails = profile(() => {
      // After the warm-up, when somebody watches.
      if (calls++ === 1) throw new Error("mine");
      return x.exp();
    }, settings);
    await expect(fails).rejects.toThrow("mine");
    const late = profile(async () => {
      await x.exp().sum().item();
      throw new Error("later");
    }, settings);
    await expect(late).rejects.toThrow("later");
    const wrong = profile(() => x.gather(0, tensor([[9]], { dtype: "i32" })), settings);
    await expect(wrong).rejects.toThrow(/9/);
    await expect(profile(() => x, { runs: 0 })).rejects.toThrow(ArgumentError);
    expect(observer).toBeNull();
    expect((await profile(() => x.exp(), settings)).calls).toBeGreaterThan(0);
  });

  test("draws no random numbers of its own", async () => {
    manualSeed(3);
    const expected = await rand([4]).tolist();
    manualSeed(3);
    await profile(() => x.add(1), { ...settings, roofline: true });
    expect(await rand([4]).tolist()).toEqual(expected);
  });
});

test("a coarse clock is seen, and its times are averaged", () => {
  const run = (resolution: number): RunTime => ({
    ...{ device: "webgpu", start: 0, submitted: 0, kernels: [], clock: "gpu", calls: [] },
    resolution,
  });
  const step = resolutionOf([run(3 * 65536), run(0), run(10 * 65536)]);
  expect(step).toBe(65536);
  expect(resolutionOf([run(9), run(4)])).toBe(1);
  const times = [0, 0, 0, 0.065536];
  expect(typical(times, step)).toBeCloseTo(0.016384, 9);
  expect(typical(times, 1)).toBe(0);
});

describe.skipIf(!devices.includes("webgpu"))("a GPU that cannot tell times of kernels", () => {
  let before: Device;
  beforeAll(async () => {
    before = await init({ device: "webgpu" });
    const gpu = await requestGpu({ features: [] });
    registerDevice(new Device(new WebGpuBackend(gpu)));
  });
  afterAll(() => registerDevice(before));

  test("counts kernels, and says so", async () => {
    const x = rand([4, 4]);
    await realize(x);
    const report = await profile(() => x.exp().sum(), { ...settings, roofline: true });
    expect(report).toMatchObject({ kernelMilliseconds: null, resolution: 0 });
    expect(report.milliseconds).toBeGreaterThan(0);
    expect(report.kernels.every((k) => k.milliseconds === null && k.share === null)).toBe(true);
    expect(report.calls).toBe(explain(x.exp().sum()).kernels.length);
    expect(report.rooflines.size).toBe(0);
    expect(`${report}`).toMatch(/times of kernels are unknown: this GPU has no timestamp-query/);
    expect(eventsOf(report).filter((e) => e.ph === "X")).toHaveLength(2 * settings.runs);
  });

  test("more dispatches than a query set has room for", async () => {
    const { device, pool } = before.backend as WebGpuBackend;
    const timer = new DispatchTimer(device, pool, true);
    const encoder = device.createCommandEncoder();
    const kernel = { name: "nothing", kind: "map" as const, bytes: 0, flops: 0 };
    for (let i = 0; i < 2100; i++) encoder.beginComputePass(timer.pass(kernel)!).end();
    timer.resolve(encoder);
    device.queue.submit([encoder.finish()]);
    const { kernels } = await timer.read();
    expect(kernels).toHaveLength(2100);
    for (const [i, { start, end }] of kernels!.entries()) {
      expect(end).toBeGreaterThanOrEqual(start);
      if (i > 0) expect(start).toBeGreaterThanOrEqual(kernels![i - 1].end);
    }
  });

  test("a run may be watched without timing its kernels", async () => {
    registerDevice(before);
    const runs: RunTime[] = [];
    observe({ kernels: false, run: (run) => void runs.push(run) });
    try {
      await rand([4]).exp().data();
      await defaultDevice().ready();
    } finally {
      observe(null);
    }
    expect(runs).toHaveLength(1);
    expect(runs[0].kernels).toBeNull();
    expect(runs[0].calls.length).toBeGreaterThan(0);
    expect(runs[0].submitted).toBeGreaterThanOrEqual(runs[0].start);
  });
});
