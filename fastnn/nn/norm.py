"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence

from .._core import launch
from ..checks import real, whole
from ..ops.create import empty, float64, int64, zeros
from ..ops.local_response import local_response_norm
from ..ops.math import add
from ..ops.operands import constant
from ..ops.norm import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from ..ops.shape import reshape
from ..tensor import Tensor, no_grad
from .lazy import Lazy
from .module import Module, Parameter
from .typed import typed


def _reset(layer: Module) -> None:
    """Sets weight 1 and bias 0, where they are there."""
    with no_grad():
        for name, parameter in layer._parameters.items():
            if parameter is not None:
                parameter.copy_(int(name == "weight"))


class _BatchNorm(Module):
    """What batch normalisation is for every rank; see `BatchNorm2d`."""

    _ranks: tuple[int, ...]
    _layout: str

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, bias: bool = True):
        super().__init__()
        title = type(self).__name__
        self.num_features = num_features = whole(f"{title}: num_features", num_features, 0)
        self.eps = real(f"{title}: eps", eps, 0)
        self.momentum = None if momentum is None else real(f"{title}: momentum", momentum, 0, 1)
        self.affine = affine
        self.track_running_stats = track_running_stats
        for name, is_there in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(name, Parameter(empty(num_features)) if is_there else None)
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, empty(num_features) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", zeros((), dtype=int64) if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forgets all batches: mean 0, variance 1."""
        if self.track_running_stats:
            self.running_mean.copy_(0)
            self.running_var.copy_(1)
            self.num_batches_tracked.copy_(0)

    def reset_parameters(self) -> None:
        """Sets weight 1 and bias 0, and forgets all batches."""
        self.reset_running_stats()
        _reset(self)

    def _count_batch(self) -> float | Tensor:
        """Counts one more batch; returns the momentum of this one. All in tensors: a captured step counts on."""
        count = add(self.num_batches_tracked, constant(1, int64))
        launch.copy(count, dtype=-1, out=self.num_batches_tracked)
        if self.momentum is not None:
            return self.momentum
        return launch.div(constant(1.0, float64), launch.copy(count, dtype=float64.code))

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in self._ranks or input.shape[1] != self.num_features:
            raise ValueError(f"{type(self).__name__}: input has shape {input.shape}, but must be {self._layout} with "
                             f"C = {self.num_features}")
        momentum = self._count_batch() if self.training and self.track_running_stats else 0.0
        return batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias,
                          self.training or not self.track_running_stats, momentum, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")


@typed
class BatchNorm1d(_BatchNorm):
    """Normalises each channel of (N, C) or (N, C, L) over the batch; everything else is as in `BatchNorm2d`."""

    _ranks = (2, 3)
    _layout = "(N, C) or (N, C, L)"


@typed
class BatchNorm2d(_BatchNorm):
    """Normalises each channel of (N, C, H, W) over the batch: y = (x - mean) / sqrt(var + eps) * weight + bias.

    In training, mean and (biased) variance are those of the batch; in evaluation, the running statistics.

    Parameters
    ----------
    num_features : int
        C.
    eps : float
        Added to the variance.
    momentum : float or None
        How far a batch moves the running statistics: running = (1 - momentum) running + momentum batch. 1 keeps those
        of the last batch alone; 0 freezes them; None makes them the plain average over all batches since
        `reset_running_stats`.
    affine : bool
        Whether there are a weight and a bias.
    track_running_stats : bool
        Whether there are running statistics; without, evaluation uses the batch's too.
    bias : bool
        Whether there is a bias beside the weight.

    Attributes
    ----------
    weight, bias : Parameter or None
        (C,), at first 1 and 0.
    running_mean, running_var : Tensor or None
        (C,), at first 0 and 1; the variance is the unbiased one.
    num_batches_tracked : Tensor or None
        0-d int64: how many batches moved them.

    References
    ----------
    S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift", ICML 2015.
    """

    _ranks = (4,)
    _layout = "(N, C, H, W)"


