"""Tensors' methods beside PyTorch's: results and gradients; what changes in place; what is refused."""

import math

import numpy as np
import pytest

import fastnn
from fastnn import nn

torch = pytest.importorskip("torch")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


X, Y, V = normal(4, 4), normal(4, 4, seed=1) + 3, normal(4, seed=2)
MASK = normal(4, 4, seed=3) > 0
INDEX = np.array([[0, 3, 1, 2], [2, 2, 0, 1]])
CALLS = [
    ("absolute", ()), ("negative", ()), ("multiply", (Y,)), ("subtract", (Y,)), ("divide", (Y,)), ("true_divide", (2.0,)),
    ("moveaxis", (0, 1)), ("swapaxes", (0, 1)), ("swapdims", (-1, 0)), ("ravel", ()), ("broadcast_to", ((2, 4, 4),)), ("floor", ()),
    ("ceil", ()), ("round", ()), ("trunc", ()), ("expm1", ()), ("reciprocal", ()), ("lerp", (Y, 0.3)), ("addcmul", (Y, V)),
    ("addcdiv", (V, Y)), ("sign", ()), ("gather", (0, INDEX)), ("index_select", (1, INDEX[0])), ("flip", ((0, 1),)),
    ("roll", (1, 0)),
    ("roll", (5,)), ("select", (0, -1)), ("tril", (1,)), ("triu", ()), ("tile", ((2, 1, 3),)), ("repeat", (2, 1, 3)), ("mm", (Y,)),
    ("mv", (V,)), ("addmm", (Y, X)), ("norm", ()), ("norm", (1,)), ("norm", (math.inf, 0)), ("norm", (3, (0, 1), True)),
    ("where", (MASK, Y)), ("clamp_min", (0.1,)), ("clamp_max", (0.1,)), ("view_as", (normal(2, 8),)), ("reshape_as", (normal(16),)),
    ("expand_as", (normal(3, 4, 4),)), ("type_as", (Y,)), ("cpu", ()),
    *[(name, ()) for name in ("sin", "cos", "tan", "atan", "arctan", "sinh", "cosh", "asinh", "arcsinh", "erf", "exp2",
                              "deg2rad", "rad2deg",
                              "frac", "fix", "prod", "median", "nanmedian", "nansum", "nanmean", "nan_to_num", "trace", "diag",
                              "diagonal", "diagflat", "diff", "msort")],
    ("atan2", (Y,)), ("arctan2", (Y,)), ("hypot", (Y,)), ("fmod", (Y,)), ("fmod", (0.7,)), ("remainder", (Y,)),
    ("remainder", (-0.7,)),
    ("copysign", (normal(4, 4, seed=4),)), ("fmax", (Y - 3,)), ("fmin", (Y - 3,)), ("logaddexp", (Y,)), ("xlogy", (Y,)),
    ("cumsum", (0,)), ("cumsum", (-1,)), ("cumprod", (1,)), ("prod", (1,)), ("prod", (0, True)), ("diff", (2, 0)),
    ("quantile", (0.3,)), ("quantile", (0.7, 1, True)), ("quantile", (np.array([0.1, 0.5]), 0)),
    ("scatter", (0, INDEX[:1], normal(2, 4))), ("scatter", (1, INDEX[:, :2] * 0, 2.0)), ("scatter_add", (0, INDEX, normal(2, 4))),
    ("scatter_reduce", (0, INDEX, normal(2, 4), "sum")), ("scatter_reduce", (0, INDEX, normal(2, 4), "mean")),
    ("scatter_reduce", (1, INDEX, normal(2, 4), "amax")), ("scatter_reduce", (1, INDEX, normal(2, 4), "amin")),
    ("take_along_dim", (INDEX, 0)), ("index_add", (0, INDEX[1], Y)), ("index_copy", (1, INDEX[0], Y)),
    ("index_fill", (1, INDEX[1], 2.0)),
    ("masked_select", (MASK,)), ("masked_scatter", (MASK, Y)), ("repeat_interleave", (2, 1)), ("repeat_interleave", (INDEX[0], 0)),
    ("fliplr", ()), ("flipud", ()), ("inner", (Y,)), ("inner", (V,)), ("float_power", (2.0,)), ("dist", (Y, 1.0)),
    ("erfc", ()), ("unfold", (0, 2, 1)), ("unfold", (1, 3, 1)), ("narrow_copy", (1, 1, 2)), ("positive", ()),
    ("diag", (1,)), ("diagonal", (-1,)), ("diag_embed", (1,)), ("gather", (1, INDEX)), ("repeat", (2, 0, 3)), ("tile", (0, 0, 2)),
    ("squeeze", ((0, 1),))]


