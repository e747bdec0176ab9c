"""The engine on AArch64, emulated: `pytest -m neon`."""

import os

import aarch64
import pytest

pytestmark = [pytest.mark.neon, pytest.mark.skipif(bool(aarch64.missing()), reason=aarch64.missing() or "all is there")]


def test_launches_give_what_they_give_here(tmp_path):
    reports, good = aarch64.check(tmp_path, os.cpu_count() or 1)
    print(*reports, sep="\n")
    assert good, "FAILED lines of the reports say what differs"
