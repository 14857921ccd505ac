/**
 * @file Which function of ours stands for which of PyTorch's: a table of text, one line each.
 *
 *   torch.sum(input, dim, keepdim) = sum(input, dim, keepdim)
 *   torch.add(input, other, alpha) = add(input, other, {alpha})
 *
 * Left: PyTorch's parameters in order (`*name` takes the rest, as a list). Right: our call; `{a, b: c}` is an options
 * object whose keys are camelCased and left out when not given. Methods of tensors are looked up as torch.Tensor.x and
 * then as torch.x. What is not in the table, or whose right-hand side the library does not export, is not covered.
 */
import * as hinode from "hinode";
import { Tensor } from "hinode";
import { NotCovered, type Value } from "./expression.ts";

const table = `
torch.add(input, other, alpha) = add(input, other, {alpha})
torch.sub(input, other, alpha) = sub(input, other, {alpha})
torch.div(input, other, rounding_mode) = div(input, other, {roundingMode: rounding_mode})
torch.round(input, decimals) = round(input, {decimals})
torch.clamp(input, min, max) = clamp(input, min, max)
torch.where(condition, input, other) = where(condition, input, other)
torch.lerp(input, end, weight) = lerp(input, end, weight)
torch.addcmul(input, a, b, value) = addcmul(input, a, b, {value})
torch.addcdiv(input, a, b, value) = addcdiv(input, a, b, {value})
torch.nan_to_num(input, nan, posinf, neginf) = nanToNum(input, {nan, posinf, neginf})
torch.zeros_like(input) = zerosLike(input)
torch.ones_like(input) = onesLike(input)

torch.sum(input, dim, keepdim) = sum(input, dim, keepdim)
torch.prod(input, dim, keepdim) = prod(input, dim, keepdim)
torch.mean(input, dim, keepdim) = mean(input, dim, keepdim)
torch.amax(input, dim, keepdim) = amax(input, dim, keepdim)
torch.amin(input, dim, keepdim) = amin(input, dim, keepdim)
torch.argmax(input, dim, keepdim) = argmax(input, dim, keepdim)
torch.argmin(input, dim, keepdim) = argmin(input, dim, keepdim)
torch.any(input, dim, keepdim) = any(input, dim, keepdim)
torch.all(input, dim, keepdim) = all(input, dim, keepdim)
torch.count_nonzero(input, dim) = countNonzero(input, dim)
torch.logsumexp(input, dim, keepdim) = logsumexp(input, dim, keepdim)
torch.var(input, dim, correction, keepdim) = variance(input, dim, {correction, keepdim})
torch.std(input, dim, correction, keepdim) = std(input, dim, {correction, keepdim})
torch.var_mean(input, dim, correction, keepdim) = varMean(input, dim, {correction, keepdim})
torch.linalg.vector_norm(input, ord, dim, keepdim) = norm(input, ord, dim, keepdim)
torch.norm(input, p, dim, keepdim) = norm(input, p, dim, keepdim)
torch.softmax(input, dim) = softmax(input, dim)
torch.log_softmax(input, dim) = logSoftmax(input, dim)

torch.Tensor.reshape(input, *shape) = reshape(input, shape)
torch.Tensor.transpose(input, dim0, dim1) = transpose(input, dim0, dim1)
torch.Tensor.permute(input, *dims) = permute(input, dims)
torch.Tensor.expand(input, *shape) = expand(input, shape)
torch.Tensor.repeat(input, *repeats) = repeat(input, repeats)
torch.Tensor.squeeze(input, dim) = squeeze(input, dim)
torch.Tensor.unsqueeze(input, dim) = unsqueeze(input, dim)
torch.Tensor.flatten(input, start, end) = flatten(input, start, end)
torch.Tensor.unflatten(input, dim, sizes) = unflatten(input, dim, sizes)
torch.Tensor.ravel(input) = flatten(input)
torch.Tensor.to(input, dtype) = to(input, dtype)
torch.Tensor.masked_fill(input, mask, value) = maskedFill(input, mask, value)
torch.Tensor.detach(input) = detach(input)
torch.Tensor.chunk(input, chunks, dim) = chunk(input, chunks, dim)
torch.movedim(input, source, destination) = movedim(input, source, destination)
torch.swapaxes(input, a, b) = swapaxes(input, a, b)
torch.broadcast_to(input, shape) = broadcastTo(input, shape)
torch.flip(input, dims) = flip(input, dims)
torch.Tensor.flip(input, *dims) = flip(input, dims)
torch.roll(input, shifts, dims) = roll(input, shifts, dims)
torch.tile(input, dims) = tile(input, dims)
torch.cat(tensors, dim) = cat(tensors, dim)
torch.stack(tensors, dim) = stack(tensors, dim)
torch.split(input, sizes, dim) = split(input, sizes, dim)
torch.chunk(input, chunks, dim) = chunk(input, chunks, dim)
torch.unbind(input, dim) = unbind(input, dim)
torch.narrow(input, dim, start, length) = narrow(input, dim, start, length)
torch.select(input, dim, index) = select(input, dim, index)
torch.gather(input, dim, index) = gather(input, dim, index)
torch.take_along_dim(input, indices, dim) = takeAlongDim(input, indices, dim)
torch.index_select(input, dim, index) = indexSelect(input, dim, index)
torch.scatter_add(input, dim, index, src) = scatterAdd(input, dim, index, src)
torch.index_add(input, dim, index, source, alpha) = indexAdd(input, dim, index, source, {alpha})
torch.tril(input, diagonal) = tril(input, diagonal)
torch.triu(input, diagonal) = triu(input, diagonal)
torch.outer(input, other) = outer(input, other)
torch.trace(input) = trace(input)
torch.diagonal(input, offset, dim1, dim2) = diagonal(input, offset, dim1, dim2)
torch.cumsum(input, dim) = cumsum(input, dim)
torch.cumprod(input, dim) = cumprod(input, dim)
torch.logcumsumexp(input, dim) = logcumsumexp(input, dim)
torch.argsort(input, dim, descending, stable) = argsort(input, {dim, descending, stable})
torch.searchsorted(sorted, input, right) = searchsorted(sorted, input, {right})
torch.bucketize(input, boundaries, right) = bucketize(input, boundaries, {right})

torch.linspace(start, end, steps, dtype) = linspace(start, end, steps)
torch.eye(n, m, dtype) = eye(n, m)
torch.ones(*shape, dtype) = ones(shape, {dtype})
torch.zeros(*shape, dtype) = zeros(shape, {dtype})
torch.full(shape, value) = full(shape, value)

torch.matmul(input, other) = matmul(input, other)
torch.bmm(input, other) = matmul(input, other)
torch.mv(input, other) = matmul(input, other)
torch.dot(input, other) = matmul(input, other)
torch.baddbmm(input, a, b, beta, alpha) = baddbmm(input, a, b, {beta, alpha})
torch.addmm(input, a, b, beta, alpha) = addmm(input, a, b, {beta, alpha})

torch.nn.functional.gelu(input, approximate) = gelu(input, {approximate})
torch.nn.functional.leaky_relu(input, negative_slope) = leakyRelu(input, negative_slope)
torch.nn.functional.elu(input, alpha) = elu(input, alpha)
torch.nn.functional.softplus(input, beta, threshold) = softplus(input, beta, threshold)
torch.nn.functional.hardtanh(input, min_val, max_val) = hardtanh(input, min_val, max_val)
torch.nn.functional.logsigmoid(input) = logSigmoid(input)
torch.nn.functional.softmax(input, dim) = softmax(input, dim)
torch.nn.functional.log_softmax(input, dim) = logSoftmax(input, dim)
torch.nn.functional.layer_norm(input, shape, weight, bias, eps) = layerNorm(input, shape, weight, bias, eps)
torch.nn.functional.rms_norm(input, shape, weight, eps) = rmsNorm(input, shape, weight, eps)
torch.nn.functional.normalize(input, p, dim, eps) = normalize(input, p, dim, eps)
torch.nn.functional.embedding(input, weight, padding_idx) = embedding(input, weight, {padding_idx})
torch.nn.functional.cross_entropy(input, target, weight, ignore_index, reduction, label_smoothing) = crossEntropy(input, target, {weight, ignore_index, reduction, label_smoothing})
torch.nn.functional.nll_loss(input, target, weight, ignore_index, reduction) = nllLoss(input, target, {weight, ignore_index, reduction})
torch.nn.functional.mse_loss(input, target, reduction) = mseLoss(input, target, {reduction})
torch.nn.functional.l1_loss(input, target, reduction) = l1Loss(input, target, {reduction})
torch.nn.functional.binary_cross_entropy_with_logits(input, target, weight, pos_weight, reduction) = binaryCrossEntropyWithLogits(input, target, {weight, pos_weight, reduction})
torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa) = scaledDotProductAttention(query, key, value, {attn_mask, is_causal, scale, enable_gqa})
torch.nn.functional.linear(input, weight, bias) = linear(input, weight, bias)
torch.nn.functional.conv1d(input, weight, bias, stride, padding, dilation, groups) = conv1d(input, weight, bias, {stride, padding, dilation, groups})
torch.nn.functional.conv_transpose1d(input, weight, bias, stride, padding, output_padding, groups, dilation) = convTranspose1d(input, weight, bias, {stride, padding, output_padding, groups, dilation})
torch.nn.functional.max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices) = maxPool1d(input, kernel_size, {stride, padding, dilation, ceil_mode, return_indices})
torch.nn.functional.max_unpool1d(input, indices, kernel_size, stride, padding, output_size) = maxUnpool1d(input, indices, kernel_size, {stride, padding, output_size})
torch.nn.functional.avg_pool1d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override) = avgPool1d(input, kernel_size, {stride, padding, ceil_mode, count_include_pad, divisor_override})
torch.nn.functional.conv2d(input, weight, bias, stride, padding, dilation, groups) = conv2d(input, weight, bias, {stride, padding, dilation, groups})
torch.nn.functional.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation) = convTranspose2d(input, weight, bias, {stride, padding, output_padding, groups, dilation})
torch.nn.functional.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices) = maxPool2d(input, kernel_size, {stride, padding, dilation, ceil_mode, return_indices})
torch.nn.functional.max_unpool2d(input, indices, kernel_size, stride, padding, output_size) = maxUnpool2d(input, indices, kernel_size, {stride, padding, output_size})
torch.nn.functional.avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override) = avgPool2d(input, kernel_size, {stride, padding, ceil_mode, count_include_pad, divisor_override})
torch.nn.functional.conv3d(input, weight, bias, stride, padding, dilation, groups) = conv3d(input, weight, bias, {stride, padding, dilation, groups})
torch.nn.functional.conv_transpose3d(input, weight, bias, stride, padding, output_padding, groups, dilation) = convTranspose3d(input, weight, bias, {stride, padding, output_padding, groups, dilation})
torch.nn.functional.max_pool3d(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices) = maxPool3d(input, kernel_size, {stride, padding, dilation, ceil_mode, return_indices})
torch.nn.functional.max_unpool3d(input, indices, kernel_size, stride, padding, output_size) = maxUnpool3d(input, indices, kernel_size, {stride, padding, output_size})
torch.nn.functional.avg_pool3d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override) = avgPool3d(input, kernel_size, {stride, padding, ceil_mode, count_include_pad, divisor_override})
torch.nn.functional.adaptive_avg_pool1d(input, output_size) = adaptiveAvgPool1d(input, output_size)
torch.nn.functional.adaptive_max_pool1d(input, output_size) = adaptiveMaxPool1d(input, output_size)
torch.nn.functional.adaptive_avg_pool2d(input, output_size) = adaptiveAvgPool2d(input, output_size)
torch.nn.functional.adaptive_max_pool2d(input, output_size) = adaptiveMaxPool2d(input, output_size)
torch.nn.functional.glu(input, dim) = glu(input, dim)
torch.nn.functional.interpolate(input, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias) = interpolate(input, {size, scale_factor, mode, align_corners, recompute_scale_factor, antialias})
torch.nn.functional.one_hot(input, num_classes) = oneHot(input, num_classes)

torch.logit(input, eps) = logit(input, eps)
torch.nansum(input, dim, keepdim) = nansum(input, dim, keepdim)
torch.nanmean(input, dim, keepdim) = nanmean(input, dim, keepdim)
torch.isclose(input, other, rtol, atol, equal_nan) = isclose(input, other, {rtol, atol, equal_nan})
torch.linalg.matrix_norm(input, ord, dim, keepdim) = matrixNorm(input, ord, dim, keepdim)
torch.linalg.multi_dot(tensors) = multiDot(tensors)
torch.linalg.matrix_power(input, n) = matrixPower(input, n)
torch.take(input, index) = take(input, index)
torch.index_copy(input, dim, index, source) = indexCopy(input, dim, index, source)
torch.index_fill(input, dim, index, value) = indexFill(input, dim, index, value)
torch.index_put(input, indices, values, accumulate) = indexPut(input, indices, values, {accumulate})
torch.masked_select(input, mask) = maskedSelect(input, mask)
torch.scatter(input, dim, index, src) = scatter(input, dim, index, src)
torch.scatter_reduce(input, dim, index, src, reduce, include_self) = scatterReduce(input, dim, index, src, reduce, {include_self})
torch.isin(elements, test) = isin(elements, test)
torch.histc(input, bins, min, max) = histc(input, bins, min, max)
torch.diag(input, diagonal) = diag(input, diagonal)
torch.diag_embed(input, offset, dim1, dim2) = diagEmbed(input, offset, dim1, dim2)
torch.Tensor.unfold(input, dim, size, step) = unfold(input, dim, size, step)
torch.rot90(input, k, dims) = rot90(input, k, dims)
torch.tensor_split(input, sections, dim) = tensorSplit(input, sections, dim)
torch.diff(input, n, dim) = diff(input, {n, dim})
torch.meshgrid(*tensors, indexing) = meshgrid(tensors, indexing)
torch.atleast_2d(input) = atleast2d(input)
torch.logspace(start, end, steps, dtype) = logspace(start, end, steps)
torch.tril_indices(rows, columns, offset) = trilIndices(rows, columns, offset)
torch.triu_indices(rows, columns, offset) = triuIndices(rows, columns, offset)
torch.einsum(equation, *operands) = einsum(equation, operands)
torch.tensordot(input, other, dims) = tensordot(input, other, dims)
torch.inner(input, other) = inner(input, other)
torch.kron(input, other) = kron(input, other)
torch.addmv(input, a, b, beta, alpha) = addmv(input, a, b, {beta, alpha})
torch.addbmm(input, a, b, beta, alpha) = addbmm(input, a, b, {beta, alpha})
torch.cross(input, other, dim) = cross(input, other, dim)
torch.vander(input, n, increasing) = vander(input, n, increasing)
torch.cdist(input, other, p) = cdist(input, other, p)

torch.nn.functional.celu(input, alpha) = celu(input, alpha)
torch.nn.functional.softshrink(input, lambd) = softshrink(input, lambd)
torch.nn.functional.hardshrink(input, lambd) = hardshrink(input, lambd)
torch.nn.functional.threshold(input, threshold, value) = threshold(input, threshold, value)
torch.nn.functional.softmin(input, dim) = softmin(input, dim)
torch.nn.functional.prelu(input, weight) = prelu(input, weight)
torch.nn.functional.bilinear(input1, input2, weight, bias) = bilinear(input1, input2, weight, bias)
torch.nn.functional.unfold(input, kernel_size, dilation, padding, stride) = unfold2d(input, kernel_size, {dilation, padding, stride})
torch.nn.functional.fold(input, output_size, kernel_size, dilation, padding, stride) = fold2d(input, output_size, kernel_size, {dilation, padding, stride})
torch.nn.functional.pixel_shuffle(input, upscale_factor) = pixelShuffle(input, upscale_factor)
torch.nn.functional.pixel_unshuffle(input, downscale_factor) = pixelUnshuffle(input, downscale_factor)
torch.nn.functional.group_norm(input, groups, weight, bias, eps) = groupNorm(input, groups, weight, bias, eps)
torch.nn.functional.instance_norm(input, weight, bias, eps) = instanceNorm(input, weight, bias, eps)
torch.nn.functional.local_response_norm(input, size, alpha, beta, k) = localResponseNorm(input, size, alpha, beta, k)
torch.nn.functional.smooth_l1_loss(input, target, reduction, beta) = smoothL1Loss(input, target, {reduction, beta})
torch.nn.functional.huber_loss(input, target, reduction, delta) = huberLoss(input, target, {reduction, delta})
torch.nn.functional.kl_div(input, target, reduction, log_target) = klDiv(input, target, {reduction, log_target})
torch.nn.functional.binary_cross_entropy(input, target, weight, reduction) = binaryCrossEntropy(input, target, {weight, reduction})
torch.nn.functional.poisson_nll_loss(input, target, log_input, full, eps, reduction) = poissonNllLoss(input, target, {log_input, full, eps, reduction})
torch.nn.functional.gaussian_nll_loss(input, target, var, full, eps, reduction) = gaussianNllLoss(input, target, var, {full, eps, reduction})
torch.nn.functional.cosine_similarity(x1, x2, dim, eps) = cosineSimilarity(x1, x2, dim, eps)
torch.nn.functional.pairwise_distance(x1, x2, p, eps, keepdim) = pairwiseDistance(x1, x2, p, eps, keepdim)
torch.nn.functional.cosine_embedding_loss(input1, input2, target, margin, reduction) = cosineEmbeddingLoss(input1, input2, target, {margin, reduction})
torch.nn.functional.pdist(input, p) = pdist(input, p)
torch.nn.functional.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, reduction) = tripletMarginLoss(anchor, positive, negative, {margin, p, eps, swap, reduction})
`;

