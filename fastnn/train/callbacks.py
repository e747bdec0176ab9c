"""Callbacks: what happens between steps and epochs of `Trainer.fit`. Names and meanings are Keras's."""

from __future__ import annotations

import contextlib
import csv
import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..checks import real, takes, whole
from ..io.extras import require
from ..nn.state import copied_state

Logs = Mapping[str, Any]


class Callback:
    """Base class: override the hooks you need.

    The names and arguments of the hooks are Keras's; where there is nothing to log, `logs` is empty. Every hook may read and change
    `trainer`; setting ``trainer.stop_training = True`` ends the run after
    the current step. The hooks of a batch cost nothing unless a subclass overrides them; the `logs` they
    get are computed when read.

    Attributes
    ----------
    trainer : Trainer
        The trainer, set before `on_train_begin`.
    every_step : bool
        Whether the hooks of a batch must be called at every step. False lets steps be replayed together:
        `on_train_batch_end` is then called some twenty times a second, `on_train_batch_begin` not at all.
    on_first_rank : bool
        Whether, of several processes (`DistributedTrainer`), only rank 0 calls it: one that prints or writes a file. What changes
        the run must be called by all.
    state : tuple of str
        Names of the attributes that a run needs to be taken up (see `fastnn.io.save_checkpoint`): numbers, text, None, tensors,
        and lists and dicts of these.
    """

    trainer: Any = None
    every_step = True
    on_first_rank = False
    state: tuple[str, ...] = ()
    _loaded: Mapping[str, Any] = {}

    @property
    def model(self) -> Any:
        """The trainer's model."""
        return self.trainer.model

    def set_trainer(self, trainer: Any) -> None:
        """Bind the callback to `trainer`; called once, before the run begins."""
        self.trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        """What the attributes named in `state` are."""
        return {**{name: getattr(self, name) for name in self.state if hasattr(self, name)}, **self._loaded}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave, when the next run begins: after `on_train_begin`.

        Parameters
        ----------
        state_dict : mapping
            Of a callback of the same kind.

        Raises
        ------
        ValueError
            If it has other names than `state`.
        """
        unknown = sorted(set(state_dict) - set(self.state))
        if unknown:
            raise ValueError(f"{type(self).__name__}: state_dict has {', '.join(map(repr, unknown))}, expected names among "
                             f"{', '.join(self.state)}")
        self._loaded = dict(state_dict)

    def take_up(self) -> None:
        """Sets what was loaded; called once, after `on_train_begin`."""
        for name, value in self._loaded.items():
            setattr(self, name, value)
        self._loaded = {}

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch; the place to refuse what cannot work."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch, also when the run was interrupted or failed."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before epoch number `epoch` (from 0)."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After an epoch and its validation; `logs` holds what History gets."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before step number `batch` (from 0) of an epoch."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a step; `logs` holds the running means of the epoch so far."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before the validation of an epoch."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After the validation of an epoch; `logs` holds what History gets."""


def end_all(callbacks: Sequence[Callback]) -> None:
    """Calls `on_train_end` of each, in their order; where one fails, of the others too.

    Parameters
    ----------
    callbacks : sequence of Callback
        Those whose run has begun.
    """
    with contextlib.ExitStack() as stack:
        for callback in reversed(callbacks):  # a stack calls first what came last
            stack.callback(callback.on_train_end, {})


def hooks_of(callbacks: Sequence[Callback], *names: str) -> list[Callable[..., None]]:
    """The callbacks' methods of these names, without those that are the base class's empty ones.

    Parameters
    ----------
    callbacks : sequence of Callback
        Whose they are.
    *names : str
        Of hooks.

    Returns
    -------
    list of callable
    """
    hooks = ((getattr(callback, name), getattr(Callback, name)) for name in names for callback in callbacks)
    return [hook for hook, empty in hooks if getattr(hook, "__func__", None) is not empty]


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class LambdaCallback(Callback):
    """A callback made of plain functions.

    Parameters
    ----------
    **hooks : callable
        Functions under the names of `Callback`'s hooks, with the same arguments, such as
        ``on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"])``.

    Raises
    ------
    ValueError
        If a name is not a hook.
    TypeError
        If something is no function of these arguments.
    """

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        unknown = sorted(set(hooks) - set(HOOKS))
        if unknown:
            raise ValueError(f"LambdaCallback: unknown {', '.join(unknown)}, expected names among {', '.join(HOOKS)}")
        for name, function in hooks.items():
            if function is None:
                raise TypeError(f"LambdaCallback: {name} is None, expected a function")
            arguments = [p for p in inspect.signature(getattr(Callback, name)).parameters if p != "self"]
            setattr(self, name, takes(f"LambdaCallback: {name}", function, *arguments))


