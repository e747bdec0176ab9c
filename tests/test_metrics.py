"""Streaming metrics against scikit-learn and against worked examples."""

import numpy as np
import pytest

from fastnn.train import (AUC, F1, METRICS, R2, Accuracy, ConfusionMatrix, MeanAbsoluteError, MeanSquaredError,
                          Perplexity,
                          Precision, Recall, TopKAccuracy, get_metric)

N = 500


def softmax(logits):
    grown = np.exp(logits - logits.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)


@pytest.fixture(params=["plain", "weighted"])
def weights(request):
    return None if request.param == "plain" else np.random.default_rng(5).uniform(0, 3, N).round(1)


def problem(classes, seed=0):
    """Logits that know something of the labels, some of them equal, all exact in float32."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, N)
    logits = rng.normal(size=(N, classes)) + 1.2 * (labels[:, None] == np.arange(classes))
    return ((8 * logits).round() / 8).astype(np.float32), labels


def stream(metric, prediction, target, weights=None, cuts=(1, 7, 7, 200)):
    """The result after batches of uneven sizes (one of them empty)."""
    edges = [0, *cuts, len(target)]
    for start, stop in zip(edges, edges[1:]):
        part = slice(start, stop)
        metric.update(prediction[part], target[part], None if weights is None else weights[part])
    return metric.result()


@pytest.fixture
def skl():
    return pytest.importorskip("sklearn.metrics")


@pytest.mark.parametrize("classes", [2, 5])
def test_accuracy(skl, classes, weights):
    logits, labels = problem(classes)
    wanted = skl.accuracy_score(labels, logits.argmax(1), sample_weight=weights)
    assert stream(Accuracy(), logits, labels, weights) == pytest.approx(wanted, abs=1e-12)


def test_accuracy_of_one_column(skl):
    logits, labels = problem(2)
    column = logits[:, 1] - logits[:, 0]
    wanted = skl.accuracy_score(labels, column > 0)
    assert stream(Accuracy(), column, labels) == pytest.approx(wanted)
    assert stream(Accuracy(), column[:, None], labels[:, None].astype(np.float32)) == pytest.approx(wanted)
    assert stream(Accuracy(from_logits=False), 1 / (1 + np.exp(-column)), labels) == pytest.approx(wanted)


def test_accuracy_of_one_hot_maps_and_ignored_targets():
    logits = np.zeros((2, 3, 4))
    logits[:, 1] = 1  # class 1 everywhere
    target = np.array([[1, 1, 0, -100], [2, 1, -100, -100]])
    metric = Accuracy()
    metric.update(logits, target)
    assert metric.result() == pytest.approx(3 / 5)
    metric.update(logits[:, :, 0], np.eye(3)[[1, 2]])  # one-hot
    assert metric.result() == pytest.approx(4 / 7)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_top_k_accuracy(skl, k, weights):
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 5, N), rng.normal(size=(N, 5))
    wanted = skl.top_k_accuracy_score(labels, logits, k=k, sample_weight=weights) if k < 5 else 1.0
    assert stream(TopKAccuracy(k), logits, labels, weights) == pytest.approx(wanted)


def test_top_k_counts_ties_once():
    metric = TopKAccuracy(2)
    metric.update(np.zeros((4, 4)), np.arange(4))  # all classes tie: two of four are "among the top two"
    assert metric.result() == 0.5
    metric.reset()
    metric.update(np.full((1, 4), np.nan), [0])
    assert metric.result() == 0  # a diverged model is not right


@pytest.mark.parametrize("classes", [2, 5])
def test_confusion_matrix(skl, classes, weights):
    logits, labels = problem(classes)
    wanted = skl.confusion_matrix(labels, logits.argmax(1), sample_weight=weights)
    np.testing.assert_allclose(stream(ConfusionMatrix(), logits, labels, weights), wanted)


@pytest.mark.parametrize("average", ["auto", "binary", "macro", "micro"])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("title", ["precision", "recall", "f1"])
def test_precision_recall_f1(skl, title, classes, average, weights):
    metric = {"precision": Precision, "recall": Recall, "f1": F1}[title](average)
    logits, labels = problem(classes)
    if classes == 5:
        if average == "binary":
            with pytest.raises(ValueError, match="needs 2 classes, found 5"):
                stream(metric, logits, labels)
            return
        labels[labels == 3] = 0  # a class that is only predicted,
        logits[:, 4] = -9  # and one that is only there
    known = {"auto": "binary" if classes == 2 else "macro"}.get(average, average)
    wanted = getattr(skl, f"{title}_score")(labels, logits.argmax(1), average=known, sample_weight=weights,
                                            zero_division=0)
    assert stream(metric, logits, labels, weights) == pytest.approx(wanted)


@pytest.mark.parametrize("form", ["two columns", "one column", "probabilities", "five classes"])
def test_auc(skl, form, weights):
    logits, labels = problem(5 if form == "five classes" else 2)
    if form == "five classes":
        wanted = np.mean([skl.roc_auc_score(labels == c, softmax(logits.astype(float))[:, c], sample_weight=weights)
                          for c in range(5)])
        found = stream(AUC(), logits, labels, weights)
    else:
        difference = (logits[:, 1] - logits[:, 0]).astype(float)
        wanted = skl.roc_auc_score(labels, difference, sample_weight=weights)
        given = {"two columns": logits, "one column": difference, "probabilities": 1 / (1 + np.exp(-difference))}[form]
        found = stream(AUC(from_logits=form != "probabilities"), given, labels, weights)
    assert found == pytest.approx(wanted, abs=1e-12)


def test_auc_in_bins_is_close(skl, weights):
    logits, labels = problem(2)
    wanted = skl.roc_auc_score(labels, logits[:, 1] - logits[:, 0], sample_weight=weights)
    assert stream(AUC(bins=1000), logits, labels, weights) == pytest.approx(wanted, abs=2e-3)
    assert stream(AUC(bins=2), logits, labels, weights) != pytest.approx(wanted, abs=2e-3)


def test_auc_ranks_scores_that_saturate():
    metric = AUC()
    metric.update(np.array([50.0, 60.0, 70.0, 80.0]), [0, 0, 1, 1])  # all of them probability 1 in float64
    assert metric.result() == 1
    assert np.isnan(get_metric("auc").result())
    metric.reset()
    metric.update(np.array([1.0, 2.0]), [1, 1])
    assert np.isnan(metric.result())  # no negatives


@pytest.mark.parametrize("outputs", [None, 3])
def test_regression_metrics(skl, outputs, weights):
    rng = np.random.default_rng(2)
    shape = N if outputs is None else (N, outputs)
    target = 1e4 + rng.normal(size=shape)  # an offset that loses 8 digits in a naive sum of squares
    prediction = target + 0.5 * rng.normal(size=shape)
    for metric, name in ((MeanAbsoluteError(), "mean_absolute_error"), (MeanSquaredError(), "mean_squared_error"),
                         (R2(), "r2_score")):
        wanted = getattr(skl, name)(target, prediction, sample_weight=weights)
        assert stream(metric, prediction, target, weights) == pytest.approx(wanted, rel=1e-9), name


def test_r2_of_constant_targets(skl):
    for prediction in ([2.0, 2.0], [2.0, 3.0]):
        metric = R2()
        metric.update(prediction, [2.0, 2.0])
        assert metric.result() == skl.r2_score([2.0, 2.0], prediction)


@pytest.mark.parametrize("batch", [3, 10])
def test_r2_of_constant_targets_that_binary_fractions_round(batch):
    """0.1 ten times has not the mean 0.1; what is left of it is not what the targets vary by."""
    for predicted, wanted in ((np.full(10, 0.1), 1.0), (np.zeros(10), 0.0)):
        assert stream(R2(), predicted, np.full(10, 0.1), cuts=(batch,)) == wanted


def test_one_column_is_two_classes():
    column, labels = np.array([-2.0, -0.5, 0.0, 0.5, 3.0]), np.array([0, 1, 0, 1, 1])
    both = np.stack([np.zeros(5), column], axis=1)
    for metric in (TopKAccuracy(1), TopKAccuracy(2), Perplexity()):
        wanted = stream(metric, both, labels, cuts=())
        for form in (column, column[:, None]):
            metric.reset()
            assert stream(metric, form, labels, cuts=(2,)) == pytest.approx(wanted)
    assert stream(Perplexity(from_logits=False), 1 / (1 + np.exp(-column)), labels, cuts=()) == pytest.approx(
        stream(Perplexity(), both, labels, cuts=()))


def test_soft_targets_of_one_column():
    column, soft = np.array([-2.0, 0.5, 3.0, -1.0]), np.array([0.1, 0.9, 0.95, 0.6])
    assert stream(Accuracy(), column, soft, cuts=()) == 0.75
    assert np.array_equal(stream(ConfusionMatrix(), column[:, None], soft[:, None], cuts=()), [[1, 0], [1, 2]])
    for target in ([0.0, 1.5], [0.0, np.nan]):
        with pytest.raises(ValueError, match=f"target holds {target[1]:g}, expected whole numbers"):
            Accuracy().update(np.eye(2), np.array(target))


@pytest.mark.filterwarnings("error")
def test_scores_that_are_no_numbers():
    """A model that diverged gives NaN, without errors or warnings."""
    labels = np.array([0, 1, 1])
    for bad in (np.nan, np.inf):
        for classes in (1, 2, 3):
            scores = np.full((3, classes), bad)
            for metric in (AUC(bins=10), AUC(), Perplexity()):
                if classes > 1 or np.isnan(bad):
                    assert np.isnan(stream(metric, scores, labels, cuts=(1,)))
    assert stream(Perplexity(), np.array([[1e5, 0.0]]), [1], cuts=()) == np.inf
    assert np.isnan(stream(F1("macro"), np.zeros((2, 3)), np.array([-100, -100]), cuts=()))
    with pytest.raises(ValueError, match="auc: prediction holds numbers from -1 to 2, expected probabilities"):
        AUC(bins=10, from_logits=False).update(np.array([-1.0, 2.0]), np.array([0, 1]))


def test_perplexity(skl, weights):
    logits, labels = problem(5)
    wanted = np.exp(skl.log_loss(labels, softmax(logits.astype(np.float64)), sample_weight=weights))
    assert stream(Perplexity(), logits, labels, weights) == pytest.approx(wanted, rel=1e-9)
    assert stream(Perplexity(from_logits=False), softmax(logits.astype(float)), labels,
                  weights) == pytest.approx(wanted, rel=1e-9)
    metric = Perplexity()
    metric.update(np.array([[1000.0, 0.0]]), [0])  # no overflow
    assert metric.result() == 1


@pytest.mark.parametrize("name", [*METRICS, "top_3_accuracy"])
def test_names_reset_and_empty(name):
    metric = get_metric(name)
    assert metric.name == name
    empty = metric.result()
    assert np.size(empty) == 0 or np.isnan(empty)
    regression = name in ("mae", "mse", "r2")
    prediction, target = (np.arange(6.0) ** 2, np.arange(6.0)) if regression else problem(2)
    if name == "top_3_accuracy":
        prediction, target = problem(5)
    metric.update(prediction, target)
    once = metric.result()
    assert np.isfinite(once).all()
    metric.update(prediction[:2], target[:2])
    metric.reset()
    metric.update(prediction, target)
    np.testing.assert_array_equal(metric.result(), once)
    assert metric.scalar == (np.ndim(once) == 0)


def test_messages():
    with pytest.raises(ValueError, match="'acuracy' is unknown, expected one of .*accuracy"):
        get_metric("acuracy")
    with pytest.raises(TypeError, match="neither a name nor a Metric"):
        get_metric(3)
    with pytest.raises(ValueError, match="k is 0"):
        TopKAccuracy(0)
    with pytest.raises(ValueError, match="bins is 1"):
        AUC(1)
    with pytest.raises(ValueError, match="average is 'weighted'"):
        F1("weighted")
    with pytest.raises(ValueError, match=r"shape \(4, 3\) does not belong to target of shape \(5,\)"):
        Accuracy().update(np.zeros((4, 3)), np.zeros(5, int))
    with pytest.raises(ValueError, match="labels from 0 to 3, expected 0 to 2"):
        Accuracy().update(np.zeros((2, 3)), [0, 3])
    for several in ([[1, 0, 1], [0, 0, 1]], [[0, 0, 1], [0, 0, 0]], [[0.2, 0.9, 0.4], [0, 1, 0]]):
        with pytest.raises(ValueError, match=r"target of shape \(2, 3\) holds [\d.]+ in sum over the classes of a sample, expected 1"):
            Accuracy().update(np.zeros((2, 3)), several)
    with pytest.raises(ValueError, match=r"sample_weight has shape \(3,\), expected \(2,\)"):
        Accuracy().update(np.zeros((2, 3)), [0, 1], np.ones(3))
    with pytest.raises(ValueError, match=r"prediction has shape \(3,\), target \(2,\)"):
        MeanSquaredError().update(np.zeros(3), np.zeros(2))
    metric = ConfusionMatrix()
    metric.update(np.zeros((2, 3)), [0, 1])
    with pytest.raises(ValueError, match="a batch has 4 classes, those before had 3"):
        metric.update(np.zeros((2, 4)), [0, 1])
