"""Trainer, callbacks, history, progress."""

import csv
import io
import math
import os
import signal
import sys
import threading

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn, optim, program
from fastnn.data import ArrayDataset, DataLoader
from fastnn.models import lenet5, mlp
from fastnn.train import captured, trainer as trainer_module
from fastnn.train import (CSVLogger, Callback, EarlyStopping, History, LambdaCallback, LearningRateScheduler, Metric, ModelCheckpoint,
                          ProgressBar, ReduceLROnPlateau, TerminateOnNaN, Trainer)


def blobs(n=240, classes=3, seed=0):
    """Points around `classes` centres, far enough apart to be learnt in a few epochs."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.normal(size=(n, 4)) + 3 * np.eye(classes, 4)[y]
    return x.astype(np.float32), y


def make(seed=1, lr=0.1, metrics=("accuracy",), **options):
    fastnn.manual_seed(seed)
    model = mlp([4, 16, 3])
    return Trainer(model, optimizer=optim.SGD(model.parameters(), lr=lr, momentum=0.9), metrics=list(metrics), **options)


def weights(model):
    return {name: np.array(value) for name, value in model.state_dict().items()}


def same(a, b):
    return all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


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
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, 3))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("build, shape", [(lambda: mlp([4, 16, 3]), (4,)), (convolutional, (1, 8, 8))])
def test_captured_run_has_the_bits_of_the_eager_one(monkeypatch, build, shape, weighted):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(101, *shape)).astype(np.float32), rng.integers(0, 3, 101)
    programs = []

    class Spy(program.CapturedProgram):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            programs.append(self)

    monkeypatch.setattr(captured, "CapturedProgram", Spy)
    monkeypatch.setattr(trainer_module, "CapturedProgram", Spy)

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
    from fastnn.train.inputs import supervised
    data = supervised(np.zeros((6, 1)), [0, 0, 0, 1, 1, 2], None, np.dtype(np.float32), as_values=False, class_weight="balanced")
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
            return Trainer(model, optimizer="adam").fit(x, y, batch_size=16, epochs=1, verbose=0).history, weights(model)
        finally:
            fastnn.set_num_threads(before)
            fastnn._core.set_thread_policy("auto")

    first = run(1)
    for threads in (2, 3, 8):
        again = run(threads)
        assert again[0] == first[0] and same(again[1], first[1])


# -- callbacks --

def test_hooks_come_in_order():
    x, y = blobs(50)
    events = []

    class Spy(Callback):
        def on_train_begin(self, logs=None): events.append("train")
        def on_train_end(self, logs=None): events.append("end")
        def on_epoch_begin(self, epoch, logs=None): events.append(f"epoch {epoch}")
        def on_epoch_end(self, epoch, logs=None): events.append(sorted(logs))
        def on_train_batch_begin(self, batch, logs=None): events.append(f"batch {batch}")
        def on_train_batch_end(self, batch, logs=None): events.append(sorted(logs))
        def on_test_begin(self, logs=None): events.append("test")
        def on_test_end(self, logs=None): events.append("tested")

    make().fit(x, y, batch_size=25, epochs=2, verbose=0, callbacks=[Spy()], validation_data=(x, y))
    batch = ["accuracy", "loss"]
    epoch = ["batch 0", batch, "batch 1", batch, "test", "tested", ["accuracy", "loss", "val_accuracy", "val_loss"]]
    assert events == ["train", "epoch 0", *epoch, "epoch 1", *epoch, "end"]


def test_running_logs_are_means_so_far():
    x, y = blobs(96)
    losses = []
    trainer = make(lr=0.0)
    trainer.fit(x, y, batch_size=32, verbose=0, shuffle=False,
                callbacks=[LambdaCallback(on_train_batch_end=lambda batch, logs: losses.append(dict(logs)))])
    for batch, logs in enumerate(losses):
        wanted = trainer.evaluate(x[:32 * (batch + 1)], y[:32 * (batch + 1)])
        assert logs["loss"] == pytest.approx(wanted["loss"], rel=1e-6) and logs["accuracy"] == wanted["accuracy"]


class Scripted(Metric):
    """A validation figure that follows a script: what callbacks are tested with."""

    def __init__(self, script, name="scripted"):
        self.script = script
        super().__init__(name)

    def reset(self):
        self.calls = 0

    def update(self, prediction, target, sample_weight=None):
        pass

    def result(self):
        return 0.0


def scripted_run(values, callback, epochs=None, higher=False, **options):
    """A run whose val_scripted takes the given values, epoch by epoch."""
    x, y = blobs(32)
    metric = Scripted(values)
    metric.higher_is_better = higher
    trainer = make(metrics=[metric])
    sequence = iter(values)
    trainer.validate = lambda: {"val_loss": 0.0, "val_scripted": next(sequence)}
    trainer.fit(x, y, epochs=epochs or len(values), verbose=0, validation_data=(x, y), callbacks=callback, **options)
    return trainer


@pytest.mark.parametrize("values, options, epochs", [
    ([3, 2, 1, 1, 1, 1], {"patience": 2}, 5),
    ([3, 2, 1, 1, 1, 1], {"patience": 0}, 4),
    ([3, 2.95, 2.9, 2.5, 2.45, 2.4], {"patience": 2, "min_delta": 0.2}, 3),
    ([1, 2, 3, 3, 3], {"patience": 1, "mode": "max"}, 4),
    ([math.nan, math.nan, 1, 1], {"patience": 2}, 2),
    ([1, math.nan, 0.5, 0.4, 0.3], {"patience": 2}, 5),
])
def test_early_stopping(values, options, epochs):
    stop = EarlyStopping("val_scripted", **options)
    trainer = scripted_run(values, [stop])
    assert len(trainer.history.epoch) == epochs
    assert stop.stopped_epoch == (epochs - 1 if epochs < len(values) else None)


def test_early_stopping_asks_the_metric_which_way():
    stop = EarlyStopping("val_scripted", patience=2)
    assert len(scripted_run([1, 2, 3, 2, 2, 2], [stop], higher=True).history.epoch) == 5
    assert stop.best == 3 and stop.best_epoch == 2


def test_early_stopping_restores_the_best_weights():
    kept = []
    stop = EarlyStopping("val_scripted", patience=2, restore_best_weights=True)
    spy = LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(weights(stop.model)))
    trainer = scripted_run([3, 1, 2, 2, 0], [stop, spy])
    assert len(kept) == 4 and same(weights(trainer.model), kept[1]) and not same(kept[1], kept[3])


def test_early_stopping_every_n_steps():
    x, y = blobs(320)
    stop = EarlyStopping("val_loss", patience=2, every=3, min_delta=1e9)  # nothing but the first check improves
    steps = []
    trainer = make()
    trainer.fit(x, y, batch_size=32, epochs=5, verbose=0, validation_data=(x, y),
                callbacks=[stop, LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))])
    assert len(steps) == 9 and stop.stopped_epoch == 0 and len(trainer.history.epoch) == 1
    steps.clear()
    stop = EarlyStopping("loss", patience=1, every=4, min_delta=1e9)  # training loss: no validation data needed
    make().fit(x, y, batch_size=32, epochs=5, verbose=0,
               callbacks=[stop, LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))])
    assert len(steps) == 8


def test_validation_within_an_epoch_does_not_disturb_training():
    x, y = blobs(320)
    plain = make(metrics=["accuracy", "auc"])
    a = plain.fit(x, y, epochs=2, verbose=0, validation_data=blobs(seed=3)).history
    checked = make(metrics=["accuracy", "auc"])
    b = checked.fit(x, y, epochs=2, verbose=0, validation_data=blobs(seed=3),
                    callbacks=[EarlyStopping("val_accuracy", patience=1000, every=2)]).history
    assert a == b and same(weights(plain.model), weights(checked.model))


def test_reduce_lr_on_plateau():
    rates = []
    reduce = ReduceLROnPlateau("val_scripted", factor=0.5, patience=2, cooldown=1, min_lr=0.03)
    spy = LambdaCallback(on_epoch_end=lambda epoch, logs: rates.append(round(reduce.trainer.learning_rate, 6)))
    scripted_run([1] * 10, [reduce, spy])
    assert rates == [0.1, 0.1, 0.05, 0.05, 0.03, 0.03, 0.03, 0.03, 0.03, 0.03]


def test_learning_rate_scheduler_acts_on_the_optimiser():
    x, y = blobs(32)
    rates = []
    trainer = make(lr=0.4)
    trainer.fit(x, y, epochs=3, verbose=0, callbacks=[
        LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch < 2 else 0.0),
        LambdaCallback(on_epoch_end=lambda epoch, logs: rates.append((trainer.learning_rate, weights(trainer.model))))])
    assert [rate for rate, _ in rates] == pytest.approx([0.2, 0.1, 0.0])
    assert not same(rates[0][1], rates[1][1]) and same(rates[1][1], rates[2][1])


def test_model_checkpoint(tmp_path):
    pytest.importorskip("safetensors")
    from fastnn.io import load_file
    scripted_run([3, 1, 2], [ModelCheckpoint(tmp_path / "{epoch:02d}-{val_scripted:.1f}.safetensors")])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["01-3.0.safetensors", "02-1.0.safetensors", "03-2.0.safetensors"]
    trainer = scripted_run([3, 1, 2], [ModelCheckpoint(tmp_path / "best", "val_scripted", save_best_only=True)])
    assert not same(load_file(tmp_path / "best"), weights(trainer.model))
    assert same(load_file(tmp_path / "best"), load_file(tmp_path / "02-1.0.safetensors"))
    with pytest.raises(ValueError, match="filepath is .*only fields among epoch, loss"):
        scripted_run([1], [ModelCheckpoint(tmp_path / "{val_accuracy}")])


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    scripted_run([3, 1], [CSVLogger(path)])
    scripted_run([5], [CSVLogger(path, append=True)])
    rows = list(csv.reader(path.open()))
    assert rows[0] == ["epoch", "loss", "scripted", "val_loss", "val_scripted"]
    assert [(row[0], row[4]) for row in rows[1:]] == [("0", "3"), ("1", "1"), ("0", "5")]


def test_terminate_on_nan(capsys):
    x, y = blobs(320)
    x[100] = np.nan
    guard = TerminateOnNaN()
    trainer = make()
    history = trainer.fit(x, y, batch_size=32, epochs=3, verbose=0, shuffle=False, callbacks=[guard])
    assert guard.stopped_at == (0, 3) and len(history.epoch) == 1 and math.isnan(history.history["loss"][0])
    assert "Epoch 1, batch 4: the loss is nan" in capsys.readouterr().out


def test_history_to_csv(tmp_path):
    x, y = blobs(64)
    trainer = make(metrics=["accuracy", "confusion_matrix"])
    history = trainer.fit(x, y, epochs=5, initial_epoch=3, verbose=0)
    assert history.epoch == [3, 4]
    history.to_csv(tmp_path / "h.csv")
    rows = list(csv.reader((tmp_path / "h.csv").open()))
    assert rows[0] == ["epoch", "loss", "accuracy"] and [row[0] for row in rows[1:]] == ["3", "4"]
    assert [float(row[1]) for row in rows[1:]] == history.history["loss"]  # digit by digit
    with pytest.raises(OSError, match="nowhere"):
        history.to_csv(tmp_path / "nowhere" / "h.csv")


# -- Ctrl-C --

def test_interrupt_leaves_whole_steps():
    """SIGINT in the middle of a step takes effect at its end: weights equal those of an uninterrupted run's step."""
    x, y = blobs(320)
    snapshots = []
    ended = []

    class Recorder(Callback):
        def on_train_batch_end(self, batch, logs=None):
            snapshots.append(weights(self.model))

    make().fit(x, y, batch_size=32, epochs=2, verbose=0, callbacks=[Recorder()])
    trainer = make()
    steps = []

    class CtrlC(Callback):
        def on_train_batch_begin(self, batch, logs=None):
            steps.append(batch)
            if len(steps) == 14:
                os.kill(os.getpid(), signal.SIGINT)

        def on_train_end(self, logs=None):
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(x, y, batch_size=32, epochs=2, verbose=0, callbacks=[CtrlC()])
    assert len(steps) == 14 and ended == [True]
    assert trainer.history.epoch == [0] and len(trainer.history.history["loss"]) == 1
    assert same(weights(trainer.model), snapshots[13])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert trainer.predict(x).shape == (320, 3)
    assert len(trainer.fit(x, y, epochs=1, verbose=0).epoch) == 1


