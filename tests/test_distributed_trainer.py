"""DistributedTrainer, and the command, under mpiexec."""

import json
import os
import signal
import threading
import time

import mpi
import numpy as np
import pytest

import fastnn
from fastnn import nn
from fastnn.train import Callback, CSVLogger, DistributedTrainer, ModelCheckpoint, ProgressBar, TqdmProgress, Trainer
from fastnn.train.interrupt import AgreedInterrupt

DATA = """
from fastnn.train import *
import time
rng = np.random.default_rng(0)
x = rng.normal(size=(96, 20)).astype(np.float32)
y = (x[:, :5] + 0.3 * rng.normal(size=(96, 5))).argmax(1)
fastnn.manual_seed(7)

def plain():
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))

def noisy():
    return nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 5))

def halves(trainer):
    return all(half.obstacle is None and half.replays > 0 for half in trainer._halves)
"""


# ---- one process -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("capture", [True, False])
def test_a_world_of_one_trains_as_trainer(capture):
    def train(kind):
        fastnn.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Dropout(0.2), nn.Linear(9, 3))
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(50, 6)).astype(np.float32), rng.integers(0, 3, 50)
        history = kind(model, metrics=["accuracy", "f1"], capture=capture).fit(x, y, 8, epochs=3, validation_split=0.3, verbose=0)
        return history.history, history.params, [t.tolist() for t in model.state_dict().values()]

    assert train(DistributedTrainer) == train(Trainer)


def test_callbacks_that_write_or_print_say_so():
    assert all(kind.on_first_rank for kind in (CSVLogger, ModelCheckpoint, ProgressBar, TqdmProgress)) and not Callback.on_first_rank


def test_an_interrupt_waits_for_all_ranks_to_agree():
    with pytest.raises(KeyboardInterrupt), AgreedInterrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert interrupt.pressed and not interrupt.requested
        interrupt.check()
        interrupt.requested = True
        interrupt.check()
    assert not interrupt.pressed
    with pytest.raises(KeyboardInterrupt), AgreedInterrupt() as interrupt:  # another rank's comes first
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        interrupt.requested = True
        interrupt.check()
    with pytest.raises(KeyboardInterrupt), AgreedInterrupt():  # nobody has come to agree on it
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
    with pytest.raises(KeyboardInterrupt), AgreedInterrupt():  # the second one acts at once
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        pytest.fail("two interrupts did nothing")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# ---- several ranks ---------------------------------------------------------------------------------------------------------

@mpi.needs_mpi
def test_a_distributed_loader_is_taken_and_plain_trainer_refuses_it(tmp_path):
    ranks = mpi.reports(DATA + """
kept = []
for given in (dist.DistributedDataLoader((x, y), 12, True), fastnn.data.DataLoader((x, y), 12, True)):
    fastnn.manual_seed(7)
    model = plain()
    history = DistributedTrainer(model).fit(given, epochs=2, verbose=0)
    kept.append(weights(model))
    assert history.params["batch_size"] == 12 and history.params["steps"] == 8
try:
    Trainer(model).fit(dist.DistributedDataLoader((x, y), 12), verbose=0)
except ValueError as error:
    assert "x is a DistributedDataLoader, of which DistributedTrainer averages" in str(error)
    report(kept=kept)
""", tmp_path, 2)
    assert len({kept.tobytes() for rank in ranks for kept in rank["kept"]}) == 1


TRAIN = DATA + """
from fastnn.train import running
running._BLOCK = {block}  # predictions that are kept before ranks exchange them
model = plain()
trainer = DistributedTrainer(model, optimizer="sgd", metrics=["accuracy", "f1"])
trainer.learning_rate = 0.1
history = trainer.fit(x, y, {batch_size}, epochs=5, validation_data=(x[:31], y[:31]), verbose=0, class_weight={{0: 2.0}})
report(weights=weights(model), samples=trainer.samples_seen, steps=history.params["steps"], batch_size=history.params["batch_size"],
       halves=size == 1 or halves(trainer), **history.history)
"""


@mpi.needs_mpi
@pytest.mark.parametrize(("batch_size", "block"), [(12, 1 << 16), (30, 1), (12, 60)])
def test_ranks_train_as_one_process_does(batch_size, block, tmp_path):
    """96 = 8 * 12 = 3 * 30 + 6: also with a last batch that is smaller."""
    script = TRAIN.format(batch_size=batch_size, block=block)
    alone = mpi.reports(script, tmp_path, 0)[0]
    assert alone["loss"][-1] < alone["loss"][0]
    for n in (2, 3):
        ranks = mpi.reports(script, tmp_path, n)
        for rank in ranks:
            assert all(rank[name].tobytes() == ranks[0][name].tobytes() for name in alone)
        assert ranks[0]["halves"]
        for name in alone:
            np.testing.assert_allclose(ranks[0][name], alone[name], rtol=1e-4, atol=1e-5, err_msg=name)


