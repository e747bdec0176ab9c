"""What is done to gradients before an update and to parameters after it: clipping, penalties, averages.

Each is a function of tensors, made of launches, so that steps stay capturable, or an object that an optimiser calls at
every step:
``optimizer.register_step_pre_hook(ClipGradNorm(1.0))``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .. import _core
from .._core import TensorBase, launch
from ..checks import a_tensor, number, positive, real, several
from ..ops.create import float64
from ..ops.operands import constant
from ..tensor import Tensor, no_grad
from .optimizer import Optimizer, ParamGroup

__all__ = ["EMA", "ClipGradNorm", "ClipGradValue", "ElasticNet", "MaxNorm", "Proximal", "clip_grad_norm_",
           "clip_grad_value_",
           "clip_each_grad_norm_", "clip_grads_with_norm_", "get_total_norm"]


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [p.grad for p in several("gradients", parameters, "parameters") if a_tensor("gradients", p, "a parameter").grad is not None]


def _order(name: str, norm_type: float) -> float:
    """A norm's order: above 0, or infinite."""
    order = number(f"{name}: norm_type", norm_type)
    if not order > 0:
        raise ValueError(f"{name}: norm_type is {norm_type!r}, but must be above 0, or infinite")
    return order


def _total(x: Tensor) -> Tensor:
    return launch.sum(x, axes=(1 << x.ndim) - 1, keepdim=0, divisor=1.0)


def _power(x: Tensor, order: float) -> Tensor:
    """What is added up over tensors: the sum of |x|^order; the largest |x| of an infinite order."""
    if order == 2:
        return _total(launch.square(x))
    size = launch.abs(x)
    if math.isinf(order):
        return launch.max_reduce(size, axes=(1 << x.ndim) - 1, keepdim=0)
    return _total(size if order == 1 else launch.pow(size, constant(order, x.dtype)))


def _root(total: Tensor, order: float) -> Tensor:
    if order == 2:
        return launch.sqrt(total)
    return total if order == 1 or math.isinf(order) else launch.pow(total, constant(1 / order, total.dtype))


def get_total_norm(tensors: Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Tensor:
    """The norm of all elements of all tensors together.

    Parameters
    ----------
    tensors : iterable of Tensor
        Any shapes, of one floating type.
    norm_type : float
        Above 0; infinity for the largest absolute value.
    error_if_nonfinite : bool
        Whether an infinite norm, or NaN, is an error; then it is read, and a step that calls this is not captured.

    Returns
    -------
    Tensor
        0-d.

    Raises
    ------
    ValueError
        If `norm_type` is not above 0.
    RuntimeError
        If the norm is not finite, though `error_if_nonfinite`.
    """
    order, total = _order("get_total_norm", norm_type), None
    for x in several("get_total_norm", tensors, "tensors"):
        if a_tensor("get_total_norm", x, "one of tensors").numel():
            part = _power(x.detach(), order)
            combine = launch.maximum if math.isinf(order) else launch.add
            total = part if total is None else combine(total, part)
    norm = _core.scalar(0.0, float64) if total is None else _root(total, order)
    if error_if_nonfinite and not math.isfinite(norm.item()):
        raise RuntimeError(f"get_total_norm: the norm of order {order} is {norm.item()}: it is not finite, so gradients "
                           f"cannot be scaled by it")
    return norm


def _scale_down(gradients: list[Tensor], norm: Tensor, limit: float) -> None:
    """Multiplies by limit / (norm + 1e-6) where that is below 1, as PyTorch does."""
    factor = launch.div(constant(limit, norm.dtype), launch.add(norm, constant(1e-6, norm.dtype)))
    factor = launch.minimum(factor, constant(1.0, norm.dtype))
    launch.mul.each([(g, factor) for g in gradients], gradients)


def clip_grads_with_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor) -> None:
    """Shrinks all gradients together, by what brings a norm that is known to at most `max_norm`; see `clip_grad_norm_`."""
    total_norm = a_tensor("clip_grads_with_norm_", total_norm, "total_norm")
    _scale_down(_gradients(parameters), total_norm, real("clip_grads_with_norm_: max_norm", max_norm, 0))


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0,
                    error_if_nonfinite: bool = False) -> Tensor:
    """Shrinks all gradients together, so that their common norm is at most `max_norm`.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without gradient are passed over.
    max_norm : float
        At least 0.
    norm_type : float
        Above 0; infinity for the largest absolute value.
    error_if_nonfinite : bool
        As in `get_total_norm`.

    Returns
    -------
    Tensor
        0-d: the norm before.

    Raises
    ------
    ValueError
        If `max_norm` is below 0 or `norm_type` not above 0.
    RuntimeError
        If the norm is not finite, though `error_if_nonfinite`.

    References
    ----------
    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.
    """
    limit, gradients = real("clip_grad_norm_: max_norm", max_norm, 0), _gradients(parameters)
    norm = get_total_norm(gradients, _order("clip_grad_norm_", norm_type), error_if_nonfinite)
    _scale_down(gradients, norm, limit)
    return norm


