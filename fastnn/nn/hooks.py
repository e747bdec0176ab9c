"""Functions that users hang on a module: before and behind forward, and behind backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _core
from .._core import TensorBase, record
from ..tensor import Tensor

if TYPE_CHECKING:
    from .module import Module

__all__ = ["Hook", "RemovableHandle", "call_hooked"]


class Hook(NamedTuple):
    """A function on a module.

    Attributes
    ----------
    kind : str
        "pre" or "forward"; "backward_pre" or "backward".
    function : callable
        What is called.
    with_kwargs : bool
        Whether it sees forward's keyword arguments too.
    always_call : bool
        Whether it is called where forward fails too.
    """

    kind: str
    function: Callable
    with_kwargs: bool = False
    always_call: bool = False


class RemovableHandle:
    """What registering a hook returns; ``remove()``, or the end of a ``with`` block, takes the hook off again.

    Parameters
    ----------
    hooks : dict
        Where it is put.
    hook : object
        The hook.
    prepend : bool
        Whether it comes before those that are there.
    lasts : bool
        Whether it is there in later steps too, so that programs captured without it no longer hold.
    """

    def __init__(self, hooks: dict, hook: Any, prepend: bool = False, lasts: bool = True):
        self._hooks, self._lasts = hooks, lasts
        self._key = object()
        others = dict(hooks) if prepend else {}
        if prepend:
            hooks.clear()
        hooks[self._key] = hook
        hooks.update(others)
        if lasts:
            _core.bump_settings()

    def remove(self) -> None:
        """Takes the hook off."""
        if self._hooks.pop(self._key, None) is not None and self._lasts:
            _core.bump_settings()

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


def call_hooked(module: Module, inputs: tuple, options: dict[str, Any]) -> Any:
    """What calling a module with hooks does.

    Parameters
    ----------
    module : Module
        The module.
    inputs : tuple
        Forward's positional arguments.
    options : dict
        Its keyword arguments.

    Returns
    -------
    object
        Forward's output, or what the hooks made of it.
    """
    hooks = tuple(module._hooks.values())
    waiting = [hook for hook in hooks if hook.kind == "forward" and hook.always_call]
    output = None
    try:
        for hook in hooks:
            if hook.kind == "pre":
                inputs, options = _before(module, hook, inputs, options)
        watch = _Watch(module, hooks) if any(hook.kind.startswith("backward") for hook in hooks) else None
        output = module.run_forward(*(watch.enter(inputs) if watch else inputs), **options)
        for hook in hooks:
            if hook.kind == "forward":
                waiting = [other for other in waiting if other is not hook]
                changed = _behind(module, hook, inputs, options, output)
                output = output if changed is None else changed
        return watch.leave(output) if watch else output
    except Exception:
        for hook in waiting:
            _behind(module, hook, inputs, options, output)
        raise


def _before(module: Module, hook: Hook, inputs: tuple, options: dict) -> tuple[tuple, dict]:
    """The arguments, as a hook before forward leaves them."""
    if not hook.with_kwargs:
        changed = hook.function(module, inputs)
        if changed is None:
            return inputs, options
        return changed if isinstance(changed, tuple) else (changed,), options
    changed = hook.function(module, inputs, options)
    if changed is None:
        return inputs, options
    if not isinstance(changed, tuple) or len(changed) != 2:
        raise RuntimeError(f"forward_pre_hook of {type(module).__name__}: with_kwargs, it must return None or a pair of "
                           f"arguments and keyword arguments, not {changed!r}")
    return changed


def _behind(module: Module, hook: Hook, inputs: tuple, options: dict, output: Any) -> Any:
    """What a hook behind forward returns."""
    if hook.with_kwargs:
        return hook.function(module, inputs, options, output)
    return hook.function(module, inputs, output)


class _Watch:
    """Two nodes on the tape, around what a module computes in one call: they call its hooks for backward."""

    def __init__(self, module: Module, hooks: tuple[Hook, ...]):
        self.module = module
        self.before = [hook.function for hook in hooks if hook.kind == "backward_pre"]
        self.behind = [hook.function for hook in hooks if hook.kind == "backward"]
        self.count, self.places, self.has_inputs, self.doutputs = 0, (), False, ()

    def enter(self, inputs: tuple) -> tuple:
        """The inputs, those that require a gradient behind a node."""
        places = [k for k, x in enumerate(inputs) if isinstance(x, TensorBase) and x.requires_grad]
        self.count, self.places = len(inputs), places
        self.has_inputs = bool(places) and _core.is_grad_enabled()
        return _through(_leave_backward, inputs, places, self) if self.has_inputs else inputs

    def leave(self, output: Any) -> Any:
        """The output, or outputs, behind a node."""
        outputs = output if isinstance(output, tuple) else (output,)
        places = [k for k, y in enumerate(outputs) if isinstance(y, TensorBase) and y.requires_grad]
        if not places or not _core.is_grad_enabled():
            return output
        passed = _through(_enter_backward, outputs, places, (self, len(outputs), places))
        return type(output)(*passed) if hasattr(output, "_fields") else passed if isinstance(output, tuple) else passed[0]

    def finish(self, dinputs: tuple) -> tuple:
        """Calls the hooks behind backward; returns the inputs' gradients, as these leave them."""
        for function in self.behind:
            changed = function(self.module, dinputs, self.doutputs)
            dinputs = dinputs if changed is None else _gradients(self.module, changed, dinputs)
        return dinputs


def _through(rule: Callable, values: tuple, places: list[int], context: Any) -> tuple:
    """`values`, those at `places` replaced by aliases that come from one node."""
    aliases = tuple(values[k].detach() for k in places)
    record(rule, tuple(values[k] for k in places), aliases, context=context)
    passed = list(values)
    for k, alias in zip(places, aliases):
        passed[k] = alias
    return tuple(passed)


def _spread(count: int, places: list[int], values: tuple) -> tuple:
    """`values` at their places among `count`, None elsewhere."""
    found = dict(zip(places, values))
    return tuple(found.get(k) for k in range(count))


def _gradients(module: Module, changed: Any, before: tuple) -> tuple:
    """What a hook returned instead of gradients, checked."""
    changed = changed if isinstance(changed, tuple) else (changed,)
    if len(changed) != len(before) or any(new is not None and old is not None and new.shape != old.shape
                                          for new, old in zip(changed, before)):
        raise RuntimeError(f"backward hook of {type(module).__name__}: it must return None or {len(before)} gradients of the "
                           f"shapes it was given, not {changed!r}")
    return changed


def _enter_backward(node, *douts: Tensor | None):
    watch, count, places = node.context
    doutputs = _spread(count, places, douts)
    for function in watch.before:
        changed = function(watch.module, doutputs)
        doutputs = doutputs if changed is None else _gradients(watch.module, changed, doutputs)
    watch.doutputs = doutputs
    if not watch.has_inputs:
        watch.finish((None,) * watch.count)
    return tuple(doutputs[k] for k in places)


def _leave_backward(node, *dinputs: Tensor | None):
    watch = node.context
    given = watch.finish(_spread(watch.count, watch.places, dinputs))
    return tuple(given[k] for k in watch.places)
