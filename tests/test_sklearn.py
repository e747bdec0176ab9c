"""scikit-learn's estimators on this engine: its rules, and what it refuses."""

import copy
import os
import pickle
import signal
import sys
import threading
import time

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")

from sklearn.datasets import load_diabetes, load_digits  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

from fastnn.sklearn import MLPClassifier, MLPRegressor  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return X / X.std(0), (y - y.mean()) / y.std()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [MLPClassifier(max_iter=60), MLPRegressor(max_iter=60), MLPClassifier(solver="lbfgs", max_iter=60),
                                       MLPRegressor(solver="lbfgs", max_iter=60)], ids=repr)
def test_all_of_scikit_learns_checks_pass(estimator):
    found = check_estimator(estimator, on_fail=None)
    failed = [(check["check_name"], check["exception"]) for check in found if check["status"] not in ("passed", "skipped")]
    assert not failed and sum(check["status"] == "passed" for check in found) > 45


def test_validation_data_of_ones_own_decide_when_to_stop(digits):
    X, y = digits
    model = MLPClassifier((32,), early_stopping=True, n_iter_no_change=2, tol=0.01, random_state=0)
    model.fit(X[:1200], y[:1200], X_val=X[1200:], y_val=y[1200:])
    assert model.n_iter_ < 60 and len(model.validation_scores_) == len(model.validation_loss_curve_) == model.n_iter_
    assert model.best_validation_score_ == max(model.validation_scores_) == model.score(X[1200:], y[1200:])
    assert model.t_ == 1200 * model.n_iter_, "none of X is held back"
    log = model.predict_log_proba(X[1200:])
    best = int(np.argmax(model.validation_scores_))
    loss = -log[np.arange(len(log)), y[1200:]].mean()
    assert loss == pytest.approx(model.validation_loss_curve_[best], rel=1e-4)


def test_validation_data_are_watched_without_early_stopping(diabetes):
    X, y = diabetes
    rows = np.random.default_rng(0).random(200)
    model = MLPRegressor(hidden_layer_sizes=8, max_iter=5, random_state=0).fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
    assert model.n_iter_ == 5 and model.best_validation_score_ is None
    assert model.validation_scores_[-1] == pytest.approx(model.score(X[300:], y[300:]))
    error = y[300:] - model.predict(X[300:])
    assert model.validation_loss_curve_[-1] == pytest.approx(0.5 * (error**2).mean())
    w = rows[:len(error)]
    model = MLPRegressor(max_iter=2, random_state=0).fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:], sample_weight_val=w)
    assert model.validation_loss_curve_[-1] == pytest.approx(0.5 * np.average((y[300:] - model.predict(X[300:]))**2, weights=w))


def test_class_weights_count_as_sample_weights(digits):
    X, y = digits
    weights = {k: 1.0 + k for k in range(10)}
    a = MLPClassifier(max_iter=4, random_state=0, class_weight=weights).fit(X, y, sample_weight=np.full(len(y), 2.0))
    b = MLPClassifier(max_iter=4, random_state=0).fit(X, y, sample_weight=2.0 * (1 + y))
    np.testing.assert_array_equal(a.coefs_[0], b.coefs_[0])
    skewed = np.r_[np.flatnonzero(y == 3), np.flatnonzero(y == 8)[:15]]
    balanced, plain = (MLPClassifier((16,), class_weight=weight, alpha=1, max_iter=15, random_state=0).fit(X[skewed], y[skewed])
                       for weight in ("balanced", None))
    assert balanced.predict_proba(X[y == 8])[:, 1].mean() > plain.predict_proba(X[y == 8])[:, 1].mean() + 0.1


def test_dropout_is_drawn_from_random_state(digits):
    X, y = digits
    a, b, c = (MLPClassifier(max_iter=3, dropout=p, random_state=0).fit(X, y) for p in (0.5, 0.5, 0.0))
    np.testing.assert_array_equal(a.coefs_[0], b.coefs_[0])
    assert abs(a.coefs_[0] - c.coefs_[0]).max() > 1e-3
    np.testing.assert_array_equal(a.predict_proba(X[:9]), a.predict_proba(X[:9]))


@pytest.mark.parametrize("loss", ["absolute_error", "huber"])
def test_losses_that_bear_outliers(diabetes, loss):
    X, y = diabetes
    spoilt = np.where(np.arange(len(y)) % 10 == 0, 30.0, y)
    errors = [np.abs(MLPRegressor(kind, (8,), alpha=0, learning_rate_init=0.01, max_iter=60, random_state=0).fit(X, spoilt).predict(X)
                     - y)[np.arange(len(y)) % 10 != 0].mean() for kind in (loss, "squared_error")]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("activation", ["gelu", "silu", "leaky_relu", "elu", "identity"])
