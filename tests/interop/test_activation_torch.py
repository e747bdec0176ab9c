"""Activations against PyTorch: values and gradients, over all options, at corners, on special values."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn

torch = pytest.importorskip("torch")

CASES = [
    ("elu", {}), ("elu", {"alpha": 0.3}), ("selu", {}), ("celu", {}), ("celu", {"alpha": 2.5}), ("gelu", {}),
    ("gelu", {"approximate": "tanh"}), ("silu", {}), ("mish", {}), ("softplus", {}),
    ("softplus", {"beta": 3.0, "threshold": 4.0}), ("softsign", {}), ("logsigmoid", {}), ("tanhshrink", {}),
    ("glu", {}), ("glu", {"dim": 0}),
    ("relu6", {}), ("hardtanh", {}),
    ("hardtanh", {"min_val": -2.0, "max_val": 0.5}), ("hardsigmoid", {}), ("hardswish", {}), ("softshrink", {}),
    ("softshrink", {"lambd": 1.0}), ("hardshrink", {}), ("hardshrink", {"lambd": 1.0}),
    ("threshold", {"threshold": 1.0, "value": 7.0}),
    ("softmin", {"dim": 1}), ("leaky_relu", {"negative_slope": 0.2})]
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-13}


def both(ours, theirs, arrays, dtype, tolerance):
    """Values and all gradients here and there, compared."""
    x, z = [fastnn.tensor(a, requires_grad=True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]
    y, w = ours(*x), theirs(*z)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
    y.backward(fastnn.tensor(dy))
    w.backward(torch.tensor(dy))
    for a, b in zip([y.detach(), *(t.grad for t in x)], [w.detach(), *(t.grad for t in z)]):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name, options", CASES)
def test_values_and_gradients(name, options, dtype):
    """Among the values are all corners: the whole and half numbers."""
    x = np.concatenate([np.random.default_rng(0).normal(0, 4, 380), np.arange(-10, 10) / 2])
    x = x.reshape(10, 40).astype(dtype)
    looser = 1e6 if name == "hardsigmoid" and dtype is np.float64 else 1  # its slope 1 / 6 is a float32 number there
    ours, theirs = getattr(F, name), getattr(torch.nn.functional, name)
    both(lambda t: ours(t, **options), lambda t: theirs(t, **options), [x], dtype, looser * TOLERANCE[dtype])


@pytest.mark.parametrize("shape, slopes", [((40,), 1), ((4, 5), 1), ((4, 5), 5), ((2, 3, 4, 5), 3), ((2, 3, 4, 5), 1),
                                           ((2, 6, 7), 6), ((), 1), ((3, 0, 2), 0)])
def test_prelu(shape, slopes):
    rng = np.random.default_rng(0)
    arrays = [np.asarray(rng.standard_normal(shape)), rng.standard_normal(slopes)]
    both(F.prelu, torch.nn.functional.prelu, arrays, np.float64, 1e-13)


@pytest.mark.parametrize("name", ["ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Softplus", "Softsign", "LogSigmoid",
                                  "Tanhshrink", "GLU", "ReLU6", "Hardtanh", "Hardsigmoid", "Hardswish", "Softshrink",
                                  "Hardshrink", "PReLU"])
def test_layers_have_the_same_defaults(name):
    x = np.random.default_rng(0).normal(0, 3, (6, 8)).astype(np.float32)
    ours, theirs = getattr(nn, name)(), getattr(torch.nn, name)()
    y, z = ours(fastnn.tensor(x)), theirs(torch.tensor(x))
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-5, atol=1e-6)
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "silu", "gelu", "softplus", "tanh", "sigmoid"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_at_nan_are_as_pytorch_has_them(name, dtype):
    x = np.array([np.nan, -1.0, np.nan, 2.0, 0.25] * 5, dtype)
    both(getattr(F, name), getattr(torch.nn.functional, name), [x], dtype, TOLERANCE[dtype])


@pytest.mark.parametrize("name, arguments", [
    ("ReLU", ()), ("ReLU6", ()), ("LeakyReLU", (0.2,)), ("ELU", (0.5,)), ("SELU", ()), ("CELU", (0.5,)), ("SiLU", ()),
    ("Mish", ()), ("Hardtanh", (-2.0, 1.0)), ("Hardswish", ()), ("Hardsigmoid", ()), ("Threshold", (0.5, 2.0)),
    ("Dropout", (0.0,)), ("Dropout1d", (0.0,)), ("Dropout2d", (0.0,))])
def test_inplace_gives_the_same_and_leaves_the_input(name, arguments):
    x = np.random.default_rng(0).normal(0, 3, (2, 6, 8)).astype(np.float32)
    ours, theirs = getattr(nn, name)(*arguments, inplace=True), getattr(torch.nn, name)(*arguments, inplace=True)
    given = fastnn.tensor(x)
    np.testing.assert_allclose(ours(given).numpy(), theirs(torch.tensor(x)).numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(given.numpy(), x)
