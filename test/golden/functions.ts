/**
 * @file Which function of ours stands for which of PyTorch's: a table of text, one line each.
 *
 *   torch.sum(input, dim, keepdim, dtype) = sum(input<dtype>, dim, keepdim)
 *   torch.add(input, other, alpha) = add(input, other, {alpha})
 *
 * Left: PyTorch's parameters in order (`*name` takes the rest, as a list). Right: our call; `{a, b: c}` is an options
 * object whose keys are camelCased and left out when not given; `input<dtype>` is converted first if a dtype is given.
 * call.ts reads the table, special.ts has the functions that need more than another name. What is in neither, or whose
 * right-hand side the library does not export, is not covered.
 */

const table = `
torch.add(input, other, alpha) = add(input, other, {alpha})
torch.sub(input, other, alpha) = sub(input, other, {alpha})
torch.rsub(input, other) = rsub(input, other)
torch.div(input, other, rounding_mode) = div(input, other, {roundingMode: rounding_mode})
torch.round(input, decimals) = round(input, {decimals})
torch.clamp(input, min, max) = clamp(input, min, max)
torch.clamp_min(input, min) = clampMin(input, min)
torch.clamp_max(input, max) = clampMax(input, max)
torch.lerp(input, end, weight) = lerp(input, end, weight)
torch.addcmul(input, tensor1, tensor2, value) = addcmul(input, tensor1, tensor2, {value})
torch.addcdiv(input, tensor1, tensor2, value) = addcdiv(input, tensor1, tensor2, {value})
torch.nan_to_num(input, nan, posinf, neginf) = nanToNum(input, {nan, posinf, neginf})
torch.logit(input, eps) = logit(input, eps)
torch.isclose(input, other, rtol, atol, equal_nan) = isclose(input, other, {rtol, atol, equal_nan})
torch.allclose(input, other, rtol, atol, equal_nan) = allclose(input, other, {rtol, atol, equal_nan})
torch.isin(elements, test_elements, assume_unique, invert) = isin(elements, test_elements, {invert})

torch.zeros(*size, dtype) = zeros(size, {dtype})
torch.ones(*size, dtype) = ones(size, {dtype})
torch.zeros_like(input, dtype) = zerosLike(input, {dtype})
torch.ones_like(input, dtype) = onesLike(input, {dtype})
torch.full_like(input, fill_value, dtype) = fullLike(input, fill_value, {dtype})
torch.linspace(start, end, steps, dtype) = linspace(start, end, steps, {dtype})
torch.logspace(start, end, steps, base, dtype) = logspace(start, end, steps, {base, dtype})
torch.eye(n, m, dtype) = eye(n, m, {dtype})
torch.tril_indices(row, col, offset) = trilIndices(row, col, offset)
torch.triu_indices(row, col, offset) = triuIndices(row, col, offset)
torch.vander(x, N, increasing) = vander(x, N, increasing)

torch.sum(input, dim, keepdim, dtype) = sum(input<dtype>, dim, keepdim)
torch.prod(input, dim, keepdim, dtype) = prod(input<dtype>, dim, keepdim)
torch.mean(input, dim, keepdim, dtype) = mean(input<dtype>, dim, keepdim)
torch.nansum(input, dim, keepdim, dtype) = nansum(input<dtype>, dim, keepdim)
torch.nanmean(input, dim, keepdim, dtype) = nanmean(input<dtype>, dim, keepdim)
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
torch.median(input, dim, keepdim) = median(input, dim, keepdim)
torch.quantile(input, q, dim, keepdim, interpolation) = quantile(input, q, dim, {keepdim})
torch.softmax(input, dim, dtype) = softmax(input<dtype>, dim)
torch.log_softmax(input, dim, dtype) = logSoftmax(input<dtype>, dim)
torch.cumsum(input, dim, dtype) = cumsum(input<dtype>, dim)
torch.cumprod(input, dim, dtype) = cumprod(input<dtype>, dim)
torch.cummax(input, dim) = cummax(input, dim)
torch.cummin(input, dim) = cummin(input, dim)
torch.logcumsumexp(input, dim) = logcumsumexp(input, dim)
torch.histc(input, bins, min, max) = histc(input, bins, min, max)
torch.diff(input, n, dim) = diff(input, {n, dim})

torch.reshape(input, shape) = reshape(input, shape)
torch.Tensor.reshape(input, *shape) = reshape(input, shape)
torch.Tensor.view(input, *shape) = view(input, shape)
torch.permute(input, dims) = permute(input, dims)
torch.Tensor.permute(input, *dims) = permute(input, dims)
torch.transpose(input, dim0, dim1) = transpose(input, dim0, dim1)
torch.swapaxes(input, axis0, axis1) = swapaxes(input, axis0, axis1)
torch.movedim(input, source, destination) = movedim(input, source, destination)
torch.squeeze(input, dim) = squeeze(input, dim)
torch.unsqueeze(input, dim) = unsqueeze(input, dim)
torch.flatten(input, start_dim, end_dim) = flatten(input, start_dim, end_dim)
torch.unflatten(input, dim, sizes) = unflatten(input, dim, sizes)
torch.ravel(input) = flatten(input)
torch.Tensor.expand(input, *size) = expand(input, size)
torch.Tensor.expand_as(input, other) = expandAs(input, other)
torch.broadcast_to(input, size) = broadcastTo(input, size)
torch.Tensor.repeat(input, *repeats) = repeat(input, repeats)
torch.tile(input, dims) = tile(input, dims)
torch.Tensor.tile(input, *dims) = tile(input, dims)
torch.flip(input, dims) = flip(input, dims)
torch.Tensor.flip(input, *dims) = flip(input, dims)
torch.roll(input, shifts, dims) = roll(input, shifts, dims)
torch.rot90(input, k, dims) = rot90(input, k, dims)
torch.cat(tensors, dim) = cat(tensors, dim)
torch.stack(tensors, dim) = stack(tensors, dim)
torch.split(tensor, split_size_or_sections, dim) = split(tensor, split_size_or_sections, dim)
torch.Tensor.split(tensor, split_size, dim) = split(tensor, split_size, dim)
torch.split_with_sizes(input, split_sizes, dim) = split(input, split_sizes, dim)
torch.chunk(input, chunks, dim) = chunk(input, chunks, dim)
torch.tensor_split(input, indices_or_sections, dim) = tensorSplit(input, indices_or_sections, dim)
torch.unbind(input, dim) = unbind(input, dim)
torch.narrow(input, dim, start, length) = narrow(input, dim, start, length)
torch.select(input, dim, index) = select(input, dim, index)
torch.diagonal(input, offset, dim1, dim2) = diagonal(input, offset, dim1, dim2)
torch.diag(input, diagonal) = diag(input, diagonal)
torch.diag_embed(input, offset, dim1, dim2) = diagEmbed(input, offset, dim1, dim2)
torch.tril(input, diagonal) = tril(input, diagonal)
torch.triu(input, diagonal) = triu(input, diagonal)
torch.Tensor.unfold(input, dimension, size, step) = unfold(input, dimension, size, step)
torch.meshgrid(*tensors, indexing) = meshgrid(tensors, indexing)
torch.atleast_1d(input) = atleast1d(input)
torch.atleast_2d(input) = atleast2d(input)
torch.atleast_3d(input) = atleast3d(input)
torch.Tensor.to(input, dtype) = to(input, dtype)
torch.Tensor.detach(input) = detach(input)

torch.gather(input, dim, index, sparse_grad) = gather(input, dim, index)
torch.take(input, index) = take(input, index)
torch.take_along_dim(input, indices, dim) = takeAlongDim(input, indices, dim)
torch.index_select(input, dim, index) = indexSelect(input, dim, index)
torch.index_add(input, dim, index, source, alpha) = indexAdd(input, dim, index, source, {alpha})
torch.index_copy(input, dim, index, source) = indexCopy(input, dim, index, source)
torch.index_fill(input, dim, index, value) = indexFill(input, dim, index, value)
torch.index_put(input, indices, values, accumulate) = indexPut(input, indices, values, {accumulate})
torch.scatter_add(input, dim, index, src) = scatterAdd(input, dim, index, src)
torch.scatter_reduce(input, dim, index, src, reduce, include_self) = scatterReduce(input, dim, index, src, reduce, {include_self})
torch.masked_fill(input, mask, value) = maskedFill(input, mask, value)
torch.masked_select(input, mask) = maskedSelect(input, mask)
torch.masked_scatter(input, mask, source) = maskedScatter(input, mask, source)
torch.sort(input, dim, descending, stable) = sort(input, {dim, descending, stable})
torch.argsort(input, dim, descending, stable) = argsort(input, {dim, descending, stable})
torch.msort(input) = msort(input)
torch.topk(input, k, dim, largest, sorted) = topk(input, k, dim, largest, sorted)
torch.kthvalue(input, k, dim, keepdim) = kthvalue(input, k, dim, keepdim)
torch.bucketize(input, boundaries, out_int32, right) = bucketize(input, boundaries, {right})

torch.matmul(input, other) = matmul(input, other)
torch.mm(input, mat2) = mm(input, mat2)
torch.bmm(input, mat2) = bmm(input, mat2)
torch.mv(input, vec) = mv(input, vec)
torch.dot(input, tensor) = dot(input, tensor)
torch.outer(input, vec2) = outer(input, vec2)
torch.inner(input, other) = inner(input, other)
torch.kron(input, other) = kron(input, other)
torch.addmm(input, mat1, mat2, beta, alpha) = addmm(input, mat1, mat2, {beta, alpha})
torch.addmv(input, mat, vec, beta, alpha) = addmv(input, mat, vec, {beta, alpha})
torch.addr(input, vec1, vec2, beta, alpha) = addr(input, vec1, vec2, {beta, alpha})
torch.baddbmm(input, batch1, batch2, beta, alpha) = baddbmm(input, batch1, batch2, {beta, alpha})
torch.addbmm(input, batch1, batch2, beta, alpha) = addbmm(input, batch1, batch2, {beta, alpha})
torch.einsum(equation, *operands) = einsum(equation, operands)
torch.tensordot(a, b, dims) = tensordot(a, b, dims)
torch.trace(input) = trace(input)
torch.cdist(x1, x2, p, compute_mode) = cdist(x1, x2, p)
torch.linalg.cholesky(A, upper) = linalg.cholesky(A, {upper})
torch.linalg.solve_triangular(A, B, upper, left, unitriangular) = linalg.solveTriangular(A, B, {upper, left, unitriangular})
torch.linalg.solve(A, B, left) = linalg.solve(A, B, {left})
torch.linalg.inv(A) = linalg.inv(A)
torch.linalg.det(A) = linalg.det(A)
torch.linalg.slogdet(A) = linalg.slogdet(A)
torch.linalg.qr(A, mode) = linalg.qr(A, {mode})
torch.linalg.eigh(A, UPLO) = linalg.eigh(A, {uplo: UPLO})
torch.linalg.eigvalsh(A, UPLO) = linalg.eigvalsh(A, {uplo: UPLO})
torch.linalg.svd(A, full_matrices) = linalg.svd(A, {full_matrices})
torch.linalg.svdvals(A) = linalg.svdvals(A)
torch.linalg.lstsq(A, B, rcond, driver) = linalg.lstsq(A, B)
torch.linalg.pinv(A, atol, rtol, hermitian) = linalg.pinv(A, {atol, rtol})
torch.linalg.matrix_rank(A, atol, rtol, hermitian) = linalg.matrixRank(A, {atol, rtol})
torch.linalg.cond(A, p) = linalg.cond(A, p)
torch.linalg.matrix_exp(A) = linalg.matrixExp(A)
torch.linalg.tensorinv(A, ind) = linalg.tensorinv(A, ind)
torch.linalg.tensorsolve(A, B) = linalg.tensorsolve(A, B)
torch.fft.fftfreq(n, d) = fft.fftfreq(n, d)
torch.fft.rfftfreq(n, d) = fft.rfftfreq(n, d)
torch.fft.fftshift(input, dim) = fft.fftshift(input, dim)
torch.fft.ifftshift(input, dim) = fft.ifftshift(input, dim)
torch.linalg.vector_norm(x, ord, dim, keepdim, dtype) = norm(x<dtype>, ord, dim, keepdim)
torch.linalg.matrix_norm(A, ord, dim, keepdim, dtype) = linalg.matrixNorm(A<dtype>, ord, dim, keepdim)
torch.linalg.multi_dot(tensors) = multiDot(tensors)
torch.linalg.matrix_power(A, n) = linalg.matrixPower(A, n)

torch.nn.functional.gelu(input, approximate) = gelu(input, {approximate})
torch.nn.functional.leaky_relu(input, negative_slope) = leakyRelu(input, negative_slope)
torch.nn.functional.elu(input, alpha) = elu(input, alpha)
torch.nn.functional.celu(input, alpha) = celu(input, alpha)
torch.nn.functional.softplus(input, beta, threshold) = softplus(input, beta, threshold)
torch.nn.functional.hardtanh(input, min_val, max_val) = hardtanh(input, min_val, max_val)
torch.nn.functional.logsigmoid(input) = logSigmoid(input)
torch.nn.functional.softmax(input, dim, _stacklevel, dtype) = softmax(input<dtype>, dim)
torch.nn.functional.log_softmax(input, dim, _stacklevel, dtype) = logSoftmax(input<dtype>, dim)
torch.nn.functional.softmin(input, dim, _stacklevel, dtype) = softmin(input<dtype>, dim)
torch.nn.functional.softshrink(input, lambd) = softshrink(input, lambd)
torch.nn.functional.hardshrink(input, lambd) = hardshrink(input, lambd)
torch.nn.functional.threshold(input, threshold, value) = threshold(input, threshold, value)
torch.nn.functional.prelu(input, weight) = prelu(input, weight)
torch.nn.functional.glu(input, dim) = glu(input, dim)

torch.nn.functional.linear(input, weight, bias) = linear(input, weight, bias)
torch.nn.functional.bilinear(input1, input2, weight, bias) = bilinear(input1, input2, weight, bias)
torch.nn.functional.dropout(input, p, training) = dropout(input, p, {training})
torch.nn.functional.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse) = embedding(input, weight, {padding_idx})
torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa) = scaledDotProductAttention(query, key, value, {attn_mask, dropout_p, is_causal, scale, enable_gqa})
torch.nn.functional.layer_norm(input, normalized_shape, weight, bias, eps) = layerNorm(input, normalized_shape, weight, bias, eps)
torch.nn.functional.rms_norm(input, normalized_shape, weight, eps) = rmsNorm(input, normalized_shape, weight, eps)
torch.nn.functional.group_norm(input, num_groups, weight, bias, eps) = groupNorm(input, num_groups, weight, bias, eps)
torch.nn.functional.local_response_norm(input, size, alpha, beta, k) = localResponseNorm(input, size, alpha, beta, k)
torch.nn.functional.normalize(input, p, dim, eps) = normalize(input, p, dim, eps)

torch.nn.functional.conv1d(input, weight, bias, stride, padding, dilation, groups) = conv1d(input, weight, bias, {stride, padding, dilation, groups})
torch.nn.functional.conv2d(input, weight, bias, stride, padding, dilation, groups) = conv2d(input, weight, bias, {stride, padding, dilation, groups})
torch.nn.functional.conv3d(input, weight, bias, stride, padding, dilation, groups) = conv3d(input, weight, bias, {stride, padding, dilation, groups})
torch.nn.functional.conv_transpose1d(input, weight, bias, stride, padding, output_padding, groups, dilation) = convTranspose1d(input, weight, bias, {stride, padding, output_padding, groups, dilation})
torch.nn.functional.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation) = convTranspose2d(input, weight, bias, {stride, padding, output_padding, groups, dilation})
torch.nn.functional.conv_transpose3d(input, weight, bias, stride, padding, output_padding, groups, dilation) = convTranspose3d(input, weight, bias, {stride, padding, output_padding, groups, dilation})
torch.nn.functional.max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices) = maxPool1d(input, kernel_size, {stride, padding, dilation, ceil_mode, return_indices})
torch.nn.functional.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices) = maxPool2d(input, kernel_size, {stride, padding, dilation, ceil_mode, return_indices})
torch.nn.functional.max_pool3d(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices) = maxPool3d(input, kernel_size, {stride, padding, dilation, ceil_mode, return_indices})
torch.nn.functional.max_unpool1d(input, indices, kernel_size, stride, padding, output_size) = maxUnpool1d(input, indices, kernel_size, {stride, padding, output_size})
torch.nn.functional.max_unpool2d(input, indices, kernel_size, stride, padding, output_size) = maxUnpool2d(input, indices, kernel_size, {stride, padding, output_size})
torch.nn.functional.max_unpool3d(input, indices, kernel_size, stride, padding, output_size) = maxUnpool3d(input, indices, kernel_size, {stride, padding, output_size})
torch.nn.functional.avg_pool1d(input, kernel_size, stride, padding, ceil_mode, count_include_pad) = avgPool1d(input, kernel_size, {stride, padding, ceil_mode, count_include_pad})
torch.nn.functional.avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override) = avgPool2d(input, kernel_size, {stride, padding, ceil_mode, count_include_pad, divisor_override})
torch.nn.functional.avg_pool3d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override) = avgPool3d(input, kernel_size, {stride, padding, ceil_mode, count_include_pad, divisor_override})
torch.nn.functional.adaptive_avg_pool1d(input, output_size) = adaptiveAvgPool1d(input, output_size)
torch.nn.functional.adaptive_avg_pool2d(input, output_size) = adaptiveAvgPool2d(input, output_size)
torch.nn.functional.adaptive_max_pool1d(input, output_size, return_indices) = adaptiveMaxPool1d(input, output_size, {return_indices})
torch.nn.functional.adaptive_max_pool2d(input, output_size, return_indices) = adaptiveMaxPool2d(input, output_size, {return_indices})
torch.nn.functional.adaptive_avg_pool3d(input, output_size) = adaptiveAvgPool3d(input, output_size)
torch.nn.functional.adaptive_max_pool3d(input, output_size, return_indices) = adaptiveMaxPool3d(input, output_size, {return_indices})
torch.nn.functional.lp_pool1d(input, norm_type, kernel_size, stride, ceil_mode) = lpPool1d(input, norm_type, kernel_size, {stride, ceil_mode})
torch.nn.functional.lp_pool2d(input, norm_type, kernel_size, stride, ceil_mode) = lpPool2d(input, norm_type, kernel_size, {stride, ceil_mode})
torch.nn.functional.lp_pool3d(input, norm_type, kernel_size, stride, ceil_mode) = lpPool3d(input, norm_type, kernel_size, {stride, ceil_mode})
torch.nn.functional.channel_shuffle(input, groups) = channelShuffle(input, groups)
torch.nn.functional.conv_tbc(input, weight, bias, pad) = convTbc(input, weight, bias, pad)
torch.nn.functional.grid_sample(input, grid, mode, padding_mode, align_corners) = gridSample(input, grid, {mode, padding_mode, align_corners})
torch.nn.functional.affine_grid(theta, size, align_corners) = affineGrid(theta, size, {align_corners})
torch.nn.functional.embedding_bag(input, weight, offsets, max_norm, norm_type, scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset, padding_idx) = embeddingBag(input, weight, {offsets, mode, per_sample_weights, include_last_offset, padding_idx})
torch.nn.functional.rrelu(input, lower, upper, training, inplace) = rrelu(input, {lower, upper, training})
torch.nn.functional.gumbel_softmax(logits, tau, hard, eps, dim) = gumbelSoftmax(logits, {tau, hard, dim})
torch.nn.functional.alpha_dropout(input, p, training, inplace) = alphaDropout(input, p, {training})
torch.nn.functional.feature_alpha_dropout(input, p, training, inplace) = featureAlphaDropout(input, p, {training})
torch.nn.functional.dropout1d(input, p, training, inplace) = dropout1d(input, p, {training})
torch.nn.functional.dropout2d(input, p, training, inplace) = dropout2d(input, p, {training})
torch.nn.functional.dropout3d(input, p, training, inplace) = dropout3d(input, p, {training})
torch.nn.functional.unfold(input, kernel_size, dilation, padding, stride) = unfold2d(input, kernel_size, {dilation, padding, stride})
torch.nn.functional.fold(input, output_size, kernel_size, dilation, padding, stride) = fold2d(input, output_size, kernel_size, {dilation, padding, stride})
torch.nn.functional.pixel_shuffle(input, upscale_factor) = pixelShuffle(input, upscale_factor)
torch.nn.functional.pixel_unshuffle(input, downscale_factor) = pixelUnshuffle(input, downscale_factor)
torch.nn.functional.interpolate(input, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias) = interpolate(input, {size, scale_factor, mode, align_corners, recompute_scale_factor, antialias})

torch.nn.functional.cross_entropy(input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing) = crossEntropy(input, target, {weight, ignore_index, reduction, label_smoothing})
torch.nn.functional.nll_loss(input, target, weight, size_average, ignore_index, reduce, reduction) = nllLoss(input, target, {weight, ignore_index, reduction})
torch.nn.functional.mse_loss(input, target, size_average, reduce, reduction, weight) = mseLoss(input, target, {reduction})
torch.nn.functional.l1_loss(input, target, size_average, reduce, reduction, weight) = l1Loss(input, target, {reduction})
torch.nn.functional.smooth_l1_loss(input, target, size_average, reduce, reduction, beta) = smoothL1Loss(input, target, {reduction, beta})
torch.nn.functional.huber_loss(input, target, reduction, delta, weight) = huberLoss(input, target, {reduction, delta})
torch.nn.functional.kl_div(input, target, size_average, reduce, reduction, log_target) = klDiv(input, target, {reduction, log_target})
torch.nn.functional.binary_cross_entropy(input, target, weight, size_average, reduce, reduction) = binaryCrossEntropy(input, target, {weight, reduction})
torch.nn.functional.binary_cross_entropy_with_logits(input, target, weight, size_average, reduce, reduction, pos_weight) = binaryCrossEntropyWithLogits(input, target, {weight, pos_weight, reduction})
torch.nn.functional.poisson_nll_loss(input, target, log_input, full, size_average, eps, reduce, reduction) = poissonNllLoss(input, target, {log_input, full, eps, reduction})
torch.nn.functional.gaussian_nll_loss(input, target, var, full, eps, reduction) = gaussianNllLoss(input, target, var, {full, eps, reduction})
torch.nn.functional.cosine_similarity(x1, x2, dim, eps) = cosineSimilarity(x1, x2, dim, eps)
torch.nn.functional.pairwise_distance(x1, x2, p, eps, keepdim) = pairwiseDistance(x1, x2, p, eps, keepdim)
torch.nn.functional.pdist(input, p) = pdist(input, p)
torch.nn.functional.cosine_embedding_loss(input1, input2, target, margin, size_average, reduce, reduction) = cosineEmbeddingLoss(input1, input2, target, {margin, reduction})
torch.nn.functional.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, size_average, reduce, reduction) = tripletMarginLoss(anchor, positive, negative, {margin, p, eps, swap, reduction})
torch.nn.functional.hinge_embedding_loss(input, target, margin, size_average, reduce, reduction) = hingeEmbeddingLoss(input, target, {margin, reduction})
torch.nn.functional.soft_margin_loss(input, target, size_average, reduce, reduction) = softMarginLoss(input, target, {reduction})
torch.nn.functional.multilabel_soft_margin_loss(input, target, weight, size_average, reduce, reduction) = multilabelSoftMarginLoss(input, target, {weight, reduction})
torch.nn.functional.multilabel_margin_loss(input, target, size_average, reduce, reduction) = multilabelMarginLoss(input, target, {reduction})
torch.nn.functional.multi_margin_loss(input, target, p, margin, weight, size_average, reduce, reduction) = multiMarginLoss(input, target, {p, margin, weight, reduction})
torch.nn.functional.triplet_margin_with_distance_loss(anchor, positive, negative, distance_function, margin, swap, reduction) = tripletMarginWithDistanceLoss(anchor, positive, negative, {distance_function, margin, swap, reduction})
torch.nn.functional.ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity) = ctcLoss(log_probs, targets, input_lengths, target_lengths, {blank, reduction, zero_infinity})
torch.nn.functional.margin_ranking_loss(input1, input2, target, margin, size_average, reduce, reduction) = marginRankingLoss(input1, input2, target, {margin, reduction})

torch.linalg.vecdot(x, y, dim) = linalg.vecdot(x, y, dim)


torch.native_channel_shuffle(input, groups) = channelShuffle(input, groups)
torch.conv_tbc(input, weight, bias, pad) = convTbc(input, weight, bias, pad)
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

/** PyTorch's second names. */
const aliases = `
  absolute=abs negative=neg arccos=acos arccosh=acosh arcsin=asin arcsinh=asinh arctan=atan arctanh=atanh arctan2=atan2
  clip=clamp divide=div true_divide=div multiply=mul subtract=sub fix=trunc greater=gt greater_equal=ge less=lt
  less_equal=le not_equal=ne concat=cat concatenate=cat moveaxis=movedim swapdims=swapaxes ger=outer vdot=dot
  inverse=linalg.inv det=linalg.det slogdet=linalg.slogdet matrix_power=linalg.matrix_power cholesky=linalg.cholesky
  pinverse=linalg.pinv matrix_exp=linalg.matrix_exp linalg.matmul=matmul
  special.expit=sigmoid special.erf=erf special.erfc=erfc special.erfinv=erfinv special.exp2=exp2 special.expm1=expm1
  special.log1p=log1p special.logit=logit special.logsumexp=logsumexp special.log_softmax=log_softmax
  special.softmax=softmax special.digamma=digamma special.psi=digamma special.gammaln=lgamma special.xlogy=xlogy
  special.sinc=sinc special.round=round