def given(library, value):
    """Arrays as the library's tensors."""
    if not isinstance(value, np.ndarray):
        return value
    return fastnn.tensor(value) if library is fastnn else torch.tensor(value)


@pytest.mark.parametrize("name, arguments", CALLS)
def test_results_and_gradients(name, arguments):
    x, expected = fastnn.tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
    y = getattr(x, name)(*(given(fastnn, value) for value in arguments))
    z = getattr(expected, name)(*(given(torch, value) for value in arguments))
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-12, atol=1e-14)
    dy = normal(*y.shape, seed=7)
    y.backward(fastnn.tensor(dy))
    z.backward(torch.tensor(dy))
    np.testing.assert_allclose(x.grad.numpy(), expected.grad.numpy(), rtol=1e-11, atol=1e-13)


PAIRS = [("sort", ()), ("sort", (0, True)), ("topk", (2,)), ("topk", (3, 0, False)), ("kthvalue", (2,)), ("kthvalue", (4, 0, True)),
         ("median", (1,)), ("median", (0, True)), ("nanmedian", (1,)), ("cummax", (1,)), ("cummin", (0,)), ("max", (1,)),
         ("min", (0,))]


@pytest.mark.parametrize("name, arguments", PAIRS)
@pytest.mark.parametrize("with_nan", [False, True])
def test_values_and_places(name, arguments, with_nan):
    start = X.copy()
    start[1, 2] = np.nan if with_nan else start[1, 2]
    x, expected = fastnn.tensor(start, requires_grad=True), torch.tensor(start, requires_grad=True)
    (y, i), (z, j) = getattr(x, name)(*arguments), getattr(expected, name)(*arguments)
    np.testing.assert_array_equal(y.detach().numpy(), z.detach().numpy())
    np.testing.assert_array_equal(i.numpy(), j.numpy())
    dy = normal(*y.shape, seed=7)
    y.backward(fastnn.tensor(dy)), z.backward(torch.tensor(dy))
    np.testing.assert_allclose(x.grad.numpy(), expected.grad.numpy())


def test_equal_elements_stay_in_order():
    x = np.random.default_rng(5).integers(0, 4, (3, 500)).astype(np.float32)
    for descending in (False, True):
        y, i = fastnn.tensor(x).sort(descending=descending, stable=True)
        z, j = torch.tensor(x).sort(descending=descending, stable=True)
        np.testing.assert_array_equal(y.numpy(), z.numpy())
        np.testing.assert_array_equal(i.numpy(), j.numpy())


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool", "float32"])
def test_order_of_other_types(dtype):
    x = np.random.default_rng(6).integers(0, 2 if dtype == "bool" else 200, (5, 60)) - (100 if dtype in ("int64", "int32") else 0)
    x = x.astype(dtype)
    for name, options in (("sort", {"dim": 0, "stable": True}), ("sort", {"dim": 1, "descending": True, "stable": True}),
                          ("argsort", {"stable": True}), ("unique", {}), ("unique", {"return_inverse": True,
                                                                                     "return_counts": True}),
                          ("unique_consecutive", {"return_inverse": True, "return_counts": True}), ("nonzero", {}),
                          ("count_nonzero", {"dim": 0}), ("cumsum", {"dim": 1}), ("prod", {"dim": 0}), ("flip", {"dims": (0,)})):
        y, z = (getattr(t, name)(**options) for t in (fastnn.tensor(x), torch.tensor(x)))
        for a, b in zip(y if isinstance(y, tuple) else (y,), z if isinstance(z, tuple) else (z,)):
            assert a.dtype.name == str(b.dtype).removeprefix("torch.")
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6 if name == "prod" else 0, err_msg=name)


INTEGERS = (np.array([7, -7, 5, -3, 0]), np.array([2, 3, -4, -3, 5]))


