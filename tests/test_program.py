"""Captured programs: replays equal eager runs bit by bit, and whatever cannot be replayed is noticed."""

import copy
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import _core, nn, optim
from fastnn._core import launch, record
from fastnn.program import capture


def _relu_backward(node, dy):
    return launch.relu_backward(dy, *node.saved)


def relu(x):
    y = launch.relu_forward(x)
    return record(_relu_backward, (x,), y, (y,))


def test_replay_equals_eager_and_follows_inputs():
    w = fastnn.tensor(np.linspace(-1, 1, 12).reshape(3, 4), dtype=fastnn.float32, requires_grad=True)
    rate = fastnn.tensor(0.5)

    def step(x):
        y = relu(w.T.reshape(3, 4))
        y.backward(x)
        with fastnn.no_grad():
            launch.sub(w, launch.mul(w.grad, rate), out=w)
        w.grad = None
        return launch.add(y.detach(), x)

    inputs = [fastnn.tensor(np.random.default_rng(k).standard_normal((3, 4)), dtype=fastnn.float32) for k in range(8)]
    start = w.detach().clone()

    def run(function):
        w.detach().copy_(start)
        results = [function(x).numpy().copy() for x in inputs]
        return results + [w.detach().numpy().copy()]

    expected = run(step)
    program = capture(step)
    for actual, wanted in zip(run(program), expected):
        np.testing.assert_array_equal(actual, wanted)
    assert program.replays == 6 and program.obstacle is None
    outputs = [program(x) for x in inputs[:2]]
    assert not outputs[0].shares_storage(outputs[1])


def test_what_python_reads_cannot_be_captured():
    def step(x):
        return launch.add(x, x) if x.numpy()[0] > 0 else launch.neg(x)

    program = capture(step)
    program(fastnn.ones(3))
    with pytest.warns(RuntimeWarning, match=rf"reads a tensor's values \({__file__}:"):
        program(fastnn.ones(3))
    np.testing.assert_array_equal(program(-fastnn.ones(3).numpy()).numpy(), np.ones(3))


def test_other_shapes_are_recorded_anew_and_an_error_leaves_the_program_usable():
    table = fastnn.tensor(np.arange(12.0).reshape(4, 3))
    program = capture(lambda k: launch.index_select(table, k, axis=0))
    for size in (2, 2, 2, 3, 3, 2):
        k = fastnn.tensor(np.arange(size))
        np.testing.assert_array_equal(program(k).numpy(), table.numpy()[:size])
    assert program.replays == 3
    with pytest.raises(IndexError, match="index_select"):
        program(fastnn.tensor([0, 9]))
    np.testing.assert_array_equal(program(fastnn.tensor([3, 3])).numpy(), table.numpy()[[3, 3]])


def test_a_parameter_given_other_memory_is_noticed():
    w = fastnn.ones(3, requires_grad=True)
    program = capture(lambda x: launch.add(x, w))
    x = fastnn.ones(3)
    with fastnn.no_grad():
        for _ in range(3):
            program(x)
        w.set_data(fastnn.full(3, 5.0))
        np.testing.assert_array_equal(program(x).numpy(), [6, 6, 6])


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_stay_awake_and_change_no_bit(threads):
    from fastnn.testing.checks import forced_threads
    x = fastnn.tensor(np.random.default_rng(0).standard_normal(200_000), dtype=fastnn.float32)
    program = capture(lambda x: launch.sum(launch.mul(relu(launch.add(x, x)), x), axes=1, keepdim=0, divisor=1.0))
    expected = program(x).item()
    with forced_threads(threads):
        for _ in range(4):
            assert program(x).item() == expected
        assert program.replays == 3 or threads == 1
        if threads > 1:
            assert _core.last_workers() == threads


def test_a_program_in_doubt_tries_all_threads_and_one():
    """Its first replays are four on all threads and four on one; both give the same bits."""
    rng = np.random.default_rng(0)
    x, w = (fastnn.tensor(rng.standard_normal(shape), dtype=fastnn.float32) for shape in ((128, 128), (128, 128)))
    step = capture(lambda x: relu(launch.linear_forward(relu(launch.linear_forward(x, w)), w)))
    with fastnn.num_threads(2):
        program, tensors = step.prepared(x)  # the first replay
        runs = [program.time(tensors) for _ in range(7)]
    assert [max(workers) for _, _, workers in runs] == 3 * [2] + 4 * [1]
    for (y,), _, _ in runs:
        np.testing.assert_array_equal(y.numpy(), runs[0][0][0].numpy())


