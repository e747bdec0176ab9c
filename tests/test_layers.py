"""Every layer of the list: against its function, against differences, through its state."""

import numpy as np
import pytest

import fastnn
from fastnn import nn
from fastnn.testing import layers
from fastnn.testing.layers import LAYERS

IDS = [f"{spec.name}-{k}" for k, spec in enumerate(LAYERS)]


@pytest.mark.parametrize("spec", LAYERS, ids=IDS)
def test_layer_is_its_function(spec):
    layers.check_layer_function(spec)


@pytest.mark.parametrize("spec", [pytest.param(s, id=i) for s, i in zip(LAYERS, IDS) if s.differentiable])
def test_layer_gradients(spec):
    layers.check_layer_gradients(spec)


@pytest.mark.parametrize("spec", LAYERS, ids=IDS)
def test_layer_state(spec):
    layers.check_layer_state(spec)


def test_a_wrong_gradient_is_noticed():
    class Wrong(nn.Module):
        def forward(self, x):
            return x * x.detach()

    spec = layers.LayerSpec(Wrong, (3, 4), lambda layer, x: x * x)
    layers.check_layer_function(spec)
    with pytest.raises(AssertionError, match="gradient"):
        layers.check_layer_gradients(spec)


def test_containers_hold_layers():
    layer = nn.Linear(2, 3)
    assert list(nn.ModuleList([layer]).parameters()) == list(nn.ModuleDict({"a": layer}).parameters())
    assert nn.ModuleDict({"a": layer})["a"] is nn.ModuleList([layer])[0] is layer
    assert [n for n, _ in nn.ModuleDict({"a": layer}).named_parameters()] == ["a.weight", "a.bias"]
    assert fastnn.nn.Sequential(nn.ModuleList([layer])[0])(fastnn.ones(1, 2)).shape == (1, 3)


def test_modules_change_type():
    layer = nn.BatchNorm2d(3)
    assert layer.to(fastnn.float64) is layer
    assert {str(v.dtype) for v in layer.state_dict().values()} == {"float64", "int64"}
    assert layer.to(np.float32).weight.dtype is fastnn.float32
    with pytest.raises(TypeError, match="dtype is 'int64'"):
        layer.to("int64")


def test_zero_grad_as_in_pytorch():
    layer = nn.Linear(2, 1)
    layer(fastnn.ones(3, 2)).sum().backward()
    layer.zero_grad(set_to_none=False)
    assert layer.weight.grad.tolist() == [[0, 0]] and layer.bias.grad.tolist() == [0]
    layer.zero_grad()
    assert layer.weight.grad is None
    layer.zero_grad(set_to_none=False)  # nothing there to fill
    assert layer.bias.grad is None
