"""No input, however wrong, crashes or writes outside its buffers (hostile.py, which runs in a process of its own)."""

from pathlib import Path

import pytest
from programs import run

CALLS_PER_OP = 60


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_wrong_calls_raise_and_do_no_harm(seed, tmp_path):
    calls = CALLS_PER_OP * (1 if seed == 0 else 10)
    log = tmp_path / "calls.log"
    result = run(f"import hostile; hostile.main({str(log)!r}, {calls}, {seed})", timeout=600, check=False)
    last = log.read_text().splitlines()[-1:] if log.exists() else []
    what = f"exit code {result.returncode} after {last}\n{result.stdout}\n{result.stderr[-6000:]}"
    assert result.returncode == 0, what
    assert " raised" in result.stdout


def test_fuzzer_notices_a_write_outside(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import hostile
    import numpy as np

    def careless(x, out=None):
        """Writes before its output when it is given one."""
        if out is not None:
            memory = out.as_strided((out.numel() + 1,), (1,), -1)
            memory.fill_(0.0)
        return x

    x = hostile.fastnn.tensor(np.ones(5, np.float32))
    with pytest.raises(AssertionError, match="wrote outside its output"):
        hostile.check_outputs(careless, (x,), {}, (x,))
