"""fastnn.sklearn beside sklearn.neural_network: the same weights, losses, scores and stops."""

import inspect

import numpy as np
import pytest

pytest.importorskip("sklearn")

from scipy.sparse import csr_matrix  # noqa: E402
from sklearn import neural_network as peer  # noqa: E402
from sklearn.datasets import load_diabetes, load_digits, make_multilabel_classification  # noqa: E402

import fastnn.sklearn as ours  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

OPTIONS = [dict(), dict(solver="sgd", learning_rate_init=0.1), dict(solver="sgd", momentum=0.0), dict(early_stopping=True),
           dict(solver="sgd", learning_rate="invscaling", learning_rate_init=0.5, power_t=0.3), dict(hidden_layer_sizes=()),
           dict(solver="sgd", learning_rate="adaptive", tol=0.05, n_iter_no_change=1, learning_rate_init=0.2, max_iter=40),
           dict(activation="tanh", hidden_layer_sizes=(30, 20)), dict(activation="logistic", shuffle=False, alpha=1.0),
           dict(activation="identity", batch_size=33, beta_1=0.5, beta_2=0.9, epsilon=1e-3),
           dict(solver="sgd", nesterovs_momentum=False, early_stopping=True, validation_fraction=0.3, n_iter_no_change=2, tol=0.02),
           dict(solver="lbfgs")]


def data(kind, dtype):
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(dtype)
    if kind == "several labels":
        X, y = make_multilabel_classification(random_state=0)
        return (X / 10).astype(dtype), y  # large ones saturate: scikit-learn clips the loss of a sample, at 36 in float64
    return X, {"classes": y, "two": np.where(y > 4, "high", "low")}[kind]


def agree(a, b, X, y, dtype):
    is_exact = dtype == np.float64
    for p, q in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_):
        assert p.shape == q.shape  # in float32 Adam makes steps of what rounding leaves of a pixel that is hardly ever on
        np.testing.assert_allclose(p, q, rtol=0, atol=1e-10 if is_exact else 5e-3)
        assert is_exact or np.abs(p - q).mean() < 1e-5
    assert (a.n_iter_, a.n_layers_, a.n_outputs_, a.out_activation_) == (b.n_iter_, b.n_layers_, b.n_outputs_, b.out_activation_)
    assert a.loss_ == pytest.approx(b.loss_, rel=1e-9 if is_exact else 1e-3)
    if a.solver != "lbfgs":
        assert a.t_ == b.t_
        np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-9 if is_exact else 1e-3)
        if a.early_stopping and is_exact:
            np.testing.assert_allclose(a.validation_scores_, b.validation_scores_, rtol=1e-9)
    if is_exact:
        assert a.score(X, y) == pytest.approx(b.score(X, y))
        np.testing.assert_allclose(*(m.predict_proba(X) if hasattr(m, "predict_proba") else m.predict(X) for m in (a, b)), rtol=1e-7,
                                   atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["classes", "two", "several labels"])
def test_classifiers(kind, options, dtype):
    X, y = data(kind, dtype)
    a, b = (m.MLPClassifier(**{"random_state": 3, "max_iter": 8, **options}).fit(X, y) for m in (ours, peer))
    agree(a, b, X, y, dtype)
    assert a.coefs_[0].dtype == (np.float64 if a.solver == "lbfgs" else dtype)


@pytest.mark.parametrize("options", [*OPTIONS, dict(loss="poisson"), dict(loss="poisson", solver="lbfgs")], ids=str)
def test_regressors(options):
    X, y = load_diabetes(return_X_y=True)
    y = np.abs(y - y.mean()) / y.std()
    a, b = (m.MLPRegressor(**{"random_state": 3, "max_iter": 8, **options}).fit(X, y) for m in (ours, peer))
    agree(a, b, X, y, np.float64)


def test_several_outputs():
    X, y = load_diabetes(return_X_y=True)
    y = np.stack([y, 2 * y], 1) / 200
    a, b = (m.MLPRegressor(random_state=3, max_iter=8).fit(X, y) for m in (ours, peer))
    agree(a, b, X, y, np.float64)


@pytest.mark.parametrize("options", [dict(), dict(early_stopping=True), dict(solver="lbfgs")], ids=str)
def test_sample_weights(options):
    X, y = data("classes", np.float64)
    w = np.random.default_rng(0).random(len(y))
    a, b = (m.MLPClassifier(**{"random_state": 3, "max_iter": 6, **options}).fit(X, y, w) for m in (ours, peer))
    agree(a, b, X, y, np.float64)


def test_sparse_rows():
    X, y = data("two", np.float64)
    a, b = (m.MLPClassifier(random_state=3, max_iter=6).fit(csr_matrix(X), y) for m in (ours, peer))
    agree(a, b, X, y, np.float64)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fit_and_warm_starts(solver):
    X, y = data("classes", np.float64)
    a, b = (m.MLPClassifier(random_state=3, solver=solver) for m in (ours, peer))
    for k in range(0, 1800, 450):
        for model in (a, b):
            model.partial_fit(X[k:k + 450], y[k:k + 450], classes=np.arange(10))
    agree(a, b, X, y, np.float64)
    a, b = (m.MLPClassifier(random_state=3, solver=solver, warm_start=True, max_iter=3) for m in (ours, peer))
    for _ in range(3):
        a.fit(X, y), b.fit(X, y)
    agree(a, b, X, y, np.float64)


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_parameters_are_a_superset_with_the_same_defaults(name):
    own, theirs = (inspect.signature(getattr(m, name)).parameters for m in (ours, peer))
    for parameter, value in theirs.items():
        assert own[parameter].default == value.default, parameter
    methods = [n for n in dir(getattr(peer, name)) if not n.startswith("_")]
    assert set(methods) <= set(dir(getattr(ours, name)))
