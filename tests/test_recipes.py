"""Known recipes on real MNIST: needs FASTNN_DATA, and minutes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(not os.environ.get("FASTNN_DATA"), reason="FASTNN_DATA does not say where MNIST is")]


def run(*command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, env=environment)


def test_scikit_learn_s_loss_curve():
    """Mean over five seeds within 8 % at every epoch, test accuracy at least 0.968."""
    done = run(ROOT / "bench" / "bench_train.py", "recipe")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("epochs, wanted", [(3, 0.985), (12, 0.990)])
def test_lenet5_by_the_command(tmp_path, epochs, wanted):
    pytest.importorskip("safetensors")
    done = run("-m", "fastnn", "train", "lenet5", "--data", "mnist", "--epochs", epochs, "--out", tmp_path / "run",
               "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["test_accuracy"] >= wanted
