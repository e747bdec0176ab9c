"""Operations of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import TensorBase, record
from .ops.create import as_tensor

if TYPE_CHECKING:
    from .tensor import Tensor


class Function:
    """An operation of one's own, written with NumPy.

    Subclass it with two static methods and call ``MyFunction.apply(*tensors)``:
    ``forward(ctx, *arrays)`` takes NumPy arrays and returns one (or a tuple); ``backward(ctx, *doutputs)`` takes the gradients as
    arrays and returns one, or None, per input. `ctx` is an object to keep things on.

    Examples
    --------
    >>> class Cube(fastnn.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.x = x
    ...         return x ** 3
    ...     @staticmethod
    ...     def backward(ctx, dy):
    ...         return 3 * ctx.x ** 2 * dy
    >>> y = Cube.apply(x)
    """

    class Context:
        """What forward leaves for backward, as attributes; or, PyTorch's way, by `save_for_backward`."""

        saved_tensors: tuple[Any, ...] = ()

        def save_for_backward(self, *values: Any) -> None:
            """Keeps arrays, which are then `saved_tensors`."""
            self.saved_tensors = values

    @classmethod
    def apply(cls, *inputs: Any) -> Tensor | tuple[Tensor, ...]:
        """Runs ``forward`` on the inputs' arrays and puts the operation on the tape.

        Parameters
        ----------
        *inputs : Tensor or object
            Tensors arrive as read-only NumPy arrays, everything else as it is.

        Returns
        -------
        Tensor or tuple of Tensor
        """
        ctx = cls.Context()
        arrays = []
        for value in inputs:
            if isinstance(value, TensorBase):
                value = np.asarray(memoryview(value)).view()
                value.flags.writeable = False
            arrays.append(value)
        results = cls.forward(ctx, *arrays)
        outputs = tuple(as_tensor(np.array(r)) for r in (results if isinstance(results, tuple) else (results,)))
        tensors = tuple(value if isinstance(value, TensorBase) else None for value in inputs)
        shapes = [None if t is None else (t.shape, t.dtype) for t in tensors]
        record(_function_backward, tensors, outputs, context=(cls, ctx, shapes, [(o.shape, o.dtype) for o in outputs]))
        return outputs if isinstance(results, tuple) else outputs[0]

    @staticmethod
    def forward(ctx: Any, *arrays: Any) -> Any:
        """Computes the outputs as NumPy arrays; to be written by the subclass."""
        raise TypeError("a Function needs a static method forward(ctx, *arrays)")

    @staticmethod
    def backward(ctx: Any, *doutputs: np.ndarray) -> Any:
        """Computes the inputs' gradients as NumPy arrays; to be written by the subclass."""
        raise TypeError("a Function needs a static method backward(ctx, *doutputs)")


def _function_backward(node, *doutputs):
    cls, ctx, inputs, outputs = node.context
    arrays = [np.zeros(shape, dtype.name) if dy is None else dy.numpy() for dy, (shape, dtype) in zip(doutputs, outputs)]
    results = cls.backward(ctx, *arrays)
    results = results if isinstance(results, tuple) else (results,)
    if len(results) != len(inputs):
        raise ValueError(f"{cls.__name__}.backward gave {len(results)} gradients, but forward took {len(inputs)} inputs")
    gradients = []
    for result, wanted in zip(results, inputs):
        if result is None or wanted is None:
            gradients.append(None)
            continue
        if np.shape(result) != wanted[0]:
            raise ValueError(f"{cls.__name__}.backward gave a gradient of shape {np.shape(result)} for an input of shape "
                             f"{wanted[0]}")
        gradients.append(as_tensor(np.array(result), wanted[1]))
    return tuple(gradients)