def check_monitor(name: str, monitor: str, trainer: Any) -> None:
    """Raises where a run gives no such number.

    Parameters
    ----------
    name : str
        The callback's, in messages.
    monitor : str
        Key of the logs.
    trainer : Trainer
        Whose run begins.

    Raises
    ------
    ValueError
        If `monitor` is not computed, or not one number.
    """
    known = [key for key in trainer.log_names if trainer.is_scalar(key)]
    if monitor not in known:
        hint = "; val_ names need validation_data" if monitor.startswith("val_") else ""
        raise ValueError(f"{name}: monitor is {monitor!r}, expected one of {', '.join(known)}{hint}")


class _Monitor(Callback):
    """Watches one figure and knows when it improved.

    Parameters
    ----------
    monitor : str
        Key of the logs.
    mode : {"auto", "min", "max"}
        Which way is better; ``"auto"`` asks the metric, and is ``"min"`` for losses.
    min_delta : float
        Smallest change that counts, at least 0.
    """

    state = ("best",)

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        title = type(self).__name__
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{title}: mode is {mode!r}, expected 'auto', 'min' or 'max'")
        self.monitor, self.mode, self.min_delta = monitor, mode, real(f"{title}: min_delta", min_delta, 0)
        self.best = math.nan

    def on_train_begin(self, logs: Logs | None = None) -> None:
        check_monitor(type(self).__name__, self.monitor, self.trainer)
        higher = self.trainer.higher_is_better(self.monitor) if self.mode == "auto" else self.mode == "max"
        self._sign = 1 if higher else -1
        self.best = -self._sign * math.inf

    def _improved(self, value: float) -> bool:
        """Whether `value` beats the best so far, which it then becomes; NaN never does."""
        if self._sign * (value - self.best) > self.min_delta:
            self.best = value
            return True
        return False


class EarlyStopping(_Monitor):
    """Stop when a figure has not improved for a while.

    With `every` = n, `patience` = p and `restore_best_weights` this is Goodfellow, Bengio and Courville's algorithm 7.1:
    it leaves the model with the parameters of the best check (those it began with, if none was better than infinity),
    and `best_step` is the number of steps that led there.

    Parameters
    ----------
    monitor : str
        Key of the logs to watch.
    patience : int
        Number of checks without improvement after which training stops; 0 acts like 1.
    min_delta : float
        Smallest change that counts as improvement.
    mode : {"auto", "min", "max"}
        Which way is better; ``"auto"`` asks the metric.
    restore_best_weights : bool
        Whether the model gets back, at the end of training, the weights of its best check.
    every : int, optional
        Check after every so many steps instead of after every epoch; a ``val_`` figure is then
        computed on the validation data for each check.

    Attributes
    ----------
    best : float
        Best value seen.
    best_epoch : int
        Epoch of that value.
    best_step : int or None
        With `every`, the number of steps taken when that value was seen; 0 if there was none.
    stopped_epoch : int or None
        Epoch in which it stopped the run; None if it did not.

    Raises
    ------
    ValueError
        If a parameter is out of range, or, when training begins, if `monitor` is not computed.

    References
    ----------
    L. Prechelt: Early stopping - but when? In: Neural Networks: Tricks of the Trade,
    LNCS 1524 (1998), 55-69.
    I. Goodfellow, Y. Bengio, A. Courville: Deep learning. MIT Press, 2016, algorithm 7.1.
    """

    state = ("best", "best_epoch", "best_step", "_steps", "_waited", "_weights")

    def __init__(self, monitor: str = "val_loss", patience: int = 0, min_delta: float = 0.0, mode: str = "auto",
                 restore_best_weights: bool = False, *, every: int | None = None) -> None:
        super().__init__(monitor, mode, min_delta)
        whole("EarlyStopping: patience", patience, 0)
        if every is not None:
            whole("EarlyStopping: every", every, 1)
            self.on_train_batch_end = self._after_step
        self.patience, self.every, self.restore_best_weights = patience, every, restore_best_weights

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self.best_epoch, self.stopped_epoch = 0, None
        self._epoch = self._steps = self._waited = 0
        self.best_step = None if self.every is None else 0
        self._weights = self._copied_weights()

    def take_up(self) -> None:
        begun_with = self._weights
        super().take_up()
        if self._weights is None:  # saved after a run, which gave the best weights to the model
            self._weights = begun_with

    def _copied_weights(self) -> dict[str, Any] | None:
        """The model's present weights, if they may have to be restored."""
        return copied_state(self.model) if self.restore_best_weights else None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.every is None:
            self._check(logs)

    def _after_step(self, batch: int, logs: Logs) -> None:
        """Hook `on_train_batch_end` under `every`."""
        self._steps += 1
        if self._steps % self.every == 0:
            self._check(self.trainer.validate() if self.monitor.startswith("val_") else logs)

    def _check(self, logs: Logs) -> None:
        """Compare with the best; remember or stop."""
        if self._improved(logs[self.monitor]):
            self._waited, self.best_epoch = 0, self._epoch
            self.best_step = None if self.every is None else self._steps
            self._weights = self._copied_weights()
            return
        self._waited += 1
        if self._waited >= max(self.patience, 1):
            self.stopped_epoch = self._epoch
            self.trainer.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._weights is not None:
            self.model.load_state_dict(self._weights)
            self._weights = None


