"""What all optimisers share: groups of parameters, state, its saving and loading."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np

from .. import _core
from .._core import TensorBase, launch
from ..checks import are_numbers, real
from ..nn.hooks import RemovableHandle
from ..ops.create import as_tensor, float64
from ..ops.operands import constant
from ..tensor import Tensor, enable_grad


class ParamGroup(MutableMapping):
    """Parameters that share hyper-parameters: ``group["lr"]``, ``group["params"]``.

    The learning rate lives in a 0-d float64 tensor, `lr`, that updates read from memory: so a captured program sees it
    change; a tensor that the user gave stays his, and writing to it changes the rate. So does the momentum, or the first
    of the betas, in `momentum`, for schedules that cycle it. Other hyper-parameters are constants of a captured program;
    setting one makes programs record anew.

    Parameters
    ----------
    options : mapping
        The parameters under "params", the learning rate under "lr", other hyper-parameters under their names.
    """

    def __init__(self, options: Mapping[str, Any]):
        self.options = dict(options)
        lr = self.options.pop("lr")
        self.lr = lr.detach() if isinstance(lr, TensorBase) else _core.scalar(float(lr), float64)
        self.momentum = _core.scalar(self._momentum(), float64)

    def _momentum(self) -> float:
        """The momentum or the first of the betas; 0 where there are none."""
        return float(self.options["betas"][0] if "betas" in self.options else self.options.get("momentum", 0.0))

    def _is_kept(self, name: str, value: Any) -> bool:
        """Whether captured programs may go on when a hyper-parameter becomes `value`: their constants stay."""
        if name not in self.options:
            return False
        before = self.options[name]
        if name == "momentum":  # whether there is one decides which launch is made
            return (before == 0) == (value == 0)
        return before is value or name == "betas" and tuple(before[1:]) == tuple(value[1:])

    def __getitem__(self, name: str) -> Any:
        return self.lr.item() if name == "lr" else self.options[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name == "lr":
            self.lr.set_item(float(value))
        else:
            if not self._is_kept(name, value):
                _core.bump_settings()
            self.options[name] = value
            if name in ("momentum", "betas"):
                self.momentum.set_item(self._momentum())

    def __delitem__(self, name: str) -> None:
        if name in ("lr", "params"):
            raise KeyError(f"'{name}' cannot be removed from a parameter group")
        del self.options[name]

    def __iter__(self) -> Iterator[str]:
        yield "params"
        yield "lr"
        yield from (name for name in self.options if name != "params")

    def __len__(self) -> int:
        return len(self.options) + 1

    def __repr__(self) -> str:
        return f"ParamGroup({', '.join(f'{name}: {value}' for name, value in self.items() if name != 'params')})"


class Optimizer:
    """Base class of optimisers. A subclass defines `check` (of hyper-parameters) and `update` (of parameters).

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimise, such as ``model.parameters()`` or ``model.named_parameters()``; dicts have "params" and
        hyper-parameters of their own.
    defaults : dict
        Hyper-parameters of groups that do not give their own.

    Attributes
    ----------
    param_groups : list of ParamGroup
        Hyper-parameters; may be changed between steps.
    state : dict
        Per parameter, what the optimiser remembers of it.

    Raises
    ------
    TypeError
        If `params` holds something else than tensors.
    ValueError
        If there is no parameter, one appears twice, or a hyper-parameter is out of range.
    """

    numbers = ("step",)  # 0-d float64 in a parameter's state

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], defaults: dict[str, Any]):
        self.name = type(self).__name__
        self.defaults = defaults
        self.param_groups: list[ParamGroup] = []
        self.state: dict[Tensor, dict[str, Any]] = defaultdict(dict)
        self._pre_hooks: dict[int, Callable] = {}
        self._post_hooks: dict[int, Callable] = {}
        if isinstance(params, (TensorBase, Mapping)) or not isinstance(params, Iterable):
            hint = ", such as model.parameters()" if hasattr(params, "parameters") else ""
            raise TypeError(f"{self.name}: params is a {type(params).__name__}, but must be an iterable of tensors or of "
                            f"dicts{hint}")
        params = list(params)
        if not params:
            raise ValueError(f"{self.name}: there are no parameters to optimise")
        for group in params if isinstance(params[0], Mapping) else [{"params": params}]:
            self.add_param_group(group)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Adds parameters with hyper-parameters of their own.

        Parameters
        ----------
        group : dict
            "params": a tensor or an iterable of them, or of pairs of name and tensor; hyper-parameters that differ from
            the defaults; "initial_lr", the base rate of schedules that go on.

        Raises
        ------
        TypeError, ValueError
            As the constructor.
        """
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f"{self.name}: a parameter group is {group!r}, but must be a dict with the key 'params'")
        unknown = set(group) - set(self.defaults) - {"params", "param_names", "initial_lr"}
        if unknown:
            raise ValueError(f"{self.name}: unknown hyper-parameters {sorted(unknown)}; there are {sorted(self.defaults)}")
        given = group["params"]
        params, names = self._split([given] if isinstance(given, TensorBase) else list(given))
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, TensorBase):
                raise TypeError(f"{self.name}: params holds a {type(p).__name__}, but must hold tensors")
            if not p.is_leaf or not p.is_floating_point():
                raise ValueError(f"{self.name}: a parameter of shape {p.shape} is not a leaf tensor of a floating type")
            if id(p) in known:
                raise ValueError(f"{self.name}: a parameter of shape {p.shape} appears twice")
            known.add(id(p))
        options = {**self.defaults, **group, "params": params, **names}
        self.check(options)
        self.param_groups.append(ParamGroup(options))
        _core.note_change()

    @staticmethod
    def _split(params: list) -> tuple[list, dict[str, list[str]]]:
        """Parameters, and under "param_names" their names where they have some."""
        if params and all(isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) for p in params):
            return [p for _, p in params], {"param_names": [name for name, _ in params]}
        return params, {}

    # -- for subclasses --

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises ValueError where a hyper-parameter is out of range."""
        raise TypeError(f"{self.name} must define check(options)")

    def update(self, params: list[Tensor], options: ParamGroup, lr: Tensor) -> None:
        """Updates a group's parameters in place from their gradients; `lr`, as ``options.momentum``, is 0-d float64."""
        raise TypeError(f"{self.name} must define update(params, options, lr)")

    def require(self, is_ok: bool, name: str, value: Any, allowed: str) -> None:
        """Raises ValueError, naming a hyper-parameter, what was given and what is allowed, unless `is_ok`."""
        if not is_ok:
            raise ValueError(f"{self.name}: {name} is {value!r}, but must be {allowed}")

    def require_not_negative(self, options: Mapping[str, Any], *names: str) -> None:
        """Raises ValueError unless these hyper-parameters are finite numbers of at least 0 (a rate may be a tensor)."""
        for name in names:
            value = options[name]
            if name != "lr" or not isinstance(value, TensorBase):
                real(f"{self.name}: {name}", value, 0)
            elif value.ndim or value.dtype is not float64:
                raise ValueError(f"{self.name}: lr is a {value.dtype} tensor of shape {value.shape}, but must be a number "
                                 "or a 0-d float64 tensor")

    def require_betas(self, options: Mapping[str, Any]) -> None:
        """Raises ValueError unless "betas" are two numbers, at least 0 and below 1."""
        betas = options["betas"]
        self.require(are_numbers(betas, 2) and all(0 <= b < 1 for b in betas), "betas", betas,
                     "two numbers, at least 0 and below 1")

    def state_shape(self, name: str, p: Tensor) -> tuple[int, ...]:
        """Shape of the tensor `name` in the state of a parameter: as the parameter's unless a subclass says otherwise."""
        return p.shape

    def memory(self, params: list[Tensor], *names: str, counted: bool = True) -> list[dict[str, Tensor]]:
        """State of each parameter: tensors like it, zeros the first time, and "step", which counts this call.

        Parameters
        ----------
        params : list of Tensor
            The parameters.
        *names : str
            Names of the tensors.
        counted : bool
            Whether there is a step number, 0-d float64.

        Returns
        -------
        list of dict
            What `state` holds for the parameters.
        """
        states = [self.state[p] for p in params]
        for p, state in zip(params, states):
            if counted and "step" not in state:
                state["step"] = _core.scalar(0.0, float64)
            for name in names:
                if name not in state:
                    shape = self.state_shape(name, p)
                    state[name] = zeros_for(p) if shape == p.shape else _core.empty(shape, p.dtype).zero_()
        if counted:
            steps, one = [state["step"] for state in states], constant(1.0, float64)
            launch.add.each([(step, one) for step in steps], steps)
        return states

    def apply(self, op: Any, params: list[Tensor], states: list[dict[str, Tensor]], names: tuple[str, ...],
              *scalars: Tensor | str, **attributes: Any) -> None:
        """One launch of an op that updates parameters and their state in place.

        Parameters
        ----------
        op : callable
            One of `launch`, of parameter, gradient, the tensors of state, scalars; its outputs are parameter and state.
        params : list of Tensor
            The parameters.
        states : list of dict
            Theirs, as `memory` gives them.
        names : tuple of str
            Which tensors of the state the op takes.
        *scalars : Tensor or str
            0-d float64: one for all, or a name in each parameter's state.
        **attributes
            The op's.
        """
        inputs, outputs = [], []
        for p, state in zip(params, states):
            kept = [state[name] for name in names]
            inputs.append((p, p.grad, *kept, *[state[s] if isinstance(s, str) else s for s in scalars]))
            outputs.append((p, *kept))
        op.each(inputs, outputs, **attributes)

    # -- use --

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets all gradients, or (set_to_none=False) fills them with zeros."""
        for group in self.param_groups:
            for p in group.options["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad.zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and its gradients first.

        Returns
        -------
        object
            What `closure` returned, or None.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        outer = _core.enter_layer(self)
        before = _core.set_grad_enabled(False)
        try:
            for hook in tuple(self._pre_hooks.values()):
                hook(self, (), {})
            for group in self.param_groups:
                params = [p for p in group.options["params"] if p.grad is not None]
                if params:
                    self.update(params, group, group.lr)
            for hook in tuple(self._post_hooks.values()):
                hook(self, (), {})
        finally:
            _core.set_grad_enabled(before)
            _core.leave_layer(outer)
        return loss

    def register_step_pre_hook(self, hook: Callable[[Optimizer, tuple, dict], Any]) -> RemovableHandle:
        """Has `hook` called in every step before the updates, when gradients are there.

        Parameters
        ----------
        hook : callable
            ``hook(optimizer, args, kwargs)``, such as `fastnn.optim.ClipGradNorm`; made of launches, or the step cannot
            be captured.

        Returns
        -------
        RemovableHandle
            Its ``remove()`` takes the hook off again.
        """
        return self._hooked(self._pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[[Optimizer, tuple, dict], Any]) -> RemovableHandle:
        """Has `hook` called in every step after the updates; see `register_step_pre_hook`.

        Parameters
        ----------
        hook : callable
            ``hook(optimizer, args, kwargs)``, such as `fastnn.optim.Proximal`.

        Returns
        -------
        RemovableHandle
            Its ``remove()`` takes the hook off again.
        """
        return self._hooked(self._post_hooks, hook)

    def _hooked(self, hooks: dict[int, Callable], hook: Callable) -> RemovableHandle:
        if not callable(hook):
            raise TypeError(f"{self.name}: hook is {hook!r}, but must be callable")
        return RemovableHandle(hooks, hook)

    # -- saving and loading --

    def state_dict(self) -> dict[str, Any]:
        """State and hyper-parameters in PyTorch's form; parameters are numbered in the order of the groups.

        Returns
        -------
        dict
            "state": {number: {name: Tensor}}, sharing memory; "param_groups": list of dict, "params" being numbers.
        """
        numbers = {id(p): k for k, p in enumerate(self._parameters())}
        return {"state": {numbers[id(p)]: dict(values) for p, values in self.state.items() if values},
                "param_groups": [{**group, "params": [numbers[id(p)] for p in group["params"]]}
                                 for group in self.param_groups]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave, PyTorch's as well.

        Parameters
        ----------
        state_dict : mapping
            Tensors may be NumPy arrays or PyTorch's. Values are copied, into the memory of the state where there
            already is one.

        Raises
        ------
        ValueError
            If it is no optimiser's state, or groups have other numbers of parameters, or state another shape, than here.
        """
        check_state(state_dict)
        saved = state_dict["param_groups"]
        sizes, own = [len(g["params"]) for g in saved], [len(g["params"]) for g in self.param_groups]
        if sizes != own:
            raise ValueError(f"load_state_dict: the groups have {sizes} parameters, {self.name}'s have {own}")
        numbers = [number for g in saved for number in g["params"]]
        taken = {p: self._taken(p, state_dict["state"].get(number, {}))
                 for number, p in zip(numbers, self._parameters())}
        for p, values in taken.items():
            self.state[p] = {name: _stored(self.state[p].get(name), value) for name, value in values.items()}
        for group, other in zip(self.param_groups, saved):
            for name, value in other.items():
                if name in ("lr", "initial_lr") or name in group.options and name != "params":
                    group[name] = tuple(value) if isinstance(value, list) else value

    def _taken(self, p: Tensor, values: Mapping[str, Any]) -> dict[str, Tensor | None]:
        """A parameter's saved state as tensors of the right types and shapes."""
        result = {}
        for name, value in values.items():
            if value is not None:
                is_tensor = isinstance(value, TensorBase) or hasattr(value, "__dlpack__")
                value = as_tensor(value if is_tensor else np.asarray(value))
                is_number = name in self.numbers and value.numel() == 1
                shape = () if is_number else self.state_shape(name, p)
                if not is_number and value.shape != shape:
                    raise ValueError(f"load_state_dict: '{name}' is {value.shape}, the parameter {p.shape}")
                value = value.detach().to(float64 if is_number else p.dtype).reshape(shape)
            result[name] = value
        return result

    def _parameters(self) -> Iterator[Tensor]:
        return (p for group in self.param_groups for p in group["params"])

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.param_groups))})"


def check_state(state_dict: Any) -> None:
    """Raises ValueError where `state_dict` is not what an optimiser's `state_dict` gives."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= state_dict.keys():
        given = f"has the keys {list(state_dict)[:5]}" if isinstance(state_dict, Mapping) else f"is a {type(state_dict).__name__}"
        raise ValueError(f"load_state_dict: state_dict {given}, but must have 'state' and 'param_groups'")


def _stored(old: Tensor | None, value: Tensor | None) -> Tensor | None:
    """`value` in the memory of `old`, or else in memory of its own."""
    if value is None or old is None:
        return value if value is None else value.clone()
    return old.copy_(value)


def empty_for(p: Tensor) -> Tensor:
    """A tensor of the shape, type and order of a parameter, not yet written."""
    return _core.empty(p.shape, p.dtype, contiguous=not p.is_channels_last())


def zeros_for(p: Tensor) -> Tensor:
    """Zeros of the shape, type and order of a parameter."""
    return empty_for(p).zero_()
