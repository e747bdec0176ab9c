"""A model as a table: layers, output shapes, parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import fastnn

from .train.mode import mode

Row = tuple[str, str, str, str]


def summary(model: Any, input_shape: Sequence[int] | None = None, dtype: Any = "float32") -> str:
    """Describe a model's layers.

    A parameter shared by several layers (tied weights) is counted once, at the first of them.

    Parameters
    ----------
    model : fastnn.nn.Module
        The model; it runs once on zeros, in evaluation mode, which also gives lazy layers their shapes.
    input_shape : sequence of int, optional
        Shape of a batch, such as ``(1, 1, 28, 28)``; without it the model does not run, output shapes are left out, and
        parameters of lazy layers that have no shape yet are not counted.
    dtype : str or dtype
        Element type of that batch.

    Returns
    -------
    str
        A table of several lines.

    Examples
    --------
    >>> print(summary(fastnn.nn.Linear(3, 2), (1, 3)))  # doctest: +NORMALIZE_WHITESPACE
    layer   kind    output  parameters
    ------  ------  ------  ----------
    (self)  Linear  (1, 2)           8
    ------  ------  ------  ----------
    8 parameters, 8 trainable, 32 bytes
    """
    if input_shape is not None and (isinstance(input_shape, str) or not isinstance(input_shape, Sequence)):
        raise TypeError(f"summary: input_shape is {input_shape!r}, but must be a sequence of integers, such as (1, 1, 28, 28)")
    shapes = {} if input_shape is None else _output_shapes(model, input_shape, dtype)
    counted: set[int] = set()
    rows: list[Row] = []
    for name, module in model.named_modules():
        own = [p for p in module._parameters.values() if p is not None]
        if not own and list(module.children()):
            continue  # a mere container
        count = sum(p.numel() for p in own if id(p) not in counted)
        tied = " (tied)" if any(id(p) in counted for p in own) else ""
        counted.update(map(id, own))
        number = "lazy" if module._is_lazy else f"{count:,}{tied}"
        rows.append((name or "(self)", type(module).__name__, shapes.get(id(module), ""), number))
    lazy = sum(module._is_lazy for module in model.modules())
    note = f"; without those of lazy layers ({lazy}), which the first input gives their shapes" if lazy else ""
    return "\n".join([*_table(rows), _totals(model) + note])


def _output_shapes(model: Any, input_shape: Sequence[int], dtype: Any) -> dict[int, str]:
    """Output shape of each module, by identity, from one forward pass."""
    shapes: dict[int, str] = {}

    def hook(module: Any, inputs: Any, output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        shapes[id(module)] = ", ".join(str(tuple(tensor.shape)) for tensor in outputs)

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        with fastnn.no_grad(), mode(model, training=False):
            model(fastnn.zeros(*input_shape, dtype=dtype))
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _table(rows: Sequence[Row]) -> list[str]:
    """Rows under a header, columns as wide as needed, numbers to the right."""
    header: Row = ("layer", "kind", "output", "parameters")
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(4)]
    rule = "  ".join("-" * width for width in widths)

    def line(row: Row) -> str:
        return "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths)), row[3].rjust(widths[3])])

    return [line(header), rule, *map(line, rows), rule]


def _totals(model: Any) -> str:
    """Parameters of known shapes, how many of them train, and their memory."""
    lazy = {id(p) for module in model.modules() if module._is_lazy for p in module._parameters.values()}
    parameters = [p for p in model.parameters() if id(p) not in lazy]
    total = sum(p.numel() for p in parameters)
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    memory = sum(p.numel() * np.dtype(str(p.dtype)).itemsize for p in parameters)
    units = ("bytes", "KiB", "MiB", "GiB")
    power = min(max(memory.bit_length() - 1, 0) // 10, 3)
    size = f"{memory} bytes" if power == 0 else f"{memory / 1024**power:.1f} {units[power]}"
    return f"{total:,} parameters, {trained:,} trainable, {size}"
