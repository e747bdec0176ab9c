"""Losses beyond the OpSpec list: large inputs over threads, layouts, labels of all types, errors, layers."""

import numpy as np
import pytest

import fastnn
from fastnn import nn
from fastnn._core import launch
from fastnn.ops import loss
from fastnn.testing.checks import forced_threads
from fastnn.testing.loss_specs import cross_entropy_reference

RNG = np.random.default_rng(0)


def gradients(function, *arrays):
    tensors = [fastnn.tensor(a, requires_grad=True) for a in arrays]
    value = function(*tensors)
    value.backward(fastnn.ones(*value.shape))
    return value.detach().numpy(), [t.grad.numpy() for t in tensors]


@pytest.mark.parametrize("shape", [(3000, 10), (40, 3000), (4, 21, 30, 31), (4, 21, 500)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_bits_depend_on_neither_strides_nor_threads(shape, reduction):
    x = RNG.standard_normal(shape).astype(np.float32)
    labels = RNG.integers(0, shape[1], shape[:1] + shape[2:])
    labels[0] = -100
    weight, sample_weight = (RNG.uniform(0.5, 2, n).astype(np.float32) for n in (shape[1], labels.shape))
    expected = None
    for array in (x, np.asfortranarray(x), np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)):
        for threads in (1, 2, 3, 8):
            with forced_threads(threads):
                t = fastnn.from_numpy(array)
                t.requires_grad = True
                value = loss.cross_entropy(t, fastnn.from_numpy(np.asfortranarray(labels)),
                                           fastnn.from_numpy(np.repeat(weight, 2)[::2]),
                                           reduction=reduction, label_smoothing=0.1, sample_weight=sample_weight)
                value.backward(fastnn.ones(*value.shape))
                result = value.detach().numpy().tobytes() + np.ascontiguousarray(t.grad.numpy()).tobytes()
            expected = expected or result
            assert result == expected, (array.strides, threads)
    exact = cross_entropy_reference(x.astype(np.float64), labels, weight, reduction=reduction, label_smoothing=0.1,
                                    sample_weight=sample_weight)
    np.testing.assert_allclose(value.detach().numpy(), exact, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_labels_of_all_integer_types(dtype):
    x, labels = RNG.standard_normal((5, 4)).astype(np.float32), np.array([0, 3, 1, 2, 3])
    expected = loss.cross_entropy(fastnn.tensor(x), labels).item()
    assert loss.cross_entropy(fastnn.tensor(x), fastnn.tensor(labels.astype(dtype))).item() == expected


def test_one_hot_rows_are_labels():
    x, labels = RNG.standard_normal((50, 7)).astype(np.float32), RNG.integers(0, 7, 50)
    for smoothing in (0.0, 0.3):
        a, (da,) = gradients(lambda t: loss.cross_entropy(t, labels, label_smoothing=smoothing), x)
        for one_hot in (np.eye(7)[labels], np.eye(7, dtype=bool)[labels]):
            b, (db,) = gradients(lambda t: loss.cross_entropy(t, one_hot, label_smoothing=smoothing), x)
            np.testing.assert_allclose(a, b, rtol=1e-6)
            np.testing.assert_allclose(da, db, atol=1e-7)


def test_smoothing_in_the_textbooks_words():
    """Moving e to the other k - 1 classes is label_smoothing = e k / (k - 1)."""
    k, e = 5, 0.1
    x, label = RNG.standard_normal((1, k)), 2
    q = np.full((1, k), e / (k - 1))
    q[0, label] = 1 - e
    expected = loss.cross_entropy(fastnn.tensor(x), q).item()
    smoothed = loss.cross_entropy(fastnn.tensor(x), np.array([label]), label_smoothing=e * k / (k - 1)).item()
    assert smoothed == pytest.approx(expected, abs=1e-12)


def test_ignored_positions_give_no_loss_and_no_gradient():
    x, labels = RNG.standard_normal((4, 3)).astype(np.float32), np.array([1, 7, 2, 7])
    value, (dx,) = gradients(lambda t: loss.cross_entropy(t, labels, ignore_index=7, reduction="none"), x)
    assert value[1] == value[3] == 0 and not dx[[1, 3]].any() and dx[0].any()
    value, (dx,) = gradients(lambda t: loss.cross_entropy(t, np.full(4, -100)), x)
    assert np.isnan(value) and not dx.any()


def test_confident_logits_neither_overflow_nor_vanish():
    x = np.array([[1000.0, 0, -1000], [-1e30, 1e30, 0]], np.float32)
    value, (dx,) = gradients(lambda t: loss.cross_entropy(t, np.array([1, 1]), reduction="none"), x)
    np.testing.assert_array_equal(value, [1000, 0])
    np.testing.assert_array_equal(dx, [[1, -1, 0], [0, 0, 0]])
    value, (dx,) = gradients(lambda t: loss.binary_cross_entropy_with_logits(t, np.zeros(2), reduction="sum"),
                             np.array([1000, -1000], np.float32))
    assert value == 1000
    np.testing.assert_array_equal(dx, [1, 0])


def test_nothing_to_lose():
    x = fastnn.zeros(0, 5)
    assert np.isnan(loss.cross_entropy(x, np.zeros(0, int)).item())
    assert loss.cross_entropy(x, np.zeros(0, int), reduction="sum").item() == 0
    assert loss.cross_entropy(x, np.zeros(0, int), reduction="none").shape == (0,)


def test_a_bad_label_is_named_and_nothing_is_written():
    x, labels = fastnn.zeros(2, 5, 3, 4), np.zeros((2, 3, 4), np.int32)
    labels[1, 2, 3] = 77
    outputs = fastnn.zeros(()), fastnn.zeros(24, 5), fastnn.zeros(())
    with pytest.raises(IndexError,
                       match=r"target\[1, 2, 3\] is 77, but must be a class between 0 and 4, or ignore_index \(-100\)"):
        launch.cross_entropy_forward(x, fastnn.tensor(labels), None, None, ignore_index=-100, reduction=1,
                                     smoothing=0.0, out=outputs)
    assert not any(o.numpy().any() for o in outputs)
    with pytest.raises(IndexError, match=r"target\[1\] is -1"):
        loss.cross_entropy(fastnn.zeros(2, 5), [0, -1])


@pytest.mark.parametrize("n", [40, 1000, 1001])
def test_large_cross_entropies_have_the_bits_of_small_ones(n):
    """Past the caches or not; labels side by side across rows, and one that is ignored."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal(((17 << 18) // n + 1, n), dtype=np.float32) * 10
    labels = rng.integers(0, n, len(x))
    labels[:4], labels[-60] = [n - 1, 0, n - 1, 0], -100
    value, (dx,) = gradients(lambda t: loss.cross_entropy(t, labels, reduction="none"), x)
    summed, (dx_summed,) = gradients(lambda t: loss.cross_entropy(t, labels, reduction="sum"), x)
    np.testing.assert_array_equal(dx, dx_summed)
    assert abs(summed - value.astype(np.float64).sum()) < 1e-5 * abs(summed)
    for part in (slice(0, 50), slice(-90, None)):
        small, (small_dx,) = gradients(lambda t: loss.cross_entropy(t, labels[part], reduction="none"), x[part])
        np.testing.assert_array_equal(value[part], small)
        np.testing.assert_array_equal(dx[part], small_dx)


@pytest.mark.parametrize("arguments, options, error, message", [
    (((4, 3), np.zeros(3, int)), {}, ValueError, "target has shape"),
    (((4, 3), np.zeros((4, 2))), {}, ValueError, "probabilities for x have its shape"),
    (((4, 3), np.zeros(4, int)), {"weight": np.ones(4)}, ValueError, "weight has shape"),
    (((4, 3), np.zeros(4, int)), {"sample_weight": np.ones(3)}, ValueError, "sample_weight has shape"),
    (((4, 3), np.zeros(4, int)), {"label_smoothing": 1.5}, ValueError, "smoothing is 1.5"),
    (((4, 3), np.zeros(4, int)), {"reduction": "avg"}, ValueError, "reduction is 'avg'"),
    (((4, 3), np.zeros((4, 3))), {"ignore_index": 1}, ValueError, "ignore_index is 1"),
    (((4, 0), np.zeros(4, int)), {}, ValueError, "no classes"),
    (((), np.zeros((), int)), {}, ValueError, "0-d")])
def test_errors_of_cross_entropy(arguments, options, error, message):
    shape, target = arguments
    with pytest.raises(error, match=message):
        loss.cross_entropy(fastnn.zeros(*shape), target, **options)


def test_errors_of_the_others():
    with pytest.raises(ValueError, match="mse_loss: input has shape"):
        loss.mse_loss(fastnn.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="target requires grad"):
        loss.binary_cross_entropy_with_logits(fastnn.zeros(3), fastnn.zeros(3, requires_grad=True))
    with pytest.raises(ValueError, match="pos_weight"):
        loss.binary_cross_entropy_with_logits(fastnn.zeros(3), np.zeros(3), pos_weight=np.ones((2, 3)))
    with pytest.raises(ValueError, match="CrossEntropyLoss: reduction"):
        nn.CrossEntropyLoss(reduction="all")


def test_bad_labels_of_nll_loss():
    for bad in (-1, 4):
        with pytest.raises(IndexError, match=rf"target\[1\] is {bad}, but must be a class between 0 and 3, or ignore_index"):
            loss.nll_loss(fastnn.zeros(2, 4), [0, bad])
    assert loss.nll_loss(fastnn.tensor([[-np.inf, -1.0], [-2.0, -3.0]]), [-100, 1]).item() == 3


def test_nll_loss_reads_any_layout_and_its_gradient_lies_as_results_do():
    x, labels = RNG.standard_normal((3, 5, 4, 6)).astype(np.float32), RNG.integers(0, 5, (3, 4, 6))
    labels[1, 2, 3] = -100
    weight = RNG.uniform(0.5, 2, 5)
    for reduction in ("mean", "sum", "none"):
        wanted = None
        for view in (fastnn.tensor(x), fastnn.tensor(x.transpose(0, 2, 3, 1).copy()).permute(0, 3, 1, 2),
                     fastnn.tensor(x[..., ::-1].copy()).flip(3), fastnn.tensor(np.repeat(x, 2, 2))[:, :, ::2]):
            view = view.detach().requires_grad_()
            y = loss.nll_loss(view, labels, weight, reduction=reduction)
            y.backward(fastnn.ones_like(y))
            wanted = (y.detach().numpy(), view.grad.numpy()) if wanted is None else wanted
            np.testing.assert_array_equal(y.detach().numpy(), wanted[0])
            np.testing.assert_array_equal(view.grad.numpy(), wanted[1])
        assert (wanted[1] != 0).sum() == labels.size - 1


@pytest.mark.parametrize("shape, labels, message", [
    ((), [0], "x is 0-d"), ((2, 3), [[0, 1]], r"target has shape \(1, 2\), but labels for x \(2, 3\) have its shape without axis 1"),
    ((2, 0), [0, 0], "it has no classes")])
def test_shapes_of_nll_loss(shape, labels, message):
    with pytest.raises(ValueError, match=message):
        loss.nll_loss(fastnn.zeros(shape), labels)


def test_layers():
    x, labels = fastnn.tensor(RNG.standard_normal((6, 4)).astype(np.float32)), RNG.integers(0, 4, 6)
    weight = [1.0, 2, 3, 4]
    layer = nn.CrossEntropyLoss(weight, label_smoothing=0.1)
    assert layer(x, labels).item() == loss.cross_entropy(x, labels, weight, label_smoothing=0.1).item()
    assert list(layer.state_dict()) == ["weight"]
    target = RNG.uniform(0, 1, (6, 4)).astype(np.float32)
    assert nn.MSELoss("sum")(x, target).item() == pytest.approx(float(((x.numpy() - target) ** 2).sum()), rel=1e-6)
    assert nn.BCEWithLogitsLoss(pos_weight=weight)(x, target).item() == \
        loss.binary_cross_entropy_with_logits(x, target, pos_weight=weight).item()
    assert nn.NLLLoss(weight)(nn.LogSoftmax()(x), labels).item() == pytest.approx(loss.cross_entropy(x, labels,
            weight).item(), rel=1e-6)
    assert nn.SmoothL1Loss(beta=2.0)(x, target).item() == pytest.approx(nn.HuberLoss(delta=2.0)(x, target).item() / 2,
            rel=1e-6)
    assert nn.L1Loss()(x, target).item() == loss.quantile_loss(x, target, 0.5).item() * 2
    assert nn.GaussianNLLLoss()(x, target, np.ones(4)).item() == pytest.approx(nn.MSELoss()(x, target).item() / 2,
            rel=1e-6)
    assert nn.PoissonNLLLoss()(x, target).item() == loss.poisson_nll_loss(x, target).item()
    np.testing.assert_allclose(nn.Softmax(1)(x).numpy().sum(1), np.ones(6), rtol=1e-6)
    np.testing.assert_allclose(nn.LogSoftmax()(x).numpy(), np.log(nn.Softmax()(x).numpy()), rtol=1e-5)


def test_focal_losses_without_focus_are_cross_entropies():
    x, labels = RNG.standard_normal((6, 4)).astype(np.float32), np.array([0, 3, 1, -100, 2, 2])
    weight = RNG.uniform(0.5, 2, 4)
    for reduction in ("mean", "sum", "none"):
        a, (da,) = gradients(lambda t: loss.cross_entropy(t, labels, weight, reduction=reduction), x)
        b, (db,) = gradients(lambda t: fastnn.focal_loss(t, labels, 0.0, weight, reduction=reduction), x)
        np.testing.assert_allclose(b, a, rtol=1e-5)
        np.testing.assert_allclose(db, da, atol=1e-6)
    target = RNG.choice([0.0, 1.0], (6, 4))
    a, (da,) = gradients(lambda t: loss.binary_cross_entropy_with_logits(t, target, reduction="none"), x)
    b, (db,) = gradients(lambda t: fastnn.sigmoid_focal_loss(t, target, alpha=-1, gamma=0), x)
    np.testing.assert_allclose(b, a, rtol=1e-6)
    np.testing.assert_allclose(db, da, rtol=1e-6)


def test_hinge_losses_stop_at_the_margin():
    score, target = fastnn.tensor([-0.5, 0.5, 1.0, 3.0]), [1.0, 1, 1, 1]
    assert fastnn.hinge_loss(score, target, reduction="none").tolist() == [1.5, 0.5, 0, 0]
    assert fastnn.hinge_loss(score, target, squared=True, reduction="none").tolist() == [2.25, 0.25, 0, 0]
    assert fastnn.perceptron_loss(score, target, reduction="none").tolist() == [0.5, 0, 0, 0]
    assert fastnn.hinge_loss(score, target, weight=[1.0, 3, 0, 0]).item() == 0.75


@pytest.mark.parametrize("call, error, message", [
    (lambda x: fastnn.hinge_loss(x, x, margin=-1), ValueError, "margin is -1, but must be a number of at least 0"),
    (lambda x: fastnn.hinge_loss(x, [1.0]), ValueError, "hinge_loss: input has shape"),
    (lambda x: fastnn.perceptron_loss(x, x, "avg"), ValueError, "perceptron_loss: reduction is 'avg'"),
    (lambda x: fastnn.multi_margin_loss(x, [0, 1], p=3), ValueError, "p is 3, but must be 1 or 2"),
    (lambda x: fastnn.multi_margin_loss(x, [0, 7]), IndexError, "is 7, but must lie between 0 and 2"),
    (lambda x: fastnn.multi_margin_loss(x, [0]), ValueError, r"target \(1,\), but they must be \(N, C\) and \(N,\)"),
    (lambda x: fastnn.multi_margin_loss(x, [0, 1], weight=[1.0]), ValueError, r"shape \(1,\), but must be \(3,\)"),
    (lambda x: fastnn.multilabel_margin_loss(x, [[0, 1, 2], [-1, 3, 0]]), IndexError,
     r"target\[1, 1\] is 3, but must be a class between 0 and 2, or -1"),
    (lambda x: fastnn.multilabel_margin_loss(x, [[0, 1, 2]]), ValueError, r"target \(1, 3\), but both must be \(N, C\)"),
    (lambda x: fastnn.multilabel_margin_loss(x, [[0.0] * 3] * 2), TypeError, "target has dtype float"),
    (lambda x: fastnn.multilabel_margin_loss(x, [[0] * 3] * 2, "all"), ValueError, "reduction is 'all'"),
    (lambda x: fastnn.kl_div(x, x, "average"), ValueError, "kl_div: reduction is 'average', but must be"),
    (lambda x: fastnn.sigmoid_focal_loss(x, x, alpha=1.5), ValueError, "alpha is 1.5"),
    (lambda x: fastnn.focal_loss(x, [0, 1], gamma=-0.5), ValueError, "gamma is -0.5, but must be a number of"),
    (lambda x: nn.MultiMarginLoss(p=0), ValueError, "MultiMarginLoss: p is 0, but must be 1 or 2"),
    (lambda x: nn.HingeLoss(-1.0), ValueError, "HingeLoss: margin is -1.0"),
    (lambda x: nn.FocalLoss(gamma="2"), ValueError, "FocalLoss: gamma is '2'"),
    (lambda x: nn.KLDivLoss("batch"), ValueError, "KLDivLoss: reduction is 'batch'"),
    (lambda x: fastnn.binary_cross_entropy(x, np.ones(3)), ValueError, "binary_cross_entropy: input has shape")])
def test_errors_of_margins_and_probabilities(call, error, message):
    with pytest.raises(error, match=message):
        call(fastnn.zeros(2, 3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.bool_])
def test_labels_that_are_not_integers_are_told_so(dtype):
    with pytest.raises(TypeError, match=r"target has dtype \w+ and shape \(4,\), .* labels must be integers"):
        loss.cross_entropy(fastnn.randn(4, 3), np.array([0, 1, 1, 0], dtype))
    for name in ("nll_loss", "focal_loss", "multi_margin_loss", "multilabel_margin_loss"):
        with pytest.raises(TypeError, match=f"{name}: target has dtype .*, but must hold integers"):
            getattr(fastnn, name)(fastnn.randn(4, 3), np.array([0, 1, 1, 0], dtype))
