"""Checkpoints: a run that is taken up again ends with the same bits as one that was not broken off."""

import types

import numpy as np
import pytest
from programs import run

import fastnn
from fastnn import nn, optim
from fastnn.data import Augment, CutMix, DataLoader
from fastnn.io import describe, load_checkpoint, load_file, load_model, read_metadata, save_checkpoint, save_file, save_model
from fastnn.io.describe import table
from fastnn.train import EarlyStopping, LambdaCallback, LearningRateSchedule, ReduceLROnPlateau, Trainer
from fastnn.train.trainer import OPTIMIZERS

pytest.importorskip("safetensors")
X = np.random.default_rng(0).standard_normal((70, 5), dtype=np.float32)
Y = np.random.default_rng(1).integers(0, 3, 70)


def make_model(width=8):
    return nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 3))


def bits(model):
    return [value.numpy().tobytes() for value in model.state_dict().values()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_going_on_gives_the_same_bits(tmp_path, name):
    fastnn.manual_seed(3)
    whole = make_model()
    Trainer(whole, optimizer=OPTIMIZERS[name](whole.parameters())).fit(X, Y, 16, epochs=4, verbose=0)

    fastnn.manual_seed(3)
    model = make_model()
    optimizer = OPTIMIZERS[name](model.parameters())
    Trainer(model, optimizer=optimizer).fit(X, Y, 16, epochs=2, verbose=0)
    save_checkpoint(tmp_path / "run", model, optimizer, metadata={"epochs": 2})

    fastnn.manual_seed(99)
    again = make_model()
    optimizer = OPTIMIZERS[name](again.parameters())
    done = load_checkpoint(tmp_path / "run", again, optimizer)["epochs"]
    assert bits(again) == bits(model) != bits(whole)
    Trainer(again, optimizer=optimizer).fit(X, Y, 16, epochs=4, initial_epoch=done, verbose=0)
    assert bits(again) == bits(whole)


@pytest.mark.parametrize("kind", [optim.LBFGS, optim.RandomLocalSearch])
def test_optimisers_by_closures_go_on(tmp_path, kind):
    def steps(model, optimizer, count):
        x, y = fastnn.tensor(X), fastnn.tensor(Y)

        def closure():
            optimizer.zero_grad()
            loss = fastnn.cross_entropy(model(x), y)
            if loss.requires_grad:  # random search goes without
                loss.backward()
            return loss

        for _ in range(count):
            optimizer.step(closure)

    models = [nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)) for _ in range(2)]
    optimizers = [kind(model.parameters(), lr=0.5) for model in models]
    steps(models[0], optimizers[0], 2)
    save_checkpoint(tmp_path / "run", models[0], optimizers[0])
    steps(models[0], optimizers[0], 2)
    load_checkpoint(tmp_path / "run", models[1], optimizers[1])
    steps(models[1], optimizers[1], 2)
    assert bits(models[0]) == bits(models[1])


def test_a_killed_run_goes_on(tmp_path):
    code = """
        import os, signal
        from test_checkpoint import *
        fastnn.manual_seed(5)
        model = make_model()
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        def keep(epoch, logs):
            save_checkpoint("{path}", model, optimizer, metadata={{"epochs": epoch + 1}})
            if epoch == {last}:
                os.kill(os.getpid(), signal.SIGKILL)
        Trainer(model, optimizer=optimizer).fit(X, Y, 16, epochs=5, verbose=0, callbacks=[LambdaCallback(on_epoch_end=keep)])
    """
    assert run(code.format(path=tmp_path / "whole", last=-1)).returncode == 0
    assert run(code.format(path=tmp_path / "killed", last=2), check=False).returncode == -9
    model, whole = make_model(), make_model()
    optimizer = optim.Adam(model.parameters())
    done = load_checkpoint(tmp_path / "killed", model, optimizer)["epochs"]
    assert done == 3 and float(optimizer.param_groups[0]["lr"]) == 0.01
    Trainer(model, optimizer=optimizer).fit(X, Y, 16, epochs=5, initial_epoch=done, verbose=0)
    assert load_checkpoint(tmp_path / "whole", whole)["epochs"] == 5
    assert bits(model) == bits(whole)


