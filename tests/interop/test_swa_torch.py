"""Averaged models, their learning rate and their batch statistics against PyTorch's."""

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim
from fastnn.optim import swa_utils

torch = pytest.importorskip("torch")
peers = torch.optim.swa_utils

FUNCTIONS = [
    lambda module: {}, lambda module: {"multi_avg_fn": module.get_ema_multi_avg_fn(0.7)},
    lambda module: {"multi_avg_fn": module.get_swa_multi_avg_fn()}, lambda module: {"avg_fn": module.get_ema_avg_fn(0.7)},
    lambda module: {"avg_fn": module.get_swa_avg_fn()}, lambda module: {"avg_fn": lambda a, x, n: (a + x) / (1 + n)}]


def models():
    """Ours and PyTorch's, with the same values."""
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    ours = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def assert_equal_states(ours, theirs):
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name].numpy(), theirs[name].numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("functions", FUNCTIONS)
def test_averages(functions):
    rng = np.random.default_rng(0)
    ours, theirs = models()
    a, b = swa_utils.AveragedModel(ours, **functions(swa_utils)), peers.AveragedModel(theirs, **functions(peers))
    for _ in range(4):
        x = rng.standard_normal((8, 4)).astype(np.float32)
        for p, q in zip(ours.parameters(), theirs.parameters()):
            value = rng.standard_normal(p.shape).astype(np.float32)
            with fastnn.no_grad(), torch.no_grad():
                p.copy_(fastnn.tensor(value))
                q.copy_(torch.tensor(value))
        ours(fastnn.tensor(x))
        theirs(torch.tensor(x))
        a.update_parameters(ours)
        b.update_parameters(theirs)
        assert_equal_states(a, b)
    np.testing.assert_allclose(a.eval()(fastnn.tensor(x)).detach().numpy(), b.eval()(torch.tensor(x)).detach().numpy(),
                               rtol=1e-4, atol=1e-5)
    fresh = swa_utils.AveragedModel(ours, **functions(swa_utils))
    fresh.load_state_dict(b.state_dict())
    for averaged, model in ((fresh, ours), (b, theirs)):
        averaged.update_parameters(model)
    assert_equal_states(fresh, b)


def test_averages_of_buffers():
    ours, _ = models()
    averaged = swa_utils.AveragedModel(ours, use_buffers=True)
    for mean in (1.0, 2.0, 6.0):
        ours[1].running_mean.copy_(mean)
        ours[1].num_batches_tracked.copy_(int(mean))
        averaged.update_parameters(ours)
    np.testing.assert_allclose(averaged.module[1].running_mean.numpy(), 3.0, rtol=1e-6)
    assert averaged.module[1].num_batches_tracked.item() == 6 and averaged.n_averaged.item() == 3


def test_batch_statistics():
    rng = np.random.default_rng(1)
    ours, theirs = models()
    batches = [rng.standard_normal((n, 4)).astype(np.float32) for n in (8, 5, 16)]
    ours.eval()
    theirs.eval()
    swa_utils.update_bn([(fastnn.tensor(x), None) for x in batches], ours)
    peers.update_bn([(torch.tensor(x), None) for x in batches], theirs)
    assert_equal_states(ours, theirs)
    assert not ours.training and not ours[1].training and ours[1].momentum == 0.1
    swa_utils.update_bn(batches[:1], ours)
    assert ours[1].num_batches_tracked.item() == 1


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@pytest.mark.parametrize("options", [dict(swa_lr=0.05), dict(swa_lr=[0.05, 0.2], anneal_epochs=4, anneal_strategy="linear"),
                                     dict(swa_lr=0.05, anneal_epochs=0)])
def test_rates(options):
    """After another schedule, as its users have it."""
    values, chains = np.ones(3, np.float32), []
    for make, optimizers, schedules, swa in (
            (nn.Parameter, optim, optim.lr_scheduler, swa_utils),
            (torch.tensor, torch.optim, torch.optim.lr_scheduler, peers)):
        optimizer = optimizers.SGD([{"params": [make(values)]}, {"params": [make(values)], "lr": 0.5}], lr=0.1)
        chains.append((optimizer, schedules.ExponentialLR(optimizer, 0.9), swa.SWALR(optimizer, **options)))
    for k in range(20):
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer, *_ in chains]
        np.testing.assert_allclose(*rates, rtol=1e-9)
        for _, before, late in chains:
            (before if k < 5 and options.get("anneal_epochs") != 0 else late).step()


@pytest.mark.parametrize("make, error, message", [
    (lambda m: swa_utils.AveragedModel(3), TypeError, "model is a int, but must be a Module"),
    (lambda m: swa_utils.AveragedModel(m, 3), TypeError, "avg_fn is 3, but must be callable"),
    (lambda m: swa_utils.AveragedModel(m, min, max), ValueError, "must not be both"),
    (lambda m: swa_utils.AveragedModel(m).update_parameters(nn.Linear(2, 2)), ValueError, "other parameters or buffers"),
    (lambda m: swa_utils.get_ema_avg_fn(1.5), ValueError, "decay is 1.5, but must be a number from 0 to 1"),
    (lambda m: swa_utils.get_ema_multi_avg_fn(-1), ValueError, "decay is -1, but must be a number from 0 to 1")])
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make(models()[0])
