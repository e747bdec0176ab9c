"""What a training run measured, epoch by epoch."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..io.files import write_atomic


class History:
    """Loss and metrics of every completed epoch; what `Trainer.fit` returns.

    Attributes
    ----------
    history : dict of str to list
        For each key (``"loss"``, ``"val_loss"``, ``"accuracy"``, ...) one value an epoch.
    epoch : list of int
        Number of each epoch, counted from 0 (from `initial_epoch` when training was resumed).
    params : dict
        What the run was asked for: ``epochs``, ``batch_size``, ``steps`` and ``samples`` an epoch, and
        ``higher_is_better``, the names of the figures that should rise.
    gradient_norms, update_norms : dict of str to list of float
        With ``Trainer(..., watch_gradients=True)``: for each layer one number an epoch, the root of the mean over the
        steps of the squared norm of the gradient, and of the change of the parameters. Empty otherwise.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []
        self.params: dict[str, Any] = {}
        self.gradient_norms: dict[str, list[float]] = {}
        self.update_norms: dict[str, list[float]] = {}

    def __repr__(self) -> str:
        return f"History({len(self.epoch)} epochs: {', '.join(self.history)})"

    def append(self, epoch: int, logs: Mapping[str, Any]) -> None:
        """Add one epoch.

        Parameters
        ----------
        epoch : int
            Its number.
        logs : mapping of str to value
            Its results; a key that earlier epochs lack is NaN there, and the other way round.
        """
        for key in logs:
            self.history.setdefault(key, [float("nan")] * len(self.epoch))
        for key, values in self.history.items():
            values.append(logs.get(key, float("nan")))
        self.epoch.append(epoch)

    def to_csv(self, path: str | os.PathLike) -> None:
        """Write one line an epoch, with a header, completely or not at all.

        The columns are ``epoch`` (from 1, as on the screen), then the keys of `history`; results that are not single
        numbers, such as a confusion matrix, are left out.

        Parameters
        ----------
        path : str or path-like
            The file to create or replace.

        Raises
        ------
        OSError
            If it cannot be written; an older file is untouched.
        """
        keys = [key for key, values in self.history.items() if all(np.ndim(value) == 0 for value in values)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["epoch", *keys])
        writer.writerows(zip((epoch + 1 for epoch in self.epoch), *(self.history[key] for key in keys)))
        write_atomic(path, text.getvalue())
