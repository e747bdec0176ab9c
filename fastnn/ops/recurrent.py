"""Recurrent layers: a whole sequence in one launch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core import TensorBase, launch, record
from ..checks import a_tensor
from .create import arange
from .index import _as_index
from .linear import linear, matmul
from .math import eq, mul, sub, where
from .shape import permute, to, transpose, unsqueeze
from .slices import cat

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["gru", "lstm", "rnn"]

_MODES = {"tanh": 0, "relu": 1, "lstm": 2, "gru": 3}


def _recurrent(mode: str, x: Tensor, h0: Tensor | None, c0: Tensor | None, weight_ih: Tensor, weight_hh: Tensor,
               bias_ih: Tensor | None, bias_hh: Tensor | None, lengths: Any, reverse: bool, batch_first: bool) -> tuple:
    """(y, last h, last c); the input's share of all steps is one product."""
    if a_tensor(mode, x).ndim != 3:
        layout = "(batch, steps, features)" if batch_first else "(steps, batch, features)"
        raise ValueError(f"{mode}: input has shape {x.shape}, but must be {layout}")
    options = {"mode": _MODES[mode], "reverse": bool(reverse), "batch_first": bool(batch_first)}
    lengths = None if lengths is None else _as_index(mode, lengths)
    share = _by_steps(launch.linear_forward(x, weight_ih, bias_ih), batch_first)
    y, h, c, gates, before, extra = launch.recurrent_forward(share, h0, c0, weight_hh, bias_hh, lengths, **options)
    saved = (x, weight_ih, weight_hh, gates, before, extra, lengths)
    inputs = (x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh)
    return record(_recurrent_backward, inputs, (_by_steps(y, batch_first), h, c), saved, options)


def _by_steps(t: Tensor, batch_first: bool) -> Tensor:
    """(N, T, ...) as (T, N, ...), or back: a view."""
    return permute(t, 1, 0, 2) if batch_first else t


def _recurrent_backward(node, dy, dh, dc):
    x, weight_ih, weight_hh, gates, before, extra, lengths = node.saved
    options, needs = node.context, node.needs
    batch_first = options["batch_first"]
    dy = None if dy is None else _by_steps(dy, batch_first)
    dc = dc if options["mode"] == 2 else None
    dshare, dhidden, dh0, dc0 = launch.recurrent_backward(gates, before, extra, weight_hh, dy, dh, dc, lengths,
                                                          **options)
    dhidden = dhidden if options["mode"] == 3 else dshare
    dshare, dhidden, before = (_by_steps(t, batch_first) for t in (dshare, dhidden, before))
    dbias_ih = _sum_of_steps(dshare) if needs[5] else None
    same = dbias_ih is not None and options["mode"] != 3
    dbias_hh = None if not needs[6] else launch.copy(dbias_ih, dtype=-1) if same else _sum_of_steps(dhidden)
    return (launch.linear_backward_input(dshare, weight_ih) if needs[0] else None, dh0, dc0 if needs[2] else None,
            launch.linear_backward_weight(dshare, x) if needs[3] else None,
            launch.linear_backward_weight(dhidden, before) if needs[4] else None, dbias_ih, dbias_hh)


def _sum_of_steps(t: Tensor) -> Tensor:
    """(gates H,), the sum of (T, N, gates H)."""
    return launch.sum(t, axes=0b11, keepdim=0, divisor=1.0)


