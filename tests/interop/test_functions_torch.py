"""Functions of the library's top level beside PyTorch's: searching, contraction, statistics, random numbers, types."""

import numpy as np
import pytest

import fastnn

torch = pytest.importorskip("torch")


def both(call):
    """What `call(library)` gives, as arrays, of fastnn and of PyTorch."""
    results = []
    for library in (fastnn, torch):
        value = call(library)
        results.append([np.asarray(part) for part in value] if isinstance(value, (tuple, list)) else [np.asarray(value)])
    return results


def assert_same(call, **tolerance):
    for a, b in zip(*both(call), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, **(tolerance or {"rtol": 0}))


SORTED = np.array([[-2.0, 0, 0, 1.5, 3], [-1, -1, 2, 2, 2]])
VALUES = np.array([[0.0, 4, -3], [2, np.inf, np.nan]])
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((3, 4, 5)).astype(np.float32), RNG.standard_normal((4, 5, 2)).astype(np.float32)
CALLS = {
    **{f"searchsorted-{k}": lambda L, o=o: L.searchsorted(L.tensor(SORTED), L.tensor(VALUES), **o)
       for k, o in enumerate(({}, {"right": True}, {"side": "right"}, {"side": "left"}, {"out_int32": True}))},
    "searchsorted-number": lambda L: L.searchsorted(L.tensor(SORTED[0]), 1.0),
    "searchsorted-line": lambda L: L.searchsorted(L.tensor([1, 3, 5, 7, 9]), L.tensor([[3, 6, 9], [0, 10, 1]])),
    "searchsorted-sorter": lambda L: L.searchsorted(L.tensor([5.0, 1, 3]), L.tensor([0.0, 2, 4, 6]), sorter=L.tensor([1, 2, 0])),
    "searchsorted-wide": lambda L: L.searchsorted(L.tensor([2**53, 2**53 + 1]), L.tensor([2**53 + 1])),
    "bucketize": lambda L: L.bucketize(L.tensor([[3, 6, 9], [3, 6, 9]]), L.tensor([1, 3, 5, 7, 9])),
    "bucketize-right": lambda L: L.bucketize(L.tensor([0.5, 1, 9.5]), L.tensor([1.0, 3, 5]), right=True, out_int32=True),
    "isin": lambda L: L.isin(L.tensor([[1, 2], [3, 4]]), L.tensor([2, 3, 9])),
    "isin-number": lambda L: L.isin(L.tensor([1.0, 2.0, np.nan]), 2.0, invert=True),
    "isin-nan": lambda L: L.isin(L.tensor([1.0, 2.0, np.nan]), L.tensor([np.nan, 5.0, 1.0, 0.5])),
    **{f"tensordot-{k}": lambda L, d=d: L.tensordot(L.tensor(X), L.tensor(Y), d)
       for k, d in enumerate((2, ([1, 2], [0, 1]), ([-1], [1]), 0))},
    "tensordot-integers": lambda L: L.tensordot(L.arange(6).reshape(2, 3), L.arange(12).reshape(3, 4), dims=1),
    **{f"{name}-{k}": lambda L, name=name, o=o: getattr(L, name)(L.tensor(X), **o)
       for name in ("std_mean", "var_mean", "std", "var")
       for k, o in enumerate(({}, {"dim": 1}, {"dim": (0, 2), "keepdim": True}, {"dim": -1, "unbiased": False},
                              {"unbiased": True, "dim": 0}, {"dim": 0, "correction": 0}))},
    "mean-dtype": lambda L: L.mean(L.arange(5), dtype=L.float64),
    "column_stack": lambda L: L.column_stack([L.arange(3), L.ones(3, 2)]),
    "broadcast_tensors": lambda L: L.broadcast_tensors(L.tensor(X), L.arange(5)),
    "tril_indices": lambda L: L.tril_indices(3, 4, 1), "triu_indices": lambda L: L.triu_indices(4, 3, offset=-1),
    "logspace": lambda L: L.logspace(-3, 2, 6), "logspace-base": lambda L: L.logspace(0, 3, steps=4, base=2),
    "concatenate": lambda L: L.concatenate((L.tensor(X), L.tensor(X)), 1), "row_stack": lambda L: L.row_stack([L.ones(2), L.zeros(2)]),
    "cat-nothing": lambda L: L.cat([L.tensor([]), L.tensor(X)], 1), "cat-only-nothing": lambda L: L.cat([L.tensor([]), L.tensor([])]),
    "aminmax": lambda L: L.aminmax(L.tensor(X), dim=0), "full": lambda L: L.full(size=(2, 3), fill_value=2),
    "zeros": lambda L: L.zeros(size=(2, 3)), "ones": lambda L: L.ones(size=[2], dtype=L.long),
    **{name: lambda L, name=name: getattr(L, name)(L.tensor(X)) for name in (
        "absolute", "arctan", "arcsinh", "erfc", "fix", "fliplr", "flipud", "negative", "positive", "ravel", "sgn", "detach")},
    **{name: lambda L, name=name: getattr(L, name)(L.tensor(X), L.tensor(Y[:, :, 0])) for name in (
        "subtract", "multiply", "divide", "true_divide", "greater", "greater_equal", "less", "less_equal", "not_equal", "arctan2")},
}


