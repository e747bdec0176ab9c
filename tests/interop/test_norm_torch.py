"""Layer, RMS, group and instance normalisation give what PyTorch gives, over all options."""

import numpy as np
import pytest

import fastnn
from fastnn import nn

torch = pytest.importorskip("torch")


def compare(ours, theirs, shape, calls=1):
    """Outputs, gradients and state of two layers with the same random parameters, in float64."""
    rng = np.random.default_rng(1)
    theirs, ours = theirs.double(), ours.double()
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.tensor(rng.standard_normal(p.shape)))
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    for _ in range(calls):
        x, dy = (rng.standard_normal(shape) for _ in range(2))
        a, b = fastnn.tensor(x, "float64", requires_grad=True), torch.tensor(x, requires_grad=True)
        y, expected = ours(a), theirs(b)
        np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=1e-9, atol=1e-10)
        y.backward(fastnn.tensor(dy, "float64"))
        expected.backward(torch.tensor(dy))
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-8, atol=1e-9)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters()):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-8, atol=1e-9, err_msg=name)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name].numpy(), value.numpy(), rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("shape, normalized",
                         [((4, 7), 7), ((3, 5, 33), 33), ((2, 3, 4, 5), (3, 4, 5)), ((2, 3, 4, 5), (5,))])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"elementwise_affine": False}, {"eps": 0.3}])
def test_layer_norm(shape, normalized, options):
    compare(nn.LayerNorm(normalized, **options), torch.nn.LayerNorm(normalized, **options), shape)


@pytest.mark.parametrize("shape, normalized", [((4, 7), 7), ((2, 3, 4, 5), (4, 5))])
@pytest.mark.parametrize("options", [{}, {"elementwise_affine": False}, {"eps": 0.3}])
def test_rms_norm(shape, normalized, options):
    compare(nn.RMSNorm(normalized, **options), torch.nn.RMSNorm(normalized, **options), shape)


@pytest.mark.parametrize("shape, groups", [  # but for groups of one value, which PyTorch refuses
    *(((4, 12), groups) for groups in (1, 3)),
    *((shape, groups) for shape in ((3, 12, 7), (2, 12, 5, 6), (2, 12, 2, 3, 4)) for groups in (1, 3, 12))])
@pytest.mark.parametrize("affine", [True, False])
def test_group_norm(shape, groups, affine):
    compare(nn.GroupNorm(groups, 12, affine=affine), torch.nn.GroupNorm(groups, 12, affine=affine), shape)


@pytest.mark.parametrize("shape", [(3, 6, 7), (6, 7), (2, 6, 5, 4), (6, 5, 4)])
@pytest.mark.parametrize("affine, track, momentum", [(False, False, 0.1), (True, True, 0.3), (True, True, None)])
@pytest.mark.parametrize("training", [True, False])
def test_instance_norm(shape, affine, track, momentum, training):
    kind = "InstanceNorm2d" if shape[-1] == 4 else "InstanceNorm1d"
    layers = [getattr(library, kind)(6, 1e-3, momentum, affine, track).train(training) for library in (nn, torch.nn)]
    layers[1].double()
    if track and not training:
        layers[1].running_var.fill_(0.7)
    compare(*layers, shape, calls=2)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="normalized_shape"):
        nn.LayerNorm(5)(fastnn.ones(2, 4))
    with pytest.raises(ValueError, match="num_groups"):
        nn.GroupNorm(3, 4)
    with pytest.raises(ValueError, match="more than one position"):
        nn.InstanceNorm1d(3)(fastnn.ones(2, 3, 1))
    with pytest.raises(ValueError, match="groups"):
        fastnn.group_norm(fastnn.ones(2, 4, 3), 3)
