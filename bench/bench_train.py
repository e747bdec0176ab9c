"""Training recipes with known results, scikit-learn's MLP on MNIST and LeNet-5; an epoch's time beside scikit-learn.

    python bench/bench_train.py recipe --data-dir DIR [--seeds 5]    # mean loss curve beside scikit-learn's
    python bench/bench_train.py lenet5 --data-dir DIR [--epochs 12]  # test accuracy by epoch
    python bench/bench_train.py epoch --data-dir DIR                 # time of an epoch beside MLPClassifier's, in turns
    python bench/bench_train.py fits                                # fastnn.sklearn beside scikit-learn, in turns
    FASTNN_DATA=DIR python -m pytest bench/bench_train.py --benchmark-enable [--threads 2] [--benchmark-json FILE]

The recipe: 784-50-10, ReLU, SGD 0.1 with Nesterov momentum 0.9, batch 200, 10 epochs, Glorot-uniform weights and
biases, L2 penalty alpha / (2 batch) |W|^2 with alpha 1e-4; its loss is the mean over batches, penalty included.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from timing import conditions, use_threads  # noqa: E402

import fastnn  # noqa: E402
import fastnn.functional as F  # noqa: E402
from fastnn import nn, optim  # noqa: E402
from fastnn.data import ArrayDataset, mnist  # noqa: E402
from fastnn.models import mlp  # noqa: E402
from fastnn.train import Callback, LearningRateScheduler, Trainer  # noqa: E402

# MLPClassifier(hidden_layer_sizes=(50,), solver="sgd", learning_rate_init=0.1, max_iter=10), mean of seeds 0-4
SKLEARN_LOSS = np.array([0.3200, 0.1535, 0.1154, 0.0928, 0.0789, 0.0717, 0.0628, 0.0553, 0.0496, 0.0465])
ALPHA = 1e-4
PAUSE = 0.2  # seconds until the waiting threads of one library sleep and leave the cores to the other


def recipe_trainer(seed: int, metrics: Sequence[str] = ()) -> Trainer:
    """The network, loss and optimiser of scikit-learn's recipe, its weights drawn from `seed`."""
    fastnn.manual_seed(seed)
    model = mlp([784, 50, 10])
    for layer in (model[0], model[2]):
        bound = math.sqrt(6 / sum(layer.weight.shape))
        nn.init.uniform_(layer.weight, -bound, bound)
        nn.init.uniform_(layer.bias, -bound, bound)
    matrices = [layer.weight for layer in (model[0], model[2])]

    def loss(prediction: Any, target: Any) -> Any:
        penalty = sum((weight * weight).sum() for weight in matrices)
        return F.cross_entropy(prediction, target) + penalty * (0.5 * ALPHA / len(target))

    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    return Trainer(model, loss=loss, optimizer=optimizer, metrics=metrics)


def recipe(train: ArrayDataset, test: ArrayDataset, seed: int) -> tuple[np.ndarray, float]:
    """Train scikit-learn's recipe once.

    Parameters
    ----------
    train, test : ArrayDataset
        Images (N, 784) and labels (N,).
    seed : int
        Of weights and order.

    Returns
    -------
    loss : numpy.ndarray
        Loss of each of 10 epochs, penalty included.
    accuracy : float
        On the test data.
    """
    trainer = recipe_trainer(seed, ["accuracy"])
    history = trainer.fit(train, batch_size=200, epochs=10, verbose=0)
    return np.array(history.history["loss"]), trainer.evaluate(test)["accuracy"]


