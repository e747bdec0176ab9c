"""Activations beyond the OpSpec list: accuracy, names, capture, errors."""

import math

import numpy as np
import pytest
from test_elementwise import sweep, ulps

import fastnn
import fastnn.functional as F
from fastnn import nn
from fastnn._core import launch
from fastnn.program import capture

_erfc = np.vectorize(math.erfc, otypes=[float])


def normal_below(x):
    """Probability that a standard normal number is below x, in long doubles: erfc of the nearest double, its slope."""
    z = -np.clip(x, -1e4, 1e4) / np.sqrt(np.longdouble(2))
    near = z.astype(np.float64)
    slope = -2 / np.sqrt(np.longdouble(np.pi)) * np.exp(-z * z)
    return (_erfc(near) + slope * (z - near)) / 2


@pytest.mark.parametrize("dtype, limit, limit_below_6, end", [(np.float32, 9, 34, -12.9), (np.float64, 9, 9, -36)])
def test_gelu_is_accurate_in_its_tail(isa, dtype, limit, limit_below_6, end):
    """Down to where the bell, and up to where half of x, nears the smallest normal number."""
    x = np.concatenate([sweep(dtype), np.linspace(-14, 14, 20_000).astype(dtype)])
    x = x[np.abs(x) > 1e-37]
    actual = launch.gelu_forward(fastnn.tensor(x)).numpy()
    for part, most in ((~(x <= -6), limit), ((x <= -6) & (x > end), limit_below_6)):
        wide = x[part].astype(np.longdouble)
        assert ulps(actual[part], wide * normal_below(wide), flushed=dtype == np.float32) <= most
    assert (np.abs(actual[x <= end]) < 1e-34).all()


@pytest.mark.parametrize("name", [name for name in F.ACTIVATIONS if name != "glu"])
def test_every_name_gives_a_function_and_a_layer(name):
    x = fastnn.tensor(np.linspace(-3, 3, 12).reshape(3, 4))
    expected = F.activation(name)(x).numpy()
    np.testing.assert_array_equal(nn.Activation(name)(x).numpy(), expected)
    assert repr(nn.Activation(name)) == f"Activation({name!r})" and expected.shape == (3, 4)


def test_a_name_may_be_a_function_or_layer():
    layer = nn.PReLU(init=0.5)
    assert F.activation(F.silu) is F.silu and F.activation(layer) is layer
    assert nn.Activation(layer)(fastnn.tensor([-2.0])).item() == -1
    with pytest.raises(ValueError, match="name is 'swush', but must be one of identity, linear, relu, "):
        nn.Activation("swush")


def test_a_captured_step_of_all_layers_equals_eager():
    values = np.random.default_rng(0).standard_normal((6, 5, 8)).astype(np.float32)

    def run(wrap):
        layers = nn.PReLU, nn.GELU, nn.Maxout, nn.SELU, nn.GLU, nn.Softplus, nn.Mish, nn.Hardswish
        model = nn.Sequential(*(layer() for layer in layers))
        outputs = []

        def step(x):
            model.zero_grad()
            y = model(x)
            y.backward(y.detach())
            return y

        step = wrap(step)
        for batch in values:
            y = step(fastnn.tensor(batch))
            outputs += [y.detach().numpy().tobytes(), model[0].weight.grad.numpy().tobytes()]
        return outputs

    assert run(capture) == run(lambda step: step)


@pytest.mark.parametrize("make, message", [
    (lambda: nn.ELU(float("nan")), "elu: alpha is nan, but must be a finite number"),
    (lambda: nn.CELU(0), "celu: alpha is 0, but must be a number above 0"),
    (lambda: nn.CELU(-1.0), "alpha is -1.0"),
    (lambda: nn.GELU("erf"), "gelu: approximate is 'erf', but must be 'none' or 'tanh'"),
    (lambda: nn.Softplus(beta=0), "softplus: beta is 0, but must be a number above 0"),
    (lambda: nn.Softplus(threshold="high"), "softplus: threshold is 'high'"),
    (lambda: nn.Hardtanh(1.0, -1.0), "hardtanh: min_val is 1.0 and max_val -1.0, but min_val must be below max_val"),
    (lambda: nn.Softshrink(-0.5), "softshrink: lambd is -0.5, but must be a number of at least 0"),
    (lambda: nn.Hardshrink(None), "hardshrink: lambd is None"),
    (lambda: nn.Threshold(0.0, float("inf")), "threshold: value is inf"),
    (lambda: nn.PReLU(0), "PReLU: num_parameters is 0, but must be an integer of at least 1"),
    (lambda: nn.PReLU(3)(fastnn.zeros(2, 4)),
     r"prelu: weight has shape \(3,\), but for input \(2, 4\) it must be \(1,\) or \(4,\)"),
    (lambda: nn.Maxout(0), "Maxout: pieces is 0"),
    (lambda: nn.Maxout(3)(fastnn.zeros(2, 4)),
     r"maxout: pieces is 3, but must divide the extent of axis 1 of input \(2, 4\)"),
    (lambda: nn.GLU()(fastnn.zeros(2, 5)), r"glu: axis -1 of input \(2, 5\) has extent 5, but it must be even")])
def test_errors_say_what_is_allowed(make, message):
    with pytest.raises(ValueError, match=message):
        make()