/** Functions of one or two tensors whose name only changes its case. */
const sameName = {
  1: `abs neg exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan asin acos atan sinh cosh tanh asinh
    acosh atanh sigmoid relu erf erfc erfinv square floor ceil trunc sign frac isnan isinf isfinite logical_not
    bitwise_not deg2rad rad2deg sinc lgamma digamma`,
  2: `mul maximum minimum pow fmod remainder floor_divide eq ne lt le gt ge logical_and logical_or logical_xor
    bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift atan2 logaddexp logaddexp2 hypot copysign
    xlogy fmax fmin`,
  functional: "relu silu mish hardswish hardsigmoid relu6 softsign tanhshrink selu",
};

interface Row {
  readonly parameters: readonly string[];
  /** The name that takes the remaining arguments, if any. */
  readonly rest: string | undefined;
  readonly ours: string;
  readonly args: readonly (string | readonly (readonly [key: string, name: string])[])[];
}

const camelCase = (name: string): string =>
  name.replace(/_(\w)/g, (_, c: string) => c.toUpperCase());
const commaList = (text: string): string[] =>
  text
    .split(",")
    .map((s) => s.trim())
    .filter(Boolean);

function parseRow(line: string): [string, Row] {
  const match = /^([\w.]+)\((.*?)\) = (\w+)\((.*)\)$/.exec(line);
  if (!match) throw new Error(`functions table: ${line}`);
  const [, name, left, ours, right] = match;
  const parameters = commaList(left);
  const [, plain, options] = /^([^{]*)(?:\{(.*)\})?$/.exec(right)!;
  const pairs = commaList(options ?? "").map((text) => {
    const [key, value] = text.split(/:\s*/);
    return [camelCase(key), value ?? key] as const;
  });
  return [
    name,
    {
      parameters: parameters.map((p) => p.replace("*", "")),
      rest: parameters.find((p) => p.startsWith("*"))?.slice(1),
      ours,
      args: [...commaList(plain), ...(options === undefined ? [] : [pairs])],
    },
  ];
}

const words = (text: string): string[] => text.split(/\s+/).filter(Boolean);
const rows = new Map<string, Row>(
  [
    ...words(sameName[1]).map((n) => `torch.${n}(input) = ${camelCase(n)}(input)`),
    ...words(sameName[2]).map((n) => `torch.${n}(input, other) = ${camelCase(n)}(input, other)`),
    ...words(sameName.functional).map(
      (n) => `torch.nn.functional.${n}(input) = ${camelCase(n)}(input)`,
    ),
    ...table.split("\n").filter(Boolean),
  ].map(parseRow),
);

/** What needs more than another name. */
const special: Record<string, (args: Value[], kwargs: Record<string, Value>) => Value> = {
  // Whole numbers give int64 (our i32) in PyTorch's arange; ours makes f32 unless asked.
  "torch.arange": (args) => {
    const whole = args.every(Number.isInteger);
    return exported("arange")(...args, { dtype: whole ? "i32" : "f32" });
  },
  "torch.tensor": ([data]) =>
    exported("tensor")(data, { dtype: [data].flat(9).every(Number.isInteger) ? "i32" : "f32" }),
  "torch.max": (args, kwargs) => maxOrMin("amax", "argmax", args, kwargs),
  "torch.min": (args, kwargs) => maxOrMin("amin", "argmin", args, kwargs),
  "torch.Tensor.max": (args, kwargs) => maxOrMin("amax", "argmax", args, kwargs),
  "torch.aminmax": ([x]) => [exported("amin")(x), exported("amax")(x)],
  "torch.std_mean": ([x, dim], kwargs) => {
    const options = { correction: kwargs.correction, keepdim: kwargs.keepdim };
    const axes = dim ?? kwargs.dim;
    return [exported("std")(x, axes, options), exported("mean")(x, axes, kwargs.keepdim)];
  },
  "torch.nn.functional.pad": ([x, ...positional], kwargs) => {
    const [amounts, mode = kwargs.mode, value = kwargs.value] = [
      positional[0] ?? kwargs.pad,
      ...positional.slice(1),
    ];
    const constant = mode === undefined || mode === "constant";
    return exported("pad")(x, amounts, constant ? (value ?? 0) : mode);
  },
  "torch.cummax": ([x, dim], kwargs) => valuesAndIndices("cummax", x, dim ?? kwargs.dim),
  "torch.cummin": ([x, dim], kwargs) => valuesAndIndices("cummin", x, dim ?? kwargs.dim),
  "torch.sort": ([x, dim], kwargs) =>
    valuesAndIndices("sort", x, { ...kwargs, ...(dim === undefined ? {} : { dim }) }),
  "torch.topk": ([x], { k, dim, largest, sorted }) =>
    valuesAndIndices("topk", x, k, dim, largest, sorted),
  "torch.kthvalue": ([x], { k, dim, keepdim }) => valuesAndIndices("kthvalue", x, k, dim, keepdim),
  "torch.median": ([x], { dim, keepdim }) =>
    dim === undefined ? exported("median")(x) : valuesAndIndices("median", x, dim, keepdim),
  // Where the shape depends on the data: ours is a promise, or is told the size.
  "torch.nonzero": ([x]) => exported("nonzero")(x),
  "torch.unique": async ([x]) => {
    const { values, inverse, counts } = await exported("unique")(x);
    return [values, inverse, counts];
  },
  "torch.bincount": async ([x], { weights, minlength = 0 }) => {
    const length = Number(await x.amax().item()) + 1;
    return exported("bincount")(x, weights, Math.max(length, minlength));
  },
  "torch.repeat_interleave": ([x, repeats], { dim }) => {
    const of = (outputSize?: Value) =>
      exported("repeatInterleave")(x, repeats, dim, { outputSize });
    return repeats instanceof Tensor ? repeats.sum().item().then(of) : of();
  },
  "torch.cartesian_prod": (args) => exported("cartesianProd")(...args),
  "torch.block_diag": (args) => exported("blockDiag")(...args),
  "torch.Tensor.masked_scatter": ([x, mask, source]) => exported("maskedScatter")(x, mask, source),
  // PyTorch writes into the running statistics; the fixtures count them among the outputs.
  "torch.nn.functional.batch_norm": (args, kwargs) => {
    const names = ["input", "running_mean", "running_var", "weight", "bias", "training"];
    const named = { ...kwargs, ...Object.fromEntries(args.map((a, i) => [names[i], a])) };
    const { input, running_mean, running_var, weight, bias, training, momentum, eps } = named;
    const options = { training, momentum, eps };
    const y = exported("batchNorm")(input, running_mean, running_var, weight, bias, options);
    return training && running_mean ? [y, running_mean, running_var] : y;
  },
  "torch.func.jvp": ([f, primals, tangents]) => hinode.jvp(f, primals, tangents),
  "torch.func.vjp": ([f, ...x]) => hinode.vjp(f, ...x),
  "torch.func.grad": ([f], { argnums }) => hinode.grad(f, { argnums }),
  "torch.func.grad_and_value":
    ([f], { argnums }) =>
    (...args: Value[]) => {
      const [value, gradients] = hinode.valueAndGrad(f, { argnums })(...args);
      return [gradients, value].flat();
    },
  "torch.func.hessian": ([f]) => hinode.hessian(f),
  "torch.func.jacrev": ([f]) => hinode.jacrev(f),
  "torch.func.jacfwd": ([f]) => hinode.jacfwd(f),
  "torch.func.vmap": ([f], { in_dims, out_dims }) =>
    hinode.vmap(f, { inDims: in_dims, outDims: out_dims }),
};

function exported(name: string): (...args: Value[]) => Value {
  const f = (hinode as Record<string, unknown>)[name];
  if (typeof f !== "function") throw new NotCovered(name);
  return f as (...args: Value[]) => Value;
}

/** PyTorch's pair of results. */
function valuesAndIndices(name: string, ...args: Value[]): Value {
  const { values, indices } = exported(name)(...args);
  return [values, indices];
}

/** PyTorch's max: of everything; of two tensors; or (values, indices) along a dimension. */
function maxOrMin(
  reduce: string,
  position: string,
  args: Value[],
  kwargs: Record<string, Value>,
): Value {
  const [x, second, third] = args;
  if (second instanceof Tensor)
    return exported(reduce === "amax" ? "maximum" : "minimum")(x, second);
  const dim = second ?? kwargs.dim;
  if (dim === undefined) return exported(reduce)(x);
  const keepdim = third ?? kwargs.keepdim ?? false;
  // The gradient of amax is shared by ties, that of max goes to one index: take the value at that index.
  const index = exported(position)(x, dim, true);
  const value = exported("gather")(x, dim, index);
  return keepdim ? [value, index] : [value.squeeze(dim), index.squeeze(dim)];
}

/** PyTorch's defaults where ours differ. */
const defaultsOf = (row: Row): Record<string, Value> =>
  row.parameters.includes("ignore_index") ? { ignore_index: -100 } : {};

/** Calls what stands for PyTorch's `name`; throws NotCovered when nothing does. */
export function callFunction(name: string, args: Value[], kwargs: Record<string, Value>): Value {
  const plain = name.replace("torch.Tensor.", "torch.");
  const own = special[name] ?? special[plain];
  if (own) return own(args, kwargs);
  const row = rows.get(name) ?? rows.get(plain);
  if (!row) throw new NotCovered(plain.replace("torch.", "").replace("nn.functional.", ""));
  const named: Record<string, Value> = { ...defaultsOf(row), ...kwargs };
  row.parameters.forEach((parameter, i) => {
    if (parameter === row.rest) named[parameter] = restOf(args.slice(i));
    else if (i < args.length && !(row.rest && i > row.parameters.indexOf(row.rest)))
      named[parameter] = args[i];
  });
  for (const [parameter, value] of Object.entries(named))
    if (!row.parameters.includes(parameter) && value !== null)
      throw new NotCovered(`${row.ours}(${parameter})`);
  const result = exported(row.ours)(...ourArguments(row, named));
  return result?.values instanceof Tensor ? [result.values, result.indices] : result;
}

function ourArguments(row: Row, named: Record<string, Value>): Value[] {
  const args = row.args.map((arg) => {
    if (typeof arg === "string") return named[arg] ?? undefined;
    const given = arg.flatMap(([key, name]) =>
      named[name] === undefined || named[name] === null ? [] : [[key, named[name]]],
    );
    return given.length ? Object.fromEntries(given) : undefined;
  });
  while (args.length && args.at(-1) === undefined) args.pop();
  return args;
}

/** `reshape(2, 3)` and `reshape((2, 3))` mean the same. */
const restOf = (args: Value[]): Value =>
  args.length === 1 && Array.isArray(args[0]) ? args[0] : args;

/** A PyTorch function as a value, for `vmap(torch.dot)`. */
export const functionValue =
  (name: string) =>
  (...args: Value[]): Value =>
    callFunction(name, args, {});