def test_schedule_and_groups_go_on(tmp_path):
    def make():
        model = make_model()
        parameters = list(model.parameters())
        optimizer = optim.SGD([{"params": parameters[:1], "lr": 0.5}, {"params": parameters[1:]}], lr=0.1, momentum=0.9)
        return model, optimizer, optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)

    model, optimizer, schedule = make()
    for _ in range(3):
        schedule.step()
    generator = fastnn.Generator(7)
    fastnn.randperm(5, generator=generator)
    save_checkpoint(tmp_path / "run", model, optimizer, schedule, generator=generator)
    model, optimizer, schedule = make()
    other = fastnn.Generator(8)
    assert load_checkpoint(tmp_path / "run", model, optimizer, schedule, generator=other) == {}
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.25, 0.05] and schedule.last_epoch == 3
    assert fastnn.randperm(9, generator=other).equal(fastnn.randperm(9, generator=generator))


def run_with_callbacks(epochs, load=None, save=None, first=0):
    """One run, whole or a part of it; what it logged, and the bits of its end."""
    fastnn.manual_seed(11 if load is None else 12)
    model = make_model()
    optimizer = optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    callbacks = [EarlyStopping("val_accuracy", patience=3, restore_best_weights=True),
                 ReduceLROnPlateau("val_accuracy", factor=0.5, patience=2, cooldown=1),
                 LearningRateSchedule(lambda optimizer: optim.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=7))]
    if load is not None:
        assert load_checkpoint(load, model, optimizer, callbacks=callbacks) == {"epochs": first}
    told, keep = [], []
    if save is not None:
        keep = [LambdaCallback(on_epoch_end=lambda epoch, logs: save_checkpoint(
            save, model, optimizer, callbacks=callbacks, metadata={"epochs": epoch + 1}))]
    note = LambdaCallback(on_epoch_end=lambda epoch, logs: told.append(
        (epoch, logs["loss"], logs["val_loss"], callbacks[0].best, callbacks[1]._waited, optimizer.param_groups[0]["lr"])))
    y = X[:, :3].argmax(1)
    Trainer(model, optimizer=optimizer, metrics=["accuracy"]).fit(
        X[:50], y[:50], 16, epochs, 0, [*callbacks, *keep, note], initial_epoch=first, validation_data=(X[50:], y[50:]))
    return told, bits(model), callbacks[0].stopped_epoch, callbacks[0].best_epoch


@pytest.mark.parametrize("broken_off", [1, 5, 6])
def test_callbacks_go_on(tmp_path, broken_off):
    """Patience, the best so far and its weights, cooling: all as in a run that was not broken off."""
    told, end, stopped, best = run_with_callbacks(10)
    assert len({rate for *_, rate in told}) > 3 and stopped is not None and best > 0  # all callbacks do something
    before, *_ = run_with_callbacks(broken_off, save=tmp_path / "run")
    after, *rest = run_with_callbacks(10, load=tmp_path / "run", first=broken_off)
    assert before + after == told and rest == [end, stopped, best]


def run_with_others(epochs, load=None, save=None, first=0, capture=True):
    """A run with an average of its weights, which validates on it, and generators of its own; what is left, and what it logged."""
    fastnn.manual_seed(11 if load is None else 12)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ema, draws, mixes = optim.EMA(model.parameters(), 0.9, warmup=True), fastnn.Generator(5), fastnn.Generator(6)
    optimizer.register_step_post_hook(ema)
    others = {"ema": ema, "draws": draws, "mixes": mixes}
    loader = DataLoader((np.tile(X, 5).reshape(70, 1, 5, 5), Y), 16, shuffle=True, transform=Augment(
        padding=1, noise=0.1, generator=draws), batch_transform=CutMix(3, generator=mixes))
    if load is not None:
        assert load_checkpoint(load, model, optimizer, others=others) == {"epochs": first}
    told = []
    trainer = Trainer(model, optimizer=optimizer, metrics=["accuracy"], capture=capture)

    def note(epoch, logs):
        with ema.averaged():
            told.append((logs["loss"], logs["accuracy"], trainer.evaluate(loader)["loss"]))
        if save is not None:
            save_checkpoint(save, model, optimizer, others=others, metadata={"epochs": epoch + 1})

    trainer.fit(loader, epochs=epochs, initial_epoch=first, verbose=0, callbacks=[LambdaCallback(on_epoch_end=note)])
    return told, bits(model), [average.numpy().tobytes() for average in ema.averages], draws.state.tolist(), mixes.state.tolist()


