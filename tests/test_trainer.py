"""Trainer: fit, evaluate, predict, weights, captured steps, the same run from the same seed, what is refused."""

import tracemalloc
import warnings

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn, optim, program
from fastnn.data import ArrayDataset, DataLoader, Normalize
from fastnn.models import lenet5, mlp
from fastnn.train import (EarlyStopping, History, LambdaCallback, LearningRateScheduler, ReduceLROnPlateau,
                          TerminateOnNaN, Trainer)
from fastnn.train import captured, trainer as trainer_module
from training import blobs, make, same, weights


# -- the loop does what it says --

def test_fit_learns_and_reports():
    x, y = blobs()
    trainer = make()
    history = trainer.fit(x, y, batch_size=32, epochs=8, validation_data=blobs(seed=5), verbose=0)
    assert isinstance(history, History) and history is trainer.history
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert history.epoch == list(range(8)) and all(len(values) == 8 for values in history.history.values())
    assert history.history["loss"][-1] < 0.3 * history.history["loss"][0]
    assert history.history["val_accuracy"][-1] > 0.9


def test_fit_equals_the_loop_written_out():
    x, y = blobs(100)
    trainer = make()
    history = trainer.fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0)
    fastnn.manual_seed(1)
    model = mlp([4, 16, 3])
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    means, hits = [], []
    for _ in range(2):
        total = right = 0.0
        for start in range(0, 100, 32):
            xb, yb = x[start:start + 32], y[start:start + 32]
            optimizer.zero_grad()
            prediction = model(fastnn.tensor(xb))
            loss = F.cross_entropy(prediction, fastnn.tensor(yb))
            loss.backward()
            optimizer.step()
            total += loss.item() * len(xb)
            right += (np.array(prediction.detach()).argmax(1) == yb).sum()
        means.append(total / 100)
        hits.append(right / 100)
    assert history.history == {"loss": means, "accuracy": hits}
    assert same(weights(trainer.model), weights(model))


def test_evaluate_and_predict_agree_with_the_model():
    x, y = blobs(70)
    trainer = make(metrics=["accuracy", "confusion_matrix"])
    trainer.fit(x, y, epochs=1, verbose=0)
    logits = trainer.predict(x, batch_size=32)
    assert type(logits) is np.ndarray and logits.dtype == np.float32
    with fastnn.no_grad():
        np.testing.assert_array_equal(logits[:32], trainer.model(fastnn.tensor(x[:32])).numpy())
    kept = logits.copy()
    trainer.predict(x[::-1])
    np.testing.assert_array_equal(logits, kept)  # its own memory
    logs = trainer.evaluate(x, y, batch_size=9)
    assert logs["accuracy"] == pytest.approx((logits.argmax(1) == y).mean())
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(70), y]
    assert logs["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert logs["confusion_matrix"].sum() == 70
    np.testing.assert_array_equal(trainer.predict(x[:1]), trainer.predict(x)[:1])


def test_modes_are_restored():
    x, y = blobs(64)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    model.eval()
    seen = []
    trainer = Trainer(model, "cross_entropy", "sgd")
    trainer.fit(x, y, epochs=1, verbose=0, validation_data=(x, y),
                callbacks=[LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(model[1].training))])
    assert seen and all(seen) and not any(module.training for module in model.modules())
    model.train()
    np.testing.assert_array_equal(trainer.predict(x), trainer.predict(x))  # no dropout
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_optimizers_by_name(optimizer):
    x, y = blobs()
    fastnn.manual_seed(0)
    history = Trainer(mlp([4, 16, 3]), optimizer=optimizer).fit(x, y, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


def test_lazy_model_and_data_sets():
    x, y = blobs()
    for data in ((x, y), (ArrayDataset(x, y), None), (DataLoader((x, y), batch_size=16, shuffle=True), None)):
        fastnn.manual_seed(0)
        model = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(3))
        trainer = Trainer(model, optimizer="adam", metrics=["accuracy"])
        assert trainer.fit(*data, epochs=3, verbose=0).history["accuracy"][-1] > 0.5
        assert model[0].weight.shape == (16, 4)
        assert trainer.evaluate(ArrayDataset(x, y))["accuracy"] > 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_take_the_model_s_type(dtype):
    x, y = blobs(64)
    fastnn.manual_seed(0)
    model = mlp([4, 8, 3])
    if dtype == np.float64:
        model.double()
    trainer = Trainer(model)
    trainer.fit(x.astype(np.float64).tolist(), y.astype(np.uint8), epochs=1, verbose=0)
    assert trainer.predict((x > 0)).dtype == dtype  # bools, too
    assert trainer.predict(fastnn.tensor(x)).shape == (64, 3)