@pytest.mark.parametrize("name", ["fmod", "remainder", "floor_divide", "bitwise_and", "bitwise_or", "bitwise_xor"])
def test_integers(name):
    y, z = (getattr(library.tensor(INTEGERS[0]), name)(library.tensor(INTEGERS[1])) for library in (fastnn, torch))
    np.testing.assert_array_equal(y.numpy(), z.numpy())
    for mode in ("floor", "trunc"):
        y, z = (library.tensor(INTEGERS[0]).div(library.tensor(INTEGERS[1]), rounding_mode=mode) for library in (fastnn, torch))
        np.testing.assert_array_equal(y.numpy(), z.numpy())
    for dtype in ("uint8", "bool", "int32"):
        y, z = (~library.tensor(np.array([0, 1, 1, 0], dtype)) for library in (fastnn, torch))
        np.testing.assert_array_equal(y.numpy(), z.numpy())


@pytest.mark.parametrize("mode", ["floor", "trunc"])
def test_rounded_division(mode):
    y, z = (library.tensor(X).div(library.tensor(Y - 3), rounding_mode=mode) for library in (fastnn, torch))
    np.testing.assert_array_equal(y.numpy(), z.numpy())
    x, expected = fastnn.tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
    alone = [library.tensor(X, requires_grad=True) for library in (fastnn, torch)]
    for a, library in zip(alone, (fastnn, torch)):
        a.div(library.tensor(Y), rounding_mode=mode).sum().backward()
    assert alone[0].grad.tolist() == alone[1].grad.tolist()
    (x.div(fastnn.tensor(Y), rounding_mode=mode) + x).sum().backward()
    (expected.div(torch.tensor(Y), rounding_mode=mode) + expected).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected.grad.numpy())


def test_gradients_of_remainders_reach_divisors():
    for name in ("fmod", "remainder"):
        b, expected = fastnn.tensor(Y - 2, requires_grad=True), torch.tensor(Y - 2, requires_grad=True)
        getattr(fastnn.tensor(5 * X), name)(b).sum().backward()
        getattr(torch.tensor(5 * X), name)(expected).sum().backward()
        np.testing.assert_array_equal(b.grad.numpy(), expected.grad.numpy())


@pytest.mark.parametrize("name", ["asin", "acos", "atanh", "arcsin", "arccos", "arctanh", "logit"])
def test_functions_between_0_and_1(name):
    start = 1 / (1 + np.exp(-X))
    x, expected = fastnn.tensor(start, requires_grad=True), torch.tensor(start, requires_grad=True)
    y, z = getattr(x, name)(), getattr(expected, name)()
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-13, atol=1e-15)
    y.sum().backward(), z.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), expected.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["log1p", "rsqrt", "log2", "log10", "acosh", "arccosh"])
def test_functions_of_positive_numbers(name):
    x, expected = fastnn.tensor(Y, requires_grad=True), torch.tensor(Y, requires_grad=True)
    y, z = getattr(x, name)(), getattr(expected, name)()
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-14)
    y.sum().backward(), z.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), expected.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_norms_of_zeros_have_the_gradient_0(p):
    x, expected = X.copy(), None
    x[1], x[2, 0] = 0, 0
    x, expected = fastnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = x.norm(p, 1), expected.norm(p, 1)
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-13)
    y.sum().backward(), z.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), expected.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name, arguments", [
    ("greater", (Y,)), ("greater_equal", (0.0,)), ("less", (V,)), ("less_equal", (Y,)), ("not_equal", (Y,)), ("isnan", ()),
    ("isinf", ()), ("isfinite", ()), ("isposinf", ()), ("isneginf", ()), ("isclose", (X + 1e-9,)), ("nonzero", ()),
    ("argwhere", ()), ("is_same_size", (X,)), ("get_device", ()),
    ("count_nonzero", ()), ("argsort", ()), ("floor_divide", (Y,)), ("bool", ()), ("int", ()), ("nelement", ()),
    ("ndimension", ()), ("element_size", ()),
    ("is_signed", ()), ("stride", ()), ("stride", (1,)), ("equal", (X,)), ("equal", (Y,)), ("allclose", (X + 1e-9,)),
    ("allclose", (X + 1e-9, 0.0, 1e-12)), ("new_zeros", (2, 3)), ("new_ones", ((2, 3),)), ("new_full", ((2,), 4.0)),
    ("new_tensor", ([1, 2],))])