def test_averages_of_weights_and_more_generators_go_on(tmp_path):
    told, *end = run_with_others(5)
    before, *_ = run_with_others(2, save=tmp_path / "run")
    after, *rest = run_with_others(5, load=tmp_path / "run", first=2)
    assert before + after == told and rest == end and len(set(told)) == 5
    assert end[1] != end[0][:len(end[1])] and end[2][1] > 0 < end[3][1]  # averages are not the weights; both generators were asked
    assert run_with_others(5, load=tmp_path / "run", first=2, capture=False) == (after, *rest)


def test_second_models_and_optimisers_go_on(tmp_path):
    def make():
        model, critic = make_model(), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        return (model, optim.Adam(model.parameters(), lr=0.01), {
            "critic": critic, "critic's optimiser": optim.Adam(critic.parameters(), lr=0.05),
            "swa.x": optim.swa_utils.AveragedModel(model)})

    def steps(model, optimizer, others):
        for _ in range(3):
            critic, its, average = others.values()
            score = critic(model(fastnn.tensor(X))).mean() ** 2
            score.backward()
            for o in (optimizer, its):
                o.step()
                o.zero_grad()
            average.update_parameters(model)
        return bits(model), bits(critic), bits(average)

    fastnn.manual_seed(1)
    run, again = make(), make()
    steps(*run)
    save_checkpoint(tmp_path / "run", *run[:2], others=run[2])
    load_checkpoint(tmp_path / "run", *again[:2], others=again[2])
    state = fastnn.random.get_rng_state()
    end = steps(*run)
    fastnn.random.set_rng_state(state)
    assert steps(*again) == end
    only = make()[2]["swa.x"]
    load_checkpoint(tmp_path / "run", make_model(), others={"swa.x": only})  # some, to apply them


def test_what_is_shown_of_many_others_can_be_read(tmp_path):
    save_checkpoint(tmp_path / "run", make_model(), others={"ema": optim.EMA([fastnn.zeros(2) for _ in range(60)])})
    lines = table(describe(tmp_path / "run")).splitlines()
    assert max(map(len, lines)) < 1100 and any("characters; --json shows all)" in line for line in lines)
    assert lines[-1].startswith("other.ema.averages.59")


def test_others_that_do_not_fit_are_refused(tmp_path):
    model = make_model()
    save_checkpoint(tmp_path / "run", model, others={"ema": optim.EMA(model.parameters())})
    save_checkpoint(tmp_path / "bare", model)
    for file, others, message in (
            ("bare", {"ema": optim.EMA(model.parameters())}, r"bare: was saved with the others \[\], but others has 'ema'"),
            ("run", {"EMA": fastnn.Generator()}, r"run: was saved with the others \['ema'\], but others has 'EMA'"),
            ("run", {"ema": fastnn.Generator()}, r"run: was saved with the state of EMA, but others\['ema'\] is Generator"),
            ("run", {"ema": optim.EMA([model[0].weight])}, "run does not fit: EMA.load_state_dict: averages have the shapes")):
        with pytest.raises(ValueError, match=message):
            load_checkpoint(tmp_path / file, model, others=others)
    with pytest.raises(ValueError, match=r"EMA.load_state_dict: state_dict has \['steps'\], but must have averages and steps"):
        optim.EMA(model.parameters()).load_state_dict({"steps": 3})


def test_callbacks_that_do_not_fit_are_refused(tmp_path):
    model, stop = make_model(), EarlyStopping("loss")
    save_checkpoint(tmp_path / "run", model, callbacks=[stop])
    with pytest.raises(ValueError, match=r"saved with the callbacks \['EarlyStopping'\], but callbacks are \['LambdaCallback'\]"):
        load_checkpoint(tmp_path / "run", model, callbacks=[LambdaCallback()])
    with pytest.raises(TypeError, match="load_checkpoint: callbacks is 3, but must be a list of callbacks of fastnn.train"):
        load_checkpoint(tmp_path / "run", model, callbacks=3)
    with pytest.raises(ValueError, match="EarlyStopping: state_dict has 'pace', expected names among best, best_epoch"):
        stop.load_state_dict({"pace": 3})
    load_checkpoint(tmp_path / "run", model)  # nobody asks for them


