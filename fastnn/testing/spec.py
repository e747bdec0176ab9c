"""OpSpec: one operation's whole contract in one entry, and the list of all entries."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# The modules that hold the entries, by family.
FAMILIES = ("activation", "arrange", "attention", "augment", "combine", "conv", "conv_transpose", "ctc", "distance", "einsum",
            "elementary", "embedding", "embedding_bag", "grid", "index", "linear", "loss", "margin", "math", "norm", "optim",
            "order", "pool", "random", "recurrent", "reduce", "resample", "scatter", "search", "shape", "softmax", "special",
            "trigonometry")

_SPECS: dict[str, OpSpec] = {}


@dataclass(frozen=True)
class Sample:
    """One call of an operation.

    Parameters
    ----------
    inputs : tuple
        Arrays (float64 ones are converted to the type under test; integer and bool ones stay), or None for an absent
        argument.
    options : dict
        Keyword arguments.
    """

    inputs: tuple
    options: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        shapes = [None if a is None else tuple(np.shape(a)) for a in self.inputs]
        options = {k: f"array{v.shape}" if isinstance(v, np.ndarray) else v for k, v in self.options.items()}
        return f"{shapes} {options}"


@dataclass(frozen=True)
class OpSpec:
    """What an operation is, and how to check and time it.

    Parameters
    ----------
    name : str
        The name users know it under, in `fastnn.functional` or on `Tensor`.
    function : callable
        ``function(*tensors, **options)`` gives a tensor or a tuple of tensors.
    reference : callable
        The same on float64 NumPy arrays.
    samples : callable
        ``samples(rng)`` gives a list of `Sample`, with tails, empty batches, single pixels; away from kinks where the
        operation is differentiated.
    gradients : sequence of int
        Inputs to differentiate with respect to; empty for operations without a gradient.
    tolerance : float
        Largest error allowed, in units of the type's epsilon times (1 + largest magnitude of the reference).
    gradient_tolerance : float
        The same for gradients in float32 against float64; by default 8 times `tolerance`.
    elementwise : bool
        Whether output element i depends on input elements i only: then lengths and special values are checked too.
    special_values : bool
        Whether NaN, infinities and signed zeros must give what the reference gives.
    flops, bytes : callable
        ``flops(*shapes, **options)`` and ``bytes(*shapes, **options)``: arithmetic operations, and bytes that float32
        data cannot avoid moving; for the benchmark.
    benchmarks : callable
        ``benchmarks(rng)`` gives samples of realistic size; none by default.
    peer : str
        Name of PyTorch's function in ``torch.nn.functional`` or ``torch`` to compare with; by default `name`.
    exact : bool
        Whether results must equal the reference to the last bit after rounding to the type.
    """

    name: str
    function: Callable
    reference: Callable
    samples: Callable[[np.random.Generator], Iterable[Sample]]
    gradients: Sequence[int] = ()
    tolerance: float = 4.0
    gradient_tolerance: float | None = None
    elementwise: bool = False
    special_values: bool = False
    flops: Callable | None = None
    bytes: Callable | None = None
    benchmarks: Callable[[np.random.Generator], Iterable[Sample]] | None = None
    peer: str | None = None
    exact: bool = False

    def __repr__(self) -> str:
        return self.name


def register(spec: OpSpec) -> OpSpec:
    """Adds an entry to the list.

    Parameters
    ----------
    spec : OpSpec
        Its name must be new.

    Returns
    -------
    OpSpec
        The entry.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    if spec.name in _SPECS:
        raise ValueError(f"register: there already is a spec named {spec.name!r}")
    _SPECS[spec.name] = spec
    return spec


def specs() -> dict[str, OpSpec]:
    """All entries by name."""
    for family in FAMILIES:
        try:
            importlib.import_module(f"fastnn.testing.{family}_specs")
        except ModuleNotFoundError as error:
            if error.name != f"fastnn.testing.{family}_specs":
                raise
    return dict(_SPECS)
