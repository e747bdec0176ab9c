"""Pictures of a training run. Needs the extra ``plot``."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from .io.extras import require
from .io.files import atomic_path

_LEGEND_ROWS = 14  # that stand beside a panel


def learning_curve(history: Any, path: str | os.PathLike, title: str = "") -> None:
    """Draw loss and metrics over the epochs, training beside validation, into a picture file.

    One panel for each figure; the best validation value is marked and named.

    Parameters
    ----------
    history : fastnn.train.History
        At least one epoch.
    path : str or path-like
        The file; its suffix says the format (``.png``, ``.svg``, ``.pdf``).
    title : str
        Put above the panels.

    Raises
    ------
    ImportError
        If the extra ``plot`` is not installed.
    TypeError
        If `history` is something else.
    ValueError
        If the history is empty.
    OSError
        If the file cannot be written; an older one is untouched.
    """
    figure_module = require("matplotlib.figure", extra="plot", feature="the learning curve")
    _check("learning_curve", history)
    names = [name for name, values in history.history.items()
             if not name.startswith("val_") and np.ndim(values) == 1 and np.ndim(values[0]) == 0]
    if not history.epoch or not names:
        raise ValueError("learning_curve: the history holds no epochs")
    figure = figure_module.Figure(figsize=(5.2 * len(names), 3.8), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names):
        _panel(axes, name, history)
    if title:
        figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def gradient_norms(history: Any, path: str | os.PathLike, title: str = "") -> None:
    """Draw the layers' gradient and update norms over the epochs, on logarithmic scales, into a picture file.

    Parameters
    ----------
    history : fastnn.train.History
        Of a ``Trainer(..., watch_gradients=True)``, at least one epoch.
    path : str or path-like
        The file; its suffix says the format (``.png``, ``.svg``, ``.pdf``).
    title : str
        Put above the panels.

    Raises
    ------
    ImportError
        If the extra ``plot`` is not installed.
    TypeError
        If `history` is something else.
    ValueError
        If the history holds no norms.
    OSError
        If the file cannot be written; an older one is untouched.
    """
    figure_module = require("matplotlib.figure", extra="plot", feature="the picture of gradient norms")
    _check("gradient_norms", history)
    if not history.epoch or not history.gradient_norms:
        raise ValueError("gradient_norms: the history holds no norms; train with Trainer(..., watch_gradients=True)")
    colours = require("matplotlib", extra="plot", feature="the picture of gradient norms").colormaps["viridis"]
    columns = math.ceil(len(history.gradient_norms) / _LEGEND_ROWS)
    figure = figure_module.Figure(figsize=(8.4 + 2 * columns, 3.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("gradient_norms", "update_norms")):
        norms = getattr(history, name)
        # From the input's layer to the output's: ten colours in turn would not tell a deep network's layers apart.
        for (layer, values), place in zip(norms.items(), np.linspace(0, 0.95, len(norms))):
            axes.plot(np.asarray(history.epoch) + 1, values, label=layer, linewidth=1, color=colours(place),
                      **_points(history.epoch))
        _log_scale(axes)
        axes.set_ylabel(f"{name.removesuffix('s').replace('_', ' ')} (L2)")
        _epoch_axis(axes)
        axes.grid(True, which="minor", axis="y", linewidth=0.2, alpha=0.6)
    axes.legend(title="layer", frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5),
                ncols=columns)
    if title:
        figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _check(name: str, history: Any) -> None:
    """Raises where `history` is no History."""
    if not hasattr(history, "gradient_norms"):
        raise TypeError(f"{name}: history is a {type(history).__name__}, but must be the History that Trainer.fit returns")


def _panel(axes: Any, name: str, history: Any) -> None:
    """One figure: training and, if there is one, validation with its best epoch."""
    epochs, values = np.asarray(history.epoch) + 1, np.asarray(history.history[name], float)
    style = _points(epochs)
    axes.plot(epochs, values, color="tab:blue", label="training", **style)
    checked = np.asarray(history.history.get(f"val_{name}", ()), float)
    if np.isfinite(checked).any():
        axes.plot(epochs, checked, color="tab:orange", label="validation", **style)
        rises = name in history.params.get("higher_is_better", ())
        best = int(np.nanargmax(checked) if rises else np.nanargmin(checked))
        axes.axvline(epochs[best], color="tab:orange", linewidth=0.8, linestyle=":")
        axes.plot([], [], " ", label=f"best validation {checked[best]:.4g}, epoch {epochs[best]}")
    finite = values[np.isfinite(values)]
    if name == "loss" and finite.size and 0 < 10 * finite.min() < finite.max():
        _log_scale(axes)
    axes.set_ylabel(name.replace("_", " "))
    if not (finite.size or np.isfinite(checked).any()):  # matplotlib would invent both axes
        axes.set(xlim=(epochs[0] - 0.5, epochs[-1] + 0.5), yticks=[])
        axes.text(0.5, 0.5, "no finite number", ha="center", transform=axes.transAxes)
    _epoch_axis(axes)
    axes.legend(framealpha=0.9, edgecolor="none")


def _log_scale(axes: Any) -> None:
    """A logarithmic vertical axis, all of whose ticks have labels where it spans less than a decade: 1 alone says no scale."""
    axes.set_yscale("log")
    axes.yaxis.get_minor_formatter().minor_thresholds = (2, 0.8)


def _points(epochs: Any) -> dict[str, Any]:
    """How to draw a line: with a point for each epoch, unless they are many."""
    return {"marker": "o" if len(epochs) <= 30 else None, "markersize": 4}


def _epoch_axis(axes: Any) -> None:
    """Whole epochs along the horizontal axis, and a grid."""
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(True, linewidth=0.4, alpha=0.6)
