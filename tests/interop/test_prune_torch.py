"""Pruning beside PyTorch: what is left, how training goes on, names in state dicts; and what is refused."""

import copy

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim
from fastnn.nn.utils import prune

torch = pytest.importorskip("torch")
import torch.nn.utils.prune as peer_prune  # noqa: E402

SIDES = ((fastnn, prune), (torch, peer_prune))
RNG = np.random.default_rng(0)
WEIGHTS = {"0.weight": RNG.standard_normal((6, 3, 3, 3)), "0.bias": RNG.standard_normal(6), "3.weight": RNG.standard_normal((4, 24)),
           "3.bias": RNG.standard_normal(4)}
IMAGES, LABELS = RNG.standard_normal((5, 3, 4, 4)), RNG.integers(0, 4, 5)


def network(L):
    model = L.nn.Sequential(L.nn.Conv2d(3, 6, 3), L.nn.ReLU(), L.nn.Flatten(), L.nn.Linear(24, 4))
    model.double().load_state_dict({name: L.tensor(value) for name, value in WEIGHTS.items()})
    return model


WAYS = {
    "l1": lambda p, m, L: p.l1_unstructured(m[0], name="weight", amount=0.3),
    "l1-count": lambda p, m, L: p.l1_unstructured(m[3], "bias", amount=2),
    "l1-twice": lambda p, m, L: (p.l1_unstructured(m[0], "weight", 0.3), p.l1_unstructured(m[0], "weight", 0.5)),
    "l1-scores": lambda p, m, L: p.l1_unstructured(m[3], "weight", 0.25, importance_scores=L.tensor(np.arange(96.0).reshape(4, 24) + 1)),
    "ln": lambda p, m, L: p.ln_structured(m[0], name="weight", amount=0.5, n=2, dim=0),
    "ln-inputs": lambda p, m, L: p.ln_structured(m[3], "weight", amount=5, n=1, dim=-1),
    "ln-twice": lambda p, m, L: (p.ln_structured(m[0], "weight", 2, 2, 0), p.ln_structured(m[0], "weight", 0.5, 2, 0)),
    "mixed": lambda p, m, L: (p.ln_structured(m[0], "weight", 0.34, 2, 0), p.l1_unstructured(m[0], "weight", 20)),
    "mask": lambda p, m, L: p.custom_from_mask(m[3], "bias", mask=L.tensor([0, 1, 0, 1])),
    "identity": lambda p, m, L: p.identity(m[3], "weight"),
    "global": lambda p, m, L: p.global_unstructured(((m[0], "weight"), (m[3], "weight")), pruning_method=p.L1Unstructured, amount=0.4),
}


@pytest.mark.parametrize("way", WAYS)
def test_training_goes_on_as_pytorch_s(way):
    seen = []
    for L, p in SIDES:
        model = network(L)
        optimizer = L.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        WAYS[way](p, model, L)
        assert p.is_pruned(model)
        losses = []
        for _ in range(5):
            loss = L.nn.functional.cross_entropy(model(L.tensor(IMAGES)), L.tensor(LABELS))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        state = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
        for k, name in ((0, "weight"), (3, "weight"), (3, "bias")):
            if hasattr(model[k], f"{name}_mask"):
                p.remove(model[k], name)
        losses.append(L.nn.functional.cross_entropy(model(L.tensor(IMAGES)), L.tensor(LABELS)).item())
        assert not p.is_pruned(model) and sorted(model.state_dict()) == sorted(WEIGHTS)
        optimizer.step()  # still knows all parameters
        seen.append((losses, state, {name: value.detach().numpy() for name, value in model.state_dict().items()}))
    np.testing.assert_allclose(seen[0][0], seen[1][0], rtol=1e-9)
    for ours, theirs in zip(seen[0][1:], seen[1][1:]):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_random_pruning_takes_so_many():
    for L, p in SIDES:
        model = network(L)
        p.random_unstructured(model[0], "weight", amount=0.5)
        p.random_unstructured(model[0], "weight", amount=1)
        assert int((model[0].weight_mask == 0).sum()) == 82
        p.random_structured(model[3], "weight", amount=0.5, dim=0)
        assert sorted(float(row.sum()) for row in model[3].weight_mask) == [0, 0, 24, 24]
        p.global_unstructured([(model[3], "weight")], p.RandomUnstructured, amount=10)
        assert int((model[3].weight_mask == 0).sum()) == 58


def test_captured_steps_keep_zeros():
    model = network(fastnn)
    prune.l1_unstructured(model[3], "weight", 0.5)
    twin = copy.deepcopy(network(fastnn))
    prune.l1_unstructured(twin[3], "weight", 0.5)
    losses = []
    for net, run in ((model, fastnn.capture), (twin, lambda step: step)):
        optimizer = optim.SGD(net.parameters(), lr=0.05)

        def step(x, y, net=net, optimizer=optimizer):
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss
        step = run(step)
        losses.append([step(fastnn.tensor(IMAGES), fastnn.tensor(LABELS)).item() for _ in range(6)])
    assert losses[0] == losses[1]
    assert (prune.remove(model[3], "weight").weight == 0).sum() == 48


@pytest.mark.parametrize("call, said", [
    (lambda m: prune.l1_unstructured(m, "wait", 0.5), "l1_unstructured: name is 'wait', but must be a parameter of Linear"),
    (lambda m: prune.l1_unstructured(m, "weight", 1.5), "amount is 1.5, but must be a share from 0.0 to 1.0, or a number of at most 6"),
    (lambda m: prune.l1_unstructured(m, "weight", 7), "l1_unstructured: amount is 7, but must be"),
    (lambda m: prune.random_unstructured(m, "weight", 7), "random_unstructured: amount is 7, but must be"),
    (lambda m: prune.global_unstructured([(m, "weight")], lambda w: w.sum(), amount=1),
     r"pruning_method returns shape \(\) for a parameter of \(2, 3\), but must give every element a score"),
    (lambda m: prune.l1_unstructured(m, "weight", True), "amount is True, but must be"),
    (lambda m: prune.ln_structured(m, "bias", 1, 2, 0), r"the parameter has shape \(2,\), but must have two axes or more"),
    (lambda m: prune.custom_from_mask(m, "weight", fastnn.ones(2)), r"mask has shape \(2,\), but weight has \(2, 3\)"),
    (lambda m: prune.l1_unstructured(m, "weight", 1, fastnn.ones(2)), r"importance_scores has shape \(2,\)"),
    (lambda m: prune.global_unstructured([], prune.L1Unstructured, amount=1), "parameters is empty"),
    (lambda m: prune.remove(m, "weight"), "name is 'weight', but no such parameter of Linear is pruned"),
])
def test_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call(nn.Linear(3, 2))


@pytest.mark.parametrize("parameters, method, said", [
    ([nn.ReLU()], prune.L1Unstructured, r"global_unstructured: parameters is \[.*, but must hold \(module, name\)"),
    ([(nn.Linear(3, 2), "weight")], "l1", "global_unstructured: pruning_method is 'l1', but must be L1Unstructured, RandomUnstructured or"),
])
def test_what_is_no_layer_or_method_is_named(parameters, method, said):
    with pytest.raises(TypeError, match=said):
        prune.global_unstructured(parameters, method, amount=1)


def test_shares_may_be_numpy_s():
    layer = prune.l1_unstructured(nn.Linear(3, 2), "weight", np.float32(0.5))
    assert int((layer.weight_mask == 0).sum()) == 3
