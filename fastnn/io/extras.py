"""Optional packages: asked for in one place, with one kind of message."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, *, extra: str, feature: str) -> ModuleType:
    """Import an optional package, or say how to install it.

    Parameters
    ----------
    module : str
        Name to import, such as ``"safetensors.numpy"``.
    extra : str
        The extra of fastnn that brings it, such as ``"files"``.
    feature : str
        What needs it, as the subject of a sentence, such as ``"saving weights"``.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    ImportError
        If it cannot be imported; the message holds the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{feature} needs the package '{module.partition('.')[0]}' ({error}); "
                          f"install it with: pip install 'fastnn[{extra}]'") from error
