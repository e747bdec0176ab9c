"""Run with an installed wheel in an environment that has only NumPy: imports, trains a little, checks what is there."""

from importlib.metadata import distributions

import numpy as np

import fastnn
import fastnn.functional as F
from fastnn import nn, optim

installed = {d.metadata["Name"].lower() for d in distributions()} - {"pip", "setuptools"}
assert installed == {"fastnn", "numpy"}, installed
assert fastnn._core.has_openmp()

fastnn.manual_seed(0)
rng = np.random.default_rng(0)
x = rng.standard_normal((64, 1, 12, 12)).astype(np.float32)
y = x.reshape(64, 3, 48).sum(2).argmax(1)
model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(3))
losses = []
for _ in range(60):
    loss = F.cross_entropy(model(fastnn.tensor(x)), fastnn.tensor(y))
    if not losses:
        optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
assert losses[-1] < 0.1 * losses[0], losses
print(f"fastnn {fastnn.__version__} on {fastnn._core.get_isa()}, {fastnn.get_num_threads()} threads: "
      f"loss {losses[0]:.3f} to {losses[-1]:.3f}")
