/**
 * @file Pictures for models: decoding, resizing, cropping, the image processors, tiles and patches.
 * Values of Pillow and of the processors are in test/golden (group `images`); here are laws,
 * formulas, and what the fixtures do not reach.
 */
import fc from "fast-check";
import { DataError, type Tensor, tensor } from "hinode";
import {
  anyresLayout,
  anyresTokens,
  CLIP_MEAN,
  CLIP_STD,
  CLIPImageProcessor,
  centerCrop,
  convertImage,
  cropImage,
  decodeImage,
  flipImage,
  LlavaImageProcessor,
  LlavaNextImageProcessor,
  mergeAnyres,
  normalizedPatches,
  type Pixels,
  padImage,
  patchify,
  type RawImage,
  type Resample,
  randomCropRegion,
  randomFlip,
  randomResizedCrop,
  resizeImage,
  resizePositions,
  SubImageProcessor,
  selectBestResolution,
  squashImage,
  subImageLayout,
  unpatchify,
} from "hinode/models";
import sharp from "sharp";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { isCutOff, withoutOrientation } from "../../models/image/file.ts";
import { onEachDevice, useDevice } from "../support/devices.ts";

/** An image by a formula of its places. */
function picture(
  width: number,
  height: number,
  channels: number,
  level: (x: number, y: number, c: number) => number,
): RawImage {
  const data = new Uint8Array(width * height * channels);
  for (let i = 0; i < data.length; i++) {
    const pixel = Math.floor(i / channels);
    data[i] = level(pixel % width, Math.floor(pixel / width), i % channels);
  }
  return { width, height, channels, data };
}

const gradient = (width: number, height: number, channels = 3) =>
  picture(width, height, channels, (x, y, c) => 3 * x + 5 * y + 40 * c + 7);

const at = ({ width, channels, data }: RawImage<Pixels>, x: number, y: number): number[] => [
  ...data.subarray((y * width + x) * channels, (y * width + x + 1) * channels),
];