NOISY = DATA + """
model = noisy()
trainer = DistributedTrainer(model, optimizer={optimizer!r}, metrics=["accuracy"], capture={capture}, watch_gradients=True)
stopper = EarlyStopping(restore_best_weights=True, patience=9)
history = trainer.fit(x, y, 12, epochs=4, validation_split=0.25, verbose=0, callbacks=[stopper])
report(weights=weights(model), seed=fastnn.initial_seed(), norms=list(history.gradient_norms.values()),
       updates=list(history.update_norms.values()), **history.history)
"""


@mpi.needs_mpi
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_ranks_are_alike_with_batch_norm_and_dropout_captured_or_not(optimizer, tmp_path):
    ranks = [rank for capture in (True, False, True)
             for rank in mpi.reports(NOISY.format(optimizer=optimizer, capture=capture), tmp_path, 2)]
    assert [rank.pop("seed") for rank in ranks] == [7, 8] * 3
    for rank in ranks:
        assert all(rank[name].tobytes() == ranks[0][name].tobytes() for name in rank)
    assert np.isfinite(ranks[0]["loss"]).all() and (ranks[0]["norms"] > 0).all()


@mpi.needs_mpi
def test_frozen_layers_may_thaw_and_parameters_be_unused(tmp_path):
    ranks = mpi.reports(DATA + """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last, self.unused = nn.Linear(20, 8), nn.Linear(8, 5), nn.Linear(2, 2)
    def forward(self, x):
        return self.last(self.first(x).relu())

model = Model()
model.first.requires_grad_(False)
before = model.unused.weight.numpy(force=True).copy()
first = []

class Thaw(Callback):
    every_step = False
    def on_epoch_begin(self, epoch, logs=None):
        first.append(model.first.weight.numpy(force=True).copy())
        if epoch == 2:
            model.first.requires_grad_()

trainer = DistributedTrainer(model, optimizer="adam")
trainer.fit(x, y, 12, epochs=4, verbose=0, callbacks=[Thaw()])
trainer.fit(x, y, 12, epochs=1, verbose=0)
report(weights=weights(model), first=first, before=before, unused=model.unused.weight.numpy(force=True), halves=halves(trainer))
""", tmp_path, 2)
    assert ranks[0]["weights"].tobytes() == ranks[1]["weights"].tobytes() and ranks[0]["halves"]
    at = ranks[0]["first"]
    assert np.array_equal(at[0], at[1]) and np.array_equal(at[1], at[2]) and not np.array_equal(at[2], at[3])
    assert np.array_equal(ranks[1]["unused"], ranks[0]["before"])


STOPS = {
    "EarlyStopping": "EarlyStopping('val_loss', patience=1, min_delta=10.0)",
    "EarlyStopping after steps": "EarlyStopping('loss', patience=2, min_delta=10.0, every=2)",
    "one rank in an epoch":
        "LambdaCallback(on_train_batch_end=lambda batch, logs: setattr(trainer, 'stop_training', rank == 1 and batch == 3))",
    "one rank after an epoch":
        "LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(trainer, 'stop_training', rank == 1 and epoch == 1))",
}


@mpi.needs_mpi
@pytest.mark.parametrize("callback", STOPS.values(), ids=STOPS)
def test_all_ranks_stop_together(callback, tmp_path):
    ranks = mpi.reports(DATA + f"""
model = noisy()
trainer = DistributedTrainer(model)
steps = []
count = LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(logs["loss"]))
history = trainer.fit(x, y, 12, epochs=20, verbose=0, validation_split=0.25, callbacks=[count, {callback}])
report(weights=weights(model), steps=steps, epochs=len(history.epoch))
""", tmp_path, 2)
    assert ranks[0]["weights"].tobytes() == ranks[1]["weights"].tobytes() and ranks[0]["steps"].tobytes() == ranks[1]["steps"].tobytes()
    wanted = {"EarlyStopping('val": 12, "EarlyStopping('loss": 6, "LambdaCallback(on_train": 4, "LambdaCallback(on_epoch": 12}
    assert len(ranks[0]["steps"]) == next(steps for name, steps in wanted.items() if callback.startswith(name))


