/** @file The fixtures of PyTorch's modules: builds ours and puts the stored parameters into it. */
import { ones, type Tensor, tensor } from "hinode";
import { Linear, MultiheadAttention } from "hinode/nn";
import { NotCovered } from "./expression.ts";

/** What the fixture says of the module and of the call. */
export type ModuleArgs = Readonly<Record<string, unknown>>;

/** Calls the module that `op` names; `inputs` are its arguments and parameters by PyTorch's names. */
export function callModule(
  op: string,
  args: ModuleArgs,
  inputs: Readonly<Record<string, Tensor>>,
): Tensor[] {
  if (op === "torch.nn.MultiheadAttention") return attention(args, inputs);
  throw new NotCovered(op.replace("torch.", ""));
}

function attention(args: ModuleArgs, inputs: Readonly<Record<string, Tensor>>): Tensor[] {
  const { embed_dim, num_heads, kdim, vdim, average_attn_weights } = args;
  const module = new MultiheadAttention(embed_dim as number, num_heads as number, {
    kdim: (kdim as number | null) ?? undefined,
    vdim: (vdim as number | null) ?? undefined,
  });
  const layer = (weight: Tensor, bias: Tensor): Linear => {
    const [outFeatures, inFeatures] = weight.shape;
    return Object.assign(new Linear(inFeatures, outFeatures), { weight, bias });
  };
  const { query, key, value, in_proj_weight, in_proj_bias } = inputs;
  if (in_proj_weight) module.qkv = layer(in_proj_weight, in_proj_bias);
  else {
    const biases = in_proj_bias.chunk(3, 0);
    module.q = layer(inputs.q_proj_weight, biases[0]);
    module.k = layer(inputs.k_proj_weight, biases[1]);
    module.v = layer(inputs.v_proj_weight, biases[2]);
  }
  module.out = layer(inputs["out_proj.weight"], inputs["out_proj.bias"]);
  const [L, S] = [query.shape.at(-2)!, key.shape.at(-2)!];
  const padding = args.key_padding_mask as number[][] | undefined;
  return module.forward(query, key, value, {
    // The fixture describes the only mask that there is in words.
    attnMask: args.attn_mask ? ones([L, S], { dtype: "bool" }).triu(1) : null,
    keyPaddingMask: padding ? tensor(padding, { dtype: "bool" }) : null,
    needWeights: true,
    averageAttnWeights: average_attn_weights as boolean,
  });
}
