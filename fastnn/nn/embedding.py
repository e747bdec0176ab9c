"""Embedding, and encodings of positions."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ..checks import integer, positive, real, whole
from ..ops.create import empty, tensor
from ..ops.dropout import dropout
from ..ops.embedding import embedding
from ..ops.math import add
from ..ops.shape import unsqueeze
from ..ops.slices import slice_view
from ..tensor import Tensor, no_grad
from . import init
from .module import Module, Parameter
from .typed import typed

__all__ = ["Embedding", "LearnedPositionalEncoding", "SinusoidalPositionalEncoding"]


@typed
class Embedding(Module):
    """A table of vectors, one for each of a vocabulary; see `fastnn.functional.embedding`.

    Parameters
    ----------
    num_embeddings : int
        V, rows of the table.
    embedding_dim : int
        D, their width.
    padding_idx : int, optional
        A row that starts as 0 and takes no gradient.
    max_norm : float, optional
        Rows in use are scaled down to this norm, in place.
    norm_type : float
        Which norm.
    scale_grad_by_freq : bool
        Whether a row's gradient is divided by how often a batch names it.

    Attributes
    ----------
    weight : Parameter
        (V, D), at first normal with mean 0 and deviation 1.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
                 max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False):
        super().__init__()
        num_embeddings = whole("Embedding: num_embeddings", num_embeddings, 1)
        if padding_idx is not None:
            if not -num_embeddings <= integer("Embedding", "padding_idx", padding_idx) < num_embeddings:
                raise ValueError(f"Embedding: padding_idx is {padding_idx!r}, but must be a row of {num_embeddings}")
            padding_idx %= num_embeddings
        self.num_embeddings, self.padding_idx = num_embeddings, padding_idx
        self.embedding_dim = whole("Embedding: embedding_dim", embedding_dim, 1)
        self.max_norm = None if max_norm is None else positive("Embedding: max_norm", max_norm)
        self.norm_type, self.scale_grad_by_freq = positive("Embedding: norm_type", norm_type), scale_grad_by_freq
        self.weight = Parameter(empty(self.num_embeddings, self.embedding_dim))
        self.reset_parameters()

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None,
                        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False) -> Embedding:
        """A layer of given vectors.

        Parameters
        ----------
        embeddings : Tensor
            (num_embeddings, embedding_dim); the layer shares its memory.
        freeze : bool
            Whether the vectors stay as they are.
        padding_idx, max_norm, norm_type, scale_grad_by_freq : object
            As for the class.

        Returns
        -------
        Embedding

        Raises
        ------
        ValueError
            If `embeddings` is no matrix.
        """
        if embeddings.ndim != 2:
            raise ValueError(f"from_pretrained: embeddings has shape {embeddings.shape}, but must be a matrix")
        layer = cls(*embeddings.shape, padding_idx, max_norm, norm_type, scale_grad_by_freq)
        layer.weight = Parameter(embeddings, requires_grad=not freeze)
        return layer

    def reset_parameters(self) -> None:
        """Draws new first values."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx].fill_(0)

    def forward(self, input: Tensor) -> Tensor:
        """(...) integers -> (..., embedding_dim)"""
        return embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq)

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        return text + other_than({"padding_idx": None, "max_norm": None, "norm_type": 2, "scale_grad_by_freq": False}, self)


def other_than(defaults: dict[str, Any], layer: Module) -> str:
    """The options of a layer that are not at their defaults, as they stand in its text."""
    return "".join(f", {name}={getattr(layer, name)}" for name, default in defaults.items() if getattr(layer, name) != default)


@functools.lru_cache(maxsize=16)
def _sinusoids(length: int, width: int, dtype: str) -> Tensor:
    """(length, width): sines in even columns, cosines in odd ones."""
    angles = np.arange(length)[:, None] * np.exp(np.arange(0, width, 2) * (-math.log(10000.0) / width))
    table = np.empty((length, width))
    table[:, 0::2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles)[:, :width // 2]
    return tensor(table, dtype)


def _along_positions(x: Tensor, table: Tensor, batch_first: bool) -> Tensor:
    """x (N, L, D), (L, N, D) or (L, D) plus table (L, D)."""
    return add(x, unsqueeze(table, 1) if x.ndim > 2 and not batch_first else table)


def _positions(name: str, x: Tensor, batch_first: bool, width: int, most: int) -> int:
    """L; an error if the sequences are too long or of another width."""
    length = x.shape[1 if batch_first and x.ndim > 2 else 0] if x.ndim in (2, 3) else -1
    if not 0 <= length <= most or x.shape[-1] != width:
        layout = "(N, L, D)" if batch_first else "(L, N, D)"
        raise ValueError(f"{name}: x has shape {x.shape}, but must be {layout} or (L, D) with D = {width} and L at "
                         f"most {most}")
    return length


class SinusoidalPositionalEncoding(Module):
    """Adds sines and cosines of the position, then dropout: PE[t, 2i] = sin(t / 10000^(2i / D)), PE[t, 2i + 1] the
    cosine.

    Parameters
    ----------
    d_model : int
        D, the width.
    dropout : float
        Probability of dropping an element of the sum, in training.
    max_len : int
        Longest sequence.
    batch_first : bool
        Whether inputs are (N, L, D) rather than (L, N, D); (L, D) is always one sequence.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.5.
    """

    def __init__(self, d_model: int, dropout: float = 0.0, max_len: int = 5000, batch_first: bool = True):
        super().__init__()
        title = type(self).__name__
        self.d_model, self.max_len = whole(f"{title}: d_model", d_model, 1), whole(f"{title}: max_len", max_len, 1)
        self.dropout, self.batch_first = real(f"{title}: dropout", dropout, 0, 1), batch_first

    def forward(self, input: Tensor) -> Tensor:
        length = _positions(type(self).__name__, input, self.batch_first, self.d_model, self.max_len)
        y = _along_positions(input, _sinusoids(length, self.d_model, input.dtype.name), self.batch_first)
        return dropout(y, self.dropout, self.training)

    def extra_repr(self) -> str:
        return f"{self.d_model}, dropout={self.dropout}, max_len={self.max_len}, batch_first={self.batch_first}"


class LearnedPositionalEncoding(SinusoidalPositionalEncoding):
    """Adds a learned vector for each position, then dropout.

    Parameters
    ----------
    d_model : int
        D, the width.
    dropout : float
        Probability of dropping an element of the sum, in training.
    max_len : int
        Longest sequence.
    batch_first : bool
        Whether inputs are (N, L, D) rather than (L, N, D); (L, D) is always one sequence.

    Attributes
    ----------
    weight : Parameter
        (max_len, D), at first normal with mean 0 and deviation 0.02.

    References
    ----------
    J. Devlin et al., "BERT: pre-training of deep bidirectional transformers for language understanding", NAACL 2019.
    """

    def __init__(self, d_model: int, dropout: float = 0.0, max_len: int = 512, batch_first: bool = True):
        super().__init__(d_model, dropout, max_len, batch_first)
        self.weight = Parameter(empty(self.max_len, self.d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new first values."""
        init.normal_(self.weight, 0.0, 0.02)

    def forward(self, input: Tensor) -> Tensor:
        length = _positions(type(self).__name__, input, self.batch_first, self.d_model, self.max_len)
        y = _along_positions(input, slice_view(self.weight, (slice(0, length),)), self.batch_first)
        return dropout(y, self.dropout, self.training)
