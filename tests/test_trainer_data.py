"""Trainer and its data: what a loader does to each batch, data that stay as they are, models that draw at random."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn, optim
from fastnn.data import ArrayDataset, DataLoader
from fastnn.io import load_checkpoint, save_checkpoint
from fastnn.models import mlp
from fastnn.train import Trainer
from training import blobs, make

X, Y = blobs(50)


@pytest.mark.parametrize("batch_size", [2, 50])  # captured passes, and eager ones
def test_what_a_loader_does_to_each_batch_is_done_wherever_it_is_taken(batch_size):
    def scaled(x):
        return x * 0.5

    loader, data = DataLoader((X, Y), 9, transform=scaled), ArrayDataset(X, Y, transform=scaled)
    trainer = make()
    assert trainer.evaluate(loader, batch_size=batch_size) == trainer.evaluate(data, batch_size=batch_size)
    assert trainer.evaluate(loader, batch_size=batch_size) != trainer.evaluate(X, Y, batch_size=batch_size)
    assert np.array_equal(trainer.predict(loader, batch_size), trainer.predict(data, batch_size))
    histories = [make().fit(X, Y, batch_size, validation_data=held_out, verbose=0).history for held_out in (loader, data, (X, Y))]
    assert histories[0] == histories[1] != histories[2]


def test_loaders_that_make_batches_otherwise_are_refused():
    """What they do would be left out without a word."""
    class Doubled(DataLoader):
        def batch(self, rows):
            x, y = super().batch(rows)
            return x * 2, y

    trainer, loader = make(), Doubled((X, Y))
    for call in (trainer.fit, trainer.evaluate, trainer.predict, lambda x: trainer.fit(X, Y, validation_data=x)):
        with pytest.raises(TypeError, match="x is a Doubled that defines batch, but must be a DataLoader as it is"):
            call(loader)
    assert not trainer.history.epoch


def test_batches_are_copies():
    """What changes a batch in place changes no data: with a transform, in a model, in a loop of one's own; PyTorch's batches, too."""
    class Centred(nn.Linear):
        def forward(self, x):
            x -= 0.5
            return super().forward(x)

    for capture in (True, False):
        x = X.copy()
        trainer = Trainer(Centred(4, 3), capture=capture)
        trainer.fit(x, Y, 8, shuffle=False, validation_data=(x, Y), verbose=0)
        assert trainer.evaluate(x, Y) == trainer.evaluate(x, Y)
        assert np.array_equal(trainer.predict(x), trainer.predict(x))
        trainer.evaluate(ArrayDataset(x, Y, transform=lambda x: x.mul_(2)))
        assert np.array_equal(x, X)
    images = np.arange(48.0).reshape(4, 3, 2, 2)
    for array in (x, Y.copy(), images, images.T):
        before = array.copy()
        for batch, in DataLoader(array, 3):
            batch.add_(1)
        assert np.array_equal(array, before)


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(F.dropout(x, 0.5, training=True))


@pytest.mark.parametrize("validation", [None, (X, Y)])
def test_models_that_always_draw_run_alike_captured_and_eagerly(validation):
    """What is tried before training gives back the random numbers that it drew."""
    losses = []
    for capture in (True, False):
        fastnn.manual_seed(3)
        trainer = Trainer(Noisy(4, 3), capture=capture)
        runs = [trainer.fit(X, Y, 8, epochs=last, initial_epoch=last - 2, validation_data=validation, verbose=0).history
                for last in (2, 4)]
        losses.append(runs[0]["loss"] + runs[1]["loss"])
    assert losses[0] == losses[1]
    if validation is None:
        fastnn.manual_seed(3)
        assert Trainer(Noisy(4, 3)).fit(X, Y, 8, epochs=4, verbose=0).history["loss"] == losses[0]


def test_models_of_several_outputs():
    class Two(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            return y, -y

    def loss(prediction, target):
        return F.cross_entropy(prediction[0], target)

    assert set(Trainer(Two(4, 3), loss).fit(X, Y, validation_data=(X, Y), verbose=0).history) == {"loss", "val_loss"}
    with pytest.raises(TypeError, match="metrics: the model returned a tuple"):
        Trainer(Two(4, 3), loss, metrics=["accuracy"]).fit(X, Y, verbose=0)
    for size in (2, 256):
        with pytest.raises(TypeError, match="predict: the model returned a tuple"):
            Trainer(Two(4, 3), loss).predict(X, size)


def test_an_optimiser_given_by_name_is_there_before_training(tmp_path):
    """For its learning rate, for a schedule, and for a checkpoint to be taken up."""
    losses = []
    for rate in (None, 0.5):
        fastnn.manual_seed(0)
        model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))
        trainer = Trainer(model, optimizer="sgd")
        assert trainer.learning_rate == 0.01
        if rate is not None:
            trainer.learning_rate = rate
            assert trainer.optimizer.param_groups[0]["lr"] == rate
        losses.append(trainer.fit(X, Y, epochs=2, verbose=0).history["loss"])
    assert losses[0] != losses[1]
    optimizer = optim.SGD((again := nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))).parameters(), lr=0.5)
    fastnn.manual_seed(0)
    assert Trainer(again, optimizer=optimizer).fit(X, Y, epochs=2, verbose=0).history["loss"] == losses[1]
    runs = []
    for halves in (False, True):
        fastnn.manual_seed(0)
        trainer = Trainer(mlp([4, 8, 3]))
        trainer.fit(X, Y, epochs=1 if halves else 2, verbose=0)
        if halves:
            save_checkpoint(tmp_path / "run.safetensors", trainer.model, trainer.optimizer)
            trainer = Trainer(mlp([4, 8, 3]))
            load_checkpoint(tmp_path / "run.safetensors", trainer.model, trainer.optimizer)
            trainer.fit(X, Y, epochs=2, initial_epoch=1, verbose=0)
        runs.append([p.detach().numpy().tobytes() for p in trainer.model.parameters()])
    assert runs[0] == runs[1]


def test_what_gives_samples_is_named_with_its_module():
    class DataLoader(list):
        pass

    with pytest.raises(ValueError, match=r"x is a .*test_trainer_data.*\.DataLoader, which without y must be a data set of fastnn.data"):
        Trainer(mlp([4, 3])).fit(DataLoader([(X, Y)]))
    with pytest.raises(ValueError, match="x is a generator, which"):
        Trainer(mlp([4, 3])).fit((row, label) for row, label in zip(X, Y))


@pytest.mark.parametrize("sample_weight", [None, np.linspace(0.1, 2, 50)])
def test_class_weights_are_for_training_alone(sample_weight):
    """Validation by `validation_split` gives what the same samples give as `validation_data`, as in Keras."""
    runs, weights = [], () if sample_weight is None else (sample_weight[30:],)
    for parts in ({"validation_split": 0.4}, {"validation_data": (X[30:], Y[30:], *weights)}):
        whole = "validation_split" in parts
        x, y, weight = (array if whole or array is None else array[:30] for array in (X, Y, sample_weight))
        for class_weight in ({0: 5.0, 2: 0.1}, "balanced"):
            runs.append(make(seed=1).fit(x, y, 8, epochs=2, verbose=0, shuffle=False, class_weight=class_weight,
                                         sample_weight=weight, **parts).history)
    assert runs[:2] == runs[2:]


@pytest.mark.parametrize("loss", ["bce", nn.BCELoss(), F.binary_cross_entropy])
def test_metrics_by_name_take_predictions_for_what_the_loss_takes_them(loss):
    """Of a network that ends in a sigmoid every output is above 0."""
    labels = (Y > 0).astype(np.float32)[:, None]
    names = ["accuracy", "precision", "recall", "f1", "auc", "confusion_matrix"]
    column = nn.Linear(4, 1)
    results = [Trainer(column, "bce_with_logits", metrics=names).evaluate(X, labels),
               Trainer(nn.Sequential(column, nn.Sigmoid()), loss, metrics=names).evaluate(X, labels)]
    assert 0.05 < (Trainer(column).predict(X) > 0).mean() < 0.95
    for name in names:
        np.testing.assert_array_equal(*(result[name] for result in results))


@pytest.mark.parametrize("validation_split", [0, 0.2])
def test_validation_that_is_no_number_is_told_of(validation_split):
    x = X.copy()
    x[-3] = np.nan
    kept = {"validation_split": validation_split} if validation_split else {"validation_data": (x[-10:], Y[-10:])}
    with pytest.warns(RuntimeWarning, match="the val_loss of epoch 1 is nan; x holds NaN or infinite numbers in 1 samples, the first is "
                                            "number 7. These are the validation data"):
        make().fit(x if validation_split else X, Y, epochs=2, verbose=0, **kept)


@pytest.mark.parametrize("loss", ["hinge", "perceptron", "soft_margin"])
def test_losses_of_signs_take_signs(loss):
    """And metrics judge by them; 0 and 1, of which these losses would learn something else, are refused."""
    y = 2 * (Y > 0) - 1
    signs, classes = (Trainer(nn.Linear(4, 1), name, metrics=["accuracy", "f1"]) for name in (loss, "bce_with_logits"))
    classes.model.load_state_dict(signs.model.state_dict())
    for targets in (y, y[:, None], y.astype(np.float32)):
        found = signs.evaluate(X, targets)
        wanted = classes.evaluate(X, (targets + 1) // 2)
        assert found["accuracy"] == wanted["accuracy"] and found["f1"] == wanted["f1"]
    for wrong in (Y > 0, (Y > 0).astype(int), y * 0.5):
        with pytest.raises(ValueError, match=r"y holds (0|-?0.5), but this loss takes -1 and 1 \(2 \* y - 1"):
            signs.fit(X, wrong, verbose=0)


@pytest.mark.parametrize("loss", ["bce", nn.BCELoss()])
def test_logits_for_probabilities_are_told_of(loss):
    with pytest.warns(RuntimeWarning, match="is nan; the data are finite: this loss takes probabilities, as a Sigmoid"):
        Trainer(nn.Linear(4, 1), loss).fit(100 * X, (Y > 0).astype(np.float32)[:, None], verbose=0)
