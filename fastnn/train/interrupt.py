"""Ctrl-C between two steps, never within one."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

_PATIENCE = 0.3  # seconds


class StepInterrupt:
    """Context in which Ctrl-C waits for `check`, so that parameters and optimiser state stay those of a whole step.

    A second Ctrl-C acts at once. Nothing changes outside the main thread, or where the program has its
    own handler.
    """

    def __init__(self) -> None:
        self.requested = False
        self._installed = False

    def __enter__(self) -> "StepInterrupt":
        if (threading.current_thread() is threading.main_thread()
                and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
            signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._installed = False
        if exception[0] is None:
            self.check()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            signal.default_int_handler(number, frame)
        self.requested = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self.requested:
            self.requested = False
            raise KeyboardInterrupt


class AgreedInterrupt(StepInterrupt):
    """The same for one of several processes, which stop after the same step: Ctrl-C is `pressed` here, and `requested` when all have
    agreed on it."""

    def __init__(self) -> None:
        super().__init__()
        self.pressed = False

    def __exit__(self, *exception: Any) -> None:
        self.requested |= self.pressed
        super().__exit__(*exception)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:
            signal.default_int_handler(number, frame)
        self.pressed = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed on some rank."""
        if self.requested and self._installed:  # the launcher may not have told this one yet: not to be met by it afterwards
            patience = time.monotonic() + _PATIENCE
            while not self.pressed and time.monotonic() < patience:
                time.sleep(0.005)
        self.pressed &= not self.requested
        super().check()
