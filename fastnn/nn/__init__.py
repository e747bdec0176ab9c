"""Layers by family; names, arguments and parameter layouts are PyTorch's."""

from . import functional, init
from .activation import (Activation, CELU, ELU, GELU, GLU, Gaussian, Hardshrink, Hardsigmoid, Hardswish, Hardtanh,
                        LeakyReLU, LogSigmoid, LogSoftmax, Maxout, Mish, PReLU, RReLU, ReLU, ReLU6, SELU, SiLU, Sigmoid,
                        Sign, Softmax, Softmax2d, Softmin, Softplus, Softshrink, Softsign, Step, Tanh, Tanhshrink, Threshold)
from .adaptive_softmax import AdaptiveLogSoftmaxWithLoss
from .attention import MultiheadAttention
from .batch_statistics import recompute_batch_norm
from .bilinear import Bilinear
from .container import Concat, ModuleDict, ModuleList, Residual, Sequential
from .conv import Conv1d, Conv2d, LazyConv1d, LazyConv2d
from .conv_transpose import ConvTranspose1d, ConvTranspose2d, LazyConvTranspose1d, LazyConvTranspose2d
from .ctc_loss import CTCLoss
from .distance import (CosineEmbeddingLoss, CosineSimilarity, PairwiseDistance, TripletMarginLoss,
                       TripletMarginWithDistanceLoss)
from .dropout import AlphaDropout, Dropout, Dropout1d, Dropout2d, FeatureAlphaDropout, GaussianNoise
from .embedding import Embedding, LearnedPositionalEncoding, SinusoidalPositionalEncoding
from .embedding_bag import EmbeddingBag
from .fractional_pool import FractionalMaxPool2d
from .linear import Flatten, Identity, LazyLinear, Linear, Unflatten
from .local import Fold, LocallyConnected1d, LocallyConnected2d, Unfold
from .loss import (BCEWithLogitsLoss, CrossEntropyLoss, GaussianNLLLoss, HuberLoss, L1Loss, LinearCrossEntropyLoss,
                   MSELoss, NLLLoss, PoissonNLLLoss, SmoothL1Loss)
from .lp_pool import LPPool1d, LPPool2d
from .margin_loss import (BCELoss, FocalLoss, HingeEmbeddingLoss, HingeLoss, KLDivLoss, MarginRankingLoss,
                          MultiLabelMarginLoss, MultiLabelSoftMarginLoss, MultiMarginLoss, PerceptronLoss,
                          SigmoidFocalLoss, SoftMarginLoss)
from .module import Buffer, Module, Parameter
from .norm import (BatchNorm1d, BatchNorm2d, CrossMapLRN2d, GroupNorm, InstanceNorm1d, InstanceNorm2d, LayerNorm, LazyBatchNorm1d,
                   LazyBatchNorm2d, LazyInstanceNorm1d, LazyInstanceNorm2d, LocalResponseNorm, RMSNorm)
from .parameter_container import ParameterDict, ParameterList
from .penalty import ActivityRegularization
from .pool import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, MaxPool2d
from .pool1d import AdaptiveAvgPool1d, AdaptiveMaxPool1d, AvgPool1d, GlobalAvgPool1d, GlobalMaxPool1d, MaxPool1d
from .rearrange import ChannelShuffle, PixelShuffle, PixelUnshuffle
from .recurrent import (GRU, GRUCell, LSTM, LSTMCell, PackedSequence, RNN, RNNCell, pack_padded_sequence,
                        pad_packed_sequence)
from .resample import (BedOfNails2d, CircularPad1d, CircularPad2d, ConstantPad1d, ConstantPad2d, MaxUnpool1d,
                       MaxUnpool2d, ReflectionPad1d, ReflectionPad2d, ReplicationPad1d, ReplicationPad2d, Upsample,
                       UpsamplingBilinear2d, UpsamplingNearest2d, ZeroPad1d, ZeroPad2d)
from .transformer import (Transformer, TransformerDecoder, TransformerDecoderLayer, TransformerEncoder,
                          TransformerEncoderLayer)
from .weight import DropConnect, WeightNorm, weight_norm


def __getattr__(name: str) -> object:
    """`nn.utils`, imported when first used: it tells of the optimisers' clipping, and they know modules."""
    if name == "utils":
        import importlib

        return importlib.import_module("fastnn.nn.utils")
    raise AttributeError(f"module 'fastnn.nn' has no attribute {name!r}")
