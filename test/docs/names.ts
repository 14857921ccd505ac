/**
 * @file PyTorch's public names (2.11's reference manual), by module: what the table in docs/api.md goes through. Left out are
 * Python's and the runtime's own affairs: printing, storages, threads, `_foreach_…`, symbolic integers, distributed training.
 */

const words = (text: string): readonly string[] => text.split(/\s+/).filter(Boolean);

export const modules: Readonly<Record<string, readonly string[]>> = {
  torch: words(`
    is_tensor is_floating_point numel set_default_dtype set_default_device
    tensor as_tensor asarray from_numpy zeros zeros_like ones ones_like arange range linspace logspace eye empty
    empty_like empty_strided full full_like complex polar heaviside sparse_coo_tensor as_strided
    quantize_per_tensor dequantize
    adjoint argwhere cat concat concatenate conj chunk dsplit column_stack dstack gather hsplit hstack index_add
    index_copy index_fill index_put index_reduce index_select masked_fill masked_scatter masked_select movedim moveaxis
    narrow narrow_copy nonzero permute reshape row_stack select scatter diagonal_scatter select_scatter slice_scatter
    scatter_add scatter_reduce split squeeze stack swapaxes swapdims t take take_along_dim tensor_split tile transpose
    unbind unravel_index unsqueeze vsplit vstack where
    Generator manual_seed seed get_rng_state set_rng_state bernoulli multinomial normal poisson rand rand_like randint
    randint_like randn randn_like randperm
    save load no_grad enable_grad set_grad_enabled is_grad_enabled inference_mode autocast compile vmap
    abs absolute acos arccos acosh arccosh add addcdiv addcmul angle asin arcsin asinh arcsinh atan arctan atanh arctanh
    atan2 arctan2 bitwise_not bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift ceil celu clamp
    clamp_min clamp_max clip conj_physical copysign cos cosh deg2rad div divide digamma erf erfc erfinv exp exp2 expm1
    fake_quantize_per_tensor_affine fix float_power floor floor_divide fmod frac frexp gradient imag ldexp lerp lgamma
    log log10 log1p log2 logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit hypot i0 igamma
    igammac mul multiply mvlgamma nan_to_num neg negative nextafter polygamma positive pow rad2deg real reciprocal relu
    remainder round rsqrt rsub selu sigmoid sign sgn signbit sin sinc sinh softmax sqrt square sub subtract tan tanh
    true_divide trunc xlogy
    argmax argmin amax amin aminmax all any max min dist logsumexp log_softmax mean nanmean median nanmedian mode norm
    nansum prod quantile nanquantile std std_mean sum unique unique_consecutive var var_mean count_nonzero
    allclose argsort eq equal ge greater_equal gt greater isclose isfinite isin isinf isposinf isneginf isnan isreal
    kthvalue le less_equal lt less maximum minimum fmax fmin ne not_equal sort topk msort
    stft istft bartlett_window blackman_window hamming_window hann_window kaiser_window
    atleast_1d atleast_2d atleast_3d bincount block_diag broadcast_tensors broadcast_to broadcast_shapes bucketize
    cartesian_prod cdist clone combinations corrcoef cov cross cummax cummin cumprod cumsum diag diag_embed diagflat
    diagonal diff einsum flatten flip fliplr flipud kron rot90 gcd histc histogram histogramdd meshgrid lcm logcumsumexp
    ravel renorm repeat_interleave roll searchsorted tensordot trace tril tril_indices triu triu_indices unflatten vander
    view_as_real view_as_complex
    addbmm addmm addmv addr baddbmm bmm chain_matmul cholesky cholesky_inverse cholesky_solve dot geqrf ger inner inverse
    det logdet slogdet lu lu_solve lu_unpack matmul matrix_power matrix_exp mm mv orgqr ormqr outer pinverse qr svd
    svd_lowrank pca_lowrank lobpcg trapz trapezoid cumulative_trapezoid triangular_solve vdot
    result_type promote_types cond`),

  "torch.Tensor": words(`
    backward grad requires_grad_ detach register_hook item tolist numpy cpu cuda to type type_as float double half
    bfloat16 int long bool size dim ndim shape numel T mT H view view_as reshape reshape_as expand expand_as repeat
    permute contiguous clone unfold flip tile copy_ add_ mul_ zero_ fill_ masked_fill masked_fill_ scatter_ index_add_
    new_zeros new_ones new_full new_tensor split softmax chunk roll cumsum masked_scatter transpose unflatten ravel
    sum mean prod std max triu is_contiguous stride data_ptr storage share_memory_ pin_memory sparse_mask apply_`),

  "torch.nn.functional": words(`
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d unfold fold
    avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_unpool1d max_unpool2d max_unpool3d
    lp_pool1d lp_pool2d lp_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d fractional_max_pool2d fractional_max_pool3d
    scaled_dot_product_attention
    threshold threshold_ relu relu_ hardtanh hardtanh_ hardswish relu6 elu elu_ selu celu leaky_relu leaky_relu_ prelu
    rrelu rrelu_ glu gelu logsigmoid hardshrink tanhshrink softsign softplus softmin softmax softshrink gumbel_softmax
    log_softmax tanh sigmoid hardsigmoid silu mish batch_norm group_norm instance_norm layer_norm local_response_norm
    rms_norm normalize
    linear bilinear dropout alpha_dropout feature_alpha_dropout dropout1d dropout2d dropout3d
    embedding embedding_bag one_hot pairwise_distance cosine_similarity pdist
    binary_cross_entropy binary_cross_entropy_with_logits poisson_nll_loss cosine_embedding_loss cross_entropy ctc_loss
    gaussian_nll_loss hinge_embedding_loss kl_div l1_loss mse_loss margin_ranking_loss multilabel_margin_loss
    multilabel_soft_margin_loss multi_margin_loss nll_loss huber_loss smooth_l1_loss soft_margin_loss
    triplet_margin_loss triplet_margin_with_distance_loss
    pixel_shuffle pixel_unshuffle pad interpolate upsample upsample_nearest upsample_bilinear grid_sample affine_grid
    grouped_mm scaled_mm scaled_grouped_mm`),

  "torch.linalg": words(`
    norm vector_norm matrix_norm diagonal det slogdet cond matrix_rank cholesky qr lu lu_factor eig eigvals eigh eigvalsh
    svd svdvals solve solve_triangular lu_solve lstsq inv pinv matrix_exp matrix_power cross matmul vecdot multi_dot
    householder_product tensorinv tensorsolve vander cholesky_ex inv_ex solve_ex lu_factor_ex ldl_factor ldl_factor_ex
    ldl_solve`),

  "torch.fft": words(`
    fft ifft fft2 ifft2 fftn ifftn rfft irfft rfft2 irfft2 rfftn irfftn hfft ihfft hfft2 ihfft2 hfftn ihfftn fftfreq
    rfftfreq fftshift ifftshift`),

  "torch.func": words(
    "vmap grad grad_and_value vjp jvp linearize jacrev jacfwd hessian functional_call functionalize",
  ),

  "torch.autograd": words(`
    backward grad Function detect_anomaly set_detect_anomaly functional.jvp functional.vjp functional.jacobian
    functional.hessian functional.hvp functional.vhp`),

  "torch.nn": words(`
    Parameter Buffer Module Sequential ModuleList ModuleDict ParameterList ParameterDict
    Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d LazyLinear Unfold Fold
    MaxPool1d MaxPool2d MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d AvgPool1d AvgPool2d AvgPool3d FractionalMaxPool2d
    FractionalMaxPool3d LPPool1d LPPool2d LPPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d
    AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d
    ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d ZeroPad1d
    ZeroPad2d ZeroPad3d ConstantPad1d ConstantPad2d ConstantPad3d CircularPad1d CircularPad2d CircularPad3d
    ELU Hardshrink Hardsigmoid Hardtanh Hardswish LeakyReLU LogSigmoid MultiheadAttention PReLU ReLU ReLU6 RReLU SELU
    CELU GELU Sigmoid SiLU Mish Softplus Softshrink Softsign Tanh Tanhshrink Threshold GLU Softmin Softmax Softmax2d
    LogSoftmax AdaptiveLogSoftmaxWithLoss
    BatchNorm1d BatchNorm2d BatchNorm3d LazyBatchNorm1d GroupNorm SyncBatchNorm InstanceNorm1d InstanceNorm2d
    InstanceNorm3d LayerNorm LocalResponseNorm RMSNorm
    RNNBase RNN LSTM GRU RNNCell LSTMCell GRUCell
    Transformer TransformerEncoder TransformerDecoder TransformerEncoderLayer TransformerDecoderLayer
    Identity Linear Bilinear Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout Embedding
    EmbeddingBag CosineSimilarity PairwiseDistance
    L1Loss MSELoss CrossEntropyLoss CTCLoss NLLLoss PoissonNLLLoss GaussianNLLLoss KLDivLoss BCELoss BCEWithLogitsLoss
    MarginRankingLoss HingeEmbeddingLoss MultiLabelMarginLoss HuberLoss SmoothL1Loss SoftMarginLoss
    MultiLabelSoftMarginLoss CosineEmbeddingLoss MultiMarginLoss TripletMarginLoss TripletMarginWithDistanceLoss
    PixelShuffle PixelUnshuffle Upsample UpsamplingNearest2d UpsamplingBilinear2d ChannelShuffle Flatten Unflatten
    DataParallel`),

  "torch.nn.init": words(`
    calculate_gain uniform_ normal_ constant_ ones_ zeros_ eye_ dirac_ xavier_uniform_ xavier_normal_ kaiming_uniform_
    kaiming_normal_ trunc_normal_ orthogonal_ sparse_`),

  "torch.nn.utils": words(`
    clip_grad_norm_ clip_grad_value_ get_total_norm parameters_to_vector vector_to_parameters parametrize weight_norm
    spectral_norm prune rnn.pack_padded_sequence rnn.pad_sequence`),

  "torch.optim": words(`
    Optimizer SGD Adam AdamW NAdam RAdam Adamax Adadelta Adagrad RMSprop Rprop ASGD Adafactor Muon SparseAdam LBFGS
    swa_utils.AveragedModel swa_utils.SWALR`),

  "torch.optim.lr_scheduler": words(`
    LRScheduler LambdaLR MultiplicativeLR StepLR MultiStepLR ConstantLR LinearLR ExponentialLR PolynomialLR
    CosineAnnealingLR ChainedScheduler SequentialLR ReduceLROnPlateau CyclicLR OneCycleLR CosineAnnealingWarmRestarts`),

  "torch.utils": words(
    "checkpoint.checkpoint data.Dataset data.IterableDataset data.DataLoader data.TensorDataset data.Subset data.ConcatDataset data.random_split data.RandomSampler data.SequentialSampler data.WeightedRandomSampler data.BatchSampler data.DistributedSampler",
  ),
};
