"""What happens when the engine cannot start, because of FASTNN_ISA, say: the command tells it in one line."""

from __future__ import annotations

import sys
from pathlib import Path


def refuse(error: ImportError) -> None:
    """Ends the process with the message and status 2 if it is the command that runs; else does nothing.

    Parameters
    ----------
    error : ImportError
        Why the engine cannot start.
    """
    if _is_command():
        print(f"fastnn: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _is_command() -> bool:
    """Whether this is ``fastnn`` or ``python -m fastnn``, whose own modules come after the package: too late to ask there."""
    words = sys.orig_argv
    if sys.argv[:1] == ["-m"]:  # so it reads while Python looks for the module
        return "-mfastnn" in words or any(pair == ("-m", "fastnn") for pair in zip(words, words[1:]))
    return Path(sys.argv[0] if sys.argv else "").stem == "fastnn"
