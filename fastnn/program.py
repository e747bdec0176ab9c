"""Captured programs: a training step recorded once, then replayed in C without Python."""

from __future__ import annotations

import inspect
import random
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._core import Program, TensorBase
from .checks import whole
from .ops.create import as_tensor

if TYPE_CHECKING:
    from .tensor import Tensor

__all__ = ["CapturedProgram", "capture"]

MAX_PROGRAMS = 8      # per captured function: one for each set of shapes and settings in use
LARGE_ARENA = 1 << 25  # bytes
MAX_WARM = 1024       # sets of shapes and settings that are remembered
MAX_RECAPTURES = 16   # in a row without a replay in between; then the step runs eagerly
MAX_VERIFIED_BYTES = 1 << 28
_LATE = inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction


def capture(step: Callable, verify: bool | int = False) -> CapturedProgram:
    """Makes a function whose calls replay the launches of `step` in C.

    Call 1 takes `step` as it is (lazy shapes and optimiser state come to be); call 2 is recorded; later calls with tensors of
    the same shapes, dtypes and strides are replayed: threads stay awake from launch to launch, temporaries live in one planned
    arena, and Python is not entered. Results have the same bits as eager ones. Other shapes or settings are recorded anew, at the
    second call with them if state comes to be at the first (that of a layer which was frozen, say). Calls that are recorded, and
    call 1, put their launches off until `step` returns or reads a value, then plan them: they take no more memory than replays.

    What varies from call to call must be tensors: arguments, or memory the step reads (parameters, learning rates, generators).
    Python numbers are frozen as they were when the step was recorded; a step that draws from Python's module `random` or from
    `numpy.random`'s own generator, or changes an attribute of a module that is a number or text (a counter, say), runs eagerly, after
    one warning. An argument is known by its memory: where a call that is recorded was given memory that the step also reads by
    itself (a buffer of its model, say), replays take their argument for both. Calls with an argument that carries a graph run
    eagerly, as do those within a step that is being recorded.

    Noticed, and recorded anew for: settings; modes; hooks; attributes, parameters and modules that are assigned to a module;
    parametrisations; groups added to an optimiser, its hyper-parameters, its state and gradients being replaced; tensors given other
    memory, or left for others, if nobody else holds those that were recorded. Not noticed, and frozen: names that a closure reads,
    attributes of other objects, elements of lists and dicts, what a `numpy.random.Generator` draws, where nothing but that changes.
    What a step leaves elsewhere than in its result (gradients, attributes) is one memory for all replays, which the next one
    writes: keep clones.

    Parameters
    ----------
    step : callable
        Made of tensor operations: forward, loss, backward, update, `zero_grad`. It takes tensors or NumPy arrays (and constants),
        also in tuples, lists and dicts, and returns a tensor, None, or a tuple, list or dict of them; returned tensors carry no
        graph when replayed. If it reads tensor values in Python (``loss.item()``), it cannot be captured: it runs eagerly, after
        one warning naming the line.
    verify : bool or int
        Compare so many replays, at least 0 (True: three), with eager runs bit by bit; on a difference the step runs eagerly from then
        on, after one warning. Programs that change more than 256 MB are not compared: it takes twice that memory.

    Returns
    -------
    CapturedProgram
        Called like `step`.

    Raises
    ------
    TypeError
        If `step` cannot be called, or is a generator or a coroutine.
    ValueError
        If `verify` is something else.
    """
    if not callable(step):
        raise TypeError(f"capture: step is a {type(step).__name__}, but must be a function of tensors")
    if any(is_late(step) for is_late in _LATE):
        raise TypeError("capture: step is a generator or a coroutine, but must be a function that is done when it returns")
    return CapturedProgram(step, verify if isinstance(verify, bool) else whole("capture: verify", verify, 0))


