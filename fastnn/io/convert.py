"""From one file format to another, told apart by suffix: safetensors, NumPy's .npz, ONNX."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .extras import require
from .files import atomic_path
from .onnx import load_onnx, save_onnx
from .weights import load_file, load_model, save_file

_WAYS = {".safetensors": (".onnx", ".npz"), ".npz": (".safetensors",), ".onnx": (".safetensors", ".npz")}


def convert(source: str | os.PathLike, target: str | os.PathLike, input_shape: Sequence[int] | None = None) -> dict[str, Any]:
    """Write what a file holds in another format, which the suffixes tell.

    A model file, ``.safetensors`` with the architecture of one of `fastnn.models`, becomes ``.onnx``. Of ``.onnx`` come its weights
    alone, under their names, as ``.safetensors`` or ``.npz``: a graph is no architecture that files name. Weights go from
    ``.safetensors`` to ``.npz`` and back; ``.npz`` keeps no metadata.

    Parameters
    ----------
    source, target : str or path-like
        The file to read, and the one to create or replace.
    input_shape : sequence of int, optional
        Of an ONNX file's input, the batch first; by default what the architecture was made for.

    Returns
    -------
    dict
        ``source``, ``target``, ``holds`` ("model" or "weights"), ``tensors`` and ``parameters``, how many tensors and numbers.

    Raises
    ------
    ValueError
        If there is no way from the one format to the other, or the source is damaged or does not say what the target needs.
    ImportError
        If an extra, ``files`` or ``onnx``, is not installed.
    OSError
        If a file cannot be read or written: an older target is untouched.
    """
    kinds = _suffix(source), _suffix(target)
    if kinds[1] not in _WAYS.get(kinds[0], ()):
        ways = "; ".join(f"{kind} to {' or '.join(others)}" for kind, others in _WAYS.items())
        raise ValueError(f"convert: there is no way from {os.fspath(source)} to {os.fspath(target)}; suffixes say what is what: {ways}")
    if kinds[1] == ".onnx":
        tensors: Mapping[str, Any] = _model_to_onnx(source, target, input_shape)
    elif input_shape is not None:
        raise ValueError("convert: input_shape is given, but only a model that becomes .onnx needs one")
    else:
        _require(kinds)
        tensors = _weights(source, kinds[0])
        (save_file if kinds[1] == ".safetensors" else _save_npz)(tensors, target)
    return {"source": os.fspath(source), "target": os.fspath(target), "holds": "model" if kinds[1] == ".onnx" else "weights",
            "tensors": len(tensors), "parameters": sum(int(np.prod(value.shape)) for value in tensors.values())}


def _suffix(path: str | os.PathLike) -> str:
    return os.path.splitext(os.fspath(path))[1].lower()


def _require(kinds: tuple[str, str]) -> None:
    """Asks for what both formats need, before any work."""
    if ".safetensors" in kinds:
        require("safetensors", extra="files", feature="safetensors files")
    if ".onnx" in kinds:
        require("onnx", extra="onnx", feature="ONNX files")


def _model_to_onnx(source: str | os.PathLike, target: str | os.PathLike, input_shape: Sequence[int] | None) -> dict[str, Any]:
    from ..models import input_shape as usual

    _require((".safetensors", ".onnx"))
    model = load_model(source)
    shape = usual(model.architecture) if input_shape is None else tuple(input_shape)
    save_onnx(model, target, shape)
    return model.state_dict()


def _weights(source: str | os.PathLike, kind: str) -> dict[str, np.ndarray]:
    """The arrays that a file holds."""
    if kind == ".npz":
        return _load_npz(source)
    if kind == ".onnx":
        return {name: value.detach().numpy() for name, value in load_onnx(source).state_dict().items()}
    arrays = load_file(source)
    others = [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]
    if others:
        raise ValueError(f"{os.fspath(source)}: {others[0]!r} is state of a kind that .npz cannot hold")
    return arrays


def _save_npz(arrays: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """As `numpy.savez`, which cannot have an array called "file", and completely or not at all."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _load_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of a .npz file; objects, which would have to be unpickled, are refused."""
    shown = os.fspath(path)
    with open(shown, "rb") as stream:
        try:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise ValueError("it is a .npy file of one array")
            arrays = {name: loaded[name] for name in loaded.files}
        except (OSError, MemoryError):
            raise
        except Exception as error:  # NumPy's and zipfile's errors are of many kinds
            raise ValueError(f"{shown}: not a complete .npz file of numbers ({error})") from error
    wrong = [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]
    if wrong:
        raise ValueError(f"{shown}: {wrong[0]!r} is no array")
    return arrays
