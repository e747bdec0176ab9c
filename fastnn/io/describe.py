"""What a file holds: weights (safetensors), a model (ONNX), IDX data or a NumPy array."""

from __future__ import annotations

import json
import os
import re
import tokenize
from typing import Any

import numpy as np

from .onnx.load import onnx_contents
from .weights import contents

_MOST_CHARACTERS = 1000  # of a line of metadata


def read_array(path: str | os.PathLike) -> np.ndarray:
    """Read a file of one array: NumPy's ``.npy`` or IDX (plain or gzipped), told apart by content.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    numpy.ndarray
        Its array.

    Raises
    ------
    ValueError
        If it is neither, is damaged, or holds something else than real numbers.
    OSError
        If it cannot be read.
    """
    from ..data.idx import read_idx

    kind = _kind(path)
    if kind == "idx":
        return read_idx(path)
    if kind != "npy":
        raise ValueError(f"{os.fspath(path)}: {kind}, expected an array: .npy or IDX")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError, tokenize.TokenError) as error:  # what NumPy raises for damaged headers
        raise ValueError(f"{os.fspath(path)}: not a complete .npy file of numbers ({error})") from error
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{os.fspath(path)}: holds {array.dtype}, expected real numbers")
    return array


def _kind(path: str | os.PathLike) -> str:
    """What a file's first bytes say it is."""
    with open(path, "rb") as stream:
        start = stream.read(9)
    if os.fspath(path).lower().endswith(".onnx"):  # protobuf messages begin with nothing of their own
        return "onnx"
    if start[8:9] == b"{":  # after the eight bytes of its header's length
        return "safetensors"
    if start[:6] == b"\x93NUMPY":
        return "npy"
    return "idx" if start[:2] in (b"\0\0", b"\x1f\x8b") else "unknown"


def describe(path: str | os.PathLike) -> dict[str, Any]:
    """Say what a file holds.

    Parameters
    ----------
    path : str or path-like
        A safetensors, ``.onnx``, ``.npy`` or IDX file.

    Returns
    -------
    dict
        JSON-ready: ``file``, ``bytes``, ``kind``; for weights and models ``metadata``, ``parameters`` (numbers in all), ``tied`` (from
        further names of a tensor to the one it is stored under) and ``tensors``; for arrays one entry in ``tensors``. Each of
        these has ``name``, ``dtype``, ``shape``, ``least`` and ``greatest`` of the finite elements (None without), and
        ``not_finite``, how many others there are.

    Raises
    ------
    ValueError
        If it is none of these, or damaged.
    ImportError
        If it may be safetensors, and the extra ``files`` is not installed, or is called ``*.onnx``, without the extra ``onnx``.
    OSError
        If it cannot be read.
    """
    kind = _kind(path)
    result: dict[str, Any] = {"file": os.fspath(path), "bytes": os.path.getsize(path), "kind": kind}
    if kind == "unknown":
        raise ValueError(f"{result['file']}: neither safetensors nor .onnx nor .npy nor IDX")
    if kind in ("npy", "idx"):
        return {**result, "tensors": [_figures("array", read_array(path))]}
    if kind == "onnx":
        (arrays, metadata), ties = onnx_contents(path), {}
    else:
        arrays, ties, _, metadata = contents(path)
    return {**result, "metadata": metadata, "parameters": sum(array.size for array in arrays.values()), "tied": ties,
            "tensors": [_figures(name, arrays[name]) for name in sorted(arrays, key=_by_number)]}


def _by_number(name: str) -> list:
    """Sorts "9.weight" before "10.weight"."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _figures(name: str, array: np.ndarray) -> dict[str, Any]:
    """One array in a few figures."""
    finite = array[np.isfinite(array)]
    kind = float if array.dtype.kind == "f" else int if array.dtype.kind in "iu" else bool
    least, greatest = (kind(finite.min()), kind(finite.max())) if finite.size else (None, None)
    return {"name": name, "dtype": str(array.dtype), "shape": list(array.shape), "least": least, "greatest": greatest,
            "not_finite": array.size - finite.size}


def _shortened(line: str) -> str:
    """What is too long to be read, a checkpoint's metadata of many tensors, cut."""
    return line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]} ... ({len(line):,} characters; --json shows all)"


def table(found: dict[str, Any]) -> str:
    """What `describe` found, as text of several lines.

    Parameters
    ----------
    found : dict
        As `describe` returns it.

    Returns
    -------
    str
        Kind and size, the metadata, and one line for each tensor.
    """
    lines = [f"{found['file']}: {found['kind']}, {found['bytes']:,} bytes"]
    if "parameters" in found:
        lines[0] += f", {found['parameters']:,} numbers"
    lines += [_shortened(f"{name}: {json.dumps(value)}") for name, value in found.get("metadata", {}).items()]
    rows = [("tensor", "type", "shape", "range")]
    for tensor in found["tensors"]:
        least, greatest = tensor["least"], tensor["greatest"]
        span = "no finite number" if least is None else f"{least:.4g} ... {greatest:.4g}"
        if tensor["not_finite"]:
            span += f", {tensor['not_finite']:,} not finite"
        rows.append((tensor["name"], tensor["dtype"], str(tuple(tensor["shape"])), span))
    rows += [(name, "", "", f"tied to {other}") for name, other in found.get("tied", {}).items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines += ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]) for row in rows]
    return "\n".join(lines)
