"""Elements in order, running sums, scatters, places: what the OpSpecs do not ask. And hooks on tensors."""

import gc
import warnings
import weakref

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim
from fastnn._core import launch


@pytest.mark.parametrize("n", [1, 2, 39, 40, 41, 300, 5000])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8", "bool"])
def test_sorting_is_stable_at_every_length(n, dtype):
    x = np.random.default_rng(n).integers(0 if dtype in ("uint8", "bool") else -5, 6, (3, n)).astype(dtype)
    values, places = fastnn.tensor(x).sort()
    expected = np.argsort(x, -1, kind="stable")
    np.testing.assert_array_equal(places.numpy(), expected)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, expected, -1))
    k = max(n // 9, 1)
    np.testing.assert_array_equal(fastnn.tensor(x).topk(k, largest=False).indices.numpy(), expected[:, :k])


def test_special_numbers_in_order():
    x = fastnn.tensor([np.nan, 1.0, -np.inf, 0.0, -0.0, np.inf, -np.nan, 1e-40, -3.0])
    values, places = x.sort()
    assert places.tolist() == [2, 8, 3, 4, 7, 1, 5, 0, 6]
    assert np.signbit(values.numpy()[2:4]).tolist() == [False, True]
    assert x.sort(descending=True).indices.tolist() == [0, 6, 5, 1, 7, 3, 4, 8, 2]
    assert fastnn.tensor(3.0).sort().values.item() == 3 and fastnn.zeros(0, 4).sort(0).values.shape == (0, 4)


@pytest.mark.parametrize("options", [{}, {"keepdim": True}, {"dim": 0}, {"dim": -1, "keepdim": True}, {"interpolation": "nearest"}])
def test_several_quantiles_sort_once(options, monkeypatch):
    sorts, op = [], launch.sort
    monkeypatch.setattr(launch, "sort", lambda *inputs, **attributes: sorts.append(1) or op(*inputs, **attributes))
    x = np.random.default_rng(0).standard_normal((6, 5))
    x[0, 0] = np.nan
    shares = [0.1, 0.5, 0.9, 1.0]
    several, single = (fastnn.tensor(x, requires_grad=True) for _ in range(2))
    y = several.quantile(shares, **options)
    assert len(sorts) == 1
    expected = [single.quantile(share, **options) for share in shares]
    assert y.shape == (4, *expected[0].shape)
    np.testing.assert_array_equal(y.detach().numpy(), [e.detach().numpy() for e in expected])
    y.sum().backward()
    sum(e.sum() for e in expected).backward()
    np.testing.assert_allclose(several.grad.numpy(), single.grad.numpy(), rtol=1e-14)
    assert several.quantile(np.array(shares), **options).shape == y.shape


def test_orders_and_sums_are_captured():
    x = np.random.default_rng(0).standard_normal((6, 50)).astype(np.float32)
    given = fastnn.tensor(x, requires_grad=True)

    def step(t):
        t.grad = None
        (t.sort(1).values.cumsum(1) * t.topk(50).values + t.median(1, True).values + t.quantile(0.3)).sum().backward()
        return t.grad

    eager = step(given).numpy().copy()
    program = fastnn.capture(step)
    for _ in range(4):
        np.testing.assert_array_equal(program(given).numpy(), eager)
    assert program.obstacle is None


@pytest.mark.parametrize("name, arguments", [("nonzero", ()), ("unique", ()), ("unique_consecutive", ()),
                                             ("masked_select", (True,)),
                                             ("bincount", ())])
def test_shapes_that_depend_on_elements_are_not_captured(name, arguments):
    x = fastnn.tensor([0, 2, 2, 1])
    arguments = (x > 0,) if arguments else ()
    program = fastnn.capture(lambda t: getattr(t, name)(*arguments))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            np.testing.assert_array_equal(program(x).numpy(), getattr(x, name)(*arguments).numpy())
    assert f"{name}: the shape of its result depends on elements" in program.obstacle and "test_order.py" in program.obstacle
    assert len(caught) == 1


def test_scattered_integers_and_negative_indices():
    x, i = fastnn.zeros(2, 3, dtype=fastnn.int64), fastnn.tensor([[0, 0, 2]])
    assert x.scatter_add(1, i, fastnn.tensor([[1, 2, 3]])).tolist() == [[3, 0, 3], [0, 0, 0]]
    assert x.scatter(1, i, 7).tolist() == [[7, 0, 7], [0, 0, 0]]
    assert fastnn.zeros(3).index_fill(0, [-1], 2.0).tolist() == [0, 0, 2]
    with pytest.raises(IndexError, match="element 1 of index is 3"):
        fastnn.zeros(3).scatter(0, [0, 3], 1.0)
    with pytest.raises(TypeError, match="src is int64, but must be float32"):
        fastnn.zeros(3).scatter(0, [0], fastnn.tensor([1]))
    with pytest.raises(TypeError, match="products have no gradient"):
        fastnn.ones(3, requires_grad=True).scatter_reduce(0, [0], 2.0, "prod")


def test_draws_follow_their_weights():
    fastnn.manual_seed(3)
    weights = fastnn.tensor([0.1, 0.0, 0.6, 0.3])
    for replacement, rows in ((True, weights), (False, weights.expand(20_000, 4))):
        draws = fastnn.multinomial(rows, 20_000 if replacement else 1, replacement)
        shares = np.bincount(draws.numpy().ravel(), minlength=4) / 20_000
        np.testing.assert_allclose(shares, weights.numpy(), atol=0.015)
    assert sorted(fastnn.multinomial(fastnn.ones(5), 5).tolist()) == [0, 1, 2, 3, 4]
    assert fastnn.multinomial(fastnn.ones(2, 5), 3).shape == (2, 3)
    assert abs(fastnn.bernoulli(fastnn.full((20_000,), 0.3)).mean().item() - 0.3) < 0.015
    x = fastnn.zeros(20_000)
    assert abs(x.exponential_(2.0).mean().item() - 0.5) < 0.02 and set(x.bernoulli_(0.5).unique().tolist()) == {0, 1}


def test_what_has_no_weight_is_never_drawn(monkeypatch):
    """Not even where the random numbers are 0, as one in 2^24 is."""
    monkeypatch.setattr("fastnn.random.rand", lambda shape, **options: fastnn.zeros(*shape, dtype=options["dtype"]))
    assert fastnn.multinomial(fastnn.tensor([0.0, 1.0, 0.0]), 1).tolist() == [1]
    assert sorted(fastnn.multinomial(fastnn.tensor([0.0, 1.0, 0.0, 2.0, 0.0]), 2).tolist()) == [1, 3]
    rows = fastnn.tensor([[0.0, 1.0, 0.0, 2.0, 0.0], [3.0, 0.0, 0.0, 0.0, 0.0]])
    assert fastnn.multinomial(rows, 3, True).tolist() == [[3] * 3, [0] * 3]
    monkeypatch.setattr("fastnn.random.rand", lambda shape, **options: fastnn.full(shape, 1 - 2.0**-53, dtype=options["dtype"]))
    assert fastnn.multinomial(rows, 3, True).tolist() == [[1] * 3, [0] * 3]


def test_rows_are_drawn_from_by_their_own_weights():
    fastnn.manual_seed(4)
    rows = np.random.default_rng(0).uniform(0, 1, (3, 7))
    for dtype in (np.float32, np.float64):
        draws = fastnn.multinomial(fastnn.tensor(rows.astype(dtype)), 20_000, True).numpy()
        shares = np.stack([np.bincount(row, minlength=7) for row in draws]) / 20_000
        np.testing.assert_allclose(shares, rows / rows.sum(1, keepdims=True), atol=0.015)


# ---- hooks on tensors -------------------------------------------------------------------------------------------------


def test_hooks_that_cannot_be_called_are_refused():
    x = fastnn.ones(2, requires_grad=True)
    for register in (x.register_hook, x.register_post_accumulate_grad_hook):
        with pytest.raises(TypeError, match="hook: it is 5, but must be callable"):
            register(5)


def test_hooks_see_and_change_gradients():
    x, seen = fastnn.tensor([1.0, 2.0], requires_grad=True), []
    y = x * 3
    handle = y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 2)
    z = (y * y).sum() + y.sum()
    z.backward(retain_graph=True)
    assert seen == [[7, 13]] and x.grad.tolist() == [42, 78]
    handle.remove()
    x.register_hook(lambda g: seen.append(g.tolist()) or -g)
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.tolist()))
    x.grad = None
    (y.sum() + (x * x).sum()).backward()
    assert seen[1:] == [[8, 10], [-8, -10]]  # all of a leaf's gradient at once


