"""Fixtures that several files use."""

import signal

import pytest

from fastnn import _core


@pytest.fixture
def ctrl_c():
    """Python's own handler, also where the shell started the tests in the background, with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=_core.available_isas())
def isa(request):
    """Each instruction set in turn."""
    before = _core.get_isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)
