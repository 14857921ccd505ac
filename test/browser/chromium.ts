/**
 * @file A real browser from npm alone: the headless Chromium of @sparticuz/chromium with the libraries and fonts that bare
 * systems lack, driven through playwright-core. Unpacked once into the cache. Its WebGPU computes on the CPU
 * (SwiftShader), so no test needs a GPU.
 */
import { spawnSync } from "node:child_process";
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

interface Unpacked {
  readonly path: string;
  readonly env: Record<string, string | undefined>;
}

async function unpackAll(): Promise<Unpacked> {
  const libraries = unpack("chromium-libraries", join(bin, "al2023.tar.br"));
  const fonts = unpack("chromium-fonts", join(bin, "fonts.tar.br"));
  // SwiftShader is looked for next to the executable.
  const folder = unpack("chromium", join(bin, "swiftshader.tar.br"));
  return {
    path: await executable(folder),
    env: {
      ...process.env,
      FONTCONFIG_FILE: fontConfiguration(fonts),
      LD_LIBRARY_PATH: [join(libraries, "lib"), folder].join(":"),
      VK_ICD_FILENAMES: join(folder, "vk_swiftshader_icd.json"),
    },
  };
}

let unpacked: Unpacked;

async function reasonAgainst(): Promise<string | null> {
  if (process.platform !== "linux" || process.arch !== "x64")
    return "the npm Chromium is for Linux on x64 only";
  if (!existsSync(join(bin, "chromium.br"))) return "@sparticuz/chromium is not installed";
  unpacked = await unpackAll();
  const { path, env } = unpacked;
  const { status, error, stderr } = spawnSync(path, ["--version"], { env, encoding: "utf8" });
  return status === 0 ? null : `it does not start: ${error?.message ?? stderr.trim()}`;
}

/** Why there is no browser here, or null. Where CI is set, that is an error. */
export const noBrowser: string | null = await reasonAgainst();
if (noBrowser && process.env.CI) throw new Error(`no Chromium for the tests: ${noBrowser}`);

export const launch = (): Promise<Browser> =>
  chromium.launch({
    executablePath: unpacked.path,
    env: unpacked.env as Record<string, string>,
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
      // With it SwiftShader takes seconds for a kernel that has workgroup memory.
      "--disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension",
    ],
  });
