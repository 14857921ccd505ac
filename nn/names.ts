/**
 * @file PyTorch's names for our tensors, by which its state dicts and files are read. A path of ours in snake case is
 * PyTorch's, except below modules that say otherwise (Module.torchNames).
 */

/**
 * "blocks.0.selfAttn.qkv.weight" → "blocks.0.self_attn.in_proj_weight". `own`: what the module at a path says of the
 * paths below it.
 */
export function torchName(
  path: string,
  own: (prefix: string) => Readonly<Record<string, string>> | undefined,
): string {
  const parts = path.split(".");
  for (let i = 0; i < parts.length; i++) {
    const said = own(parts.slice(0, i).join("."))?.[parts.slice(i).join(".")];
    if (said !== undefined) return [...parts.slice(0, i).map(snakeCase), said].join(".");
  }
  return parts.map(snakeCase).join(".");
}

/** "numBatchesTracked" → "num_batches_tracked" */
const snakeCase = (name: string): string =>
  name.replace(/([a-z0-9])([A-Z])/g, (_, a, b) => `${a}_${b.toLowerCase()}`);
