"""Attention on bfloat16 matrix units: against float64 and multiply-adds, layouts, masks, bits, what is not finite, programs."""

import numpy as np
import pytest
from amx import needs_amx

import fastnn
from fastnn import _core, nn
from fastnn._core import launch
from fastnn.testing.checks import forced_threads

pytestmark = needs_amx
NAMES = ("y", "dq", "dk", "dv")
# batch, heads, queries, keys, columns of queries and keys, of values: several blocks, groups of keys, tails, one tile of two
SHAPES = [
    (1, 2, 130, 130, 64, 64), (2, 1, 64, 200, 64, 64), (1, 1, 300, 70, 64, 96), (1, 1, 125, 220, 48, 80), (1, 1, 80, 144, 80, 48),
    (1, 2, 145, 145, 32, 32), (1, 1, 400, 300, 128, 16), (1, 1, 111, 113, 112, 64), (1, 1, 600, 600, 64, 64),
    (1, 1, 100, 600, 64, 64),
]


@pytest.fixture(autouse=True)
def settings():
    isa = _core.get_isa()
    _core.set_isa("amx")
    yield
    fastnn.set_float32_matmul_precision("highest")
    _core.set_isa(isa)


def operands(shape, seed=0):
    """q, k, v and y's gradient."""
    b, h, queries, keys, e, v = shape
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(np.float32)
            for s in ((b, h, queries, e), (b, h, keys, e), (b, h, keys, v), (b, h, queries, v))]


def mask_of(shape, kind, seed=1):
    b, h, queries, keys = shape[:4]
    rng = np.random.default_rng(seed)
    if kind == "bool":
        mask = rng.random((b, h, queries, keys)) < 0.7
        mask[0, 0, 5] = False
        return mask
    return rng.standard_normal((b, h, queries, keys)).astype(np.float32) if kind == "bias" else None


def attend(arrays, kind=None, isa="amx", precision="highest", lay_out=lambda x: x):
    """y and all gradients. kind: a mask's, or "causal"."""
    _core.set_isa(isa)
    fastnn.set_float32_matmul_precision(precision)
    shape = (*arrays[0].shape[:3], arrays[1].shape[2])
    mask = mask_of(shape, kind)
    *inputs, dy = (lay_out(fastnn.tensor(x)) for x in arrays)
    leaves = [x.detach().requires_grad_() for x in inputs]
    y = fastnn.scaled_dot_product_attention(*leaves, None if mask is None else fastnn.tensor(mask), is_causal=kind == "causal")
    y.backward(dy)
    return [np.array(t.detach().numpy()) for t in (y, *(leaf.grad for leaf in leaves))]


def reference(arrays, kind=None):
    q, k, v, dy = (x.astype(np.float64) for x in arrays)
    scale = q.shape[-1] ** -0.5
    scores = q @ k.swapaxes(-1, -2) * scale
    mask = mask_of(scores.shape, kind)
    if kind == "causal":
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    elif kind == "bool":
        scores = np.where(mask, scores, -np.inf)
    elif kind == "bias":
        scores = scores + mask
    top = scores.max(-1, keepdims=True)
    p = np.exp(scores - np.where(np.isinf(top), 0, top))
    total = p.sum(-1, keepdims=True)
    p /= np.where(total == 0, 1, total)
    y = p @ v
    ds = p * (dy @ v.swapaxes(-1, -2) - (dy * y).sum(-1, keepdims=True)) * scale
    return [y, ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ dy]


def errors(got, want):
    return {name: abs(a - b).max() / abs(b).max() for name, a, b in zip(NAMES, got, want)}


@pytest.mark.parametrize("kind", [None, "causal", "bool", "bias"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_highest_is_as_accurate_as_multiply_adds(shape, kind):
    arrays = operands(shape)
    want, ours, theirs = reference(arrays, kind), attend(arrays, kind), attend(arrays, kind, "avx512")
    for name, a, b in zip(NAMES, ours, theirs):
        assert not np.array_equal(a, b), f"{name} of this shape does not test the matrix units"
    error, error_fma = errors(ours, want), errors(theirs, want)
    assert all(error[name] <= 1.5 * error_fma[name] for name in NAMES), (error, error_fma)


@pytest.mark.parametrize("precision, bound", [("high", 2.0**-14), ("medium", 2.0**-5)])
@pytest.mark.parametrize("shape", SHAPES[:5], ids=str)
def test_fewer_parts_are_less_accurate_by_as_much_as_they_say(shape, precision, bound):
    arrays = operands(shape)
    error = errors(attend(arrays, "causal", precision=precision), reference(arrays, "causal"))
    assert all(bound / 100 < error[name] < bound for name in NAMES), error


@pytest.mark.parametrize("lay_out", [
    lambda x: x.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3),
    lambda x: x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2),
    lambda x: fastnn.cat([x, x], 3)[..., :x.shape[3]],
    lambda x: fastnn.stack([x, x], 4)[..., 0],
], ids=["heads beside one another", "columns apart", "rows apart", "neither together"])
def test_layouts_do_not_matter(lay_out):
    arrays = operands((1, 2, 130, 145, 64, 48))
    expected = attend(arrays, "bool")
    for name, got, want in zip(NAMES, attend(arrays, "bool", lay_out=lay_out), expected):
        np.testing.assert_array_equal(got, want, err_msg=name)


