"""Replicas of a model that take the same steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _core
from .._core import launch
from ..nn.module import Module
from ..ops.create import tensor, zeros
from ..random import default_generator
from .collectives import Dense, described, writable
from .world import get_rank, get_world_size, state_of_first, world


class DistributedDataParallel:
    """Keeps the replicas of a model alike: one on each rank, each trained on rows of its own.

    When it is made, parameters and buffers become those of rank 0, and the default generator goes on from rank 0's, with the rank added
    to the seed: dropout differs from rank to rank. From then on `average_gradients` between ``backward`` and the optimiser's ``step``
    makes all ranks take the same step. Unlike PyTorch's it does not wrap the model, and backward does not call it: gradients that are
    accumulated over several backwards are averaged once, gradients that are clipped are averaged before.

    Statistics of batch normalisation are each rank's own, until `broadcast_buffers`.

    Parameters
    ----------
    model : fastnn.nn.Module
        The same on all ranks, but for the values.

    Raises
    ------
    TypeError
        If `model` is no module.
    ValueError
        If it has lazy layers that have seen no input yet, or ranks have different models, or run on different instruction sets, which
        would round the same step differently.

    Examples
    --------
    A loop that runs the same under ``mpiexec -n 1`` and ``-n 4``, and without; `fastnn.train.DistributedTrainer` is one that is ready:

    >>> import numpy as np
    >>> from fastnn import nn, optim
    >>> import fastnn.functional as F
    >>> from fastnn.distributed import DistributedDataLoader, DistributedDataParallel, get_rank
    >>> x, y = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32), np.arange(64) % 2
    >>> model = nn.Linear(4, 2)
    >>> replicas = DistributedDataParallel(model)
    >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
    >>> for inputs, labels in DistributedDataLoader((x, y), batch_size=16, shuffle=True):
    ...     F.cross_entropy(model(inputs), labels).backward()
    ...     replicas.average_gradients()
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    >>> if get_rank() == 0:
    ...     print(len(model.state_dict()))
    2

    A step can be captured in two halves, one up to ``backward``, one from ``step`` on, with `average_gradients` between them.
    """

    def __init__(self, model: Module) -> None:
        if not isinstance(model, Module):
            raise TypeError(f"DistributedDataParallel: model is a {type(model).__name__}, but must be a fastnn.nn.Module")
        if any(module._is_lazy for module in model.modules()):
            raise ValueError("DistributedDataParallel: model has lazy layers, whose shapes are not known yet: call it on a batch first")
        self.model = model
        self._flats: list[_Flat] = []
        self._trained: list[Any] = []
        self._version: Any = None
        self.synchronize()

    def synchronize(self) -> None:
        """Does again what is done when the object is made: all ranks become like rank 0, which has loaded a file, say."""
        world().agree("DistributedDataParallel", f"instruction set {_core.get_isa()} (FASTNN_ISA sets it)")
        _check_same([f"{name}: {described(t)}{', frozen' if kind == 'parameter' and not t.requires_grad else ''}"
                     for kind, name, t in self._named()])
        self._broadcast([t for _, _, t in self._named()])
        _seed_by_rank()
        self._version = None

    def __call__(self, *inputs: Any) -> Any:
        """Refused: who comes from PyTorch would wait for gradients to be averaged by themselves."""
        raise TypeError("DistributedDataParallel: call the model itself, and average_gradients() after backward")

    def _named(self) -> list[tuple[str, str, Any]]:
        return [*(("parameter", *item) for item in self.model.named_parameters()),
                *(("buffer", *item) for item in self.model.named_buffers())]

    def _broadcast(self, tensors: Sequence[Any]) -> None:
        for t in tensors:
            with Dense(writable("broadcast", t)) as flat:
                world().broadcast(flat, 0)

    def follow(self) -> None:
        """To be called before a step that is captured in halves: looks which parameters are trained now."""
        version = _core.settings_version()
        if version == self._version:
            return
        self._version = version
        trained = [p for p in self.model.parameters() if p.requires_grad]
        if [id(p) for p in trained] == [id(p) for p in self._trained]:
            return
        self._trained = trained
        dtypes = dict.fromkeys(p.dtype for p in trained)
        self._flats = [_Flat([p for p in trained if p.dtype is dtype]) for dtype in dtypes]
        self._what = " and ".join(f"{flat.memory.numel() - len(flat.parameters)} {flat.memory.dtype} numbers" for flat in self._flats)
        _core.bump_settings()  # what has been captured works on the memory of before
        self._version = _core.settings_version()

    def average_gradients(self) -> None:
        """Makes the gradient of every parameter the mean over all ranks: summed in rank order, then divided by their number.

        To be called by all ranks, between ``backward`` and ``step``. A parameter that has a gradient on some ranks only counts as 0 on
        the others; one that has none anywhere gets none.

        Raises
        ------
        ValueError
            If a rank calls something else.
        """
        if get_world_size() > 1:
            self.follow()
            self.pack()
            self.reduce()
            for flat in self._flats:
                flat.copy_back()

    def broadcast_buffers(self) -> None:
        """Gives all ranks the buffers of rank 0: running statistics, before an evaluation or at the end of training."""
        world().agree("broadcast_buffers")
        self._broadcast(list(self.model.buffers()))

    def pack(self) -> None:
        """First part of `average_gradients`, made of launches: the end of a captured half step. Gradients are copied to memory that
        ranks exchange, and may be dropped."""
        for flat in self._flats:
            flat.pack()

    def reduce(self, *numbers: float) -> np.ndarray:
        """Second part: what ranks exchange. Not within a captured step.

        Parameters
        ----------
        *numbers : float
            At most 3 that go with it.

        Returns
        -------
        numpy.ndarray
            Those of all ranks, float64 (ranks, numbers).
        """
        shared = world().agree("average_gradients", self._what, numbers)
        for flat in self._flats:
            flat.reduce()
        return shared

    def unpack(self) -> None:
        """Third part, the beginning of the other captured half: sets the gradients to views of that memory, which the next step
        writes."""
        for flat in self._flats:
            flat.unpack()

    def drop(self) -> None:
        """Forgets all gradients, also of parameters that no optimiser has."""
        for flat in self._flats:
            for p in flat.parameters:
                p.grad = None


class _Flat:
    """The gradients of parameters of one dtype behind each other, and a number for each: on how many ranks there is one."""

    def __init__(self, parameters: list[Any]) -> None:
        self.parameters = parameters
        starts = np.cumsum([0, *(p.numel() for p in parameters)]).tolist()
        self.memory = zeros(starts[-1] + len(parameters), dtype=parameters[0].dtype)
        self.views = [self.memory[start:start + p.numel()].reshape(p.shape) for start, p in zip(starts, parameters)]
        self.counts = self.memory[starts[-1]:]
        self.present = (True,) * len(parameters)  # what the last reduction found
        self._patterns: dict[tuple[bool, ...], Any] = {}

    def pack(self) -> None:
        gradients = [p.grad for p in self.parameters]
        for gradient, view in zip(gradients, self.views):
            if gradient is None:
                view.zero_()
            else:
                launch.copy(gradient, dtype=view.dtype.code, out=view)
        present = tuple(gradient is not None for gradient in gradients)
        if present not in self._patterns:
            self._patterns[present] = tensor(present, dtype=self.memory.dtype)
        launch.copy(self._patterns[present], dtype=self.memory.dtype.code, out=self.counts)

    def reduce(self) -> None:
        world().reduce(self.memory.numpy(), "mean")
        present = tuple((self.counts.numpy() > 0).tolist())
        if present != self.present:
            self.present = present
            _core.bump_settings()  # what has been captured sets gradients for others

    def unpack(self) -> None:
        for p, view, is_present in zip(self.parameters, self.views, self.present):
            if is_present:
                p.grad = view

    def copy_back(self) -> None:
        for p, view, is_present in zip(self.parameters, self.views, self.present):
            if is_present and p.grad is None:
                p.grad = view.clone()
            elif is_present:
                launch.copy(view, dtype=view.dtype.code, out=p.grad)


def _check_same(mine: list[str]) -> None:
    """Raises on all ranks where models have other parameters or buffers than rank 0's."""
    if get_world_size() == 1:
        return
    all_ranks = world().comm.allgather(mine)
    for rank, theirs in enumerate(all_ranks):
        if theirs != all_ranks[0]:
            first, other = next((a, b) for a, b in zip([*all_ranks[0], "none"], [*theirs, "none"]) if a != b)
            raise ValueError("DistributedDataParallel: model must have the same parameters and buffers on all ranks, but where rank 0 has "
                             f"{first}, rank {rank} has {other}")


def _seed_by_rank() -> None:
    """The default generator goes on from rank 0's, with the rank added to the seed."""
    seed, number = state_of_first(default_generator)
    default_generator.set_state(tensor([(seed + get_rank() + (1 << 63)) % (1 << 64) - (1 << 63), number]))
