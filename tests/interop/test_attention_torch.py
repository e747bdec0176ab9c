"""Attention, transformer layers and embedding beside PyTorch: outputs and gradients, over their options, in float64."""

import numpy as np
import pytest

import fastnn
from fastnn import nn

torch = pytest.importorskip("torch")
F = torch.nn.functional


@pytest.fixture(autouse=True)
def plain_layers():
    """PyTorch's own layers, not the fused inference path of their encoder."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


def pairs(rng, *shapes):
    arrays = [rng.standard_normal(shape) for shape in shapes]
    return ([fastnn.tensor(a, "float64", requires_grad=True) for a in arrays],
            [torch.tensor(a, requires_grad=True) for a in arrays])


def close(ours, theirs, what=""):
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-8, atol=1e-10, err_msg=what)


def both(ours, theirs, y, expected):
    """Outputs, then the gradients of the given inputs."""
    close(y, expected, "output")
    dy = np.random.default_rng(9).standard_normal(y.shape)
    y.backward(fastnn.tensor(dy, "float64"))
    expected.backward(torch.tensor(dy))
    for k, (a, b) in enumerate(zip(ours, theirs)):
        close(a.grad, b.grad, f"gradient {k}")


def masks(kind, rng, shape):
    if kind is None:
        return None, None
    array = rng.random(shape) < 0.7 if kind == "bool" else rng.standard_normal(shape)
    if kind == "bool":
        array[..., 0] = True
    return fastnn.tensor(array, None if kind == "bool" else "float64"), torch.tensor(array)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 2, 3)])
@pytest.mark.parametrize("kind, causal, scale",
                         [(None, False, None), (None, True, 0.2), ("bool", False, None), ("real", False, None)])
@pytest.mark.parametrize("queries, keys", [(7, 11), (140, 135)])
def test_scaled_dot_product_attention(leading, kind, causal, scale, queries, keys):
    rng = np.random.default_rng(0)
    ours, theirs = pairs(rng, (*leading, queries, 8), (*leading, keys, 8), (*leading, keys, 5))
    mask = masks(kind, rng, (queries, keys))
    both(ours, theirs, fastnn.scaled_dot_product_attention(*ours, mask[0], is_causal=causal, scale=scale),
         F.scaled_dot_product_attention(*theirs, mask[1], is_causal=causal, scale=scale))


def test_a_learned_bias_takes_a_gradient():
    rng = np.random.default_rng(0)
    ours, theirs = pairs(rng, (2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 6), (3, 4, 5))
    both(ours, theirs, fastnn.scaled_dot_product_attention(*ours), F.scaled_dot_product_attention(*theirs))


def test_grouped_queries():
    ours, theirs = pairs(np.random.default_rng(0), (2, 6, 4, 8), (2, 2, 5, 8), (2, 2, 5, 6))
    both(ours, theirs, fastnn.scaled_dot_product_attention(*ours, enable_gqa=True),
         F.scaled_dot_product_attention(*theirs, enable_gqa=True))


def loaded(ours, theirs):
    """Both in float64 with one state."""
    rng = np.random.default_rng(4)
    theirs = theirs.double()
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.tensor(rng.standard_normal(p.shape) * 0.5))
    ours = ours.double()
    assert set(ours.state_dict()) == set(theirs.state_dict())
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return ours, theirs


def compare_parameters(ours, theirs):
    theirs = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        close(p.grad, theirs[name].grad, name)


@pytest.mark.parametrize("options",
                         [{}, {"bias": False}, {"batch_first": True}, {"kdim": 6, "vdim": 10}, {"add_bias_kv": True},
                                     {"add_zero_attn": True},
                          {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True}])
@pytest.mark.parametrize("mask, padding", [(None, False), ("bool", True), ("real", False), ("many", True)])
@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention(options, mask, padding, need_weights):
    rng = np.random.default_rng(1)
    ours, theirs = loaded(nn.MultiheadAttention(8, 2, **options), torch.nn.MultiheadAttention(8, 2, **options))
    shapes = [(5, 3, 8), (7, 3, options.get("kdim", 8)), (7, 3, options.get("vdim", 8))]
    if options.get("batch_first"):
        shapes = [(b, a, c) for a, b, c in shapes]
    inputs, expected_inputs = pairs(rng, *shapes)
    attn = masks("bool" if mask in ("bool", "many") else mask, rng, (6, 5, 7) if mask == "many" else (5, 7))
    if mask in ("bool", "many"):  # True hides
        attn = fastnn.logical_not(attn[0]), ~attn[1]
    hidden = np.zeros((3, 7), bool)
    hidden[1, 4:] = True
    pads = (fastnn.tensor(hidden), torch.tensor(hidden)) if padding else (None, None)
    y, weights = ours(*inputs, pads[0], need_weights, attn[0])
    expected, expected_weights = theirs(*expected_inputs, pads[1], need_weights, attn[1])
    both(inputs, expected_inputs, y, expected)
    compare_parameters(ours, theirs)
    assert (weights is None) == (expected_weights is None)
    if need_weights:
        close(weights, expected_weights)


@pytest.mark.parametrize("need_weights", [True, False])
def test_one_sequence_and_weights_of_each_head(need_weights):
    ours, theirs = loaded(nn.MultiheadAttention(8, 2), torch.nn.MultiheadAttention(8, 2))
    inputs, expected_inputs = pairs(np.random.default_rng(1), (5, 8), (7, 8))
    y, weights = ours(inputs[0], inputs[1], inputs[1], need_weights=need_weights, average_attn_weights=False)
    expected, expected_weights = theirs(expected_inputs[0], expected_inputs[1], expected_inputs[1],
                                        need_weights=need_weights,
                                        average_attn_weights=False)
    both(inputs, expected_inputs, y, expected)
    if need_weights:
        close(weights, expected_weights)


@pytest.mark.parametrize("options",
                         [{}, {"norm_first": True}, {"batch_first": True, "activation": "relu"}, {"bias": False}])
@pytest.mark.parametrize("masked", [False, True])
def test_encoder_and_decoder(options, masked):
    make = [library.TransformerEncoder(library.TransformerEncoderLayer(8, 2, 16, 0.0, **options), 2,
                                       library.LayerNorm(8))
            for library in (nn, torch.nn)]
    ours, theirs = loaded(*make)
    inputs, expected_inputs = pairs(np.random.default_rng(2), (3, 3, 8), (3, 3, 8))
    hidden = np.array([[False] * 3, [False, False, True], [False, True, True]])
    mask = (nn.Transformer.generate_square_subsequent_mask(3, "float64"),
            torch.nn.Transformer.generate_square_subsequent_mask(3).double())
    real = [np.where(hidden, -np.inf, 0.0)] * 2
    given = [(mask[k], (fastnn.tensor(real[0], "float64"), torch.tensor(real[1]))[k]) if masked else ()
             for k in range(2)]
    y, expected = ours(inputs[0], *given[0]), theirs(expected_inputs[0], *given[1])
    both(inputs[:1], expected_inputs[:1], y, expected)
    compare_parameters(ours, theirs)
    make = [library.TransformerDecoder(library.TransformerDecoderLayer(8, 2, 16, 0.0, **options), 2)
            for library in (nn, torch.nn)]
    ours, theirs = loaded(*make)
    inputs, expected_inputs = pairs(np.random.default_rng(3), (3, 3, 8), (3, 3, 8))
    both(inputs, expected_inputs, ours(*inputs, *given[0][:1]), theirs(*expected_inputs, *given[1][:1]))
    compare_parameters(ours, theirs)


def test_transformer():
    ours, theirs = loaded(nn.Transformer(8, 2, 2, 1, 16, 0.0), torch.nn.Transformer(8, 2, 2, 1, 16, 0.0))
    inputs, expected_inputs = pairs(np.random.default_rng(2), (5, 3, 8), (4, 3, 8))
    both(inputs, expected_inputs, ours(*inputs, tgt_is_causal=True),
         theirs(*expected_inputs, tgt_mask=torch.nn.Transformer.generate_square_subsequent_mask(4).double(),
                tgt_is_causal=True))
    compare_parameters(ours, theirs)


@pytest.mark.parametrize("options", [{}, {"padding_idx": 3}, {"padding_idx": -1}, {"max_norm": 1.0},
                                     {"max_norm": 2.0, "norm_type": 1.0},
                                     {"scale_grad_by_freq": True}])
def test_embedding(options):
    ours, theirs = loaded(nn.Embedding(9, 5, **options), torch.nn.Embedding(9, 5, **options))
    index = np.random.default_rng(5).integers(0, 9, (4, 6))
    both([], [], ours(fastnn.tensor(index)), theirs(torch.tensor(index)))
    compare_parameters(ours, theirs)
    close(ours.weight, theirs.weight)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="num_heads is 3, but must be at least 1 and divide embed_dim, 8"):
        nn.MultiheadAttention(8, 3)
    with pytest.raises(ValueError, match="dropout is 1"):
        nn.MultiheadAttention(8, 2, 1.0)
    with pytest.raises(ValueError, match="mask"):
        fastnn.scaled_dot_product_attention(*[fastnn.ones(1, 2, 3, 4)] * 3, fastnn.ones(3, 3), is_causal=True)
    with pytest.raises(ValueError, match="do not fit"):
        fastnn.scaled_dot_product_attention(fastnn.ones(1, 2, 3, 4), fastnn.ones(1, 2, 3, 5), fastnn.ones(1, 2, 3, 5))
    with pytest.raises(IndexError):
        nn.Embedding(3, 2)(fastnn.tensor(np.array([3])))
