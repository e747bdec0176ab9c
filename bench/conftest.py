"""Options of the benchmarks."""

import os

import pytest

# PyTorch brings an OpenMP runtime of its own. By default the waiting threads of one would spin for 12 ms on the other's
# cores.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What to measure."""
    parser.addoption("--networks", default="lenet5", help="names in fastnn.testing.shapes, separated by commas")
    parser.addoption("--compiled", action="store_true", help="PyTorch's steps compete through torch.compile, too")
    parser.addoption("--threads", type=int, default=2, help="for fastnn and its peer")
