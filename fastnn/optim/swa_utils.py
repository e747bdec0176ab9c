"""Averages of a model's weights beside the model: stochastic weight averaging, its learning rate, batch statistics for it.

`fastnn.optim.EMA` averages parameters at every step of an optimiser. Both may be part of captured steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._core import launch
from ..checks import real, whole
from ..nn.module import Module, a_module
from ..nn.norm import _BatchNorm, _InstanceNorm
from ..ops.create import as_tensor, float64, int64, zeros
from ..ops.math import eq, where
from ..tensor import Tensor, no_grad
from .cycles import _rate
from .optimizer import Optimizer
from .schedule import RelativeLR, _cosine, _each, _optimizer

__all__ = ["SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn",
           "update_bn"]


_EQUAL, _AFTER_FIRST = 2, 3  # ramps of the op ema_update


class _Move:
    """average = decay average + (1 - decay) value, in place; the first value is copied."""

    def __init__(self, decay: float | None):
        """Without `decay`, weights are equal."""
        self.options = {"limit": 1.0, "ramp": _EQUAL} if decay is None else {"limit": decay, "ramp": _AFTER_FIRST}

    def __call__(self, averages: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
        step = as_tensor(count).to(float64)
        launch.ema_update.each([(a, x, step) for a, x in zip(averages, values, strict=True)], list(averages), **self.options)


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]:
    """For `AveragedModel`: exponential averages, decay average + (1 - decay) value.

    Parameters
    ----------
    decay : float
        From 0 to 1.

    Returns
    -------
    callable
        ``multi_avg_fn(averages, values, count)``, which writes into the averages.

    Raises
    ------
    ValueError
        If `decay` is out of range.
    """
    return _Move(real("get_ema_multi_avg_fn: decay", decay, 0, 1))


def get_swa_multi_avg_fn() -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]:
    """For `AveragedModel`: equally weighted averages, as it makes by default.

    Returns
    -------
    callable
        ``multi_avg_fn(averages, values, count)``, which writes into the averages.
    """
    return _Move(None)


def get_ema_avg_fn(decay: float = 0.999) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """For `AveragedModel`: an exponential average, decay average + (1 - decay) value.

    Parameters
    ----------
    decay : float
        From 0 to 1.

    Returns
    -------
    callable
        ``avg_fn(average, value, count)`` gives the new average.

    Raises
    ------
    ValueError
        If `decay` is out of range.
    """
    decay = real("get_ema_avg_fn: decay", decay, 0, 1)
    return lambda average, value, count: decay * average + (1 - decay) * value


def get_swa_avg_fn() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """For `AveragedModel`: an equally weighted average.

    Returns
    -------
    callable
        ``avg_fn(average, value, count)`` gives the new average.
    """
    return lambda average, value, count: average + (value - average) / (count + 1)


class AveragedModel(Module):
    """A copy of a model whose parameters are averages of the model's, over the calls of `update_parameters`.

    The first call copies; the next ones average, by default with equal weights (stochastic weight averaging). `update_parameters`
    may be part of a captured step.

    Parameters
    ----------
    model : Module
        What to copy and to average; its parameters must have their shapes.
    avg_fn : callable, optional
        ``avg_fn(average, value, count)`` gives the new average of one tensor, of which there were `count` values so far, a 0-d
        int64 tensor; what it gives with a count of 0 is not used.
    multi_avg_fn : callable, optional
        ``multi_avg_fn(averages, values, count)`` writes new averages into a list of tensors; in the place of `avg_fn`.
    use_buffers : bool
        Whether buffers of floating types, such as running statistics, are averaged too; otherwise, as integers always, they
        are the model's. Then `update_bn` makes the statistics that fit averaged weights.

    Attributes
    ----------
    module : Module
        The copy.
    n_averaged : Tensor
        0-d int64: the number of updates.

    Raises
    ------
    ValueError
        If both functions are given.

    References
    ----------
    Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018.
    """

    def __init__(self, model: Module, avg_fn: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
                 multi_avg_fn: Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None] | None = None,
                 use_buffers: bool = False):
        super().__init__()
        if not isinstance(model, Module):
            raise TypeError(f"AveragedModel: model is a {type(model).__name__}, but must be a Module")
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("AveragedModel: avg_fn and multi_avg_fn are given, but must not be both")
        for name, function in (("avg_fn", avg_fn), ("multi_avg_fn", multi_avg_fn)):
            if function is not None and not callable(function):
                raise TypeError(f"AveragedModel: {name} is {function!r}, but must be callable")
        self.module = copy.deepcopy(model)
        self.register_buffer("n_averaged", zeros((), dtype=int64))
        self.avg_fn, self.use_buffers = avg_fn, bool(use_buffers)
        self.multi_avg_fn = multi_avg_fn or (None if avg_fn else get_swa_multi_avg_fn())

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.module(*inputs, **options)

    def update_parameters(self, model: Module) -> None:
        """Takes the present parameters of `model` into the averages.

        Parameters
        ----------
        model : Module
            Made like the one that was copied.

        Raises
        ------
        ValueError
            If tensors are missing or have other shapes.
        """
        own, values = _tensors(self.module), _tensors(model)
        if [t.shape for t in own] != [t.shape for t in values]:
            raise ValueError("AveragedModel: model has other parameters or buffers than the one that was copied")
        parameters = len(list(model.parameters()))
        with no_grad():
            averaged = [k for k, t in enumerate(own) if t.is_floating_point() and (self.use_buffers or k < parameters)]
            for k in sorted(set(range(len(own))) - set(averaged)):
                own[k].copy_(values[k])
            if averaged:
                self._average([own[k] for k in averaged], [values[k] for k in averaged], self.n_averaged)
            self.n_averaged.add_(1)

    def _average(self, own: list[Tensor], values: list[Tensor], count: Tensor) -> None:
        """The count is memory and never read here, so that a captured step sees it grow; functions not from here leave it to
        `where` to take the first value."""
        if self.multi_avg_fn is not None:
            self.multi_avg_fn(own, values, count)
            found = own
        else:
            found = [self.avg_fn(average, value, count) for average, value in zip(own, values)]
        if not isinstance(self.multi_avg_fn, _Move):
            for average, value, new in zip(own, values, found):
                average.copy_(where(eq(count, 0), value, new))


def _tensors(model: Module) -> list[Tensor]:
    """Parameters, then buffers."""
    return [t.detach() for t in (*model.parameters(), *model.buffers())]


def update_bn(loader: Iterable[Any], model: Module) -> None:
    """Makes the running statistics of batch normalisation anew: their means over one pass through `loader`.

    Parameters
    ----------
    loader : iterable
        Gives batches: inputs, or tuples and lists that begin with them.
    model : Module
        Such as an `AveragedModel`; it runs in training mode and is then as it was.
    """
    norms = [m for m in a_module("update_bn", model, "model").modules() if isinstance(m, _BatchNorm) and not isinstance(m, _InstanceNorm)]
    if not norms:
        return
    was_training, momenta = model.training, [norm.momentum for norm in norms]
    model.train()
    try:
        with no_grad():
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
            for batch in loader:
                model(as_tensor(batch[0] if isinstance(batch, (tuple, list)) else batch))
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        model.train(was_training)


class SWALR(RelativeLR):
    """From the rate at its first step to `swa_lr` in `anneal_epochs` steps, constant afterwards.

    Until that step others may set the rates: one schedule for the training before, this one while weights are averaged.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    swa_lr : float or sequence of float
        The last rate, for all parameter groups or one for each.
    anneal_epochs : int
        At least 0; with 0 the rates are `swa_lr` at once.
    anneal_strategy : str
        "cos" or "linear".
    last_epoch : int
        See `LRScheduler`.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    References
    ----------
    Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018.
    """

    def __init__(self, optimizer: Optimizer, swa_lr: float | Sequence[float], anneal_epochs: int = 10,
                 anneal_strategy: str = "cos", last_epoch: int = -1):
        self.swa_lrs = _each("SWALR: swa_lr", swa_lr, _optimizer(self, optimizer), _rate)
        self.anneal_epochs = whole("SWALR: anneal_epochs", anneal_epochs, 0)
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"SWALR: anneal_strategy is {anneal_strategy!r}, but must be 'cos' or 'linear'")
        self.anneal_strategy = anneal_strategy
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return list(self.swa_lrs) if self.last_epoch > self.anneal_epochs else super().get_lr()

    def rates(self, bases: list[float], t: int) -> list[float]:
        part = min(1.0, t / self.anneal_epochs) if self.anneal_epochs else 1.0
        if self.anneal_strategy == "cos":
            return [_cosine(base, last, part) for base, last in zip(bases, self.swa_lrs)]
        return [base + (last - base) * part for base, last in zip(bases, self.swa_lrs)]
