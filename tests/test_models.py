"""The named networks: sizes, and captured training with the same bits as eager training."""

import json

import numpy as np
import pytest

import fastnn
from fastnn import models, nn, optim
from fastnn.testing.checks import forced_threads
from fastnn.train import Trainer
from training import classifier_step


@pytest.mark.parametrize("name, config, parameters", [
    ("mlp", {"sizes": (784, 16, 16, 10)}, 13_002), ("lenet5", {"image_size": 32}, 61_706), ("resnet18", {}, 11_689_512),
    ("resnet50", {}, 25_557_032), ("resnext50_32x4d", {}, 25_028_904), ("vgg16", {}, 138_357_544), ("alexnet", {}, 61_100_840), ("resnet20", {}, 272_474)])
def test_number_of_parameters(name, config, parameters):
    assert sum(p.numel() for p in models.build(name, **config).parameters()) == parameters


@pytest.mark.parametrize("name", models.MODELS)
def test_a_model_knows_how_it_was_made(name):
    config = {"sizes": np.array([3, 2])} if name == "mlp" else {"num_classes": np.int64(3)}
    if name in ("resnet18", "resnet50", "resnext50_32x4d", "vgg16"):
        config["width"] = 16
    model = models.build(name, **config)
    json.dumps(model.architecture)  # as files keep it
    again = models.build(model.architecture["name"], **model.architecture["config"])
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def train(name, config, shape, steps, capture, optimizer):
    """Parameters, buffers and losses after some steps with a changing rate and a short last batch."""
    fastnn.manual_seed(3)
    rng = np.random.default_rng(5)
    model = models.build(name, **config)
    opt = optimizer(model.parameters())

    step = classifier_step(model, opt)
    run = fastnn.capture(step) if capture else step
    losses = []
    for k in range(steps):
        opt.param_groups[0]["lr"] = 0.05 / (k + 1)
        n = shape[0] if k % 5 < 4 else shape[0] // 2
        x = rng.standard_normal((n, *shape[1:])).astype(np.float32)
        losses.append(run(fastnn.tensor(x), fastnn.tensor(rng.integers(0, 10, n))).item())
    if capture:
        assert run.obstacle is None and run.replays >= steps - 4
    return [np.array(losses)] + [t.numpy() for t in model.state_dict().values()]


CASES = [("mlp", {"sizes": (20, 16, 10)}, (12, 20), 50), ("lenet5", {}, (4, 1, 28, 28), 50),
         ("resnet20", {"width": 4}, (4, 3, 16, 16), 12),
         ("resnet18", {"width": 4, "num_classes": 10}, (2, 3, 64, 64), 8),
         ("resnet50", {"width": 4, "num_classes": 10}, (2, 3, 64, 64), 6),
         ("resnext50_32x4d", {"width": 16, "num_classes": 10}, (2, 3, 64, 64), 6),
         ("vgg16", {"width": 4, "num_classes": 10}, (2, 3, 32, 32), 8)]


@pytest.mark.parametrize("name, config, shape, steps", CASES, ids=[c[0] for c in CASES])
@pytest.mark.parametrize("optimizer", [lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
                                       lambda p: optim.AdamW(p, lr=0.1)],
                         ids=["sgd", "adamw"])
def test_captured_training_has_the_bits_of_eager_training(name, config, shape, steps, optimizer):
    expected = train(name, config, shape, steps, False, optimizer)
    for threads in (1, 3):
        with forced_threads(threads):
            for actual, wanted in zip(train(name, config, shape, steps, True, optimizer), expected):
                np.testing.assert_array_equal(actual, wanted)


def test_trainer_gives_the_same_run_captured_or_not():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((150, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, 150)
    runs = []
    for capture in (False, True):
        fastnn.manual_seed(8)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3),
                              nn.Flatten(), nn.LazyLinear(10))
        trainer = Trainer(model, optimizer=optim.Adam(model.parameters()), metrics=["accuracy"], capture=capture)
        history = trainer.fit(x, y, batch_size=32, epochs=4, validation_data=(x[:40], y[:40]), verbose=0)
        runs.append((history.history, [t.numpy() for t in model.state_dict().values()]))
    assert runs[0][0] == runs[1][0]
    for actual, wanted in zip(runs[1][1], runs[0][1]):
        np.testing.assert_array_equal(actual, wanted)
