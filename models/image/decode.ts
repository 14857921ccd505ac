/**
 * @file Files of pictures (PNG, JPEG, WebP) become pixels: in browsers by the browser, elsewhere by sharp, an optional package
 * that is asked for at run time. Both turn pictures as EXIF says, which browsers cannot be kept from, and leave the levels as
 * they are stored, without regard to a colour profile: what transformers' `load_image` does.
 */
import { DataError, describe, HinodeError } from "../../core/errors.ts";
import { convertImage, type ImageMode, type RawImage } from "./image.ts";

/** The part of sharp that is used. */
type Sharp = (
  bytes: Uint8Array,
  options: { autoOrient: boolean; ignoreIcc: boolean },
) => {
  raw(): { toBuffer(options: { resolveWithObject: true }): Promise<Decoded> };
};
interface Decoded {
  readonly data: Uint8Array;
  readonly info: { readonly width: number; readonly height: number; readonly channels: number };
}

/**
 * Decodes a PNG, JPEG or WebP file (and what else the platform knows); of an animation the first picture. `mode` is what the
 * pixels are converted to (default "RGB": alpha is dropped, as `Image.open(f).convert("RGB")` does). Browsers keep no
 * colours where alpha is 0, and round them where it is small.
 * @throws DataError for bytes that are no picture, and in Node without the package sharp.
 */
export async function decodeImage(
  source: Uint8Array | ArrayBuffer | Blob,
  { mode = "RGB" }: { mode?: ImageMode } = {},
): Promise<RawImage> {
  try {
    const inPage = "OffscreenCanvas" in globalThis && "createImageBitmap" in globalThis;
    return convertImage(await (inPage ? decodeInPage(source) : decodeBySharp(source)), mode);
  } catch (error) {
    if (error instanceof HinodeError) throw error;
    const { message } = error as Error;
    throw new DataError(describe("decodeImage", "a PNG, JPEG or WebP file", message), {
      cause: error,
    });
  }
}

async function decodeInPage(source: Uint8Array | ArrayBuffer | Blob): Promise<RawImage> {
  const blob = source instanceof Blob ? source : new Blob([source as Uint8Array<ArrayBuffer>]);
  const bitmap = await createImageBitmap(blob, {
    imageOrientation: "from-image",
    premultiplyAlpha: "none",
    colorSpaceConversion: "none",
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

async function decodeBySharp(source: Uint8Array | ArrayBuffer | Blob): Promise<RawImage> {
  const bytes = source instanceof Blob ? await source.arrayBuffer() : source;
  const decoder = sharp()(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes), {
    autoOrient: true,
    ignoreIcc: true,
  });
  const { data, info } = await decoder.raw().toBuffer({ resolveWithObject: true });
  const { width, height, channels } = info;
  return {
    width,
    height,
    channels,
    data: new Uint8Array(data.buffer, data.byteOffset, data.length),
  };
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
