"""Derivatives of functions of tensors: products with vectors, Jacobians, and the check against differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ._core import TensorBase
from .checks import positive, shown
from .graph import leaves_of
from .ops.create import as_tensor, tensor, zeros
from .tensor import Tensor, enable_grad, no_grad

__all__ = ["GradcheckResult", "gradcheck", "jacobian", "vjp"]

_FLOOR = 1e-3  # derivatives below it are compared absolutely: what differences leave of a zero has no relative error


def four_point_slope(function: Callable[[float], float], step: float) -> float:
    """The derivative at 0 of a function of one number, by 4-point central differences (error of order step^4).

    Parameters
    ----------
    function : callable
        ``function(shift)`` gives a number.
    step : float
        Distance of the nearer two points from 0; the other two are twice as far.

    Returns
    -------
    float
        (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h
    """
    near, far = (function(d) - function(-d) for d in (step, 2 * step))
    return (8 * near - far) / (12 * step)


def gradients_of(outputs: Sequence[Tensor], weights: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients of the weighted sum of all outputs; no tensor's ``grad`` changes.

    Parameters
    ----------
    outputs : sequence of Tensor
        What to differentiate; those that do not require grad are left out.
    weights : sequence of Tensor
        One per output, of its shape and type.
    leaves : sequence of Tensor
        With respect to what: leaves that require grad.

    Returns
    -------
    list of Tensor or None
        One per leaf; None where nothing arrived.
    """
    pairs = [(o, w) for o, w in zip(outputs, weights) if o.requires_grad]
    others = {id(leaf): leaf for leaf in [*leaves, *(leaf for o, _ in pairs for leaf in leaves_of(o))]}.values()
    before = [(leaf, leaf.grad) for leaf in others]
    try:
        for leaf in others:
            leaf.grad = None
        for output, weight in pairs:
            output.backward(weight, retain_graph=True)
        return [leaf.grad for leaf in leaves]
    finally:
        for leaf, grad in before:
            leaf.grad = grad


def vjp(fn: Callable[..., Any], inputs: Any, v: Any = None) -> tuple[Any, Any]:
    """The product of a vector with the Jacobian of `fn`, by one walk back.

    Parameters
    ----------
    fn : callable
        Takes the tensors `inputs` and returns a tensor or a tuple of them.
    inputs : Tensor or tuple of Tensor
        Where; those of a floating-point type are differentiated with respect to.
    v : Tensor or tuple of Tensor, optional
        One per output, of its shape; 1 by default for an output of one element.

    Returns
    -------
    outputs : Tensor or tuple of Tensor
        What `fn` gave, without its graph.
    products : Tensor or tuple of Tensor
        v^T J: one per input, of its shape; zeros where `fn` does not depend on it, None for integers.

    Raises
    ------
    ValueError
        If `v` does not fit the outputs.
    TypeError
        If `fn` returns something else than tensors.

    Notes
    -----
    As ``torch.autograd.functional.vjp``; no tensor's ``grad`` changes.
    """
    leaves, wanted = _leaves("vjp", inputs)
    outputs = _call("vjp", fn, leaves)
    given = (None,) * len(_tuple(outputs)) if v is None else _tuple(v)
    if len(given) != len(_tuple(outputs)):
        raise ValueError(f"vjp: v holds {len(given)} tensors, but fn returned {len(_tuple(outputs))}")
    weights = [_weight(k, output, value) for k, (output, value) in enumerate(zip(_tuple(outputs), given))]
    found = iter(gradients_of(_tuple(outputs), weights, wanted))
    products = tuple(_or_zeros(next(found), leaf) if any(leaf is w for w in wanted) else None for leaf in leaves)
    return _like(outputs, [o.detach() for o in _tuple(outputs)]), _like(inputs, products)


def jacobian(fn: Callable[..., Any], inputs: Any) -> Any:
    """All derivatives of all outputs of `fn` with respect to all inputs, by one walk back for each output element.

    Parameters
    ----------
    fn : callable
        Takes the tensors `inputs` and returns a tensor or a tuple of them.
    inputs : Tensor or tuple of Tensor
        Where; those of a floating-point type are differentiated with respect to.

    Returns
    -------
    Tensor or tuple
        For one output and one input a tensor (*output.shape, *input.shape). A tuple over inputs if `inputs` is one (None
        for integers), within a tuple over outputs if `fn` returns one.

    Raises
    ------
    TypeError
        If `fn` returns something else than tensors.

    Notes
    -----
    As ``torch.autograd.functional.jacobian``; no tensor's ``grad`` changes.
    """
    leaves, wanted = _leaves("jacobian", inputs)
    outputs = _call("jacobian", fn, leaves)
    rows = []
    for output in _tuple(outputs):
        blocks = [np.zeros((output.numel(), *leaf.shape), leaf.dtype.name) for leaf in wanted]
        for e in range(output.numel() if output.requires_grad else 0):
            one = np.zeros(output.numel(), output.dtype.name)
            one[e] = 1
            for block, found in zip(blocks, gradients_of([output], [as_tensor(one.reshape(output.shape))], wanted)):
                if found is not None:
                    block[e] = found.numpy()
        made = iter([tensor(block.reshape(*output.shape, *block.shape[1:])) for block in blocks])
        rows.append(_like(inputs, [next(made) if any(leaf is w for w in wanted) else None for leaf in leaves]))
    return _like(outputs, rows)


class GradcheckResult(NamedTuple):
    """What `gradcheck` found: the element whose gradient is worst. True in a condition if the check passed.

    Parameters
    ----------
    passed : bool
        Whether no relative error exceeds the tolerance.
    relative_error : float
        The largest: |gradient - differences| / max(|gradient|, |differences|, 0.001).
    input : int
        Number of the input where it is; -1 if there was no element to check.
    index : tuple of int
        Where in that input.
    gradient, differences : float
        The two values there.
    """

    passed: bool
    relative_error: float
    input: int
    index: tuple[int, ...]
    gradient: float
    differences: float

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return (f"worst relative error {self.relative_error:.3g} at input {self.input}, index {self.index}: "
                f"gradient {self.gradient!r}, differences {self.differences!r}")


def gradcheck(fn: Callable[..., Any], inputs: Any, *, step: float = 1e-3, tolerance: float = 1e-6,
              raise_exception: bool = True) -> GradcheckResult:
    """Compares gradients of `fn` with 4-point central differences, element by element, in float64.

    All outputs enter one sum, each element with its own fixed weight between 0.5 and 1.5, and that sum is differentiated.

    Parameters
    ----------
    fn : callable
        Takes the tensors `inputs` and returns a tensor or a tuple of them. Must give the same every time.
    inputs : Tensor or tuple of Tensor
        Where, at least 2 `step` from kinks. Copied; floating-point ones become float64 and are checked.
    step : float
        Distance of the nearer difference points.
    tolerance : float
        Largest relative error that passes.
    raise_exception : bool
        Whether to raise when the check fails, rather than return a false result.

    Returns
    -------
    GradcheckResult
        The worst element.

    Raises
    ------
    AssertionError
        If the check fails; the message says where.
    ValueError
        If two calls of `fn` differ, `fn` has no output to differentiate, or an option is out of range.

    Examples
    --------
    >>> import fastnn
    >>> bool(fastnn.gradcheck(lambda x, y: (x * y).tanh(), (fastnn.rand(2, 3), fastnn.rand(3))))
    True
    """
    step, tolerance = positive("gradcheck: step", step), positive("gradcheck: tolerance", tolerance)
    leaves, wanted = _leaves("gradcheck", inputs, double=True)
    outputs = [o for o in _tuple(_call("gradcheck", fn, leaves)) if o.is_floating_point()]
    if not any(o.requires_grad for o in outputs):
        raise ValueError("gradcheck: no output of fn requires grad, so there is nothing to check")
    rng = np.random.default_rng(7)
    weights = [rng.uniform(0.5, 1.5, o.shape) for o in outputs]
    found = gradients_of(outputs, [tensor(w, o.dtype) for w, o in zip(weights, outputs)], wanted)
    gradients = [_or_zeros(g, leaf).numpy() for g, leaf in zip(found, wanted)]

    def loss() -> float:
        with no_grad():
            results = [o for o in _tuple(fn(*leaves)) if o.is_floating_point()]
        return float(sum((w * np.asarray(o.detach())).sum() for w, o in zip(weights, results)))

    if loss() != loss():
        raise ValueError("gradcheck: fn gave two different results for the same inputs; if it draws random numbers, "
                         "seed its generator within")
    result = _worst(leaves, wanted, gradients, loss, step, tolerance)
    if raise_exception and not result:
        raise AssertionError(f"gradcheck: {result}; tolerance {tolerance:g}")
    return result


def _worst(leaves: list, wanted: list, gradients: list, loss: Callable[[], float], step: float,
           tolerance: float) -> GradcheckResult:
    """The element of the largest relative error; NaN counts as the largest of all."""
    worst = GradcheckResult(True, 0.0, -1, (), 0.0, 0.0)
    for leaf, gradient in zip(wanted, gradients):
        position = next(k for k, other in enumerate(leaves) if other is leaf)
        values = leaf.detach().numpy()
        for index in np.ndindex(*leaf.shape):
            value = values[index]

            def shifted(shift: float) -> float:
                values[index] = value + shift
                return loss()

            try:
                slope = four_point_slope(shifted, step)
            finally:
                values[index] = value
            analytic = float(gradient[index])
            error = abs(analytic - slope) / max(abs(analytic), abs(slope), _FLOOR)
            if worst.input < 0 or not error <= worst.relative_error:
                worst = GradcheckResult(bool(error <= tolerance), error, position, index, analytic, slope)
                if error != error:
                    return worst
    return worst


# -- inside --

def _tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _like(value: Any, parts: Sequence[Any]) -> Any:
    """`parts` as a tuple where `value` is one, else the only part."""
    return tuple(parts) if isinstance(value, (tuple, list)) else parts[0]


def _leaves(name: str, inputs: Any, double: bool = False) -> tuple[list, list]:
    """Copies of the inputs, and those among them that are differentiated with respect to."""
    leaves = []
    for k, value in enumerate(_tuple(inputs)):
        if not isinstance(value, TensorBase):
            raise TypeError(f"{name}: input {k} is a {type(value).__name__}, but must be a Tensor")
        real = value.is_floating_point()
        leaf = tensor(np.array(value.detach()), "float64" if double and real else None)
        leaf.requires_grad = real
        leaves.append(leaf)
    return leaves, [leaf for leaf in leaves if leaf.requires_grad]


def _call(name: str, fn: Callable[..., Any], leaves: list) -> Any:
    """What `fn` gives, recorded."""
    if not callable(fn):
        raise TypeError(f"{name}: fn is {shown(fn)}, but must be callable")
    with enable_grad():
        outputs = fn(*leaves)
    for k, value in enumerate(_tuple(outputs)):
        if not isinstance(value, TensorBase):
            raise TypeError(f"{name}: output {k} of fn is a {type(value).__name__}, but must be a Tensor")
    return outputs


def _weight(k: int, output: Tensor, value: Any) -> Tensor:
    if value is None:
        if output.numel() != 1:
            raise ValueError(f"vjp: v must be given, since output {k} has shape {output.shape}, not one element")
        value = np.ones(output.shape)
    value = as_tensor(value)
    if value.shape != output.shape:
        raise ValueError(f"vjp: v[{k}] has shape {value.shape}, but must have that of output {k}, {output.shape}")
    return value.to(output.dtype)


def _or_zeros(gradient: Tensor | None, leaf: Tensor) -> Tensor:
    return zeros(*leaf.shape, dtype=leaf.dtype) if gradient is None else gradient
