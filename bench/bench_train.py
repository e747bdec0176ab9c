"""Training recipes with known results: scikit-learn's MLP on MNIST, and LeNet-5.

    python bench/bench_train.py recipe --data-dir DIR [--seeds 5]    # mean loss curve beside scikit-learn's
    python bench/bench_train.py lenet5 --data-dir DIR [--epochs 12]  # test accuracy by epoch

The recipe: 784-50-10, ReLU, SGD 0.1 with Nesterov momentum 0.9, batch 200, 10 epochs, Glorot-uniform weights and
biases, L2 penalty alpha / (2 batch) |W|^2 with alpha 1e-4; its loss is the mean over batches, penalty included.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import numpy as np

import fastnn
import fastnn.functional as F
from fastnn import nn, optim
from fastnn.data import ArrayDataset, mnist
from fastnn.models import mlp
from fastnn.train import LearningRateScheduler, Trainer

# MLPClassifier(hidden_layer_sizes=(50,), solver="sgd", learning_rate_init=0.1, max_iter=10), mean of seeds 0-4
SKLEARN_LOSS = np.array([0.3200, 0.1535, 0.1154, 0.0928, 0.0789, 0.0717, 0.0628, 0.0553, 0.0496, 0.0465])
ALPHA = 1e-4


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
    trainer = Trainer(model, loss=loss, optimizer=optimizer, metrics=["accuracy"])
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
    parser.add_argument("what", choices=["recipe", "lenet5"])
    parser.add_argument("--data-dir", help="folder of MNIST's IDX files (default: $FASTNN_DATA)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    train, test = mnist(options.data_dir)
    if options.what == "recipe":
        flat = (ArrayDataset(part.arrays[0].reshape(len(part), -1), part.arrays[1]) for part in (train, test))
        return 0 if compare_recipe(*flat, options.seeds) else 1
    found = [lenet5(train, test, options.epochs, seed, options.lr, options.batch_size) for seed in range(options.seeds)]
    print(f"{options.epochs} epochs, seeds 0-{options.seeds - 1}: " + " ".join(f"{value:.4f}" for value in found))
    return 0 if min(found) >= (0.990 if options.epochs >= 12 else 0.985) else 1


if __name__ == "__main__":
    raise SystemExit(main())
