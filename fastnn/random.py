"""Random numbers: a counter-based generator; its numbers depend on the seed and the launches before."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._core import DType, TensorBase, launch
from .checks import a_tensor, check_device, integer, number, real, whole
from .ops.create import extents_of, float32, float64, int64, tensor
from .ops.math import add, div, lt, minimum, mul
from .ops.operands import constant
from .ops.order import topk
from .ops.shape import to
from .ops.slices import slice_view

if TYPE_CHECKING:
    from .tensor import Tensor

__all__ = ["Generator", "bernoulli", "default_generator", "initial_seed", "manual_seed", "multinomial", "normal", "rand",
           "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm"]

_LEAST = {name: float(np.finfo(name).tiny) for name in ("float32", "float64")}


class Generator:
    """A stream of random launches. Threads that share one get different numbers, in no certain order; a captured step counts its
    draws when it ends, so that threads which replay such steps need a generator each.

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
        if a_tensor("set_state", state, "state").shape != (2,) or state.dtype is not int64:
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


def get_rng_state() -> Tensor:
    """A copy of the default generator's state."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """The default generator continues from a state that `get_rng_state` gave."""
    default_generator.set_state(new_state)


@contextmanager
def kept_state() -> Iterator[None]:
    """Gives back what is drawn within from the default generator, and from those of Python's and NumPy's modules."""
    state, python, numpy = default_generator.get_state(), random.getstate(), np.random.get_state(legacy=False)
    try:
        yield
    finally:
        default_generator.set_state(state)
        random.setstate(python)
        np.random.set_state(numpy)


def generator_state(generator: Generator | None) -> Tensor:
    """The state of `generator`, or of the default one."""
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(f"generator is a {type(generator).__name__}, but must be a fastnn.Generator or None")
    return (generator or default_generator).state


def rand(*shape: int, size: Sequence[int] | None = None, dtype: DType = float32, generator: Generator | None = None,
         requires_grad: bool = False, device: Any = None) -> Tensor:
    """Uniform random numbers in [0, 1).

    Parameters
    ----------
    *shape : int
        Extents, as numbers or as one tuple.
    size : sequence of int, optional
        The same by name.
    dtype : dtype
        float32 or float64.
    generator : Generator, optional
        The default one if not given.
    requires_grad : bool
        Whether gradients are to be collected.
    device : None or "cpu"
        There is no other.

    Returns
    -------
    Tensor
    """
    check_device("rand", device)
    result = _core.empty(extents_of(shape, size), dtype, contiguous=True)
    launch.uniform(generator_state(generator), low=0.0, high=1.0, ordinal=0, out=result)
    result.requires_grad = requires_grad
    return result


def randn(*shape: int, size: Sequence[int] | None = None, dtype: DType = float32, generator: Generator | None = None,
          requires_grad: bool = False, device: Any = None) -> Tensor:
    """Normally distributed random numbers of mean 0 and standard deviation 1; parameters as `rand`."""
    check_device("randn", device)
    result = _core.empty(extents_of(shape, size), dtype, contiguous=True)
    launch.normal(generator_state(generator), mean=0.0, std=1.0, ordinal=0, out=result)
    result.requires_grad = requires_grad
    return result


def normal(mean: Tensor | float = 0.0, std: Tensor | float = 1.0, size: Sequence[int] | None = None, *, dtype: DType = float32,
           generator: Generator | None = None, requires_grad: bool = False, device: Any = None) -> Tensor:
    """Normally distributed random numbers.

    Parameters
    ----------
    mean, std : Tensor or float
        Of all of them, or of each: shapes that broadcast.
    size : sequence of int, optional
        Extents, where neither `mean` nor `std` is a tensor; only there.
    dtype : dtype
        float32 or float64; where one is a tensor, it is that one's.
    generator : Generator, optional
        The default one if not given.
    requires_grad : bool
        Whether gradients are to be collected.
    device : None or "cpu"
        There is no other.

    Returns
    -------
    Tensor
        Without a gradient for `mean` and `std`: ``mean + std * randn_like(std)`` has one.

    Raises
    ------
    TypeError
        If `size` is missing, or given beside a tensor, or `mean` or `std` is neither tensor nor number.
    """
    given = [x.detach() for x in (mean, std) if isinstance(x, TensorBase)]
    if bool(given) is (size is not None):
        raise TypeError(f"normal: size is {size!r}, but must be given where mean and std are both numbers, and only there")
    if given:
        like = add(*given) if len(given) == 2 else given[0]
        result = add(mul(randn(like.shape, dtype=like.dtype, generator=generator, device=device), std), mean).detach()
    else:
        mean, std = number("normal: mean", mean), number("normal: std", std)
        result = randn(size=size, dtype=dtype, generator=generator, device=device).mul_(std).add_(mean)
    result.requires_grad = requires_grad
    return result


def randperm(n: int, generator: Generator | None = None, device: Any = None) -> Tensor:
    """The integers 0 to n - 1 in random order.

    Parameters
    ----------
    n : int
        How many, at least 0.
    generator : Generator, optional
        The default one if not given.
    device : None or "cpu"
        There is no other.

    Returns
    -------
    Tensor
        (n,), int64.

    Raises
    ------
    ValueError
        If `n` is not an integer of at least 0.
    """
    check_device("randperm", device)
    result = _core.empty((whole("randperm: n", n, 0),), int64)
    return launch.randperm(generator_state(generator), ordinal=0, out=result)


def rand_like(input: Tensor, dtype: DType | None = None, generator: Generator | None = None, requires_grad: bool = False,
              device: Any = None) -> Tensor:
    """Uniform random numbers in [0, 1) of another tensor's shape.

    Parameters
    ----------
    input : Tensor
        What they are to be like.
    dtype : dtype, optional
        float32 or float64; by default `input`'s.
    generator : Generator, optional
        The default one if not given.
    requires_grad : bool
        Whether gradients are to be collected.
    device : None or "cpu"
        There is no other.

    Returns
    -------
    Tensor
        Of `input`'s shape.
    """
    return rand(a_tensor("rand_like", input).shape, dtype=dtype or input.dtype, generator=generator, requires_grad=requires_grad,
                device=device)


def randn_like(input: Tensor, dtype: DType | None = None, generator: Generator | None = None, requires_grad: bool = False,
               device: Any = None) -> Tensor:
    """Normally distributed random numbers of mean 0 and standard deviation 1; parameters as `rand_like`."""
    return randn(a_tensor("randn_like", input).shape, dtype=dtype or input.dtype, generator=generator, requires_grad=requires_grad,
                 device=device)


def randint(low: int, high: int | None = None, size: tuple[int, ...] = (), dtype: DType = int64,
            generator: Generator | None = None, device: Any = None) -> Tensor:
    """Random integers, each as likely as the others.

    Parameters
    ----------
    low : int
        The least; where `high` is left out, that is `low`, and the least is 0.
    high : int, optional
        One more than the greatest; at most 2^53 above `low`.
    size : tuple of int
        Extents.
    dtype : dtype
        The result's type.
    generator : Generator, optional
        The default one if not given.
    device : None or "cpu"
        There is no other.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If there is no integer from `low` to `high` - 1.
    """
    check_device("randint", device)
    if isinstance(high, (tuple, list)):  # randint(high, size)
        high, size = None, high
    low, high = (0, integer("randint", "high", low)) if high is None else (integer("randint", "low", low),
                                                                           integer("randint", "high", high))
    if not 0 < high - low <= 1 << 53:
        raise ValueError(f"randint: low is {low} and high {high}, but there must be 1 to 2**53 integers from low to high - 1")
    share = rand(size, dtype=float64, generator=generator)
    return to(to(launch.floor(launch.mul(share, constant(float(high - low), float64))), int64) + low, dtype)


def randint_like(input: Tensor, low: int, high: int | None = None, dtype: DType | None = None, device: Any = None) -> Tensor:
    """Random integers of another tensor's shape, and of its type unless another is given; see `randint`."""
    return randint(low, high, a_tensor("randint_like", input).shape, dtype=dtype or input.dtype, device=device)


