"""Callbacks, history, Ctrl-C, progress."""

import csv
import io
import math
import os
import signal
import threading
import time

import numpy as np
import programs
import pytest

import fastnn
from fastnn import optim
from fastnn.models import mlp
from fastnn.optim import lr_scheduler
from fastnn.train import (CSVLogger, Callback, EarlyStopping, LambdaCallback, LearningRateSchedule, LearningRateScheduler,
                          Metric, ModelCheckpoint, ProgressBar, ReduceLROnPlateau, TerminateOnNaN, Trainer)
from training import blobs, make, same, weights


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


def test_functions_get_the_arguments_of_keras_s_hooks():
    """Without defaults, as Keras's examples write them."""
    x, y = blobs(50)
    events = []
    hooks = {"on_train_begin": lambda logs: events.append(("begin", logs)), "on_train_end": lambda logs: events.append(("end", logs)),
             "on_epoch_begin": lambda epoch, logs: events.append((epoch, logs)),
             "on_test_begin": lambda logs: events.append(("test", logs)), "on_test_end": lambda logs: events.append(len(logs))}
    make().fit(x, y, epochs=1, verbose=0, callbacks=[LambdaCallback(**hooks)], validation_data=(x, y))
    assert events == [("begin", {}), (0, {}), ("test", {}), 4, ("end", {})]


def test_functions_of_other_arguments_are_refused_at_once():
    with pytest.raises(TypeError, match=r"LambdaCallback: on_epoch_end is <lambda>, but must take \(epoch, logs\): too many positional"):
        LambdaCallback(on_epoch_end=lambda epoch: 3)
    with pytest.raises(TypeError, match=r"LearningRateScheduler: schedule is <lambda>, but must take \(epoch, lr\): too many"):
        LearningRateScheduler(lambda epoch: 0.1)
    with pytest.raises(TypeError, match="schedule is the class StepLR, expected a schedule or a function that makes one: lambda opt"):
        LearningRateSchedule(lr_scheduler.StepLR)


def test_callbacks_end_in_their_order():
    """As they begin: what a callback saves at the end are the weights that one before it restored. All end, whatever one raises."""
    def fail(logs=None):
        raise RuntimeError("failed")

    x, y = blobs(50)
    events = []
    callbacks = [LambdaCallback(on_train_end=lambda logs=None, name=name: events.append(name)) for name in "abc"]
    make().fit(x, y, verbose=0, callbacks=callbacks)
    assert events == list("abc")
    with pytest.raises(RuntimeError, match="failed"):
        make().fit(x, y, verbose=0, callbacks=[callbacks[0], LambdaCallback(on_train_end=fail), callbacks[1]])
    assert events == list("abcab")


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


@pytest.mark.parametrize("errors", [[5, 4, 6, 4, 3, 7, 8, 9, 1], [math.nan, math.nan, math.nan, 1], [2, 3, 4, 5, 1],
                                    [3, 2, 1]])
def test_early_stopping_is_algorithm_7_1(errors):
    """The book's loop, with n = 2 and p = 3, beside it."""
    n, p, v, i, j, best = 2, 3, math.inf, 0, 0, 0
    for error in errors:
        i += n
        j, best, v = (0, i, error) if error < v else (j + 1, best, v)
        if j == p:
            break
    x, y = blobs(32 * n * len(errors))
    trainer, kept, sequence = make(), [], iter(errors)
    stop = EarlyStopping(patience=p, every=n, restore_best_weights=True)
    spy = LambdaCallback(on_train_begin=lambda logs=None: kept.append(weights(trainer.model)),
                         on_train_batch_end=lambda batch, logs: kept.append(weights(trainer.model)))
    # the validation at the end of the epoch comes after the last scripted one
    trainer.validate = lambda: {"val_loss": next(sequence, 0.0)}
    trainer.fit(x, y, batch_size=32, epochs=1, verbose=0, validation_data=(x, y), callbacks=[spy, stop])
    assert (len(kept) - 1, stop.best_step) == (i, best)
    assert same(weights(trainer.model), kept[best]) and not same(kept[best], kept[best - 1] if best else kept[1])


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


def test_reduce_lr_on_plateau_keeps_each_group_s_rate():
    """And does not raise a rate that is below the least one; as Keras and PyTorch."""
    x, y = blobs(32)
    trainer = make()
    first, *rest = trainer.model.parameters()
    trainer.optimizer = optim.SGD([{"params": [first], "lr": 0.01}, {"params": rest, "lr": 0.4}], lr=0.1)
    rates = []
    reduce = ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9, min_lr=0.15)
    trainer.fit(x, y, epochs=4, verbose=0, callbacks=[reduce, LambdaCallback(on_epoch_end=lambda epoch, logs: rates.append(
        [float(group["lr"]) for group in trainer.optimizer.param_groups]))])
    assert rates == [[0.01, rate] for rate in (0.4, 0.2, 0.15, 0.15)]