@pytest.mark.parametrize("name", CALLS)
def test_as_pytorch_s(name):
    tight = any(part in name for part in ("search", "bucket", "isin", "indices", "cat", "stack"))
    assert_same(CALLS[name], **({} if tight else {"rtol": 1e-5, "atol": 1e-6}))


@pytest.mark.parametrize("name", ["std_mean", "var_mean"])
def test_gradients_of_pairs(name):
    gradients = []
    for L in (fastnn, torch):
        x = L.tensor(X, requires_grad=True)
        spread, middle = getattr(L, name)(x, dim=(0, 2), keepdim=True)
        (spread * middle * L.arange(4).reshape(1, 4, 1)).sum().backward()
        gradients.append(x.grad.numpy())
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-6)


def test_a_number_of_axes_may_be_numpy_s():
    assert fastnn.tensordot(fastnn.ones(2, 3), fastnn.ones(3, 4), np.int64(1)).tolist() == [[3] * 4] * 2


def test_gradients_of_contraction():
    gradients = []
    for L in (fastnn, torch):
        a, b = L.tensor(X, requires_grad=True), L.tensor(Y, requires_grad=True)
        L.tensordot(a, b, dims=([1, 2], [0, 1])).square().sum().backward()
        gradients.append((a.grad.numpy(), b.grad.numpy()))
    for ours, theirs in zip(*gradients):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_normal_numbers():
    for L in (fastnn, torch):
        L.manual_seed(0)
        drawn = [L.normal(3.0, 0.5, (4000,)), L.normal(mean=3.0, std=0.5, size=(40, 100)), L.normal(L.full((4000,), 3.0), 0.5),
                 L.normal(3.0, L.full((4000,), 0.5)), L.normal(L.full((4000,), 3.0), L.full((4000,), 0.5))]
        for x in drawn:
            assert abs(float(x.mean()) - 3) < 0.05 and abs(float(x.std()) - 0.5) < 0.03
        w = L.normal(0, 0.01, size=(2, 1), requires_grad=True)
        assert w.is_leaf and w.requires_grad and tuple(w.shape) == (2, 1)
        like = L.randint_like(L.zeros(50), 3)
        assert str(like.dtype).endswith("float32") and set(like.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("call, error, said", [
    (lambda: fastnn.normal(0.0, 1.0), TypeError, "normal: size is None, but must be given where"),
    (lambda: fastnn.normal(fastnn.zeros(2), 1.0, (2,)), TypeError, r"normal: size is \(2,\), but must be given where"),
    (lambda: fastnn.normal(0.0, "a", (2,)), TypeError, "normal: std is 'a', but must be a number"),
    (lambda: fastnn.searchsorted(fastnn.zeros(2, 3), fastnn.zeros(3, 3)), ValueError,
     r"sorted_sequence has shape \(2, 3\) and values \(3, 3\)"),
    (lambda: fastnn.searchsorted(fastnn.zeros(3), fastnn.zeros(3), side="up"), ValueError, "searchsorted: side is 'up'"),
    (lambda: fastnn.searchsorted(fastnn.zeros(3), 1.0, side="left", right=True), ValueError,
     "searchsorted: side is 'left' with right=True"),
    (lambda: fastnn.searchsorted([1.0], 1.0), TypeError, "searchsorted: sorted_sequence is a list"),
    (lambda: fastnn.bucketize(1.0, fastnn.zeros(2, 2)), ValueError, r"bucketize: boundaries has shape \(2, 2\)"),
    (lambda: fastnn.tensordot(fastnn.zeros(2, 3), fastnn.zeros(2, 3)[:, :2], 1), ValueError, "have different extents"),
    (lambda: fastnn.tensordot(fastnn.zeros(2), fastnn.zeros(2), 2), ValueError,
     "tensordot: dims is 2, but must be a number of axes from 0"),
    (lambda: fastnn.tensordot(fastnn.zeros(2), fastnn.zeros(2), True), ValueError, "tensordot: dims is True, but must be a number of axes"),
    (lambda: fastnn.tensordot(fastnn.zeros(2), fastnn.zeros(2), ([0], [1])), IndexError, "tensordot: dim is 1"),
    (lambda: fastnn.tensordot(fastnn.zeros(2, 2), fastnn.zeros(2, 2), ([0, 0], [0, 1])), ValueError, "as many different axes"),
    (lambda: fastnn.broadcast_tensors(fastnn.zeros(2), fastnn.zeros(3)), ValueError, "broadcast_tensors: shapes .* do not broadcast"),
    (lambda: fastnn.zeros(2, size=(3,)), TypeError, r"size is \(3,\) beside extents \(2,\)"),
    (lambda: fastnn.tril_indices(3, "x"), TypeError, "tril_indices: col is"),
])
def test_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_searching_is_captured():
    edges = fastnn.tensor([0.0, 1.0, 2.0])
    step = fastnn.capture(lambda x: fastnn.bucketize(x, edges) + fastnn.isin(x, edges))
    for seed in range(4):
        x = fastnn.tensor(np.random.default_rng(seed).integers(-2, 5, 9) * 0.5)
        np.testing.assert_array_equal(step(x).numpy(), np.searchsorted([0, 1, 2], x.numpy()) + np.isin(x.numpy(), [0, 1, 2]))


NUMPY_WORDS = {
    **{f"{name}-{k}": lambda L, name=name, o=o: getattr(L, name)(L.tensor(X), **o)
       for name in ("sum", "mean", "prod", "amax", "amin", "std", "var")
       for k, o in enumerate(({"axis": 1}, {"axis": (0, 2), "keepdims": True}, {"dim": 0, "keepdims": True})) if name != "prod" or not k},
    **{name: lambda L, name=name: getattr(L.tensor(X), name)(axis=1, keepdims=True) for name in ("argmax", "argmin", "max", "min", "any",
                                                                                               "all")},
    **{name: lambda L, name=name: getattr(L, name)(L.tensor(X), axis=-1) for name in ("cumsum", "cumprod")},
    "cat": lambda L: L.cat([L.tensor(X), L.tensor(X)], axis=2), "stack": lambda L: L.stack([L.tensor(X), L.tensor(X)], axis=1),
}


@pytest.mark.parametrize("name", NUMPY_WORDS)
def test_numpy_s_words(name):
    assert_same(NUMPY_WORDS[name], rtol=1e-5, atol=1e-6)


def test_one_argument_s_two_names():
    x = fastnn.tensor(X)
    for call, said in ((lambda: x.sum(0, axis=1), "sum: dim is 0 and axis 1"), (lambda: x.cumsum(1, axis=1), "cumsum: dim is 1 and axis 1"),
                       (lambda: fastnn.cat([x, x], 1, axis=0), "cat: dim is 1 and axis 0"),
                       (lambda: fastnn.stack([x, x], dim=0, axis=0), "stack: dim is 0 and axis 0"),
                       (lambda: x.var(0, axis=1), "var: dim is 0 and axis 1"),
                       (lambda: x.var(correction=1, unbiased=False), "var: correction is 1 and unbiased False"),
                       (lambda: fastnn.std(x, 0, 1, unbiased=True), "std: correction is 1 and unbiased True"),
                       (lambda: fastnn.var_mean(x, correction=0, unbiased=False), "var: correction is 0 and unbiased False")):
        with pytest.raises(TypeError, match=f"{said}, but they are one argument's two names"):
            call()


def test_words_for_extents():
    for L in (fastnn, torch):
        x = L.tensor(X)
        assert x.permute(dims=(2, 0, 1)).shape == L.permute(x, (2, 0, 1)).shape == L.permute(x, dims=(2, 0, 1)).shape == L.Size([5, 3, 4])
        assert x.reshape(shape=(4, -1)).shape == (4, 15) and x.tile(dims=(2, 1, 1)).shape == (6, 4, 5)
        assert L.zeros(1, 3).scatter(dim=1, index=L.tensor([[2]]), value=7.0).tolist() == [[0, 0, 7]]
        assert L.zeros(1, 3).scatter_(1, L.tensor([[2]]), value=7.0).tolist() == [[0, 0, 7]]
    x = fastnn.tensor(X)
    for call, said in ((lambda: x.permute(0, 1, dims=(2, 0, 1)), r"permute: dims is \(2, 0, 1\) beside extents \(0, 1\): give one"),
                       (lambda: x.reshape(2, shape=(4, -1)), r"reshape: shape is \(4, -1\) beside extents \(2,\): give one of them"),
                       (lambda: x.tile(2, dims=(3,)), r"tile: dims is \(3,\) beside extents \(2,\): give one of them")):
        with pytest.raises(TypeError, match=said):
            call()
    assert x.reshape(shape=-1).shape == (60,) and fastnn.ones(3).tile(dims=2).shape == (6,)
    for wrong in ({}, {"src": 1.0, "value": 1.0}):
        with pytest.raises(TypeError, match="scatter: (neither|both) of src and value given"):
            fastnn.zeros(1, 3).scatter(1, fastnn.tensor([[2]]), **wrong)


def test_the_older_constructors():
    for L in (fastnn, torch):
        assert tuple(L.Tensor(2, 3).shape) == (2, 3) and tuple(L.LongTensor(4).shape) == (4,)
        x = L.Tensor([1, 2])
        assert x.dtype == L.float32 and x.tolist() == [1, 2] and L.Tensor(np.array([1.5])).dtype == L.float32
        assert L.LongTensor([1, 2]).dtype == L.int64 and L.DoubleTensor([1, 2]).dtype == L.float64
        assert L.IntTensor(np.array([3], np.int32)).tolist() == [3] and L.ByteTensor([3]).dtype == L.uint8
        assert L.BoolTensor([True]).dtype == L.bool and L.ones(2).type(L.LongTensor).dtype == L.int64
        assert L.ones(2).type(L.DoubleTensor).dtype == L.float64 and L.float64.is_floating_point and not L.int64.is_floating_point
        assert float(L.finfo(L.float32).eps) == 2.0**-23 and L.finfo(L.float64).max > 1e308 and L.iinfo(L.int32).max == 2**31 - 1
    for L in (fastnn, torch):
        for limits, dtype in ((L.finfo, L.int64), (L.iinfo, L.float32), (L.iinfo, L.bool)):
            with pytest.raises(TypeError, match="[fi]info"):
                limits(dtype)
    with pytest.raises(TypeError, match="LongTensor: arguments are 1.5, 2, but must be extents, or data as one array or list"):
        fastnn.LongTensor(1.5, 2)


def test_tensors_that_change_themselves():
    for L in (fastnn, torch):
        x = L.tensor(X)
        same = x
        x.unsqueeze_(0).unsqueeze_(-1)
        assert same.shape == (1, 3, 4, 5, 1)
        x.squeeze_(0).squeeze_()
        x.transpose_(0, 2)
        assert same.shape == (5, 4, 3) and same[1, 2, 0] == X[0, 2, 1]
        assert L.ones(2, 3).t_().shape == (3, 2)
        w = L.tensor([1.0, 2.0], requires_grad=True)
        h = w * 3
        kept = h
        h.detach_()
        assert kept is h and h.is_leaf and not h.requires_grad and h.grad_fn is None
        (h * w).sum().backward()
        assert w.grad.tolist() == [3, 6] and not w.detach_().requires_grad
    with pytest.raises(RuntimeError, match="writing in place to a tensor that requires grad"):
        fastnn.ones(2, requires_grad=True).unsqueeze_(0)


def test_lbfgs_evaluates_as_often():
    for options in ({"max_iter": 4}, {"max_iter": 1}, {"max_iter": 4, "line_search_fn": "strong_wolfe"}):
        counts, ends = [], []
        for L in (fastnn, torch):
            w = L.tensor([3.0, -2.0], dtype=L.float64, requires_grad=True)
            optimizer, calls = L.optim.LBFGS([w], lr=0.3, **options), []

            def closure():
                optimizer.zero_grad()
                loss = ((w - L.tensor([1.0, 2.0])) ** 2 * L.tensor([1.0, 5.0])).sum() + (w**4).sum()
                loss.backward()
                calls.append(1)
                return loss
            for _ in range(3):
                optimizer.step(closure)
            counts.append(len(calls))
            ends.append(w.tolist())
        assert counts[0] == counts[1]
        np.testing.assert_allclose(*ends, rtol=1e-6)
