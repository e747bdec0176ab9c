"""Fixtures that several files use."""

import signal

import pytest


@pytest.fixture
def ctrl_c():
    """Python's own handler, also where the shell started the tests in the background, with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
