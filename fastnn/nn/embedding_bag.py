"""Bags of rows of a table as a layer."""

from __future__ import annotations

from typing import Any

from ..checks import integer, positive, whole
from ..ops.create import empty
from ..ops.embedding_bag import embedding_bag
from ..tensor import Tensor, no_grad
from . import init
from .embedding import other_than
from .module import Module, Parameter
from .typed import typed


@typed
class EmbeddingBag(Module):
    """A table of vectors, of which each bag of indices gives the sum, the mean or the greatest elements; see
    `fastnn.functional.embedding_bag`.

    Parameters
    ----------
    num_embeddings : int
        V, rows of the table.
    embedding_dim : int
        D, their width.
    max_norm : float, optional
        Rows in use are scaled down to this norm, in place.
    norm_type : float
        Which norm.
    scale_grad_by_freq : bool
        Whether a row's gradient is divided by how often a batch names it; not with mode "max".
    mode : str
        "sum", "mean" or "max".
    include_last_offset : bool
        Whether offsets end with the number of indices.
    padding_idx : int, optional
        A row that does not count; it starts as 0 and takes no gradient.

    Attributes
    ----------
    weight : Parameter
        (V, D), at first normal with mean 0 and deviation 1.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, max_norm: float | None = None, norm_type: float = 2.0,
                 scale_grad_by_freq: bool = False, mode: str = "mean", include_last_offset: bool = False,
                 padding_idx: int | None = None):
        super().__init__()
        self.num_embeddings = whole("EmbeddingBag: num_embeddings", num_embeddings, 1)
        self.embedding_dim = whole("EmbeddingBag: embedding_dim", embedding_dim, 1)
        if mode not in ("sum", "mean", "max"):
            raise ValueError(f"EmbeddingBag: mode is {mode!r}, but must be 'sum', 'mean' or 'max'")
        if scale_grad_by_freq and mode == "max":
            raise ValueError("EmbeddingBag: scale_grad_by_freq does not go with mode 'max'")
        if padding_idx is not None:
            if not -self.num_embeddings <= integer("EmbeddingBag", "padding_idx", padding_idx) < self.num_embeddings:
                raise ValueError(f"EmbeddingBag: padding_idx is {padding_idx!r}, but must be a row of {num_embeddings}")
            padding_idx %= self.num_embeddings
        self.padding_idx, self.mode = padding_idx, mode
        self.max_norm = None if max_norm is None else positive("EmbeddingBag: max_norm", max_norm)
        self.norm_type, self.scale_grad_by_freq = positive("EmbeddingBag: norm_type", norm_type), scale_grad_by_freq
        self.include_last_offset = bool(include_last_offset)
        self.weight = Parameter(empty(self.num_embeddings, self.embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new first values."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx].fill_(0)

    def forward(self, input: Tensor, offsets: Any = None, per_sample_weights: Any = None) -> Tensor:
        """(B, L) integers, or (J,) with offsets -> (B, embedding_dim)"""
        return embedding_bag(input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode,
                             per_sample_weights, self.include_last_offset, self.padding_idx)

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        text += other_than({"max_norm": None, "norm_type": 2, "scale_grad_by_freq": False}, self)
        return text + f", mode={self.mode!r}" + other_than({"padding_idx": None}, self)
