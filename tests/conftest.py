"""Fixtures that several files use, and how many threads NumPy takes."""

import signal

import pytest

# References are many small products: threads of NumPy's own would spend most of their time waiting, on cores that the engine
# uses. OpenBLAS asks when it is loaded; processes that tests start have the user's environment.
with pytest.MonkeyPatch.context() as environment:
    environment.setenv("OPENBLAS_NUM_THREADS", "1")
    import numpy  # noqa: F401

from fastnn import _core  # noqa: E402


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