def test_what_hooks_keep_is_theirs():
    x, kept = fastnn.tensor([1.0, 2.0], requires_grad=True), []
    x.register_hook(kept.append)
    for _ in range(2):
        (x * 2).sum().backward()
    assert [g.tolist() for g in kept] == [[2, 2], [2, 2]] and x.grad.tolist() == [4, 4]


def test_hooks_that_do_not_fit_are_refused():
    x = fastnn.ones(2, requires_grad=True)
    handle = x.register_hook(lambda g: g[:1])
    with pytest.raises(RuntimeError, match=r"returned float32 \(1,\) for a gradient float32 \(2,\)"):
        x.sum().backward()
    handle.remove()
    x.register_hook(lambda g: 3)
    with pytest.raises(TypeError, match="must return a Tensor or None"):
        x.sum().backward()
    with pytest.raises(RuntimeError, match="does not require grad"):
        fastnn.ones(2).register_hook(print)
    with pytest.raises(RuntimeError, match="no leaf"):
        (x * 2).register_post_accumulate_grad_hook(print)


def test_retained_gradients():
    x = fastnn.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    y.retain_grad(), y.retain_grad()
    (y * y).sum().backward()
    assert y.grad.tolist() == [6, 12]
    alive = weakref.ref(y)
    del y
    gc.collect()
    assert alive() is None


