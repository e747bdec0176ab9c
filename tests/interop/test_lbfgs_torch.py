"""L-BFGS with steps of fixed length against PyTorch's: the same path; with line searches, the same minimum."""

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((30, 6)), RNG.standard_normal(30)


def run(module, parameter, tensor, calls, **options):
    p = parameter(np.zeros(6))
    optimizer = module.LBFGS([p], **options)
    a, b = tensor(A), tensor(B)

    def closure():
        optimizer.zero_grad()
        d = (a @ p.reshape(6, 1)).reshape(30) - b
        loss = (d * d).mean() + (p * p * p * p).sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(calls)]
    return p.detach().numpy(), losses


@pytest.mark.parametrize("options", [dict(lr=0.5), dict(lr=1.0, max_iter=3, history_size=2), dict(lr=0.3, max_iter=7)])
def test_the_same_path(options):
    ours = run(optim, nn.Parameter, fastnn.tensor, 3, **options)
    theirs = run(torch.optim, lambda v: torch.nn.Parameter(torch.tensor(v)), torch.tensor, 3, **options)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("options", [dict(lr=0.5, max_iter=3), dict(lr=0.8, max_iter=3, history_size=2)])
def test_going_on_from_its_state(options):
    theirs = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    optimizer = torch.optim.LBFGS([theirs], **options)

    def closure(p, optimizer, tensor):
        optimizer.zero_grad()
        loss = ((tensor(A) @ p.reshape(6, 1)).reshape(30) - tensor(B)).square().mean() + (p * p * p * p).sum()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(lambda: closure(theirs, optimizer, torch.tensor))
    ours = nn.Parameter(theirs.detach().numpy().copy())
    fresh = optim.LBFGS([ours])
    fresh.load_state_dict(optimizer.state_dict())
    assert fresh.evaluations == optimizer.state[theirs]["func_evals"]
    for _ in range(3):
        optimizer.step(lambda: closure(theirs, optimizer, torch.tensor))
        fresh.step(lambda: closure(ours, fresh, fastnn.tensor))
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("options", [dict(lr=0.5), dict(lr=0.8, max_iter=5), dict(lr=0.3, max_iter=3, history_size=2)])
def test_closures_that_change_parameters(options):
    """As the one of style transfer, which keeps an image between 0 and 1."""
    def path(library):
        p = library.zeros(6, dtype=library.float64).requires_grad_(True)
        optimizer, values = library.optim.LBFGS([p], **options), []

        def closure():
            with library.no_grad():
                p.clamp_(-0.1, 0.15)
            optimizer.zero_grad()
            loss = ((library.tensor(A) @ p - library.tensor(B)) ** 2).mean() + (p ** 4).sum()
            loss.backward()
            values.append(loss.item())
            return loss

        for _ in range(3):
            optimizer.step(closure)
        return values, p.detach().numpy()

    (ours, p), (theirs, q) = path(fastnn), path(torch)
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    np.testing.assert_allclose(p, q, rtol=1e-7)
    assert (p == 0.15).any()


def test_the_same_minimum():
    options = dict(max_iter=100, line_search_fn="strong_wolfe")
    ours, _ = run(optim, nn.Parameter, fastnn.tensor, 1, **options)
    theirs, _ = run(torch.optim, lambda v: torch.nn.Parameter(torch.tensor(v)), torch.tensor, 1, **options)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
