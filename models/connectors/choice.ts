/**
 * @file A connector by its name in a model's configuration; the widths and the grid come from the
 * models that it joins.
 */
import { ArgumentError, describe } from "../../core/errors.ts";
import type { Grid } from "../vision/positions.ts";
import { type AttentionPoolConfig, AttentionPoolConnector } from "./attention-pool.ts";
import { AveragePoolConnector } from "./average-pool.ts";
import { CAbstractor, type CAbstractorConfig } from "./c-abstractor.ts";
import { type Connector, sideOf } from "./connector.ts";
import { LinearConnector, MlpConnector, type MlpConnectorConfig } from "./projection.ts";

/** What the models on both sides say. */
export interface Ends {
  readonly visionWidth: number;
  readonly patches: Grid;
  readonly width: number;
}

/** `tokens` image tokens per image, or, from "linear" and "mlp", one per patch. */
export type ConnectorChoice =
  | { readonly kind: "average"; readonly tokens: number }
  | ({ readonly kind: "attention" } & Omit<AttentionPoolConfig, keyof Ends>)
  | ({ readonly kind: "c-abstractor" } & Omit<CAbstractorConfig, keyof Ends>)
  | { readonly kind: "linear"; readonly bias?: boolean }
  | ({ readonly kind: "mlp" } & Omit<MlpConnectorConfig, keyof Ends>);

export function createConnector(choice: ConnectorChoice, ends: Ends): Connector {
  switch (choice.kind) {
    case "average":
      return new AveragePoolConnector({ ...ends, grid: sideOf("average", choice.tokens) });
    case "attention":
      return new AttentionPoolConnector({ ...choice, ...ends });
    case "c-abstractor":
      return new CAbstractor({ ...choice, ...ends });
    case "linear":
      return new LinearConnector({ ...choice, ...ends });
    case "mlp":
      return new MlpConnector({ ...choice, ...ends });
    default:
      throw new ArgumentError(
        describe("createConnector", "average, attention, c-abstractor, linear or mlp", `${(choice as { kind?: unknown }).kind}`),
      ); // biome-ignore format: one line
  }
}