class _LazyNorm(Lazy):
    """Takes num_features from the first input."""

    _count, _lazy_axes = "num_features", {"weight": 0, "bias": 0, "running_mean": 0, "running_var": 0}


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """A BatchNorm1d that takes num_features from its first input; arguments as there."""

    _channel_axis, _lazy_ranks, _lazy_layout = 1, BatchNorm1d._ranks, BatchNorm1d._layout


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """A BatchNorm2d that takes num_features from its first input; arguments as there."""

    _channel_axis, _lazy_ranks, _lazy_layout = 1, BatchNorm2d._ranks, BatchNorm2d._layout


class _LastAxes(Module):
    """What layer and RMS normalisation share: the shape that is normalised, eps, and parameters of that shape."""

    _eps_may_be_none = False

    def __init__(self, normalized_shape: int | Sequence[int], eps: float | None, elementwise_affine: bool,
                 names: tuple[str, ...]):
        super().__init__()
        title = type(self).__name__
        given = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        if not given:
            raise ValueError(f"{title}: normalized_shape is {normalized_shape!r}, but must name at least one axis")
        self.normalized_shape = shape = tuple(whole(f"{title}: normalized_shape", n, 0) for n in given)
        self.eps = None if eps is None and self._eps_may_be_none else real(f"{title}: eps", eps, 0)
        self.elementwise_affine = elementwise_affine
        for name in names:
            self.register_parameter(name, Parameter(empty(*shape)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets weight 1 and bias 0."""
        _reset(self)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


@typed
class LayerNorm(_LastAxes):
    """Normalises over the last axes, each row by its own mean and variance; see `fastnn.functional.layer_norm`.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The last axes of the input.
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Whether there are a weight and a bias.
    bias : bool
        Whether there is a bias beside the weight.

    Attributes
    ----------
    weight, bias : Parameter or None
        (*normalized_shape), at first 1 and 0.

    References
    ----------
    J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer normalization", arXiv:1607.06450, 2016.
    """

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True,
                 bias: bool = True):
        names = ("weight", "bias")[:1 + bool(bias)] if elementwise_affine else ()
        super().__init__(normalized_shape, eps, elementwise_affine, names)
        for name in ("weight", "bias"):
            if name not in names:
                self.register_parameter(name, None)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bias={self.bias is not None}"

    def forward(self, input: Tensor) -> Tensor:
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


@typed
class RMSNorm(_LastAxes):
    """Divides by the root mean square of the last axes; see `fastnn.functional.rms_norm`.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The last axes of the input.
    eps : float, optional
        Added to the mean square; by default the type's machine epsilon.
    elementwise_affine : bool
        Whether there is a weight.

    Attributes
    ----------
    weight : Parameter or None
        (*normalized_shape), at first 1.

    References
    ----------
    B. Zhang and R. Sennrich, "Root mean square layer normalization", NeurIPS 2019.
    """

    _eps_may_be_none = True

    def __init__(self, normalized_shape: int | Sequence[int], eps: float | None = None,
                 elementwise_affine: bool = True):
        super().__init__(normalized_shape, eps, elementwise_affine, ("weight",) if elementwise_affine else ())
        if not elementwise_affine:
            self.register_parameter("weight", None)

    def forward(self, input: Tensor) -> Tensor:
        return rms_norm(input, self.normalized_shape, self.weight, self.eps)


@typed
class GroupNorm(Module):
    """Normalises each image's groups of channels; see `fastnn.functional.group_norm`.

    Parameters
    ----------
    num_groups : int
        Number of groups; divides `num_channels`.
    num_channels : int
        C of (N, C, ...).
    eps : float
        Added to the variance.
    affine : bool
        Whether there are a weight and a bias.
    bias : bool
        Whether there is a bias beside the weight.

    Attributes
    ----------
    weight, bias : Parameter or None
        (C,), at first 1 and 0.

    References
    ----------
    Y. Wu and K. He, "Group normalization", ECCV 2018.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
                 bias: bool = True):
        super().__init__()
        num_channels = whole("GroupNorm: num_channels", num_channels, 1)
        if num_channels % whole("GroupNorm: num_groups", num_groups, 1):
            raise ValueError(f"GroupNorm: num_groups is {num_groups!r}, but must be at least 1 and divide "
                             f"num_channels, {num_channels!r}")
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps = real("GroupNorm: eps", eps, 0)
        self.affine = affine
        for name, is_there in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(name, Parameter(empty(num_channels)) if is_there else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets weight 1 and bias 0."""
        _reset(self)

    def forward(self, input: Tensor) -> Tensor:
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
                f"bias={self.bias is not None}")


class _InstanceNorm(_BatchNorm):
    """What instance normalisation is for every rank; see `InstanceNorm2d`."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
                 track_running_stats: bool = False, bias: bool = True):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias)

    def forward(self, input: Tensor) -> Tensor:
        rank = self._ranks[0]
        if input.ndim not in (rank - 1, rank) or input.shape[input.ndim - rank + 1] != self.num_features:
            raise ValueError(f"{type(self).__name__}: input has shape {input.shape}, but must be {self._layout} with C = "
                             f"{self.num_features}")
        if input.ndim < rank:
            return reshape(self.forward(reshape(input, (1, *input.shape))), input.shape)
        own = self.training or not self.track_running_stats
        return instance_norm(input, self.running_mean, self.running_var, self.weight, self.bias, own,
                             self.momentum or 0.0, self.eps)


