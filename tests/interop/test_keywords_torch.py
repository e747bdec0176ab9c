"""Arguments under PyTorch's names, in functions, methods and layers."""

import inspect

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn

torch = pytest.importorskip("torch")
import torch.nn.functional as TF  # noqa: E402

# What operands are called, wherever PyTorch's functions have them.
OPERANDS = {"input", "input1", "input2", "other", "exponent", "mat", "mat1", "mat2", "vec", "vec2", "tensor1", "tensor2", "batch1",
            "batch2", "end", "target", "index", "mask", "src", "source", "indices", "values", "x1", "x2", "sorted_sequence",
            "boundaries", "test_elements", "condition", "query", "key", "value", "anchor", "positive", "negative", "logits"}
# Where functions take something else under PyTorch's name: layers of one direction, `x[key]` and `x[key] = value` as functions;
# and dot, which the table has under another name than dot itself.
OTHERS = {"dot", "gru", "lstm", "put", "take"}


def shared(mine, theirs):
    """Functions of both, with the names of PyTorch's arguments as its own table for overriding them has these."""
    table = torch.overrides.get_testing_overrides()
    for name in sorted(set(dir(mine)) & set(dir(theirs)) - OTHERS):
        function, stub = getattr(mine, name), table.get(getattr(theirs, name)) if callable(getattr(theirs, name)) else None
        if stub is not None and inspect.isfunction(function):
            yield name, function, set(inspect.signature(stub).parameters)


@pytest.mark.parametrize("mine, theirs, least", [(fastnn, torch, 250), (F, TF, 85)], ids=["fastnn", "functional"])
def test_operands_have_pytorch_s_names(mine, theirs, least):
    count, missing = 0, {}
    for name, function, keywords in shared(mine, theirs):
        count += 1
        left = keywords & OPERANDS - set(inspect.signature(function).parameters)
        if left:
            missing[name] = left
    assert count >= least and not missing


RNG = np.random.default_rng(0)
X, Y = RNG.random((3, 4)).astype(np.float32) + 0.5, RNG.random((3, 4)).astype(np.float32) + 0.5
LABELS = np.array([0, 3, 1])
CALLS = {
    **{name: lambda L, name=name: getattr(L, name)(input=L.tensor(X), other=L.tensor(Y)) for name in (
        "add", "sub", "mul", "div", "maximum", "minimum", "fmod", "atan2", "lt", "eq", "logical_and", "xlogy", "isclose", "dist",
        "inner", "equal", "allclose", "multiply", "not_equal", "hypot", "copysign")},
    **{name: lambda L, name=name: getattr(L, name)(input=L.tensor(X)) for name in (
        "relu", "exp", "log", "sqrt", "erfc", "argmax", "isnan", "t", "flipud", "var", "trace", "zeros_like", "aminmax")},
    "pow": lambda L: L.pow(input=L.tensor(X), exponent=2), "float_power": lambda L: L.float_power(input=L.tensor(X), exponent=3),
    "lerp": lambda L: L.lerp(input=L.tensor(X), end=L.tensor(Y), weight=0.25),
    "matmul": lambda L: L.matmul(input=L.tensor(X), other=L.tensor(Y.T)), "mm": lambda L: L.mm(input=L.tensor(X), mat2=L.tensor(Y.T)),
    "mv": lambda L: L.mv(input=L.tensor(X), vec=L.tensor(Y[0])), "outer": lambda L: L.outer(input=L.tensor(X[0]), vec2=L.tensor(Y[0])),
    "dot": lambda L: L.dot(input=L.tensor(X[0]), tensor=L.tensor(Y[0])),
    "addmm": lambda L: L.addmm(input=L.ones(3, 3), mat1=L.tensor(X), mat2=L.tensor(Y.T), beta=2),
    "softmax": lambda L: L.softmax(input=L.tensor(X), dim=1),
    "split": lambda L: L.split(tensor=L.tensor(X), split_size_or_sections=3, dim=1),
    "where": lambda L: L.where(condition=L.tensor(X) > 1, input=L.tensor(X), other=L.tensor(Y)),
    "searchsorted": lambda L: L.searchsorted(sorted_sequence=L.arange(3.0), input=L.tensor(X)),
    "add-method": lambda L: L.tensor(X).add(other=L.tensor(Y), alpha=2), "pow-method": lambda L: L.tensor(X).pow(exponent=3),
    "mm-method": lambda L: L.tensor(X).mm(mat2=L.tensor(Y.T)), "mul_-method": lambda L: L.tensor(X).mul_(other=3),
    "pow_-method": lambda L: L.tensor(X).pow_(exponent=2), "copy_-method": lambda L: L.zeros(3, 4).copy_(other=L.tensor(X)),
    **{f"round-{d}": lambda L, d=d: L.round(L.tensor(X * 1000), decimals=d) for d in (0, 1, 3, -2, 400)},
    "diff": lambda L: L.diff(L.tensor(X), n=2, dim=1, prepend=L.tensor(Y), append=L.tensor(Y)),
    "diff-append": lambda L: L.tensor(X).diff(dim=0, append=L.zeros(1, 4)), "diff-0": lambda L: L.tensor(X).diff(0, append=L.tensor(X)),
    "numpy": lambda L: L.tensor(X, requires_grad=True).numpy(force=True),
    "relu-functional": lambda L: L.nn.functional.relu(input=L.tensor(X)),
    "cross_entropy": lambda L: L.nn.functional.cross_entropy(input=L.tensor(X), target=L.tensor(LABELS)),
    "linear": lambda L: L.nn.functional.linear(input=L.tensor(X), weight=L.tensor(Y)),
    "one_hot": lambda L: L.nn.functional.one_hot(L.tensor(LABELS), num_classes=5),
    "mse_loss": lambda L: L.nn.functional.mse_loss(input=L.tensor(X), target=L.tensor(Y)),
    "embedding": lambda L: L.nn.functional.embedding(input=L.tensor(LABELS), weight=L.tensor(Y.T)),
    "CrossEntropyLoss": lambda L: L.nn.CrossEntropyLoss()(input=L.tensor(X), target=L.tensor(LABELS)),
    "Flatten": lambda L: L.nn.Flatten()(input=L.tensor(X[None])),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_by_keyword(name):
    ours, theirs = (CALLS[name](library) for library in (fastnn, torch))
    for a, b in zip(*(v if isinstance(v, (tuple, list)) else (v,) for v in (ours, theirs)), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-6)


def test_decimals_are_reals():
    for L in (fastnn, torch):
        with pytest.raises((TypeError, RuntimeError), match="round"):
            L.round(L.tensor([125]), decimals=-1)
    with pytest.raises(TypeError, match="round: decimals is 0.5, but must be an integer"):
        fastnn.round(fastnn.ones(2), decimals=0.5)


def test_operands_of_other_kinds_are_named_so():
    with pytest.raises(TypeError, match="mul: other is a str, but must be a Tensor, an array or a number"):
        fastnn.mul(1.0, "2")
    with pytest.raises(TypeError, match="exp: input is a NoneType"):
        fastnn.exp(None)
    with pytest.raises(ValueError, match=r"bilinear: input1 \(2, 3\)"):
        nn.Bilinear(3, 4, 5)(input1=fastnn.zeros(2, 3), input2=fastnn.zeros(2, 5))
