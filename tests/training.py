"""A small problem, a trainer for it, and comparisons of weights: what the tests of training share."""

import numpy as np

import fastnn
from fastnn import optim
from fastnn.models import mlp
from fastnn.train import Trainer


def blobs(n=240, classes=3, seed=0):
    """Points around `classes` centres, far enough apart to be learnt in a few epochs."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.normal(size=(n, 4)) + 3 * np.eye(classes, 4)[y]
    return x.astype(np.float32), y


def images(n=4, channels=3, size=12, seed=0):
    """Square maps of normally distributed numbers."""
    x = np.random.default_rng(seed).standard_normal((n, channels, size, size))
    return fastnn.tensor(x, dtype=fastnn.float32)


def make(seed=1, lr=0.1, metrics=("accuracy",), **options):
    fastnn.manual_seed(seed)
    model = mlp([4, 16, 3])
    return Trainer(model, optimizer=optim.SGD(model.parameters(), lr=lr, momentum=0.9), metrics=list(metrics),
                   **options)


def weights(model):
    return {name: np.array(value) for name, value in model.state_dict().items()}


def same(a, b):
    return all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


def classifier_step(model, optimizer):
    """A training step of cross-entropy."""

    def step(x, y):
        loss = fastnn.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def steps(model, captured, batches, count=5):
    """Losses and weights, as bytes, of `count` steps of SGD from batch to batch, eager or captured; and the program."""
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(x):
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    program = fastnn.capture(step) if captured else step
    losses = [program(batches[k % len(batches)]).item() for k in range(count)]
    return losses, [p.detach().numpy().tobytes() for p in model.parameters()], program