def test_many_runs_equal_single_ones():
    table = fastnn.tensor(np.random.default_rng(1).standard_normal((50, 3)), dtype=fastnn.float32)
    total = fastnn.zeros(3)

    def step(rows):
        picked = launch.sum(launch.index_select(table, rows, axis=0), axes=1, keepdim=0, divisor=1.0)
        launch.add(launch.mul(total, fastnn.tensor(0.5)), picked, out=total)

    order = fastnn.tensor(np.random.default_rng(2).permutation(50))
    for k in range(0, 50, 7):
        step(order[k:k + 7])
    expected = total.numpy().copy()
    program = capture(step)
    for _ in range(3):
        total.zero_()
        assert list(program.run_many(order, 7))[-1] == 50
        np.testing.assert_array_equal(total.numpy(), expected)
    assert program.replays >= 14
    with pytest.raises(IndexError, match="batch 1: index_select"):
        list(program.run_many(fastnn.tensor([0] * 7 + [99] * 7 + [0] * 7), 7))


def test_a_step_that_depends_on_python_numbers_is_found_out():
    calls = []

    def step(x):
        calls.append(1)
        return launch.mul(x, fastnn.tensor(float(len(calls))))

    program = capture(step, verify=True)
    x = fastnn.ones(2)
    program(x), program(x)
    with pytest.warns(RuntimeWarning, match="other bits than an eager run"):
        np.testing.assert_array_equal(program(x).numpy(), [3, 3])
    np.testing.assert_array_equal(program(x).numpy(), [4, 4])


def test_gradients_that_stay_are_verified_too():
    w = fastnn.ones(3, requires_grad=True)

    def step(x):
        w.grad = None
        y = relu(w.reshape(3))
        y.backward(x)
        return y

    program = capture(step, verify=True)
    for k in range(6):
        x = fastnn.full(3, float(k))
        program(x)
        np.testing.assert_array_equal(w.grad.numpy(), x.numpy())
    assert program.replays == 4 and program.obstacle is None


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.Lion(p, lr=0.01),
                                  lambda p: optim.Adam(p, lr=0.01)], ids=["SGD", "Lion", "Adam"])
def test_state_that_comes_to_be_later_is_kept(make, verify):
    """A frozen layer is thawed: its momentum is made in the step that is recorded then, and must not be made anew by replays."""
    def trained(wrap):
        fastnn.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = make(model.parameters())
        model[0].requires_grad_(False)

        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run, rng = wrap(step), np.random.default_rng(0)
        with pytest.raises(IndexError):  # what a first call that fails has not made comes to be later, too
            run(np.ones((5, 4), np.float32), np.full(5, 3))
        for k in range(12):
            if k == 4:
                model[0].requires_grad_(True)
            run(rng.standard_normal((5, 4)).astype(np.float32), rng.integers(0, 3, 5))
        return run, [p.detach().numpy().tobytes() for p in model.parameters()]

    captured, bits = trained(lambda step: capture(step, verify))
    assert bits == trained(lambda step: lambda x, y: step(fastnn.tensor(x), fastnn.tensor(y)))[1]
    assert captured.obstacle is None and captured.replays == 8


def test_named_tuples_are_results_too():
    program = capture(lambda x: {"max": x.max(1)})
    for k in range(4):
        x = fastnn.randn(3, 4)
        found = program(x)["max"]
        assert found.values.equal(x.max(1).values) and found.indices.equal(x.max(1).indices)
    assert program.replays == 2


def test_arguments_may_be_tuples_lists_and_dicts_of_tensors():
    """Each batch is made anew, as a loader makes it: what counts is what its tensors are like."""
    def step(batch, scale):
        x, y = batch["pair"]
        return (x * y).sum() * scale[0] + batch["more"][0].sum()

    program, rng = capture(step), np.random.default_rng(0)
    for k in range(12):
        x, y, z = (rng.standard_normal((3 + k % 2, 4)).astype(np.float32) for _ in range(3))
        batch = {"pair": (fastnn.tensor(x), fastnn.tensor(y)), "more": [z]}
        assert program(batch, [2.0]).item() == step(batch | {"more": [fastnn.tensor(z)]}, [2.0]).item()
    assert program.replays == 9 and program.obstacle is None
    assert program({"pair": (fastnn.tensor(x), fastnn.tensor(y)), "more": [z]}, [3.0]).item() != program(batch, [2.0]).item()