def test_what_takes_no_gradient(name, arguments):
    x = X.copy()
    x[0, :3] = np.nan, np.inf, -np.inf
    x = X if name in ("int", "equal", "allclose") else x
    y = getattr(fastnn.tensor(x), name)(*(given(fastnn, value) for value in arguments))
    z = getattr(torch.tensor(x), name)(*(given(torch, value) for value in arguments))
    if isinstance(z, torch.Tensor):
        assert y.dtype.name == str(z.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(y.numpy(), z.numpy())
    else:
        assert y == z and type(y) is type(z)


@pytest.mark.parametrize("name, arguments", [
    ("clamp_", (-0.5, 0.5)), ("masked_fill_", (MASK, 2.0)), ("neg_", ()), ("abs_", ()), ("exp_", ()), ("square_", ()),
    ("sin_", ()), ("atan2_", (Y,)), ("cumsum_", (0,)), ("scatter_", (0, INDEX[:1], normal(2, 4))), ("scatter_add_", (0, INDEX,
                                                                                                                     normal(2, 4))),
    ("index_add_", (0, INDEX[1], Y)), ("index_fill_", (0, INDEX[1], 3.0)), ("tril_", ()), ("relu_", ()), ("sigmoid_", ()),
    ("tanh_", ()),
    ("fmod_", (0.5,)), ("remainder_", (0.5,)), ("floor_", ()), ("round_", ()), ("trunc_", ()), ("clamp_min_", (0.1,)), ("erf_", ()),
    ("masked_scatter_", (MASK, Y)), ("copysign_", (Y,)), ("multiply_", (Y,)), ("divide_", (Y,)), ("subtract_", (Y,)),
    ("nan_to_num_", ()),
    ("pow_", (3.0,)), ("lerp_", (Y, 0.25)), ("addcmul_", (Y, X)), ("addcdiv_", (X, Y)), ("sqrt_", ()), ("log_", ())])
def test_in_place(name, arguments):
    start = Y if name in ("sqrt_", "log_") else X
    x, expected = fastnn.tensor(start), torch.tensor(start)
    memory = x.numpy()
    assert getattr(x, name)(*(given(fastnn, value) for value in arguments)) is x
    getattr(expected, name)(*(given(torch, value) for value in arguments))
    np.testing.assert_allclose(memory, expected.numpy(), rtol=1e-13)
    if name.startswith("addc"):
        x = getattr(fastnn.tensor(X), name)(fastnn.tensor(X), fastnn.tensor(Y), value=0.5)
        np.testing.assert_allclose(x.numpy(), getattr(torch.tensor(X), name)(torch.tensor(X), torch.tensor(Y), value=0.5).numpy())
    with pytest.raises(RuntimeError, match="writing in place"):
        getattr(fastnn.tensor(start, requires_grad=True), name)(*(given(fastnn, value) for value in arguments))


def test_assignments_that_gradients_flow_through():
    """``out += shortcut`` and its like in a forward pass; a loss that is summed up in a tensor."""
    results = []
    for library in (fastnn, torch):
        x = library.tensor(X, requires_grad=True)
        y = x * 2
        y += library.tensor(V)
        y -= 1
        y *= x
        y /= 4.0
        loss = library.tensor(0.5, dtype=library.float64)
        loss += y.sum()
        loss.backward()
        results += [[y.detach().numpy(), loss.item(), x.grad.numpy()]]
    for ours, theirs in zip(*results):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    count = fastnn.tensor([1, 2])
    same = count
    count += 1
    assert same is count and count.tolist() == [2, 3]  # without gradients it is the same tensor, changed
    with pytest.raises(ValueError, match=r"of shape \(4,\) cannot become one of \(4, 4\)"):
        row = fastnn.tensor(V, requires_grad=True) * 1
        row += fastnn.tensor(X)


def test_factors_of_what_is_added():
    pairs = []
    for library in (fastnn, torch):
        x, y = library.tensor(X), library.tensor(X[::-1].copy())
        pairs += [[library.add(x, y, alpha=0.5), x.sub(y, alpha=3), x.clone().add_(y, alpha=-2), x.clone().sub_(1.5, alpha=2),
                   library.tensor([1, 2]).add(library.tensor([3, 4]), alpha=2)]]
    for ours, theirs in zip(*pairs):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-13)


