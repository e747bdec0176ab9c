"""What `import fastnn` costs and brings, and what it says when the environment asks for the impossible."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import output, run

import fastnn
from fastnn import _core

# The processor's time: other processes on the machine do not count, except for what they slow it down. Hence one process
# times both, and their ratio counts.
TIMED = """
    import time
    began = time.process_time()
    import numpy
    between = time.process_time()
    import fastnn
    print((time.process_time() - between) / (between - began))
"""


def test_import_takes_less_than_numpys(tmp_path):
    # Bytecode of its own, that the first run writes whatever this process was told: compiling is not what is timed.
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    output("import numpy, fastnn", **bytecode)
    ratios = [float(output(TIMED, **bytecode)) for _ in range(7)]
    assert min(ratios) < 0.5, ratios


def test_import_brings_numpy_and_nothing_else():
    code = """
        import sys
        import numpy
        before = {name.partition(".")[0] for name in sys.modules}
        import fastnn
        new = {name.partition(".")[0] for name in sys.modules} - before
        print(*sorted(new - set(sys.stdlib_module_names) - {"fastnn"}))
    """
    loaded = output(code).split()
    assert not {"sklearn", "scipy", "matplotlib", "torch", "tqdm", "safetensors", "joblib", "pytest"} & set(loaded)
    assert all(name.startswith("_cython") or name.startswith("cython_runtime") for name in loaded), loaded


@pytest.mark.parametrize("isa", _core.available_isas())
def test_isa_can_be_capped(isa):
    assert output("import fastnn; print(fastnn._core.get_isa())", FASTNN_ISA=isa) == isa


@pytest.mark.parametrize("isa", ["sse9", "AVX2 ", "neon" if "neon" not in _core.available_isas() else "avx2"])
def test_unsupported_isa_is_an_import_error(isa):
    result = run("import fastnn", check=False, FASTNN_ISA=isa)
    assert result.returncode == 1
    assert f"ImportError: FASTNN_ISA is '{isa}', but this machine and build have scalar" in result.stderr


@pytest.mark.parametrize("name, value", [("FASTNN_ISA", "sse9"), ("FASTNN_NUM_THREADS", "many")])
def test_command_says_in_one_line_what_keeps_it_from_starting(name, value):
    result = subprocess.run([sys.executable, "-m", "fastnn", "info"], capture_output=True, text=True,
                            cwd=Path(__file__).parent,  # as in programs.py
                            env={**os.environ, "PYTHONPATH": str(Path(fastnn.__file__).parents[1]), name: value})
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith(f"fastnn: error: {name} is '{value}', but") and result.stderr.count("\n") == 1


def test_empty_isa_means_none_was_given():
    why = output("import fastnn; print(fastnn._core.isa_reason())", FASTNN_ISA="")
    assert why.startswith("the best ")


def test_sub_packages_are_listed_before_they_are_loaded():
    assert {"nn", "optim", "train", "data", "io", "models"} <= set(output("import fastnn; print(*dir(fastnn))").split())


@pytest.mark.parametrize("first", ["data", "functional", "io", "models", "nn", "nn.functional", "nn.utils", "optim",
                                   "optim.swa_utils", "testing", "train"])
def test_any_part_can_be_imported_first(first):
    output(f"import fastnn.{first}, fastnn.nn; fastnn.nn.utils.rnn")
