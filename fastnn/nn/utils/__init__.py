"""What is done to modules and their parameters, under PyTorch's names."""

from ...optim.regularize import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from . import parametrizations, parametrize, prune, rnn
from .fusion import fuse_conv_bn_eval, fuse_conv_bn_weights, fuse_linear_bn_eval, fuse_linear_bn_weights
from .spectral import remove_spectral_norm, spectral_norm
from .vector import parameters_to_vector, vector_to_parameters
from ..weight import remove_weight_norm, weight_norm