`;

export interface Row {
  readonly parameters: readonly string[];
  /** The name that takes the remaining arguments, if any. */
  readonly rest: string | undefined;
  readonly ours: string;
  readonly args: readonly (Plain | readonly (readonly [key: string, name: string])[])[];
}
interface Plain {
  readonly name: string;
  /** The parameter with the dtype to convert to first. */
  readonly as: string | undefined;
}

const camelCase = (name: string): string =>
  name.replace(/_(\w)/g, (_, c: string) => c.toUpperCase());
const commaList = (text: string): string[] =>
  text
    .split(",")
    .map((s) => s.trim())
    .filter(Boolean);

function parseRow(line: string): [string, Row] {
  const match = /^([\w.]+)\((.*?)\) = ([\w.]+)\((.*)\)$/.exec(line);
  if (!match) throw new Error(`functions table: ${line}`);
  const [, name, left, ours, right] = match;
  const parameters = commaList(left);
  const [, plain, options] = /^([^{]*)(?:\{(.*)\})?$/.exec(right)!;
  const pairs = commaList(options ?? "").map((text) => {
    const [key, value] = text.split(/:\s*/);
    return [camelCase(key), value ?? key] as const;
  });
  const args = commaList(plain).map((text): Plain => {
    const [, argument, as] = /^(\w+)(?:<(\w+)>)?$/.exec(text)!;
    return { name: argument, as };
  });
  return [
    name,
    {
      parameters: parameters.map((p) => p.replace("*", "")),
      rest: parameters.find((p) => p.startsWith("*"))?.slice(1),
      ours,
      args: [...args, ...(options === undefined ? [] : [pairs])],
    },
  ];
}

const words = (text: string): string[] => text.split(/\s+/).filter(Boolean);

/** PyTorch's name to what stands for it. */
export const rows: ReadonlyMap<string, Row> = new Map(
  [
    ...words(sameName[1]).map((n) => `torch.${n}(input) = ${camelCase(n)}(input)`),
    ...words(sameName[2]).map((n) => `torch.${n}(input, other) = ${camelCase(n)}(input, other)`),
    ...words(sameName.functional).map(
      (n) => `torch.nn.functional.${n}(input) = ${camelCase(n)}(input)`,
    ),
    ...table.split("\n").filter(Boolean),
  ].map(parseRow),
);

/** A second name to the first. */
export const firstNames: ReadonlyMap<string, string> = new Map(
  words(aliases).map((pair) => {
    const [second, first] = pair.split("=");
    return [`torch.${second}`, `torch.${first}`];
  }),
);