/** Uniform numbers of a seed: a linear congruential generator is random enough for a test. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("decodeImage", () => {
  const stored = ({ width, height, channels, data }: RawImage) =>
    sharp(data, { raw: { width, height, channels: channels as 1 | 3 | 4 } });

  test("PNG and lossless WebP come back as they were, also from a Blob", async () => {
    const image = gradient(7, 5);
    const png = await stored(image).png().toBuffer();
    expect(await decodeImage(png)).toEqual(image);
    expect(await decodeImage(new Blob([new Uint8Array(png)]))).toEqual(image);
    const webp = await stored(image).webp({ lossless: true }).toBuffer();
    expect(await decodeImage(webp)).toEqual(image);
    expect(await decodeImage(Uint8Array.from(webp).buffer)).toEqual(image);
  });

  test("JPEG comes back nearly", async () => {
    const image = gradient(16, 16);
    const jpeg = await stored(image).jpeg({ quality: 100, chromaSubsampling: "4:4:4" }).toBuffer();
    const { width, height, channels, data } = await decodeImage(jpeg);
    expect([width, height, channels]).toEqual([16, 16, 3]);
    // Rounding of colours and of coefficients, with quantisation by 1.
    expect(Math.max(...data.map((v, i) => Math.abs(v - image.data[i])))).toBeLessThanOrEqual(4);
  });

  test("grey and alpha as the mode says", async () => {
    const grey = gradient(4, 3, 1);
    const png = await stored(grey).toColourspace("b-w").png().toBuffer();
    expect(await decodeImage(png, { mode: "L" })).toEqual(grey);
    expect(await decodeImage(png)).toEqual(convertImage(grey, "RGB"));
    const see = gradient(4, 3, 4);
    const through = await stored(see).png().toBuffer();
    expect(await decodeImage(through, { mode: "RGBA" })).toEqual(see);
    expect(await decodeImage(through)).toEqual(convertImage(see, "RGB"));
  });

  test("pictures are turned as EXIF says", async () => {
    const image = gradient(6, 2);
    const turned = await stored(image).withMetadata({ orientation: 6 }).png().toBuffer();
    // 6: the first row of the file is the right edge.
    expect(await decodeImage(turned)).toEqual(
      picture(2, 6, 3, (x, y, c) => at(image, y, 1 - x)[c]),
    );
  });

  type Picture = ReturnType<typeof sharp>;

  test("or left as they are stored, where that is asked for", async () => {
    const image = gradient(6, 2);
    for (const make of [
      (s: Picture) => s.png(),
      (s: Picture) => s.webp({ lossless: true }),
      (s: Picture) => s.jpeg({ quality: 100 }),
    ]) {
      const file = await make(stored(image).withMetadata({ orientation: 6 })).toBuffer();
      const turned = await decodeImage(file);
      expect([turned.width, turned.height]).toEqual([2, 6]);
      const upright = await decodeImage(file, { orientation: false });
      expect([upright.width, upright.height]).toEqual([6, 2]);
      // The way of pages: the file itself says so no longer. A wrong check sum is a fault for sharp
      // alone.
      const said = withoutOrientation(file);
      expect(said).not.toEqual(new Uint8Array(file));
      expect(said.filter((byte, i) => byte !== file[i])).toHaveLength(1);
      if (file[0] === 0x89) continue;
      expect(await decodeImage(said)).toEqual(upright);
      expect(withoutOrientation(said)).toEqual(said);
    }
    const plain = await stored(image).png().toBuffer();
    expect(withoutOrientation(plain)).toBe(plain);
    // Lengths that lead nowhere.
    for (let i = 0; i < 60; i++) {
      const damaged = Uint8Array.from(plain);
      damaged.fill(0xff, i, i + 4);
      withoutOrientation(damaged);
      isCutOff(damaged);
    }
  });

  test("16-bit levels, palettes, inks and profiles, as Pillow has them in RGB", async () => {
    const deep = Uint16Array.from({ length: 36 }, (_, i) => (i * 701 + 5) % 65_536);
    const upper = Uint8Array.from(deep, (v) => v >> 8);
    const rgb16 = await sharp(deep, { raw: { width: 6, height: 2, channels: 3 } }).toColourspace("rgb16").png().toBuffer(); // biome-ignore format: one line
    expect(await decodeImage(rgb16)).toEqual({ width: 6, height: 2, channels: 3, data: upper });
    const grey16 = await sharp(deep, { raw: { width: 6, height: 6, channels: 1 } }).toColourspace("grey16").png().toBuffer(); // biome-ignore format: one line
    expect(await decodeImage(grey16, { mode: "L" })).toEqual({ width: 6, height: 6, channels: 1, data: upper }); // biome-ignore format: one line

    const few = picture(6, 2, 3, (x, y, c) => (x < 3 ? 250 - 40 * c : 9 + 70 * c + y));
    const palette = await stored(few).png({ palette: true, dither: 0 }).toBuffer();
    expect((await sharp(palette).metadata()).isPalette).toBe(true);
    expect(await decodeImage(palette)).toEqual(few);

    const print = await stored(picture(16, 8, 3, (_x, _y, c) => [200, 100, 30][c])).toColourspace("cmyk").jpeg({ quality: 100 }).toBuffer(); // biome-ignore format: one line
    const inks = await sharp(print).pipelineColourspace("cmyk").toColourspace("cmyk").raw().toBuffer(); // biome-ignore format: one line
    const want = [0, 1, 2].map((c) => Math.round(((255 - inks[c]) * (255 - inks[3])) / 255));
    const { data, channels } = await decodeImage(print);
    expect(channels).toBe(3);
    for (const [i, level] of data.entries()) expect(Math.abs(level - want[i % 3])).toBeLessThanOrEqual(1); // biome-ignore format: one line

    // In Display P3 pure red of sRGB is something less red.
    const red = picture(4, 4, 3, (_x, _y, c) => (c === 0 ? 255 : 0));
    const wide = await stored(red).withIccProfile("p3").png().toBuffer();
    const asStored = [...(await decodeImage(wide)).data.subarray(0, 3)];
    expect(asStored[0]).toBeLessThan(245);
    const inSrgb = [...(await decodeImage(wide, { profile: true })).data.subarray(0, 3)];
    for (const [c, level] of inSrgb.entries()) expect(Math.abs(level - [255, 0, 0][c])).toBeLessThanOrEqual(2); // biome-ignore format: one line
  });

  test("a file that was cut off is an error, wherever", async () => {
    const image = gradient(24, 24);
    for (const file of [
      await stored(image).png().toBuffer(),
      await stored(image).jpeg().toBuffer(),
      await stored(image).webp().toBuffer(),
    ]) {
      expect(isCutOff(file)).toBe(false);
      expect((await decodeImage(file)).width).toBe(24);
      for (const share of [0, 0.1, 0.5, 0.9]) {
        const part = file.subarray(0, Math.floor(file.length * share));
        await expect(decodeImage(part)).rejects.toThrow(DataError);
        if (share > 0.1) await expect(decodeImage(part)).rejects.toThrow(/the first \d+ bytes/);
      }
    }
  });

  test("nor is a thumbnail's end the picture's", async () => {
    const small = await stored(gradient(8, 8)).jpeg().toBuffer();
    expect([small.readUInt16BE(small.length - 2)]).toEqual([0xffd9]);
    for (const progressive of [false, true]) {
      const file = await stored(gradient(64, 64)).jpeg({ progressive }).toBuffer();
      const said = Buffer.concat([Buffer.from("Exif\0\0MM\0*\0\0\0\x08\0\0"), small]);
      const segment = Buffer.from([0xff, 0xe1, (said.length + 2) >> 8, (said.length + 2) & 255]);
      // Any number of 0xff may stand ahead of a code.
      const padding = Buffer.from([0xff, 0xff]);
      const whole = Buffer.concat([file.subarray(0, 2), segment, said, padding, file.subarray(2)]);
      expect(isCutOff(whole)).toBe(false);
      expect(isCutOff(Buffer.concat([whole, Buffer.from("behind")]))).toBe(false);
      const from = segment.length + said.length;
      for (let end = from; end < whole.length; end += 7)
        expect(isCutOff(whole.subarray(0, end)), `${end}`).toBe(true);
      expect(isCutOff(whole.subarray(0, -1))).toBe(true);
    }
  });

  test("bytes that are no picture are an error", async () => {
    await expect(decodeImage(new Uint8Array([1, 2, 3]))).rejects.toThrow(DataError);
    await expect(decodeImage(new Uint8Array([1, 2, 3]))).rejects.toThrow(/PNG, JPEG or WebP/);
  });

  test("without sharp there is an error that says so", async () => {
    const absent = Object.assign(new Error("Cannot find module"), { code: "MODULE_NOT_FOUND" });
    const module = { createRequire: () => () => { throw absent; } }; // biome-ignore format: one line
    const asked = vi.spyOn(process, "getBuiltinModule").mockReturnValue(module as never);
    await expect(decodeImage(new Uint8Array(9))).rejects.toThrow(/package sharp, got none\n.*npm install sharp/);
    asked.mockRestore();
  }); // biome-ignore format: one line
});

describe("resizeImage", () => {
  const filters: readonly Resample[] = ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]; // biome-ignore format: one list
  const side = fc.integer({ min: 1, max: 40 });
  const sizes = fc.record({ width: side, height: side });
  const channels = fc.constantFrom(1, 2, 3, 4);
  const filter = fc.constantFrom(...filters);

  test("what is of one colour stays so", () => {
    fc.assert(
      fc.property(sizes, sizes, channels, filter, fc.nat(255), (from, to, C, resample, level) => {
        // Alpha rounds the colours that it is multiplied with.
        const opaque = (c: number) => (C % 2 === 0 && c === C - 1 ? 255 : level);
        const image = picture(from.width, from.height, C, (_x, _y, c) => opaque(c));
        const resized = resizeImage(image, to, { resample });
        expect(resized).toEqual(picture(to.width, to.height, C, (_x, _y, c) => opaque(c)));
      }),
      { numRuns: 60 },
    );
  });

  test("8-bit images are the float ones, rounded twice", () => {
    fc.assert(
      fc.property(sizes, sizes, fc.constantFrom(1, 3), filter, fc.nat(), (from, to, C, resample, seed) => {
        const random = randomOf(seed);
        // In the middle of the levels, so that no filter leaves them: each pass amplifies less than
        // twice.
        const image = picture(from.width, from.height, C, () => 96 + 63 * random());
        const exact = resizeImage({ ...image, data: Float32Array.from(image.data) }, to, { resample });
        for (const arithmetic of ["pillow", "torch"] as const) {
          const { data } = resizeImage(image, to, { resample, arithmetic });
          // Half a level of the first pass, at most doubled, and half of the second; 14 bits or
          // more of each weight.
          const most = Math.max(0, ...[...data].map((v, i) => Math.abs(v - exact.data[i]) - 1.6));
          expect(most).toBe(0);
        }
      }),
      { numRuns: 40 },
    ); // biome-ignore format: one property
  });

  test("halved with a box, each pass rounds half up", () => {
    const image = gradient(6, 4);
    const pair = (a: number, b: number) => (a + b + 1) >> 1;
    const halved = resizeImage(image, { width: 3, height: 2 }, { resample: "box" });
    const row = (x: number, y: number, c: number) =>
      pair(at(image, 2 * x, y)[c], at(image, 2 * x + 1, y)[c]);
    const want = picture(3, 2, 3, (x, y, c) => pair(row(x, 2 * y, c), row(x, 2 * y + 1, c)));
    expect(halved).toEqual(want);
  });

  test("a box of whole pixels is a crop for the box filter", () => {
    const image = gradient(9, 8);
    const want = cropImage(image, { left: 2, top: 3, width: 4, height: 5 });
    for (const resample of ["box", "nearest", 4, 0] as const)
      expect(resizeImage(image, want, { resample, box: [2, 3, 6, 8] })).toEqual(want);
  });

  test("what is transparent does not shine through", () => {
    const image = picture(2, 1, 4, (x, _y, c) => (x === 0 ? [255, 0, 0, 0] : [0, 0, 200, 255])[c]);
    const { data } = resizeImage(image, { width: 1, height: 1 }, { resample: "box" });
    expect([...data]).toEqual([0, 0, 199, 128]); // 200 · 128 / 255, and back, rounded down
  });

  test("bad sizes, boxes, filters and data are errors", () => {
    const image = gradient(4, 4);
    const one = { width: 1, height: 1 };
    expect(() => resizeImage(image, { width: 0, height: 3 })).toThrow(/positive integers, got 0 × 3/);
    expect(() => resizeImage(image, one, { box: [0, 0, 5, 4] })).toThrow(/a box inside of 4 × 4/);
    expect(() => resizeImage(image, one, { resample: "cubic" as Resample })).toThrow(/bicubic/);
    expect(() => resizeImage({ ...image, height: 3 }, one)).toThrow(/width · height · channels/);
  }); // biome-ignore format: one line each
});

describe("crops, margins and mirrors", () => {
  const image = gradient(5, 4);

  test("a region may reach outside", () => {
    const part = cropImage(image, { left: -1, top: 2, width: 4, height: 3 }, [1, 2, 3]);
    const inside = (x: number, y: number) => x >= 1 && y < 2;
    const want = picture(4, 3, 3, (x, y, c) =>
      inside(x, y) ? at(image, x - 1, y + 2)[c] : [1, 2, 3][c],
    );
    expect(part).toEqual(want);
    const away = cropImage(image, { left: 9, top: 0, width: 2, height: 2 }, 8);
    expect([...away.data]).toEqual(Array(12).fill(8));
  });

  test("margins are taken away again by negative ones", () => {
    const margins = { left: 1, top: 2, right: 3, bottom: 4 };
    const padded = padImage(image, margins, 9);
    expect([padded.width, padded.height, ...at(padded, 0, 0)]).toEqual([9, 10, 9, 9, 9]);
    expect(padImage(padded, { left: -1, top: -2, right: -3, bottom: -4 })).toEqual(image);
  });

  test("the middle, and what is too small in the middle of black", () => {
    expect(at(centerCrop(image, { width: 3, height: 2 }), 0, 0)).toEqual(at(image, 1, 1));
    const larger = centerCrop(image, { width: 8, height: 4 });
    expect(at(larger, 1, 0)).toEqual([0, 0, 0]);
    expect(at(larger, 2, 0)).toEqual(at(image, 0, 0)); // 3 columns more: 2 to the left
  });

  test("mirrored twice is as before", () => {
    expect(at(flipImage(image), 0, 1)).toEqual(at(image, 4, 1));
    expect(flipImage(flipImage(image))).toEqual(image);
  });
});

describe("random crops", () => {
  const size = fc.record({
    width: fc.integer({ min: 1, max: 300 }),
    height: fc.integer({ min: 1, max: 300 }),
  });

  test("lie inside, with the ratio that was asked for", () => {
    fc.assert(
      fc.property(size, fc.nat(), ({ width, height }, seed) => {
        const scale = [0.2, 0.9] as const;
        const r = randomCropRegion({ width, height }, randomOf(seed), { scale });
        expect(r.left >= 0 && r.top >= 0 && r.width > 0 && r.height > 0).toBe(true);
        expect(r.left + r.width <= width && r.top + r.height <= height).toBe(true);
        // Sides are rounded to whole pixels.
        const [least, most] = [(r.width - 0.5) / (r.height + 0.5), (r.width + 0.5) / (r.height - 0.5)]; // biome-ignore format: one line
        expect(most >= 3 / 4 && least <= 4 / 3).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  test("of a long image are its middle", () => {
    const r = randomCropRegion({ width: 3000, height: 30 }, () => 0.999, { scale: [1, 1] });
    expect(r).toEqual({ left: 1480, top: 0, width: 40, height: 30 });
  });

  test("that take all of a square are a resize; mirrors come with their probability", () => {
    const image = gradient(8, 8);
    const to = { width: 5, height: 5 };
    const all = randomResizedCrop(image, to, randomOf(1), { scale: [1, 1], ratio: [1, 1] });
    expect(all).toEqual(resizeImage(image, to));
    expect(randomFlip(image, () => 0.4)).toEqual(flipImage(image));
    expect(randomFlip(image, () => 0.4, 0.3)).toBe(image);
  });
});

describe("image processors", () => {
  beforeAll(() => useDevice("reference"));
  /** The file of openai/clip-vit-large-patch14-336, at a smaller size. */
  const file = `{"crop_size": 12, "do_center_crop": true, "do_normalize": true, "do_resize": true,
    "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 12}`;

  test("preprocessor_config.json as it is", async () => {
    const image = gradient(24, 18);
    const pixels = new CLIPImageProcessor(JSON.parse(file)).process([image, flipImage(image)]);
    expect(pixels.shape).toEqual([2, 3, 12, 12]);
    const resized = centerCrop(resizeImage(image, { width: 16, height: 12 }), {
      width: 12,
      height: 12,
    });
    const data = await pixels.data();
    for (const [x, y, c] of [[0, 0, 0], [7, 3, 1], [11, 11, 2]]) // biome-ignore format: one list
      expect(data[c * 144 + y * 12 + x]).toBeCloseTo(
        (at(resized, x, y)[c] / 255 - CLIP_MEAN[c]) / CLIP_STD[c],
        5,
      );
  });

  test("a width and a height squash; grey becomes RGB; steps can be left out", async () => {
    const processor = new CLIPImageProcessor({
      size: { width: 6, height: 6 },
      do_center_crop: false,
      do_normalize: false,
      do_rescale: false,
    });
    const image = gradient(9, 4, 1);
    const want = convertImage(squashImage(image, 6), "RGB");
    const data = await processor.process(image).data();
    expect([...data.subarray(0, 36)]).toEqual([...want.data.filter((_, i) => i % 3 === 0)]);
    expect(data.length).toBe(108);
  });

  test("the longer side has a bound if it is given one", () => {
    const shaped = (longest_edge: number, width: number, height: number) =>
      new CLIPImageProcessor({
        size: { shortest_edge: 10, longest_edge },
        do_center_crop: false,
      }).process(gradient(width, height)).shape;
    expect(shaped(100, 40, 20)).toEqual([1, 3, 10, 20]);
    expect(shaped(15, 20, 40)).toEqual([1, 3, 15, 8]); // 7.5 is rounded to even, 15 is 7.5 · 2
  });

  test("sizes that differ, and channels that do, are errors", () => {
    const uncropped = new CLIPImageProcessor({ size: 8, do_center_crop: false });
    expect(() => uncropped.process([gradient(8, 9), gradient(8, 10)])).toThrow(
      /one size, got 3 × 9 × 8, 3 × 10 × 8/,
    );
    expect(() => uncropped.process([])).toThrow(/no images/);
    const plain = new CLIPImageProcessor({ do_convert_rgb: false });
    expect(() => plain.process(gradient(4, 4, 1))).toThrow(/1 channels in image_mean, got 3/);
    const floats = { width: 1, height: 1, channels: 3, data: new Float32Array(3) } as never;
    expect(() => new CLIPImageProcessor({ size: 1, crop_size: 1 }).process(floats)).toThrow(/8-bit/);
    expect(() => new CLIPImageProcessor({ size: { width: 0, height: 3 } })).toThrow(/shortest_edge/);
  }); // biome-ignore format: one line each

  test("LLaVA's square has the mean colour around the image", async () => {
    const config = { size: 8, crop_size: 8, do_pad: true, do_normalize: false, do_rescale: false };
    const data = await new LlavaImageProcessor(config).process(gradient(8, 4)).data();
    expect([data[0], data[64], data[128]]).toEqual([122, 116, 104]);
    expect(data[2 * 8]).toBe(7);
  });

  test("LLaVA-NeXT's tiles make up the padded image; batches are filled up with zeros", async () => {
    const processor = new LlavaNextImageProcessor({
      size: 4,
      crop_size: 4,
      image_grid_pinpoints: [[4, 8], [8, 8]], // biome-ignore format: a list
      do_normalize: false,
      do_rescale: false,
    });
    const wide = gradient(8, 4);
    const { pixelValues, tiles, imageSizes } = processor.process([wide, gradient(8, 7)]);
    expect([tiles, pixelValues.shape]).toEqual([[3, 5], [2, 5, 3, 4, 4]]); // biome-ignore format: one line
    expect(imageSizes).toEqual([{ width: 8, height: 4 }, { width: 8, height: 7 }]); // biome-ignore format: one line
    const data = await pixelValues.data();
    const tile = (i: number, t: number) => [...data.subarray((i * 5 + t) * 48, (i * 5 + t + 1) * 48)];
    expect(tile(0, 2).slice(0, 4)).toEqual([4, 5, 6, 7].map((x) => at(wide, x, 0)[0]));
    expect(tile(0, 3)).toEqual(Array(48).fill(0));
    // One row of padding: below, where a half is rounded to.
    expect(tile(1, 3).slice(12, 16)).toEqual([0, 0, 0, 0]);
    expect(tile(1, 1).slice(0, 4)).not.toEqual([0, 0, 0, 0]);
  }); // biome-ignore format: short lines
});