@mpi.needs_mpi
@pytest.mark.parametrize("every_step", [True, False])
def test_nan_on_one_rank_stops_all(every_step, tmp_path):
    done = mpi.run(DATA + f"""
x[47] = np.nan  # without shuffling in the part of rank 1
guard = TerminateOnNaN(every_step={every_step})
trainer = DistributedTrainer(plain())
history = trainer.fit(x, y, 12, epochs=3, verbose=0, shuffle=False, callbacks=[guard])
report(stopped=guard.stopped_at, epochs=len(history.epoch))
""", tmp_path, 2)
    assert done.status == 0, done.errors
    assert [rank["stopped"].tolist() for rank in done.ranks] == [[0, 3]] * 2
    assert done.output.count("the loss is nan, training stops") == 1


@mpi.needs_mpi
@pytest.mark.parametrize("where", ["on_train_batch_end", "on_epoch_end", "on_test_begin"])
def test_an_exception_on_one_rank_ends_all_at_once(where, tmp_path):
    began = time.monotonic()
    done = mpi.run(DATA + f"""
def fail(*arguments):
    if rank == 1:
        raise OSError("no such luck")
trainer = DistributedTrainer(plain())
trainer.fit(x, y, 12, epochs=10_000, verbose=0, validation_split=0.25, callbacks=[LambdaCallback({where}=fail)])
report(end=1)
""", tmp_path, 2)
    assert done.status != 0 and done.ranks == [] and time.monotonic() - began < 20
    assert "OSError: no such luck" in done.errors and "OSError on rank 1 of 2: all ranks are ended" in done.errors


@mpi.needs_mpi
@pytest.mark.skipif(mpi.is_open_mpi(), reason="Open MPI's launcher kills the ranks")
def test_ctrl_c_stops_all_after_the_same_step(tmp_path):
    script = mpi._PRELUDE + DATA + """
model = noisy()
trainer = DistributedTrainer(model)
begun = LambdaCallback(on_epoch_begin=lambda epoch, logs: epoch == 2 and print("begun", flush=True))
begun.every_step = False
try:
    trainer.fit(x, y, 12, epochs=10_000_000, verbose=0, callbacks=[begun])
except KeyboardInterrupt:
    report(weights=[t.numpy(force=True) for t in model.parameters()][0], epochs=len(trainer.history.epoch))
"""
    (tmp_path / "script.py").write_text(script)
    process = mpi.start(["script.py"], tmp_path, 2)
    assert process.stdout.readline().strip() in ("begun", "begunbegun")
    process.send_signal(signal.SIGINT)
    done = mpi.finish(process, tmp_path, 2, 20)
    assert len(done.ranks) == 2, done.errors
    assert done.ranks[0]["weights"].tobytes() == done.ranks[1]["weights"].tobytes() and done.ranks[0]["epochs"] == done.ranks[1]["epochs"]


@mpi.needs_mpi
def test_files_and_progress_are_written_once(tmp_path):
    pytest.importorskip("safetensors")
    done = mpi.run(DATA + """
import os
model = noisy()
trainer = DistributedTrainer(model, metrics=["accuracy"])
seen = []
trainer.fit(x, y, 12, epochs=3, verbose=2, callbacks=[
    CSVLogger("log.csv"), ModelCheckpoint("best.safetensors", "loss"), LambdaCallback(on_epoch_end=lambda *_: seen.append(1))])
report(weights=weights(model), seen=len(seen))
dist.barrier()
if rank == 0:
    from fastnn.io import load_file
    saved = load_file("best.safetensors")
    np.savez("saved.npz", weights=np.concatenate([np.asarray(saved[name]).ravel().astype(np.float64) for name in model.state_dict()]))
""", tmp_path, 2)
    assert done.status == 0, done.errors
    assert [rank["seen"] for rank in done.ranks] == [3, 3]
    assert [line.split()[1] for line in done.output.splitlines() if line] == ["1/3", "2/3", "3/3"]
    table = (tmp_path / "log.csv").read_text().splitlines()
    assert table[0] == "epoch,loss,accuracy" and [line.split(",")[0] for line in table[1:]] == ["1", "2", "3"]
    assert np.array_equal(np.load(tmp_path / "saved.npz")["weights"], done.ranks[1]["weights"])  # statistics too