def test_fit_works_outside_the_main_thread():
    x, y = blobs(64)
    done = []
    thread = threading.Thread(target=lambda: done.append(make().fit(x, y, epochs=1, verbose=0)))
    thread.start()
    thread.join(60)
    assert len(done) == 1


# -- progress --

class Screen(io.StringIO):
    def isatty(self):
        return True


def test_progress_in_a_terminal(monkeypatch):
    from fastnn.train import progress
    monkeypatch.setattr(progress, "_INTERVAL", 0.0)
    monkeypatch.setenv("COLUMNS", "120")
    x, y = blobs(96)
    screen = Screen()
    make().fit(x, y, epochs=2, batch_size=32, verbose=0, validation_data=(x, y), callbacks=[ProgressBar(file=screen)])
    lines = screen.getvalue().split("\n")
    assert len(lines) == 3 and lines[2] == ""
    for number, line in enumerate(lines[:2], 1):
        drawn = [part.rstrip() for part in line.split("\r")]
        assert drawn[1].startswith(f"Epoch {number}/2 [======>.............]  33%  loss ")
        assert all(word in drawn[1] for word in ("accuracy", "samples/s", " s left"))
        assert drawn[-1].startswith(f"Epoch {number}/2  loss") and "val_accuracy" in drawn[-1] and "[" not in drawn[-1]
        assert len(line.split("\r")[-1]) >= len(drawn[-2])  # overwrites the whole bar


