/**
 * @file torch.fft and what PyTorch's complex tensors are here: real ones with a last axis of 2. Which tensors PyTorch would
 * call complex is noted beside them.
 */
import type { Tensor } from "hinode";
import { exported, type Kwargs, named, type Value } from "./values.ts";

const complex = new WeakSet<Tensor>();
const marked = (x: Tensor): Tensor => {
  complex.add(x);
  return x;
};
const asComplex = (x: Tensor): Tensor =>
  complex.has(x) ? x : exported("stack")([x, exported("zerosLike")(x)], -1);

type Function = (args: Value[], kwargs: Kwargs) => Value;

/** `fft` of the library, whose input and result may be complex or real. */
const transform = (
  name: string,
  length: "n" | "s",
  input: "complex" | "real",
): [string, Function] => [
  `torch.fft.${name}`,
  (args, kwargs) => {
    const { [length]: size, dim, norm, ...rest } = named(`input ${length} dim norm`, args, kwargs);
    const x = input === "complex" ? asComplex(rest.input) : rest.input;
    const options = Object.entries({ [length]: size, dim, norm }).filter(([, v]) => v != null);
    const result = exported(`fft.${name}`)(x, Object.fromEntries(options));
    return name.startsWith("irfft") ? result : marked(result);
  },
];

const part =
  (i: number): Function =>
  ([x], { input = x }) =>
    complex.has(input) ? input.select(-1, i) : input;

export const spectral: Readonly<Record<string, Function>> = {
  ...Object.fromEntries([
    transform("fft", "n", "complex"),
    transform("ifft", "n", "complex"),
    transform("rfft", "n", "real"),
    transform("irfft", "n", "complex"),
    transform("fft2", "s", "complex"),
    transform("ifft2", "s", "complex"),
    transform("rfft2", "s", "real"),
    transform("irfft2", "s", "complex"),
  ]),
  "torch.view_as_real": ([x]) => exported("mul")(x, 1),
  "torch.view_as_complex": ([x]) => marked(exported("mul")(x, 1)),
  "torch.complex": ([real, imag]) => marked(exported("stack")([real, imag], -1)),
  "torch.real": part(0),
  "torch.imag": part(1),
  "torch.abs": ([x], { input = x }) =>
    complex.has(input) ? exported("norm")(input, 2, -1) : exported("abs")(input),
};
