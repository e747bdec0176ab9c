"""Options of the benchmarks."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """What to measure."""
    parser.addoption("--networks", default="lenet5", help="names in shapes.py, separated by commas")
    parser.addoption("--threads", type=int, default=2, help="for fastnn and its peer")
