"""The graph behind a tensor: its walk, and its picture as text and for Graphviz."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ._core import Node, TensorBase
from .checks import named_pairs

_FEW = 6  # elements of a leaf that are shown one by one


def _walk(root: TensorBase) -> Iterator[tuple[Any, tuple]]:
    """All nodes and leaves behind `root`, nearest first, each once, with the nodes and leaves its inputs came from."""
    start = root if root.grad_fn is None else root.grad_fn
    seen, queue = {id(start)}, [start]
    for item in queue:  # grows as we go
        inputs = item.next_functions if isinstance(item, Node) else ()
        if isinstance(item, Node) and not inputs:
            raise RuntimeError("graph: backward has freed it; look before, or call backward(retain_graph=True)")
        yield item, inputs
        for other in inputs:
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                queue.append(other)


def leaves_of(root: TensorBase) -> list[TensorBase]:
    """The leaves that require grad behind a tensor.

    Parameters
    ----------
    root : Tensor
        The tensor; itself if it is a leaf.

    Returns
    -------
    list of Tensor
        Each once, nearest first.

    Raises
    ------
    RuntimeError
        If backward has freed the graph.
    """
    return [item for item, _ in _walk(root) if not isinstance(item, Node) and item.requires_grad]


def graph_text(root: TensorBase, format: str = "text", names: Mapping[str, TensorBase] | None = None) -> str:
    """What `Tensor.graph` returns; parameters and errors as there.

    Parameters
    ----------
    root : Tensor
        Whose graph.
    format : {"text", "dot"}
        Lines for people, or Graphviz's language.
    names : mapping of str to Tensor, optional
        Names for leaves.

    Returns
    -------
    str
    """
    if format not in ("text", "dot"):
        raise ValueError(f"graph: format is {format!r}, but must be 'text' or 'dot'")
    named = {id(value): name for name, value in named_pairs("graph", "names", names or {})}
    items = list(_walk(root))
    numbers = {id(item): number for number, (item, _) in enumerate(items)}
    labels = [_label(item, named) for item, _ in items]
    labels[0] += "" if items[0][0] is root else f" -> {_values(root, 'value')}"
    inputs = [[None if other is None else numbers[id(other)] for other in others] for _, others in items]
    return (_as_text if format == "text" else _as_dot)(items, labels, inputs)


def _as_text(items: list, labels: list[str], inputs: list) -> str:
    lines = []
    for number, (label, others) in enumerate(zip(labels, inputs)):
        come = f" <- {', '.join('constant' if k is None else f'#{k}' for k in others)}" if others else ""
        lines.append(f"#{number} {label}{come}")
    return "\n".join(lines)


def _as_dot(items: list, labels: list[str], inputs: list) -> str:
    lines = ["digraph {", "  rankdir=BT;"]
    for number, ((item, _), label) in enumerate(zip(items, labels)):
        shape = "ellipse" if isinstance(item, Node) else "box"
        text = label.replace("\\", "\\\\").replace('"', '\\"').replace("; ", "\\n")
        lines.append(f'  n{number} [shape={shape}, label="{text}"];')
    lines += [f"  n{k} -> n{number};" for number, others in enumerate(inputs) for k in others if k is not None]
    return "\n".join([*lines, "}"])


def _label(item: Any, named: Mapping[int, str]) -> str:
    """An operation's name; a leaf's name, type, shape, values and gradient."""
    if isinstance(item, Node):
        return item.name.removesuffix("_backward")
    gradient = "; no gradient" if item.grad is None else f"; {_values(item.grad, 'gradient')}"
    return f"{named.get(id(item), 'leaf')}: {_values(item, 'value')}{gradient}"


def _values(tensor: TensorBase, what: str) -> str:
    """Type, shape and the elements, or their mean and range where they are many."""
    array = np.asarray(memoryview(tensor))
    head = f"{tensor.dtype} {tuple(tensor.shape)} {what} "
    if array.size <= _FEW:
        return head + np.array2string(array, precision=4, separator=", ").replace("\n", "")
    # What is repeated along an axis counts once: there may be more of it than anybody could look at.
    array = array[tuple(slice(1 if step == 0 else None) for step in array.strides)]
    return head + f"mean {array.mean():.4g}, from {array.min():.4g} to {array.max():.4g}"
