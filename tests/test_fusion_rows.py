"""Rows that a batch picks from a data set, read where they lie by products that skip zeros (`rows_read_in_place` in csrc/fusion.c)."""

import numpy as np
import pytest
from test_gemm_sparse import fma_isas, sparse

import fastnn
import fastnn.functional as F
from fastnn import _core, nn, optim
from fastnn._core import launch
from fastnn.program import capture
from fastnn.testing.checks import forced_threads

ROWS, BATCH, STEPS = 500, 200, 6


@pytest.fixture(autouse=True)
def multiply_adds():
    """Matrix units round otherwise, and take what pays there."""
    before = _core.get_isa()
    _core.set_isa(fma_isas()[-1])
    yield
    _core.set_isa(before)


def data(width, dtype, density=0.2):
    rng = np.random.default_rng(5)
    return fastnn.tensor(sparse(rng, (ROWS, width), density, dtype)), fastnn.tensor(rng.integers(0, 10, ROWS))


def positions(seed=3):
    """Those of some batches, a half of them from the end; rows come more than once."""
    return [fastnn.tensor(np.random.default_rng(seed + k).integers(-ROWS, ROWS, BATCH)) for k in range(STEPS)]


def train(x, y, captured, width=784, hidden=50, dtype=fastnn.float32, picks=positions, look=None):
    """Losses and weights as bytes, and the program: steps of a classifier of rows that are picked."""
    fastnn.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 10)).to(dtype)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def step(rows):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x.index_select(0, rows).flatten(1)), y.index_select(0, rows))
        loss.backward()
        optimizer.step()
        return loss.detach()

    run = capture(step) if captured else step
    losses = []
    for rows in picks():
        if look:
            look(x, len(losses))
        losses.append(run(rows).numpy().tobytes())
    return losses, [p.detach().numpy().tobytes() for p in model.parameters()], run


def is_fused(program):
    return "1 rows_read_in_place" in program.summary()


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("width, hidden", [(784, 50), (1024, 37), (333, 130), (130, 300)])
def test_bits_are_those_of_rows_that_were_picked(width, hidden, dtype):
    """Widths whose rows begin on lines or anywhere; one panel of weights and several; on every ISA, for any number of threads."""
    x, y = data(width, dtype)
    for isa in fma_isas():
        _core.set_isa(isa)
        losses, weights, _ = train(x, y, False, width, hidden, x.dtype)
        for threads in (1, 2, 3):
            with forced_threads(threads):
                replayed, others, program = train(x, y, True, width, hidden, x.dtype)
            assert program.replays == STEPS - 2 and (replayed, others) == (losses, weights)
            assert is_fused(program)


def test_images_are_rows():
    x, y = data(784, np.float32)
    losses, weights, _ = train(x, y, False)
    replayed, others, program = train(x.reshape(ROWS, 1, 28, 28), y, True)
    assert is_fused(program) and (replayed, others) == (losses, weights)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.0])
def test_data_that_change_between_replays(value):
    """Dense rows, for which nothing can be skipped and the batch is copied after all; and what is not finite, times zeros."""
    def change(x, step):
        if step == 3:
            x[::3].fill_(value) if value == 1 else x[7:8].fill_(value)
        elif step == 5:
            x.fill_(0.5)

    got = []
    for captured in (False, True):
        x, y = data(784, np.float32)
        got.append(train(x, y, captured, look=change))
    assert is_fused(got[1][2]) and got[1][2].replays == STEPS - 2
    assert got[0][:2] == got[1][:2]


def test_weights_that_are_not_finite_meet_all_zeros():
    x, y = data(784, np.float32)
    weight = np.random.default_rng(0).standard_normal((50, 784)).astype(np.float32)
    weight[3, 5], weight[7, 700] = np.inf, np.nan
    weight = fastnn.tensor(weight)
    program = capture(lambda rows: launch.linear_forward(x.index_select(0, rows), weight, None))
    for rows in positions():
        want = launch.linear_forward(x.index_select(0, rows), weight, None).numpy()
        np.testing.assert_array_equal(program(rows).numpy(), want)
        assert np.isnan(want[:, [3, 7]]).any()
    assert is_fused(program)


def test_a_position_outside_ends_the_step_before_anything_is_written():
    x, y = data(784, np.float32)
    bad = positions()
    bad[4] = fastnn.tensor(np.r_[np.zeros(BATCH - 1, np.int64), ROWS])
    weights = []

    def until_it_fails():
        for rows in bad:
            weights.append(None)
            yield rows

    with pytest.raises(IndexError, match=rf"index\[{BATCH - 1}\] is {ROWS}, but must lie between -{ROWS} and {ROWS - 1}"):
        train(x, y, True, picks=until_it_fails)
    assert len(weights) == 5


@pytest.mark.parametrize("other", ["a sum", "a change of the data", "other positions"])
def test_rows_are_copied_where_others_want_them(other):
    x, _ = data(784, np.float32)
    weight = fastnn.tensor(np.random.default_rng(0).standard_normal((50, 784)).astype(np.float32))
    table = x.clone()

    def step(rows):
        picked = table.index_select(0, rows)
        if other == "a sum":
            return launch.linear_forward(picked, weight, None), picked.sum()
        if other == "a change of the data":
            launch.mul(table, fastnn.tensor(0.5), out=table)
            return launch.linear_forward(picked, table[:50], None), rows
        picked = table.index_select(1, rows)[:, :100].t()
        return launch.linear_forward(picked, fastnn.ones(50, ROWS), None), picked

    program = capture(step)
    for rows in positions():
        before = table.numpy().copy()
        got = program(rows)[0].numpy()
        if other != "other positions":
            by = fastnn.tensor(before[:50] / 2) if other == "a change of the data" else weight
            want = launch.linear_forward(fastnn.tensor(before[rows.numpy()]), by, None).numpy()
            np.testing.assert_array_equal(got, want)
    assert program.replays > 0 and not is_fused(program)


def test_profiles_count_positions_where_rows_are_left_to_their_readers():
    x, _ = data(784, np.float32)
    weight = fastnn.tensor(np.random.default_rng(0).standard_normal((50, 784)).astype(np.float32))
    found = fastnn.profile(lambda rows: launch.linear_forward(x.index_select(0, rows), weight, None), positions()[0])
    assert {one.name: one.nbytes for one in found.launches}["index_select+late"] == 8 * BATCH


@pytest.mark.parametrize("width", [1, 2])
def test_gradients_of_few_columns(width):
    """Rows of one element, which only the weights' gradient reads."""
    x, _ = data(width, np.float32)
    rng = np.random.default_rng(1)
    dy, rows = fastnn.tensor(rng.standard_normal((1024, 512)).astype(np.float32)), fastnn.tensor(rng.integers(0, ROWS, 1024))

    def step(rows):
        return launch.linear_backward_weight(dy, x.index_select(0, rows))

    want = step(rows).numpy()
    program = capture(step)
    for _ in range(4):
        np.testing.assert_array_equal(program(rows).numpy(), want)
    assert is_fused(program)
