"""Fusion rules: each is applied where it should, changes no bit, writes nothing lasting before a call that may fail."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn, optim
from fastnn._core import launch
from fastnn.program import capture
from fastnn.testing.checks import forced_threads
from training import classifier_step, images, steps


class ResidualBlock(nn.Module):
    """Convolution, normalisation, the input added, ReLU."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)) + x)


NETWORKS = {
    "update behind linear's weight gradient": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 300)), 1),
    "few rows of a weight gradient": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 5)), 1),
    "update behind a convolution's weight gradient": (lambda: nn.Sequential(nn.Conv2d(3, 20, 3), nn.Flatten()), 1),
    "ReLU's gradient behind pooling's": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()), 2),
    "ReLU's gradient before pooling, behind a linear layer's": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(100, 7)), 1),
    "ReLU's gradient behind a convolution's": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(),
                              nn.Conv2d(5, 2, 3), nn.Flatten()), 3),
    "ReLU's gradient before overlapping pooling's": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), nn.Conv2d(4, 2, 3), nn.Flatten()), 1),
    "sum and ReLU behind normalisation": (lambda: nn.Sequential(ResidualBlock(), ResidualBlock(), nn.Flatten()), 4),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_elementwise_calls_run_behind_others_and_change_no_bit(name, threads):
    make, least = NETWORKS[name]

    def train(captured):
        fastnn.manual_seed(0)
        return steps(make(), captured, [images(seed=k) for k in range(6)], 6)

    with forced_threads(threads):
        losses, weights, _ = train(False)
        replayed, others, program = train(True)
    assert program.obstacle is None and program.replays == 4
    counts = [int(line.split()[1]) for line in program.summary().splitlines() if "elementwise_behind" in line]
    assert counts and counts[0] >= least
    assert replayed == losses and others == weights


def test_relu_takes_its_mask_from_the_pooled_map():
    attributes = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "ceil_mode": 0}

    def step(x):
        y = launch.relu_forward(x)
        pooled, argmax = launch.max_pool2d_forward(y, **attributes)
        dx = launch.relu_backward(launch.max_pool2d_backward(launch.exp(pooled), argmax, input=(12, 12), **attributes), y)
        return launch.add(dx, x)

    program = capture(step)
    for seed in range(5):
        x = images(seed=seed)
        np.testing.assert_array_equal(program(x).numpy(), step(x).numpy())
    assert "1 relu_gradient_before_pooling" in program.summary()


def test_relu_takes_its_mask_from_the_map_that_was_flattened():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(100, 7))
    program = steps(model, True, [images(seed=k) for k in range(4)], 4)[2]
    assert "1 relu_gradient_before_pooling" in program.summary()
    assert "linear_backward_input > relu_backward" in program.summary()


@pytest.mark.parametrize("threads", [1, 3])
def test_sequences_are_fused_as_maps_of_one_row(threads):
    def train(captured):
        fastnn.manual_seed(0)
        model = nn.Sequential(nn.Conv1d(3, 8, 5), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 9, 3), nn.ReLU(),
                              nn.MaxPool1d(2), nn.Conv1d(9, 4, 3), nn.ReLU(), nn.Dropout(0.25), nn.Flatten(), nn.Linear(4 * 7, 3))
        return steps(model, captured, [fastnn.tensor(images(4, 3, 8, seed=k).numpy().reshape(4, 3, 64)[..., :46]) for k in range(5)], 5)

    with forced_threads(threads):
        losses, weights, _ = train(False)
        replayed, others, program = train(True)
    assert program.obstacle is None and program.replays == 3
    assert replayed == losses and others == weights
    summary = program.summary()
    for fused in ("2 activation_into_product", "2 relu_gradient_before_pooling", "batch_norm_forward > relu_forward",
                  "conv2d_backward_input > relu_backward"):
        assert fused in summary, summary


def test_no_lasting_write_moves_before_a_call_that_may_fail():
    table, w = fastnn.tensor(np.arange(12.0).reshape(4, 3)), fastnn.ones(300, 40)
    dy, x = fastnn.ones(8, 300), fastnn.ones(8, 40)

    def step(index):
        launch.sub(w, launch.linear_backward_weight(dy, x), out=w)
        return launch.index_select(table, index, axis=0)

    program = capture(step)
    for _ in range(3):
        program(fastnn.tensor([1, 2]))
    assert program.replays == 1
    before = w.numpy().copy()
    with pytest.raises(IndexError, match="index_select"):
        program(fastnn.tensor([1, 99]))
    np.testing.assert_array_equal(w.numpy(), before)


