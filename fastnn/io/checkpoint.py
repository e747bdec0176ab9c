"""A run's whole state in one safetensors file, from which it goes on to the bit. Needs the extra ``files``."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from ..nn.state import copied_state
from ..ops.create import as_tensor
from ..random import Generator, default_generator
from .extra_state import pack, unpack
from .weights import as_metadata, as_module, load_file, read_metadata, save_file

# What the tensors' names begin with.
_MODEL, _STATE, _GENERATOR, _CALLBACK, _OTHER = "model.", "optimizer.", "generator", "callback.", "other."


def save_checkpoint(path: str | os.PathLike, model: Any, optimizer: Any = None, scheduler: Any = None, *,
                    generator: Generator | None = None, callbacks: Sequence[Any] = (), others: Mapping[str, Any] | None = None,
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
    others : mapping of str to object, optional
        What else the run is made of, by names of your choice, such as ``{"ema": ema, "augment": second_generator}``: a Generator, or
        whatever has `state_dict` and `load_state_dict`, as `fastnn.optim.EMA`, a second model or optimiser; their state as that of
        callbacks.
    metadata : mapping, optional
        More to keep, anything JSON can hold, such as the number of epochs done.

    Raises
    ------
    ImportError
        If the extra ``files`` is not installed.
    TypeError
        If the metadata or a state is not JSON (and tensors, in callbacks and others), or an argument is something else.
    OSError
        If the file cannot be written: an older one is untouched.

    Examples
    --------
    >>> from fastnn.train import LambdaCallback
    >>> optimizer.register_step_post_hook(ema := fastnn.optim.EMA(model.parameters()))
    >>> keep = LambdaCallback(on_epoch_end=lambda epoch, logs: save_checkpoint(
    ...     "run.safetensors", model, optimizer, others={"ema": ema}, metadata={"epochs": epoch + 1}))
    """
    _check("save_checkpoint", model, optimizer, scheduler, generator, callbacks, others)
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
    described["callbacks"] = [_entry(f"{_CALLBACK}{k}", callback, tensors) for k, callback in enumerate(callbacks)]
    described["others"] = {name: _entry(f"{_OTHER}{name}", other, tensors) for name, other in (others or {}).items()}
    save_file(tensors, path, {"checkpoint": described})