def test_other_activations_learn(digits, activation):
    X, y = digits
    model = MLPClassifier((32,), activation, max_iter=30, learning_rate_init=0.01, random_state=0).fit(X[:1000], y[:1000])
    assert model.score(X[1000:], y[1000:]) > 0.87


def test_partial_fit_goes_on_with_its_moments_also_from_a_pickle_or_copy(digits):
    X, y = digits
    parts = [slice(k, k + 300) for k in range(0, 1500, 300)]
    models = []
    for change in (lambda m: m, lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy):
        model = MLPClassifier((20,), random_state=0, early_stopping=True)
        for part in parts:
            model = change(model.partial_fit(X[part], y[part], classes=np.arange(10)))
        models.append(model)
    for other in models[1:]:
        np.testing.assert_array_equal(models[0].coefs_[1], other.coefs_[1])
    assert models[0].t_ == 1500 and len(models[0].loss_curve_) == 5


def test_a_copy_does_not_share_weights(digits):
    X, y = digits
    model = MLPClassifier((20,), max_iter=2, random_state=0).fit(X, y)
    before = model.coefs_[0].copy()
    copy.deepcopy(model).coefs_[0][:] = 0
    np.testing.assert_array_equal(model.coefs_[0], before)


def test_what_is_written_into_coefs_counts(digits):
    X, y = digits
    model = MLPClassifier((20,), max_iter=2, random_state=0).fit(X, y)
    model.coefs_[-1][:] = 0
    model.intercepts_[-1][:] = np.eye(10)[4]
    assert set(model.predict(X)) == {4}
    model.coefs_, model.intercepts_ = [c.copy() for c in model.coefs_], [*model.intercepts_[:-1], np.eye(10, dtype=np.float32)[7]]
    assert set(model.predict(X)) == {7}


def test_pipelines_searches_and_folds(digits):
    X, y = digits
    model = make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=8, learning_rate_init=0.01, random_state=0))
    assert cross_val_score(model, X, y, cv=3).min() > 0.8
    search = GridSearchCV(model, {"mlpclassifier__dropout": [0, 0.3], "mlpclassifier__activation": ["relu", "gelu"]}, cv=2, n_jobs=2)
    assert search.fit(X[:600], y[:600]).best_score_ > 0.6


def test_sparse_rows_give_the_same(digits):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = digits
    for kind in (sparse.csr_matrix, sparse.csc_array):
        a = MLPClassifier((16,), max_iter=3, random_state=0).fit(X, y)
        b = MLPClassifier((16,), max_iter=3, random_state=0).fit(kind(X), y)
        np.testing.assert_array_equal(a.coefs_[0], b.coefs_[0])
        np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(kind(X)))


def test_max_time_ends_the_fit(digits):
    X, y = digits
    model = MLPClassifier(max_iter=10**6, tol=0, n_iter_no_change=np.inf, max_time=0.2).fit(X, y)
    assert 1 <= model.n_iter_ < 10**5


def test_rows_of_no_weight_teach_nothing(digits):
    X, y = digits
    weight = np.zeros(len(y))
    weight[:200] = 1
    options = dict(solver="sgd", momentum=0.0, shuffle=False, batch_size=200, alpha=0, max_iter=3, random_state=0)
    a = MLPClassifier((8,), **options).fit(X, y, sample_weight=weight)
    b = MLPClassifier((8,), **options).fit(X[:200], y[:200])
    np.testing.assert_allclose(a.coefs_[0], b.coefs_[0], rtol=0, atol=1e-6)


BAD = [(dict(alpha=-1), "alpha is -1, but must be a number of at least 0"),
       (dict(activation="foo"), "activation is 'foo', but must be one of celu"),
       (dict(activation=[]), r"activation is \[\], but must be one"),
       (dict(hidden_layer_sizes=(3, 0)), "hidden_layer_sizes is 0"), (dict(dropout=1), "dropout is 1, but must be below 1"),
       (dict(batch_size=0), "batch_size is 0"), (dict(max_iter=0), "max_iter is 0"), (dict(shuffle=1), "shuffle is 1, but must be True"),
       (dict(solver="newton"), "solver is 'newton'"), (dict(learning_rate_init=0), "learning_rate_init is 0"),
       (dict(momentum=1.5), "momentum is 1.5"), (dict(max_time=0), "max_time is 0"), (dict(tol=np.nan), "tol is nan"),
       (dict(n_iter_no_change=0), "n_iter_no_change is 0"), (dict(epsilon="a"), "epsilon is 'a'"),
       (dict(solver="sgd", learning_rate_init=1e9), "the loss is (nan|inf) after epoch")]


@pytest.mark.parametrize("options, message", BAD)
def test_bad_parameters_are_named(digits, options, message):
    with pytest.raises(ValueError, match=f"MLPClassifier: .*{message}"):
        MLPClassifier(**options).fit(*digits)


