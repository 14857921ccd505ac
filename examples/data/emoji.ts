/**
 * @file Captioned images from npm packages: the emoji of several vendors, with Unicode's English names.
 *
 * Decides: which files belong to which concept (the key is the code points without the variation selector FE0F), how
 * a rendering becomes pixels (drawn large, cut to its outline, because vendors differ in margins, and averaged down
 * to a square on white), and the cache: one packed file that is rebuilt when a package or the recipe changes.
 * Leaves to others: which concepts and vendors to train on (captions.ts).
 */
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import sharp from "sharp";
import { writeAtomic } from "../support/files.ts";

export const vendors = ["openmoji", "twemoji", "noto", "fluent"] as const;
export type Vendor = (typeof vendors)[number];

export interface Concept {
  /** Lower-case code points joined by "-", without fe0f: "1f34e". */
  readonly key: string;
  /** Unicode's short name: "red apple". */
  readonly label: string;
  /** emojibase's group number: 3 animals and nature, 4 food and drink, … */
  readonly group: number;
}

export interface Rendering {
  readonly vendor: Vendor;
  readonly concept: Concept;
  /** [size, size, 3] red, green, blue. */
  readonly pixels: Uint8Array;
}

export interface EmojiOptions {
  readonly size?: number;
  /** Where the packed file goes. */
  readonly cacheDir?: string;
  /** Called now and then while rendering; never when the cache is valid. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Part of the cache's name: a change of how pixels are made changes it. */
const RECIPE = "outline-square-box-v1";
/** Drawn at this size before it is cut and averaged down: about 3 samples per pixel and axis. */
const DRAWN = 96;
/** Groups without pictures of their own: skin tones and hair (2); regional letters have no group at all. */
const EXCLUDED_GROUPS: readonly (number | undefined)[] = [2, undefined];

const require = createRequire(import.meta.url);
const packages: Readonly<Record<Vendor | "labels", string>> = {
  labels: "emojibase-data",
  openmoji: "openmoji",
  twemoji: "@iconify-json/twemoji",
  noto: "@iconify-json/noto",
  fluent: "@lobehub/fluent-emoji-3d",
};
/** Who drew the images, and what their licences ask to be named. */
export const attributions: Readonly<
  Record<Vendor, { name: string; author: string; licence: string; url: string }>
> = {
  openmoji: {
    name: "OpenMoji",
    author: "OpenMoji, an open-source project of the HfG Schwäbisch Gmünd and its contributors",
    licence: "CC BY-SA 4.0",
    url: "https://openmoji.org",
  },
  twemoji: {
    name: "Twemoji",
    author: "Twitter, Inc and other contributors",
    licence: "CC BY 4.0",
    url: "https://github.com/jdecked/twemoji",
  },
  noto: {
    name: "Noto Emoji",
    author: "Google",
    licence: "Apache 2.0",
    url: "https://github.com/googlefonts/noto-emoji",
  },
  fluent: {
    name: "Fluent Emoji (3D)",
    author: "Microsoft, packed by LobeHub",
    licence: "MIT",
    url: "https://github.com/microsoft/fluentui-emoji",
  },
};
const packageDir = (name: string): string => dirname(require.resolve(`${name}/package.json`));
const readJson = async (path: string) => JSON.parse(await readFile(path, "utf8"));

const keyOf = (codePoints: string): string =>
  codePoints
    .toLowerCase()
    .split("-")
    .filter((c) => c !== "fe0f")
    .join("-");

/** All renderings of all vendors, in a fixed order: by concept in Unicode's order, then by vendor. */
export async function loadEmoji(options: EmojiOptions = {}): Promise<Rendering[]> {
  const { size = 32, cacheDir = ".cache", onProgress, signal } = options;
  const versions = await Promise.all(
    Object.values(packages).map(async (name) => {
      const { version } = await readJson(join(packageDir(name), "package.json"));
      return `${name}@${version}`;
    }),
  );
  const identity = [RECIPE, size, DRAWN, `sharp@${sharp.versions.sharp}`, ...versions].join(" ");
  const hash = createHash("sha256").update(identity).digest("hex").slice(0, 12);
  const path = join(cacheDir, `emoji-${size}-${hash}.bin`);

  const cached = await readFile(path).catch(() => null);
  const packed = cached && unpack(cached, size);
  if (packed) return packed;

  const rendered = await renderAll(size, onProgress, signal);
  await writeAtomic(path, pack(rendered));
  return rendered;
}

// ---- the packed file: u32 length of a JSON header, the header, then the pixels of its entries in order

interface Header {
  readonly concepts: readonly Concept[];
  /** [index of the vendor, index of the concept] per image. */
  readonly images: readonly (readonly [number, number])[];
}

function pack(renderings: readonly Rendering[]): Uint8Array {
  const concepts = [...new Set(renderings.map((r) => r.concept))];
  const indexOf = new Map(concepts.map((c, i) => [c, i]));
  const header: Header = {
    concepts,
    images: renderings.map((r) => [vendors.indexOf(r.vendor), indexOf.get(r.concept)!]),
  };
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  return Buffer.concat([length, json, ...renderings.map((r) => r.pixels)]);
}

/** The renderings of a packed file, or null when it is not one (then it is made again). */
function unpack(file: Buffer, size: number): Rendering[] | null {
  if (file.length < 4) return null;
  const start = 4 + file.readUInt32LE(0);
  let header: Header;
  try {
    header = JSON.parse(file.toString("utf8", 4, start));
  } catch {
    return null;
  }
  const bytes = size * size * 3;
  if (file.length !== start + header.images.length * bytes) return null;
  return header.images.map(([vendor, concept], i) => ({
    vendor: vendors[vendor],
    concept: header.concepts[concept],
    pixels: new Uint8Array(file.buffer, file.byteOffset + start + i * bytes, bytes),
  }));
}

// ---- rendering

type Source = string | Buffer;

async function renderAll(
  size: number,
  onProgress: EmojiOptions["onProgress"],
  signal: AbortSignal | undefined,
): Promise<Rendering[]> {
  const sources = await findSources();
  const concepts = await readConcepts();
  const jobs = concepts.flatMap((concept) =>
    vendors.flatMap((vendor) => {
      const source = sources[vendor].get(concept.key);
      return source === undefined ? [] : [{ vendor, concept, source }];
    }),
  );
  // One thread per image and several images in flight suits many small images better than the reverse.
  const threads = sharp.concurrency();
  sharp.concurrency(1);
  const results = new Array<Rendering>(jobs.length);
  let next = 0;
  let done = 0;
  async function lane(): Promise<void> {
    while (next < jobs.length) {
      signal?.throwIfAborted();
      const at = next++;
      const { vendor, concept, source } = jobs[at];
      results[at] = { vendor, concept, pixels: await render(source, size) };
      if (++done % 100 === 0 || done === jobs.length) onProgress?.(done, jobs.length);
    }
  }
  try {
    await Promise.all(Array.from({ length: 8 }, lane));
  } finally {
    sharp.concurrency(threads);
  }
  return results;
}

async function readConcepts(): Promise<Concept[]> {
  const data: { hexcode: string; label: string; group?: number }[] = await readJson(
    join(packageDir(packages.labels), "en/data.json"),
  );
  return data
    .filter((e) => !EXCLUDED_GROUPS.includes(e.group))
    .map((e) => ({ key: keyOf(e.hexcode), label: e.label, group: e.group! }));
}

/** Per vendor: key → a file, or an SVG in memory. */
async function findSources(): Promise<Record<Vendor, Map<string, Source>>> {
  const [openmoji, twemoji, noto, fluent] = await Promise.all([
    filesBy(join(packageDir(packages.openmoji), "color/svg"), ".svg"),
    iconifySvgs(packageDir(packages.twemoji)),
    iconifySvgs(packageDir(packages.noto)),
    filesBy(join(packageDir(packages.fluent), "assets"), ".webp"),
  ]);
  return { openmoji, twemoji, noto, fluent };
}

async function filesBy(dir: string, extension: string): Promise<Map<string, Source>> {
  const names = (await readdir(dir)).filter((n) => n.endsWith(extension));
  return new Map(names.map((n) => [keyOf(n.slice(0, -extension.length)), join(dir, n)]));
}

interface IconifyIcon {
  readonly body: string;
  readonly width?: number;
  readonly height?: number;
}

/** Iconify stores the inside of each <svg>; chars.json maps code points to names, some of which are aliases. */
async function iconifySvgs(dir: string): Promise<Map<string, Source>> {
  const icons = await readJson(join(dir, "icons.json"));
  const chars: Record<string, string> = await readJson(join(dir, "chars.json"));
  const sources = new Map<string, Source>();
  for (const [codePoints, name] of Object.entries(chars)) {
    const icon: IconifyIcon | undefined =
      icons.icons[name] ?? icons.icons[icons.aliases?.[name]?.parent];
    if (!icon) continue;
    const [w, h] = [icon.width ?? icons.width ?? 16, icon.height ?? icons.height ?? 16];
    const svg =
      `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ` +
      `width="${DRAWN}" height="${DRAWN}" viewBox="0 0 ${w} ${h}">${icon.body}</svg>`;
    sources.set(keyOf(codePoints), Buffer.from(svg));
  }
  return sources;
}

/** Any picture that sharp can read → [size, size, 3] on white, cut to its outline. */
export async function render(source: Source, size: number): Promise<Uint8Array> {
  const { data } = await sharp(source)
    .resize(DRAWN, DRAWN, { fit: "contain", background: { r: 0, g: 0, b: 0, alpha: 0 } })
    .ensureAlpha()
    .toColourspace("srgb")
    .raw()
    .toBuffer({ resolveWithObject: true });
  return squareOnWhite(data, DRAWN, size);
}

/**
 * [drawn, drawn, 4] with alpha → [size, size, 3] on white: cuts the smallest square around the outline and averages
 * boxes of it.
 */
export function squareOnWhite(rgba: Uint8Array, drawn: number, size: number): Uint8Array {
  let [left, right, top, bottom] = [drawn, -1, drawn, -1];
  for (let y = 0; y < drawn; y++)
    for (let x = 0; x < drawn; x++) {
      if (rgba[(y * drawn + x) * 4 + 3] < 16) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
    }
  const out = new Uint8Array(size * size * 3).fill(255);
  if (right < 0) return out; // nothing drawn: white
  const side = Math.max(right - left, bottom - top) + 1;
  const boxes = (first: number, last: number) =>
    boxWeights((first + last + 1 - side) / 2, side / size, size, drawn);
  const columns = boxes(left, right);
  const rows = boxes(top, bottom);
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) {
      // Colour times alpha, and what is missing to full cover is white.
      let [r, g, b, cover] = [0, 0, 0, 0];
      for (const [sy, wy] of rows[y])
        for (const [sx, wx] of columns[x]) {
          const at = (sy * drawn + sx) * 4;
          const weight = (wy * wx * rgba[at + 3]) / 255;
          r += weight * rgba[at];
          g += weight * rgba[at + 1];
          b += weight * rgba[at + 2];
          cover += weight;
        }
      const white = 255 * (1 - cover);
      out.set([r + white, g + white, b + white].map(Math.round), (y * size + x) * 3);
    }
  return out;
}

/** For each of `count` boxes of width `step` from `start`: [pixel, share of the box] pairs inside 0 … limit. */
function boxWeights(start: number, step: number, count: number, limit: number) {
  return Array.from({ length: count }, (_, i) => {
    const [from, to] = [start + i * step, start + (i + 1) * step];
    const pairs: [number, number][] = [];
    for (let p = Math.max(0, Math.floor(from)); p < Math.min(limit, to); p++) {
      const share = (Math.min(to, p + 1) - Math.max(from, p)) / step;
      if (share > 0) pairs.push([p, share]);
    }
    return pairs;
  });
}
