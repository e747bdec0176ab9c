"""Weights in safetensors files, with what describes them as JSON in the file's metadata.

Nothing here can run code from a file: tensors are raw bytes, the metadata is JSON, and a model is
rebuilt only from the closed list of `fastnn.models`. Needs the extra ``files``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..nn.module import Module
from .extra_state import is_extra, pack, unpack
from .extras import require
from .files import write_atomic

_ENTRY, _EXTRA = "fastnn", "fastnn.extra_state"  # keys of our JSON in the file's str -> str metadata
_FORMAT = "format"  # a key that other programs read


class Contents(NamedTuple):
    """A file's parts: arrays, {other name: name} of what shares memory with one of them, extra state in JSON, and what
    describes the file."""

    arrays: dict[str, np.ndarray]
    ties: dict[str, str]
    extras: dict[str, Any]
    metadata: dict[str, Any]


def save_file(tensors: Mapping[str, Any], path: str | os.PathLike, metadata: Mapping[str, Any] | None = None) -> None:
    """Write named tensors to a safetensors file, completely or not at all.

    What shares all its memory with another, as tied parameters do, is stored once; the file's metadata says so as safetensors'
    own ``save_model`` does, an entry from its name to the other's.

    Parameters
    ----------
    tensors : mapping of str to Tensor or numpy.ndarray
        What to save, such as a model's ``state_dict()``; what `get_extra_state` gave may be made of tensors, arrays, numbers,
        text, bytes, None, and lists, tuples and dicts of these.
    path : str or path-like
        The file to create or replace.
    metadata : mapping, optional
        Anything JSON can hold; read back with `read_metadata`.

    Raises
    ------
    ImportError
        If the extra ``files`` is not installed.
    TypeError
        If a value is not an array of numbers of at most 64 bits, or the metadata is not JSON.
    ValueError
        If a name is ``"__metadata__"``, which the format keeps for itself.
    OSError
        If the file cannot be written: the message names it and an older file is untouched.
    """
    safetensors = require("safetensors.numpy", extra="files", feature="saving weights")
    if not isinstance(tensors, Mapping) or not all(isinstance(name, str) for name in tensors):
        raise TypeError(f"save_file: tensors is a {type(tensors).__name__}, but must be a mapping of texts to tensors or arrays")
    if "__metadata__" in tensors:
        raise ValueError("save_file: tensors has the name '__metadata__', which the file format keeps for itself")
    metadata = as_metadata("save_file", metadata)
    values = {name: value for name, value in tensors.items() if not is_extra(name)}
    extras = {name: pack(name, tensors[name], values) for name in tensors if is_extra(name)}
    arrays = {name: _as_array(name, value) for name, value in values.items()}
    ties = _ties(arrays)
    try:
        text = json.dumps(metadata)
    except (TypeError, ValueError) as error:
        raise TypeError(f"save_file: metadata must hold JSON values only ({error})") from error
    entries = {_FORMAT: "np", _ENTRY: text, **({_EXTRA: json.dumps(extras)} if extras else {}), **ties}
    write_atomic(path, safetensors.save({name: _dense(array) for name, array in arrays.items() if name not in ties},
                                        metadata=entries))


def load_file(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read all tensors of a safetensors file (from fastnn, PyTorch or elsewhere).

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    dict of str to numpy.ndarray
        The tensors by name, one array under two names where they were tied; extra state as it was saved.

    Raises
    ------
    ImportError
        If the extra ``files`` is not installed.
    ValueError
        If the file is not a complete safetensors file.
    OSError
        If it cannot be read.
    """
    arrays, ties, extras, _ = contents(path)
    for name, other in ties.items():
        arrays[name] = arrays[other]
    try:
        unpacked = {name: unpack(packed, arrays) for name, packed in extras.items()}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{os.fspath(path)}: the metadata entry '{_EXTRA}' is not what save_file writes ({error!r})") from error
    return arrays | unpacked


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Read what describes a safetensors file, without its tensors.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    dict
        What `save_file` or `save_model` stored (such as ``architecture`` and ``version``); text
        entries written by other programs are kept under their own names.

    Raises
    ------
    ImportError, ValueError, OSError
        As `load_file`.
    """
    return contents(path, with_tensors=False).metadata


def as_metadata(name: str, metadata: Any) -> dict[str, Any]:
    """`metadata` as a dictionary.

    Parameters
    ----------
    name : str
        Who asks, in messages.
    metadata : mapping or None
        What the user gave.

    Returns
    -------
    dict
        A copy; empty for None.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"{name}: metadata is a {type(metadata).__name__}, but must be a mapping")
    return dict(metadata or {})