describe("anyres", () => {
  // Image [width, height] → best size [width, height], and tokens with tiles of 336 and patches of
  // 14.
  test.each([
    [640, 480, 672, 672, 2340],
    [480, 640, 672, 672, 2352],
    [2000, 500, 1008, 336, 1890],
    [300, 300, 336, 672, 1176],
    [1200, 1200, 672, 672, 2928],
    [800, 400, 672, 336, 1752],
  ])("%i × %i is shown at %i × %i in %i tokens", (width, height, bestWidth, bestHeight, tokens) => {
    const pinpoints: readonly (readonly [number, number])[] = [
      [672, 336],
      [336, 672],
      [672, 672],
      [336, 1008],
      [1008, 336],
    ];
    const best = selectBestResolution({ width, height }, pinpoints);
    expect(best).toEqual({ width: bestWidth, height: bestHeight });
    const options = { tileSize: 336, patchSize: 14, pinpoints };
    expect(anyresTokens({ width, height }, options)).toBe(tokens);
  });

  test("without sizes to choose from there is an error", () => {
    const none = () => selectBestResolution({ width: 4, height: 1 }, []);
    expect(none).toThrow(/at least one size/);
  });
});

describe("sub-images", () => {
  beforeAll(() => useDevice("reference"));

  test("MM1's resolutions", () => {
    expect(subImageLayout()).toEqual({ side: 672, count: 5 });
    expect(subImageLayout({ resolution: 896 })).toEqual({ side: 448, count: 5 });
    expect(subImageLayout({ resolution: 1792 })).toEqual({ side: 896, count: 5 });
    expect(subImageLayout({ resolution: 378, grid: 1 })).toEqual({ side: 378, count: 1 });
    expect(() => subImageLayout({ resolution: 675 })).toThrow(/675 \/ 2/);
  });

  test("the whole image, then its quarters; the first images of a long prompt whole only", async () => {
    const plain = { do_normalize: false, do_rescale: false };
    const processor = new SubImageProcessor({ resolution: 8 }, plain);
    const image = gradient(12, 10);
    const parts = processor.split(image);
    const large = squashImage(image, 8);
    expect(parts[0]).toEqual(squashImage(image, 4));
    for (const [i, [left, top]] of [[0, 0], [4, 0], [0, 4], [4, 4]].entries()) // biome-ignore format: one list
      expect(parts[1 + i]).toEqual(cropImage(large, { left, top, width: 4, height: 4 }));
    const { pixelValues, counts } = processor.process([image, image, image], { full: 1 });
    expect([counts, pixelValues.shape]).toEqual([[1, 1, 5], [7, 3, 4, 4]]); // biome-ignore format: one line
    const data = await pixelValues.data();
    expect([...data.subarray(0, 48)]).toEqual([...data.subarray(96, 144)]);
  });
});

