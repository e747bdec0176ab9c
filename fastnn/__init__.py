"""fastnn: trains neural networks on CPUs, fast.

The low level follows PyTorch's names (`fastnn.tensor`, `fastnn.nn`, `fastnn.optim`, `fastnn.functional`), the high
level Keras's (`fastnn.train.Trainer`).
"""

from math import inf, nan, pi
from typing import TYPE_CHECKING

try:
    from ._core import (get_conv_algorithm, get_float32_matmul_precision, get_num_threads, is_grad_enabled, memory_stats,
                        set_conv_algorithm, set_float32_matmul_precision, set_num_threads)
except ImportError as _error:
    from .startup import refuse as _refuse

    _refuse(_error)
    raise
from .tensor import Tensor, enable_grad, inference_mode, no_grad, set_grad_enabled  # before `tensor`, the function
from .function import Function
from .ops.create import (BoolTensor, ByteTensor, DoubleTensor, FloatTensor, IntTensor, LongTensor, arange, as_tensor, empty,
                         empty_like, eye, finfo, float32, float64, from_numpy, full, full_like, iinfo, int32, int64, is_tensor,
                         linspace, logspace, ones, ones_like, tensor, tril_indices, triu_indices, uint8, zeros, zeros_like)
from .ops.create import bool_ as bool, float32 as float, float64 as double, int32 as int, int64 as long
from .ops.layout import channels_last, contiguous_format, preserve_format
from .config import show_config
from .functional import *
from .program import capture
from .profile import profile
from .random import (Generator, bernoulli, get_rng_state, initial_seed, manual_seed, multinomial, normal, rand, rand_like, randint,
                     randint_like, randn, randn_like, randperm, set_rng_state)
from .threads import num_threads

# Methods that PyTorch has as functions too.
for _name in ("absolute", "addmv", "allclose", "aminmax", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh",
              "baddbmm", "clamp_max", "clamp_min", "detach", "dist", "divide", "equal", "erfc", "fix", "fliplr", "flipud",
              "float_power", "greater", "greater_equal", "inner", "is_floating_point", "is_nonzero", "is_same_size", "is_signed", "less",
              "less_equal", "moveaxis", "multiply", "narrow_copy", "negative", "not_equal", "numel", "positive", "ravel", "sgn",
              "subtract", "swapaxes", "swapdims", "tensor_split", "true_divide"):
    globals()[_name] = getattr(Tensor, _name)
del _name
concatenate, row_stack, Size = cat, vstack, tuple

if TYPE_CHECKING:
    from . import data, distributed, io, models, nn, optim, testing, train
    from .derivatives import gradcheck, jacobian, vjp

__version__ = "0.1.0"

_ON_DEMAND = ("data", "distributed", "io", "models", "nn", "optim", "testing", "train")
_DERIVATIVES = ("gradcheck", "jacobian", "vjp")
# Names of PyTorch's that are missing on purpose, and what stands for them.
_ELSEWHERE = {
    "amp": "fastnn computes in float32 or float64; set_float32_matmul_precision asks for less precise products",
    "autograd": "fastnn.Function is for operations of one's own, fastnn.vjp and fastnn.jacobian for derivatives",
    "backends": "results are the same every time without a switch; threads: fastnn.set_num_threads",
    "compile": "fastnn.capture(step) records a step and replays it in C",
    "cuda": "fastnn computes on the CPU",
    "device": "fastnn computes on the CPU; where an argument 'device' is taken it is 'cpu' or None",
    "distributions": "fastnn.bernoulli, multinomial and normal draw; log_softmax and gather give logarithms of probabilities",
    "func": "fastnn.vjp and fastnn.jacobian give derivatives",
    "get_default_dtype": "what no argument 'dtype' asks for otherwise is float32",
    "histogram": "fastnn.histc counts in equal bins; numpy.histogram takes tensors",
    "jit": "fastnn.capture(step) records a step and replays it in C",
    "linalg": "fastnn.norm and matmul are offered",
    "load": "fastnn.io.load_file reads weights, fastnn.io.load_model a model: safetensors, nothing is unpickled",
    "profiler": "fastnn.profile(step, x, y) shows where a step's time goes",
    "save": "fastnn.io.save_file writes weights, fastnn.io.save_model a model: safetensors, nothing is pickled",
    "set_default_dtype": "what no argument 'dtype' asks for otherwise is float32; model.double() makes a model's parameters float64",
    "utils": "fastnn.data has DataLoader, fastnn.nn.utils what torch.nn.utils has",
}


def __getattr__(name: str) -> object:
    """`fastnn.nn`, the other sub-packages and derivatives, imported when first used: `import fastnn` stays quick."""
    if name in _ON_DEMAND:
        import importlib

        return importlib.import_module(f"fastnn.{name}")
    if name in _DERIVATIVES:
        from . import derivatives

        return getattr(derivatives, name)
    instead = f": {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
    raise AttributeError(f"module 'fastnn' has no attribute {name!r}{instead}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_DEMAND, *_DERIVATIVES})