def compare_recipe(train: ArrayDataset, test: ArrayDataset, seeds: int) -> bool:
    """Print the loss curve averaged over seeds beside scikit-learn's; returns whether it is within 8 %.

    Parameters
    ----------
    train, test : ArrayDataset
        As for `recipe`.
    seeds : int
        How many.

    Returns
    -------
    bool
        Whether every epoch is within 8 % and every test accuracy at least 0.968.
    """
    runs = []
    for seed in range(seeds):
        began = time.perf_counter()
        runs.append(recipe(train, test, seed))
        print(f"seed {seed}: test accuracy {runs[-1][1]:.4f}, {time.perf_counter() - began:.1f} s", flush=True)
    mean = np.mean([loss for loss, _ in runs], axis=0)
    ratio = mean / SKLEARN_LOSS
    print("epoch        " + " ".join(f"{epoch:7d}" for epoch in range(1, 11)))
    print("scikit-learn " + " ".join(f"{value:7.4f}" for value in SKLEARN_LOSS))
    print("fastnn       " + " ".join(f"{value:7.4f}" for value in mean))
    print("ratio        " + " ".join(f"{value:7.3f}" for value in ratio))
    return bool(np.all(np.abs(ratio - 1) <= 0.08) and min(accuracy for _, accuracy in runs) >= 0.968)


class InTurns(Callback):
    """Times every epoch and, after each, one of scikit-learn's.

    Parameters
    ----------
    peer : callable
        Trains scikit-learn's network for one epoch.
    """

    def __init__(self, peer: Callable[[], object]) -> None:
        self.peer = peer
        self.seconds: list[tuple[float, float]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        ours = time.perf_counter() - self.began
        time.sleep(PAUSE)
        began = time.perf_counter()
        self.peer()
        self.seconds.append((ours, time.perf_counter() - began))
        time.sleep(PAUSE)


def compare_epoch(train: ArrayDataset, epochs: int = 7) -> dict[str, float]:
    """Time epochs of the recipe beside those of scikit-learn's MLPClassifier, in turns, both in float32.

    Parameters
    ----------
    train : ArrayDataset
        Images (N, 784) and labels (N,).
    epochs : int
        How many of each; the first, in which steps are recorded and verified, does not count.

    Returns
    -------
    dict
        Median seconds of both, the median ratio, and the losses of the last epoch, which must agree within 8 %.
    """
    from sklearn.neural_network import MLPClassifier

    x, y = train.arrays
    peer = MLPClassifier((50,), solver="sgd", learning_rate_init=0.1, batch_size=200, alpha=ALPHA, random_state=0)
    turns = InTurns(lambda: peer.partial_fit(x, y, classes=np.arange(10)))
    history = recipe_trainer(0).fit(train, batch_size=200, epochs=epochs, verbose=0, callbacks=[turns])
    loss = history.history["loss"][-1]
    assert abs(loss / peer.loss_ - 1) <= 0.08, f"the last epoch's losses differ: {loss} and scikit-learn's {peer.loss_}"
    ours, theirs = np.median(turns.seconds[1:], axis=0)
    ratio = float(np.median([b / a for a, b in turns.seconds[1:]]))
    return {"seconds": ours, "microseconds": 1e6 * ours, "peer_seconds": theirs, "ratio": ratio, "loss": loss,
            "peer_loss": peer.loss_}


def compare_fits(rows: int = 60_000, epochs: int = 2, runs: int = 5) -> list[tuple[str, float]]:
    """Time fits of fastnn.sklearn's estimators beside scikit-learn's, in turns, which must give the same losses.

    Parameters
    ----------
    rows : int
        Samples of 8 features (issue 1104 of scikit-learn-intelex has 200,000).
    epochs : int
        Of each fit.
    runs : int
        Fits of each.

    Returns
    -------
    list of (str, float)
        The median ratio of each case.
    """
    import sklearn.neural_network as peer
    from sklearn.datasets import load_digits

    import fastnn.sklearn as ours

    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, 8))
    digits, labels = load_digits(return_X_y=True)
    wide = dict(hidden_layer_sizes=(128, 32), batch_size=70, max_iter=epochs, random_state=0)
    cases = {"regression, 8-128-32-1, batch 70, adam": ("MLPRegressor", wide, x, x[:, 0] * x[:, 1]),
             "digits, 64-100-10, 50 epochs of adam": ("MLPClassifier", dict(max_iter=50, random_state=0), digits / 16, labels),
             "digits, lbfgs": ("MLPClassifier", dict(solver="lbfgs", max_iter=50, random_state=0), digits / 16, labels)}
    found = []
    for title, (kind, options, features, target) in cases.items():
        for dtype in (np.float32, np.float64):
            seconds, losses = [], []
            for _ in range(runs):
                for module in (ours, peer):
                    time.sleep(PAUSE)  # a BLAS's threads spin on for a while
                    model, began = getattr(module, kind)(**options), time.perf_counter()
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        model.fit(features.astype(dtype), target)
                    seconds.append(time.perf_counter() - began)
                    losses.append(model.loss_)
            assert np.isclose(losses[0], losses[1], 1e-3, 1e-4), f"{title}: losses {losses[:2]}"
            found.append((f"{title}, {dtype.__name__}", float(np.median(np.divide(seconds[1::2], seconds[0::2])))))
    return found


