"""Nothing is forgotten: ops, kernels, layers and exports have entries, these vary, docstrings name their parameters."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import launches
import numpy as np
import pytest

import fastnn
from fastnn import functional, nn, testing
from fastnn._core import launch
from fastnn.testing.cases import operation
from fastnn.testing.layers import LAYERS

SPECS = testing.specs()
# Exports that specs have under another name, or the file that tests them (": " and what to look for there instead of
# the name).
SPECS_OF = {
    "batch_norm": "batch_norm_training", "clamp": "clip", "broadcast_to": "expand", "concat": "cat",
    "logical_and": "test_math.py", "logical_or": "test_math.py", "logical_xor": "test_math.py",
    "logical_not": "test_math.py", "bitwise_and": "test_math.py", "bitwise_or": "test_math.py", "bitwise_xor": "test_math.py",
    "bitwise_not": "test_math.py",
    "einsum": "einsum_one", "put": "test_index.py: ] = ", "activation": "test_math.py", "gumbel_softmax": "test_random.py",
}
# test_layers.py and test_module.py have them by name
NOT_LAYERS = {"Module", "ModuleList", "ModuleDict", "Parameter", "Buffer", "ParameterList", "ParameterDict"}
TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def launched():
    return launches.of_specs()


def test_every_op_is_exercised(launched):
    left = set(vars(launch)) - set(launched)
    assert left <= set(launches.TESTED_BY_NAME), "an op needs a spec, or a line in launches.TESTED_BY_NAME"


@pytest.mark.parametrize("op", launches.TESTED_BY_NAME)
def test_ops_tested_by_name_can_run(op):
    call = launches.by_name()[op][0]
    make = fastnn.zeros
    inputs = [make(*shape, dtype=dtype) for shape, dtype in call.inputs]
    outputs = getattr(launch, op).outputs
    out = make(*call.given_output[0], dtype=call.given_output[1]) if call.given_output else None
    result = getattr(launch, op)(*inputs, **call.attributes, out=out)
    assert len(result if isinstance(result, tuple) else (result,)) == len(outputs)
    stem = op.removesuffix("_step").removesuffix("_forward").removesuffix("_backward").removesuffix("_momentum")
    assert stem.split("_")[0] in (TESTS / launches.TESTED_BY_NAME[op][0]).read_text().lower()


def exported(module):
    """Public functions of a module."""
    return [name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")]


def test_every_function_has_a_spec():
    for name in exported(functional):
        entry = name if name in SPECS else SPECS_OF.get(name)
        assert entry, f"functional.{name} has no OpSpec"
        file, _, text = entry.partition(": ")
        if file.endswith(".py"):
            assert (text or name) in (TESTS / file).read_text(), f"{file} does not test {name}"
        else:
            assert entry in SPECS


def test_every_layer_is_in_the_list():
    layers = {name for name, value in vars(nn).items() if inspect.isclass(value)
              and issubclass(value, nn.Module)} - NOT_LAYERS
    listed = {type(part).__name__ for spec in LAYERS for part in spec.make().modules()}
    assert layers <= listed, f"not in fastnn/testing/layers.py: {sorted(layers - listed)}"


@pytest.mark.parametrize("spec", [spec for spec in SPECS.values() if spec.benchmarks], ids=lambda spec: spec.name)
def test_benchmarks_can_be_counted(spec):
    """What a benchmark reports takes the options that its samples have."""
    for sample in spec.benchmarks(np.random.default_rng(0)):
        case = operation(spec, sample)
        assert case.flops >= 0 and case.bytes >= 0 and case.flops + case.bytes > 0


@pytest.mark.parametrize("spec", SPECS.values(), ids=str)
def test_samples_vary(spec):
    """More than one shape or option; and values that are not all the same, or a result could be right by accident."""
    first, second = (list(spec.samples(np.random.default_rng(seed))) for seed in (0, 1))
    assert len({repr(sample) for sample in first}) > 1, f"{spec}: all samples are alike"
    arrays = [v for s in first for v in s.inputs if isinstance(v, np.ndarray) and v.dtype == np.float64 and v.size > 3]
    assert all(np.nanmax(v) > np.nanmin(v) for v in arrays), f"{spec}: an input is constant"
    others = [v for s in second for v in s.inputs if isinstance(v, np.ndarray) and v.dtype == np.float64 and v.size > 3]
    assert not arrays or not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(arrays, others)), \
        f"{spec}: samples ignore the generator"


def public_modules():
    found = [fastnn]
    for info in pkgutil.walk_packages(fastnn.__path__, "fastnn."):
        if not any(part.startswith("_") for part in info.name.split(".")[1:]):
            found.append(importlib.import_module(info.name))
    return found


def public_objects():
    """Functions, classes and methods that fastnn defines under a public name, once each."""
    found = {}
    for module in public_modules():
        for name, value in vars(module).items():
            if name.startswith("_") or not getattr(value, "__module__", "").startswith("fastnn"):
                continue
            if inspect.isfunction(value):
                found[f"{value.__module__}.{value.__qualname__}"] = value
            elif inspect.isclass(value):
                found[f"{value.__module__}.{value.__qualname__}"] = value
                for method, function in vars(value).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        found[f"{value.__module__}.{value.__qualname__}.{method}"] = function
    return found


def documented(text):
    """Names in the Parameters section of a numpydoc text; None without one."""
    match = re.search(r"^\s*Parameters\n\s*-{3,}\n(.*?)(?=^\s*\w[\w ]*\n\s*-{3,}\n|\Z)", inspect.cleandoc(text or ""),
                      re.M | re.S)
    if match is None:
        return None
    lines = [line for line in match.group(1).splitlines() if line and not line[0].isspace()]
    return [name.strip().lstrip("*") for line in lines
            for name in line.partition(" : ")[0].partition(":")[0].split(",")]


@pytest.mark.parametrize("name, value", public_objects().items(), ids=list(public_objects()))
def test_docstring_names_the_parameters(name, value):
    """Where a text has a Parameters section, it lists the signature's parameters; everything public has a text."""
    # A method that overrides one with a text need not repeat it; what a layer's forward does is its class's text.
    assert inspect.getdoc(value) or value.__name__ == "forward", f"{name} has no docstring"
    names = documented(value.__doc__)
    if names is None:
        return
    actual = [p.name for p in inspect.signature(value).parameters.values() if p.name not in ("self", "cls")]
    assert sorted(names) == sorted(actual), f"{name}: documents {names}, takes {actual}"
