"""The training loop: `Trainer.fit`, `evaluate` and `predict`, with Keras's names and arguments."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import fastnn
from fastnn import nn, optim

from ..checks import real, whole
from ..data import ArrayDataset, DataLoader
from ..program import CapturedProgram
from ..random import kept_state
from .callbacks import Callback, TerminateOnNaN, end_all, hooks_of
from .captured import CapturedPass
from .history import History
from .inputs import conversion, features, own_transform, split, supervised, weighed_by_class, where_not_finite
from .interrupt import StepInterrupt
from .losses import check_labels, check_prediction, get_loss, metric_for, one_tensor, weighted, why_not_finite
from .metric import Metric
from .mode import mode
from .progress import format_logs, progress_for
from .running import RunningLogs
from .watch import GradientWatch

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda parameters: optim.SGD(parameters, lr=0.01),
    "adam": lambda parameters: optim.Adam(parameters, lr=0.001),
    "adamw": lambda parameters: optim.AdamW(parameters, lr=0.001),
    "adagrad": optim.Adagrad,
    "rmsprop": optim.RMSprop,
    "adadelta": optim.Adadelta,
    "adafactor": optim.Adafactor,
    "adamax": optim.Adamax,
    "asgd": optim.ASGD,
    "nadam": optim.NAdam,
    "radam": optim.RAdam,
    "lion": optim.Lion,
    "rprop": optim.Rprop,
}
_EVALUATION_BATCH = 256  # large enough that the cost of a call does not matter, small enough for the caches
_LEAST_BATCHES = 16  # fewer evaluated batches are over before recording and verifying a program has paid


class Trainer:
    """Trains, evaluates and applies a model.

    Parameters
    ----------
    model : fastnn.nn.Module
        The model; trained in place. Its predictions are what the loss takes: logits for most, classes along axis 1.
    loss : str or callable
        ``"cross_entropy"``, ``"bce_with_logits"``, ``"mse"``, or ``loss(prediction, target)`` returning a
        scalar tensor, the mean over the batch.
    optimizer : str or fastnn.optim.Optimizer
        ``"sgd"`` (rate 0.01), ``"adam"``, ``"adamw"`` (rate 0.001), or an optimiser built on the model's parameters.
    metrics : sequence of str or Metric
        What else to compute, see `fastnn.train.METRICS`. Sample weights enter the loss only. Metrics given by name take predictions for
        logits, or for probabilities where the loss is "bce", `nn.BCELoss` or `F.binary_cross_entropy`.
    capture : bool
        Whether to replay the steps in C (see `fastnn.capture`, also for what is frozen then): the same bits, faster. The first
        three batches are verified against eager steps; a model that cannot be captured is trained eagerly, after one warning
        that says why. False for a model or loss that reads what changes elsewhere in Python, such as a weight in a dict.
    watch_gradients : bool
        Whether to record how large each layer's gradients and updates are (`History.gradient_norms`,
        `History.update_norms`), and to warn of gradients that vanish (below a millionth of the largest layer's) or
        explode (above 1,000). Costs some passes over the parameters a step.

    Attributes
    ----------
    history : History
        Of the last call of `fit`; after Ctrl-C, of the epochs completed before.
    stop_training : bool
        Set by callbacks to end the run after the present step.
    samples_seen : int
        Samples trained on in the last epoch.

    Raises
    ------
    ValueError, TypeError
        If a loss, optimiser or metric is unknown, two metrics share a name, or the optimiser is another model's.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> from fastnn.train import Trainer
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    >>> y = (x[:, 0] > 0).astype(np.int64)
    >>> trainer = Trainer(fastnn.nn.Linear(4, 2), optimizer="adam", metrics=["accuracy"])
    >>> history = trainer.fit(x, y, batch_size=16, epochs=2, verbose=0)
    >>> sorted(history.history)
    ['accuracy', 'loss']
    """

    def __init__(self, model: Any, loss: str | Callable[..., Any] = "cross_entropy", optimizer: Any = "adam",
                 metrics: Sequence[str | Metric] = (), *, capture: bool = True, watch_gradients: bool = False) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"Trainer: model is {type(model).__name__}, expected a fastnn.nn.Module")
        if isinstance(metrics, (str, Metric)) or not isinstance(metrics or (), Iterable):
            raise TypeError(f"Trainer: metrics is {metrics!r}, expected a list such as ['accuracy']")
        self.model = model
        self.loss, self._loss_is_named = get_loss(loss), isinstance(loss, str)
        self.metrics = [metric_for(self.loss, metric) for metric in metrics or ()]
        names = ["loss", *(metric.name for metric in self.metrics)]
        if len(set(names)) < len(names):
            raise ValueError(f"Trainer: metrics have the names {names[1:]}, expected different ones, none 'loss'")
        self.optimizer = optimizer
        self.history = History()
        self.stop_training = False
        self.samples_seen = 0
        self._capture, self._watch_gradients = bool(capture), bool(watch_gradients)
        self._watch: GradientWatch | None = None
        self._one_step = CapturedProgram(self._step, verify=True) if capture else self._step
        self._validation: DataLoader | None = None
        self._validation_pass: CapturedPass | None = None
        self._interrupt = StepInterrupt()

    # -- the three verbs --

    def fit(self, x: Any, y: Any = None, batch_size: int | None = None, epochs: int = 1, verbose: int | str = "auto",
            callbacks: Sequence[Callback] | None = None, validation_split: float = 0.0, validation_data: Any = None,
            shuffle: bool = True, class_weight: Mapping[int, float] | str | None = None, sample_weight: Any = None,
            initial_epoch: int = 0) -> History:
        """Train the model.

        Everything is checked before the first step. The order of the samples comes from fastnn's generator:
        after `fastnn.manual_seed` the same call gives the same run, with any number of threads.

        Parameters
        ----------
        x : array_like, ArrayDataset or DataLoader
            Inputs (N, ...), or a data set of (x, y) or (x, y, weight). A DataLoader also sets batch size, shuffling
            and what is done to each batch. Where its `batch_transform` makes soft targets, metrics of classes judge by the likeliest.
        y : array_like, optional
            Targets: class indices (N,), one-hot or soft targets, or values; left out when `x` is a data set.
        batch_size : int, optional
            Samples a step, 32 by default.
        epochs : int
            Number of the last epoch; training runs from `initial_epoch` to it.
        verbose : {"auto", 0, 1, 2, "tqdm"}
            1 or ``"auto"``: a progress bar in a terminal, else a line an epoch; 2: a line an epoch; 0: nothing.
        callbacks : sequence of Callback, optional
            Called in this order.
        validation_split : float
            Share of the samples, taken from the end, to validate on instead of training on; without what a DataLoader does to
            each batch, which is for training (a data set's own transform is done).
        validation_data : tuple, ArrayDataset or DataLoader, optional
            (x, y) or (x, y, weight) to validate on, or a data set of these; a DataLoader's transform is done, too (not its
            `batch_transform`, which is for training). Excludes `validation_split`.
        shuffle : bool
            Whether every epoch has a new order.
        class_weight : mapping or "balanced", optional
            Weight of each class, 1 where absent; ``"balanced"``: all classes weigh the same in sum. For training, not validation.
        sample_weight : array_like, optional
            Weights (N,). A batch's loss is the sum of weight times loss divided by the number of samples.
        initial_epoch : int
            Epoch to begin with, when resuming.

        Returns
        -------
        History
            Loss and metrics of every epoch, those of the validation under ``val_`` names.

        Raises
        ------
        ValueError, TypeError
            If an argument is wrong; nothing was done then.
        KeyboardInterrupt
            After Ctrl-C, at the end of the step; the model is usable and `history` holds the completed epochs.
        """
        loader, validation = self._fit_data(x, y, batch_size, validation_split, validation_data, shuffle,
                                            class_weight, sample_weight)
        first, last = whole("initial_epoch", initial_epoch, 0), whole("epochs", epochs, 0)
        everyone = self._everyone([*_check_callbacks(callbacks), *progress_for(verbose)])
        self._prepare(loader)
        if validation is not None:
            self._check_validation(loader, validation)
        self._validation = validation
        self.history = History()
        self.history.params = {
            "epochs": last, **self._sizes(loader),
            "higher_is_better": [metric.name for metric in self.metrics if metric.higher_is_better]}
        self.stop_training = False
        self._told_of_nan = any(isinstance(callback, TerminateOnNaN) for callback in everyone)  # which says so itself
        with self._interrupts() as self._interrupt, mode(self.model, training=True), contextlib.ExitStack() as ending:
            begun: list[Callback] = []
            ending.callback(end_all, begun)
            for callback in everyone:
                callback.set_trainer(self)
                callback.on_train_begin({})
                callback.take_up()
                begun.append(callback)
            running = self._logs(self.metrics)
            captured = self._captured_pass(loader, everyone)
            self._validation_pass = validation and self._captured_evaluation(self._judge, validation, last - first)
            for epoch in range(first, last):
                self._epoch(epoch, loader, running, everyone, captured)
                if self.stop_training:
                    break
        return self.history

    def evaluate(self, x: Any, y: Any = None, batch_size: int | None = None, verbose: int | str = 0,
                 sample_weight: Any = None) -> dict[str, Any]:
        """Compute loss and metrics without training, in evaluation mode.

        Parameters
        ----------
        x, y
            As for `fit`; of a DataLoader the data and its transform, not its `batch_transform`, which is for training.
        batch_size : int, optional
            Samples at a time, 256 by default; it does not influence the result beyond rounding.
        verbose : {0, 1, 2, "auto", "tqdm"}
            Anything but 0 prints one line.
        sample_weight : array_like, optional
            As for `fit`.

        Returns
        -------
        dict of str to value
            ``"loss"`` and each metric.

        Raises
        ------
        ValueError
            If data are empty, differ in length or are not numbers.
        """
        data = supervised(x, y, sample_weight, self._dtype(), loss=self.loss)
        progress = progress_for(verbose)
        loader = DataLoader(data, _EVALUATION_BATCH if batch_size is None else batch_size, transform=own_transform(x))
        logs = self._evaluate(loader, self._captured_evaluation(self._judge, loader))
        if progress:
            print(format_logs(logs))
        return logs

    def predict(self, x: Any, batch_size: int | None = None, verbose: int | str = 0) -> np.ndarray:
        """Apply the model, in evaluation mode and without gradients.

        Parameters
        ----------
        x : array_like, ArrayDataset or DataLoader
            Inputs (N, ...), or a data set whose first array they are, in its own order; a DataLoader's transform is done, too.
        batch_size : int, optional
            Samples at a time, 256 by default.
        verbose : {0, 1, 2, "auto", "tqdm"}
            Taken for Keras's sake; there is nothing to print.

        Returns
        -------
        numpy.ndarray
            The model's output (N, ...), logits for a classifier, in memory of its own.

        Raises
        ------
        ValueError
            If `x` is empty or not numbers.
        TypeError
            If the model returns something else than one tensor.
        """
        transform, x = own_transform(x), x.dataset if isinstance(x, DataLoader) else x
        inputs = features("x", x.arrays[0] if isinstance(x, ArrayDataset) else x, self._dtype())
        size = _EVALUATION_BATCH if batch_size is None else whole("batch_size", batch_size, 1)
        loader = DataLoader(ArrayDataset(inputs, transform=conversion(x, inputs, self._dtype())), size, transform=transform)
        with fastnn.no_grad(), mode(self.model, training=False):
            captured = self._captured_evaluation(lambda x: (None, self.model(x)), loader, keep_predictions=True)
            if captured is not None:
                return np.ascontiguousarray(captured.predict().numpy())
            parts = (one_tensor("predict", self.model(x)).numpy() for x, in loader)
            first = next(parts)
            if len(inputs) <= size:
                return np.array(first)
            result = np.empty((len(inputs), *first.shape[1:]), first.dtype)
            result[:size] = first
            for start, part in zip(range(size, len(inputs), size), parts):
                result[start:start + size] = part
        return result

    def summary(self, input_shape: Sequence[int] | None = None) -> None:
        """Print the model's layers, output shapes and parameters.

        Parameters
        ----------
        input_shape : sequence of int, optional
            Shape of one batch, such as ``(1, 1, 28, 28)``; without it output shapes are left out.
        """
        from ..summary import summary

        print(summary(self.model, input_shape))

    # -- what callbacks use --

    @property
    def optimizer(self) -> optim.Optimizer:
        """The optimiser; one given by name is built when it is first asked for, so that the model may be completed before."""
        if isinstance(self._optimizer, str):
            self._optimizer = OPTIMIZERS[self._optimizer](self.model.parameters())
        return self._optimizer

    @optimizer.setter
    def optimizer(self, value: Any) -> None:
        self._optimizer = _check_optimizer(value, self.model)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the optimiser's first group; setting it sets all groups."""
        return float(self.optimizer.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        rate = real("learning_rate", value, 0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    @property
    def log_names(self) -> list[str]:
        """Names of all results that an epoch of the present run gives."""
        names = ["loss", *(metric.name for metric in self.metrics)]
        return names + [f"val_{name}" for name in names] if self._validation is not None else names

    def higher_is_better(self, name: str) -> bool:
        """Whether more of the result `name` (with or without ``val_``) is better."""
        metric = self._metric(name)
        return metric is not None and metric.higher_is_better

    def is_scalar(self, name: str) -> bool:
        """Whether the result `name` (with or without ``val_``) is one number."""
        metric = self._metric(name)
        return metric is None or metric.scalar

    def validate(self) -> dict[str, Any]:
        """Loss and metrics on the validation data of the present run, under ``val_`` names."""
        return {f"val_{name}": value for name, value in self._evaluate(self._validation, self._validation_pass).items()}

    # -- inside; what a world of several processes does otherwise comes first --

    is_first, _interrupts, _logs = True, StepInterrupt, RunningLogs  # first: the process that prints and writes

    def _everyone(self, callbacks: list[Callback]) -> list[Callback]:
        """Those that are called here."""
        return callbacks

    def _sizes(self, loader: DataLoader) -> dict[str, int]:
        """What the history tells about an epoch."""
        return {"batch_size": loader.batch_size, "steps": len(loader), "samples": loader.samples}

    def _metric(self, name: str) -> Metric | None:
        """The metric of that name; None for the loss."""
        name = name.removeprefix("val_")
        return next((metric for metric in self.metrics if metric.name == name), None)

    def _dtype(self) -> np.dtype:
        """The floating-point type of the model's parameters, float32 if it has none."""
        return next((np.dtype(p.dtype.name) for p in self.model.parameters() if p.is_floating_point()),
                    np.dtype(np.float32))

    def _fit_data(self, x: Any, y: Any, batch_size: int | None, validation_split: float, validation_data: Any,
                  shuffle: bool, class_weight: Any, sample_weight: Any) -> tuple[DataLoader, DataLoader | None]:
        """Loaders of the training and the validation data, from what `fit` was given."""
        dtype = self._dtype()
        options: dict[str, Any] = {"batch_size": 32 if batch_size is None else batch_size, "shuffle": shuffle}
        if isinstance(x, DataLoader):
            if batch_size is not None:
                raise ValueError("batch_size must be left out when x is a DataLoader, which has its own")
            if getattr(x, "global_batch_size", x.batch_size) > x.batch_size:
                raise ValueError("x is a DistributedDataLoader, of which DistributedTrainer averages the gradients, and Trainer does not")
            names = ("batch_size", "shuffle", "drop_last", "generator", "batch_transform")
            options = {"transform": own_transform(x), **{name: getattr(x, name) for name in names}}
        data, held_out = split(supervised(x, y, sample_weight, dtype, loss=self.loss), validation_split)
        if class_weight is not None:
            data = weighed_by_class(data, class_weight, dtype)
        transform = None
        if validation_data is not None:
            if held_out is not None:
                raise ValueError("validation_split and validation_data exclude each other")
            transform = own_transform(validation_data)
            if isinstance(validation_data, (ArrayDataset, DataLoader)):
                validation_data = (validation_data, None)
            if not isinstance(validation_data, (tuple, list)) or not 2 <= len(validation_data) <= 3:
                raise ValueError("validation_data must be (x, y), (x, y, sample_weight) or an ArrayDataset")
            held_out = supervised(*(*validation_data, None)[:3], dtype, loss=self.loss, prefix="validation ")
        loader = DataLoader(data, **options)
        if len(loader) == 0:
            raise ValueError(f"{len(data)} samples are less than one batch of {loader.batch_size} with drop_last")
        if held_out is None:
            return loader, None
        return loader, DataLoader(held_out, max(loader.batch_size, _EVALUATION_BATCH), transform=transform)

    def _prepare(self, loader: DataLoader) -> None:
        """Give lazy layers their shapes, look at the optimiser, choose the loss."""
        if any(module._is_lazy for module in self.model.modules()):
            with fastnn.no_grad(), mode(self.model, training=False):
                self.model(loader.first()[0])
        if not any(p.requires_grad for group in self.optimizer.param_groups for p in group["params"]):
            raise ValueError("Trainer: no parameter of the optimizer requires a gradient: all are frozen; unfreeze those to be "
                             "trained, by requires_grad_()")
        if self._watch_gradients:
            self._watch = self._watch or GradientWatch(self.model)  # the same one in every run: captured steps hold it
            self._watch.reset()
        self.optimizer.zero_grad()  # a step leaves no gradients behind; what others left must not enter the first one
        if len(loader.dataset.arrays) == 3:
            self._weighted_loss  # refuses a loss that cannot be weighted before any work

    def _check_validation(self, loader: DataLoader, validation: DataLoader) -> None:
        """Raises where the model or the loss cannot take the validation data, of which one batch is tried."""
        with kept_state(), fastnn.no_grad(), mode(self.model, training=False):
            x, *others = validation.first(loader.batch_size)
            try:
                prediction = self.model(x)
                check_labels("validation y", self.loss, validation.dataset.arrays[1], prediction)
                self._loss(prediction, *others)
            except (RuntimeError, TypeError, ValueError) as error:
                self._judge(*loader.first(loader.batch_size))  # what is wrong with the training data too is not told of these
                raise type(error)(f"validation_data: {error}") from error

    def _captured_pass(self, loader: DataLoader, callbacks: Sequence[Callback]) -> CapturedPass | None:
        """What replays whole passes, if nobody needs to come in between steps."""
        watchers = [callback for callback in callbacks if callback.every_step]
        if not self._capture or hooks_of(watchers, "on_train_batch_begin", "on_train_batch_end"):
            return None
        return self._pass_that_fits(self._step, loader, bool(self.metrics))

    def _captured_evaluation(self, step: Callable[..., tuple[Any, Any]], loader: DataLoader, passes: int = 1,
                             keep_predictions: bool | None = None) -> CapturedPass | None:
        """What replays passes that train nothing, if there are enough batches in them."""
        if not self._capture or len(loader) * passes < _LEAST_BATCHES:
            return None
        return self._pass_that_fits(step, loader, bool(self.metrics) if keep_predictions is None else keep_predictions)

    def _pass_that_fits(self, step: Callable[..., tuple[Any, Any]], loader: DataLoader,
                        keep_predictions: bool) -> CapturedPass | None:
        """A captured pass, if predictions need not be kept or can be."""
        captured = CapturedPass(step, loader, keep_predictions)
        if not keep_predictions:
            return captured
        with kept_state(), fastnn.no_grad(), mode(self.model, training=False):
            x, *others = loader.first()
            prediction = self.model(x)
        return captured if captured.fits(prediction, *others[:1]) else None

    def _epoch(self, epoch: int, loader: DataLoader, running: RunningLogs, callbacks: Sequence[Callback],
               captured: CapturedPass | None) -> None:
        """One pass over the data, its validation, its line in the history."""
        for callback in callbacks:
            callback.on_epoch_begin(epoch, {})
        running.reset()
        if captured is None:
            self._pass(loader, running, callbacks)
        else:
            self._replay_pass(captured, running, callbacks)
            if captured.obstacle is not None:
                self._validation_pass = None  # what cannot be captured in training would only be found out again
        self.samples_seen = running.samples
        logs = dict(running)
        if self._validation is not None:
            for callback in callbacks:
                callback.on_test_begin({})
            logs.update(self.validate())
            for callback in callbacks:
                callback.on_test_end(logs)
        if self._watch is not None:
            self._watch.end_epoch(self.history)
        self.history.append(epoch, logs)
        for name, judged in (("loss", loader), ("val_loss", self._validation)):
            if not self._told_of_nan and not math.isfinite(logs.get(name, 0.0)):
                self._tell_of_nan(epoch, name, logs[name], judged.dataset)
        for callback in callbacks:
            callback.on_epoch_end(epoch, logs)

    def _tell_of_nan(self, epoch: int, name: str, loss: float, data: ArrayDataset) -> None:
        """One warning a run, which names the likely cause."""
        self._told_of_nan = True
        cause = where_not_finite(data) or why_not_finite(self.loss)
        whose = "TerminateOnNaN stops such a run" if name == "loss" else "These are the validation data"
        warnings.warn(f"Trainer: the {name} of epoch {epoch + 1} is {loss}; {cause}. {whose}.", RuntimeWarning, stacklevel=4)

    def _pass(self, loader: DataLoader, running: RunningLogs, callbacks: Sequence[Callback]) -> None:
        """The steps of one epoch. Only hooks that somebody wrote are called."""
        begin, end = (hooks_of(callbacks, f"on_train_batch_{moment}") for moment in ("begin", "end"))
        step = self._one_step
        for number, batch in enumerate(loader):
            for hook in begin:
                hook(number, running)
            loss, prediction = step(*batch)
            running.add(loss.item(), self._to_judge(prediction), batch[1])
            for hook in end:
                hook(number, running)
            if self._interrupt.requested:
                self._interrupt.check()
            if self.stop_training:
                break

    def _replay_pass(self, captured: CapturedPass, running: RunningLogs, callbacks: Sequence[Callback]) -> None:
        """The steps of one epoch, many at a time."""
        end = hooks_of(callbacks, "on_train_batch_end")
        for done in captured.run(running):
            for hook in end:
                hook(done - 1, running)
            if self._interrupt.requested:
                self._interrupt.check()
            if self.stop_training:
                break

    def _step(self, x: Any, y: Any, weight: Any = None) -> tuple[Any, Any]:
        """Forward, loss, backward, update; returns loss and prediction. Reads no tensor: it is what gets captured."""
        results = self._differentiate(x, y, weight)
        self._update()
        return results

    def _differentiate(self, x: Any, y: Any, weight: Any = None) -> tuple[Any, Any]:
        """Forward, loss, backward."""
        loss, prediction = self._judge(x, y, weight)
        loss.backward()
        return loss, prediction

    def _update(self) -> None:
        """The optimiser's step."""
        before = None if self._watch is None else self._watch.before_update()
        self.optimizer.step()
        if before is not None:
            self._watch.after_update(before)
        self.optimizer.zero_grad()

    def _loss(self, prediction: Any, y: Any, weight: Any = None) -> Any:
        """The batch's loss, a scalar tensor."""
        if self._loss_is_named:
            check_prediction(self.loss, prediction)
        loss = self.loss(prediction, y) if weight is None else self._weighted_loss(prediction, y, weight)
        if not isinstance(loss, fastnn.Tensor) or loss.numel() != 1:
            given = f"shape {loss.shape}" if isinstance(loss, fastnn.Tensor) else f"a {type(loss).__name__}"
            raise TypeError(f"loss: {self.loss!r} returned {given}, expected a tensor of one number, the mean over the batch")
        return loss

    @functools.cached_property
    def _weighted_loss(self) -> Callable[[Any, Any, Any], Any]:
        """The loss under sample weights; raises TypeError if it cannot tell samples apart."""
        return weighted(self.loss)

    def _to_judge(self, prediction: Any) -> Any:
        """`prediction`, which must be a tensor if there are metrics."""
        return one_tensor("metrics", prediction) if self.metrics else prediction

    def _judge(self, x: Any, y: Any, weight: Any = None) -> tuple[Any, Any]:
        """Loss and prediction of a batch."""
        prediction = self.model(x)
        return self._loss(prediction, y, weight), prediction

    def _judge_all(self, loader: DataLoader, running: RunningLogs) -> Iterator[None]:
        """Judges batch after batch."""
        for batch in loader:
            loss, prediction = self._judge(*batch)
            running.add(loss.item(), self._to_judge(prediction), batch[1])
            yield

    def _evaluate(self, loader: DataLoader, captured: CapturedPass | None) -> dict[str, Any]:
        """Loss and metrics over a loader's data."""
        running = RunningLogs(copy.deepcopy(self.metrics))
        with fastnn.no_grad(), mode(self.model, training=False):
            for _ in self._judge_all(loader, running) if captured is None else captured.run(running):
                self._interrupt.check()
        return dict(running)


def _check_optimizer(optimizer: Any, model: Any) -> Any:
    """A known name, or an optimiser of the model's parameters."""
    if isinstance(optimizer, str):
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"Trainer: optimizer is {optimizer!r}, expected one of {', '.join(OPTIMIZERS)}, "
                             "or a fastnn.optim.Optimizer")
    elif not isinstance(optimizer, optim.Optimizer):
        raise TypeError(f"Trainer: optimizer is {optimizer!r}, expected a name or a fastnn.optim.Optimizer")
    elif isinstance(optimizer, (optim.LBFGS, optim.RandomSearch)):
        raise ValueError(f"Trainer: optimizer is {optimizer.name}, which asks for the loss several times a step, but must be one "
                         "that takes one gradient a step: call its step(closure) in a loop of your own")
    else:
        own = {id(p) for p in model.parameters()}
        if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
            raise ValueError("Trainer: optimizer holds none of the model's parameters; "
                             "build it on model.parameters() of this very model")
    return optimizer


def _check_callbacks(callbacks: Sequence[Callback] | None) -> list[Callback]:
    """The callbacks as a list."""
    if isinstance(callbacks, Callback) or not isinstance(callbacks or (), Iterable):
        raise TypeError(f"callbacks is {callbacks!r}, expected a list such as [EarlyStopping()]")
    for callback in callbacks or ():
        if not isinstance(callback, Callback):
            hint = ("LearningRateSchedule makes one of a schedule" if hasattr(callback, "get_last_lr")
                    else "optimizer.register_step_post_hook takes it" if isinstance(callback, optim.EMA)
                    else "a class was given instead of an instance?")
            raise TypeError(f"callbacks: {callback!r} is not a Callback ({hint})")
    return list(callbacks or ())