@pytest.mark.parametrize("make_callback", [
    EarlyStopping, ReduceLROnPlateau, lambda name: ModelCheckpoint("best", name, True),
    lambda name: LearningRateSchedule(lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer), monitor=name)])
def test_what_is_watched_is_one_number(make_callback):
    x, y = blobs(32)
    with pytest.raises(ValueError, match="monitor is 'confusion_matrix', expected one of loss, accuracy"):
        make(metrics=["accuracy", "confusion_matrix"]).fit(x, y, verbose=0, callbacks=[make_callback("confusion_matrix")])


def test_learning_rate_scheduler_acts_on_the_optimiser():
    x, y = blobs(32)
    rates = []
    trainer = make(lr=0.4)
    trainer.fit(x, y, epochs=3, verbose=0, callbacks=[
        LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch < 2 else 0.0),
        LambdaCallback(on_epoch_end=lambda epoch, logs: rates.append((trainer.learning_rate, weights(trainer.model))))])
    assert [rate for rate, _ in rates] == pytest.approx([0.2, 0.1, 0.0])
    assert not same(rates[0][1], rates[1][1]) and same(rates[1][1], rates[2][1])


def test_csv_logger_goes_on_with_its_own_columns_only(tmp_path):
    scripted_run([3, 1], [CSVLogger(tmp_path / "log.csv")])
    before = (tmp_path / "log.csv").read_text()
    scripted_run([2], [CSVLogger(tmp_path / "log.csv", append=True)])
    after = (tmp_path / "log.csv").read_text()
    assert after.startswith(before) and len(after.splitlines()) == len(before.splitlines()) + 1 == 4
    x, y = blobs(32)
    with pytest.raises(ValueError, match="log.csv has the columns epoch, loss, scripted, val_loss, val_scripted, "
                                         "but this run gives epoch, loss, accuracy$"):
        make().fit(x, y, verbose=0, callbacks=[CSVLogger(tmp_path / "log.csv", append=True)])
    assert (tmp_path / "log.csv").read_text() == after


def test_a_checkpoint_of_the_best_is_replaced_by_better_ones_only(tmp_path):
    """In a second run with the callback, too: as Keras's, which goes on where the first ended."""
    pytest.importorskip("safetensors")
    keep, path = ModelCheckpoint(tmp_path / "best", "val_scripted", save_best_only=True), tmp_path / "best"
    scripted_run([3, 1, 2], [keep])
    before = path.read_bytes()
    scripted_run([2, 1.5], [keep])
    assert path.read_bytes() == before and keep.best == 1
    scripted_run([2, 0.5], [keep])
    assert keep.best == 0.5


def test_model_checkpoint(tmp_path):
    pytest.importorskip("safetensors")
    from fastnn.io import load_file
    scripted_run([3, 1, 2], [ModelCheckpoint(tmp_path / "{epoch:02d}-{val_scripted:.1f}.safetensors")])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["01-3.0.safetensors", "02-1.0.safetensors",
                                                          "03-2.0.safetensors"]
    trainer = scripted_run([3, 1, 2], [ModelCheckpoint(tmp_path / "best", "val_scripted", save_best_only=True)])
    assert not same(load_file(tmp_path / "best"), weights(trainer.model))
    assert same(load_file(tmp_path / "best"), load_file(tmp_path / "02-1.0.safetensors"))
    for name in ("new/folder/last", "{epoch}/weights"):
        scripted_run([3, 1], [ModelCheckpoint(tmp_path / "made" / name)])
    assert (tmp_path / "made/new/folder/last").exists() and (tmp_path / "made/2/weights").exists()
    (tmp_path / "file").touch()
    epochs = []
    with pytest.raises(OSError, match="file"):  # before the first epoch
        scripted_run([1], [ModelCheckpoint(tmp_path / "file" / "weights"),
                           LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))])
    assert not epochs
    with pytest.raises(ValueError, match="filepath is .*only fields among epoch, loss"):
        scripted_run([1], [ModelCheckpoint(tmp_path / "{val_accuracy}")])
    with pytest.raises(ValueError, match="filepath is .*only fields among epoch, loss"):
        scripted_run([1], [ModelCheckpoint(tmp_path / "{loss.name}")])


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    scripted_run([3, 1], [CSVLogger(path)])
    scripted_run([5], [CSVLogger(path, append=True)])
    rows = list(csv.reader(path.open()))
    assert rows[0] == ["epoch", "loss", "scripted", "val_loss", "val_scripted"]
    assert [(row[0], row[4]) for row in rows[1:]] == [("1", "3"), ("2", "1"), ("1", "5")]
    with pytest.raises(ValueError, match="separator is ';;', expected one character"):
        CSVLogger(path, separator=";;")


