/**
 * @file The PyTorch functions that need more than another name (functions.ts): overloads told apart by their arguments,
 * methods of tensors that are JavaScript's own business here, results whose shape depends on the data, torch.func.
 */
import { type DType, Tensor } from "hinode";
import { spectral } from "./spectral.ts";
import { transforms } from "./transforms.ts";
import { exported, type Kwargs, NotCovered, named, settled, type Value } from "./values.ts";

/** `float`: one of the arguments was written as a Python float, which our numbers do not know. */
export type Special = (args: Value[], kwargs: Kwargs, float: boolean) => Value;

/** PyTorch's dtypes as ours: its reference precision is our f32, its int64 our i32. */
export const dtypes: Readonly<Record<string, DType>> = Object.fromEntries(
  Object.entries({
    f32: "float32 float64 float double",
    f16: "float16 half",
    bf16: "bfloat16",
    i32: "int32 int64 int long int16 short",
    u8: "uint8",
    i8: "int8",
    bool: "bool",
  } as const).flatMap(([ours, names]) =>
    names.split(" ").map((n) => [`torch.${n}`, ours as DType]),
  ),
);

/** Names that are values. */
export const constants: Readonly<Record<string, Value>> = {
  ...dtypes,
  ...Object.fromEntries(
    ["torch", "math"].flatMap((m) => [
      [`${m}.pi`, Math.PI],
      [`${m}.e`, Math.E],
      [`${m}.inf`, Infinity],
      [`${m}.nan`, Number.NaN],
    ]),
  ),
  ...Object.fromEntries(
    (["sqrt", "exp", "log", "sin", "cos", "tan", "tanh", "floor", "ceil"] as const).map((f) => [
      `math.${f}`,
      Math[f],
    ]),
  ),
};

/** What a list of numbers or bools is in PyTorch. */
function typed(data: Value, dtype: DType | undefined, float: boolean): { dtype: DType } {
  const flat = [data].flat(9);
  if (dtype) return { dtype };
  if (flat.length > 0 && flat.every((v) => typeof v === "boolean")) return { dtype: "bool" };
  return { dtype: !float && flat.length > 0 && flat.every(Number.isInteger) ? "i32" : "f32" };
}

const create: Special = (args, kwargs, float) => {
  const { data, dtype } = named("data dtype", args, kwargs);
  if (data instanceof Tensor) return dtype ? data.to(dtype) : data;
  return exported("tensor")(data, typed(data, dtype, float));
};

/** max and min: of all, of two tensors, or along a dimension. */
const extremum =
  (reduce: "max" | "min"): Special =>
  (args, kwargs) => {
    const other = args[1] instanceof Tensor ? args[1] : kwargs.other;
    if (other) return exported(`${reduce}imum`)(args[0] ?? kwargs.input, other);
    const { input, dim, keepdim } = named("input dim keepdim", args, kwargs);
    const result = exported(reduce)(input, dim ?? undefined, keepdim);
    return result instanceof Tensor ? result : [result.values, result.indices];
  };

/** var and std also take `unbiased` by position: (x, unbiased) and (x, dim, unbiased, keepdim). */
const moment =
  (f: (x: Tensor, dim: Value, options: Value) => Value): Special =>
  (args, kwargs) => {
    const whole = typeof args[1] === "boolean" ? [args[0], undefined, ...args.slice(1)] : args;
    const { input, dim, unbiased, keepdim, correction } = named(
      "input dim unbiased keepdim",
      whole,
      kwargs,
    );
    const degrees = correction ?? (unbiased === undefined ? 1 : Number(unbiased));
    return f(input, dim ?? undefined, { correction: degrees, keepdim });
  };

/** Vector norms of numbers, matrix norms of names and of pairs of dimensions. */
const norm =
  (byName: string): Special =>
  (args, kwargs) => {
    const names = byName === "p" ? "input p dim keepdim" : "input ord dim keepdim";
    const bound = named(names, args, kwargs);
    const x = bound.input ?? bound.A;
    const order = bound[byName] ?? null;
    const dim = bound.dim ?? undefined;
    const pair = Array.isArray(dim) ? dim.length === 2 : dim === undefined && x.shape.length === 2;
    const matrix = order === "nuc" || (byName === "ord" && order !== null && pair);
    if (matrix) return exported("matrixNorm")(x, order, dim, bound.keepdim);
    return exported("norm")(x, order === "fro" || order === null ? 2 : order, dim, bound.keepdim);
  };