def test_constants_that_cannot_be_hashed_are_no_arguments():
    program = capture(lambda x, axes: x.sum(*axes))
    for wrong in ({0, 1}, ({0, 1},)):
        with pytest.raises(TypeError, match="the step is given Tensor, .* but takes tensors, arrays, constants"):
            program(fastnn.ones(2, 2), wrong)
    assert [program(fastnn.ones(2, 2), [(0, 1)]).item() for _ in range(3)] == [4.0] * 3


def test_graphs_of_results_do_not_count_as_other_bits():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    program = capture(lambda x: model(x).softmax(1), verify=True)
    for _ in range(6):
        x = fastnn.randn(5, 4)
        np.testing.assert_array_equal(program(x).numpy() if program.replays else program(x).detach().numpy(),
                                      model(x).softmax(1).detach().numpy())
    assert program.obstacle is None and program.replays == 4


@pytest.mark.parametrize("verify", [False, True])
def test_what_a_step_leaves_is_that_of_the_last_call(verify):
    kept = {}

    def step(x):
        kept["y"] = (x * 2).relu()
        return kept["y"].sum()

    program = capture(step, verify)
    for k in range(9):
        program(fastnn.full((3,), float(k)))
        assert kept["y"].tolist() == [2.0 * k] * 3
    assert program.obstacle is None and program.replays


def test_gradients_are_taken_over_without_a_copy():
    layer = fastnn.nn.Linear(3, 2)

    def step(x):
        fastnn.functional.mse_loss(layer(x), fastnn.zeros(4, 2)).backward()
        layer.zero_grad()

    program = capture(step)
    for _ in range(3):
        program(fastnn.ones(4, 3))
    assert program.replays == 1 and "contiguous" not in program.summary()


def test_a_program_wants_the_inputs_it_was_recorded_with():
    x = fastnn.ones(4)
    program = _core.Program()
    program.begin([x])
    y = x + 1.0
    program.stop()
    assert program.end([y])
    program.set_arena(_core.new_arena(program.arena_bytes))
    assert program.run([x])[0].tolist() == [2.0] * 4
    for wrong in ([], [x, x]):
        with pytest.raises(ValueError, match="takes 1 inputs"):
            program.run(wrong)
    with pytest.raises(ValueError, match="runs is 0"):
        program.run_some(x, 0)


def classifier(seed):
    """A step of a small network with dropout and an optimiser that has state, its inputs, and what it leaves behind."""
    fastnn.manual_seed(seed)
    model = fastnn.nn.Sequential(fastnn.nn.Linear(6, 16), fastnn.nn.ReLU(), fastnn.nn.Dropout(0.3), fastnn.nn.Linear(16, 4))
    optimizer = fastnn.optim.Adam(model.parameters(), lr=0.1)

    def step(x, y):
        loss = fastnn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    def left():
        state = [t.numpy().copy() for values in optimizer.state.values() for t in values.values()]
        return [p.detach().numpy().copy() for p in model.parameters()] + state

    x = fastnn.tensor(np.random.default_rng(seed).standard_normal((8, 6)), dtype=fastnn.float32)
    return step, (x, fastnn.tensor(np.arange(8) % 4)), left


def assert_same(actual, wanted):
    assert len(actual) == len(wanted)
    for a, w in zip(actual, wanted):
        np.testing.assert_array_equal(a, w)


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_first_calls_leave_what_eager_ones_leave(calls):
    eager, inputs, wanted = classifier(0)
    expected = [eager(*inputs).item() for _ in range(calls)]
    wanted = wanted()
    step, inputs, left = classifier(0)
    program = capture(step)
    assert [program(*inputs).item() for _ in range(calls)] == expected
    assert_same(left(), wanted)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_call_that_fails_leaves_everything_as_it_was(failing):
    step, inputs, wanted = classifier(1)
    program = capture(step)
    for _ in range(4):
        program(*inputs)
    step, inputs, left = classifier(1)
    program = capture(step)
    wrong = fastnn.tensor(np.full(8, 4))
    for call in range(5):
        if call != failing:
            program(*inputs)
            continue
        with pytest.raises(IndexError, match="cross_entropy_forward: target"):
            program(inputs[0], wrong)
    parameters, state = left()[:4], left()[4:]
    assert_same(parameters, wanted()[:4])
    moments = [a for a in state if a.ndim]
    assert_same(moments, [a for a in wanted()[4:] if a.ndim])


