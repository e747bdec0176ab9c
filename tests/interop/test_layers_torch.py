"""Convolution in one dimension and transposed, pooling in one, resampling, padding and the rest: PyTorch's results,
in float64."""

import itertools

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn

torch = pytest.importorskip("torch")
TF = torch.nn.functional


def same(ours, theirs, *shapes, rtol=1e-8):
    """Outputs of two functions of tensors, and all gradients; an error of one must be an error of the other."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    given = [fastnn.tensor(a, "float64", requires_grad=True) for a in arrays]
    expected_given = [torch.tensor(a, requires_grad=True) for a in arrays]
    try:
        expected = theirs(*expected_given)
    except (RuntimeError, ValueError):
        with pytest.raises(ValueError):
            ours(*given)
        return
    y = ours(*given)
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=rtol, atol=1e-10)
    dy = rng.standard_normal(y.shape)
    y.backward(fastnn.tensor(dy, "float64"))
    expected.backward(torch.tensor(dy))
    for a, b in zip(given, expected_given):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=rtol, atol=1e-9)


@pytest.mark.parametrize("stride, padding, dilation, groups",
                         list(itertools.product((1, 2), (0, 2, "same"), (1, 3), (1, 2))))
def test_conv1d(stride, padding, dilation, groups):
    options = (stride, padding, dilation, groups)
    same(lambda *t: F.conv1d(*t, *options), lambda *t: TF.conv1d(*t, *options), (2, 4, 13), (6, 4 // groups, 3), (6,))
    same(lambda *t: F.conv1d(*t, None, *options), lambda *t: TF.conv1d(*t, None, *options), (4, 13),
         (6, 4 // groups, 4))


@pytest.mark.parametrize("stride, padding, extra, groups, dilation",
                         list(itertools.product((1, 2, (3, 2)), (0, 1, (2, 0)), (0, 1, (0, 1)), (1, 2), (1, (2, 3)))))
def test_conv_transpose2d(stride, padding, extra, groups, dilation):
    options = (stride, padding, extra, groups, dilation)
    same(lambda *t: F.conv_transpose2d(*t, *options), lambda *t: TF.conv_transpose2d(*t, *options),
         (2, 4, 5, 4), (4, 6 // groups, 3, 2), (6,))


@pytest.mark.parametrize("stride, padding, extra, groups, dilation",
                         list(itertools.product((1, 3), (0, 1), (0, 2), (1, 2), (1, 3))))
def test_conv_transpose1d(stride, padding, extra, groups, dilation):
    options = (stride, padding, extra, groups, dilation)
    same(lambda *t: F.conv_transpose1d(*t, *options), lambda *t: TF.conv_transpose1d(*t, *options), (2, 4, 5),
         (4, 6 // groups, 3), (6,))


@pytest.mark.parametrize("kind, options, shape", [
    ("Conv1d", {"padding": 1, "padding_mode": "circular"}, (2, 4, 9)),
    ("Conv1d", {"stride": 2, "bias": False}, (2, 4, 9)),
    ("Conv2d", {"padding": (1, 2), "padding_mode": "reflect"}, (2, 4, 6, 7)),
    ("Conv2d", {"padding": "same", "padding_mode": "replicate"}, (2, 4, 6, 7)),
    ("ConvTranspose1d", {"stride": 2, "output_padding": 1}, (2, 4, 9)),
    ("ConvTranspose2d", {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}, (2, 4, 6, 7))])
def test_convolution_layers(kind, options, shape):
    ours, theirs = getattr(nn, kind)(4, 6, 3, **options), getattr(torch.nn, kind)(4, 6, 3, **options).double()
    ours.load_state_dict({name: value.float().numpy() for name, value in theirs.state_dict().items()})
    ours = ours.double()
    theirs.load_state_dict({name: torch.tensor(value.numpy()) for name, value in ours.state_dict().items()})
    same(ours, theirs, shape)
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(dict(ours.named_parameters())[name].grad.numpy(), p.grad.numpy(), rtol=1e-8,
                                   atol=1e-9)


def test_conv_transpose_to_a_size():
    ours, theirs = nn.ConvTranspose2d(2, 3, 3, 2).double(), torch.nn.ConvTranspose2d(2, 3, 3, 2).double()
    theirs.load_state_dict({name: torch.tensor(value.numpy()) for name, value in ours.state_dict().items()})
    same(lambda x: ours(x, (10, 9)), lambda x: theirs(x, (10, 9)), (1, 2, 4, 4))
    with pytest.raises(ValueError, match=r"output_size is \(12, 9\), but must be at least \(9, 9\)"):
        ours(fastnn.ones(1, 2, 4, 4, dtype="float64"), (12, 9))


@pytest.mark.parametrize("shape", [(2, 3, 17), (3, 10)])
@pytest.mark.parametrize("kernel, stride, padding, ceil_mode",
                         list(itertools.product((2, 3), (None, 2), (0, 1), (False, True))))
def test_pooling_of_sequences(shape, kernel, stride, padding, ceil_mode):
    same(lambda x: F.max_pool1d(x, kernel, stride, padding, 1, ceil_mode),
         lambda x: TF.max_pool1d(x, kernel, stride, padding, 1, ceil_mode), shape)
    for include in (False, True):
        same(lambda x: F.avg_pool1d(x, kernel, stride, padding, ceil_mode, include),
             lambda x: TF.avg_pool1d(x, kernel, stride, padding, ceil_mode, include), shape)
    same(lambda x: F.adaptive_avg_pool1d(x, kernel + 2), lambda x: TF.adaptive_avg_pool1d(x, kernel + 2), shape)
    same(lambda x: F.adaptive_max_pool1d(x, kernel + 2), lambda x: TF.adaptive_max_pool1d(x, kernel + 2), shape)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_unpooling_what_was_pooled(dimensions):
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 8)[:2 + dimensions])
    for kernel, stride, padding, size in ((2, None, 0, None if dimensions == 1 else (6, 8)), (3, 2, 1, x.shape),
                                          (2, 2, 0, x.shape)):
        pools = [getattr(library, f"max_pool{dimensions}d") for library in (F, TF)]
        (y, at), (z, z_at) = (pool(t, kernel, stride, padding, return_indices=True)
                              for pool, t in zip(pools, (fastnn.tensor(x, "float64"), torch.tensor(x))))
        np.testing.assert_array_equal(at.numpy(), z_at.numpy())
        names = [getattr(library, f"max_unpool{dimensions}d") for library in (F, TF)]
        same(lambda t: names[0](t, at, kernel, stride, padding, size),
             lambda t: names[1](t, z_at, kernel, stride, padding, size), y.shape)


@pytest.mark.parametrize("mode, align_corners", [
    *((mode, None) for mode in ("nearest", "nearest-exact", "area")),  # these have no corners to align
    *((mode, corners) for mode in ("bilinear", "bicubic", "linear") for corners in (None, False, True))])
@pytest.mark.parametrize("how", [{"size": (7, 3)}, {"size": 11}, {"scale_factor": 2}, {"scale_factor": (0.6, 1.7)},
                                 {"scale_factor": 1.7, "recompute_scale_factor": True}])
def test_interpolate(mode, how, align_corners):
    shape = (2, 3, 5, 6)
    if mode == "linear":
        shape, how = (2, 3, 6), {k: v[1] if isinstance(v, tuple) else v for k, v in how.items()}
    same(lambda x: F.interpolate(x, mode=mode, align_corners=align_corners, **how),
         lambda x: TF.interpolate(x, mode=mode, align_corners=align_corners, **how), shape)


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_factor_that_leaves_the_size_leaves_the_values(align_corners):
    how = {"mode": "bilinear", "scale_factor": (1.15, 1.7), "align_corners": align_corners}
    same(lambda x: F.interpolate(x, **how), lambda x: TF.interpolate(x, **how), (2, 3, 5, 6))
    x = fastnn.rand(2, 3, 5, 6)
    np.testing.assert_array_equal(F.interpolate(x, **{**how, "scale_factor": 1.1}, antialias=True).numpy(), x.numpy())


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("how", [{"size": (7, 3)}, {"size": 1}, {"scale_factor": 2}, {"scale_factor": (0.3, 1.7)},
                                 {"scale_factor": 0.37, "recompute_scale_factor": True}])
def test_interpolation_without_aliases(mode, align_corners, how):
    how = {"mode": mode, "align_corners": align_corners, "antialias": True, **how}
    same(lambda x: F.interpolate(x, **how), lambda x: TF.interpolate(x, **how), (2, 3, 15, 16))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("shape, padding", [((2, 3, 5), (2, 3)), ((3, 5), (4, 0)), ((2, 3, 5, 6), (2, 1, 0, 3)),
                                            ((2, 3, 5, 6), (-1, 2, 1, -2)),
                                            ((3, 5, 6), (1, 2, 3, 4)), ((2, 3, 5), (5, 0)), ((2, 3, 5), (6, 0))])
def test_padding(mode, shape, padding):
    def peer(x):
        if mode == "replicate":  # PyTorch's gradient fails where this crops: cropping first is the same
            x = TF.pad(x, [min(n, 0) for n in padding])
            return TF.pad(x, [max(n, 0) for n in padding], mode)
        return TF.pad(x, padding, mode)

    same(lambda x: F.pad(x, padding, mode), peer, shape)


@pytest.mark.parametrize("window", [{"kernel_size": 3}, {"kernel_size": (2, 3), "stride": (2, 1), "padding": 1},
                                    {"kernel_size": 2, "dilation": 2, "padding": (0, 1)}])
def test_unfold_and_fold(window):
    same(lambda x: F.unfold(x, **window), lambda x: TF.unfold(x, **window), (2, 3, 7, 6))
    windows = TF.unfold(torch.zeros(2, 3, 7, 6), **window).shape
    same(lambda x: F.fold(x, (7, 6), **window), lambda x: TF.fold(x, (7, 6), **window), tuple(windows))


@pytest.mark.parametrize("options", [(1,), (5,), (4, 0.3, 0.5, 2.0), (30, 1.0)])
@pytest.mark.parametrize("shape", [(2, 7, 5), (2, 20, 3, 4)])
def test_local_response_norm(options, shape):
    same(lambda x: F.local_response_norm(x, *options), lambda x: TF.local_response_norm(x, *options), shape)


def shapes(layer):
    return sorted((name, tuple(value.shape)) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(dim):
    theirs = torch.nn.Linear(5, 4).double()
    ours = nn.Linear(5, 4).double()
    ours.load_state_dict({name: value.detach().numpy() for name, value in theirs.state_dict().items()})
    with pytest.warns(FutureWarning):
        torch.nn.utils.weight_norm(theirs, dim=dim)
    nn.weight_norm(ours, dim=dim)
    assert shapes(ours) == shapes(theirs)
    same(ours, theirs, (3, 5))
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(dict(ours.named_parameters())[name].grad.numpy(), p.grad.numpy(), rtol=1e-8,
                                   atol=1e-9)


@pytest.mark.parametrize("p, kernel, stride, ceil_mode",
                         list(itertools.product((2, 4, 1.0, float("inf")), (2, 3), (None, 2), (False, True))))
def test_pooling_by_norms(p, kernel, stride, ceil_mode):
    same(lambda x: F.lp_pool2d(x, p, kernel, stride, ceil_mode),
         lambda x: TF.lp_pool2d(x, p, kernel, stride, ceil_mode),
         (2, 3, 7, 8))
    same(lambda x: F.lp_pool1d(x, p, kernel, stride, ceil_mode),
         lambda x: TF.lp_pool1d(x, p, kernel, stride, ceil_mode),
         (2, 3, 9))
    same(nn.LPPool2d(p, (kernel, 1), stride, ceil_mode), torch.nn.LPPool2d(p, (kernel, 1), stride, ceil_mode),
         (2, 3, 7, 8))


def test_softmax_of_channels():
    for shape in ((2, 3, 4, 5), (3, 4, 5)):
        same(nn.Softmax2d(), torch.nn.Softmax2d(), shape)
    with pytest.raises(ValueError, match="Softmax2d: input has shape"):
        nn.Softmax2d()(fastnn.zeros(2, 3))


@pytest.mark.parametrize("shape", [(4,), (2, 3), ()])
def test_bilinear(shape):
    arrays = (*shape, 5), (*shape, 3), (7, 5, 3)
    same(F.bilinear, TF.bilinear, *arrays, (7,))
    same(F.bilinear, TF.bilinear, *arrays)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 3, 4)])
def test_one_hot(shape):
    labels = np.asarray(np.random.default_rng(0).integers(0, 6, shape))
    for classes in (-1, 6, 9):
        expected = TF.one_hot(torch.tensor(labels), classes)
        np.testing.assert_array_equal(F.one_hot(labels, classes).numpy(), expected.numpy())