def clip_each_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> None:
    """Shrinks each gradient by itself, so that its norm is at most `max_norm`: Keras's ``clipnorm``.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without gradient are passed over.
    max_norm : float
        At least 0.
    norm_type : float
        Above 0; infinity for the largest absolute value.

    Raises
    ------
    ValueError
        If `max_norm` is below 0 or `norm_type` not above 0.
    """
    limit, order = real("clip_each_grad_norm_: max_norm", max_norm, 0), _order("clip_each_grad_norm_", norm_type)
    for g in _gradients(parameters):
        if g.numel():
            _scale_down([g], _root(_power(g, order), order), limit)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Puts every element of every gradient between -clip_value and clip_value.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without gradient are passed over.
    clip_value : float
        At least 0.

    Raises
    ------
    ValueError
        If `clip_value` is below 0.
    """
    limit = real("clip_grad_value_: clip_value", clip_value, 0)
    gradients = _gradients(parameters)
    launch.clip.each([(g,) for g in gradients], gradients, low=-limit, high=limit)


# ---- hooks
# ------------------------------------------------------------------------------------------------------------


def _listed(name: str, params: Iterable[Tensor]) -> list[Tensor]:
    """Parameters as a list."""
    if isinstance(params, TensorBase) or not isinstance(params, Iterable):
        raise TypeError(f"{name}: params is a {type(params).__name__}, but must be an iterable of tensors")
    return list(params)


class _Hook:
    """Something an optimiser calls at every step for some of its parameters.

    Parameters
    ----------
    params : iterable of Tensor, optional
        Which of the optimiser's parameters it is for; all by default.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        _core.note_change()
        object.__setattr__(self, name, value)

    def __init__(self, params: Iterable[Tensor] | None = None):
        self.only = None if params is None else {id(p): p for p in _listed(type(self).__name__, params)}

    def __call__(self, optimizer: Optimizer, args: tuple = (), kwargs: dict | None = None) -> None:
        with no_grad():
            self.apply(optimizer)

    def chosen(self, optimizer: Optimizer) -> Iterator[tuple[Tensor, ParamGroup]]:
        """Parameters that have a gradient, each with its group."""
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None and (self.only is None or id(p) in self.only):
                    yield p, group

    def apply(self, optimizer: Optimizer) -> None:
        """Does its work for one step."""
        raise TypeError(f"{type(self).__name__} must define apply(optimizer)")


class ClipGradValue(_Hook):
    """Before a step: `clip_grad_value_`.

    Parameters
    ----------
    clip_value : float
        At least 0.
    params : iterable of Tensor, optional
        Which parameters; all by default.
    """

    def __init__(self, clip_value: float, params: Iterable[Tensor] | None = None):
        super().__init__(params)
        self.clip_value = real("ClipGradValue: clip_value", clip_value, 0)

    def apply(self, optimizer: Optimizer) -> None:
        clip_grad_value_((p for p, _ in self.chosen(optimizer)), self.clip_value)


class ClipGradNorm(_Hook):
    """Before a step: `clip_grad_norm_`, or `clip_each_grad_norm_`.

    Parameters
    ----------
    max_norm : float
        At least 0.
    norm_type : float
        Above 0.
    each : bool
        Whether every gradient is clipped by its own norm instead of the norm of all.
    params : iterable of Tensor, optional
        Which parameters; all by default.
    """

    def __init__(self, max_norm: float, norm_type: float = 2.0, each: bool = False,
                 params: Iterable[Tensor] | None = None):
        super().__init__(params)
        self.max_norm, self.each = real("ClipGradNorm: max_norm", max_norm, 0), bool(each)
        self.norm_type = _order("ClipGradNorm", norm_type)

    def apply(self, optimizer: Optimizer) -> None:
        clip = clip_each_grad_norm_ if self.each else clip_grad_norm_
        clip([p for p, _ in self.chosen(optimizer)], self.max_norm, self.norm_type)


class ElasticNet(_Hook):
    """Before a step: the subgradient of l1 |w| + l2 w^2 / 2 is added to gradients: l1 sign(w) + l2 w.

    Parameters
    ----------
    l1, l2 : float
        At least 0. With l1 parameters come near 0 but not to rest there; `Proximal` makes exact zeros.
    params : iterable of Tensor, optional
        Which parameters, such as the weights without the biases; all by default.

    References
    ----------
    Zou and Hastie, "Regularization and variable selection via the elastic net", JRSS B 67, 2005.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0, params: Iterable[Tensor] | None = None):
        super().__init__(params)
        self.l1, self.l2 = real("ElasticNet: l1", l1, 0), real("ElasticNet: l2", l2, 0)

    def apply(self, optimizer: Optimizer) -> None:
        params = [p for p, _ in self.chosen(optimizer)]
        launch.penalty_gradient.each([(p.grad, p) for p in params], [p.grad for p in params], l1=self.l1, l2=self.l2)


class Proximal(_Hook):
    """After a step: the proximal step of l1 |w| + l2 w^2 / 2 at the group's learning rate, which makes exact zeros.

    w becomes sign(w) max(|w| - lr l1, 0) / (1 + lr l2). After a plain gradient step this is ISTA.

    Parameters
    ----------
    l1, l2 : float
        At least 0.
    params : iterable of Tensor, optional
        Which parameters, such as the weights without the biases; all by default.

    References
    ----------
    Parikh and Boyd, "Proximal algorithms", Foundations and Trends in Optimization 1, 2014.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0, params: Iterable[Tensor] | None = None):
        super().__init__(params)
        self.l1, self.l2 = real("Proximal: l1", l1, 0), real("Proximal: l2", l2, 0)

    def apply(self, optimizer: Optimizer) -> None:
        chosen = list(self.chosen(optimizer))
        launch.proximal_step.each([(p, group.lr) for p, group in chosen], [p for p, _ in chosen], strength=self.l1,
                                  shrink=self.l2)


