import fc from "fast-check";
import { expect, test } from "vitest";
import { Arena } from "../../core/backend/wasm/arena.ts";
import { ArgumentError, OutOfMemoryError } from "../../core/errors.ts";

const MiB = 2 ** 20;

test.each([32, 64] as const)(
  "any order of allocate and free keeps the arena sound, %s bit",
  (address) => {
    // A number ≥ 0 allocates that many bytes; a negative one frees one of the live blocks.
    const steps = fc.array(
      fc.oneof(fc.nat(40_000), fc.nat(200), fc.integer({ min: -1000, max: -1 })),
      {
        maxLength: 120,
      },
    );
    fc.assert(
      fc.property(steps, (script) => {
        const arena = new Arena({ address, maximum: 64 * MiB });
        const live: { at: number; size: number }[] = [];
        for (const step of script) {
          if (step >= 0) {
            const at = arena.allocate(step);
            expect(at % 64).toBe(0);
            expect(at + step + 64).toBeLessThanOrEqual(arena.memory.buffer.byteLength);
            for (const b of live)
              expect(at >= b.at + b.size + 64 || at + step + 64 <= b.at).toBe(true);
            live.push({ at, size: step });
          } else if (live.length > 0) arena.free(live.splice(-step % live.length, 1)[0].at);
          arena.check();
        }
        const total = live.reduce((n, b) => n + b.size, 0);
        expect(arena.liveBytes).toBeGreaterThanOrEqual(total);
        expect(arena.reservedBytes).toBe(arena.memory.buffer.byteLength);
        for (const b of live) arena.free(b.at);
        arena.check();
        expect(arena.liveBytes).toBe(0);
      }),
      { numRuns: 60 },
    );
  },
);

test("data survives growth, through fresh views", () => {
  const arena = new Arena({ address: 32 });
  const at = arena.allocate(400);
  new Float32Array(arena.memory.buffer, at, 100).fill(3);
  arena.allocate(10 * MiB);
  expect(new Float32Array(arena.memory.buffer, at, 100).every((x) => x === 3)).toBe(true);
});

test("freed memory is used again", () => {
  const arena = new Arena({ address: 32 });
  for (let i = 0; i < 1000; i++) {
    const [a, b, c] = [arena.allocate(MiB), arena.allocate(100 + i), arena.allocate(2 * MiB)];
    for (const at of [b, a, c]) arena.free(at);
  }
  expect(arena.reservedBytes).toBeLessThan(8 * MiB);
});

test.each([32, 64] as const)("budget and maximum end in OutOfMemoryError, %s bit", (address) => {
  const arena = new Arena({ address, budget: 4 * MiB });
  const at = arena.allocate(3 * MiB);
  expect(() => arena.allocate(2 * MiB)).toThrow(OutOfMemoryError);
  expect(() => arena.allocate(2 * MiB)).toThrow("at most 4.0 MiB");
  arena.check();
  arena.free(at);
  arena.allocate(2 * MiB);
  expect(arena.reservedBytes).toBeLessThanOrEqual(4 * MiB);
  expect(() => new Arena({ address, maximum: MiB }).allocate(MiB)).toThrow(OutOfMemoryError);
});

test("misuse throws", () => {
  const arena = new Arena({ address: 32 });
  const at = arena.allocate(10);
  arena.free(at);
  expect(() => arena.free(at)).toThrow(ArgumentError);
  expect(() => arena.allocate(-1)).toThrow(ArgumentError);
  expect(() => arena.allocate(Number.NaN)).toThrow(ArgumentError);
});

test("shared memories", () => {
  const arena = new Arena({ address: 32, maximum: MiB, shared: true });
  expect(arena.memory.buffer).toBeInstanceOf(SharedArrayBuffer);
  arena.allocate(500_000);
  expect(arena.memory.buffer.byteLength).toBe(arena.reservedBytes);
});
