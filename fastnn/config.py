"""What runs here, and why: version, instruction set, threads, build."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _core


def get_config() -> dict[str, Any]:
    """Collect the facts that decide speed and results on this machine.

    Returns
    -------
    dict
        JSON-ready: ``version``, ``isa`` (in use, why, available), ``threads`` (in use, why, OpenMP or not),
        ``python``, ``numpy``, ``platform``, ``build``.
    """
    import platform  # here, because importing fastnn is to be quick

    import fastnn

    return {
        "version": fastnn.__version__,
        "isa": {"in_use": _core.get_isa(), "why": _core.isa_reason(), "available": list(_core.available_isas())},
        "threads": {"in_use": _core.get_num_threads(), "why": _core.threads_reason(), "openmp": _core.has_openmp()},
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "build": _core.__file__,
    }


def show_config() -> None:
    """Print what `get_config` collects."""
    config = get_config()
    isa, threads = config["isa"], config["threads"]
    for name, value in (
        ("fastnn", config["version"]),
        ("instruction set", f"{isa['in_use']} ({isa['why']}); available: {', '.join(isa['available'])}"),
        ("threads", f"{threads['in_use']} ({threads['why']}){'' if threads['openmp'] else '; built without OpenMP'}"),
        ("python", config["python"]),
        ("numpy", config["numpy"]),
        ("platform", config["platform"]),
        ("build", config["build"]),
    ):
        print(f"{name + ':':17}{value}")
