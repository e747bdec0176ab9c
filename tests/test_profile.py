"""Profiles: every launch with its layer, work and threads; the model stays as it was; tables and traces agree."""

import json
import sys

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim
from fastnn.testing.checks import forced_threads
from training import classifier_step, same, weights


def training(batch=8):
    fastnn.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                          nn.Sequential(nn.Linear(64, 8), nn.ReLU()), nn.Linear(8, 3))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((batch, 1, 8, 8), dtype=np.float32), rng.integers(0, 3, batch)
    return model, classifier_step(model, optimizer), inputs


def of_op(found, name):
    return [one for one in found.launches if one.name.startswith(name)]


def test_of_what_is_picked_from_counts_what_is_picked():
    x, rows = fastnn.zeros(1000, 5), fastnn.tensor([3, 1])
    picked, = of_op(fastnn.profile(lambda x, rows: x[rows], x, rows), "index_select")
    assert picked.nbytes == 2 * 4 * 2 * 5 + 8 * 2


def test_recurrent_layers_count_the_hidden_states_products():
    layer, x = fastnn.nn.LSTM(3, 5), fastnn.randn(7, 2, 3)
    x.requires_grad = True
    found = fastnn.profile(lambda x: layer(x)[0].sum().backward(), x)
    assert [one.flops for one in of_op(found, "recurrent")] == [2 * 7 * 2 * 5 * 20] * 2


def test_launches_have_layers_and_work():
    model, step, inputs = training()
    found = fastnn.profile(step, *inputs)
    conv, = of_op(found, "conv2d_forward")
    assert conv.layer == "Sequential.0" and conv.flops == 2 * 8 * 8 * 8 * 4 * 9
    first, second = of_op(found, "linear_forward")
    assert (first.layer, second.layer) == ("Sequential.5.0", "Sequential.6")
    assert first.flops == 2 * 8 * 64 * 8 and second.flops == 2 * 8 * 8 * 3
    assert second.nbytes == 4 * (8 * 3 + 8 * 8 + 8 * 3 + 3)
    back, = of_op(found, "conv2d_backward_weight")
    assert back.layer == "Sequential.0" and back.flops == conv.flops
    assert {one.layer for one in of_op(found, "linear_backward")} == {"Sequential.5.0", "Sequential.6"}
    assert [one.layer for one in of_op(found, "cross_entropy")] == ["", ""]
    assert any(one.layer == "SGD" or "sgd" in one.name for one in found.launches)
    assert all(one.seconds > 0 and one.best > 0 and one.nbytes > 0 for one in found.launches)
    assert {one.bound for one in found.launches if not one.flops} == {"memory"}
    assert sum(found.by_layer().values()) == pytest.approx(sum(one.seconds for one in found.launches))


def test_replays_leave_the_model_as_it_was():
    model, step, inputs = training()
    captured = fastnn.capture(step)
    captured(*inputs), captured(*inputs)
    before = weights(model)
    fastnn.profile(captured, *inputs)
    assert same(weights(model), before) and captured.replays == 0
    wanted, other = training()[:2]
    for _ in range(3):
        loss = other(*map(fastnn.tensor, inputs))
    assert captured(*inputs).item() == loss.item() and same(weights(model), weights(wanted))


def test_threads_that_took_part(monkeypatch):
    monkeypatch.setattr(sys.modules["fastnn.profile"], "_machine", lambda *setting: (1.0, 1.0))  # not asked here, and slow
    x, w = fastnn.ones(256, 256), fastnn.ones(256, 256)
    with forced_threads(3):
        assert [one.threads for one in fastnn.profile(lambda x: x @ w, x).launches] == [3]
    with fastnn.num_threads(1):
        assert [one.threads for one in fastnn.profile(lambda x: x @ w, x).launches] == [1]


def test_table_and_trace(tmp_path):
    _, step, inputs = training()
    found = fastnn.profile(step, *inputs)
    table = str(found).splitlines()
    for one in found.launches:
        assert any(line.startswith(one.name) and (one.layer or "(no layer)") in line for line in table)
    found.save(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["name"] for event in events] == [one.name for one in found.launches]
    ends = [event["ts"] + event["dur"] for event in events]
    assert [event["ts"] for event in events[1:]] == pytest.approx(ends[:-1])
    assert ends[-1] == pytest.approx(1e6 * sum(one.seconds for one in found.launches))
    assert all(event["ph"] == "X" and event["args"]["threads"] >= 1 for event in events)


def test_followers_are_shown_with_their_leader():
    _, step, inputs = training()
    captured = fastnn.capture(step)
    captured(*inputs), captured(*inputs)
    assert "batch_norm_forward > relu_forward" in captured.summary() and "Sequential.5.0" in captured.summary()
    found = fastnn.profile(captured, *inputs)
    assert of_op(found, "linear_forward+relu") and of_op(found, "batch_norm_forward > relu_forward")


def test_layers_are_named_within_containers_that_do_not_run_and_after_errors():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 5)])

        def forward(self, x):
            x = self.parts[0](x)
            try:
                self.parts[1](x[:, :3])
            except ValueError:
                pass
            return self.parts[0](x)

    model = nn.Sequential(Twice(), nn.ReLU())
    found = fastnn.profile(lambda x: model(x), fastnn.ones(2, 4))
    assert [one.layer for one in of_op(found, "linear_forward")] == ["Sequential.0.parts.0"] * 2
    assert [one.layer for one in of_op(found, "relu") if one.name == "relu_forward"] in ([], ["Sequential.1"])


def test_what_cannot_be_profiled():
    with pytest.raises(TypeError, match="step is a int"):
        fastnn.profile(3)
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="cannot be captured: .*reads a tensor's value"):
        fastnn.profile(lambda x: x.sum().item(), fastnn.ones(3))