class MaxNorm(_Hook):
    """After a step: every unit's incoming weights are scaled down to a Euclidean norm of at most `limit`.

    Parameters
    ----------
    limit : float
        Above 0.
    params : iterable of Tensor, optional
        Which parameters; by default those with two axes or more. The first axis counts units.

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014.
    """

    def __init__(self, limit: float, params: Iterable[Tensor] | None = None):
        super().__init__(params)
        self.limit = positive("MaxNorm: limit", limit)

    def apply(self, optimizer: Optimizer) -> None:
        for p, _ in self.chosen(optimizer):
            if p.ndim > 1 and p.numel():
                limit, axes = constant(self.limit, p.dtype), (1 << p.ndim) - 2
                norm = launch.sqrt(launch.sum(launch.square(p), axes=axes, keepdim=1, divisor=1.0))
                launch.mul(p, launch.div(limit, launch.maximum(norm, limit)), out=p)


class EMA(_Hook):
    """Exponential moving averages of parameters: after every step, average = decay average + (1 - decay) parameter.

    Parameters
    ----------
    params : iterable of Tensor
        What to average, such as ``model.parameters()``.
    decay : float
        At least 0 and below 1.
    warmup : bool
        Whether early steps count for more: the decay of step t, from 0, is then at most (1 + t) / (10 + t).

    Attributes
    ----------
    averages : list of Tensor
        In the order of `params`.

    Raises
    ------
    ValueError
        If `decay` is out of range.

    References
    ----------
    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control and Optimization 30,
    1992.

    Examples
    --------
    Part of every step of an optimiser, `fastnn.train.Trainer`'s too; kept by ``fastnn.io.save_checkpoint(..., others={"ema": ema})``:

    >>> import fastnn
    >>> model = fastnn.nn.Linear(2, 1)
    >>> optimizer, ema = fastnn.optim.SGD(model.parameters(), lr=0.1), EMA(model.parameters())
    >>> handle = optimizer.register_step_post_hook(ema)
    >>> with ema.averaged():
    ...     y = model(fastnn.ones(1, 2))
    """

    def __init__(self, params: Iterable[Tensor], decay: float = 0.999, warmup: bool = False):
        self.params = _listed("EMA", params)
        super().__init__(self.params)
        if real("EMA: decay", decay, 0) >= 1:
            raise ValueError(f"EMA: decay is {decay!r}, but must be at least 0 and below 1")
        self.decay, self.warmup = decay, bool(warmup)
        self.averages = [a_tensor("EMA", p, "one of params").detach().clone() for p in self.params]
        self._steps = _core.scalar(0.0, float64)

    def apply(self, optimizer: Any = None) -> None:
        launch.ema_update.each([(average, p.detach(), self._steps) for average, p in zip(self.averages, self.params)],
                               self.averages, limit=self.decay, ramp=self.warmup)
        launch.add(self._steps, constant(1.0, float64), out=self._steps)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """While it lasts the parameters hold the averages, to evaluate or save the model."""
        with no_grad():
            before = [a_tensor("EMA", p, "one of params").detach().clone() for p in self.params]
            for p, average in zip(self.params, self.averages):
                p.copy_(average)
        try:
            yield
        finally:
            with no_grad():
                for p, value in zip(self.params, before):
                    p.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The averages and the number of steps."""
        return {"averages": list(self.averages), "steps": self._steps.item()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave, into the averages' memory.

        Parameters
        ----------
        state_dict : dict
            From an average of parameters of the same shapes.

        Raises
        ------
        ValueError
            If its averages have other shapes, or it is of something else; nothing is changed then.
        """
        if not isinstance(state_dict, Mapping) or not state_dict.keys() >= {"averages", "steps"}:
            given = sorted(map(str, state_dict)) if isinstance(state_dict, Mapping) else f"a {type(state_dict).__name__}"
            raise ValueError(f"EMA.load_state_dict: state_dict has {given}, but must have averages and steps")
        shapes, own = [tuple(value.shape) for value in state_dict["averages"]], [average.shape for average in self.averages]
        if shapes != own:
            raise ValueError(f"EMA.load_state_dict: averages have the shapes {shapes}, but must have {own}")
        for average, value in zip(self.averages, state_dict["averages"]):
            average.copy_(value)
        self._steps.set_item(float(state_dict["steps"]))
