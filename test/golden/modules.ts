/** @file The fixtures of PyTorch's modules: builds ours and puts the stored parameters into it. */
import { ones, Tensor, tensor } from "hinode";
import { Linear, MultiheadAttention } from "hinode/nn";
import { NotCovered } from "./values.ts";

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
  const layer = (weight: Tensor, bias: Tensor | undefined): Linear => {
    const [outFeatures, inFeatures] = weight.shape;
    const made = new Linear(inFeatures, outFeatures, { bias: Boolean(bias) });
    return Object.assign(made, bias ? { weight, bias } : { weight });
  };
  const { in_proj_weight, in_proj_bias } = inputs;
  if (in_proj_weight) module.qkv = layer(in_proj_weight, in_proj_bias);
  else {
    const biases = in_proj_bias?.chunk(3, 0);
    module.q = layer(inputs.q_proj_weight, biases?.[0]);
    module.k = layer(inputs.k_proj_weight, biases?.[1]);
    module.v = layer(inputs.v_proj_weight, biases?.[2]);
  }
  module.out = layer(inputs["out_proj.weight"], inputs["out_proj.bias"]);
  // Ours takes the batch first.
  const turned = args.batch_first === false && inputs.query.shape.length === 3;
  const turn = (t: Tensor): Tensor => (turned ? t.transpose(0, 1) : t);
  const [query, key, value] = ["query", "key", "value"].map((name) => turn(inputs[name]));
  const [L, S] = [query.shape.at(-2)!, key.shape.at(-2)!];
  const needWeights = args.need_weights !== false;
  const results = module.forward(query, key, value, {
    attnMask: maskOf(inputs.attn_mask ?? args.attn_mask, [L, S]),
    keyPaddingMask: maskOf(inputs.key_padding_mask ?? args.key_padding_mask, [L, S]),
    needWeights,
    averageAttnWeights: average_attn_weights as boolean,
  });
  const [out, ...weights] = [results].flat().filter((t) => t instanceof Tensor);
  return [turn(out), ...(needWeights ? weights : [])];
}

/** A mask of bools in a list, a stored one, or the causal one that fixtures describe in words. */
function maskOf(mask: unknown, [L, S]: readonly [number, number]): Tensor | null {
  if (mask === undefined || mask === null) return null;
  if (mask instanceof Tensor) return mask;
  if (Array.isArray(mask)) return tensor(mask, { dtype: "bool" });
  if (!/causal|triu/.test(`${mask}`)) throw new NotCovered(`attn_mask: ${mask}`);
  return ones([L, S], { dtype: "bool" }).triu(1);
}
