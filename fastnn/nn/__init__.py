"""Layers by family; names, arguments and parameter layouts are PyTorch's."""

from . import init
from .activation import (Activation, CELU, ELU, GELU, GLU, Gaussian, Hardshrink, Hardsigmoid, Hardswish, Hardtanh,
                        LeakyReLU, LogSigmoid, LogSoftmax, Maxout, Mish, PReLU, ReLU, ReLU6, SELU, SiLU, Sigmoid, Sign,
                        Softmax, Softmin, Softplus, Softshrink, Softsign, Step, Tanh, Tanhshrink, Threshold)
from .attention import MultiheadAttention
from .container import ModuleDict, ModuleList, Sequential
from .conv import Conv2d, LazyConv2d
from .dropout import Dropout
from .embedding import Embedding, LearnedPositionalEncoding, SinusoidalPositionalEncoding
from .linear import Flatten, Identity, LazyLinear, Linear, Unflatten
from .loss import (BCEWithLogitsLoss, CrossEntropyLoss, GaussianNLLLoss, HuberLoss, L1Loss, MSELoss, NLLLoss,
                   PoissonNLLLoss, SmoothL1Loss)
from .margin_loss import (BCELoss, FocalLoss, HingeEmbeddingLoss, HingeLoss, KLDivLoss, MarginRankingLoss,
                          MultiLabelSoftMarginLoss, MultiMarginLoss, PerceptronLoss, SigmoidFocalLoss, SoftMarginLoss)
from .module import Module, Parameter
from .norm import (BatchNorm1d, BatchNorm2d, GroupNorm, InstanceNorm1d, InstanceNorm2d, LayerNorm, LazyBatchNorm1d,
                   LazyBatchNorm2d, RMSNorm)
from .pool import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, MaxPool2d
from .recurrent import (GRU, GRUCell, LSTM, LSTMCell, PackedSequence, RNN, RNNCell, pack_padded_sequence,
                        pad_packed_sequence)
from .transformer import (Transformer, TransformerDecoder, TransformerDecoderLayer, TransformerEncoder,
                          TransformerEncoderLayer)