def test_terminate_on_nan(capsys):
    x, y = blobs(320)
    x[100] = np.nan
    guard = TerminateOnNaN()
    trainer = make()
    history = trainer.fit(x, y, batch_size=32, epochs=3, verbose=0, shuffle=False, callbacks=[guard])
    assert guard.stopped_at == (0, 3) and len(history.epoch) == 1 and math.isnan(history.history["loss"][0])
    assert "Epoch 1, batch 4: the loss is nan" in capsys.readouterr().out
    guard = TerminateOnNaN(every_step=False)
    history = make().fit(x, y, batch_size=32, epochs=3, verbose=0, shuffle=False, callbacks=[guard])
    assert guard.stopped_at[0] == 0 and guard.stopped_at[1] >= 3 and len(history.epoch) == 1


def test_history_to_csv(tmp_path):
    x, y = blobs(64)
    trainer = make(metrics=["accuracy", "confusion_matrix"])
    history = trainer.fit(x, y, epochs=5, initial_epoch=3, verbose=0)
    assert history.epoch == [3, 4]
    history.to_csv(tmp_path / "h.csv")
    rows = list(csv.reader((tmp_path / "h.csv").open()))
    assert rows[0] == ["epoch", "loss", "accuracy"] and [row[0] for row in rows[1:]] == ["4", "5"]
    assert [float(row[1]) for row in rows[1:]] == history.history["loss"]  # digit by digit
    with pytest.raises(OSError, match="nowhere"):
        history.to_csv(tmp_path / "nowhere" / "h.csv")


# -- Ctrl-C --

def test_interrupt_leaves_whole_steps(ctrl_c):
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


def test_interrupt_stops_replayed_passes_at_a_whole_step(ctrl_c):
    """SIGINT while steps are replayed in C takes effect within 0.2 s; all state is that of so many whole steps."""
    x, y = blobs(999)

    def adam():
        fastnn.manual_seed(1)
        model = mlp([4, 16, 3])
        return Trainer(model, optimizer=optim.Adam(model.parameters()))

    trainer, pressed = adam(), []

    def press():
        time.sleep(0.4)
        pressed.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(x, y, batch_size=4, epochs=10**6, shuffle=False, verbose=0)
    assert time.perf_counter() - pressed[0] < 2  # 0.2 s, and the rest for a busy machine
    presser.join()
    states = list(trainer.optimizer.state.values())
    steps, = {state["step"].item() for state in states}
    epochs, rest = divmod(int(steps), 250)
    unrecorded = 1 if rest == 0 else 0  # it may have struck after an epoch's last step, before the epoch was recorded
    assert epochs - unrecorded <= len(trainer.history.epoch) <= epochs >= 1
    again = adam()
    again.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0)
    if rest:
        again.fit(x[:4 * rest], y[:4 * rest], batch_size=4, epochs=1, shuffle=False, verbose=0)
    assert same(weights(trainer.model), weights(again.model))
    for mine, its in zip(states, again.optimizer.state.values()):
        assert same({name: value.numpy() for name, value in mine.items()},
                    {name: value.numpy() for name, value in its.items()})


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
    monkeypatch.setattr(progress, "_REST", 0.0)
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


def test_progress_rests_after_a_dear_metric(monkeypatch):
    """A metric that takes 20 ms to compute may be drawn about once a second, however short the steps."""

    class Dear(Scripted):
        def result(self):
            time.sleep(0.02)
            return 1.0

    from fastnn.train import progress
    monkeypatch.setattr(progress, "_INTERVAL", 0.0)
    x, y = blobs(640)
    screen = Screen()
    began = time.perf_counter()
    pace = LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.01))
    make(metrics=[Dear([])]).fit(x, y, batch_size=16, verbose=0, callbacks=[ProgressBar(file=screen), pace])
    assert screen.getvalue().count("\r") <= 2 + (time.perf_counter() - began) / (0.02 * progress._REST)


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
    programs.run("""
        import fastnn.train, sys
        bad = {"tqdm", "sklearn", "matplotlib", "safetensors", "torch"} & set(sys.modules)
        assert not bad, bad
        """)
