"""Progress of a training run: a bar in a terminal, plain lines elsewhere. Needs no package."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any, TextIO

import numpy as np

from ..io.extras import require
from .callbacks import Callback, Logs

_INTERVAL = 0.1  # seconds between two drawings: no eye sees more
_REST = 50  # times what a drawing took: so it costs 2 % at most, even where a metric (an exact AUC) is dear
_WIDTH = 20  # characters of the bar proper


class ProgressBar(Callback):
    """Shows loss, metrics, samples a second and the time left; `Trainer.fit` adds it for ``verbose=1``.

    In a terminal one line is redrawn at most ten times a second, and so seldom that it takes at most 2 % of the
    time; between two drawings a step pays for one look at the clock. Where the output is not a terminal, one plain line
    an epoch is written.

    Parameters
    ----------
    bar : bool
        Whether to draw the bar in a terminal; False gives plain lines there too (``verbose=2``).
    file : text file, optional
        Where to write; the standard output by default.
    """

    every_step = False
    on_first_rank = True

    def __init__(self, *, bar: bool = True, file: TextIO | None = None) -> None:
        self._bar, self._file = bar, file

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._out = self._file or sys.stdout
        self._drawn = 0  # length of the line on the screen
        if self._bar and self._out.isatty():
            self.on_train_batch_end = self._after_step
        params = self.trainer.history.params
        self._epochs, self._steps, self._samples = params["epochs"], params["steps"], params["samples"]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        digits = len(str(self._epochs))
        self._title = f"Epoch {epoch + 1:{digits}d}/{self._epochs}"
        self._began = time.perf_counter()
        self._next = self._began + _INTERVAL

    def _after_step(self, batch: int, logs: Logs) -> None:
        """Hook `on_train_batch_end` in a terminal."""
        now = time.perf_counter()
        if now < self._next:
            return
        done, spent = (batch + 1) / self._steps, now - self._began
        filled = int(done * _WIDTH)
        bar = "=" * filled + ">" * (filled < _WIDTH) + "." * (_WIDTH - filled - 1)
        rate = done * self._samples / spent
        self._draw(f"{self._title} [{bar}] {done:4.0%}  {format_logs(logs)}  "
                   f"{rate:,.0f} samples/s  {format_seconds(spent / done - spent)} left")
        drawn = time.perf_counter()
        self._next = drawn + max(_INTERVAL, _REST * (drawn - now))

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        now = time.perf_counter()
        trained = self._trained if "val_loss" in logs else now  # the rate is training's, without validation
        rate = self.trainer.samples_seen / max(trained - self._began, 1e-9)
        self._draw(f"{self._title}  {format_logs(logs)}  {rate:,.0f} samples/s  {format_seconds(now - self._began)}")
        self._out.write("\n")
        self._out.flush()
        self._drawn = 0

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._drawn:  # interrupted within an epoch: leave the line as it is
            self._out.write("\n")
            self._out.flush()

    def _draw(self, line: str) -> None:
        """Put `line` in the place of the one on the screen, cut to the terminal's width."""
        if not self._out.isatty():
            self._out.write(line)
            return
        line = line[:max(shutil.get_terminal_size().columns - 1, 20)]
        self._out.write("\r" + line.ljust(self._drawn))
        self._out.flush()
        self._drawn = len(line)


class TqdmProgress(Callback):
    """The same figures in a bar of tqdm, for those who want it (notebooks); ``verbose="tqdm"``.

    Parameters
    ----------
    **options
        Passed to ``tqdm.auto.tqdm``.

    Raises
    ------
    ImportError
        At once, if the extra ``progress`` is not installed.
    """

    every_step = False
    on_first_rank = True

    def __init__(self, **options: Any) -> None:
        self._tqdm = require("tqdm.auto", extra="progress", feature="TqdmProgress").tqdm
        self._options = options
        self._bar = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        params = self.trainer.history.params
        self._bar = self._tqdm(total=params["steps"], desc=f"Epoch {epoch + 1}/{params['epochs']}",
                               **{"unit": "batch", **self._options})

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._bar.update(batch + 1 - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._bar.set_postfix_str(format_logs(logs))
        self._bar.close()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._bar is not None:
            self._bar.close()


def progress_for(verbose: int | str) -> list[Callback]:
    """The callback that `verbose` asks for, if any.

    Parameters
    ----------
    verbose : {"auto", 0, 1, 2, "tqdm"}
        As `Trainer.fit` takes it.

    Returns
    -------
    list of Callback

    Raises
    ------
    ValueError
        If it is something else.
    """
    if verbose in (1, "auto"):
        return [ProgressBar()]
    if verbose == 2:
        return [ProgressBar(bar=False)]
    if verbose == "tqdm":
        return [TqdmProgress()]
    if verbose != 0:
        raise ValueError(f"verbose is {verbose!r}, expected 0, 1, 2, 'auto' or 'tqdm'")
    return []


def format_logs(logs: Logs) -> str:
    """Loss and metrics as ``name value`` pairs, single numbers only, four significant digits.

    Parameters
    ----------
    logs : mapping of str to value
        Results.

    Returns
    -------
    str
        One line.
    """
    return "  ".join(f"{name} {value:#.4g}" for name, value in logs.items() if np.ndim(value) == 0)


def format_seconds(seconds: float) -> str:
    """A duration as ``2.8 s``, ``3:07`` or ``1:02:45``.

    Parameters
    ----------
    seconds : float
        The duration.

    Returns
    -------
    str
        Text for people.
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