def load_checkpoint(path: str | os.PathLike, model: Any, optimizer: Any = None, scheduler: Any = None, *,
                    generator: Generator | None = None, callbacks: Sequence[Any] = (),
                    others: Mapping[str, Any] | None = None) -> dict[str, Any]:
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
    others : mapping of str to object, optional
        Those, or some, that were saved, of the same kinds, under their names.

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
    >>> done = load_checkpoint("run.safetensors", model, optimizer, others={"ema": ema})["epochs"]
    >>> trainer.fit(x, y, epochs=10, initial_epoch=done)
    """
    _check("load_checkpoint", model, optimizer, scheduler, generator, callbacks, others)
    others = others or {}
    shown = os.fspath(path)
    described = read_metadata(path).get("checkpoint")
    if not isinstance(described, dict) or "user" not in described:
        raise ValueError(f"{shown}: not a checkpoint; weights alone are read by load_model")
    kept, kept_others = _entries(shown, described, "callbacks", []), _entries(shown, described, "others", {})
    _check_kinds(shown, described, optimizer, scheduler)
    _check_entries(shown, kept, callbacks, kept_others, others)
    tensors = load_file(path)
    try:
        states = [unpack(entry["state"], tensors) for entry in kept]
        states_of_others = {name: unpack(entry["state"], tensors) for name, entry in kept_others.items()}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{shown}: what is kept of callbacks or others is not what save_checkpoint writes ({error!r})") from error
    source = generator or default_generator
    with _unchanged_on_error(shown, model, scheduler, callbacks, [source, *others.values()]):
        model.load_state_dict({name.removeprefix(_MODEL): value for name, value in tensors.items()
                               if name.startswith(_MODEL)})
        for callback, state in zip(callbacks, states):
            callback.load_state_dict(state)
        source.set_state(as_tensor(tensors[_GENERATOR]))
        for name, other in others.items():
            _set_state(other, states_of_others[name])
        if scheduler is not None:
            scheduler.load_state_dict(described["scheduler"])
        if optimizer is not None:  # all or nothing of it by itself, so it comes last of what may not fit
            optimizer.load_state_dict({"state": _by_number(tensors), "param_groups": described["param_groups"]})
    return described["user"]


@contextlib.contextmanager
def _unchanged_on_error(shown: str, model: Any, scheduler: Any, callbacks: Sequence[Any], others: Sequence[Any]) -> Iterator[None]:
    """Gives model, schedule, callbacks, generators and others back what they had where the block fails; says of which file."""
    weights, waiting = copied_state(model), [callback._loaded for callback in callbacks]
    before = [copy.deepcopy(_get_state(other)) for other in others]
    numbers = None if scheduler is None else copy.deepcopy(scheduler.state_dict())
    try:
        yield
    except Exception as error:
        model.load_state_dict(weights)
        for other, state in zip(others, before):
            _set_state(other, state)
        if scheduler is not None:
            scheduler.load_state_dict(numbers)
        for callback, loaded in zip(callbacks, waiting):
            callback._loaded = loaded
        if isinstance(error, (RuntimeError, ValueError, KeyError)):
            raise ValueError(f"{shown} does not fit: {error.args[0]}") from error
        raise


def _get_state(other: Any) -> Any:
    return other.get_state() if isinstance(other, Generator) else other.state_dict()


def _set_state(other: Any, state: Any) -> None:
    (other.set_state if isinstance(other, Generator) else other.load_state_dict)(state)


def _entry(name: str, kept: Any, tensors: MutableMapping[str, Any]) -> dict[str, Any]:
    """What a file says of something with a state; its tensors go into `tensors`."""
    return {"kind": type(kept).__name__, "state": pack(name, _get_state(kept), tensors)}


def _entries(shown: str, described: Mapping[str, Any], name: str, none: Any) -> Any:
    """What a file says of callbacks (a list) or others (by name); older files have `none`."""
    entries = described.get(name, none)
    parts = entries.values() if isinstance(entries, dict) else entries
    if not isinstance(entries, type(none)) or not all(isinstance(part, dict) and part.keys() >= {"kind", "state"} for part in parts):
        raise ValueError(f"{shown}: what is kept of {name} is not what save_checkpoint writes")
    return entries


def _check_kinds(shown: str, described: Mapping[str, Any], optimizer: Any, scheduler: Any) -> None:
    """Raises where a file has no state of optimiser or schedule, or that of another kind."""
    for name, wanted, key in (("optimizer", optimizer, "param_groups"), ("scheduler", scheduler, "scheduler")):
        if wanted is not None and key not in described:
            raise ValueError(f"{shown}: was saved without the {name}'s state")
        kind = described.get(f"{name}_kind")
        if wanted is not None and kind not in (None, type(wanted).__name__):  # files from before it was noted have none
            raise ValueError(f"{shown}: was saved with the state of {kind}, but {name} is {type(wanted).__name__}")


def _check_entries(shown: str, kept: Sequence[Mapping], callbacks: Sequence[Any], kept_others: Mapping[str, Mapping],
                   others: Mapping[str, Any]) -> None:
    """Raises where a file has other callbacks than are to be loaded, or lacks one of the others, or has another kind of it."""
    for name, other in others.items():
        if name not in kept_others:
            raise ValueError(f"{shown}: was saved with the others {sorted(kept_others)}, but others has {name!r}")
        if kept_others[name]["kind"] != type(other).__name__:
            raise ValueError(f"{shown}: was saved with the state of {kept_others[name]['kind']}, but others[{name!r}] is "
                             f"{type(other).__name__}")
    saved, given = [entry["kind"] for entry in kept], [type(callback).__name__ for callback in callbacks]
    if callbacks and saved != given:
        raise ValueError(f"{shown}: was saved with the callbacks {saved}, but callbacks are {given}")


def _check(name: str, model: Any, optimizer: Any, scheduler: Any, generator: Any, callbacks: Any, others: Any) -> None:
    """Raises TypeError where an argument is something else than its name says."""
    from ..optim import Optimizer

    as_module(name, model)
    for argument, value, is_right, wanted in (
            ("optimizer", optimizer, isinstance(optimizer, Optimizer), "an Optimizer"),
            ("scheduler", scheduler, hasattr(scheduler, "load_state_dict") and hasattr(scheduler, "step"),
             "one of fastnn.optim.lr_scheduler; whatever else has a state is one of others={...}"),
            ("generator", generator, isinstance(generator, Generator), "a Generator")):
        if value is not None and not is_right:
            raise TypeError(f"{name}: {argument} is {value!r}, but must be {wanted}")
    if not isinstance(callbacks, Sequence) or not all(hasattr(callback, "take_up") for callback in callbacks):
        raise TypeError(f"{name}: callbacks is {callbacks!r}, but must be a list of callbacks of fastnn.train")
    if others is not None and (not isinstance(others, Mapping) or not all(isinstance(key, str) for key in others)):
        raise TypeError(f"{name}: others is {others!r}, but must be a mapping of names to what is to be kept")
    for key, other in (others or {}).items():
        has_state = isinstance(other, Generator) or (hasattr(other, "state_dict") and hasattr(other, "load_state_dict"))
        if isinstance(other, type) or not has_state:
            raise TypeError(f"{name}: others[{key!r}] is {other!r}, but must be a Generator or have state_dict and load_state_dict")
        if hasattr(other, "take_up"):  # what it takes over waits for the next run
            raise TypeError(f"{name}: others[{key!r}] is a {type(other).__name__}, but callbacks must be given as callbacks=[...]")


def _by_number(tensors: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """An optimiser's state as `Optimizer.state_dict` gives it: {number of the parameter: {name: array}}."""
    state: dict[int, dict[str, Any]] = {}
    for entry, value in tensors.items():
        if entry.startswith(_STATE):
            number, _, name = entry.removeprefix(_STATE).partition(".")
            state.setdefault(int(number), {})[name] = value
    return state
