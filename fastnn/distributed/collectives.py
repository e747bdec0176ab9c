"""What all ranks do together with a tensor: sums, copies, waiting."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import TensorBase
from ..checks import a_tensor, integer
from ..ops.create import from_numpy
from .world import OPS, SUMMED, get_world_size, world


def barrier() -> None:
    """Waits until all ranks have come here."""
    world().agree("barrier")


def broadcast(tensor: TensorBase, src: int = 0) -> TensorBase:
    """Gives all ranks one rank's elements, in place.

    Parameters
    ----------
    tensor : Tensor
        Of the same shape and dtype on all ranks.
    src : int
        The rank whose elements they are.

    Returns
    -------
    Tensor
        `tensor`.

    Raises
    ------
    ValueError
        If there is no such rank, or ranks differ in shape, dtype or `src`.
    TypeError
        If `tensor` is none.
    """
    array = writable("broadcast", tensor)
    if not 0 <= integer("broadcast", "src", src) < get_world_size():
        raise ValueError(f"broadcast: src is {src}, but must be a rank, at least 0 and below {get_world_size()}")
    world().agree("broadcast", f"{described(tensor)}, src {src}")
    with Dense(array) as flat:
        world().broadcast(flat, src)
    return tensor


def all_reduce(tensor: TensorBase, op: str = "sum") -> TensorBase:
    """Combines the tensors of all ranks element by element, in rank order, in place.

    Parameters
    ----------
    tensor : Tensor
        Of the same shape and dtype on all ranks; of a dense one (in C order) no copy is made.
    op : {"sum", "mean", "product", "max", "min"}
        How; "mean" for floating-point tensors, those that add or multiply not for bool.

    Returns
    -------
    Tensor
        `tensor`.

    Raises
    ------
    ValueError
        If `op` is another, or ranks differ in shape, dtype or `op`.
    TypeError
        If `tensor` is none, or of a dtype that `op` is not for.
    """
    array = writable("all_reduce", tensor)
    if op not in OPS:
        raise ValueError(f"all_reduce: op is {op!r}, but must be one of {', '.join(map(repr, OPS))}")
    if op == "mean" and not tensor.is_floating_point() or op in SUMMED and array.dtype == bool:
        raise TypeError(f"all_reduce: op is {op!r}, but a tensor of {tensor.dtype} has "
                        f"{'max and min' if array.dtype == bool else 'sum, product, max and min'}")
    world().agree("all_reduce", f"{described(tensor)}, op {op}")
    with Dense(array) as flat:
        world().reduce(flat, op)
    return tensor


def all_gather(tensor: TensorBase) -> list[Any]:
    """The tensors of all ranks, in rank order.

    Parameters
    ----------
    tensor : Tensor
        Of the same shape and dtype on all ranks.

    Returns
    -------
    list of Tensor
        New ones, this rank's among them.

    Raises
    ------
    ValueError
        If ranks differ in shape or dtype.
    TypeError
        If `tensor` is none.
    """
    array = np.ascontiguousarray(a_tensor("all_gather", tensor).detach().numpy()).reshape(tensor.shape)
    world().agree("all_gather", described(tensor))
    return [from_numpy(part.copy()) for part in world().gathered(array)]


def described(tensor: TensorBase) -> str:
    """Type and shape, which ranks have to share."""
    return f"{tensor.dtype} {tensor.shape}"


def writable(name: str, tensor: Any) -> np.ndarray:
    """A tensor's elements, which are about to be written."""
    array = a_tensor(name, tensor).detach().numpy()
    if get_world_size() > 1:
        tensor.bump_version()
    return array


class Dense:
    """A context that gives an array's elements as (n,), dense: the memory itself where it lies so, else a copy that is written back."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.flat = np.ascontiguousarray(array).reshape(-1)

    def __enter__(self) -> np.ndarray:
        return self.flat

    def __exit__(self, *error: Any) -> None:
        if not np.may_share_memory(self.flat, self.array):
            self.array[...] = self.flat.reshape(self.array.shape)