def test_regression_by_name():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    y = x @ [1.0, -2.0, 0.5]
    fastnn.manual_seed(0)
    model = nn.Linear(3, 1)
    trainer = Trainer(model, loss="mse", optimizer=optim.SGD(model.parameters(), lr=0.1), metrics=["r2", "mae"])
    history = trainer.fit(x, y, epochs=20, verbose=0)  # y is (N,), the prediction (N, 1)
    assert history.history["r2"][-1] > 0.99 and history.history["mae"][-1] < 0.05
    with pytest.raises(ValueError, match=r"returned shape \(32, 1\).*target has shape \(32, 2\)"):
        trainer.fit(x, np.stack([y, y], 1), verbose=0)
    trainer.fit(x, np.arange(200) % 2, epochs=1, verbose=0)  # integers are values here


def test_binary_by_name():
    x, y = blobs(classes=2)
    fastnn.manual_seed(0)
    trainer = Trainer(nn.Linear(4, 1), loss="bce_with_logits", optimizer="adam", metrics=["accuracy", "auc"])
    logs = trainer.fit(x, y, epochs=30, verbose=0).history
    assert logs["accuracy"][-1] > 0.85 and logs["auc"][-1] > 0.9


def test_streaming_metrics_equal_one_pass(monkeypatch):
    from fastnn.train import running
    x, y = blobs(200)
    once = make(metrics=["accuracy", "auc"])
    once.fit(x, y, batch_size=16, verbose=0)
    monkeypatch.setattr(running, "_BLOCK", 1)  # metrics see every batch alone
    often = make(metrics=["accuracy", "auc"])
    often.fit(x, y, batch_size=16, verbose=0)
    assert once.history.history == often.history.history


# -- captured steps --

def convolutional():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Dropout(0.3), nn.Linear(36, 3))


@pytest.fixture
def programs(monkeypatch):
    """The programs that trainers make from here on."""
    made = []

    class Spy(program.CapturedProgram):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(captured, "CapturedProgram", Spy)
    monkeypatch.setattr(trainer_module, "CapturedProgram", Spy)
    return made


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("build, shape", [(lambda: mlp([4, 16, 3]), (4,)), (convolutional, (1, 8, 8))])
def test_captured_run_has_the_bits_of_the_eager_one(programs, build, shape, weighted):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(101, *shape)).astype(np.float32), rng.integers(0, 3, 101)

    def run(capture, *callbacks):
        fastnn.manual_seed(2)
        model = build()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        trainer = Trainer(model, optimizer=optimizer, metrics=["accuracy"], capture=capture)
        history = trainer.fit(x, y, batch_size=24, epochs=4, verbose=0, validation_split=0.2,
                              callbacks=[LearningRateScheduler(lambda epoch, rate: rate * 0.7), *callbacks],
                              sample_weight=np.arange(101) % 3 if weighted else None)
        return history.history, weights(model)

    eager = run(False)
    assert not programs
    for callbacks in ((), [LambdaCallback(on_train_batch_end=lambda batch, logs: None)]):  # whole passes; single steps
        again = run(True, *callbacks)
        assert eager[0] == again[0] and same(eager[1], again[1])
        replayed = max(programs, key=lambda made: made.replays)
        assert replayed.obstacle is None and replayed.replays >= 4 * 4 - 4
        programs.clear()


