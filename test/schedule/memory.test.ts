import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bytesOf } from "../../core/dtype.ts";
import { topological } from "../../core/graph/walk.ts";
import {
  alignment,
  hostValues,
  type Lifetime,
  planBuffers,
  planMemory,
} from "../../core/schedule/memory.ts";
import { type Plan, schedule } from "../../core/schedule/schedule.ts";
import { randomGraph } from "../support/graphs.ts";

const lifetime = fc
  .record({ bytes: fc.nat(5000), first: fc.nat(40), length: fc.nat(15) })
  .map(({ bytes, first, length }): Lifetime => ({ bytes, first, last: first + length }));

describe("planMemory", () => {
  test("no two live values share bytes, over-reads included", () => {
    fc.assert(
      fc.property(fc.array(lifetime, { maxLength: 60 }), (values) => {
        const { offsets, bytes } = planMemory(values);
        for (let i = 0; i < values.length; i++) {
          expect(offsets[i] % alignment).toBe(0);
          expect(offsets[i] + values[i].bytes + alignment).toBeLessThanOrEqual(bytes);
          for (let j = 0; j < i; j++) {
            const apart = values[i].last < values[j].first || values[j].last < values[i].first;
            const beside =
              offsets[i] + values[i].bytes + alignment <= offsets[j] ||
              offsets[j] + values[j].bytes + alignment <= offsets[i];
            expect(apart || beside).toBe(true);
          }
        }
      }),
    );
  });

  test("memory of the dead is used again", () => {
    const values = Array.from({ length: 50 }, (_, i) => ({ bytes: 1000, first: i, last: i + 1 }));
    expect(planMemory(values).bytes).toBeLessThanOrEqual(2 * 1152);
  });
});

describe("hostValues", () => {
  test("whoever uses a host fits, is gone before it is written, and is alone", () => {
    const host = fc.record({ bytes: fc.nat(5000), first: fc.nat(60) });
    fc.assert(
      fc.property(
        fc.array(lifetime, { maxLength: 40 }),
        fc.array(host, { maxLength: 8 }),
        (values, hosts) => {
          const found = hostValues(values, hosts);
          expect(found).toHaveLength(values.length);
          found.forEach((h, i) => {
            if (h === undefined) return;
            expect(values[i].bytes).toBeLessThanOrEqual(hosts[h].bytes);
            expect(values[i].last).toBeLessThan(hosts[h].first);
            for (let j = 0; j < i; j++)
              if (found[j] === h)
                expect(values[i].last < values[j].first || values[j].last < values[i].first).toBe(
                  true,
                );
          });
        },
      ),
    );
  });

  test("the smallest host that fits, the largest value first", () => {
    const value = (bytes: number) => ({ bytes, first: 0, last: 3 });
    const hosts = [
      { bytes: 1000, first: 4 },
      { bytes: 100, first: 4 },
      { bytes: 100, first: 3 },
    ];
    expect(hostValues([value(90), value(900), value(95)], hosts)).toEqual([undefined, 0, 1]);
  });
});

describe("planBuffers", () => {
  test("no two live values share a buffer, and each fits into its own", () => {
    fc.assert(
      fc.property(fc.array(lifetime, { maxLength: 60 }), (values) => {
        const { buffer, sizes } = planBuffers(values);
        expect([...sizes].sort((a, b) => b - a)).toEqual(sizes);
        for (let i = 0; i < values.length; i++) {
          expect(values[i].bytes).toBeLessThanOrEqual(sizes[buffer[i]]);
          for (let j = 0; j < i; j++) {
            const apart = values[i].last < values[j].first || values[j].last < values[i].first;
            expect(apart || buffer[i] !== buffer[j]).toBe(true);
          }
        }
      }),
    );
  });

  test("buffers of the dead are used again, by small values the small ones", () => {
    const chain = Array.from({ length: 50 }, (_, i) => ({ bytes: 1000, first: i, last: i + 1 }));
    expect(planBuffers(chain).sizes).toEqual([1000, 1000]);
    const mixed = [
      { bytes: 1000, first: 0, last: 1 },
      { bytes: 10, first: 0, last: 1 },
      { bytes: 8, first: 2, last: 3 },
      { bytes: 900, first: 2, last: 3 },
    ];
    expect(planBuffers(mixed)).toEqual({ buffer: [0, 1, 1, 0], sizes: [1000, 10] });
  });
});

/** Which steps write and read each value between kernels, and where it lies; results live to the end. */
function lives(
  plan: Plan,
): { at: string; offset: number; bytes: number; first: number; last: number }[] {
  const found = new Map<object, ReturnType<typeof lives>[number]>();
  const results = new Set<object>(plan.outputs.map(({ node }) => node));
  plan.steps.forEach((step, i) => {
    for (const n of step.group.stores.keys()) {
      const place = plan.places.get(n)!;
      if (place.k === "slot") continue;
      const at = place.k === "output" ? `output ${place.output}` : "scratch";
      const offset = place.k === "output" ? 0 : place.offset;
      const last = results.has(n) ? plan.steps.length : i;
      found.set(n, { at, offset, bytes: bytesOf(n), first: i, last });
    }
    const reads = step.k === "group" ? step.reads : step.region.src;
    for (const n of reads) {
      const life = found.get(n);
      if (life) life.last = Math.max(life.last, i);
    }
  });
  return [...found.values()];
}

describe("plans of random graphs", () => {
  test("every value is written before it is read, and no two live ones share bytes", () => {
    for (let seed = 0; seed < 300; seed++) {
      const { inputs, outputs } = randomGraph(seed, 24);
      const plan = schedule(inputs, outputs);
      const written = new Set<object>(inputs);
      for (const step of plan.steps) {
        if (step.k === "group")
          for (const n of step.reads) expect(written.has(n), `seed ${seed}`).toBe(true);
        for (const n of step.group.stores.keys()) written.add(n);
      }
      const all = lives(plan);
      for (let i = 0; i < all.length; i++)
        for (let j = 0; j < i; j++) {
          const [a, b] = [all[i], all[j]];
          const apart = a.last < b.first || b.last < a.first;
          const beside =
            a.at !== b.at || a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
          expect(apart || beside, `seed ${seed}`).toBe(true);
        }
      expect(plan.outputs.length).toBe(outputs.length);
      expect(topological(outputs).length).toBeGreaterThan(0);
    }
  });
});
