"""Sequences of different lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..._core import TensorBase
from ...checks import a_tensor, several
from ...ops.create import as_tensor
from ...ops.index import _as_index
from ...ops.shape import transpose
from ...ops.slices import pad, slice_view, stack
from ...tensor import Tensor
from ..recurrent import PackedSequence, pack_padded_sequence, pad_packed_sequence

__all__ = ["PackedSequence", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence", "pad_sequence", "unpack_sequence",
           "unpad_sequence"]


def pad_sequence(sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0,
                 padding_side: str = "right") -> Tensor:
    """Sequences as one tensor, the shorter ones filled up.

    Parameters
    ----------
    sequences : sequence of Tensor
        (T_i, ...), alike but for T_i.
    batch_first : bool
        Whether the result is (N, T, ...) rather than (T, N, ...).
    padding_value : float
        What they are filled up with,
    padding_side : str
        "right" or "left" of them.

    Returns
    -------
    Tensor

    Raises
    ------
    TypeError
        If one is no tensor, or types differ.
    ValueError
        If there is no sequence, one has no axis, shapes differ behind the first, or `padding_side` is another.
    """
    if padding_side not in ("right", "left"):
        raise ValueError(f"pad_sequence: padding_side is {padding_side!r}, but must be 'right' or 'left'")
    sequences = list(sequences)
    if not sequences:
        raise ValueError("pad_sequence: sequences is empty, but needs at least one tensor")
    for t in sequences:
        if not isinstance(t, TensorBase):
            raise TypeError(f"pad_sequence: sequences holds a {type(t).__name__}, but must hold tensors only")
        if t.ndim == 0:
            raise ValueError("pad_sequence: sequences holds a tensor without axes, but each needs its steps along the first")
    longest = max(t.shape[0] for t in sequences)
    filled = []
    for t in sequences:
        missing = longest - t.shape[0]
        widths = (0, 0) * (t.ndim - 1) + ((0, missing) if padding_side == "right" else (missing, 0))
        filled.append(pad(t, widths, value=padding_value) if missing else t)
    return stack(filled, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Any, batch_first: bool = False) -> list[Tensor]:
    """The sequences of a padded tensor, each as long as it is.

    Parameters
    ----------
    padded_sequences : Tensor
        (T, N, ...), or (N, T, ...) with `batch_first`.
    lengths : Tensor or array_like
        (N,) integers. They are read: a step that calls this is not captured.
    batch_first : bool
        Which.

    Returns
    -------
    list of Tensor
        (T_i, ...).
    """
    sequences = padded_sequences if batch_first else transpose(padded_sequences, 0, 1)
    counts, (most, longest) = _as_index("unpad_sequence", lengths, "lengths").tolist(), sequences.shape[:2]
    if len(counts) > most:
        raise ValueError(f"unpad_sequence: lengths has {len(counts)} numbers, but there are {most} sequences")
    wrong = next((k for k, n in enumerate(counts) if not 0 <= n <= longest), None)
    if wrong is not None:
        raise ValueError(f"unpad_sequence: lengths[{wrong}] is {counts[wrong]}, but must be from 0 to {longest}, "
                         "the length of what is padded")
    return [slice_view(sequences, (k, slice(n))) for k, n in enumerate(counts)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Sequences of different lengths, for recurrent layers.

    Parameters
    ----------
    sequences : sequence of Tensor
        (T_i, ...), alike but for T_i.
    enforce_sorted : bool
        Whether to insist that they come by falling length, as ONNX does.

    Returns
    -------
    PackedSequence

    Raises
    ------
    ValueError
        If they do not, though `enforce_sorted`.
    """
    sequences = list(several("pack_sequence", sequences, "sequences"))
    lengths = as_tensor([a_tensor("pack_sequence", t, "a sequence").shape[0] for t in sequences])
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed one, each as long as it is; see `unpad_sequence`."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
