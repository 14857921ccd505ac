/** @file Pictures are decoded by the page itself: the package that does it in Node is not there. Runs in pages only. */
import { DataError } from "hinode";
import { decodeImage } from "hinode/models";
import { expect, test } from "vitest";

const bytes = (base64: string) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

const pixels = [10, 20, 30, 200, 100, 50, 0, 0, 0, 255, 255, 255, 7, 8, 9, 60, 70, 80];
/** These pixels in two rows, with a colour profile and an EXIF orientation. */
const png = bytes(
  "iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAIAAAASFvFNAAABP2lDQ1BpY2MAABiVfZC/SwJxGMY/11WWWA05NBQc" +
    "JU0FUUtTgYZOEfgj1Kbz/FGgdt33QprLoaloiEZrCaLZxhz6A4KgIQqirdWghpKLrw5aUM/yfnh4Xt6XB5TnvFEQ" +
    "3RoUirYVDvm1eCKpuV5Q8dLPIGO6IczlSDAKIPSSMGwrzw+936PIeTe9rhfTO6/Xq8kFpbo7UY4FP1Yu+F/udEYY" +
    "wBfgM0zLBkUDxku2KXkJ8BrrehqUODBlxRNJUPakn2vxieRUiy8lW9FwAJQaoOU6ONXBhfy2vCslv/dkirEI0AeM" +
    "IggTwv9HpreZCRBgBmRfv3sQ2bnZ1pZnEXqeHOdtElyH0DhynM9Tx2mcgfoIta32/mYF5uugHrS91DFc7cPIQ9vz" +
    "VWCoDNUbU7f0pqUCXdkNqJ/DQAKGb8G99g3j4l+x2lMbhgAAALRlWElmSUkqAAgAAAAGABIBAwABAAAABgAAABoB" +
    "BQABAAAAVgAAABsBBQABAAAAXgAAACgBAwABAAAAAgAAABMCAwABAAAAAQAAAGmHBAABAAAAZgAAAAAAAAA4YwAA" +
    "6AMAADhjAADoAwAABgAAkAcABAAAADAyMTABkQcABAAAAAECAwAAoAcABAAAADAxMDABoAMAAQAAAP//AAACoAQA" +
    "AQAAAAMAAAADoAQAAQAAAAIAAAAAAAAAjNrdVAAAAAlwSFlzAAAD6AAAA+gBtXtSawAAABxJREFUCJlj4BKRO5Fi" +
    "xMDAwPD//392Dk4btwAAMz4FgunJW88AAAAASUVORK5CYII=",
);
/** The same without loss. */
const webp = bytes(
  "UklGRkwAAABXRUJQVlA4TD8AAAAvAkAAAC+gFgACpncxBJG/WxoK2khhfrD0oBPPEAmQkOke8f8ajzj/AfB/HMWx" +
    "rd5AIdsIcGr3iBzTRfQ/zgoA",
);
/** 3 × 2 pixels of rgb(128, 64, 32). */
const jpeg = bytes(
  "/9j/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYU" +
    "GBIUFRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU" +
    "FBQUFBQUFBT/wAARCAACAAMDASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAj/xAAUEAEAAAAAAAAAAAAA" +
    "AAAAAAAA/8QAFAEBAAAAAAAAAAAAAAAAAAAAB//EABQRAQAAAAAAAAAAAAAAAAAAAAD/2gAMAwEAAhEDEQA/AJ8A" +
    "G5df/9k=",
);
/** A red pixel, and one that is not seen. */
const alpha = bytes(
  "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAYAAAD0In+KAAAACXBIWXMAAAPoAAAD6AG1e1JrAAAAEUlEQVQImWP4" +
    "z8Dwn5OTkwEADU0CGihEAzgAAAAASUVORK5CYII=",
);

test("levels come out as they are stored, also from a Blob", async () => {
  const want = { width: 3, height: 2, channels: 3, data: new Uint8Array(pixels) };
  expect(await decodeImage(webp)).toEqual(want);
  expect(await decodeImage(new Blob([webp]))).toEqual(want);
});

test("pictures are turned as EXIF says", async () => {
  const at = (x: number, y: number) => pixels.slice((y * 3 + x) * 3, (y * 3 + x + 1) * 3);
  const data = [0, 1, 2].flatMap((x) => [...at(x, 1), ...at(x, 0)]);
  const want = { width: 2, height: 3, channels: 3, data: new Uint8Array(data) };
  expect(await decodeImage(png)).toEqual(want);
});

test("or left as they are stored", async () => {
  const want = { width: 3, height: 2, channels: 3, data: new Uint8Array(pixels) };
  expect(await decodeImage(png, { orientation: false })).toEqual(want);
});

test("files that were cut off are errors", async () => {
  for (const file of [png, webp, jpeg])
    await expect(decodeImage(file.subarray(0, file.length - 20))).rejects.toThrow(/the first \d+ bytes/); // biome-ignore format: one line
});

test("JPEG comes out nearly", async () => {
  const { width, height, data } = await decodeImage(jpeg);
  expect([width, height, data.length]).toEqual([3, 2, 18]);
  for (const [i, level] of data.entries())
    expect(Math.abs(level - [128, 64, 32][i % 3])).toBeLessThanOrEqual(4);
});

test("alpha is dropped or kept", async () => {
  expect([...(await decodeImage(alpha)).data.subarray(0, 3)]).toEqual([255, 0, 0]);
  const { channels, data } = await decodeImage(alpha, { mode: "RGBA" });
  expect([channels, data[3], data[7]]).toEqual([4, 255, 0]);
});

test("bytes that are no picture are an error", async () => {
  await expect(decodeImage(new Uint8Array([1, 2, 3]))).rejects.toThrow(DataError);
});
