/**
 * @file Files of pictures (PNG, JPEG, WebP) become pixels: in browsers by the browser, elsewhere by
 * sharp, an optional package that is asked for at run time. Unless told otherwise both do what
 * transformers' `load_image` does, which models were trained with: they turn pictures as EXIF says,
 * and leave the levels as they are stored, without regard to a colour profile.
 *
 * As Pillow's `convert("RGB")`: palettes are looked up, 16-bit colours keep their upper 8 bits,
 * CMYK becomes (255 − c)(255 − k) / 255, alpha is dropped. Other than Pillow's, which clips them to
 * 255: 16-bit greys keep their upper 8 bits too.
 */
import { DataError, describe, HinodeError } from "../../core/errors.ts";
import { isCutOff, withoutOrientation } from "./file.ts";
import { convertImage, type ImageMode, type RawImage } from "./image.ts";

/** The part of sharp that is used. */
type Sharp = (
  bytes: Uint8Array,
  options: { autoOrient: boolean; ignoreIcc: boolean },
) => SharpPipeline;
interface SharpPipeline {
  metadata(): Promise<{ readonly space?: string }>;
  pipelineColourspace(space: "cmyk"): SharpPipeline;
  toColourspace(space: "cmyk"): SharpPipeline;
  raw(): { toBuffer(options: { resolveWithObject: true }): Promise<Decoded> };
}
interface Decoded {
  readonly data: Uint8Array;
  readonly info: { readonly width: number; readonly height: number; readonly channels: number };
}

export interface DecodeOptions {
  /** What the pixels are converted to: "RGB" unless given. Alpha is dropped, not blended. */
  readonly mode?: ImageMode;
  /**
   * Turns the picture as EXIF says, which is the default; as `Image.open` of Pillow leaves it
   * otherwise.
   */
  readonly orientation?: boolean;
  /**
   * Applies a colour profile in the file, so that the levels are sRGB's; they stay as stored by
   * default.
   */
  readonly profile?: boolean;
}

/**
 * Decodes a PNG, JPEG or WebP file (and what else the platform knows); of an animation the first
 * picture. Browsers keep no colours where alpha is 0, round them where it is small, and convert
 * CMYK in their own way.
 * @throws DataError for bytes that are no picture or not a whole one, and in Node without the
 * package sharp.
 */
export async function decodeImage(
  source: Uint8Array | ArrayBuffer | Blob,
  { mode = "RGB", orientation = true, profile = false }: DecodeOptions = {},
): Promise<RawImage> {
  const buffer = source instanceof Blob ? await source.arrayBuffer() : source;
  const given = buffer instanceof Uint8Array ? buffer : new Uint8Array(buffer);
  const failure = (message: string, cause?: unknown) =>
    new DataError(describe("decodeImage", "a PNG, JPEG or WebP file", message), { cause });
  if (isCutOff(given)) throw failure(`the first ${given.length} bytes of one`);
  try {
    const inPage = "OffscreenCanvas" in globalThis && "createImageBitmap" in globalThis;
    const decoded = inPage
      ? // Pages turn whatever says that it is to be turned.
        await decodeInPage(orientation ? given : withoutOrientation(given), profile)
      : await decodeBySharp(given, orientation, profile);
    return convertImage(decoded, mode);
  } catch (error) {
    if (error instanceof HinodeError) throw error;
    throw failure((error as Error).message, error);
  }
}

async function decodeInPage(bytes: Uint8Array, profile: boolean): Promise<RawImage> {
  const bitmap = await createImageBitmap(new Blob([bytes as Uint8Array<ArrayBuffer>]), {
    imageOrientation: "from-image",
    premultiplyAlpha: "none",
    colorSpaceConversion: profile ? "default" : "none",
  });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", {
    willReadFrequently: true,
  });
  if (!context) throw new Error("no canvas of this size");
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  return { width, height, channels: 4, data: new Uint8Array(data.buffer) };
}

async function decodeBySharp(
  bytes: Uint8Array,
  autoOrient: boolean,
  profile: boolean,
): Promise<RawImage> {
  const decoder = sharp()(bytes, { autoOrient, ignoreIcc: !profile });
  // Without a profile sharp assumes one for inks, and gives other colours than everybody else.
  const inks = !profile && (await decoder.metadata()).space === "cmyk";
  const stored = inks ? decoder.pipelineColourspace("cmyk").toColourspace("cmyk") : decoder;
  const { data, info } = await stored.raw().toBuffer({ resolveWithObject: true });
  const { width, height, channels } = info;
  const levels = new Uint8Array(data.buffer, data.byteOffset, data.length);
  if (inks && channels === 4) return { width, height, channels: 3, data: colorsOfInks(levels) };
  return { width, height, channels, data: levels };
}

/** Cyan, magenta, yellow and black as Pillow has them in RGB. */
function colorsOfInks(inks: Uint8Array): Uint8Array {
  const colors = new Uint8Array((inks.length / 4) * 3);
  for (let i = 0; i < colors.length; i++) {
    const pixel = Math.floor(i / 3);
    const light = 255 - inks[4 * pixel + 3];
    const ink = inks[4 * pixel + (i % 3)];
    colors[i] = light - Math.round((ink * light) / 255);
  }
  return colors;
}

function sharp(): Sharp {
  try {
    // No import(): bundlers for pages would look for a package that cannot be there.
    const { createRequire } = globalThis.process.getBuiltinModule("node:module");
    return createRequire(import.meta.url)("sharp");
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    const got = code?.endsWith("MODULE_NOT_FOUND") ? "none" : message;
    throw new DataError(describe("decodeImage", "the package sharp", got, "npm install sharp"), {
      cause: error,
    });
  }
}
