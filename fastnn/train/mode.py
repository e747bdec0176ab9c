"""Training and evaluation mode for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def mode(model: Any, *, training: bool) -> Iterator[None]:
    """Put a model and all modules in it into one mode, and each back into its own afterwards.

    Parameters
    ----------
    model : fastnn.nn.Module
        The model.
    training : bool
        True for training mode, False for evaluation mode.
    """
    changed = [module for module in model.modules() if module.training != training]
    for module in changed:
        module.set_training(training)
    try:
        yield
    finally:
        for module in changed:
            module.set_training(not training)