const stacked =
  (f: (tensors: Tensor[]) => Tensor): Special =>
  (args, kwargs) =>
    f(args[0] ?? kwargs.tensors);
const cat = (tensors: Tensor[], dim: number): Tensor => exported("cat")(tensors, dim);

const conversions = Object.fromEntries(
  [...Object.entries(dtypes)]
    .filter(([name]) => /\.(float|double|half|bfloat16|int|long|bool)$/.test(name))
    .map(([name, dtype]): [string, Special] => [
      name.replace("torch.", "torch.Tensor."),
      ([x]) => x.to(dtype),
    ]),
);

/** Of one tensor. */
const unary =
  (f: (x: Tensor) => Value): Special =>
  (args, kwargs) =>
    f(args[0] ?? kwargs.input ?? kwargs.A);
const identity: Special = (args, kwargs) => args[0] ?? kwargs.input;

/** The functions of tensors. */
const functions: Readonly<Record<string, Special>> = {
  ...conversions,
  // Whole numbers give int64 (our i32) in PyTorch's arange; ours sees no difference between 3 and 3.0.
  "torch.arange": (args, kwargs, float) => {
    const names = args.length > 1 ? "start end step" : "end";
    const { start = 0, end, step = 1, dtype } = named(names, args, kwargs);
    const whole = !float && [start, end, step].every(Number.isInteger);
    return exported("arange")(start, end, step, { dtype: dtype ?? (whole ? "i32" : "f32") });
  },
  "torch.tensor": create,
  "torch.as_tensor": create,
  "torch.asarray": create,
  "torch.full": (args, kwargs, float) => {
    const { size, fill_value, dtype } = named("size fill_value", args, kwargs);
    return exported("full")(size, fill_value, typed(fill_value, dtype, float));
  },
  "torch.where": (args, kwargs, float) => {
    const { condition, input, other } = named("condition input other", args, kwargs);
    if (input === undefined)
      return functions["torch.nonzero"]([condition], { as_tuple: true }, false);
    // Of two numbers, ours has no tensor to take the dtype from.
    const scalars = !(input instanceof Tensor || other instanceof Tensor);
    const whole = scalars && !float && Number.isInteger(input) && Number.isInteger(other);
    return exported("where")(
      condition,
      whole ? exported("tensor")(input, { dtype: "i32" }) : input,
      other,
    );
  },
  "torch.max": extremum("max"),
  "torch.min": extremum("min"),
  "torch.aminmax": (args, kwargs) => {
    const { input, dim, keepdim } = named("input", args, kwargs);
    return ["amin", "amax"].map((f) => exported(f)(input, dim ?? undefined, keepdim));
  },
  "torch.var": moment((x, dim, options) => exported("variance")(x, dim, options)),
  "torch.std": moment((x, dim, options) => exported("std")(x, dim, options)),
  "torch.var_mean": moment((x, dim, options) => exported("varMean")(x, dim, options)),
  "torch.std_mean": moment((x, dim, options) => [
    exported("std")(x, dim, options),
    exported("mean")(x, dim, options.keepdim),
  ]),
  "torch.norm": norm("p"),
  "torch.linalg.norm": norm("ord"),
  "torch.dist": (args, kwargs) => {
    const { input, other, p = 2 } = named("input other p", args, kwargs);
    return exported("norm")(exported("sub")(input, other), p);
  },
  "torch.linalg.cross": (args, kwargs) => {
    const { input, other, dim = -1 } = named("input other", args, kwargs);
    return exported("cross")(input, other, dim);
  },
  // Without `dim`, torch.cross takes the first one of size 3.
  "torch.cross": (args, kwargs) => {
    const { input, other, dim } = named("input other dim", args, kwargs);
    const shape = exported("add")(input, other).shape;
    return exported("cross")(input, other, dim ?? shape.indexOf(3));
  },
  "torch.linalg.diagonal": (args, kwargs) => {
    const { A, offset = 0, dim1 = -2, dim2 = -1 } = named("A", args, kwargs);
    return exported("diagonal")(A, offset, dim1, dim2);
  },
  "torch.linalg.vander": (args, kwargs) => {
    const { x, N } = named("x", args, kwargs);
    return exported("vander")(x, N ?? undefined, true);
  },
  "torch.logdet": unary((x) => {
    const { sign, logabsdet } = exported("linalg.slogdet")(x);
    return exported("where")(sign.lt(0), Number.NaN, logabsdet);
  }),
  "torch.svd": unary((x) => {
    const { U, S, Vh } = exported("linalg.svd")(x);
    return [U, S, Vh.mT];
  }),
  "torch.qr": (args, kwargs) => {
    const { input, some = true } = named("input some", args, kwargs);
    return Object.values(exported("linalg.qr")(input, { mode: some ? "reduced" : "complete" }));
  },
  "torch.positive": identity,
  "torch.clone": identity,
  "torch.Tensor.contiguous": identity,
  "torch.nn.functional.pad": (args, kwargs) => {
    const { input, pad, mode = "constant", value } = named("input pad mode value", args, kwargs);
    return exported("pad")(input, pad, mode === "constant" ? (value ?? 0) : mode);
  },
  "torch.nn.functional.upsample_nearest": (args, kwargs) =>
    resize(args, kwargs, { mode: "nearest" }),
  "torch.nn.functional.upsample_bilinear": (args, kwargs) =>
    resize(args, kwargs, { mode: "bilinear", alignCorners: true }),
  "torch.hstack": stacked((tensors) =>
    cat(
      tensors.map((t) => exported("atleast1d")(t)),
      tensors[0].shape.length < 2 ? 0 : 1,
    ),
  ),
  "torch.vstack": stacked((tensors) =>
    cat(
      tensors.map((t) => exported("atleast2d")(t)),
      0,
    ),
  ),
  "torch.row_stack": stacked((tensors) =>
    cat(
      tensors.map((t) => exported("atleast2d")(t)),
      0,
    ),
  ),
  "torch.dstack": stacked((tensors) =>
    cat(
      tensors.map((t) => exported("atleast3d")(t)),
      2,
    ),
  ),
  "torch.column_stack": stacked((tensors) =>
    cat(
      tensors.map((t) => (t.shape.length < 2 ? t.reshape([-1, 1]) : t)),
      1,
    ),
  ),
  "torch.t": unary((x) => (x.shape.length < 2 ? x : x.transpose(0, 1))),
  "torch.adjoint": unary((x) => x.transpose(-2, -1)),
  "torch.fliplr": unary((x) => x.flip([1])),
  "torch.flipud": unary((x) => x.flip([0])),
  "torch.broadcast_tensors": (args) => {
    const shape = args.reduce((sum, t) => exported("add")(sum, t)).shape;
    return args.map((t) => exported("broadcastTo")(t, shape));
  },
  "torch.chain_matmul": (args) => exported("multiDot")(args),
  "torch.cartesian_prod": (args) => exported("cartesianProd")(...args),
  "torch.block_diag": (args) => exported("blockDiag")(...args),
  "torch.scatter": (args, kwargs) => {
    const { input, dim, index, src, value, reduce } = named("input dim index src", args, kwargs);
    if (!reduce) return exported("scatter")(input, dim, index, src ?? value);
    const source =
      src instanceof Tensor ? src : exported("fullLike")(index.to(input.dtype), src ?? value);
    const how = reduce === "add" ? "sum" : "prod";
    return exported("scatterReduce")(input, dim, index, source, how, { includeSelf: true });
  },
  "torch.searchsorted": (args, kwargs) => {
    const { sorted_sequence, input, right, side, sorter } = named(
      "sorted_sequence input",
      args,
      kwargs,
    );
    const sequence = sorter ? exported("gather")(sorted_sequence, -1, sorter) : sorted_sequence;
    const one = typeof input === "number";
    const values = one ? exported("tensor")([input], { dtype: sequence.dtype }) : input;
    const found = exported("searchsorted")(sequence, values, { right: right || side === "right" });
    return one ? found.squeeze(0) : found;
  },

  // PyTorch writes into the running statistics; the fixtures count them among the outputs.
  "torch.nn.functional.batch_norm": (args, kwargs) => {
    const names = "input running_mean running_var weight bias training momentum eps";
    const bound = named(names, args, kwargs);
    const { input, running_mean, running_var, weight, bias, training, momentum, eps } = bound;
    const options = { training, momentum, eps };
    const y = exported("batchNorm")(input, running_mean, running_var, weight, bias, options);
    return training && running_mean ? [y, running_mean, running_var] : y;
  },
  "torch.nn.functional.instance_norm": (args, kwargs) => {
    const names = "input running_mean running_var weight bias use_input_stats momentum eps";
    const bound = named(names, args, kwargs);
    const { input, running_mean, running_var, weight, bias, use_input_stats, eps } = bound;
    if (use_input_stats === false)
      return exported("batchNorm")(input, running_mean, running_var, weight, bias, { eps });
    if (running_mean) throw new NotCovered("instance_norm(running_mean)");
    return exported("instanceNorm")(input, weight, bias, eps);
  },

  // Where the shape depends on the data, ours is a promise or is told the size.
  "torch.nonzero": (args, kwargs) => {
    const { input, as_tuple } = named("input", args, kwargs);
    const found = exported("nonzero")(input);
    return as_tuple ? found.then((at: Tensor) => exported("unbind")(at, 1)) : found;
  },
  "torch.argwhere": (args, kwargs) => exported("nonzero")(args[0] ?? kwargs.input),
  "torch.unique": async (args, kwargs) => {
    const { input, return_inverse, return_counts, dim } = named(
      "input sorted return_inverse return_counts dim",
      args,
      kwargs,
    );
    if (dim !== undefined && dim !== null) throw new NotCovered("unique(dim)");
    const { values, inverse, counts } = await exported("unique")(input);
    const chosen = [
      values,
      ...(return_inverse ? [inverse] : []),
      ...(return_counts ? [counts] : []),
    ];
    return chosen.length === 1 ? values : chosen;
  },
  "torch.bincount": async (args, kwargs) => {
    const { input, weights, minlength = 0 } = named("input weights minlength", args, kwargs);
    const length = input.numel === 0 ? 0 : Number(await input.amax().item()) + 1;
    return exported("bincount")(input, weights ?? undefined, Math.max(length, minlength));
  },
  "torch.nn.functional.one_hot": (args, kwargs) => {
    const { input, num_classes = -1 } = named("input num_classes", args, kwargs);
    if (num_classes >= 0) return exported("oneHot")(input, num_classes);
    return settled([input.amax().item()], ([most]) => exported("oneHot")(input, Number(most) + 1));
  },
  "torch.repeat_interleave": (args, kwargs) => {
    const { input, repeats, dim, output_size } = named("input repeats dim", args, kwargs);
    const of = (outputSize?: Value) =>
      exported("repeatInterleave")(input, repeats, dim ?? undefined, { outputSize });
    if (!(repeats instanceof Tensor)) return of();
    return output_size
      ? of(output_size)
      : repeats
          .sum()
          .item()
          .then(
            repeats.numel === 1
              ? () =>
                  repeats
                    .item()
                    .then((n) => exported("repeatInterleave")(input, Number(n), dim ?? undefined))
              : of,
          );
  },

  // Methods that are properties of JavaScript's or conversions.
  "torch.Tensor.size": ([x, dim]) => (dim === undefined ? x.shape : x.shape.at(dim)),
  "torch.Tensor.dim": ([x]) => x.shape.length,
  "torch.numel": unary((x) => x.numel),
  "torch.Tensor.type_as": ([x, other]) => x.to(other.dtype),
  "torch.Tensor.type": ([x, dtype]) => x.to(dtype),
  "torch.Tensor.view_as": ([x, other]) => x.reshape(other.shape),
  "torch.Tensor.reshape_as": ([x, other]) => x.reshape(other.shape),
  "torch.Tensor.new_zeros": ([x, ...size], { dtype }) =>
    exported("zeros")(size.flat(), { dtype: dtype ?? x.dtype }),
  "torch.Tensor.new_ones": ([x, ...size], { dtype }) =>
    exported("ones")(size.flat(), { dtype: dtype ?? x.dtype }),
  "torch.Tensor.new_full": ([x, size, value], { dtype }) =>
    exported("full")(size, value, { dtype: dtype ?? x.dtype }),
  "torch.Tensor.new_tensor": ([x, data], { dtype }) =>
    exported("tensor")(data, { dtype: dtype ?? x.dtype }),
  "torch.Tensor.to": ([x, dtype], kwargs) => {
    const to = dtype ?? kwargs.dtype;
    return to === undefined ? x : x.to(to instanceof Tensor ? to.dtype : to);
  },
};

function resize(args: Value[], kwargs: Kwargs, options: Value): Value {
  const { input, size, scale_factor } = named("input size scale_factor", args, kwargs);
  const how = { ...options, ...(size ? { size } : { scaleFactor: scale_factor }) };
  return exported("interpolate")(input, how);
}

export const special: { readonly [name: string]: Special | undefined } = {
  ...functions,
  ...spectral,
  "torch.nn.functional.upsample": (args, kwargs) => {
    const names = "input size scale_factor mode align_corners";
    const { input, size, scale_factor, mode, align_corners } = named(names, args, kwargs);
    return resize(
      [input, size, scale_factor],
      {},
      { mode, alignCorners: align_corners ?? undefined },
    );
  },
  ...transforms,
};