def test_grids_and_piles():
    pairs = []
    for library in (fastnn, torch):
        a, b, c = library.tensor(V, requires_grad=True), library.arange(3.0).double(), library.tensor(2.0).double()
        grids = [*library.meshgrid(a, b, indexing="ij"), *library.meshgrid([a, b, c], indexing="xy")]
        piles = [pile(parts) for pile in (library.hstack, library.vstack)
                 for parts in ([a, a], [library.tensor(X), library.tensor(X) * 2], [c, c])]
        sum((grid ** 2).sum() for grid in grids).backward()
        pairs += [[*grids, *piles, a.grad, *library.where(library.tensor(X) > 0), library.full((2,), 7), library.full((2,), True),
                   library.full((2, 2), 0.5), library.is_tensor(a), library.is_tensor(3), library.numel(a), library.equal(a, a),
                   library.allclose(b, b + 1e-9), library.is_floating_point(a), library.inf, library.pi]]
    for ours, theirs in zip(*pairs, strict=True):
        if isinstance(theirs, torch.Tensor):
            assert str(theirs.dtype).removeprefix("torch.") == ours.dtype.name
            np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy())
        else:
            assert ours == theirs
    with pytest.raises(ValueError, match="meshgrid: indexing is 'yx', but must be 'ij' or 'xy'"):
        fastnn.meshgrid(fastnn.ones(2), indexing="yx")
    with pytest.raises(ValueError, match=r"meshgrid: tensors have the shapes \[\(4, 4\)\], but must be vectors"):
        fastnn.meshgrid(fastnn.ones(4, 4))
    with pytest.raises(TypeError, match="where: other is missing: both input and other are given, or neither"):
        fastnn.where(fastnn.tensor(X) > 0, 1.0)


def test_the_state_of_random_numbers():
    fastnn.manual_seed(5)
    fastnn.rand(3)
    state = fastnn.get_rng_state()
    drawn = fastnn.rand(3)
    fastnn.rand(7)
    fastnn.set_rng_state(state)
    assert drawn.equal(fastnn.rand(3))


def test_split_and_put():
    for sections in (3, (1, 3)):
        for y, z in zip(*(library.tensor(X).tensor_split(sections, 1) for library in (fastnn, torch)), strict=True):
            np.testing.assert_array_equal(y.numpy(), z.numpy())
    for accumulate in (False, True):
        key = (np.array([0, 0, 2]), np.array([1, 1, 3]))
        y, z = (library.tensor(X).index_put_(tuple(library.tensor(k) for k in key), library.tensor(V[:3] * 0 + 2), accumulate)
                for library in (fastnn, torch))
        np.testing.assert_allclose(y.numpy(), z.numpy())
    batch = normal(3, 4, 4, seed=8)
    y, z = (library.tensor(X).baddbmm(library.tensor(batch), library.tensor(batch), beta=0.5, alpha=2.0)
            for library in (fastnn, torch))
    np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-12)
    y, z = (library.tensor(V).addmv(library.tensor(X), library.tensor(V), alpha=3.0) for library in (fastnn, torch))
    np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-12)
    for (a, b), (c, d) in zip(*([library.tensor(X).aminmax(), library.tensor(X).aminmax(dim=1)] for library in (fastnn, torch))):
        np.testing.assert_array_equal(a.numpy(), c.numpy())
        np.testing.assert_array_equal(b.numpy(), d.numpy())


def test_xlogy_s_gradient_at_0_is_the_logarithm():
    x, y = (library.tensor([0.0, 0.0, 0.0, 2.0], requires_grad=True) for library in (fastnn, torch))
    x.xlogy(fastnn.tensor([3.0, 0.0, -1.0, 0.5])).sum().backward()
    y.xlogy(torch.tensor([3.0, 0.0, -1.0, 0.5])).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("cut", [
    lambda x: x.split(2, 1), lambda x: x.chunk(3, 1), lambda x: x.tensor_split(2, 1), lambda x: x.tensor_split((0, 3, 1), 0),
    lambda x: x.tensor_split((-1,), 0), lambda x: (x.squeeze((1, 2)), x.squeeze((0, -1))),
    lambda x: (x.repeat_interleave(x[0, :, 0].long(), 1),)])
def test_axes_of_nothing_and_of_one_place(cut):
    for y, z in zip(*(cut(library.zeros(4, 0, 1)) for library in (fastnn, torch)), strict=True):
        assert y.shape == tuple(z.shape)


def test_retained_gradients_are_those_that_hooks_leave():
    for library in (fastnn, torch):
        y = library.ones(2, requires_grad=True) * 1
        y.retain_grad()
        y.register_hook(lambda dy: dy * 2)
        y.sum().backward()
        assert y.grad.tolist() == [2, 2]