@pytest.mark.parametrize("weighted", [False, True])
def test_captured_evaluation_has_the_bits_of_the_eager_one(programs, weighted):
    """Whole passes of evaluate and predict, and the validation of every epoch; the last batch is short."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(23 * 9 + 4, 1, 8, 8)).astype(np.float32), rng.integers(0, 3, 23 * 9 + 4)
    weight = np.arange(len(x)) % 3 if weighted else None
    results = []
    for capture in (False, True):
        fastnn.manual_seed(2)
        trainer = Trainer(convolutional(), metrics=["accuracy", "confusion_matrix"], capture=capture)
        history = trainer.fit(x[:40], y[:40], epochs=20, batch_size=300, verbose=0, validation_data=(x, y))
        logs = trainer.evaluate(x, y, batch_size=9, sample_weight=weight)
        results.append((history.history["val_loss"], logs["loss"], logs["accuracy"], logs["confusion_matrix"].tolist(),
                        trainer.predict(x, batch_size=9).tobytes()))
    assert results[0] == results[1]
    assert all(made.obstacle is None for made in programs)
    assert sorted(made.replays for made in programs)[-3:] == [18, 21, 21]  # validation; evaluate and predict


def test_predictions_keep_their_signs_and_specials(programs):
    class Zeros(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(np.zeros(1, np.float32))

        def forward(self, x):
            return x * self.weight

    x = np.array([[1.0, -1.0, np.inf, np.nan, -0.0, 0.0]] * 40, np.float32)
    found = Trainer(Zeros()).predict(x, batch_size=2)
    assert programs[-1].replays == 18
    assert found.tobytes() == Trainer(Zeros(), capture=False).predict(x, batch_size=2).tobytes()
    assert np.signbit(found[:, [1, 4]]).all() and not np.signbit(found[:, [0, 5]]).any()


# -- bytes --

def images(n=150):
    rng = np.random.default_rng(6)
    return rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8), rng.integers(0, 3, n)


def of_images():
    fastnn.manual_seed(4)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


@pytest.mark.parametrize("capture", [False, True])
def test_bytes_train_as_floats_do(capture):
    """uint8 inputs, with and without a transform, give the run that the same numbers as float32 give."""
    x, y = images()
    mean, std = np.float32([0.5, 0.25, 0.4]), np.float32([0.2, 0.3, 0.1])
    scaled = (x / np.float32(255) - mean[:, None, None]) / std[:, None, None]
    for stored, floats in ((ArrayDataset(x, y), x.astype(np.float32)),
                           (ArrayDataset(x, y, transform=Normalize(mean, std)), scaled)):
        results = []
        for data in (stored, ArrayDataset(floats, y)):
            trainer = Trainer(of_images(), optimizer="adam", metrics=["accuracy"], capture=capture)
            history = trainer.fit(data, epochs=3, batch_size=20, verbose=0, validation_split=0.2).history
            results.append((history, weights(trainer.model), trainer.evaluate(data, batch_size=8),
                            trainer.predict(data, batch_size=8).tobytes()))
        (first, w1, *rest1), (second, w2, *rest2) = results
        assert first == second and same(w1, w2) and rest1 == rest2


def test_bytes_are_not_copied_into_floats():
    """Training on 9 MB of bytes takes less than that again, where floats would take four times as much."""
    rng = np.random.default_rng(6)
    x, y = rng.integers(0, 256, (12_000, 1, 28, 28), dtype=np.uint8), rng.integers(0, 3, 12_000)
    trainer = Trainer(nn.Sequential(nn.Flatten(), nn.Linear(784, 3)), metrics=["accuracy"])
    fastnn._core.trim_memory()
    fastnn._core.reset_peak_memory()
    before = fastnn.memory_stats()["peak"]
    tracemalloc.start()
    trainer.fit(x, y, batch_size=100, epochs=2, verbose=0)
    trainer.evaluate(x, y)
    trainer.predict(x)
    arrays = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fastnn.memory_stats()["peak"] - before + arrays < x.nbytes


def test_a_loss_that_reads_values_trains_eagerly():
    x, y = blobs(96)

    def loss(prediction, target):
        value = F.cross_entropy(prediction, target)
        return value * (1.0 if value.item() < 100 else 0.5)

    fastnn.manual_seed(0)
    trainer = Trainer(mlp([4, 16, 3]), loss=loss, optimizer="adam")
    with pytest.warns(RuntimeWarning, match="the step runs eagerly.*test_trainer.py"):
        history = trainer.fit(x, y, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


# -- weights of samples and classes --

def test_weights_are_repetitions():
    """A sample of weight 2 acts as the sample given twice; one of weight 0 as absent."""
    x, y = blobs(60)
    weight = np.arange(60) % 3
    a, b = make(lr=0.0), make(lr=0.0)
    weighted = a.evaluate(x, y, sample_weight=weight)["loss"] * 60
    repeated = b.evaluate(np.repeat(x, weight, axis=0), np.repeat(y, weight))["loss"] * weight.sum()
    assert weighted == pytest.approx(repeated, rel=1e-5)


def test_class_weight_is_sample_weight():
    x, y = blobs(90)
    runs = []
    for options in ({"class_weight": {0: 2.0, 2: 0.5}}, {"sample_weight": np.array([2.0, 1.0, 0.5])[y]},
                    {"sample_weight": np.ones(90)}, {}):
        trainer = make()
        trainer.fit(x, y, epochs=2, verbose=0, shuffle=False, **options)
        runs.append(weights(trainer.model))
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])
    for name in runs[2]:
        np.testing.assert_allclose(runs[2][name], runs[3][name], rtol=2e-5, atol=1e-6)


def test_balanced_class_weight():
    from fastnn.data import ArrayDataset
    from fastnn.train.inputs import weighed_by_class
    data = ArrayDataset(np.zeros((6, 1)), np.array([0, 0, 0, 1, 1, 2]))
    data = weighed_by_class(data, "balanced", np.dtype(np.float32))
    np.testing.assert_allclose(data.arrays[2], [2 / 3] * 3 + [1, 1, 2])


# -- the same seed gives the same run --

def test_run_depends_on_seed_alone():
    x, y = blobs()

    def run(seed, threads):
        before = fastnn.get_num_threads()
        fastnn.set_num_threads(threads)
        fastnn._core.set_thread_policy("force")
        try:
            trainer = make(seed)
            history = trainer.fit(x, y, epochs=2, verbose=0, validation_split=0.25).history
        finally:
            fastnn.set_num_threads(before)
            fastnn._core.set_thread_policy("auto")
        return history, weights(trainer.model)

    first = run(7, 1)
    for threads in (1, 2, 3, 8):
        again = run(7, threads)
        assert again[0] == first[0] and same(again[1], first[1])
    assert run(8, 1)[0] != first[0]


def test_lenet_run_is_the_same_for_any_threads():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(48, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, 48)

    def run(threads):
        before = fastnn.get_num_threads()
        fastnn.set_num_threads(threads)
        fastnn._core.set_thread_policy("force")
        try:
            fastnn.manual_seed(0)
            model = lenet5()
            return Trainer(model, optimizer="adam").fit(x, y, batch_size=16, epochs=1,
                                                        verbose=0).history, weights(model)
        finally:
            fastnn.set_num_threads(before)
            fastnn._core.set_thread_policy("auto")

    first = run(1)
    for threads in (2, 3, 8):
        again = run(threads)
        assert again[0] == first[0] and same(again[1], first[1])


# -- wrong arguments: refused before any work --

X, Y = blobs(40)
WRONG = {
    "lengths": (dict(x=X, y=Y[:-1]), "x has 40 samples, but y has 39"),
    "no targets": (dict(x=X), "y is missing: x is a numpy.ndarray, which without y must be a data set"),
    "both in one": (dict(x=(X, Y)), "y is missing: x is a tuple, which without y must be a data set"),
    "empty": (dict(x=X[:0], y=Y[:0]), "expected at least one sample"),
    "a number": (dict(x=3.0, y=Y), "expected at least one sample"),
    "ragged": (dict(x=[[1.0], [1.0, 2.0]], y=[0, 1]), "x is not an array of numbers"),
    "text": (dict(x=X, y=np.array(["a"] * 40)), r"y has dtype <U1, expected numbers: .* np.unique\(y"),
    "text among objects": (dict(x=X, y=np.array(["a"] * 40, object)), r"y has dtype object, expected numbers: .* np.unique\(y"),
    "a generator": (dict(x=(row for row in X), y=Y), "x is a generator, expected an array of numbers"),
    "batch size": (dict(x=X, y=Y, batch_size=0), "batch_size is 0"),
    "negative batch size": (dict(x=X, y=Y, batch_size=-3), "batch_size is -3"),
    "epochs": (dict(x=X, y=Y, epochs=-1), "epochs is -1"),
    "fractional epochs": (dict(x=X, y=Y, epochs=1.5), "epochs is 1.5"),
    "initial epoch": (dict(x=X, y=Y, initial_epoch=-1), "initial_epoch is -1"),
    "split": (dict(x=X, y=Y, validation_split=1.0), "validation_split is 1.0"),
    "negative split": (dict(x=X, y=Y, validation_split=-0.1), "validation_split is -0.1"),
    "split leaves nothing": (dict(x=X[:1], y=Y[:1], validation_split=0.5), "leaves one part empty"),
    "two validations": (dict(x=X, y=Y, validation_split=0.5, validation_data=(X, Y)), "exclude each other"),
    "validation lengths": (dict(x=X, y=Y, validation_data=(X, Y[:3])),
                           "validation x has 40 samples, but validation y has 3"),
    "validation form": (dict(x=X, y=Y, validation_data=X), r"must be \(x, y\)"),
    "validation features": (dict(x=X, y=Y, validation_data=(X[:, :3], Y)), "validation_data: linear_forward: .* 3"),
    "validation targets": (dict(x=X, y=Y, validation_data=(X, np.ones((40, 7)))), "validation_data: cross_entropy_forward: "),
    "bools for labels": (dict(x=X, y=Y > 0), r"^y has dtype bool and shape \(40,\), but the loss takes class indices, which are"),
    "bools to validate": (dict(x=X, y=Y, validation_data=(X, Y > 0)), "validation y has dtype bool"),
    "sample weight": (dict(x=X, y=Y, sample_weight=np.ones(3)), r"sample_weight has shape \(3,\), expected \(40,\)"),
    "negative weight": (dict(x=X, y=Y, sample_weight=-np.ones(40)), "negative, infinite or NaN"),
    "class weight": (dict(x=X, y=Y, class_weight=3.0), "class_weight is 3.0"),
    "class weight name": (dict(x=X, y=Y, class_weight={"a": 1}), "class_weight has the class 'a'"),
    "class weight value": (dict(x=X, y=Y, class_weight={0: -1}), "class_weight of class 0 is -1"),
    "class weight of values": (dict(x=X, y=X, class_weight={0: 1}), "class_weight needs class indices"),
    "verbose": (dict(x=X, y=Y, verbose=7), "verbose is 7"),
    "data set and y": (dict(x=ArrayDataset(X, Y), y=Y), "must be left out when x is a data set"),
    "data set of one": (dict(x=ArrayDataset(X)), "holds 1 arrays"),
    "loader and batch size": (dict(x=DataLoader((X, Y)), batch_size=3), "must be left out when x is a DataLoader"),
    "nothing left": (dict(x=DataLoader((X, Y), batch_size=64, drop_last=True)), "less than one batch"),
    "monitor": (dict(x=X, y=Y, callbacks=[EarlyStopping()]),
                "monitor is 'val_loss', expected one of loss, accuracy; val_ names"),
}


@pytest.mark.parametrize("case", WRONG)
def test_fit_refuses(case):
    arguments, message = WRONG[case]
    trainer = make()
    before = weights(trainer.model)
    steps = []
    arguments = {"verbose": 0, **arguments}
    arguments["callbacks"] = [LambdaCallback(on_train_batch_begin=lambda b, l: steps.append(b)),
                              *arguments.get("callbacks", ())]
    with pytest.raises(ValueError, match=message):
        trainer.fit(**arguments)
    assert not steps and same(weights(trainer.model), before)


@pytest.mark.parametrize("loss", ["cross_entropy", "nll", nn.CrossEntropyLoss(ignore_index=-1)])
@pytest.mark.parametrize("label", [3, -2])
def test_labels_to_validate_are_checked_first(loss, label):
    wrong = Y.copy()
    wrong[[35, 37]] = label
    trainer = Trainer(mlp([4, 3]), loss)
    message = f"validation y holds 2 labels that are no class, the first is {label} at 35, but must be from 0 to 2: the model"
    for data in (dict(validation_data=(X, wrong)), dict(validation_split=0.5)):
        with pytest.raises(IndexError, match=message if "validation_data" in data else message.replace("at 35", "at 15")):
            trainer.fit(X, wrong, 16, callbacks=[LambdaCallback(on_epoch_begin=lambda *_: pytest.fail("began"))], verbose=0, **data)
    wrong[[35, 37]] = -1 if isinstance(loss, nn.Module) else -100
    trainer.fit(X, Y, 16, validation_data=(X, wrong), verbose=0)


def test_what_training_data_lack_too_is_not_told_of_the_validation():
    with pytest.raises(ValueError, match="^linear_forward: "):
        Trainer(mlp([5, 3])).fit(X, Y, validation_data=(X, Y), verbose=0)


def test_checking_validation_data_draws_no_random_numbers():
    class Noisy(nn.Linear):
        def forward(self, x):
            return super().forward(x + fastnn.randn(*x.shape))

    losses = []
    for validation in (None, (X, Y)):
        fastnn.manual_seed(3)
        losses.append(Trainer(Noisy(4, 3)).fit(X, Y, 16, validation_data=validation, verbose=0).history["loss"])
    assert losses[0] == losses[1]


def test_frozen_models_and_single_outputs_are_refused():
    with pytest.raises(ValueError, match="no parameter of the optimizer requires a gradient"):
        Trainer(mlp([4, 3]).requires_grad_(False)).fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match=r"shape \(40, 1\), but 'cross_entropy' needs at least two classes .* 'bce_with_logits'"):
        Trainer(mlp([4, 1])).fit(X, 0 * Y, 40, verbose=0)


@pytest.mark.parametrize("model, loss, error, message", [
    (mlp([4, 3]), nn.CrossEntropyLoss, TypeError, "is a class, expected an instance, CrossEntropyLoss\\(\\)"),
    (mlp([4, 3]), lambda p, t: F.cross_entropy(p, t, reduction="none"), TypeError,
     r"returned shape \(40,\), expected a tensor of one"),
    (mlp([4, 3]), lambda p, t: 3.0, TypeError, "returned a float, expected a tensor of one number"),
    (nn.RNN(4, 3), "cross_entropy", TypeError, "the model returned a tuple, expected a tensor")])
def test_what_is_no_loss_is_named(model, loss, error, message):
    with pytest.raises(error, match=f"loss: .*{message}"):
        Trainer(model, loss).fit(X if not isinstance(model, nn.RNN) else X[:, None], Y, 40, verbose=0)


@pytest.mark.parametrize("kind", [optim.LBFGS, optim.RandomSearch, optim.RandomLocalSearch])
def test_optimisers_by_closures_are_refused(kind):
    model = mlp([4, 3])
    with pytest.raises(ValueError, match=f"optimizer is {kind.__name__}, which asks for the loss several times a step"):
        Trainer(model, optimizer=kind(model.parameters()))


def spoilt(array):
    """With a NaN in the sixth sample."""
    array = array.copy()
    array[5] = np.nan
    return array


@pytest.mark.parametrize("x, y, rate, message", [
    (spoilt(X), X, 0.1, "epoch 1 is nan; x holds NaN or infinite numbers in 1 samples, the first is number 5"),
    (X, spoilt(X), 0.1, "epoch 1 is nan; y holds NaN"), (X, X, 1e30, "the data are finite: a smaller learning rate may help")])
def test_a_loss_that_is_no_number_is_told_once(x, y, rate, message):
    def fit(*callbacks):
        model = nn.Linear(4, 4)
        trainer = Trainer(model, "mse", optim.SGD(model.parameters(), lr=rate))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.fit(x, y, 8, epochs=4, verbose=0, callbacks=callbacks)
        return [warning for warning in caught if warning.category is RuntimeWarning and "Trainer" in str(warning.message)]

    (warning,) = fit()
    assert message in str(warning.message) and warning.filename == __file__
    assert not fit(TerminateOnNaN())  # says so itself


def test_predict_takes_a_loader_and_keeps_the_order():
    trainer = make()
    expected = trainer.predict(X)
    np.testing.assert_array_equal(trainer.predict(DataLoader((X, Y), 7, shuffle=True)), expected)


def test_unknown_names_are_refused():
    model = mlp([4, 3])
    with pytest.raises(ValueError, match="loss: 'crossentropy' is unknown, expected one of .*cross_entropy"):
        Trainer(model, loss="crossentropy")
    with pytest.raises(TypeError, match="neither a name nor callable"):
        Trainer(model, loss=3)
    with pytest.raises(ValueError, match="optimizer is 'sdg', expected one of sgd, adam"):
        Trainer(model, optimizer="sdg")
    with pytest.raises(TypeError, match="expected a name or a fastnn.optim.Optimizer"):
        Trainer(model, optimizer=optim.SGD)
    with pytest.raises(ValueError, match="metric: 'acurracy'"):
        Trainer(model, metrics=["acurracy"])
    with pytest.raises(TypeError, match=r"such as \['accuracy'\]"):
        Trainer(model, metrics="accuracy")
    with pytest.raises(ValueError, match="different ones"):
        Trainer(model, metrics=["accuracy", "accuracy"])
    with pytest.raises(TypeError, match="expected a fastnn.nn.Module"):
        Trainer(print)
    with pytest.raises(ValueError, match="unknown on_epoch, expected names among"):
        LambdaCallback(on_epoch=print)
    with pytest.raises(TypeError, match="class was given instead of an instance"):
        Trainer(model).fit(X, Y, callbacks=[EarlyStopping], verbose=0)
    with pytest.raises(TypeError, match=r"EMA.* is not a Callback \(optimizer.register_step_post_hook takes it\)"):
        Trainer(model).fit(X, Y, callbacks=[optim.EMA(model.parameters())], verbose=0)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="LearningRateSchedule makes one of a schedule"):
        Trainer(model, optimizer=optimizer).fit(X, Y, callbacks=[optim.lr_scheduler.StepLR(optimizer, 2)], verbose=0)
    for wrong in (TerminateOnNaN(), 3):
        with pytest.raises(TypeError, match="callbacks is .*expected a list"):
            Trainer(model).fit(X, Y, callbacks=wrong, verbose=0)
    with pytest.raises(TypeError, match="metrics is 3"):
        Trainer(model, metrics=3)
    with pytest.raises(ValueError, match="none of the model's parameters"):
        Trainer(model, optimizer=optim.SGD(mlp([4, 3]).parameters(), lr=0.1))
    with pytest.raises(ValueError, match="learning_rate is -1"):
        Trainer(model, optimizer=optim.SGD(model.parameters())).learning_rate = -1
    with pytest.raises(TypeError, match="schedule is 3"):
        LearningRateScheduler(3)
    with pytest.raises(TypeError, match="on_epoch_end is 3"):
        LambdaCallback(on_epoch_end=3)
    for wrong in (dict(patience=-1), dict(patience=1.5), dict(every=0), dict(mode="up"), dict(min_delta=-1),
                  dict(min_delta="x")):
        with pytest.raises(ValueError, match=f"EarlyStopping: {next(iter(wrong))}"):
            EarlyStopping(**wrong)
    for wrong in (dict(factor=1.0), dict(factor="x"), dict(min_lr="x")):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
            ReduceLROnPlateau(**wrong)
    with pytest.raises(ValueError, match="expected at least one sample"):
        Trainer(model).predict(X[:0])
    with pytest.raises(TypeError, match="takes no argument reduction"):
        Trainer(model, loss=lambda p, t: F.cross_entropy(p, t)).fit(X, Y, sample_weight=np.ones(40), verbose=0)


def test_a_bad_label_is_named():
    with pytest.raises((IndexError, ValueError), match="7"):
        make().fit(X, np.where(np.arange(40) == 11, 7, Y), verbose=0)
