/**
 * @file Packages of the peers. They are installed only to be measured, so nothing here knows their types: what they give is
 * `Foreign`, and each peer's file says which of its functions it calls.
 */
import { createRequire } from "node:module";

// biome-ignore lint/suspicious/noExplicitAny: types that are not installed
export type Foreign = any;

const require = createRequire(import.meta.url);

export const requirePeer = (name: string): Foreign => require(name);

export const importPeer = async (name: string): Promise<Foreign> => import(name);

export const versionOf = (name: string): string =>
  (require(`./node_modules/${name}/package.json`) as { version: string }).version;