def test_backward_for_some_leaves_only():
    a, b = (fastnn.ones(2, requires_grad=True) for _ in range(2))
    (a * b).sum().backward(inputs=[b])
    assert a.grad is None and b.grad.tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"inputs\[0\] must be a leaf"):
        (a * b).sum().backward(inputs=[a * 2])
    with pytest.raises(ValueError, match="inputs is empty"):
        (a * b).sum().backward(inputs=[])


def test_hooks_take_part_in_captured_steps():
    weights = []
    for capture in (False, True):
        fastnn.manual_seed(0)
        layer = nn.Linear(4, 3)
        layer.weight.register_hook(lambda g: g.clamp(-0.01, 0.01))
        optimizer = optim.SGD(layer.parameters(), lr=0.1)

        def step(x):
            optimizer.zero_grad()
            loss = layer(x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        run = fastnn.capture(step) if capture else step
        for k in range(5):
            run(fastnn.full((2, 4), float(k + 1)))
        weights.append(layer.weight.detach().numpy().copy())
        assert not capture or run.obstacle is None and run.replays == 3
    np.testing.assert_array_equal(*weights)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8"])
@pytest.mark.parametrize("largest", [True, False])
def test_few_of_a_long_line(dtype, largest):
    """Found block by block without sorting: NaN, infinities, equal values and values that come late."""
    rng = np.random.default_rng(8)
    x = rng.integers(0, 200, (6, 3000)).astype(dtype)
    x[1] = np.sort(x[1])
    x[2] = np.sort(x[2])[::-1]
    if x.dtype.kind == "f":
        x[3, [5, 700, 2999]], x[4, 100], x[5, [1500, 10]] = np.nan, np.inf, -np.inf
        x[5, 20:2000:7] = np.nan
    keys = np.where(np.isnan(x.astype(np.float64)), 1e300, np.minimum(x.astype(np.float64), 1e299))
    order = np.argsort(-keys if largest else keys, axis=1, kind="stable")[:, :40]
    values, indices = fastnn.tensor(x).topk(40, largest=largest)
    np.testing.assert_array_equal(indices.numpy(), order)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, order, 1))
