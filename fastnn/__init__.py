"""fastnn: trains neural networks on CPUs, fast.

The low level follows PyTorch's names (`fastnn.tensor`, `fastnn.nn`, `fastnn.optim`, `fastnn.functional`), the high
level Keras's (`fastnn.train.Trainer`).
"""

from typing import TYPE_CHECKING

try:
    from ._core import (get_conv_algorithm, get_float32_matmul_precision, get_num_threads, memory_stats,
                        set_conv_algorithm, set_float32_matmul_precision, set_num_threads)
except ImportError as _error:
    from .startup import refuse as _refuse

    _refuse(_error)
    raise
from .tensor import Function, Tensor, enable_grad, no_grad  # before the function `tensor` takes the module's name
from .ops.create import (arange, as_tensor, empty, eye, float32, float64, from_numpy, full, full_like, int32, int64,
                         linspace, ones, ones_like, tensor, uint8, zeros, zeros_like)
from .ops.create import bool_ as bool
from .config import show_config
from .functional import *
from .program import capture
from .profile import profile
from .random import (Generator, bernoulli, initial_seed, manual_seed, multinomial, rand, rand_like, randint, randn, randn_like,
                     randperm)
from .threads import num_threads

if TYPE_CHECKING:
    from . import data, io, models, nn, optim, testing, train
    from .derivatives import gradcheck, jacobian, vjp

__version__ = "0.1.0"

_ON_DEMAND = ("data", "io", "models", "nn", "optim", "testing", "train")
_DERIVATIVES = ("gradcheck", "jacobian", "vjp")


def __getattr__(name: str) -> object:
    """`fastnn.nn`, the other sub-packages and derivatives, imported when first used: `import fastnn` stays quick."""
    if name in _ON_DEMAND:
        import importlib

        return importlib.import_module(f"fastnn.{name}")
    if name in _DERIVATIVES:
        from . import derivatives

        return getattr(derivatives, name)
    raise AttributeError(f"module 'fastnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_DEMAND, *_DERIVATIVES})