def test_differences_of_nothing_end():
    assert fastnn.ones(2, 3).diff(2**62).shape == (2, 0)


def test_triangles_keep_the_type():
    for dtype in ("bool", "uint8", "int32", "int64"):
        x = np.ones((3, 3), dtype)
        for name in ("tril", "triu"):
            y, z = (getattr(library.tensor(x), name)(1) for library in (fastnn, torch))
            assert y.dtype.name == dtype
            np.testing.assert_array_equal(y.numpy(), z.numpy())


@pytest.mark.parametrize("key", [
    lambda t: (t(1), slice(None), t([[0, 1, 0]])), lambda t: (t([0, 1]), slice(None), t(-1)),
    lambda t: (slice(0), t([[0, 1]])), lambda t: (Ellipsis, t([[0, 1, 2, 0]]), slice(0)), lambda t: (t(0), t(1), t(0))])
def test_keys(key):
    y, z = (library.tensor(X.reshape(2, 4, 2))[key(library.tensor)] for library in (fastnn, torch))
    np.testing.assert_array_equal(y.numpy(), z.numpy())


def test_drawn_in_place():
    x = fastnn.zeros(10_000)
    assert x.uniform_(2.0, 3.0) is x and 2 <= x.numpy().min() and 2.4 < x.numpy().mean() < 2.6 and x.numpy().max() < 3
    assert 4.9 < x.normal_(5.0, 2.0, fastnn.Generator(1)).numpy().mean() < 5.1
    np.testing.assert_array_equal(x.numpy(), fastnn.zeros(10_000).normal_(5.0, 2.0, fastnn.Generator(1)).numpy())
    with pytest.raises(RuntimeError, match="writing in place"):
        nn.Linear(2, 2).weight.normal_()


def test_batches_of_matrices_and_vectors():
    a, b = normal(2, 3, 4), normal(2, 4, 5, seed=1)
    np.testing.assert_allclose(fastnn.tensor(a).bmm(fastnn.tensor(b)).numpy(), a @ b)
    np.testing.assert_allclose(fastnn.tensor(V).dot(fastnn.tensor(V)).item(), V @ V)
    np.testing.assert_allclose(fastnn.tensor(V).outer(fastnn.tensor(V)).numpy(), np.outer(V, V))
    assert fastnn.tensor(a).mT.shape == (2, 4, 3) and fastnn.tensor(a).device == "cpu"
    x = fastnn.tensor(a, requires_grad=True)
    assert not x.data.requires_grad and x.data.shares_storage(x)


@pytest.mark.parametrize("call, message", [
    (lambda x: x.mm(fastnn.ones(4)), r"mm: the factors have shapes \(4, 4\) and \(4,\)"),
    (lambda x: fastnn.bmm(fastnn.ones(2, 3, 4), fastnn.ones(1, 4, 5)), "must be of one batch"),
    (lambda x: x.outer(x), "must have one axis"), (lambda x: x.roll((1, 2), 0), "one shift for each axis"),
    (lambda x: x.repeat(2), "a number for each of 2 axes"), (lambda x: x.tile(-1), "at least 0"),
    (lambda x: x.topk(5), "k is 5, but must lie between 0 and the 4"), (lambda x: x.kthvalue(0), "k is 0"),
    (lambda x: x.quantile(1.5), "q is 1.5"), (lambda x: x.quantile(0.5, interpolation="cubic"), "interpolation is 'cubic'"),
    (lambda x: x.unique(dim=0), "dim must be None"), (lambda x: x.scatter(0, fastnn.zeros(5, 5, dtype=fastnn.int64), 1.0),
                                                      "index has shape"),
    (lambda x: x.scatter(0, fastnn.zeros(2, 2, dtype=fastnn.int64), fastnn.ones(1, 1)), "src has shape"),
    (lambda x: x.scatter_reduce(0, fastnn.zeros(2, 2, dtype=fastnn.int64), 1.0, "max"), "reduce is 'max'"),
    (lambda x: x.masked_scatter(x > 0, fastnn.ones(3)), "source has 3 elements, but the mask picks 16"),
    (lambda x: x.div(x, rounding_mode="up"), "rounding_mode is 'up'"), (lambda x: x.diagonal(0, 1, -1), "must be two axes"),
    (lambda x: fastnn.ones(2, 2, 2).diag(), "one axis or two"), (lambda x: fastnn.zeros(0).median(), "is empty"),
    (lambda x: x.multinomial(5), "num_samples is 5"), (lambda x: fastnn.randint(3, 3, (2,)), "low is 3 and high 3"),
    (lambda x: x.cuda(), "no device but the CPU"), (lambda x: x.unfold(0, 5, 1), "size is 5, but dimension 0 has 4"),
    (lambda x: x.tensor_split(2**62), "sections is 4611686018427387904, but may be at most"),
    (lambda x: x[:0].chunk(2**62), "chunks is 4611686018427387904, but may be at most"),
    (lambda x: x.norm(0), "p is 0"), (lambda x: fastnn.ones(3).tril(), "at least two axes"),
    (lambda x: x.new_zeros(2, device="cuda"), "device is 'cuda'")])
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(fastnn.ones(4, 4))