def test_heads_and_masks_may_be_broadcast():
    """One head and one row of a mask for all: strides of 0."""
    arrays = [x[:, :1] for x in operands((2, 1, 130, 130, 64, 64))]
    keep = np.arange(130) % 3 > 0
    results = []
    for expand in (True, False):
        q, k, v, dy = (fastnn.tensor(x).expand(2, 3, *x.shape[2:]) for x in arrays)
        mask = fastnn.tensor(keep).expand(2, 3, 130, 130)
        q, k, v, dy, mask = (x if expand else x.contiguous() for x in (q, k, v, dy, mask))
        options = {"scale": 0.125, "causal": 0}
        y, lse = launch.attention_forward(q, k, v, mask, **options)
        results.append([y, *launch.attention_backward(dy, q, k, v, y, lse, mask, **options)])
    for name, got, want in zip(NAMES, *results):
        np.testing.assert_array_equal(got.numpy(), want.numpy(), err_msg=name)


def test_results_in_memory_of_another_layout():
    q, k, v, dy = (fastnn.tensor(x) for x in operands((1, 2, 130, 145, 64, 48)))
    options = {"scale": 0.125, "causal": 1}
    y, lse = launch.attention_forward(q, k, v, None, **options)
    want = [y, *launch.attention_backward(dy, q, k, v, y, lse, None, **options)]
    got = [fastnn.zeros(*x.shape[:2], x.shape[3], x.shape[2]).permute(0, 1, 3, 2) for x in want]
    launch.attention_forward(q, k, v, None, out=(got[0], fastnn.zeros(1, 2, 130)), **options)
    launch.attention_backward(dy, q, k, v, y, lse, None, out=tuple(got[1:]), **options)
    for name, a, b in zip(NAMES, got, want):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)


@pytest.mark.parametrize("causal", [None, "causal"])
def test_any_number_of_threads_gives_the_same_bits(causal):
    arrays, results = operands((1, 1, 900, 900, 64, 64)), []
    for threads in (1, 2, 3):
        with forced_threads(threads):
            results.append([x.tobytes() for x in attend(arrays, causal)])
    assert all(r == results[0] for r in results)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("which", range(4))
def test_what_is_not_finite_comes_out_as_from_multiply_adds(which, value):
    """One element each: scores, outputs and gradients of other heads stay what they were."""
    arrays = operands((1, 3, 130, 130, 64, 64))
    arrays[which][0, 1, 40, 3] = value
    if value == 3e38:
        arrays[which][0, 1, 40] = value  # sums overflow
    ours = attend(arrays)
    assert not all(np.isfinite(x[:, 1]).all() for x in ours) and all(np.isfinite(x[:, ::2]).all() for x in ours)
    check_beside_multiply_adds(arrays)


def check_beside_multiply_adds(arrays, kind=None):
    """Infinities and NaN where multiply-adds have them, all else close."""
    for name, a, b in zip(NAMES, attend(arrays, kind), attend(arrays, kind, "avx512")):
        for what in (np.isnan, np.isposinf, np.isneginf):
            np.testing.assert_array_equal(what(a), what(b), err_msg=name)
        finite = np.isfinite(b)
        np.testing.assert_allclose(a[finite], b[finite], rtol=1e-3, atol=1e-6 * abs(b[finite]).max(initial=0), err_msg=name)


def test_scores_that_only_a_part_of_their_sum_exceeds_are_not_lost():
    """The chain of multiply-adds stays finite; a unit's sum of 32 products would be -inf, as if a mask forbade the key."""
    arrays = operands((1, 1, 130, 130, 64, 64))
    columns = [0, 32, 33, 48]
    arrays[0][0, 0, 40], arrays[1][0, 0, 50], arrays[1][..., columns] = 0, 0, 0  # query 40 weighs all keys alike
    arrays[0][0, 0, 40, columns] = 2.0**66  # times the scale, 1 / 8
    arrays[1][0, 0, 50, columns] = 2.0**64 * np.array([1.5, -1, -1, 0.5])
    ours, theirs = attend(arrays), attend(arrays, isa="avx512")
    assert np.isfinite(theirs[0]).all()
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_behind_a_mask(value):
    arrays = operands((1, 1, 200, 200, 64, 64))
    arrays[1][0, 0, 190, 5] = arrays[2][0, 0, 195, 6] = value
    check_beside_multiply_adds(arrays, "bool")


def test_outputs_and_gradients_that_overflow():
    arrays = operands((1, 1, 130, 130, 64, 64))
    arrays[2][0, 0, ::2] = 3e38  # sums of values, before they are divided by their weights' sum
    check_beside_multiply_adds(arrays)
    arrays = operands((1, 1, 130, 130, 64, 64))
    arrays[3][0, 0, :, 7] = 3e38
    check_beside_multiply_adds(arrays)


def test_a_query_without_keys_gives_zero_and_takes_no_gradient():
    y, dq, _, _ = attend(operands((1, 1, 130, 130, 64, 64)), "bool")
    assert not y[0, 0, 5].any() and not dq[0, 0, 5].any()


class _Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(fastnn.tensor(operands((2, 2, 100, 100, 64, 64), 3)[0]))

    def forward(self, shift):
        x = self.x + shift
        return fastnn.scaled_dot_product_attention(x, x, x, is_causal=True)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_captured_steps_are_eager_ones(precision):
    fastnn.set_float32_matmul_precision(precision)
    shift, dy = (fastnn.tensor(operands((2, 2, 100, 100, 64, 64), seed)[0]) for seed in (4, 5))
    results = []
    for wrap in (lambda step: step, fastnn.capture):
        layer = _Layer()

        def step(shift, layer=layer):
            y = layer(shift)
            y.backward(dy)
            launch.sub(layer.x.detach(), layer.x.grad, out=layer.x.detach())
            layer.zero_grad()
            return y.sum()

        step = wrap(step)
        results.append(([float(step(shift)) for _ in range(4)], np.array(layer.x.detach())))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert step.obstacle is None and step.replays == 2