def test_a_result_that_others_read_is_kept():
    x = images()

    def step(x):
        y = launch.square(x)
        z = launch.add(launch.neg(y), x)
        return launch.add(launch.mul(y, y), z)

    program = capture(step)
    expected = step(x).numpy().copy()
    for _ in range(4):
        np.testing.assert_array_equal(program(x).numpy(), expected)
    assert program.replays == 2 and "elementwise_behind" in program.summary()


def test_an_update_in_place_keeps_what_it_reads():
    w, rate = fastnn.ones(6), fastnn.tensor(0.5)

    def step(x):
        launch.sub(w, launch.mul(x, rate), out=w)

    program = capture(step)
    for k in range(5):
        program(fastnn.full(6, float(k)))
    np.testing.assert_array_equal(w.numpy(), np.full(6, 1 - 0.5 * 10, np.float32))


def test_comparisons_behind_sums_keep_their_own_memory():
    """A bool has a quarter of a float32's bytes: it cannot take its place."""
    x = fastnn.tensor(np.random.default_rng(5).standard_normal(30_000), dtype=fastnn.float32)

    def step(x):
        above = (x + x) > 1.0
        return above, fastnn.where(above, x * 2.0, x) + 1.0

    expected = [t.numpy().copy() for t in step(x)]
    program = capture(step)
    for _ in range(4):
        for actual, wanted in zip(program(x), expected):
            np.testing.assert_array_equal(actual.numpy(), wanted)
    assert "add > gt" in program.summary()


def test_a_chain_of_elementwise_calls_needs_one_buffer():
    x = fastnn.tensor(np.linspace(-2, 2, 1 << 16), dtype=fastnn.float32)

    def step(x):
        y = x
        for k in range(8):
            y = F.relu(y + x) * 0.5
        return y.sum()

    expected = step(x).item()
    program = capture(step)
    for _ in range(4):
        assert program(x).item() == expected
    planned, _ = program.prepared(x)
    assert planned.fusions()["elementwise_behind"] > 10
    assert planned.arena_bytes < 2 * x.nbytes


