"""Layers, forward and backward, beside PyTorch: the same parameters, results compared, then timed in turns.

    python -m pytest bench/bench_layers.py --benchmark-enable [--threads 2] [--benchmark-json FILE]

Images are channels-last on both sides. Products are at float32's full precision.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from timing import conditions, in_turns, use_threads  # noqa: E402

import fastnn  # noqa: E402
import fastnn.functional as F  # noqa: E402
from fastnn import nn  # noqa: E402

torch = pytest.importorskip("torch")


class _Attention:
    """Scaled dot-product attention of one input with itself: (N, L, 8 heads x 64), heads as views."""

    def __init__(self, library: Any, causal: bool):
        self.attend, self.causal = library.scaled_dot_product_attention, causal

    def __call__(self, x: Any) -> Any:
        heads = x.reshape(x.shape[0], x.shape[1], 8, 64)
        heads = heads.permute(0, 2, 1, 3)
        return self.attend(heads, heads, heads, is_causal=self.causal).permute(0, 2, 1, 3).reshape(*x.shape)


def _both(name: str, *arguments: Any, **options: Any) -> tuple[Any, Any]:
    """A layer of either library, with PyTorch's parameters."""
    ours, theirs = getattr(nn, name)(*arguments, **options), getattr(torch.nn, name)(*arguments, **options)
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    return ours, theirs


# name -> how to make both, shape of the input
LAYERS: dict[str, tuple[Callable[[], tuple[Any, Any]], tuple[int, ...]]] = {
    "attention, causal, 4 x 256": (lambda: (_Attention(F, True), _Attention(torch.nn.functional, True)), (4, 256, 512)),
    "attention, causal, 1 x 1024": (lambda: (_Attention(F, True), _Attention(torch.nn.functional, True)),
                                    (1, 1024, 512)),
    "attention, 1 x 1024": (lambda: (_Attention(F, False), _Attention(torch.nn.functional, False)), (1, 1024, 512)),
    "TransformerEncoderLayer 512, 4 x 256": (
        lambda: _both("TransformerEncoderLayer", 512, 8, dropout=0.0, batch_first=True), (4, 256, 512)),
    "LayerNorm 512": (lambda: _both("LayerNorm", 512), (4096, 512)),
    "LayerNorm 768": (lambda: _both("LayerNorm", 768), (16384, 768)),
    "RMSNorm 512": (lambda: _both("RMSNorm", 512), (4096, 512)),
    "GroupNorm 8 of 64": (lambda: _both("GroupNorm", 8, 64), (16, 64, 56, 56)),
    "InstanceNorm2d 64": (lambda: _both("InstanceNorm2d", 64), (16, 64, 56, 56)),
    "ConvTranspose2d 128-64, 4 x 4, stride 2": (lambda: _both("ConvTranspose2d", 128, 64, 4, 2, 1), (16, 128, 16, 16)),
    "ConvTranspose2d 128-64, 2 x 2, stride 2": (lambda: _both("ConvTranspose2d", 128, 64, 2, 2), (8, 128, 28, 28)),
    "ConvTranspose2d 64-32, 3 x 3, stride 2": (lambda: _both("ConvTranspose2d", 64, 32, 3, 2, 1, 1), (16, 64, 32, 32)),
    "Conv1d 64-128, 5": (lambda: _both("Conv1d", 64, 128, 5, padding=2), (16, 64, 256)),
    "LSTM 256, 50 x 64": (lambda: _both("LSTM", 256, 256), (50, 64, 256)),
    "LSTM 128, 2 layers, 100 x 32": (lambda: _both("LSTM", 128, 128, 2), (100, 32, 128)),
    "GRU 256, 50 x 64": (lambda: _both("GRU", 256, 256), (50, 64, 256)),
    "LocalResponseNorm 5": (lambda: _both("LocalResponseNorm", 5), (16, 64, 28, 28)),
    "Upsample 2, bilinear": (lambda: _both("Upsample", scale_factor=2, mode="bilinear"), (16, 64, 28, 28)),
}


def _inputs(array: np.ndarray) -> tuple[Any, Any]:
    """The array for either library, channels-last if it holds images."""
    if array.ndim == 4:
        array = np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return fastnn.from_numpy(array), torch.from_numpy(array)


def _pass(layer: Any, x: Any, dy: Any) -> Any:
    """Forward and backward, gradients fresh; the same text serves both libraries."""
    x.grad = None
    for p in layer.parameters() if hasattr(layer, "parameters") else ():
        p.grad = None
    y = layer(x)
    y = y[0] if isinstance(y, tuple) else y
    y.backward(dy)
    return y


def _check(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal as a whole: where a unit is just at its kink, rounding decides single elements."""
    assert np.linalg.norm(ours - theirs) <= 1e-3 * np.linalg.norm(theirs)


@pytest.mark.parametrize("name", LAYERS)
def test_layer(benchmark: Any, request: pytest.FixtureRequest, name: str) -> None:
    use_threads(request.config.getoption("--threads"))
    make, shape = LAYERS[name]
    layers, rng = make(), np.random.default_rng(0)
    inputs = _inputs(rng.standard_normal(shape, dtype=np.float32))
    for x in inputs:
        x.requires_grad = True
    with torch.no_grad():
        result = layers[1](inputs[1])
    result = result[0] if isinstance(result, tuple) else result
    gradients = _inputs(rng.standard_normal(result.shape, dtype=np.float32))
    passes = [lambda k=k: _pass(layers[k], inputs[k], gradients[k]) for k in range(2)]
    results = [step().detach().numpy() for step in passes]
    _check(*results)
    _check(*(x.grad.numpy() for x in inputs))
    turns = in_turns(passes, 0.6)
    benchmark.extra_info |= conditions() | {"ratio": turns.ratio, "microseconds": turns.seconds[0] * 1e6}
    benchmark.pedantic(passes[0], rounds=3, warmup_rounds=1)