def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with a probability, else 0.

    Parameters
    ----------
    input : Tensor
        float32 or float64: the probabilities, unless `p` is given, and the result's shape and type.
    p : float, optional
        One probability for all elements.
    generator : Generator, optional
        The default one if not given.

    Returns
    -------
    Tensor
        Shape and type of `input`; without a gradient.

    Raises
    ------
    TypeError
        If `input` holds integers or bools.
    ValueError
        If `p` is not between 0 and 1. What `input` holds is not read: below 0 it counts as 0, above 1 as 1.
    """
    if not a_tensor("bernoulli", input).dtype.is_floating:
        raise TypeError(f"bernoulli: input has dtype {input.dtype}, but must be float32 or float64")
    chances = input.detach() if p is None else real("bernoulli: p", p, 0, 1)
    return to(lt(rand(input.shape, dtype=input.dtype, generator=generator), chances), input.dtype)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None) -> Tensor:
    """Places drawn with the probabilities of a distribution, or of one for each row.

    Parameters
    ----------
    input : Tensor
        (K,) or (N, K), float32 or float64: weights of at least 0, which need not add up to 1.
    num_samples : int
        How many are drawn.
    replacement : bool
        Whether a place may be drawn again.
    generator : Generator, optional
        The default one if not given.

    Returns
    -------
    Tensor
        (num_samples,) or (N, num_samples), int64. Weights are not read: what is below 0 counts as 0, and where none is above 0, or
        fewer than are drawn without replacement, places of weight 0 come too.

    Raises
    ------
    TypeError
        If `input` holds integers or bools.
    ValueError
        If shapes or numbers do not fit.

    References
    ----------
    Efraimidis and Spirakis, "Weighted random sampling with a reservoir", Information Processing Letters 97, 2006: the greatest of
    weight over exponentially distributed number. With replacement, and of a single number, the place is where the running sum of
    weights, in double precision, passes a random share of the whole.
    """
    count = whole("multinomial: num_samples", num_samples, 1)
    if not a_tensor("multinomial", input).dtype.is_floating:
        raise TypeError(f"multinomial: input has dtype {input.dtype}, but must be float32 or float64")
    if input.ndim not in (1, 2) or input.shape[-1] == 0:
        raise ValueError(f"multinomial: input has shape {input.shape}, but must have one axis or two, the last not empty")
    if not replacement and count > input.shape[-1]:
        raise ValueError(f"multinomial: num_samples is {count}, but without replacement there are {input.shape[-1]} places")
    weights = input.detach()
    if replacement or count == 1:
        return _drawn(weights, count, generator)
    share = rand(weights.shape, dtype=input.dtype, generator=generator)  # 1 - share is above 0
    times = launch.maximum(launch.neg(launch.log1p(launch.neg(share))), constant(_LEAST[input.dtype.name], input.dtype))
    race = div(weights, times)  # times are above 0: where a weight is 0 the quotient is 0, not NaN, which would win
    return topk(race, count, -1).indices


def _drawn(weights: Tensor, count: int, generator: Generator | None) -> Tensor:
    """Independent places: the first whose running sum is at least the share, which is above 0 and not above the whole sum."""
    wide = launch.maximum(launch.copy(weights, dtype=float64.code), constant(0.0, float64))
    passed = launch.cumsum(wide, axis=weights.ndim - 1, reverse=0)
    share = rand((*weights.shape[:-1], count), dtype=float64, generator=generator)
    whole_sum = slice_view(passed, (..., slice(-1, None)))
    places = launch.searchsorted(passed, launch.mul(launch.sub(constant(1.0, float64), share), whole_sum), right=0)
    return minimum(places, weights.shape[-1] - 1)  # a sum that is NaN is passed nowhere
