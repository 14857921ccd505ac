/**
 * @file A real browser from npm alone: the headless Chromium of @sparticuz/chromium with the libraries and fonts that bare
 * systems lack, driven through playwright-core. Unpacked once into the cache. Its WebGPU computes on the CPU
 * (SwiftShader), so no test needs a GPU.
 */
import { createReadStream, createWriteStream, existsSync, rmSync, writeFileSync } from "node:fs";
import { rename } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";
import { type Browser, chromium } from "playwright-core";
import { unpack } from "../support/swiftshader.ts";

const bin = resolve(import.meta.dirname, "../../node_modules/@sparticuz/chromium/bin");

/** The executable in `folder`, written whole or not at all: another process may be doing the same. */
async function executable(folder: string): Promise<string> {
  const path = join(folder, "chromium");
  if (existsSync(path)) return path;
  const temporary = `${path}-${process.pid}`;
  try {
    await pipeline(
      createReadStream(join(bin, "chromium.br")),
      createBrotliDecompress(),
      createWriteStream(temporary, { mode: 0o755 }),
    );
    await rename(temporary, path);
  } finally {
    rmSync(temporary, { force: true });
  }
  return path;
}

/** Fonts for systems without any: what CSS calls system-ui and sans-serif is the one that comes with the package. */
function fontConfiguration(folder: string): string {
  const path = join(folder, "fonts.conf");
  const aliases = ["system-ui", "sans-serif"].map(
    (family) =>
      `<alias><family>${family}</family><prefer><family>Open Sans</family></prefer></alias>`,
  );
  writeFileSync(
    path,
    `<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<dir>${folder}</dir><dir>/usr/share/fonts</dir><cachedir>${join(folder, "cache")}</cachedir>
${aliases.join("\n")}</fontconfig>\n`,
  );
  return path;
}

/** Why there is no browser here, or null. */
export const noBrowser: string | null =
  process.platform !== "linux" || process.arch !== "x64"
    ? "the npm Chromium runs on x64 Linux only"
    : existsSync(join(bin, "chromium.br"))
      ? null
      : "the package @sparticuz/chromium is not installed";

export async function launch(): Promise<Browser> {
  const libraries = unpack("chromium-libraries", join(bin, "al2023.tar.br"));
  const fonts = unpack("chromium-fonts", join(bin, "fonts.tar.br"));
  // SwiftShader is looked for next to the executable.
  const folder = unpack("chromium", join(bin, "swiftshader.tar.br"));
  const paths = [join(libraries, "lib"), folder];
  return chromium.launch({
    executablePath: await executable(folder),
    headless: true,
    args: [
      "--no-sandbox",
      "--headless=shell",
      "--no-zygote",
      "--hide-scrollbars",
      "--force-color-profile=srgb",
      "--enable-unsafe-webgpu",
      "--use-webgpu-adapter=swiftshader",
      "--enable-features=Vulkan,WebGPU",
    ],
    env: {
      ...process.env,
      FONTCONFIG_FILE: fontConfiguration(fonts),
      LD_LIBRARY_PATH: paths.join(":"),
      VK_ICD_FILENAMES: join(folder, "vk_swiftshader_icd.json"),
    },
  });
}