class ModelCheckpoint(_Monitor):
    """Save the model's weights after epochs.

    Parameters
    ----------
    filepath : str or path-like
        Where to; may hold ``{epoch}`` (counted from 1) and keys of the logs with formats, such as
        ``"runs/{epoch:03d}-{val_loss:.3f}.safetensors"``. Without them one file is replaced each time. Its folder is made.
    monitor : str
        Figure to watch under `save_best_only`.
    save_best_only : bool
        Whether to save only when `monitor` improved, on earlier runs with this callback, too.
    mode : {"auto", "min", "max"}
        Which way is better.

    Raises
    ------
    ImportError
        At once, if the extra ``files`` is not installed.
    ValueError
        When training begins, if `monitor` or a key in `filepath` is not computed.
    OSError
        If a file cannot be written.
    """

    on_first_rank = True

    def __init__(self, filepath: str | os.PathLike, monitor: str = "val_loss", save_best_only: bool = False,
                 mode: str = "auto") -> None:
        super().__init__(monitor, mode, 0.0)
        require("safetensors", extra="files", feature="ModelCheckpoint")
        self.filepath, self.save_best_only = os.fspath(filepath), save_best_only

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if self.save_best_only:
            before = self.best
            super().on_train_begin(logs)
            if not math.isnan(before):  # the file of an earlier run is replaced by a better one only
                self.best = before
        try:
            self.filepath.format(epoch=1, **dict.fromkeys(self.trainer.log_names, 0.0))
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"ModelCheckpoint: filepath is {self.filepath!r}, expected only fields among epoch, "
                             f"{', '.join(self.trainer.log_names)} ({error!r})") from error
        folder = os.path.dirname(self.filepath)
        if "{" not in folder:  # what cannot be written is better known before the first epoch
            os.makedirs(folder or ".", exist_ok=True)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if not self.save_best_only or self._improved(logs[self.monitor]):
            from ..io.weights import save_model

            path = self.filepath.format(epoch=epoch + 1, **logs)
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            save_model(self.model, path)


class LearningRateScheduler(Callback):
    """Set the learning rate at the beginning of every epoch.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, lr)`` with the epoch from 0 and the present rate; returns the new rate.

    Raises
    ------
    TypeError
        If `schedule` is no function of these.
    """

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        if schedule is None:
            raise TypeError("LearningRateScheduler: schedule is None, expected a function of epoch and rate")
        self.schedule = takes("LearningRateScheduler: schedule", schedule, "epoch", "lr")

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.trainer.learning_rate = self.schedule(epoch, self.trainer.learning_rate)