def test_values_read_or_written_within_the_first_calls_are_up_to_date():
    def run(make):
        step, inputs, left = classifier(2)
        seen = []
        scale = fastnn.tensor([1.0, 2.0])

        def curious(x, y):
            loss = step(x, y)
            seen.append(loss.item())
            doubled = launch.mul(scale, scale)
            scale.numpy()[:] = 3.0
            seen.append(step(x, y).item() + doubled.numpy().sum())
            return loss

        function = make(curious)
        for _ in range(3):
            function(*inputs)
        return seen, left()

    expected, wanted = run(lambda step: step)
    with pytest.warns(RuntimeWarning, match="reads a tensor's value"):
        seen, left = run(capture)
    assert seen == expected
    assert_same(left, wanted)


def test_what_came_before_an_error_of_the_step_has_happened():
    total = fastnn.zeros(3)

    def step(x):
        launch.add(total, x, out=total)
        return launch.add(total, fastnn.ones(4))

    program = capture(step)
    for call in range(1, 4):
        with pytest.raises(ValueError, match="add"):
            program(fastnn.ones(3))
        assert total.tolist() == [float(call)] * 3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_first_calls_take_no_more_memory_than_replays():
    """Each of 24 results has 8 MB; the plan needs two of them at a time. Eagerly all are alive until backward."""
    script = """
import fastnn, re
from fastnn._core import launch
x = fastnn.ones(1 << 21)
def resident(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
def step(x):
    made = [x]
    for k in range(24):
        made.append(launch.add(made[-1], x))
    return launch.sum(made[-1], axes=1, keepdim=0, divisor=1.0)
program = fastnn.capture(step)
program(fastnn.ones(4)), program(fastnn.ones(4))
level = resident("VmRSS")
for _ in range(3):
    assert program(x).item() == 25 * 2**21
print(resident("VmHWM") - level)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 60, f"{done.stdout} MB more"


def test_first_calls_show_python_what_eager_ones_do():
    weight, buffer = fastnn.ones(3), np.ones(3, np.float32)
    view, seen = weight.numpy(), []

    def step(x):
        launch.add(weight, x, out=weight)  # in place, under a NumPy view
        seen.append(view.copy())
        own = fastnn.from_numpy(buffer) * x
        buffer[:] = 7  # after its use
        fastnn.rand(1)
        buffer[:] = 1
        return own

    captured, x = fastnn.capture(step), fastnn.tensor(np.full(3, 2, np.float32))
    for call in range(2):
        own = captured(x)
        np.testing.assert_array_equal(seen[-1], np.full(3, 3 + 2 * call))
        np.testing.assert_array_equal(own.numpy(), np.full(3, 2))


def test_a_networks_first_call_is_put_off():
    """Nothing in a usual step meets memory that Python sees: its first call has the plan of one made once."""
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(2)]
    model = nn.Sequential(*layers)
    optimizer = optim.Adam(model.parameters())
    put_off = []

    def step(x, y):
        loss = F.cross_entropy(model(x) + 1, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        put_off.append(_core.is_put_off())
        return loss

    captured = capture(step)
    x, y = fastnn.from_numpy(np.zeros((2, 3, 8, 8), np.float32)), fastnn.from_numpy(np.zeros(2, np.int64))
    captured(x, y), captured(x, y)
    assert put_off == [True, True]


def test_arguments_that_are_one_tensor_have_a_program_of_their_own():
    captured = capture(lambda a, b: a + 2 * b)
    x, y = fastnn.tensor([1.0, 2.0]), fastnn.tensor([10.0, 20.0])
    for _ in range(3):
        assert captured(x, x).tolist() == [3, 6]
        assert captured(x, y).tolist() == [21, 42]
    assert captured.replays == 3 and captured.obstacle is None


def test_an_argument_may_be_memory_that_the_step_changes():
    total = fastnn.zeros(2)

    def step(x):
        launch.add(total, fastnn.ones(2), out=total)
        return 2 * x

    captured, x = capture(step), fastnn.zeros(2)
    for _ in range(3):
        captured(x)
    assert captured(total).tolist() == [8, 8] and captured(x).tolist() == [0, 0]  # calls are ordered by what they share
    assert captured.replays == 2 and captured.obstacle is None


def test_zero_and_minus_zero_are_two_constants():
    captured, x = capture(lambda x, c: x * c), fastnn.ones(1)
    for c in (0.0, 0.0, 0.0, -0.0, np.float32(0), np.float32(-0.0)):
        assert np.signbit(captured(x, c).numpy())[0] == np.signbit(c)
    for _ in range(3):
        assert np.isnan(captured(x, float("nan")).numpy())[0]
    assert captured.replays > 1  # of NaN, too, though it does not equal itself


def test_a_generator_made_in_the_step_begins_anew_every_time():
    def step(looks):
        x = fastnn.rand(3, generator=fastnn.Generator(3))
        return x, x.sum().item() if looks else None

    expected = step(False)[0].tolist()
    captured = capture(step)
    assert [captured(False)[0].tolist() for _ in range(4)] == 4 * [expected] and captured.replays == 2
    captured = capture(step)
    with pytest.warns(RuntimeWarning, match="reads a tensor's value"):
        assert [captured(True)[0].tolist() for _ in range(3)] == 3 * [expected]


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("use", ["seeds", "reads"])
def test_a_generators_state_after_draws_is_no_constant(use, verify):
    """Replays count their draws when they end, so that such a step runs eagerly."""
    def step():
        first = fastnn.rand(2)
        if use == "seeds":
            fastnn.manual_seed(5)
        return first, fastnn.random.default_generator.get_state(), fastnn.rand(2)

    fastnn.manual_seed(5)
    expected = [[t.tolist() for t in step()] for _ in range(3)]
    captured = capture(step, verify=verify)
    fastnn.manual_seed(5)
    with pytest.warns(RuntimeWarning, match="a generator's state is read or set after"):
        assert [[t.tolist() for t in captured()] for _ in range(3)] == expected


def test_copies_of_captured_functions_record_for_themselves():
    captured, x = capture(fastnn.square), fastnn.tensor([3.0])
    for copied in (copy.deepcopy(captured), pickle.loads(pickle.dumps(captured))):
        assert [copied(x).item() for _ in range(4)] == 4 * [9] and copied.replays == 2
    for _ in range(3):
        captured(x)
    again = copy.deepcopy(captured)
    assert again(x).item() == 9 and len(captured.summary().splitlines()) == 2 and again.summary() == "no program"


@pytest.mark.parametrize("extents", [(300, 310), (300, 300)])
def test_threads_may_share_a_captured_function_but_not_one_of_its_programs(extents):
    """Though programs work in one arena as a rule."""
    def step(x):
        for _ in range(6):
            x = (x @ x) * 0.01
        return x.sum(0)

    captured, wrong, refused = capture(step), [], set()
    given = [fastnn.rand(n, n) for n in extents]
    expected = [[captured(x).tolist() for _ in range(3)][-1] for x in given]
    start = threading.Barrier(2)

    def call(k):
        start.wait()
        for _ in range(40):
            try:
                wrong.append(captured(given[k]).tolist() != expected[k])
            except RuntimeError as error:
                refused.add(str(error).split(",")[0])

    threads = [threading.Thread(target=call, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) >= 40 and not any(wrong)
    assert refused == (set() if extents[0] != extents[1] else {"capture: this program is already running on another thread"})


def test_interrupts_leave_nothing_recording(monkeypatch):
    class Interrupted:
        """Ctrl-C, as soon as the recording has begun."""

        def __init__(self):
            self.program = _core.Program()

        def begin(self, *arguments):
            self.program.begin(*arguments)
            raise KeyboardInterrupt

        def __getattr__(self, name):
            return getattr(self.program, name)

    with monkeypatch.context() as patched:
        patched.setattr("fastnn.program.Program", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            capture(fastnn.square)(fastnn.ones(1))
    assert capture(fastnn.square)(fastnn.ones(1)).item() == 1
