"""Optimisers against PyTorch's: ten steps from the same gradients, and its state dicts."""

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim

torch = pytest.importorskip("torch")

CASES = [
    ("SGD", dict(lr=0.1)), ("SGD", dict(lr=0.1, momentum=0.9)),
    ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.2, weight_decay=0.01)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, maximize=True)), ("Adam", dict(lr=0.01)),
    ("Adam", dict(lr=0.01, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1)), ("Adam", dict(lr=0.01, maximize=True)),
    ("AdamW", dict(lr=0.01, weight_decay=0.1)), ("AdamW", dict(lr=0.01)),
    ("Adagrad", dict(lr=0.1)),
    ("Adagrad", dict(lr=0.1, lr_decay=0.1, weight_decay=0.01, initial_accumulator_value=0.5)),
    ("Adagrad", dict(lr=0.1, maximize=True)), ("RMSprop", dict(lr=0.01)),
    ("RMSprop", dict(lr=0.01, alpha=0.9, momentum=0.8)),
    ("RMSprop", dict(lr=0.01, centered=True, eps=1e-3)),
    ("RMSprop", dict(lr=0.01, centered=True, momentum=0.5, eps=1e-2, weight_decay=0.1, maximize=True)),
    ("Adadelta", dict()), ("Adadelta", dict(lr=0.5, rho=0.8, eps=1e-4, weight_decay=0.1, maximize=True)),
    ("NAdam", dict()), ("NAdam", dict(lr=0.01, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1, momentum_decay=0.1)),
    ("NAdam", dict(weight_decay=0.1, decoupled_weight_decay=True)), ("RAdam", dict(lr=0.01)),
    ("RAdam", dict(lr=0.01, betas=(0.8, 0.9), eps=1e-4, weight_decay=0.1)),
    ("RAdam", dict(lr=0.01, weight_decay=0.1, decoupled_weight_decay=True, maximize=True)),
    ("NAdam", dict(weight_decay=0.1, maximize=True)), ("Adam", dict(lr=0.01, betas=(0.5, 0.5), amsgrad=True)),
    ("Adam", dict(lr=0.01, amsgrad=True, weight_decay=0.1, maximize=True)),
    ("Adam", dict(lr=0.01, weight_decay=0.1, decoupled_weight_decay=True)),
    ("AdamW", dict(lr=0.01, betas=(0.5, 0.5), amsgrad=True, maximize=True)), ("Adamax", dict()),
    ("Adamax", dict(lr=0.05, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1, maximize=True)), ("ASGD", dict()),
    ("ASGD", dict(lr=0.1, lambd=0.2, alpha=0.5, t0=3, weight_decay=0.1, maximize=True)), ("Rprop", dict()),
    ("Rprop", dict(lr=0.1, etas=(0.3, 1.5), step_sizes=(0.05, 0.2), maximize=True)), ("Adafactor", dict()),
    ("Adafactor", dict(lr=0.5, beta2_decay=-0.3, eps=(0.5, 0.1), d=1.5, weight_decay=0.1, maximize=True))]


@pytest.fixture(autouse=True)
def numbers_in_full(request):
    """PyTorch's step-wise numbers in float64 where the parameters are."""
    before = torch.get_default_dtype()
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("dtype") is np.float64:
        torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def both(name, options, dtype, rng):
    values = [rng.standard_normal(s).astype(dtype) for s in ((33, 17), (5,), (4, 3, 2, 2))]
    ours = [nn.Parameter(v.copy()) for v in values]
    theirs = [torch.nn.Parameter(torch.tensor(v)) for v in values]
    return ours, theirs, getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)


def steps(count, rng, dtype, ours, theirs, our_optimiser, their_optimiser):
    for _ in range(count):
        for p, q in zip(ours, theirs):
            g = rng.standard_normal(p.shape).astype(dtype)
            p.grad, q.grad = fastnn.tensor(g), torch.tensor(g)
        our_optimiser.step()
        their_optimiser.step()
    for p, q in zip(ours, theirs):
        # Theirs keeps the product of NAdam's momenta in float32.
        atol = 1e-9 if "mu_product" in our_optimiser.state[ours[0]] else 0
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=8 * np.finfo(dtype).eps,
                                   atol=atol + 4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name, options", CASES)
def test_ten_steps(name, options, dtype):
    rng = np.random.default_rng(1)
    steps(10, rng, dtype, *both(name, options, dtype, rng))


@pytest.mark.parametrize("name, options", CASES)
def test_state_dicts_go_across(name, options):
    rng = np.random.default_rng(2)
    ours, theirs, our_optimiser, their_optimiser = both(name, options, np.float32, rng)
    steps(3, rng, np.float32, ours, theirs, our_optimiser, their_optimiser)
    fresh = getattr(optim, name)(ours, lr=5.0)
    fresh.load_state_dict(their_optimiser.state_dict())
    steps(3, rng, np.float32, ours, theirs, fresh, their_optimiser)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [dict(), dict(lr=0.1, momentum=0.5, nesterov=False, weight_decay=0.3),
                                     dict(ns_coefficients=(1.5, -0.5, 0.0), ns_steps=3, eps=10.0),
                                     dict(lr=0.1, adjust_lr_fn="match_rms_adamw"), dict(adjust_lr_fn="original")])
def test_muon(options, dtype, monkeypatch):
    """PyTorch's with its products in the parameters' type, as ours are."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())
    rng = np.random.default_rng(3)
    values = [rng.standard_normal(s).astype(dtype) for s in ((33, 17), (5, 20), (6, 6))]
    ours, theirs = [nn.Parameter(v.copy()) for v in values], [torch.nn.Parameter(torch.tensor(v)) for v in values]
    our_optimiser, their_optimiser = optim.Muon(ours, **options), torch.optim.Muon(theirs, **options)
    for count in (3, 3):  # the second time from PyTorch's state
        for _ in range(count):
            for p, q in zip(ours, theirs):
                g = rng.standard_normal(p.shape).astype(dtype)
                p.grad, q.grad = fastnn.tensor(g), torch.tensor(g)
            our_optimiser.step()
            their_optimiser.step()
        for p, q in zip(ours, theirs):
            np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=0, atol=100 * np.finfo(dtype).eps)
        our_optimiser = optim.Muon(ours)
        our_optimiser.load_state_dict(their_optimiser.state_dict())