onEachDevice("patches and positions", () => {
  const rows = async (t: Tensor) => {
    const [width] = t.shape.slice(-1);
    const data = [...(await t.data())];
    return Array.from({ length: data.length / width }, (_, i) =>
      data.slice(i * width, (i + 1) * width),
    );
  };
  const close = (got: number[][], want: number[][]) =>
    want.forEach((row, i) => {
      for (const [j, w] of row.entries())
        expect(Math.abs(got[i][j] - w), `${i}, ${j}`).toBeLessThan(2e-5);
    });
  const grid = [[1, 2, 4, 8], [3, 1, 4, 1], [5, 9, 2, 6], [5, 3, 5, 8]]; // biome-ignore format: a grid

  test("positions of another grid, the class token as it was", async () => {
    const positions = tensor([[-1], ...grid.flat().map((v) => [v])]);
    const resized = resizePositions(positions, [4, 4], [3, 3]);
    const aa = [[1.197655, 2.636014, 5.683221], [4.474167, 4.063953, 2.981291], [5.116993, 4.407812, 6.84474]]; // biome-ignore format: one line
    close(await rows(resized.reshape([1, 10])), [[-1, ...aa.flat()]]);
    const plain = resizePositions(positions, [4, 4], [3, 3], { antialias: false });
    const noAa = [[1.278863, 2.650355, 6.536345], [4.419127, 4.219727, 2.617479], [4.876938, 3.864259, 7.340459]]; // biome-ignore format: one line
    close(await rows(plain.reshape([1, 10])), [[-1, ...noAa.flat()]]);
    const larger = resizePositions(tensor(grid.flat().map((v) => [v])), [4, 4], [6, 6]);
    close(await rows(larger.reshape([6, 6])), [[0.789647, 1.318112, 2.316277, 3.522905, 6.475232, 8.753982]]); // biome-ignore format: one line
  });

  test("patches are row by row, and become images again", async () => {
    const images = tensor(Float32Array.from({ length: 48 }, (_, i) => i), { shape: [1, 2, 4, 6] }); // biome-ignore format: one line
    const patches = patchify(images, 2);
    expect(patches.shape).toEqual([1, 6, 8]);
    expect((await rows(patches))[1]).toEqual([2, 26, 3, 27, 8, 32, 9, 33]);
    expect(await rows(unpatchify(patches, 2, [2, 3]))).toEqual(await rows(images));
    expect(() => patchify(images, 4)).toThrow(/multiples of 4/);
    expect(() => unpatchify(patches, 2)).toThrow(/got \[1, 6, 8\]/);
    const [first] = await rows(normalizedPatches(patches));
    const mean = [0, 24, 1, 25, 6, 30, 7, 31].reduce((a, b) => a + b) / 8;
    const variance = [0, 24, 1, 25, 6, 30, 7, 31].reduce((a, b) => a + (b - mean) ** 2, 0) / 7;
    close([first], [[(0 - mean) / Math.sqrt(variance), (24 - mean) / Math.sqrt(variance)]]);
  });

  test("tiles' features are put together, unpadded, with a newline after each row", async () => {
    // 3 patches a side, 1 × 2 tiles; the image is half as wide again as it is high, so a column is
    // cut off at each side.
    const options = { tileSize: 6, patchSize: 2, pinpoints: [[6, 12]] as const };
    const layout = anyresLayout({ width: 8, height: 12 }, options);
    expect(layout).toMatchObject({ rows: 1, columns: 2, side: 3, top: 0, left: 2, height: 3 });
    expect([layout.width, layout.tokens]).toEqual([2, 9 + 6 + 3]);
    const features = tensor(Float32Array.from({ length: 27 }, (_, i) => i), { shape: [3, 9, 1] }); // biome-ignore format: one line
    const merged = mergeAnyres(features, tensor([-1]), layout);
    const tiles = [11, 18, -1, 14, 21, -1, 17, 24, -1];
    expect([...(await merged.data())]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, ...tiles]);
    expect(() => mergeAnyres(features.narrow(0, 0, 2), tensor([-1]), layout)).toThrow(
      /\[3, 9, D\]/,
    );
  });
});
