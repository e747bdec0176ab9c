"""Multi-layer perceptrons trained as scikit-learn trains its own: the network, its objective, and its epochs as captured programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import fastnn
import fastnn.functional as F
from fastnn import optim

from .._core import launch
from ..nn import Parameter
from ..ops.create import as_tensor, float64
from ..ops.operands import constant
from ..program import CapturedProgram

_EVALUATED = 4096  # rows at a time: activations of so many stay in the caches


class Perceptron:
    """Fully connected layers with one activation between them, and what they are to make small.

    The objective of a batch is sum_i w_i l(z_i, y_i) / W + alpha / 2 sum of squared weights / W, with W the sum of the sample
    weights w: the rows of the batch where none are given.

    Parameters
    ----------
    coefs : sequence of numpy.ndarray
        Weights (fan_in, fan_out) of each layer, float32 or float64; they are copied.
    intercepts : sequence of numpy.ndarray
        Biases (fan_out,) of each layer; they are copied.
    activation : str
        One of `fastnn.functional.ACTIVATIONS`, between layers.
    loss : str
        A key of `LOSSES`.
    alpha : float
        Strength of the penalty on squared weights.
    dropout : float
        Probability of dropping a hidden activation, in training.
    seed : int, optional
        Of the dropped activations.
    """

    def __init__(self, coefs: Sequence[np.ndarray], intercepts: Sequence[np.ndarray], activation: str, loss: str, alpha: float,
                 dropout: float = 0.0, seed: int | None = None) -> None:
        self.weights = [Parameter(np.array(coef.T, order="C")) for coef in coefs]
        self.biases = [Parameter(np.array(intercept)) for intercept in intercepts]
        self.settings = activation, loss, alpha, dropout
        self.activation, self.alpha, self.dropout = F.activation(activation), alpha, dropout
        self.loss, (self._data_loss, self._output) = loss, LOSSES[loss]
        self._generator = fastnn.Generator(seed) if dropout else None

    @property
    def parameters(self) -> list[Any]:
        """All weights, then all biases."""
        return self.weights + self.biases

    @property
    def coefs(self) -> list[np.ndarray]:
        """The weights as (fan_in, fan_out), on the parameters' memory."""
        return [weight.detach().numpy().T for weight in self.weights]

    @property
    def intercepts(self) -> list[np.ndarray]:
        """The biases as (fan_out,), on the parameters' memory."""
        return [bias.detach().numpy() for bias in self.biases]

    def _scores(self, x: Any, is_training: bool) -> Any:
        """The last layer's sums (N, outputs)."""
        last = len(self.weights) - 1
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = F.linear(x, weight, bias)
            if k < last:
                x = self.activation(x)
                if is_training and self.dropout:
                    x = F.dropout(x, self.dropout, generator=self._generator)
        return x

    def objective(self, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
        """What a batch is to make small.

        Parameters
        ----------
        x : Tensor
            (N, features).
        y : Tensor
            Labels (N,), or (N, outputs) of x's type.
        sample_weight : Tensor or None
            (N,).

        Returns
        -------
        objective : Tensor
            0-d, on the tape.
        reported : Tensor
            0-d: the same, but squared errors are averaged over the outputs, as scikit-learn reports them.
        """
        z = self._scores(x, True)
        divisor = _divisor(x, sample_weight)
        data = self._data_loss(z, y, sample_weight) / divisor
        penalty = sum((F.sum(F.square(weight)) for weight in self.weights), start=constant(0.0, z.dtype)) * (0.5 * self.alpha) / divisor
        shown = data.detach() / z.shape[1] if self.loss == "squared_error" else data.detach()
        return data + penalty, shown + penalty.detach()

    def evaluate(self, x: Any, y: np.ndarray | None = None, sample_weight: np.ndarray | None = None) -> tuple[np.ndarray, float | None]:
        """What the last layer gives, nothing dropped: probabilities, or means; and their mean loss, without the penalty.

        Parameters
        ----------
        x : numpy.ndarray or scipy.sparse matrix
            (N, features); sparse rows are made dense some thousands at a time.
        y, sample_weight : numpy.ndarray, optional
            As `objective` takes them, of any floating-point type.

        Returns
        -------
        outputs : numpy.ndarray
            (N, outputs).
        loss : float or None
            None without `y`.
        """
        dtype = self.weights[0].dtype.name
        outputs = np.empty((x.shape[0], self.biases[-1].shape[0]), dtype)
        total = 0.0
        with fastnn.no_grad():
            for start in range(0, x.shape[0], _EVALUATED):
                rows = slice(start, start + _EVALUATED)
                part = x[rows] if isinstance(x, np.ndarray) else x[rows].toarray()
                z = self._scores(fastnn.from_numpy(np.ascontiguousarray(part, dtype)), False)
                if y is not None:
                    total += self._data_loss(z, *(_rows(a, rows, dtype) for a in (y, sample_weight))).item()
                outputs[rows] = self._output(z).numpy()
        if y is None:
            return outputs, None
        total /= outputs.shape[1] if self.loss == "squared_error" else 1
        return outputs, total / (len(outputs) if sample_weight is None else float(sample_weight.sum(dtype=np.float64)))


def _rows(array: np.ndarray | None, rows: slice, dtype: str) -> Any:
    """Rows of targets or weights as a tensor; labels stay integers."""
    if array is None:
        return None
    return fastnn.from_numpy(np.ascontiguousarray(array[rows], None if array.dtype.kind == "i" else dtype))


def _divisor(x: Any, sample_weight: Any) -> Any:
    """What a batch's sums are divided by; where all its weights are 0, it teaches nothing."""
    if sample_weight is None:
        return constant(float(x.shape[0]), x.dtype)
    total = F.sum(sample_weight)
    return F.where(total == 0, constant(np.inf, x.dtype), total)


def _columns(sample_weight: Any) -> Any:
    return None if sample_weight is None else sample_weight.reshape(-1, 1)


def _softmax_loss(z: Any, y: Any, sample_weight: Any) -> Any:
    losses = F.cross_entropy(z, y, reduction="sum" if sample_weight is None else "none")
    return losses if sample_weight is None else F.sum(losses * sample_weight)


def _logistic_loss(z: Any, y: Any, sample_weight: Any) -> Any:
    return F.binary_cross_entropy_with_logits(z, y, _columns(sample_weight), reduction="sum")


def _squared_loss(z: Any, y: Any, sample_weight: Any) -> Any:
    return F.mse_loss(z, y, "sum", _columns(sample_weight)) * 0.5


def _absolute_loss(z: Any, y: Any, sample_weight: Any) -> Any:
    return F.l1_loss(z, y, "sum", _columns(sample_weight))


def _huber_loss(z: Any, y: Any, sample_weight: Any) -> Any:
    return F.huber_loss(z, y, "sum", weight=_columns(sample_weight))


def _poisson_loss(z: Any, y: Any, sample_weight: Any) -> Any:
    """Half the deviance of counts y from the means exp(z)."""
    losses = F.exp(z) - y * z + (F.xlogy(y, y) - y)
    return F.sum(losses if sample_weight is None else losses * _columns(sample_weight))


def _identity(z: Any) -> Any:
    return z


def _softmax(z: Any) -> Any:
    return F.softmax(z, 1)


LOSSES = {"softmax": (_softmax_loss, _softmax), "logistic": (_logistic_loss, F.sigmoid), "squared_error": (_squared_loss, _identity),
          "absolute_error": (_absolute_loss, _identity), "huber": (_huber_loss, _identity), "poisson": (_poisson_loss, F.exp)}


class Descent:
    """Epochs of gradient descent on a perceptron, as captured programs.

    Parameters
    ----------
    perceptron : Perceptron
        What is trained, in place.
    optimizer : fastnn.optim.Optimizer
        Of its parameters.
    """

    def __init__(self, perceptron: Perceptron, optimizer: optim.Optimizer) -> None:
        self.perceptron, self.optimizer = perceptron, optimizer
        self._batches = CapturedProgram(self._step)
        self._total = fastnn.zeros((), dtype=float64)

    def set_rate(self, lr: float) -> None:
        """Sets the learning rate; velocities, which hold the rate they came from in scikit-learn's form, stay what they are."""
        group = self.optimizer.param_groups[0]
        factor = group["lr"] / lr
        group["lr"] = lr
        for state in self.optimizer.state.values():
            momentum = state.get("momentum_buffer")
            if momentum is not None:
                launch.mul(momentum, constant(factor, momentum.dtype), out=momentum)

    def _step(self, x: Any, y: Any, sample_weight: Any) -> None:
        objective, reported = self.perceptron.objective(x, y, sample_weight)
        self.optimizer.zero_grad()
        objective.backward()
        self.optimizer.step()
        rows = constant(float(x.shape[0]), float64)
        launch.add(self._total, launch.mul(launch.copy(reported, dtype=float64.code), rows), out=self._total)

    def epoch_of_batches(self, batches: Any) -> float:
        """One epoch of batches as they come.

        Parameters
        ----------
        batches : iterable of tuple
            (x, y, sample_weight), arrays or None, as `Perceptron.objective` takes them.

        Returns
        -------
        float
            The mean of the reported objectives, over rows.
        """
        self._total.zero_()
        rows = 0
        for x, y, sample_weight in batches:
            self._batches(*(None if part is None else as_tensor(part) for part in (x, y, sample_weight)))
            rows += x.shape[0]
        return self._total.item() / max(rows, 1)

    def epochs_of(self, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None, batch_size: int) -> "Rows":
        """Epochs of dense rows, gathered in C."""
        return Rows(self, [None if part is None else fastnn.from_numpy(np.ascontiguousarray(part)) for part in (x, y, sample_weight)],
                    batch_size)


class Rows:
    """Epochs of a `Descent` over dense arrays: batches are gathered by launches of the program, many steps for each time that
    Python is entered."""

    def __init__(self, descent: Descent, arrays: list[Any], batch_size: int) -> None:
        self._descent, self._arrays, self._batch_size = descent, arrays, batch_size
        self._program = CapturedProgram(self._on_rows)

    def _on_rows(self, rows: Any) -> None:
        self._descent._step(*(None if part is None else launch.index_select(part, rows, axis=0) for part in self._arrays))

    def epoch(self, order: np.ndarray) -> Iterator[float]:
        """One epoch of the rows `order`; yields, some twenty times a second, the mean of the reported objectives so far."""
        self._descent._total.zero_()
        for done in self._program.run_many(as_tensor(order.astype(np.int64, copy=False)), self._batch_size):
            yield self._descent._total.item() / done


class Whole:
    """A perceptron's objective and gradient over all rows, as functions of one vector of all parameters.

    Parameters
    ----------
    perceptron : Perceptron
        Its parameters, float64, are set by each call.
    x, y, sample_weight : numpy.ndarray
        As `Perceptron.objective` takes them; `sample_weight` may be None.
    """

    def __init__(self, perceptron: Perceptron, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None) -> None:
        self._perceptron = perceptron
        self._data = [None if part is None else fastnn.from_numpy(np.ascontiguousarray(part)) for part in (x, y, sample_weight)]
        self._program = CapturedProgram(self._step)

    def _step(self) -> tuple[Any, Any]:
        objective, reported = self._perceptron.objective(*self._data)
        for p in self._perceptron.parameters:
            p.grad = None
        objective.backward()
        return objective.detach(), reported

    def vector(self) -> np.ndarray:
        """All parameters."""
        return np.concatenate([p.detach().numpy().ravel() for p in self._perceptron.parameters])

    def set_vector(self, vector: np.ndarray) -> None:
        """Sets all parameters."""
        start = 0
        with fastnn.no_grad():
            for p in self._perceptron.parameters:
                p.copy_(fastnn.from_numpy(vector[start:start + p.numel()].reshape(p.shape)))
                start += p.numel()

    def __call__(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """The objective at `vector` and its gradient there; `reported` is then what `Perceptron.objective` reports."""
        self.set_vector(vector)
        objective, reported = self._program()
        self.reported = reported.item()
        return objective.item(), np.concatenate([p.grad.numpy().ravel() for p in self._perceptron.parameters])