def test_bad_data_are_named(digits, diabetes):
    X, y = digits
    with pytest.raises(ValueError, match="y_val is None, but X_val and y_val go together"):
        MLPClassifier().fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="sample_weight_val is given, but X_val and y_val are not"):
        MLPClassifier().fit(X, y, sample_weight_val=y)
    with pytest.raises(ValueError, match="sample_weight has shape .3,., but X has 1797 samples"):
        MLPClassifier().fit(X, y, sample_weight=[1, 2, 3])
    with pytest.raises(ValueError, match="sample_weight goes from -1 to 1, but must hold no negative numbers"):
        MLPClassifier().fit(X, y, sample_weight=np.where(y == 0, -1, 1))
    with pytest.raises(ValueError, match="y holds -.*, but loss 'poisson' needs counts of at least 0"):
        MLPRegressor("poisson").fit(*diabetes)
    with pytest.raises(ValueError, match="loss is 'l3', but must be one of squared_error, poisson"):
        MLPRegressor("l3").fit(*diabetes)
    with pytest.raises(AttributeError, match="partial_fit"):
        MLPClassifier(solver="lbfgs").partial_fit
    fitted = MLPClassifier((8,), max_iter=1, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="hidden_layer_sizes is 9, but the layers fitted before have .8. units"):
        fitted.set_params(hidden_layer_sizes=9).fit(X, y)


def test_a_fit_that_does_not_converge_warns(digits):
    with pytest.warns(ConvergenceWarning, match="Maximum iterations .1. reached"):
        MLPClassifier((4,), max_iter=1).fit(*digits)
    with pytest.warns(ConvergenceWarning, match="lbfgs failed to converge after 2 iterations"):
        MLPClassifier((4,), solver="lbfgs", max_iter=2).fit(*digits)


def test_without_scikit_learn_the_message_holds_the_command(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("fastnn.sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"fastnn.sklearn needs the package 'sklearn'.*pip install 'fastnn\[sklearn\]'"):
        __import__("fastnn.sklearn")


def test_settings_may_change_between_calls_of_partial_fit(digits):
    X, y = digits
    models = [MLPClassifier((8,), random_state=0).partial_fit(X, y, classes=np.arange(10)) for _ in range(3)]
    models[1].set_params(alpha=100.0)
    models[2].set_params(solver="sgd", activation="tanh")
    for model in models:
        model.partial_fit(X, y)
    norms = [np.abs(model.coefs_[0]).sum() for model in models]
    assert norms[1] < norms[0] and norms[2] != norms[0] and len(models[2].loss_curve_) == 2
    lbfgs = MLPClassifier((8,), solver="lbfgs", warm_start=True, max_iter=3, random_state=0).fit(X, y)
    assert len(lbfgs.set_params(solver="adam").fit(X, y).loss_curve_) == 3


@pytest.mark.parametrize("is_sparse", [False, True])
def test_ctrl_c_keeps_what_was_learned(digits, is_sparse):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = digits
    model = MLPClassifier(max_iter=10**7, tol=0, n_iter_no_change=np.inf, max_time=60)

    def press():
        while len(getattr(model, "loss_curve_", ())) < 12:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    began = time.monotonic()
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(sparse.csr_matrix(X) if is_sparse else X, y)
    assert time.monotonic() - began < 30 and model.score(X, y) > 0.3


def test_read_only_data_are_taken(digits):
    X, y = digits
    X.flags.writeable = y.flags.writeable = False
    assert MLPClassifier(max_iter=2, random_state=0).fit(X, y).predict(X[:3]).shape == (3,)


def test_types_may_change_between_calls(digits):
    X, y = digits
    a, b = (MLPClassifier((8,), random_state=0) for _ in range(2))
    for model, kinds in ((a, (np.float32, np.float64)), (b, (np.float32, np.float32))):
        for kind in kinds:
            model.partial_fit(X.astype(kind), y, classes=np.arange(10))
    np.testing.assert_array_equal(a.coefs_[0], b.coefs_[0])
    warm = MLPClassifier((8,), random_state=0, warm_start=True, max_iter=2).fit(X, y).fit(X.astype(np.float64), y)
    assert warm.coefs_[0].dtype == np.float64 and warm.predict(X).shape == y.shape


def test_arrays_that_were_put_in_place_are_not_trained_on(digits):
    X, y = digits
    model = MLPClassifier((8,), random_state=0, warm_start=True, max_iter=2).fit(X, y)
    held = model.coefs_
    before = [coef.copy() for coef in held]
    model.fit(X, y)
    for coef, value in zip(held, before):
        np.testing.assert_array_equal(coef, value)
    assert abs(model.coefs_[0] - before[0]).max() > 0
