"""No operation reads past the ends of what it is given (fenced.py, in a process of its own, since what does would die)."""

import pytest
from programs import run

from fastnn import _core


@pytest.mark.parametrize("isa", _core.available_isas())
def test_nothing_is_read_past_either_end(isa):
    result = run(f"import fenced; fenced.main({isa!r})", timeout=600, check=False)
    assert result.returncode == 0, f"exit code {result.returncode} in {result.stdout.splitlines()[-1:]}\n{result.stderr[-3000:]}"


@pytest.mark.parametrize(("at_end", "outside"), [(True, 20), (False, -1)])
def test_what_reads_past_an_end_dies(at_end, outside):
    result = run(f"""
        import ctypes
        import numpy as np
        from fenced import fenced
        x = fenced(np.ones(5, np.float32), {at_end})
        print(x.sum(), flush=True)
        ctypes.string_at(x.ctypes.data + {outside}, 1)
    """, check=False)
    assert result.stdout == "5.0\n" and result.returncode != 0