class CapturedProgram:
    """What `capture` returns: call it like the step it was made from.

    Attributes
    ----------
    obstacle : str or None
        Why the step runs eagerly, if it does.
    replays : int
        How many calls were replayed.
    """

    def __init__(self, step: Callable, verify: bool | int = False):
        self.step = step
        self.obstacle: str | None = None
        self.replays = 0
        self._verify = 3 if verify is True else int(verify)
        self._programs: OrderedDict[tuple, tuple[Program, Any]] = OrderedDict()
        self._has_run = False
        self._warm: set[tuple] = set()
        self._arena = None
        self._recaptures = 0

    def __getstate__(self) -> dict[str, Any]:
        """What a copy starts with: programs are tied to the memory that they were recorded with."""
        return {**self.__dict__, "_programs": OrderedDict(), "_warm": set(), "_has_run": False, "_arena": None, "_recaptures": 0}

    def __call__(self, *inputs: Any) -> Any:
        inputs = tuple(_as_input(v) if isinstance(v, _TO_CONVERT) else v for v in inputs)
        if self.obstacle is not None or _core.is_recording():  # what records around this sees the step's launches
            return self.step(*inputs)
        tensors = _tensors(inputs)
        if _core.is_grad_enabled() and any(t.grad_fn is not None for t in tensors):  # backward may leave the step through it
            return self.step(*inputs)
        key = _key(inputs, tensors)
        try:
            found = self._programs.get(key)
        except TypeError:
            given = ", ".join(type(v).__name__ for v in inputs)
            raise TypeError(f"capture: the step is given {given}, but takes tensors, arrays, constants that can be hashed, such as "
                            "numbers and strings, and tuples, lists and dicts of these") from None
        if found is not None:
            if found[0].mismatch() is None:
                self._programs.move_to_end(key)
                return self._replay(key, *found, inputs, tensors) if found[0].takes(tensors) else self.step(*inputs)
            del self._programs[key]
            self._warm.discard(key)  # what it works on is new: so may be what it keeps
            self._recaptures += 1
            if self._recaptures > MAX_RECAPTURES:
                return self._give_up(found[0].mismatch(), inputs)
        if self._has_run:
            return self._record(key, inputs)
        results = self.step(*inputs) if self._verify else self._run_once(inputs)  # the very first call: what is lazy comes to be
        self._has_run = True  # after an error the next call is the first
        self._warms(key)
        return results

    def _trace(self, inputs: tuple) -> tuple[Program, list, Any]:
        """Takes the step while a program records it; its launches are put off, unless results are to be compared with eager
        ones."""
        program = Program()
        try:
            program.begin(_tensors(inputs), not self._verify)
            results = self.step(*inputs)
        except BaseException:
            program.catch_up()  # all that came before the error has been done, as without a program
            raise
        finally:
            program.stop()
        return program, _flatten(results)[0], results

    def _run_once(self, inputs: tuple) -> Any:
        program, tensors, results = self._trace(inputs)
        if program.is_put_off:
            program.end(tensors, once=True)
            self._ready(program).run_recorded(_tensors(inputs), tensors)
        return results

    def _record(self, key: tuple, inputs: tuple) -> Any:
        version, drawn = _core.settings_version(), _state_of_python()
        program, tensors, results = self._trace(inputs)
        if _core.settings_version() != version:
            program.catch_up()
            return self._give_up("the step itself changes settings (train or eval mode, threads, parameters)", None, results)
        if _state_of_python() != drawn:
            program.catch_up()
            return self._give_up("the step draws random numbers of Python's or NumPy's, which replays would not; those of fastnn "
                                 "(fastnn.rand, bernoulli, ...) are drawn anew", None, results)
        is_warm, is_recorded = self._warms(key), program.obstacle is None
        if not program.end(tensors):
            program.catch_up()
            return self._give_up(program.obstacle, None, results) if is_warm or not is_recorded else results
        if program.is_put_off:
            self._ready(program).run_recorded(_tensors(inputs), tensors)
        if is_warm or not program.leaves_state:
            self._keep(key, program, results)
        return results

    def _warms(self, key: tuple) -> bool:
        """Whether the step has been taken for such inputs and settings before. If not, what is made now and lives on may be state
        that just came to be, of a layer that was frozen, say: replays would make it anew. The next call will tell."""
        is_warm = key in self._warm
        if len(self._warm) > MAX_WARM:
            self._warm.clear()
        self._warm.add(key)
        return is_warm

    def _keep(self, key: tuple, program: Program, results: Any) -> None:
        self._programs[key] = (program, _flatten(results)[1])
        while len(self._programs) > MAX_PROGRAMS:
            self._programs.popitem(last=False)

    def _replay(self, key: tuple, program: Program, template: Any, inputs: tuple, tensors: list) -> Any:
        self._ready(program)
        self._recaptures = 0
        if self._verify and program.written_bytes <= MAX_VERIFIED_BYTES:
            return self._replay_verified(key, program, template, tensors, inputs)
        self.replays += 1
        return _unflatten(template, program.run(tensors))

    def _replay_verified(self, key: tuple, program: Program, template: Any, tensors: list, inputs: tuple) -> Any:
        """Replays, goes back, runs the step eagerly, and compares all bits."""
        before = program.snapshot()
        outputs = program.run(tensors)
        after = program.snapshot()
        replayed = _bits(outputs, after)
        program.restore(before)
        again, made, results = self._trace(inputs)
        self._verify -= 1
        if _bits(made, program.snapshot()) != replayed:
            return self._give_up("a replay gave other bits than an eager run: the step depends on something that is not a tensor "
                                 "(Python numbers, NumPy's random numbers, global state)", None, results)
        self.replays += 1
        if program.leaves_state and again.end(made):  # Python now holds what the eager run left: replays are to write that
            self._keep(key, again, results)
            return results
        program.restore(after)
        return _unflatten(template, outputs)

    def _ready(self, program: Program) -> Program:
        """The program with its arena; all programs of one function share one, as large as the largest needs."""
        if self._arena is None or self._arena[1] < program.arena_bytes:
            self._arena = None
            if program.arena_bytes >= LARGE_ARENA:
                _core.trim_memory()  # it takes the place of what eager runs have left in the cache
            self._arena = (_core.new_arena(program.arena_bytes), program.arena_bytes)
        program.set_arena(self._arena[0])
        return program

    def _give_up(self, reason: str | None, inputs: tuple | None, results: Any = None) -> Any:
        self.obstacle = reason or "what it works on changes every time"
        self._programs.clear()
        warnings.warn(f"capture: the step runs eagerly, because {self.obstacle}", RuntimeWarning, stacklevel=4)
        return results if inputs is None else self.step(*inputs)

    def run_many(self, moving: Tensor, length: int) -> Iterator[int]:
        """Calls the step on consecutive stretches of `length` elements of `moving`, entering Python some twenty times a second.

        Parameters
        ----------
        moving : Tensor
            One axis, dense; the step's only input is a stretch of it. The last stretch may be shorter.
        length : int
            Elements per call.

        Yields
        ------
        int
            How many elements are done.

        Raises
        ------
        Exception
            As the step itself; the message names the number of the call. Calls before it have taken effect, it and later ones not.
        """
        if moving.ndim != 1 or not moving.is_contiguous() or length < 1:
            raise ValueError(f"run_many: moving has shape {moving.shape} and length is {length}, but it must be a dense tensor "
                             "of one axis and a positive length")
        start, n = 0, moving.shape[0]
        while start < n:
            part = moving[start:start + length]
            found = self._programs.get(_key((part,), [part])) if self.obstacle is None and not self._verify else None
            runs = (n - start) // length
            if found is None or runs == 0 or found[0].mismatch() is not None or not found[0].takes([part]):
                self(part)
                runs = 1
            else:
                runs = self._ready(found[0]).run_some(moving[start:start + runs * length], runs, start // length)
                self.replays += runs
            start = min(start + runs * length, n)
            yield start

    def prepared(self, *inputs: Any) -> tuple[Program, list]:
        """The program for such inputs; steps are taken until there is one.

        Parameters
        ----------
        *inputs : Tensor or numpy.ndarray or constant
            As for a call.

        Returns
        -------
        program : Program
            Ready to run.
        tensors : list of Tensor
            The inputs it is to be run on.

        Raises
        ------
        ValueError
            If the step cannot be captured; the message says why.
        """
        inputs = tuple(_as_input(v) if isinstance(v, _TO_CONVERT) else v for v in inputs)
        for _ in range(4):  # lazy state, the recording, and gradients that only then are there to stay
            found = self._programs.get(_key(inputs, _tensors(inputs)))
            if found is not None and found[0].mismatch() is None:
                return self._ready(found[0]), _tensors(inputs)
            if self.obstacle is None:
                self(*inputs)
        raise ValueError(f"the step cannot be captured: {self.obstacle or 'what it works on changes every time'}")

    def summary(self) -> str:
        """Each program's launches, those that run within others behind them, and the memory planned against what they take
        eagerly."""
        lines = []
        for program, _ in self._programs.values():
            calls = program.calls()
            lines.append(f"{len(calls)} launches, {program.arena_bytes:,} bytes planned, {program.eager_bytes:,} bytes eagerly")
            lines += [f"  fused: {count} {rule}" for rule, count in program.fusions().items() if count]
            for k, chain in enumerate(calls):
                name = " > ".join(call.op for call in chain)
                lines.append(f"  {k:4d}  {name:48s} {sum(call.ns for call in chain) / 1000:10.1f} us predicted  {chain[0].layer}")
        return "\n".join(lines) if lines else f"no program{'' if self.obstacle is None else ': ' + self.obstacle}"


def _state_of_python() -> tuple:
    """Where the random numbers that Python's and NumPy's modules draw have got to."""
    state = np.random.get_state(legacy=False)
    numbers = {**state, **state["state"]}.values()
    return random.getstate(), [v.tobytes() if isinstance(v, np.ndarray) else v for v in numbers if not isinstance(v, dict)]


def _bits(outputs: list, state: tuple) -> list:
    """All that a step leaves behind, as bytes: its outputs, lasting memory and gradients, in a fixed order."""
    gradients = [gradient for _, gradient in state[1] if gradient is not None]
    return [np.array(memoryview(t)).tobytes() for t in (*outputs, *gradients)] + [content for _, content in state[0]]


_TO_CONVERT = np.ndarray, tuple, list, dict


def _as_input(value: Any) -> Any:
    """Arrays as tensors, also within tuples, lists and dicts."""
    if isinstance(value, np.ndarray):
        return as_tensor(value)
    if isinstance(value, dict):
        return {k: _as_input(v) for k, v in value.items()}
    return _like(value, (_as_input(v) for v in value)) if isinstance(value, (tuple, list)) else value


def _tensors(inputs: Iterable) -> list:
    """The inputs that are tensors, also within tuples, lists and dicts."""
    found = []
    for v in inputs:
        if isinstance(v, TensorBase):
            found.append(v)
        elif isinstance(v, (tuple, list, dict)):
            found += _tensors(v.values() if isinstance(v, dict) else v)
    return found


def _key(inputs: tuple, tensors: list) -> tuple:
    """What a program was recorded for: shapes, dtypes, strides, which tensors are the same, constants, settings."""
    return _core.settings_version(), _core.is_grad_enabled(), _core.sharing(tensors), *map(_described, inputs)


def _described(value: Any) -> tuple:
    """What of an argument a program was recorded for."""
    if isinstance(value, TensorBase):
        return value.shape, value.strides, value.dtype.code, value.requires_grad
    if isinstance(value, dict):
        return dict, tuple(value), tuple(map(_described, value.values()))
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(_described, value))
    if isinstance(value, (float, np.floating)):
        return type(value), float(value).hex()  # 0 and -0 are equal, but not the same
    return type(value), value


def _flatten(results: Any) -> tuple[list, Any]:
    """The tensors in a step's result, and the result with their numbers in their places."""
    tensors: list = []

    def walk(value: Any) -> Any:
        if isinstance(value, TensorBase):
            tensors.append(value)
            return _Place(len(tensors) - 1)
        if isinstance(value, dict):
            return {k: walk(v) for k, v in value.items()}
        if isinstance(value, (tuple, list)):
            return _like(value, (walk(v) for v in value))
        return value

    return tensors, walk(results)


def _like(sequence: tuple | list, values: Iterator) -> Any:
    """The values in a tuple or list of this kind, named tuples included."""
    return type(sequence)(*values) if hasattr(sequence, "_fields") else type(sequence)(values)


class _Place:
    def __init__(self, number: int):
        self.number = number


def _unflatten(template: Any, tensors: list) -> Any:
    if isinstance(template, _Place):
        return tensors[template.number]
    if isinstance(template, dict):
        return {k: _unflatten(v, tensors) for k, v in template.items()}
    if isinstance(template, (tuple, list)):
        return _like(template, (_unflatten(v, tensors) for v in template))
    return template
