"""A run's whole state in one safetensors file, from which it goes on to the bit. Needs the extra ``files``."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..nn.state import copied_state
from ..ops.create import as_tensor
from ..random import Generator, default_generator
from .extra_state import pack, unpack
from .weights import as_metadata, as_module, load_file, read_metadata, save_file

_MODEL, _STATE, _GENERATOR, _CALLBACK = "model.", "optimizer.", "generator", "callback."  # what the tensors' names begin with


def save_checkpoint(path: str | os.PathLike, model: Any, optimizer: Any = None, scheduler: Any = None, *,
                    generator: Generator | None = None, callbacks: Sequence[Any] = (),
                    metadata: Mapping[str, Any] | None = None) -> None:
    """Write what a run needs to go on, completely or not at all: an older file is replaced in one step.

    Parameters
    ----------
    path : str or path-like
        The file to create or replace.
    model : fastnn.nn.Module
        Its parameters and buffers.
    optimizer : fastnn.optim.Optimizer, optional
        Its state and hyper-parameters.
    scheduler : object, optional
        One of `fastnn.optim.lr_scheduler` whose ``state_dict()`` is JSON.
    generator : fastnn.Generator, optional
        Source of orders and dropout; the one `fastnn.manual_seed` seeds by default.
    callbacks : sequence of Callback
        Those of `Trainer.fit` whose state a run needs to go on, such as `EarlyStopping` and `ReduceLROnPlateau`. A callback that
        saves must come after them.
    metadata : mapping, optional
        More to keep, anything JSON can hold, such as the number of epochs done.

    Raises
    ------
    ImportError
        If the extra ``files`` is not installed.
    TypeError
        If the metadata or a state is not JSON (and tensors, in callbacks), or an argument is something else.
    OSError
        If the file cannot be written: an older one is untouched.

    Examples
    --------
    >>> from fastnn.train import LambdaCallback
    >>> keep = LambdaCallback(on_epoch_end=lambda epoch, logs: save_checkpoint(
    ...     "run.safetensors", model, optimizer, metadata={"epochs": epoch + 1}))
    """
    _check("save_checkpoint", model, optimizer, scheduler, generator, callbacks)
    tensors = {_MODEL + name: value for name, value in model.state_dict().items()}
    tensors[_GENERATOR] = (generator or default_generator).get_state()
    described: dict[str, Any] = {"user": as_metadata("save_checkpoint", metadata)}
    if optimizer is not None:
        saved = optimizer.state_dict()
        tensors |= {f"{_STATE}{number}.{name}": value for number, values in saved["state"].items()
                    for name, value in values.items() if value is not None}
        described["param_groups"], described["optimizer_kind"] = saved["param_groups"], type(optimizer).__name__
    if scheduler is not None:
        described["scheduler"], described["scheduler_kind"] = scheduler.state_dict(), type(scheduler).__name__
    described["callbacks"] = [{"kind": type(callback).__name__, "state": pack(f"{_CALLBACK}{k}", callback.state_dict(), tensors)}
                              for k, callback in enumerate(callbacks)]
    save_file(tensors, path, {"checkpoint": described})


def load_checkpoint(path: str | os.PathLike, model: Any, optimizer: Any = None, scheduler: Any = None, *,
                    generator: Generator | None = None, callbacks: Sequence[Any] = ()) -> dict[str, Any]:
    """Take up what `save_checkpoint` wrote; where the file does not fit, nothing is changed.

    Parameters
    ----------
    path : str or path-like
        The file.
    model : fastnn.nn.Module
        A model of the same shapes, filled in place.
    optimizer : fastnn.optim.Optimizer, optional
        One of the same kind with as many parameters, in groups as before.
    scheduler : object, optional
        One of the same kind.
    generator : fastnn.Generator, optional
        What continues from the saved random numbers; the one `fastnn.manual_seed` seeds by default.
    callbacks : sequence of Callback
        As many as were saved, of the same kinds; the next call of `Trainer.fit` begins with their state.

    Returns
    -------
    dict
        The metadata.

    Raises
    ------
    ValueError
        If the file is no checkpoint, was saved without what is to be loaded or with another kind of it, or does not fit.
    TypeError
        If an argument is something else.
    ImportError, OSError
        As `load_file`.

    Examples
    --------
    >>> done = load_checkpoint("run.safetensors", model, optimizer)["epochs"]
    >>> trainer.fit(x, y, epochs=10, initial_epoch=done)
    """
    _check("load_checkpoint", model, optimizer, scheduler, generator, callbacks)
    shown = os.fspath(path)
    described = read_metadata(path).get("checkpoint")
    if not isinstance(described, dict) or "user" not in described:
        raise ValueError(f"{shown}: not a checkpoint; weights alone are read by load_model")
    for name, wanted, key in (("optimizer", optimizer, "param_groups"), ("scheduler", scheduler, "scheduler")):
        if wanted is not None and key not in described:
            raise ValueError(f"{shown}: was saved without the {name}'s state")
        kind = described.get(f"{name}_kind")
        if wanted is not None and kind not in (None, type(wanted).__name__):  # files from before it was noted have none
            raise ValueError(f"{shown}: was saved with the state of {kind}, but {name} is {type(wanted).__name__}")
    kept = described.get("callbacks", ())
    if not isinstance(kept, (list, tuple)) or not all(isinstance(entry, dict) and entry.keys() >= {"kind", "state"} for entry in kept):
        raise ValueError(f"{shown}: what is kept of callbacks is not what save_checkpoint writes")
    if callbacks and [entry["kind"] for entry in kept] != [type(callback).__name__ for callback in callbacks]:
        raise ValueError(f"{shown}: was saved with the callbacks {[entry['kind'] for entry in kept]}, but callbacks are "
                         f"{[type(callback).__name__ for callback in callbacks]}")
    tensors = load_file(path)
    try:
        states = [unpack(entry["state"], tensors) for entry in kept]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{shown}: what is kept of callbacks is not what save_checkpoint writes ({error!r})") from error
    source = generator or default_generator
    with _unchanged_on_error(shown, model, scheduler, callbacks, source):
        model.load_state_dict({name.removeprefix(_MODEL): value for name, value in tensors.items()
                               if name.startswith(_MODEL)})
        for callback, state in zip(callbacks, states):
            callback.load_state_dict(state)
        source.set_state(as_tensor(tensors[_GENERATOR]))
        if scheduler is not None:
            scheduler.load_state_dict(described["scheduler"])
        if optimizer is not None:  # all or nothing of it by itself, so it comes last of what may not fit
            optimizer.load_state_dict({"state": _by_number(tensors), "param_groups": described["param_groups"]})
    return described["user"]


@contextlib.contextmanager
def _unchanged_on_error(shown: str, model: Any, scheduler: Any, callbacks: Sequence[Any], source: Generator) -> Iterator[None]:
    """Gives model, schedule, callbacks and generator back what they had where the block fails; says of which file."""
    weights, waiting, random = copied_state(model), [callback._loaded for callback in callbacks], source.get_state()
    numbers = None if scheduler is None else copy.deepcopy(scheduler.state_dict())
    try:
        yield
    except Exception as error:
        model.load_state_dict(weights)
        source.set_state(random)
        if scheduler is not None:
            scheduler.load_state_dict(numbers)
        for callback, loaded in zip(callbacks, waiting):
            callback._loaded = loaded
        if isinstance(error, (RuntimeError, ValueError, KeyError)):
            raise ValueError(f"{shown} does not fit: {error.args[0]}") from error
        raise


def _check(name: str, model: Any, optimizer: Any, scheduler: Any, generator: Any, callbacks: Any) -> None:
    """Raises TypeError where an argument is something else than its name says."""
    from ..optim import Optimizer

    as_module(name, model)
    for argument, value, is_right, wanted in (
            ("optimizer", optimizer, isinstance(optimizer, Optimizer), "an Optimizer"),
            ("scheduler", scheduler, hasattr(scheduler, "load_state_dict"), "one of fastnn.optim.lr_scheduler"),
            ("generator", generator, isinstance(generator, Generator), "a Generator")):
        if value is not None and not is_right:
            raise TypeError(f"{name}: {argument} is {value!r}, but must be {wanted}")
    if not isinstance(callbacks, Sequence) or not all(hasattr(callback, "take_up") for callback in callbacks):
        raise TypeError(f"{name}: callbacks is {callbacks!r}, but must be a list of callbacks of fastnn.train")


def _by_number(tensors: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """An optimiser's state as `Optimizer.state_dict` gives it: {number of the parameter: {name: array}}."""
    state: dict[int, dict[str, Any]] = {}
    for entry, value in tensors.items():
        if entry.startswith(_STATE):
            number, _, name = entry.removeprefix(_STATE).partition(".")
            state.setdefault(int(number), {})[name] = value
    return state
