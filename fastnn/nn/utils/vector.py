"""Parameters as one vector."""

from __future__ import annotations

from collections.abc import Iterable

from ...checks import a_tensor, several
from ...ops.shape import flatten
from ...ops.slices import cat
from ...tensor import Tensor, no_grad

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of all parameters, one behind the other; on the tape.

    Parameters
    ----------
    parameters : iterable of Tensor
        Of one type; at least one.

    Returns
    -------
    Tensor
        One axis.
    """
    return cat([flatten(parameter) for parameter in several("parameters_to_vector", parameters, "parameters")], 0)


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Writes a vector's elements into parameters, in place, in the order of `parameters_to_vector`.

    Parameters
    ----------
    vec : Tensor
        One axis, as many elements as the parameters have.
    parameters : iterable of Tensor
        What is written to.

    Raises
    ------
    TypeError
        If `vec` is no tensor.
    ValueError
        If the numbers of elements differ.
    """
    a_tensor("vector_to_parameters", vec, "vec")
    parameters = [a_tensor("vector_to_parameters", parameter, "a parameter")
                  for parameter in several("vector_to_parameters", parameters, "parameters")]
    count = sum(parameter.numel() for parameter in parameters)
    if vec.shape != (count,):
        raise ValueError(f"vector_to_parameters: vec has shape {vec.shape}, but must be ({count},)")
    start = 0
    with no_grad():
        for parameter in parameters:
            parameter.copy_(vec[start:start + parameter.numel()].reshape(parameter.shape))
            start += parameter.numel()