def flat(data: ArrayDataset) -> ArrayDataset:
    """Images as rows."""
    return ArrayDataset(data.arrays[0].reshape(len(data), -1), data.arrays[1])


@pytest.mark.skipif(not os.environ.get("FASTNN_DATA"), reason="FASTNN_DATA does not say where MNIST is")
def test_epoch(benchmark: Any, request: pytest.FixtureRequest) -> None:
    """An epoch of the recipe on MNIST beside scikit-learn's."""
    pytest.importorskip("sklearn")
    use_threads(request.config.getoption("--threads"))
    train = flat(mnist()[0])
    benchmark.extra_info |= compare_epoch(train) | conditions()
    trainer = recipe_trainer(0)
    benchmark.pedantic(lambda: trainer.fit(train, batch_size=200, epochs=1, verbose=0), rounds=3, warmup_rounds=1)


def lenet5(train: ArrayDataset, test: ArrayDataset, epochs: int, seed: int, lr: float, batch_size: int) -> float:
    """Train LeNet-5 as the command does; returns the test accuracy.

    Parameters
    ----------
    train, test : ArrayDataset
        Images (N, 1, 28, 28) and labels (N,).
    epochs, seed, batch_size : int
        Of the run.
    lr : float
        First learning rate of the cosine.

    Returns
    -------
    float
        Accuracy after the last epoch.
    """
    from fastnn.models import lenet5 as build

    fastnn.manual_seed(seed)
    model = build()
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)
    decay = LearningRateScheduler(lambda epoch, _: lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs)))
    trainer = Trainer(model, optimizer=optimizer, metrics=["accuracy"])
    history = trainer.fit(train, batch_size=batch_size, epochs=epochs, validation_data=test, callbacks=[decay],
                          verbose=2)
    return history.history["val_accuracy"][-1]


def main() -> int:
    """Run one recipe; exit status 1 if it misses its mark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["recipe", "lenet5", "epoch", "fits"])
    parser.add_argument("--data-dir", help="folder of MNIST's IDX files (default: $FASTNN_DATA)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    if options.what == "fits":
        found = compare_fits()
        print("\n".join(f"{title:50s} {ratio:.1f}" for title, ratio in found))
        return 0 if min(ratio for _, ratio in found) >= 1 else 1
    train, test = mnist(options.data_dir)
    if options.what == "recipe":
        return 0 if compare_recipe(flat(train), flat(test), options.seeds) else 1
    if options.what == "epoch":
        found = compare_epoch(flat(train))
        print(f"an epoch: fastnn {found['seconds']:.3f} s, scikit-learn {found['peer_seconds']:.3f} s, "
              f"median ratio {found['ratio']:.2f}")
        return 0 if found["ratio"] >= 5 else 1
    found = [lenet5(train, test, options.epochs, seed, options.lr, options.batch_size) for seed in range(options.seeds)]
    print(f"{options.epochs} epochs, seeds 0-{options.seeds - 1}: " + " ".join(f"{value:.4f}" for value in found))
    return 0 if min(found) >= (0.990 if options.epochs >= 12 else 0.985) else 1


if __name__ == "__main__":
    raise SystemExit(main())