def test_results_written_to_what_is_given():
    a, b = normal(3, 4), normal(3, 4, seed=1)
    for name in ("add", "sub", "mul", "div"):
        ours, theirs = fastnn.zeros(3, 4), torch.zeros(3, 4)
        assert getattr(fastnn, name)(fastnn.tensor(a), fastnn.tensor(b), out=ours) is ours
        getattr(torch, name)(torch.tensor(a), torch.tensor(b), out=theirs)
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
    x = fastnn.tensor(a)
    assert fastnn.mul(x, 2, out=x) is x and np.array_equal(x.numpy(), a * 2)
    product = fastnn.zeros(3, 3, dtype=fastnn.float64)
    assert fastnn.matmul(x, x.T, out=product) is product
    np.testing.assert_allclose(product.numpy(), 4 * a @ a.T, rtol=1e-5)
    whole = fastnn.zeros(3, dtype=fastnn.int64)
    assert fastnn.div(fastnn.arange(3), 2, rounding_mode="floor", out=whole).tolist() == [0, 0, 1]
    assert fastnn.add(1, fastnn.ones(3), alpha=2, out=fastnn.zeros(3)).tolist() == [3, 3, 3]


@pytest.mark.parametrize("call, error, said", [
    (lambda x: fastnn.add(x, x, out=fastnn.zeros(2)), ValueError, r"add: out has shape \(2,\), but must have the result's, \(3,\)"),
    (lambda x: fastnn.mul(x, x, out=[0.0] * 3), TypeError, "mul: out is a list, but must be a Tensor"),
    (lambda x: fastnn.sub(x.requires_grad_(), x, out=fastnn.zeros(3)), RuntimeError, "sub: out takes no gradient"),
    (lambda x: fastnn.div(x, x, out=fastnn.zeros(3).requires_grad_()), RuntimeError, "div: out takes no gradient"),
    (lambda x: fastnn.matmul(x, x, out=fastnn.zeros(1)), ValueError, r"matmul: out has shape \(1,\)"),
    (lambda x: fastnn.add(x, x, out=fastnn.zeros(3, dtype=fastnn.int64)), TypeError, "the result is float32, which a tensor of int64")])
def test_what_cannot_be_written_to(call, error, said):
    with pytest.raises(error, match=said):
        call(fastnn.ones(3))


def test_distinct_elements_along_the_only_axis():
    x = np.array([2, 2, 0, 0, 0, 2, 1])
    for name in ("unique", "unique_consecutive"):
        for dim in (0, -1):
            ours, theirs = (getattr(L.tensor(x), name)(dim=dim, return_inverse=True, return_counts=True) for L in (fastnn, torch))
            assert [t.tolist() for t in ours] == [t.tolist() for t in theirs]
        with pytest.raises(IndexError, match=f"{name}: dim is 1"):
            getattr(fastnn.tensor(x), name)(dim=1)


def test_fill_diagonal_():
    for shape in ((3, 3), (2, 5), (5, 2), (3, 3, 3)):
        for L in (fastnn, torch):
            x = L.ones(shape, dtype=L.bool).fill_diagonal_(0)
            assert x.sum().item() == np.prod(shape) - min(shape) and not x[(1,) * len(shape)]
        assert np.array_equal(fastnn.zeros(shape).fill_diagonal_(2.5).numpy(), torch.zeros(shape).fill_diagonal_(2.5).numpy())
    with pytest.raises(ValueError, match=r"fill_diagonal_: the tensor has shape \(3,\), but must have at least two axes"):
        fastnn.ones(3).fill_diagonal_(1)
