/** @file Activations by the names that configurations of the Hugging Face library give them. */
import { ArgumentError, describe } from "../core/errors.ts";
import { gelu, quickGelu, type Tensor } from "../core/index.ts";

const tanhGelu = (x: Tensor): Tensor => gelu(x, { approximate: "tanh" });

const byName = {
  /** With erf. */
  gelu: (x: Tensor) => gelu(x),
  gelu_python: (x: Tensor) => gelu(x),
  /** Four names of one formula with tanh. */
  gelu_new: tanhGelu,
  gelu_fast: tanhGelu,
  gelu_pytorch_tanh: tanhGelu,
  gelu_python_tanh: tanhGelu,
  /** x · σ(1.702 x), which OpenAI's CLIP was trained with: the exact GELU in its place costs accuracy. */
  quick_gelu: quickGelu,
  relu: (x: Tensor) => x.relu(),
  relu2: (x: Tensor) => x.relu().square(),
  silu: (x: Tensor) => x.silu(),
  swish: (x: Tensor) => x.silu(),
  sigmoid: (x: Tensor) => x.sigmoid(),
  tanh: (x: Tensor) => x.tanh(),
} as const;

export type ActivationName = keyof typeof byName;

/** @throws ArgumentError that lists the names, for another one. */
export function activationNamed(name: string): (x: Tensor) => Tensor {
  if (Object.hasOwn(byName, name)) return byName[name as ActivationName];
  throw new ArgumentError(
    describe("activationNamed", `one of ${Object.keys(byName).join(", ")}`, `"${name}"`),
  );
}
