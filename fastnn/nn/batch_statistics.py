"""Statistics of batch normalisation over a whole data set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .._core import launch
from ..ops.create import as_tensor
from ..tensor import Tensor, no_grad
from .module import Module
from .norm import _BatchNorm

__all__ = ["recompute_batch_norm"]


class _Moments:
    """Number, mean and squares about it of each channel, merged batch by batch (Chan, Golub and LeVeque 1983)."""

    def __init__(self):
        self.count, self.mean, self.squares, self.batches = 0, 0.0, 0.0, 0

    def add(self, x: Tensor) -> None:
        """One more batch, (N, C, ...)."""
        _, mean, var, _ = launch.batch_norm_forward(x.detach(), None, None, eps=0.0)
        count = x.numel() // x.shape[1]
        mean, var = (np.array(memoryview(t), np.float64) for t in (mean, var))
        delta, total = mean - self.mean, self.count + count
        self.squares = self.squares + var * count + delta**2 * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count, self.batches = total, self.batches + 1


def recompute_batch_norm(model: Module, data: Iterable[Any]) -> None:
    """Sets the running statistics of all batch normalisation to the exact mean and unbiased variance over a data set.

    The batches pass through the model once, without dropout, each normalised by its own statistics as in training; what
    every layer receives is pooled over all of them, whatever their sizes, rather than averaged with decaying weights.

    Parameters
    ----------
    model : Module
        Its mode and momenta stay.
    data : iterable
        Batches: tensors, or tuples whose first entry is the input.

    Raises
    ------
    ValueError
        If `data` is empty though the model has such layers.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    moments = {layer: _Moments() for layer in layers}
    modes = [(m, m.training) for m in model.modules()]
    momenta = [(layer, layer.momentum) for layer in layers]
    hooks = [layer.register_forward_pre_hook(lambda layer, inputs: moments[layer].add(inputs[0])) for layer in layers]
    try:
        model.eval()
        for layer in layers:
            layer.training, layer.momentum = True, 0.0
        with no_grad():
            for batch in data:
                model(batch[0] if isinstance(batch, (tuple, list)) else batch)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
        for layer, momentum in momenta:
            layer.momentum = momentum
    for layer, found in moments.items():
        if found.count < 2:
            raise ValueError("recompute_batch_norm: data is empty, but must hold at least one batch")
        layer.running_mean.copy_(as_tensor(found.mean))
        layer.running_var.copy_(as_tensor(found.squares / (found.count - 1)))
        layer.num_batches_tracked.copy_(found.batches)
