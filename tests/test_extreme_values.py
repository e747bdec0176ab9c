"""Calls that would never end, answer with wrong numbers, or fail somewhere inside: answered, or refused by name."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn
from fastnn.data import Mixup
from fastnn.nn import init


def test_graphs_of_expanded_tensors_end():
    x = fastnn.tensor([[1.0], [2.0], [6.0]]).expand(3, 2**40)
    assert "mean 3, from 1 to 6" in x.graph()


def test_dirac_of_nothing_ends():
    assert init.dirac_(fastnn.ones(0, 4, 3, 3), 2**31 - 1).shape == (0, 4, 3, 3)
    assert init.dirac_(fastnn.ones(4, 4, 0, 3)).shape == (4, 4, 0, 3)


@pytest.mark.parametrize("p", [1.5, 5.0, 40.0, 90.0, 400.0])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_norms_of_high_order_neither_vanish_nor_overflow(p, scale):
    x = np.random.default_rng(0).standard_normal((3, 4)) * scale
    norms = (np.abs(x / scale)**p).sum(1, keepdims=True)**(1 / p) * scale
    y = F.normalize(fastnn.tensor(x, "float32"), p=p)
    np.testing.assert_allclose(y.numpy(), x / norms, rtol=2e-5)
    assert fastnn.gradcheck(lambda t: F.normalize(t, p=p), fastnn.tensor(x / scale))


def test_norms_of_zeros_and_infinities():
    x = fastnn.tensor([[0.0, 0.0], [np.inf, 1.0], [np.nan, 1.0]], requires_grad=True)
    distances = F.pairwise_distance(x, fastnn.zeros(3, 2), p=50.0, eps=0.0)
    np.testing.assert_array_equal(distances.detach().numpy() > 1e-30, [False, True, False])
    assert distances[1].item() == np.inf and np.isnan(distances[2].item())
    distances[0].backward()
    assert np.isfinite(x.grad[0].numpy()).all()


@pytest.mark.parametrize("make", [fastnn.tril_indices, fastnn.triu_indices])
@pytest.mark.parametrize("extents, name", [((-1, 3), "row"), ((3, -2), "col"), ((2**63 - 1, 3), "row"), ((3, 2**62), "col")])
def test_places_of_no_matrix(make, extents, name):
    with pytest.raises(ValueError, match=f"{make.__name__}: {name}"):
        make(*extents)


@pytest.mark.parametrize("eps", [-0.3, float("nan"), "x"])
def test_batch_norm_refuses_eps(eps):
    with pytest.raises(ValueError, match="batch_norm: eps"):
        F.batch_norm(fastnn.ones(2, 3), fastnn.zeros(3), fastnn.ones(3), eps=eps)


_REFUSED = {  # call: what is said, in whose name
    "embedding of a vector": (lambda: F.embedding([0], fastnn.ones(3)), ValueError, "embedding: weight has shape"),
    "cell's 0-d input": (lambda: nn.GRUCell(3, 2)(fastnn.tensor(1.0)), ValueError, "GRUCell: input has shape"),
    "cell's 0-d state": (lambda: nn.RNNCell(3, 2)(fastnn.ones(3), fastnn.tensor(1.0)), ValueError, "RNNCell: a state has shape"),
    "one state of two": (lambda: nn.LSTMCell(3, 2)(fastnn.ones(1, 3), fastnn.ones(1, 2)), TypeError, "LSTMCell: hx"),
    "no states": (lambda: nn.LSTMCell(3, 2)(fastnn.ones(1, 3), 5), TypeError, "LSTMCell: hx"),
    "no classes": (lambda: F.multi_margin_loss(fastnn.ones(0, 0), fastnn.zeros(0, dtype=fastnn.int64)), ValueError, "at least one class"),
    "values of another batch": (lambda: F.scaled_dot_product_attention(*[fastnn.ones(n, 3, 4) for n in (2, 2, 5)]), ValueError,
                                "scaled_dot_product_attention: query has shape"),
    "list as reduce": (lambda: F.scatter_reduce(fastnn.ones(3), 0, [0], fastnn.ones(1), []), ValueError, "scatter_reduce: reduce"),
    "array as padding_mode": (lambda: nn.Conv2d(1, 1, 1, padding_mode=np.ones(2)), ValueError, "padding_mode"),
    "dict as mode": (lambda: nn.Upsample(scale_factor=2, mode={}), ValueError, "Upsample: mode"),
    "list as activation": (lambda: nn.Activation([1]), ValueError, "activation: name"),
    "list as nonlinearity": (lambda: init.calculate_gain([]), ValueError, "calculate_gain: nonlinearity"),
    "array as nonlinearity": (lambda: init.kaiming_normal_(fastnn.ones(2, 2), nonlinearity=np.ones(2)), ValueError, "nonlinearity"),
    "number to interleave": (lambda: F.repeat_interleave(2.5, 2, 0), TypeError, "repeat_interleave: input"),
    "number to roll": (lambda: F.roll(2.5, 1, 0), TypeError, "roll: input"),
    "number's places": (lambda: F.nonzero(2.5, as_tuple=True), TypeError, "nonzero: input"),
    "cut at 1.5": (lambda: fastnn.tensor_split(fastnn.ones(3), [1.5]), TypeError, "tensor_split: indices_or_sections"),
    "expanded to a word": (lambda: fastnn.ones(1).expand("same"), TypeError, "expand: an extent"),
    "shapes of allclose": (lambda: fastnn.allclose(fastnn.ones(8, 3), fastnn.ones(3, 3)), ValueError, "do not broadcast"),
    "backward to a number": (lambda: fastnn.ones(1, requires_grad=True).sum().backward(inputs=5), TypeError, "backward: inputs"),
    "norm of a number": (lambda: nn.utils.get_total_norm(2.5), TypeError, "get_total_norm: tensors"),
    "gradients of a number": (lambda: nn.utils.clip_grad_value_(2.5, 1.0), TypeError, "parameters is 2.5"),
    "vector of a number": (lambda: nn.utils.parameters_to_vector(2.5), TypeError, "parameters_to_vector: parameters"),
    "vector to a number": (lambda: nn.utils.vector_to_parameters(fastnn.ones(1), 2.5), TypeError, "vector_to_parameters: parameters"),
    "pack of a number": (lambda: nn.utils.rnn.pack_sequence(2.5), TypeError, "pack_sequence: sequences"),
    "written at a number": (lambda: fastnn.ones(3).index_put_(1, 2.0), TypeError, "index_put_: indices"),
    "rows of different lengths": (lambda: fastnn.ones(3, 3)[[[1, 2], [0]]], TypeError, "index: "),
    "number as function": (lambda: fastnn.jacobian(2.5, fastnn.ones(1)), TypeError, "jacobian: fn"),
    "number applied": (lambda: nn.Linear(1, 1).apply(3), TypeError, "apply: fn"),
    "window beyond the map": (lambda: F.unfold(fastnn.ones(1, 2, 6, 6), 2**62), ValueError, "unfold: kernel_size"),
    "window a little too wide": (lambda: F.unfold(fastnn.ones(1, 2, 6, 6), 5, dilation=2, padding=1), ValueError, "unfold: kernel_size"),
    "map beyond 2^31": (lambda: F.interpolate(fastnn.ones(1, 2, 6, 6), scale_factor=2**62), ValueError, "interpolate: the result"),
    "size beyond 2^31": (lambda: F.interpolate(fastnn.ones(1, 2, 6, 6), 2**40), ValueError, "interpolate: the result"),
    "nails beyond 2^31": (lambda: F.bed_of_nails2d(fastnn.ones(1, 2, 6, 6), 2**62), ValueError, "bed_of_nails2d: the result"),
    "endless smoothing": (lambda: F.elastic_flow(fastnn.ones(1, 2, 6, 6), sigma=1e19), ValueError, "elastic_flow: sigma"),
    "mixture of no batch": (lambda: Mixup(3)(fastnn.tensor(1.0), [0]), ValueError, "Mixup: x has shape"),
    "steps without end": (lambda: fastnn.linspace(0, 1, 2**63 - 1), ValueError, "linspace: steps"),
    "steps below 0": (lambda: fastnn.logspace(0, 1, -1), ValueError, "logspace: steps"),
    "array as mode of bags": (lambda: F.embedding_bag([[0]], fastnn.ones(2, 2), mode=np.array(1)), ValueError, "embedding_bag: mode"),
    "tuple as eps": (lambda: F.logit(fastnn.ones(2), (1,)), TypeError, "logit: eps"),
}


@pytest.mark.parametrize("what", _REFUSED)
def test_refused_by_name(what):
    call, kind, message = _REFUSED[what]
    with pytest.raises(kind, match=message):
        call()


def test_what_goes_through():
    assert nn.LayerNorm(3, bias=None).bias is None
    assert fastnn.ones(1).new_full(3, 2.0).tolist() == [2.0, 2.0, 2.0]
    packed = nn.utils.rnn.pack_sequence(fastnn.ones(n, 2) for n in (3, 1))
    assert [t.shape for t in nn.utils.rnn.unpack_sequence(packed)] == [(3, 2), (1, 2)]


@pytest.mark.parametrize("data", [[2**63], 2**64 - 1, np.array([2**63 + 5], np.uint64), np.uint64(2**63)])
def test_integers_beyond_int64_do_not_turn_negative(data):
    for make in (fastnn.tensor, fastnn.as_tensor, lambda data: fastnn.ones(1, dtype=fastnn.int64) + np.asarray(data)):
        with pytest.raises(ValueError, match="an element is .* must fit int64"):
            make(data)
    assert fastnn.tensor(np.array([3, 2**63 - 1], np.uint64)).tolist() == [3, 2**63 - 1]
    assert fastnn.tensor(data, "float64").max().item() >= 2.0**63


@pytest.mark.parametrize("key", [slice(None, None, 2**62), slice(None, None, -2**63), (1, slice(1, 10**30, 10**30)),
                                 slice(2, 0, 2**63 - 1)])
def test_steps_that_nobody_takes(key):
    x = np.arange(24.0).reshape(3, 4, 2)
    t = fastnn.tensor(x, requires_grad=True)
    np.testing.assert_array_equal(t[key].detach().numpy(), x[key])
    t[key].sum().backward()
    counts = np.zeros_like(x)
    counts[key] = 1
    np.testing.assert_array_equal(t.grad.numpy(), counts)
