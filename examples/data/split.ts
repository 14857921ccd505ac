/**
 * @file Which concepts are never seen in training: whole families of them, chosen by a hash.
 *
 * A family holds what is one thing in variants: genders, hair and skin, "cat" and "cat face", the twelve clocks, the
 * colours of a drawing whose outline is the same. Families come from three links: the base character of a joined
 * emoji, the name without its variant words, and near-duplicate images of one vendor (a difference hash of 256
 * bits, https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html, and the mean colour).
 * The hash, and not the order, decides, so that a new concept moves no other one to the other side.
 */
import { createHash } from "node:crypto";
import type { Concept, Rendering } from "./emoji.ts";

export interface SplitOptions {
  /** Part of the hash: another one gives another split. */
  readonly salt: string;
  /** The share of families that is held out. */
  readonly share: number;
}

/** The concepts held out, for all renderings of a data set. */
export function heldOutConcepts(
  renderings: readonly Rendering[],
  { salt, share }: SplitOptions,
): Set<Concept> {
  const held = [...families(renderings)].filter((family) => {
    // The least key names the family, whatever order it was found in.
    const name = family.map((concept) => concept.key).sort()[0];
    const hash = createHash("sha256").update(`${salt}:${name}`).digest().readUInt32BE(0);
    return hash / 2 ** 32 < share;
  });
  return new Set(held.flat());
}

/** Concepts in groups of variants. */
export function families(renderings: readonly Rendering[]): Concept[][] {
  const concepts = [...new Set(renderings.map((r) => r.concept))];
  const parent = new Map<unknown, unknown>();
  const find = (x: unknown): unknown => {
    let root = x;
    while (parent.has(root)) root = parent.get(root);
    return root;
  };
  const link = (a: unknown, b: unknown) => {
    const [x, y] = [find(a), find(b)];
    if (x !== y) parent.set(x, y);
  };
  for (const concept of concepts) {
    link(concept, `character ${baseCharacter(concept.key)}`);
    link(concept, `name ${baseName(concept.label)}`);
  }
  // Each vendor draws variants alike in its own way; across vendors only the same concept would match.
  for (const drawn of Map.groupBy(renderings, (r) => r.vendor).values()) {
    const prints = drawn.map((r) => ({ concept: r.concept, ...fingerprint(r.pixels) }));
    for (let i = 0; i < prints.length; i++)
      for (let j = 0; j < i; j++)
        if (alike(prints[i], prints[j])) link(prints[i].concept, prints[j].concept);
  }
  return [...Map.groupBy(concepts, find).values()];
}

/** Skin tones, hair, genders, the joiner: what varies a character and is not one itself. */
const VARIANTS = /^(1f3f[b-f]|1f9b[0-3]|2640|2642|200d|1f468|1f469|1f9d1)$/;

function baseCharacter(key: string): string {
  const parts = key.split("-");
  return parts.find((part) => !VARIANTS.test(part)) ?? parts[0];
}

/** The name without what only says which variant it is. */
export function baseName(label: string): string {
  return label
    .toLowerCase()
    .replace(/:.*/, "") // "kiss: man, man"
    .replace(
      /^(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)(-thirty| o’clock)$/,
      "clock",
    )
    .replace(
      /^(new|full|(first|last) quarter|(waxing|waning) (gibbous|crescent)|crescent) moon/,
      "moon",
    )
    .replace(/\b(1st|2nd|3rd) place\b/, "")
    .replace(/\b(man|woman|men|women|person|people|boy|girl)(’s)?\b/, "")
    .replace(/\b(face|oncoming|front-facing|facing right|tilted (left|right))\b/, "")
    .replace(/\s+/g, " ")
    .trim();
}

interface Fingerprint {
  /** 256 bits: whether each cell of a 16 × 17 grid is brighter than the one on its right. */
  readonly bits: Uint32Array;
  readonly colour: readonly number[];
}

const ROWS = 16;
const COLUMNS = 17;

/** [size, size, 3] → what near-duplicates have in common. */
export function fingerprint(pixels: Uint8Array): Fingerprint {
  const size = Math.sqrt(pixels.length / 3);
  const cells = new Float64Array(ROWS * COLUMNS);
  const colour = [0, 0, 0];
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) {
      const at = (y * size + x) * 3;
      for (let c = 0; c < 3; c++) colour[c] += pixels[at + c] / size ** 2;
      // Brightness 0 … 255 spread over the cells that the pixel covers.
      const brightness = 0.299 * pixels[at] + 0.587 * pixels[at + 1] + 0.114 * pixels[at + 2];
      for (const [row, high] of covered(y, size, ROWS))
        for (const [column, wide] of covered(x, size, COLUMNS))
          cells[row * COLUMNS + column] += brightness * high * wide;
    }
  const bits = new Uint32Array((ROWS * (COLUMNS - 1)) / 32);
  for (let i = 0; i < ROWS * (COLUMNS - 1); i++) {
    const cell = Math.floor(i / (COLUMNS - 1)) * COLUMNS + (i % (COLUMNS - 1));
    if (cells[cell] > cells[cell + 1] + 1e-6) bits[i >> 5] |= 1 << (i & 31);
  }
  return { bits, colour };
}

/** The cells of `count` that pixel `at` of `size` lies in, with the length that it covers there. */
function covered(at: number, size: number, count: number): [cell: number, length: number][] {
  const [from, to] = [(at * count) / size, ((at + 1) * count) / size];
  const cells: [number, number][] = [];
  for (let cell = Math.floor(from); cell < to && cell < count; cell++)
    cells.push([cell, Math.min(to, cell + 1) - Math.max(from, cell)]);
  return cells;
}

/** Bits that may differ, and grey levels per channel. */
const NEAR = { bits: 8, colour: 24 };

function alike(a: Fingerprint, b: Fingerprint): boolean {
  if (a.colour.some((level, c) => Math.abs(level - b.colour[c]) > NEAR.colour)) return false;
  let different = 0;
  for (let i = 0; i < a.bits.length; i++) different += ones(a.bits[i] ^ b.bits[i]);
  return different <= NEAR.bits;
}

function ones(x: number): number {
  let n = 0;
  for (let rest = x >>> 0; rest !== 0; rest = (rest & (rest - 1)) >>> 0) n++;
  return n;
}
