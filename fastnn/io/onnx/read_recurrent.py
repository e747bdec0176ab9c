"""Recurrent operators: LSTM, GRU, RNN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ... import functional as F
from ...tensor import Tensor
from .operators import only, reads

_DIRECTIONS = ("forward", "reverse", "bidirectional")


def _gates(x: Tensor, order: Sequence[int]) -> Tensor:
    """The gates, along the first axis, in our order."""
    parts = F.chunk(x, len(order))
    return F.cat([parts[k] for k in order]) if len(order) > 1 else x


def _run(step: Callable, order: Sequence[int], x: Tensor, weights: tuple[Tensor, Tensor], bias: Tensor | None,
         lengths: Tensor | None, states: Sequence[Tensor | None], direction: str, layout: int) -> tuple[Tensor, ...]:
    """All directions of one layer: Y, and the last states."""
    only("direction", direction, *_DIRECTIONS)
    only("layout", layout, 0, 1)
    count = 2 if direction == "bidirectional" else 1
    if any(t.ndim != 3 or t.shape[0] != count for t in weights) or (bias is not None and bias.shape[0] != count):
        raise ValueError(f"direction is {direction!r}, but the weights have shapes {[tuple(t.shape) for t in weights]}")
    outputs, lasts = [], []
    for k in range(count):
        parts = [_gates(t[k], order) for t in weights]
        parts += [None, None] if bias is None else [_gates(half, order) for half in F.chunk(bias[k], 2)]
        firsts = [None if t is None else F.select(t, 1 if layout else 0, k) for t in states]
        y, *last = step(x, *firsts, *parts, lengths=lengths, reverse=k == 1 or direction == "reverse", batch_first=bool(layout))
        outputs.append(y)
        lasts.append(last)
    axis = 1 if layout else 0
    return F.stack(outputs, 2 if layout else 1), *(F.stack(list(parts), axis) for parts in zip(*lasts))


def _usual(title: str, activations: list[str] | None, wanted: Sequence[str], direction: str, clip: float | None) -> None:
    """Refuses other activations, and clipping."""
    count = 2 if direction == "bidirectional" else 1
    if activations is not None and [name.lower() for name in activations] != [name.lower() for name in wanted] * count:
        raise ValueError(f"activations are {activations}, but {title}'s must be {list(wanted) * count}")
    if clip is not None:
        raise ValueError(f"clip is {clip}, but must be left out")


@reads("LSTM")
def _lstm(x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, lengths: Tensor | None = None, h0: Tensor | None = None,
          c0: Tensor | None = None, peepholes: Tensor | None = None, *, hidden_size: int = 0, direction: str = "forward", layout: int = 0,
          input_forget: int = 0, activations: list[str] | None = None, clip: float | None = None) -> Any:
    _usual("LSTM", activations, ("Sigmoid", "Tanh", "Tanh"), direction, clip)
    only("input_forget", input_forget, 0)
    if peepholes is not None:
        raise ValueError("it has peepholes (input P), but must have none")
    return _run(F.lstm, (0, 2, 3, 1), x, (w, r), b, lengths, (h0, c0), direction, layout)


@reads("GRU")
def _gru(x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, lengths: Tensor | None = None, h0: Tensor | None = None, *,
         hidden_size: int = 0, direction: str = "forward", layout: int = 0, linear_before_reset: int = 0,
         activations: list[str] | None = None, clip: float | None = None) -> Any:
    _usual("GRU", activations, ("Sigmoid", "Tanh"), direction, clip)
    only("linear_before_reset", linear_before_reset, 1)
    return _run(F.gru, (1, 0, 2), x, (w, r), b, lengths, (h0,), direction, layout)


@reads("RNN")
def _rnn(x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, lengths: Tensor | None = None, h0: Tensor | None = None, *,
         hidden_size: int = 0, direction: str = "forward", layout: int = 0, activations: list[str] | None = None,
         clip: float | None = None) -> Any:
    kind = activations[0].lower() if activations else "tanh"
    only("activations", kind, "tanh", "relu")
    _usual("RNN", activations, (kind,), direction, clip)

    def step(x: Tensor, h: Tensor | None, *weights: Tensor | None, **options: Any) -> Any:
        return F.rnn(x, h, *weights, kind, **options)

    return _run(step, (0,), x, (w, r), b, lengths, (h0,), direction, layout)