class Counter(nn.Linear):
    """Counts its calls, as its parameters know nothing of."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)

    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]


def test_extra_state_is_kept(tmp_path):
    model, fresh = (nn.Sequential(Counter(2, 2), nn.Linear(2, 3)) for _ in range(2))
    model(fastnn.zeros(1, 2))
    save_checkpoint(tmp_path / "run", model)
    load_checkpoint(tmp_path / "run", fresh)
    assert fresh[0].calls == 1
    wide = nn.Sequential(Counter(2, 2), nn.Linear(2, 4))
    with pytest.raises(ValueError, match="size mismatch for 1.weight"):
        load_checkpoint(tmp_path / "run", wide)
    assert wide[0].calls == 0


def test_extra_state_is_restored_with_the_best_weights():
    model = nn.Sequential(Counter(5, 3))
    stop = EarlyStopping(monitor="loss", patience=1, mode="max", min_delta=1e9, restore_best_weights=True)
    Trainer(model, optimizer="sgd", capture=False).fit(X, Y, 70, epochs=5, verbose=0, callbacks=[stop])
    assert stop.best_epoch == 0 and stop.stopped_epoch and model[0].calls == 1


def test_tied_parameters_go_on(tmp_path):
    def make():
        model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
        model[1].weight = model[0].weight
        return model, optim.Adam(model.parameters(), lr=0.01)

    model, optimizer = make()
    Trainer(model, optimizer=optimizer).fit(X, Y, 16, epochs=1, verbose=0)
    save_checkpoint(tmp_path / "run", model, optimizer)
    assert "model.1.weight" not in [tensor["name"] for tensor in describe(tmp_path / "run")["tensors"]]
    again, optimizer_again = make()
    load_checkpoint(tmp_path / "run", again, optimizer_again)
    assert again[1].weight is again[0].weight
    for trained, its in ((model, optimizer), (again, optimizer_again)):
        fastnn.manual_seed(1)
        Trainer(trained, optimizer=its).fit(X, Y, 16, epochs=1, verbose=0)
    assert bits(again) == bits(model)


def test_another_kind_is_refused(tmp_path):
    model = make_model()
    adam = optim.Adam(model.parameters())
    save_checkpoint(tmp_path / "run", model, adam, optim.lr_scheduler.StepLR(adam, 3))
    before = bits(model)
    with pytest.raises(ValueError, match="run: was saved with the state of Adam, but optimizer is SGD"):
        load_checkpoint(tmp_path / "run", model, optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="run: was saved with the state of StepLR, but scheduler is ExponentialLR"):
        load_checkpoint(tmp_path / "run", model, adam, optim.lr_scheduler.ExponentialLR(adam, 0.9))
    assert bits(model) == before
    with pytest.raises(ValueError, match=r"run is a checkpoint: load_checkpoint\(path, model\) reads its weights"):
        load_model(tmp_path / "run", model)


@pytest.mark.parametrize("arguments, options, message", [
    (("model",), {}, "model is 'model', but must be a Module"),
    ((nn.Linear(2, 2), "adam"), {}, "optimizer is 'adam', but must be an Optimizer"),
    ((nn.Linear(2, 2), None, 3), {}, "scheduler is 3, but must be one of fastnn.optim.lr_scheduler"),
    ((nn.Linear(2, 2), None, optim.EMA([])), {}, "scheduler is .*EMA.*, but must be .*; whatever else has a state is one of others={...}"),
    ((nn.Linear(2, 2),), {"generator": 5}, "generator is 5, but must be a Generator"),
    ((nn.Linear(2, 2),), {"others": [3]}, r"others is \[3\], but must be a mapping of names to what is to be kept"),
    ((nn.Linear(2, 2),), {"others": {3: nn.ReLU()}}, "others is .*, but must be a mapping of names"),
    ((nn.Linear(2, 2),), {"others": {"ema": 3}}, r"others\['ema'\] is 3, but must be a Generator or have state_dict and load_state_dict"),
    ((nn.Linear(2, 2),), {"others": {"half": types.SimpleNamespace(load_state_dict=print)}}, r"others\['half'\] is .*, but must be a Ge"),
    ((nn.Linear(2, 2),), {"others": {"ema": optim.EMA}}, r"others\['ema'\] is <class .*EMA'>, but must be a Generator or have"),
    ((nn.Linear(2, 2),), {"others": {"stop": EarlyStopping()}}, r"others\['stop'\] is a EarlyStopping, but callbacks must be given as")])
def test_wrong_arguments_are_named(tmp_path, arguments, options, message):
    for function in (save_checkpoint, load_checkpoint):
        with pytest.raises(TypeError, match=f"{function.__name__}: {message}"):
            function(tmp_path / "run", *arguments, **options)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", ["scheduler", "callback", "generator", "optimizer", "others"])
def test_what_does_not_fit_in_one_part_changes_no_other(tmp_path, wrong):
    def make(groups=1):
        model = make_model()
        parameters = list(model.parameters())
        parts = [parameters] if groups == 1 else [parameters[:1], parameters[1:]]
        optimizer = optim.SGD([{"params": part} for part in parts], lr=0.1, momentum=0.9)
        return model, optimizer, optim.lr_scheduler.StepLR(optimizer, 1), [EarlyStopping("loss")]

    def make_others(width):
        second = nn.Linear(width, 2)
        return {"noise": fastnn.Generator(3), "adam": optim.Adam(second.parameters()), "second": second, "ema": optim.EMA([second.weight])}

    model, optimizer, schedule, callbacks = make()
    Trainer(model, optimizer=optimizer).fit(X, Y, callbacks=[*callbacks, LearningRateSchedule(schedule)], verbose=0)
    save_checkpoint(tmp_path / "run", model, optimizer, schedule, callbacks=callbacks, others=make_others(2))
    tensors, described = load_file(tmp_path / "run"), read_metadata(tmp_path / "run")["checkpoint"]
    if wrong == "callback":
        described["callbacks"][0]["state"]["dict"].append(["unknown", 1])
    if wrong == "generator":
        tensors["generator"] = np.zeros(3, np.int64)
    save_file(tensors, tmp_path / "run", {"checkpoint": described})
    fresh, optimizer, schedule, callbacks = make()
    if wrong in ("scheduler", "optimizer"):
        other = make(groups=2)
        optimizer, schedule = (None, other[2]) if wrong == "scheduler" else (other[1], schedule)
    parts, others = (fresh, optimizer, schedule, callbacks), make_others(2)
    others["ema"] = optim.EMA([nn.Linear(3, 2).weight]) if wrong == "others" else others["ema"]
    fastnn.rand(3, generator=others["noise"])
    random = fastnn.random.default_generator

    def seen():
        return (bits(fresh), None if optimizer is None else str(optimizer.state_dict()), schedule.state_dict(), callbacks[0]._loaded,
                random.get_state().tolist(), bits(others["second"]), str(others["adam"].state_dict()), others["noise"].state.tolist(),
                str(others["ema"].state_dict()))

    before = seen()
    with pytest.raises(ValueError, match="run does not fit: "):
        load_checkpoint(tmp_path / "run", *parts[:3], callbacks=callbacks, others=others)
    assert seen() == before


@pytest.mark.parametrize("kept, message", [
    (None, "not a checkpoint"), ({}, "not a checkpoint"), ({"user": {}, "callbacks": 3}, "what is kept of callbacks"),
    ({"user": {}, "callbacks": [3]}, "what is kept of callbacks"),
    ({"user": {}, "callbacks": [{"kind": "EarlyStopping", "state": {"odd": 1}}]}, "what is kept of callbacks"),
    ({"user": {}, "others": []}, "what is kept of others"), ({"user": {}, "others": {"ema": 3}}, "what is kept of others"),
    ({"user": {}, "others": {"ema": {"kind": "EMA", "state": {"odd": 1}}}}, "what is kept of callbacks or others")])
def test_files_that_say_to_be_checkpoints(tmp_path, kept, message):
    save_file({}, tmp_path / "odd", {"checkpoint": kept})
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "odd", make_model())


def test_what_does_not_fit_changes_nothing(tmp_path):
    model = make_model()
    optimizer = optim.Adam(model.parameters())
    save_checkpoint(tmp_path / "run", model, optimizer)
    save_checkpoint(tmp_path / "bare", model)
    save_model(model, tmp_path / "weights")
    fresh, wide = make_model(), make_model(9)
    before, state = bits(fresh), fastnn.random.default_generator.get_state().tolist()
    two = optim.Adam([{"params": [p]} for p in fresh.parameters()])
    for file, loaded, with_optimizer, message in (
            ("weights", fresh, None, "not a checkpoint; weights alone are read by load_model"),
            ("bare", fresh, two, "was saved without the optimizer's state"),
            ("run", fresh, two, r"does not fit: load_state_dict: the groups have \[6\] parameters"),
            ("run", wide, None, r"does not fit: .*size mismatch for 0.weight")):
        with pytest.raises(ValueError, match=message):
            load_checkpoint(tmp_path / file, loaded, with_optimizer)
    assert bits(fresh) == before and fastnn.random.default_generator.get_state().tolist() == state