def test_progress_elsewhere_is_one_line_an_epoch(capsys):
    x, y = blobs(96)
    make().fit(x, y, epochs=2, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("Epoch 1/2  loss") and "\r" not in "".join(lines)
    assert "samples/s" in lines[1]
    make().fit(x, y, epochs=2, verbose=0)
    assert capsys.readouterr().out == ""


def test_progress_by_tqdm(capsys):
    pytest.importorskip("tqdm")
    x, y = blobs(96)
    make().fit(x, y, epochs=1, verbose="tqdm")
    assert "accuracy" in capsys.readouterr().err


def test_importing_the_trainer_needs_no_extra():
    import subprocess
    code = "import fastnn.train, sys; bad = {'tqdm', 'sklearn', 'matplotlib', 'safetensors', 'torch'} & set(sys.modules); assert not bad, bad"
    subprocess.run([sys.executable, "-c", code], check=True)


# -- wrong arguments: refused before any work --

X, Y = blobs(40)
WRONG = {
    "lengths": (dict(x=X, y=Y[:-1]), "x has 40 samples, but y has 39"),
    "no targets": (dict(x=X), "y is missing"),
    "empty": (dict(x=X[:0], y=Y[:0]), "expected at least one sample"),
    "a number": (dict(x=3.0, y=Y), "expected at least one sample"),
    "ragged": (dict(x=[[1.0], [1.0, 2.0]], y=[0, 1]), "x is not an array of numbers"),
    "text": (dict(x=X, y=np.array(["a"] * 40)), "y has dtype <U1, expected numbers"),
    "batch size": (dict(x=X, y=Y, batch_size=0), "batch_size is 0"),
    "negative batch size": (dict(x=X, y=Y, batch_size=-3), "batch_size is -3"),
    "epochs": (dict(x=X, y=Y, epochs=-1), "epochs is -1"),
    "fractional epochs": (dict(x=X, y=Y, epochs=1.5), "epochs is 1.5"),
    "initial epoch": (dict(x=X, y=Y, initial_epoch=-1), "initial_epoch is -1"),
    "split": (dict(x=X, y=Y, validation_split=1.0), "validation_split is 1.0"),
    "negative split": (dict(x=X, y=Y, validation_split=-0.1), "validation_split is -0.1"),
    "split leaves nothing": (dict(x=X[:1], y=Y[:1], validation_split=0.5), "leaves one part empty"),
    "two validations": (dict(x=X, y=Y, validation_split=0.5, validation_data=(X, Y)), "exclude each other"),
    "validation lengths": (dict(x=X, y=Y, validation_data=(X, Y[:3])), "validation x has 40 samples, but validation y has 3"),
    "validation form": (dict(x=X, y=Y, validation_data=X), r"must be \(x, y\)"),
    "sample weight": (dict(x=X, y=Y, sample_weight=np.ones(3)), r"sample_weight has shape \(3,\), expected \(40,\)"),
    "negative weight": (dict(x=X, y=Y, sample_weight=-np.ones(40)), "negative, infinite or NaN"),
    "class weight": (dict(x=X, y=Y, class_weight=3.0), "class_weight is 3.0"),
    "class weight value": (dict(x=X, y=Y, class_weight={0: -1}), "class_weight of class 0 is -1"),
    "class weight of values": (dict(x=X, y=X, class_weight={0: 1}), "class_weight needs class indices"),
    "verbose": (dict(x=X, y=Y, verbose=7), "verbose is 7"),
    "data set and y": (dict(x=ArrayDataset(X, Y), y=Y), "must be left out when x is a data set"),
    "data set of one": (dict(x=ArrayDataset(X)), "holds 1 arrays"),
    "loader and batch size": (dict(x=DataLoader((X, Y)), batch_size=3), "must be left out when x is a DataLoader"),
    "nothing left": (dict(x=DataLoader((X, Y), batch_size=64, drop_last=True)), "less than one batch"),
    "monitor": (dict(x=X, y=Y, callbacks=[EarlyStopping()]), "monitor is 'val_loss', expected one of loss, accuracy; val_ names"),
}


@pytest.mark.parametrize("case", WRONG)
def test_fit_refuses(case):
    arguments, message = WRONG[case]
    trainer = make()
    before = weights(trainer.model)
    steps = []
    arguments = {"verbose": 0, **arguments}
    arguments["callbacks"] = [LambdaCallback(on_train_batch_begin=lambda b, l: steps.append(b)), *arguments.get("callbacks", ())]
    with pytest.raises(ValueError, match=message):
        trainer.fit(**arguments)
    assert not steps and same(weights(trainer.model), before)


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
    with pytest.raises(TypeError, match="must be a list"):
        Trainer(model).fit(X, Y, callbacks=TerminateOnNaN(), verbose=0)
    for wrong in (dict(patience=-1), dict(patience=1.5), dict(every=0), dict(mode="up"), dict(min_delta=-1)):
        with pytest.raises(ValueError, match=f"EarlyStopping: {next(iter(wrong))}"):
            EarlyStopping(**wrong)
    with pytest.raises(ValueError, match="factor is 1.0"):
        ReduceLROnPlateau(factor=1.0)
    with pytest.raises(ValueError, match="expected at least one sample"):
        Trainer(model).predict(X[:0])
    with pytest.raises(TypeError, match="takes no argument reduction"):
        Trainer(model, loss=lambda p, t: F.cross_entropy(p, t)).fit(X, Y, sample_weight=np.ones(40), verbose=0)


def test_a_bad_label_is_named():
    with pytest.raises((IndexError, ValueError), match="7"):
        make().fit(X, np.where(np.arange(40) == 11, 7, Y), verbose=0)
