/**
 * @file What checkpoints call the weights of connectors: Honeybee's C-Abstractor (with timm's
 * RegStage) and LLaVA's projector.
 */

import type { Linear } from "../../nn/index.ts";
import { layerNames, type NameMap, type Names } from "../weights.ts";
import type { CAbstractor, RegBlock } from "./c-abstractor.ts";
import type { MlpConnector } from "./projection.ts";

/** honeybee.projectors.CAbstractor */
export function cAbstractorNames(connector: CAbstractor, prefix = ""): NameMap {
  const { positions, eos, preNorm, before, after, readout } = connector;
  function* names(): Names {
    if (positions) yield [`${prefix}pos_emb`, { cell: positions, shape: [1, ...positions.shape] }];
    if (eos) yield [`${prefix}eos_tokens`, { cell: eos, shape: [1, ...eos.shape] }];
    if (preNorm) yield* layerNames(`${prefix}prenorm`, preNorm);
    // net is stage, pooling, stage.
    for (const [stage, blocks] of [[0, before], [2, after]] as const) // biome-ignore format: pairs
      for (const [i, block] of blocks.entries())
        yield* regBlockNames(`${prefix}net.${stage}.b${i + 1}`, block);
    // Activations stand between the linear layers.
    for (const [i, layer] of readout.entries())
      yield* layerNames(`${prefix}readout.${2 * i}`, layer);
  }
  return new Map(names());
}

/** timm.models.regnet.Bottleneck: convolutions of 1 × 1 that are linear layers here. */
function* regBlockNames(name: string, block: RegBlock): Names {
  yield* pointwise(`${name}.conv1.conv`, block.reduce);
  yield* layerNames(`${name}.conv1.bn`, block.reduceNorm);
  yield [`${name}.conv2.conv.weight`, { cell: block.spatial.weight }];
  yield* layerNames(`${name}.conv2.bn`, block.spatialNorm);
  yield* pointwise(`${name}.se.fc1`, block.excite.down);
  yield* pointwise(`${name}.se.fc2`, block.excite.up);
  yield* pointwise(`${name}.conv3.conv`, block.expand);
  yield* layerNames(`${name}.conv3.bn`, block.expandNorm);
  if (!block.shortcut) return;
  yield* pointwise(`${name}.downsample.conv`, block.shortcut);
  yield* layerNames(`${name}.downsample.bn`, block.shortcutNorm!);
}

function* pointwise(name: string, { weight, bias }: Linear): Names {
  yield [`${name}.weight`, { cell: weight, shape: [...weight.shape, 1, 1] }];
  if (bias) yield [`${name}.bias`, { cell: bias }];
}

/** transformers.LlavaMultiModalProjector, and LLaVA-NeXT's */
export function mlpConnectorNames(connector: MlpConnector, prefix = ""): NameMap {
  return new Map([
    ...layerNames(`${prefix}linear_1`, connector.up),
    ...layerNames(`${prefix}linear_2`, connector.down),
  ]);
}