def as_module(name: str, model: Any) -> Any:
    """`model`, which must be a Module.

    Parameters
    ----------
    name : str
        Who asks, in messages.
    model : object
        What the user gave.

    Returns
    -------
    fastnn.nn.Module
        The same.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if not isinstance(model, Module):
        raise TypeError(f"{name}: model is {model!r}, but must be a Module")
    return model


def save_model(model: Any, path: str | os.PathLike, metadata: Mapping[str, Any] | None = None) -> None:
    """Save a model's ``state_dict()``, and its architecture if it is one of `fastnn.models`.

    Tied parameters are stored once, as `save_file` does.

    Parameters
    ----------
    model : fastnn.nn.Module
        The model.
    path : str or path-like
        The file to create or replace, usually ``*.safetensors``.
    metadata : mapping, optional
        More to keep beside it, anything JSON can hold.

    Raises
    ------
    ImportError, TypeError, OSError
        As `save_file`; TypeError if `model` is no Module.
    """
    import fastnn

    described = {"version": fastnn.__version__, "architecture": getattr(model, "architecture", None)}
    save_file(as_module("save_model", model).state_dict(), path, {**described, **as_metadata("save_model", metadata)})


def load_model(path: str | os.PathLike, model: Any = None, *, strict: bool = True) -> Any:
    """Load weights into `model`, or build the model the file describes.

    Names, shapes and dtypes are compared before the first value is copied, so that a file that
    does not fit leaves `model` as it was.

    Parameters
    ----------
    path : str or path-like
        A safetensors file.
    model : fastnn.nn.Module, optional
        The model to fill, in place. Without it, the architecture in the file is built, which must
        be one of `fastnn.models`.
    strict : bool
        Whether names missing on either side are an error.

    Returns
    -------
    fastnn.nn.Module
        The model with the file's weights.

    Raises
    ------
    ValueError
        If names (under `strict`), shapes or dtypes do not match, listing all that differ; if the
        file names no known architecture and `model` is absent; if it is not a safetensors file.
    ImportError, OSError
        As `load_file`.
    """
    shown = os.fspath(path)
    arrays, metadata = load_file(path), read_metadata(path)
    if isinstance(metadata.get("checkpoint"), dict) and "user" in metadata["checkpoint"]:
        raise ValueError(f"{shown} is a checkpoint: load_checkpoint(path, model) reads its weights")
    if model is None:
        from ..models import build

        architecture = metadata.get("architecture")
        if not isinstance(architecture, dict) or not isinstance(architecture.get("name"), str):
            raise ValueError(f"{shown}: the file does not say which of fastnn.models it holds; "
                             "build the model yourself and pass it: load_model(path, model)")
        try:
            model = build(architecture["name"], **architecture.get("config", {}))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{shown}: the architecture in the file cannot be built: {error}") from error
    own = {name: value.detach().numpy().dtype for name, value in as_module("load_model", model).named_state().items()}
    wrong = [f"{name} is {array.dtype} in the file, {own[name]} in the model"
             for name, array in arrays.items() if name in own and array.dtype != own[name]]
    if wrong:
        raise ValueError(f"{shown} does not fit the model: {'; '.join(wrong)}")
    try:
        model.load_state_dict(arrays, strict=strict)
    except RuntimeError as error:
        raise ValueError(f"{shown} does not fit the model: {error.args[0]}") from error
    return model


def _as_array(name: str, value: Any) -> np.ndarray:
    """`value` as an array of numbers."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise TypeError(f"save_file: {name!r} has dtype {array.dtype}, expected numbers of at most 64 bits or bool")
    return array


def _dense(array: np.ndarray) -> np.ndarray:
    """As safetensors wants it: in C order (and 0-d where it was, which ascontiguousarray is not)."""
    return np.ascontiguousarray(array).reshape(array.shape)


def _ties(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """{name: the first name of the same memory} of what is there under several names."""
    first: dict[tuple, str] = {}
    ties = {}
    for name, array in arrays.items():
        memory = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype)
        kept = first.setdefault(memory, name) if array.size else name
        if kept != name and name not in (_FORMAT, _ENTRY, _EXTRA):
            ties[name] = kept
    return ties


def _said(path: str, error: Exception) -> str:
    """What is wrong with a file; PyTorch's, which are known by their first bytes, by their name."""
    with open(path, "rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return ("it is a zip file, as torch.save writes, which may run code when it is read; write it anew: "
                    "safetensors.torch.save_file(torch.load(...), path)")
    return str(error)


def contents(path: str | os.PathLike, with_tensors: bool = True) -> Contents:
    """A safetensors file's parts.

    Parameters
    ----------
    path : str or path-like
        The file.
    with_tensors : bool
        Whether to read the arrays.

    Returns
    -------
    Contents
        `arrays` is empty where they were not asked for.

    Raises
    ------
    ImportError, ValueError, OSError
        As `load_file`.
    """
    safetensors = require("safetensors", extra="files", feature="reading weights")
    shown = os.fspath(path)
    with open(shown, "rb"):  # a missing or unreadable file as Python's own OSError, with its name
        pass
    try:
        with safetensors.safe_open(shown, framework="numpy") as file:
            raw, names = dict(file.metadata() or {}), set(file.keys())
            arrays = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}
        ours, extras = json.loads(raw.pop(_ENTRY, "{}")), json.loads(raw.pop(_EXTRA, "{}"))
    except (safetensors.SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{shown}: not a complete safetensors file that NumPy can hold ({_said(shown, error)})") from error
    for key, entry in ((_ENTRY, ours), (_EXTRA, extras)):
        if not isinstance(entry, dict):
            raise ValueError(f"{shown}: the metadata entry '{key}' is not a JSON object")
    ties = {name: raw.pop(name) for name, other in list(raw.items())
            if other in names and name not in names and name != _FORMAT}
    return Contents(arrays, ties, extras, {**raw, **ours})