@typed
class InstanceNorm1d(_InstanceNorm):
    """Normalises each channel of each sequence, (N, C, L) or (C, L); everything else is as in `InstanceNorm2d`."""

    _ranks = (3,)
    _layout = "(N, C, L) or (C, L)"


@typed
class InstanceNorm2d(_InstanceNorm):
    """Normalises each channel of each image, (N, C, H, W) or (C, H, W); see `fastnn.functional.instance_norm`.

    Parameters
    ----------
    num_features : int
        C.
    eps : float
        Added to the variance.
    momentum : float or None
        How far a batch moves the running statistics; None freezes them. As in PyTorch, batches are not counted.
    affine : bool
        Whether there are a weight and a bias.
    track_running_stats : bool
        Whether there are running statistics, used in evaluation.
    bias : bool
        Whether there is a bias beside the weight.

    Attributes
    ----------
    weight, bias : Parameter or None
        (C,), at first 1 and 0.
    running_mean, running_var : Tensor or None
        (C,), at first 0 and 1.

    References
    ----------
    D. Ulyanov, A. Vedaldi and V. Lempitsky, "Instance normalization: the missing ingredient for fast stylization",
    arXiv:1607.08022, 2016.
    """

    _ranks = (4,)
    _layout = "(N, C, H, W) or (C, H, W)"


class LazyInstanceNorm1d(_LazyNorm, InstanceNorm1d):
    """An InstanceNorm1d that takes num_features from its first input; arguments as there, but, as PyTorch's, it is affine and
    tracks statistics unless told otherwise."""

    _lazy_defaults = {"affine": True, "track_running_stats": True}
    _channel_axis, _lazy_ranks, _lazy_layout = -2, (2, 3), InstanceNorm1d._layout


class LazyInstanceNorm2d(_LazyNorm, InstanceNorm2d):
    """An InstanceNorm2d that takes num_features from its first input; arguments as there, but, as PyTorch's, it is affine and
    tracks statistics unless told otherwise."""

    _lazy_defaults = {"affine": True, "track_running_stats": True}
    _channel_axis, _lazy_ranks, _lazy_layout = -3, (3, 4), InstanceNorm2d._layout


class LocalResponseNorm(Module):
    """Divides by what neighbouring channels hold; see `fastnn.functional.local_response_norm`.

    Parameters
    ----------
    size : int
        Channels of a window.
    alpha, beta, k : float
        y = x / (k + alpha / size * sum of x^2)^beta.

    References
    ----------
    A. Krizhevsky, I. Sutskever and G. E. Hinton, "ImageNet classification with deep convolutional neural networks",
    NeurIPS 2012, section 3.3.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size = whole("LocalResponseNorm: size", size, 1)
        self.alpha, self.beta, self.k = (real(f"LocalResponseNorm: {name}", value) for name, value in
                                         (("alpha", alpha), ("beta", beta), ("k", k)))

    def forward(self, input: Tensor) -> Tensor:
        return local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class CrossMapLRN2d(LocalResponseNorm):
    """LocalResponseNorm of images, (N, C, H, W), under the name that LuaTorch gave it; arguments as there.

    PyTorch's adds the first channel's square to every window behind the first ones, too; this one does not.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 4:
            raise ValueError(f"CrossMapLRN2d: the input has shape {input.shape}, but must be (N, C, H, W)")
        return super().forward(input)
