"""Random numbers: a counter-based generator; its numbers depend on the seed and the launches before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import _core
from ._core import DType, launch
from .checks import integer, whole
from .ops.create import extents_of, float32, int64, tensor

if TYPE_CHECKING:
    from .tensor import Tensor

__all__ = ["Generator", "default_generator", "initial_seed", "manual_seed", "rand", "randn", "randperm"]


class Generator:
    """A stream of random launches.

    Parameters
    ----------
    seed : int, optional
        Any integer; by default one from the operating system.

    Attributes
    ----------
    state : Tensor
        int64, shape (2,): the seed, and the number of the next random launch. Part of a checkpoint.
    """

    def __init__(self, seed: int | None = None):
        self.state = tensor([0, 0], dtype=int64)
        self.manual_seed(int.from_bytes(os.urandom(7), "little") if seed is None else seed)

    def manual_seed(self, seed: int) -> Generator:
        """Starts anew from `seed`."""
        seed = integer("manual_seed", "seed", seed) & (1 << 64) - 1
        self.state[0] = seed - (1 << 64) if seed >> 63 else seed
        self.state[1] = 0
        return self

    def initial_seed(self) -> int:
        """The seed it started from."""
        return self.state[0].item()

    def get_state(self) -> Tensor:
        """A copy of the state."""
        return self.state.clone()

    def set_state(self, state: Tensor) -> None:
        """Continues from a state that `get_state` gave."""
        if state.shape != (2,) or state.dtype is not int64:
            raise ValueError(f"set_state: state is {state.dtype} {state.shape}, but must be int64 (2,)")
        self.state.copy_(state)


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Makes every random number that follows a function of `seed`.

    Parameters
    ----------
    seed : int
        Any integer.

    Returns
    -------
    Generator
        The default generator.
    """
    return default_generator.manual_seed(seed)


def initial_seed() -> int:
    """The default generator's seed."""
    return default_generator.initial_seed()


def generator_state(generator: Generator | None) -> Tensor:
    """The state of `generator`, or of the default one."""
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(f"generator is a {type(generator).__name__}, but must be a fastnn.Generator or None")
    return (generator or default_generator).state


def rand(*shape: int, dtype: DType = float32, generator: Generator | None = None) -> Tensor:
    """Uniform random numbers in [0, 1).

    Parameters
    ----------
    *shape : int
        Extents, as numbers or as one tuple.
    dtype : dtype
        float32 or float64.
    generator : Generator, optional
        The default one if not given.

    Returns
    -------
    Tensor
    """
    result = _core.empty(extents_of(shape), dtype, contiguous=True)
    return launch.uniform(generator_state(generator), low=0.0, high=1.0, ordinal=0, out=result)


def randn(*shape: int, dtype: DType = float32, generator: Generator | None = None) -> Tensor:
    """Normally distributed random numbers of mean 0 and standard deviation 1; parameters as `rand`."""
    result = _core.empty(extents_of(shape), dtype, contiguous=True)
    return launch.normal(generator_state(generator), mean=0.0, std=1.0, ordinal=0, out=result)


def randperm(n: int, generator: Generator | None = None) -> Tensor:
    """The integers 0 to n - 1 in random order, int64."""
    result = _core.empty((whole("randperm: n", n, 0),), int64)
    return launch.randperm(generator_state(generator), ordinal=0, out=result)