def trained(model, optimizer, batches, sums=False):
    """Losses (or sums of gradients) and weights of captured steps, and the program."""

    def step(x):
        loss = (model(x) ** 2).mean()
        loss.backward()
        result = model.weight.grad.sum() if sums else loss
        optimizer.step()
        optimizer.zero_grad()
        return result

    program = capture(step)
    return [program(x).item() for x in batches], [p.detach().numpy().copy() for p in model.parameters()], program


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("inputs, outputs", [(5, 7), (300, 41), (1500, 30), (4100, 3)])
def test_gradients_that_only_updates_want_have_no_memory(inputs, outputs, threads):
    """Whole rows at a time, and parts of rows."""
    rng = np.random.default_rng(inputs)
    batches = [fastnn.tensor(rng.standard_normal((9, inputs)), dtype=fastnn.float32) for _ in range(5)]
    for options in ({"lr": 1e-4, "momentum": 0.9}, {"lr": 1e-3}):
        fastnn.manual_seed(0)
        model = nn.Linear(inputs, outputs)
        with forced_threads(threads):
            losses, weights, program = trained(model, optim.SGD(model.parameters(), **options), batches)
            assert "1 result_passed_on" in program.summary() and program.replays == 3
        fastnn.manual_seed(0)
        model = nn.Linear(inputs, outputs)
        optimizer, expected = optim.SGD(model.parameters(), **options), []
        for x in batches:
            loss = (model(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            expected.append(loss.item())
        assert losses == expected
        for actual, wanted in zip(weights, model.parameters()):
            np.testing.assert_array_equal(actual, wanted.detach().numpy())


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("squared", [lambda w: w * w, lambda w: w ** 2])
def test_a_penalty_on_weights_joins_their_gradient(squared, threads):
    """The gradient of a sum is one element, repeated: what it meets is dense still, and runs between that of weights and the update."""
    x = fastnn.tensor(np.random.default_rng(3).standard_normal((20, 150)), dtype=fastnn.float32)

    def train(captured):
        fastnn.manual_seed(0)
        model = nn.Linear(150, 40)
        optimizer = optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)

        def step(x):
            optimizer.zero_grad()
            loss = (model(x) ** 2).mean() + 0.01 * squared(model.weight).sum()
            loss.backward()
            optimizer.step()
            return loss

        program = capture(step) if captured else step
        return [program(x).item() for _ in range(5)], model.weight.detach().numpy(), program

    losses, weight, _ = train(captured=False)
    with forced_threads(threads):
        replayed, other, program = train(captured=True)
    assert losses == replayed
    np.testing.assert_array_equal(weight, other)
    assert "linear_backward_weight > square_backward > add > sgd_momentum_step" in program.summary()


@pytest.mark.parametrize("threads", [1, 3])
def test_who_reads_other_elements_than_were_made_beside_it_waits_for_all_of_them(threads):
    """Between a call and the one that would follow it another makes what that one reads too: one element of it, or neighbours."""
    x, z = (fastnn.tensor(np.random.default_rng(k).standard_normal((64, 1000)), dtype=fastnn.float32) for k in (0, 1))
    room = fastnn.zeros(2, 64, 1000)

    def one_element(x, z):
        return launch.add(launch.mul(x, x), launch.mul(z, z)[0, 5])

    def neighbours(x, z):
        made = launch.mul(x, x)
        launch.mul(z, z, out=room.flatten()[:64000].reshape(64, 1000))
        return launch.add(made, room.flatten()[1:64001].reshape(64, 1000))

    for step in (one_element, neighbours):
        want = step(x, z).numpy()
        program = capture(step)
        with forced_threads(threads):
            for _ in range(5):
                np.testing.assert_array_equal(program(x, z).numpy(), want)
        assert program.replays == 3 and "elementwise_behind" not in program.summary()


@pytest.mark.parametrize("rows, sums", [(9, True), (1100, False)])  # 1100: a sum in two blocks of k
def test_gradients_that_others_want_or_that_need_several_blocks_keep_their_memory(rows, sums):
    fastnn.manual_seed(0)
    model = nn.Linear(40, 30)
    x = fastnn.tensor(np.random.default_rng(1).standard_normal((rows, 40)), dtype=fastnn.float32)
    results, _, program = trained(model, optim.SGD(model.parameters(), lr=0.01), [x] * 4, sums)
    assert "result_passed_on" not in program.summary() and program.replays == 2
    assert len(set(results)) == 4 and np.isfinite(results).all()


def test_counts_go_before_the_gradients_of_their_updates():
    """Adam's step counts and batch norm's counts of batches leave no update without its gradient; the bits are eager's."""
    rng = np.random.default_rng(7)
    x, y = fastnn.tensor(rng.standard_normal((8, 3, 6, 6)), dtype=fastnn.float32), fastnn.tensor(rng.integers(0, 4, 8))

    def weights(captured):
        fastnn.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(80, 4))
        optimizer = optim.Adam(model.parameters(), lr=0.01)

        step = classifier_step(model, optimizer)
        program = capture(step) if captured else step
        for _ in range(5):
            program(x, y)
        return [t.numpy().copy() for t in model.state_dict().values()], program

    expected, _ = weights(captured=False)
    found, program = weights(captured=True)
    for a, b in zip(expected, found):
        np.testing.assert_array_equal(a, b)
    assert "6 counts_before_gradients" in program.summary()
    assert "conv2d_backward_weight > adam_step" in program.summary() and "linear_backward_weight > adam_step" in program.summary()


@pytest.mark.parametrize("kind", ["integer division", "samples of fractional pooling"])
def test_counts_stay_behind_calls_that_may_fail(kind):
    """What such a call refuses leaves the step count where it was."""
    model = nn.Linear(4, 3)
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step(x, other):
        if kind == "integer division":
            extra = fastnn.tensor([6, 4], dtype=fastnn.int32) // other
        else:
            extra = launch.fractional_max_pool2d(x.detach().reshape(1, 1, 4, 4), other, kernel=(2, 2), output=(3, 3))[0]
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss, extra

    program = capture(step)
    x = fastnn.randn(4, 4)
    if kind == "integer division":
        good, bad = fastnn.tensor([2, 2], dtype=fastnn.int32), fastnn.tensor([2, 0], dtype=fastnn.int32)
    else:
        good, bad = fastnn.full((1, 1, 2), 0.5), fastnn.full((1, 1, 2), 1.5)
    for _ in range(4):
        program(x, good)
    assert program.obstacle is None and program.replays == 2 and "counts_before_gradients" in program.summary()
    state = optimizer.state[model.weight]
    before = float(state["step"])
    with pytest.raises(ValueError):
        program(x, bad)
    assert float(state["step"]) == before