class ReduceLROnPlateau(_Monitor):
    """Multiply the learning rate, of each parameter group its own, by `factor` when a figure stops improving.

    Parameters
    ----------
    monitor : str
        Key of the logs to watch.
    factor : float
        Between 0 and 1.
    patience : int
        Number of epochs without improvement before a reduction.
    mode : {"auto", "min", "max"}
        Which way is better.
    min_delta : float
        Smallest change that counts as improvement.
    cooldown : int
        Epochs after a reduction in which none are counted.
    min_lr : float
        A rate is not brought below this; one that is lower stays as it is.

    Raises
    ------
    ValueError
        If a parameter is out of range, or, when training begins, if `monitor` is not computed.
    """

    state = ("best", "_waited", "_cooling")

    def __init__(self, monitor: str = "val_loss", factor: float = 0.1, patience: int = 10, mode: str = "auto",
                 min_delta: float = 1e-4, cooldown: int = 0, min_lr: float = 0.0) -> None:
        super().__init__(monitor, mode, min_delta)
        if not 0 < real("ReduceLROnPlateau: factor", factor, 0, 1) < 1:
            raise ValueError(f"ReduceLROnPlateau: factor is {factor}, expected between 0 and 1")
        real("ReduceLROnPlateau: min_lr", min_lr, 0)
        whole("ReduceLROnPlateau: patience", patience, 0)
        whole("ReduceLROnPlateau: cooldown", cooldown, 0)
        self.factor, self.patience, self.cooldown, self.min_lr = factor, patience, cooldown, min_lr

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self._waited = self._cooling = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self._cooling:
            self._cooling -= 1
            self._waited = 0
        if self._improved(logs[self.monitor]):
            self._waited = 0
        elif not self._cooling:
            self._waited += 1
            if self._waited >= max(self.patience, 1):
                for group in self.trainer.optimizer.param_groups:
                    if group["lr"] > self.min_lr:
                        group["lr"] = max(float(group["lr"]) * self.factor, self.min_lr)
                self._cooling, self._waited = self.cooldown, 0


class CSVLogger(Callback):
    """Append one line an epoch to a CSV file, so that a run can be followed while it trains.

    Epochs are counted from 1, as on the screen.

    Parameters
    ----------
    filename : str or path-like
        The file; an existing one is replaced unless `append`.
    separator : str
        Between the columns, one character.
    append : bool
        Whether to go on with an existing file (its header is not repeated).

    Raises
    ------
    ValueError
        If `separator` is another; when training begins, if a file to go on with has other columns.
    OSError
        When training begins, if the file cannot be opened.
    """

    on_first_rank = True

    def __init__(self, filename: str | os.PathLike, separator: str = ",", append: bool = False) -> None:
        if not isinstance(separator, str) or len(separator) != 1 or separator in "\r\n\"":
            raise ValueError(f"CSVLogger: separator is {separator!r}, expected one character")
        self.filename, self.separator, self.append = os.fspath(filename), separator, append
        self._stream = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._keys = [name for name in self.trainer.log_names if self.trainer.is_scalar(name)]
        columns = ["epoch", *self._keys]
        self._stream = open(self.filename, "a+" if self.append else "w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._stream, delimiter=self.separator, lineterminator="\n")
        if self._stream.tell() == 0:
            self._writer.writerow(columns)
            return
        self._stream.seek(0)
        found = next(csv.reader(self._stream, delimiter=self.separator), [])
        if found != columns:
            self._stream.close()
            raise ValueError(f"CSVLogger: {self.filename} has the columns {', '.join(found)}, but this run gives {', '.join(columns)}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._writer.writerow([epoch + 1, *(logs[key] for key in self._keys)])
        self._stream.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class TerminateOnNaN(Callback):
    """Stop as soon as a batch's loss is NaN or infinite.

    Parameters
    ----------
    every_step : bool
        Whether to look after every step and so name the very batch. False looks some twenty times a
        second, which lets steps be replayed together; the batch named may then be a later one.

    Attributes
    ----------
    stopped_at : tuple of int or None
        Epoch and batch in which such a loss was found; None if there was none.
    """

    def __init__(self, every_step: bool = True) -> None:
        self.every_step = bool(every_step)
        self.stopped_at: tuple[int, int] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.stopped_at = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if not math.isfinite(logs["loss"]):
            self.stopped_at = self._epoch, batch
            self.trainer.stop_training = True
            if self.trainer.is_first:
                print(f"Epoch {self._epoch + 1}, batch {batch + 1}: the loss is {logs['loss']}, training stops")