def rnn(input: Tensor, h0: Tensor | None, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor | None = None,
        bias_hh: Tensor | None = None, nonlinearity: str = "tanh", lengths: Any = None, reverse: bool = False,
        batch_first: bool = False) -> tuple[Tensor, Tensor]:
    """One layer of Elman's network: h = tanh(x W_ih^T + b_ih + h W_hh^T + b_hh), step by step.

    Parameters
    ----------
    input : Tensor
        (T, N, I), or (N, T, I) with `batch_first`.
    h0 : Tensor or None
        (N, H), the state before the first step; None: 0.
    weight_ih, weight_hh : Tensor
        (H, I) and (H, H).
    bias_ih, bias_hh : Tensor, optional
        (H,) each.
    nonlinearity : str
        "tanh" or "relu".
    lengths : Tensor or array_like, optional
        (N,) integers, how many steps each sequence has; behind them results are 0 and the state stays.
    reverse : bool
        Whether each sequence is read from its end.
    batch_first : bool
        Whether the batch is the first axis of `input` and of the result.

    Returns
    -------
    tuple of Tensor
        All hidden states, (T, N, H) or (N, T, H), and the last one of each sequence, (N, H).

    Raises
    ------
    ValueError
        If shapes do not fit, or `nonlinearity` is neither.
    IndexError
        If a length is negative or greater than T.

    References
    ----------
    J. L. Elman, "Finding structure in time", Cognitive Science 14, 1990.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"rnn: nonlinearity is {nonlinearity!r}, but must be 'tanh' or 'relu'")
    y, h, _ = _recurrent(nonlinearity, input, h0, None, weight_ih, weight_hh, bias_ih, bias_hh, lengths, reverse,
                         batch_first)
    return y, h


def lstm(input: Tensor, h0: Tensor | None, c0: Tensor | None, weight_ih: Tensor, weight_hh: Tensor,
         bias_ih: Tensor | None = None, bias_hh: Tensor | None = None, lengths: Any = None, reverse: bool = False,
         batch_first: bool = False, weight_hr: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """One layer of long short-term memory: c = f c + i g, h = o tanh(c), with gates i, f, o = sigmoid and g = tanh of
    x W_ih^T + b_ih + h W_hh^T + b_hh, step by step.

    Parameters
    ----------
    input : Tensor
        (T, N, I), or (N, T, I) with `batch_first`.
    h0, c0 : Tensor or None
        (N, H), hidden state and cell before the first step; None: 0.
    weight_ih, weight_hh : Tensor
        (4 H, I) and (4 H, H): i, f, g, o.
    bias_ih, bias_hh : Tensor, optional
        (4 H,) each.
    lengths : Tensor or array_like, optional
        (N,) integers, how many steps each sequence has; behind them results are 0 and the state stays.
    reverse : bool
        Whether each sequence is read from its end.
    batch_first : bool
        Whether the batch is the first axis of `input` and of the result.
    weight_hr : Tensor, optional
        (P, H): hidden states are projected, h = o tanh(c) W_hr^T; then `h0` is (N, P), `weight_hh` (4 H, P), and P stands
        for H in the hidden states below.

    Returns
    -------
    tuple of Tensor
        All hidden states, (T, N, H) or (N, T, H); the last hidden state and cell of each sequence, (N, H).

    Raises
    ------
    ValueError
        If shapes do not fit.
    IndexError
        If a length is negative or greater than T.

    References
    ----------
    S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997; with the forget gate of
    F. A. Gers, J. Schmidhuber and F. Cummins, "Learning to forget", Neural Computation 12(10), 2000; projected as in H. Sak,
    A. Senior and F. Beaufays, "Long short-term memory recurrent neural network architectures", 2014.
    """
    if weight_hr is not None:
        return _projected_lstm(input, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, reverse, batch_first, weight_hr)
    return _recurrent("lstm", input, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, reverse, batch_first)


def _projected_lstm(x: Tensor, h0: Tensor | None, c0: Tensor | None, weight_ih: Tensor, weight_hh: Tensor,
                    bias_ih: Tensor | None, bias_hh: Tensor | None, lengths: Any, reverse: bool, batch_first: bool,
                    weight_hr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM over r = o tanh(c), before its projection: h W_hh^T = r (W_hh W_hr)^T; all r are projected in one product.

    No r gives `h0`: its share enters the first step as further features of the input, whose weight is W_hh.
    """
    a_tensor("lstm", weight_hr, "weight_hr"), a_tensor("lstm", weight_hh, "weight_hh")
    if weight_hr.ndim != 2 or weight_hh.ndim != 2 or weight_hh.shape != (4 * weight_hr.shape[1], weight_hr.shape[0]):
        raise ValueError(f"lstm: weight_hr has shape {weight_hr.shape} and weight_hh {weight_hh.shape}, but must be (P, H) and "
                         "(4 H, P)")
    if h0 is not None and x.ndim == 3:
        if h0.shape != (x.shape[0 if batch_first else 1], weight_hr.shape[0]):
            raise ValueError(f"lstm: h0 has shape {h0.shape}, but must be (N, {weight_hr.shape[0]})")
        x = cat((x, _in_first_step(h0, x, lengths, reverse, batch_first)), 2)
        weight_ih = cat((weight_ih, weight_hh), 1)
    r, last, c = _recurrent("lstm", x, None, c0, weight_ih, matmul(weight_hh, weight_hr), bias_ih, bias_hh, lengths, reverse,
                            batch_first)
    h = linear(last, weight_hr)
    if h0 is not None and lengths is not None:  # sequences without steps keep their state
        h = where(unsqueeze(eq(_as_index("lstm", lengths), 0), 1), h0, h)
    return linear(r, weight_hr), h, c


def _in_first_step(h0: Tensor, x: Tensor, lengths: Any, reverse: bool, batch_first: bool) -> Tensor:
    """h0 at each sequence's first step, 0 at all others: (T, N, P), or (N, T, P)."""
    axis = 1 if batch_first else 0
    steps = arange(x.shape[axis])
    first = sub(_as_index("lstm", lengths), 1) if reverse and lengths is not None else (x.shape[axis] - 1) * bool(reverse)
    is_first = eq(unsqueeze(steps, 1), first) if isinstance(first, TensorBase) else unsqueeze(eq(steps, first), 1)
    mask = to(transpose(is_first, 0, 1) if batch_first else is_first, x.dtype)
    return mul(unsqueeze(mask, 2), unsqueeze(h0, axis))


def gru(input: Tensor, h0: Tensor | None, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor | None = None,
        bias_hh: Tensor | None = None, lengths: Any = None, reverse: bool = False,
        batch_first: bool = False) -> tuple[Tensor, Tensor]:
    """One layer of gated recurrent units: h = (1 - z) n + z h with r, z = sigmoid(x W_ih^T + b_ih + h W_hh^T + b_hh)
    and n = tanh(x W_in^T + b_in + r (h W_hn^T + b_hn)), step by step.

    Parameters
    ----------
    input : Tensor
        (T, N, I), or (N, T, I) with `batch_first`.
    h0 : Tensor or None
        (N, H), the state before the first step; None: 0.
    weight_ih, weight_hh : Tensor
        (3 H, I) and (3 H, H): r, z, n.
    bias_ih, bias_hh : Tensor, optional
        (3 H,) each.
    lengths : Tensor or array_like, optional
        (N,) integers, how many steps each sequence has; behind them results are 0 and the state stays.
    reverse : bool
        Whether each sequence is read from its end.
    batch_first : bool
        Whether the batch is the first axis of `input` and of the result.

    Returns
    -------
    tuple of Tensor
        All hidden states, (T, N, H) or (N, T, H), and the last one of each sequence, (N, H).

    Raises
    ------
    ValueError
        If shapes do not fit.
    IndexError
        If a length is negative or greater than T.

    References
    ----------
    K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation",
    EMNLP 2014.
    """
    y, h, _ = _recurrent("gru", input, h0, None, weight_ih, weight_hh, bias_ih, bias_hh, lengths, reverse, batch_first)
    return y, h
