"""L-BFGS: the quasi-Newton method of limited memory, driven from Python over closures, which may be captured
programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..checks import whole
from ..ops.create import tensor
from ..tensor import Tensor, enable_grad, no_grad
from .optimizer import Optimizer, check_state


class _Point(NamedTuple):
    """Along the line: distance, loss, gradient, and the loss's slope there."""

    t: float
    loss: float
    gradient: np.ndarray
    slope: float


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last `history_size` changes of parameters and gradients.

    d = -H g, with H the inverse Hessian that the changes s, y suggest, by the two-loop recursion from s'y / y'y times
    the unit matrix; p = p + t d with t from `line_search_fn`. A call of `step` takes up to `max_iter` such steps. Vectors are
    kept in float64.

    Parameters
    ----------
    params : iterable of Tensor
        What to optimise: one group.
    lr : float
        Length t of steps; with a line search, the first trial.
    max_iter : int
        Most steps in a call.
    max_eval : int, optional
        Most evaluations in a call; by default 5/4 of `max_iter`.
    tolerance_grad : float
        It ends when no element of the gradient is larger than this,
    tolerance_change : float
        or when a step changes loss or parameters by less.
    history_size : int
        At least 1.
    line_search_fn : str, optional
        "strong_wolfe", or None for steps of fixed length.

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range, or there are several groups.

    References
    ----------
    Nocedal and Wright, "Numerical optimization", 2nd edition, 2006, algorithms 7.4, 7.5, 3.5 and 3.6.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 1.0, max_iter: int = 20, max_eval: int | None = None,
                 tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
                 line_search_fn: str | None = None):
        max_eval = whole("LBFGS: max_iter", max_iter, 1) * 5 // 4 if max_eval is None else max_eval
        super().__init__(params, dict(lr=lr, max_iter=max_iter, max_eval=max_eval, tolerance_grad=tolerance_grad,
                                      tolerance_change=tolerance_change, history_size=history_size,
                                      line_search_fn=line_search_fn))
        if len(self.param_groups) > 1:
            raise ValueError(f"LBFGS: there are {len(self.param_groups)} parameter groups, but must be one")
        self._history: list[tuple[np.ndarray, np.ndarray]] = []  # s, y
        self._previous: tuple[np.ndarray, np.ndarray, float] | None = None  # the last step's gradient, direction, length
        self.evaluations = 0

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr", "tolerance_grad", "tolerance_change")
        for name in ("max_iter", "max_eval", "history_size"):
            whole(f"LBFGS: {name}", options[name], 1)
        search = options["line_search_fn"]
        self.require(search in (None, "strong_wolfe"), "line_search_fn", search, "None or 'strong_wolfe'")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes up to `max_iter` steps.

        Parameters
        ----------
        closure : callable
            Clears the gradients, computes the loss and its gradients, and returns the loss. It is called at every
            trial.

        Returns
        -------
        Tensor or float
            The loss before the first step.

        Raises
        ------
        TypeError
            If there is no closure.
        """
        if closure is None:
            raise TypeError("LBFGS: step needs a closure that computes the loss and its gradients")
        options, first = self.param_groups[0], self._evaluate(closure)
        loss, x, gradient, evaluations = float(first), self._values(), self._gradient(), 1
        if np.abs(gradient).max(initial=0.0) <= options["tolerance_grad"]:
            return first
        for k in range(options["max_iter"]):
            direction, t = self._direction(gradient)
            slope = float(gradient @ direction)
            if slope > -options["tolerance_change"]:
                break
            before, start = loss, _Point(0.0, loss, gradient, slope)

            def trial(t: float, x: np.ndarray = x, direction: np.ndarray = direction) -> _Point:
                self._write(x + t * direction)
                loss = float(self._evaluate(closure))
                gradient = self._gradient()
                return _Point(t, loss, gradient, float(gradient @ direction))

            if k == options["max_iter"] - 1 and not options["line_search_fn"]:  # nobody would see its loss: as in PyTorch
                self._previous = gradient, direction, t
                self._write(x + t * direction)
                break
            if options["line_search_fn"]:
                found, used = strong_wolfe(trial, start, t, options["tolerance_change"] / np.abs(direction).max())
                x = x + found.t * direction
                self._write(x)
            else:
                found, used = trial(t), 1
                x = self._left(x + t * direction)
            self._previous = gradient, direction, found.t
            loss, gradient, evaluations = found.loss, found.gradient, evaluations + used
            if (evaluations >= options["max_eval"] or np.abs(gradient).max() <= options["tolerance_grad"]
                    or np.abs(found.t * direction).max() <= options["tolerance_change"]
                    or abs(loss - before) < options["tolerance_change"] or not np.isfinite(loss)):
                break
        self.evaluations += evaluations
        return first

    def _direction(self, gradient: np.ndarray) -> tuple[np.ndarray, float]:
        """Where to go, and the first trial's length."""
        options = self.param_groups[0]
        if self._previous is None:
            return -gradient, min(1.0, 1.0 / float(np.abs(gradient).sum())) * options["lr"]
        old_gradient, old_direction, t = self._previous
        s, y = t * old_direction, gradient - old_gradient
        if y @ s > 1e-10:
            self._history = self._history[-(options["history_size"] - 1):] if options["history_size"] > 1 else []
            self._history.append((s, y))
        q, kept = -gradient, []
        for s, y in reversed(self._history):
            a = (s @ q) / (y @ s)
            q = q - a * y
            kept.append(a)
        if self._history:
            s, y = self._history[-1]
            q = q * ((y @ s) / (y @ y))
        for (s, y), a in zip(self._history, reversed(kept)):
            q = q + s * (a - (y @ q) / (y @ s))
        return q, options["lr"]

    # -- saving and loading --

    def state_dict(self) -> dict[str, Any]:
        """Hyper-parameters, and under "state" of the first parameter, by PyTorch's names, what steps are made from.

        Returns
        -------
        dict
            As `Optimizer.state_dict`; tensors are float64, of all n numbers of the parameters: "old_dirs" and "old_stps" (m, n),
            the m last changes of gradient and parameters, "prev_flat_grad" and "d" (n) of the last step, "t" its length;
            "func_evals" counts evaluations.
        """
        state = {"func_evals": np.array(float(self.evaluations))}
        if self._history:
            state["old_stps"], state["old_dirs"] = (np.stack(changes) for changes in zip(*self._history))
        if self._previous is not None:
            state["prev_flat_grad"], state["d"], t = self._previous
            state["t"] = np.array(t)
        kept = {0: {name: tensor(value) for name, value in state.items()}} if self.evaluations else {}
        return {**super().state_dict(), "state": kept}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave, PyTorch's as well.

        Parameters
        ----------
        state_dict : mapping
            Tensors may be NumPy arrays or PyTorch's.

        Raises
        ------
        ValueError
            If it is of other parameters than these.
        """
        check_state(state_dict)
        state = next(iter(state_dict["state"].values()), {})
        n = sum(p.numel() for p in self._parameters())
        history = [tuple(_vector(name, row, n) for name, row in zip(("old_stps", "old_dirs"), rows))
                   for rows in zip(_rows(state, "old_stps"), _rows(state, "old_dirs"), strict=True)]
        previous = None
        if state.get("prev_flat_grad") is not None:
            previous = *(_vector(name, state[name], n) for name in ("prev_flat_grad", "d")), float(state["t"])
        super().load_state_dict({**state_dict, "state": {}})
        self._history, self._previous, self.evaluations = history, previous, int(float(state.get("func_evals", 0)))

    # -- between tensors and one long vector --

    def _evaluate(self, closure: Callable[[], Any]) -> Any:
        with enable_grad():
            return closure()

    def _values(self) -> np.ndarray:
        return np.concatenate([np.asarray(p.detach().numpy(), np.float64).ravel() for p in self._parameters()])

    def _left(self, x: np.ndarray) -> np.ndarray:
        """`x`, to all its digits, if the closure has left the parameters so; else what it has made of them, such as by clamp_."""
        held, start = self._values(), 0
        for p in self._parameters():
            part = slice(start, start + p.numel())
            if not np.array_equal(held[part], x[part].astype(p.dtype.name)):
                return held
            start = part.stop
        return x

    def _gradient(self) -> np.ndarray:
        return np.concatenate([np.zeros(p.numel()) if p.grad is None else np.asarray(p.grad.numpy(), np.float64).ravel()
                               for p in self._parameters()])

    def _write(self, x: np.ndarray) -> None:
        start = 0
        with no_grad():
            for p in self._parameters():
                p.copy_(x[start:start + p.numel()].reshape(p.shape))
                start += p.numel()


def _rows(state: Mapping[str, Any], name: str) -> Any:
    """A list of vectors or a matrix; nothing where there is none."""
    rows = state.get(name)
    return () if rows is None else rows


def _vector(name: str, value: Any, n: int) -> np.ndarray:
    vector = np.asarray(value, np.float64).copy()
    if vector.shape != (n,):
        raise ValueError(f"load_state_dict: a vector of '{name}' is {vector.shape}, but LBFGS's parameters have {n} numbers")
    return vector


def strong_wolfe(trial: Callable[[float], _Point], start: _Point, t: float, least: float, c1: float = 1e-4,
                 c2: float = 0.9, most: int = 25) -> tuple[_Point, int]:
    """A point along a line that meets the strong Wolfe conditions: the loss falls enough and its slope has flattened
    enough.

    Parameters
    ----------
    trial : callable
        ``trial(t)`` evaluates a distance.
    start : _Point
        The point at distance 0; its slope is negative.
    t : float
        First distance to try.
    least : float
        A bracket shorter than this is not divided any more.
    c1, c2 : float
        The loss must fall by c1 t times the first slope; |slope| must become c2 times the first one.
    most : int
        Most evaluations.

    Returns
    -------
    _Point
        The point found, or the best one tried.
    int
        Number of evaluations.

    References
    ----------
    Nocedal and Wright, "Numerical optimization", 2nd edition, 2006, algorithms 3.5 and 3.6.
    """
    def rises(point: _Point, low: _Point) -> bool:
        return not point.loss <= start.loss + c1 * point.t * start.slope or point.loss >= low.loss and low.t > 0

    low, high, used = start, None, 0
    while used < most:  # widen until a bracket [low, high] is sure to hold such a point
        point, used = trial(t), used + 1
        if rises(point, low):
            high = point
            break
        if abs(point.slope) <= -c2 * start.slope:
            return point, used
        if point.slope >= 0:
            low, high = point, low
            break
        low, t = point, _minimum_of_cubic(low, point, point.t + 0.01 * (point.t - low.t), 10 * point.t)
    while high is not None and used < most and abs(high.t - low.t) >= least:
        left, right = sorted((low.t, high.t))
        margin = 0.1 * (right - left)
        point, used = trial(_minimum_of_cubic(low, high, left + margin, right - margin)), used + 1
        if not point.loss <= start.loss + c1 * point.t * start.slope or point.loss >= low.loss:
            high = point
            continue
        if abs(point.slope) <= -c2 * start.slope:
            return point, used
        if point.slope * (high.t - low.t) >= 0:
            high = low
        low = point
    return low, used


def _minimum_of_cubic(a: _Point, b: _Point, low: float, high: float) -> float:
    """Where the cubic through two points with their slopes is least, kept between bounds; their middle if it has no
    minimum."""
    with np.errstate(all="ignore"):
        d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / np.float64(a.t - b.t)
        d2 = np.sign(b.t - a.t) * np.sqrt(d1 * d1 - a.slope * b.slope)
        t = b.t - (b.t - a.t) * (b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2)
    return float(np.clip(t, low, high)) if np.isfinite(t) else (low + high) / 2
