/** @file Files that are whole or not there: an interrupted program never leaves half of one under its final name. */
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/** Written beside the path, flushed, then renamed; the folder is made when it is missing. */
export async function writeAtomic(path: string, content: string | Uint8Array): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.tmp-${crypto.randomUUID()}`;
  try {
    await using file = await open(temporary, "wx");
    await file.writeFile(content);
    await file.sync();
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await rename(temporary, path);
}

/** Removes a file and what killed processes left of unfinished copies of it. */
export async function removeWithLeftovers(path: string): Promise<void> {
  const prefix = `${basename(path)}.tmp-`;
  const names = await readdir(dirname(path)).catch(() => []);
  const leftovers = names.filter((name) => name.startsWith(prefix));
  for (const name of [...leftovers, basename(path)])
    await rm(join(dirname(path), name), { force: true });
}
