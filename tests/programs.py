"""Runs Python programs in processes of their own, for what cannot be tried in the tests' process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import fastnn


def run(code: str, *, timeout: float = 120, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
    """Runs `code`, which finds the fastnn under test and this folder's modules; fails after `timeout` seconds."""
    path = [str(Path(fastnn.__file__).parents[1]), str(Path(__file__).parent)]
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(path), **environment}
    # Python looks for modules in its folder first: in the repository's it would find the sources instead of what is installed.
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=settings, timeout=timeout,
                            cwd=Path(__file__).parent, capture_output=True, text=True)
    assert not check or result.returncode == 0, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def output(code: str, **options) -> str:
    """What `code` prints."""
    return run(code, **options).stdout.strip()
