/**
 * @file What has to be known of a picture's file before a decoder sees it: whether it is whole, and
 * where it says how the picture is to be turned. PNG, JPEG and WebP; of other files it says
 * nothing.
 */

/** A part of a file: PNG's chunks, JPEG's segments, WebP's chunks. */
interface Part {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

const text = (bytes: Uint8Array, at: number, length: number): string =>
  String.fromCharCode(...bytes.subarray(at, at + length));

type Format = "PNG" | "JPEG" | "WebP";

function formatOf(bytes: Uint8Array): Format | null {
  if (text(bytes, 1, 3) === "PNG" && bytes[0] === 0x89) return "PNG";
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return "JPEG";
  return text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 4) === "WEBP" ? "WebP" : null;
}

/** The parts in order, up to the first that reaches beyond the file. */
function* partsOf(bytes: Uint8Array, format: Format): Generator<Part> {
  if (format === "JPEG") {
    yield* segmentsOf(bytes);
    return;
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = { PNG: 8, WebP: 12 }[format];
  while (at + 8 <= bytes.length) {
    const length = view.getUint32(at + (format === "PNG" ? 0 : 4), format === "WebP");
    const name = text(bytes, at + (format === "PNG" ? 4 : 0), 4);
    const part = { name, start: at + 8, end: at + 8 + length };
    // A check sum behind PNG's; WebP's begin at even places.
    at = part.end + (format === "PNG" ? 4 : length % 2);
    if (at > bytes.length) return;
    yield part;
  }
}

/**
 * JPEG's codes of the start of a scan and of the picture's end; segments are named by their codes.
 */
const [SCAN, END] = ["218", "217"];

/**
 * JPEG's segments: a code, then a length that counts itself. The end has none. A scan's own bytes
 * follow its segment; there may be several, with tables between.
 */
function* segmentsOf(bytes: Uint8Array): Generator<Part> {
  for (let at = markerFrom(bytes, 2); at >= 0; ) {
    const name = `${bytes[at + 1]}`;
    const start = name === END ? at + 2 : at + 4;
    const end = name === END ? start : at + 2 + bytes[at + 2] * 256 + bytes[at + 3];
    // Also where a length is missing: it is NaN then.
    if (!(end >= start && end <= bytes.length)) return;
    yield { name, start, end };
    if (name === END) return;
    at = markerFrom(bytes, end);
  }
}

/**
 * The next 0xff that begins a segment, or −1: not one of a scan's (a 0 or a restart's code is
 * behind it), nor padding.
 */
function markerFrom(bytes: Uint8Array, from: number): number {
  const begins = (code: number) => code > 1 && code < 0xff && !(code >= 0xd0 && code <= 0xd7);
  let at = bytes.indexOf(0xff, from);
  while (at >= 0 && !begins(bytes[at + 1])) at = bytes.indexOf(0xff, at + 1);
  return at;
}

/** Whether the file ends before its picture does. Decoders of browsers fill the rest with grey. */
export function isCutOff(bytes: Uint8Array): boolean {
  const format = formatOf(bytes);
  if (format === null) return false;
  if (format === "WebP")
    return new DataView(bytes.buffer, bytes.byteOffset).getUint32(4, true) + 8 > bytes.length;
  const last = format === "PNG" ? "IEND" : END;
  return ![...partsOf(bytes, format)].some(({ name }) => name === last);
}

/**
 * The place of the two bytes of EXIF's orientation (tag 0x0112), and their order; null where
 * nothing is said.
 */
function orientationOf(bytes: Uint8Array): { at: number; littleEndian: boolean } | null {
  const format = formatOf(bytes);
  if (format === null) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const named = { PNG: "eXIf", JPEG: `${0xe1}`, WebP: "EXIF" }[format];
  for (const { name, start, end } of partsOf(bytes, format)) {
    if (format === "JPEG" && name === SCAN) return null;
    if (name !== named) continue;
    // JPEG's segments of this kind are shared with others; some writers of WebP keep its six
    // letters.
    const isMarked = text(bytes, start, 6) === "Exif\0\0";
    if (format === "JPEG" && !isMarked) continue;
    const first = isMarked ? start + 6 : start;
    const littleEndian = text(bytes, first, 2) === "II";
    if (first + 8 > end || (!littleEndian && text(bytes, first, 2) !== "MM")) continue;
    const list = first + view.getUint32(first + 4, littleEndian);
    if (list + 2 > end) continue;
    const count = view.getUint16(list, littleEndian);
    for (let i = 0, at = list + 2; i < count && at + 12 <= end; i++, at += 12)
      if (view.getUint16(at, littleEndian) === 0x0112) return { at: at + 8, littleEndian };
  }
  return null;
}

/**
 * The same file, in which EXIF says that the picture stands upright. The check sum of PNG's chunk
 * is no longer right then: decoders pass over such a chunk, which comes to the same.
 */
export function withoutOrientation(bytes: Uint8Array): Uint8Array {
  const found = orientationOf(bytes);
  if (!found) return bytes;
  const copy = new Uint8Array(bytes); // Not slice: a Buffer of Node would give a view.
  new DataView(copy.buffer).setUint16(found.at, 1, found.littleEndian);
  return copy;
}