@mpi.needs_mpi
def test_a_run_goes_on_from_a_checkpoint_as_if_never_interrupted(tmp_path):
    pytest.importorskip("safetensors")
    script = DATA + """
from fastnn.io import load_checkpoint, save_checkpoint
first, last = {epochs}
fastnn.manual_seed(9 * first + 7)
model = noisy()
optimizer = optim.Adam(model.parameters(), lr=0.01)
if first:
    load_checkpoint("run.safetensors", model, optimizer)
history = DistributedTrainer(model, optimizer=optimizer).fit(x, y, 12, epochs=last, initial_epoch=first, verbose=0)
if rank == 0:
    save_checkpoint("run.safetensors", model, optimizer)
report(weights=weights(model), loss=history.history["loss"])
"""
    whole = mpi.reports(script.format(epochs=(0, 5)), tmp_path, 2)
    begun = mpi.reports(script.format(epochs=(0, 2)), tmp_path, 2)
    ended = mpi.reports(script.format(epochs=(2, 5)), tmp_path, 2)
    for a, b, c in zip(whole, begun, ended):
        assert a["loss"].tolist() == [*b["loss"], *c["loss"]] and a["weights"].tobytes() == c["weights"].tobytes()


@mpi.needs_mpi
@pytest.mark.parametrize(("call", "message"), [
    ("fit(x, y, 13)", "batch_size is 13, but must be a multiple of the 2 ranks"),
    ("fit(x[:1], y[:1], 2)", "1 samples are less than one batch, or one for each of 2 ranks"),
    ("fit(x, y, 12, validation_data=(x[:1], y[:1]))", "validation data are 1 samples, but must be at least one for each of 2 ranks"),
    ("fit(x[rank:], y[rank:], 12)", "rank 0 calls DistributedDataLoader with 96 samples, batch_size 12, and rank 1"),
    ("fit(x, y, 12, epochs=2 + rank)", "rank 0 ends its program, and rank 1 calls"),
])
def test_what_does_not_fit_ranks_is_told(call, message, tmp_path):
    done = mpi.run(DATA + f"DistributedTrainer(plain()).{call}", tmp_path, 2)
    assert done.status != 0 and message in done.errors, done.errors


# ---- the command -----------------------------------------------------------------------------------------------------------

def command(folder, *words, n=2):
    process = mpi.start(["-m", "fastnn", "train", "mlp", *words], folder, n)
    return mpi.finish(process, folder, n)


@mpi.needs_mpi
def test_the_command_shares_the_work_and_writes_once(tmp_path):
    for package in ("safetensors", "sklearn"):
        pytest.importorskip(package)
    done = command(tmp_path, "--epochs", "4", "--out", "run", "--json")
    assert done.status == 0, done.errors
    result = json.loads(done.output)
    assert result["test_accuracy"] > 0.88 and "2 processes of 1 thread" in done.errors and done.errors.count("Epoch 4/4") == 1
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 5
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    again = command(tmp_path, "--epochs", "1", "--out", "run")
    assert again.status != 0 and again.errors.count("run already holds") == 1
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    odd = command(tmp_path, "--batch-size", "15", "--out", "other")
    assert odd.status != 0 and "--batch-size is 15, but must be a multiple of the 2 processes" in odd.errors
    assert not (tmp_path / "other").exists()


@mpi.needs_mpi
@pytest.mark.slow
def test_mnist_as_one_process_learns_it(tmp_path):
    script = """
from fastnn.data import mnist
from fastnn.models import build
from fastnn.train import DistributedTrainer
train, test = mnist()
train = train.subset(slice(6000))
fastnn.manual_seed(0)
model = build("lenet5", image_size=28, in_channels=1, num_classes=10)
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
trainer = DistributedTrainer(model, optimizer=optimizer, metrics=["accuracy"])
history = trainer.fit(train, batch_size=60, epochs=3, validation_data=test, verbose=0)
report(weights=weights(model), **history.history)
"""
    if not os.environ.get("FASTNN_DATA"):
        pytest.skip("FASTNN_DATA, the folder of MNIST, is not set")
    alone = mpi.reports(script, tmp_path, 0)[0]
    ranks = mpi.reports(script, tmp_path, 2)
    assert ranks[0]["weights"].tobytes() == ranks[1]["weights"].tobytes()
    assert alone["val_accuracy"][-1] > 0.95 and abs(alone["val_accuracy"][-1] - ranks[0]["val_accuracy"][-1]) < 0.01
    np.testing.assert_allclose(ranks[0]["loss"], alone["loss"], rtol=0.1)
