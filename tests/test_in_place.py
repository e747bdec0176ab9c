"""Writing in place where gradients flow: what is refused, what stays, what a captured step makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def refused(write: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        write()


def test_what_would_leave_gradients_wrong_is_refused() -> None:
    x = fastnn.tensor(numbers(4, 3), requires_grad=True)
    for write in (lambda: x.__setitem__(0, 1.0), lambda: x.add_(1), lambda: x.fill_(1.0), lambda: x.copy_(x * 2)):
        refused(write, "writing in place to a leaf that requires grad: take the result as a new tensor")
    h = x * 2
    views = [h[0], h[1]]
    refused(lambda: h.__setitem__(1, 0.0), "memory that something else sees")
    refused(lambda: views[0].mul_(2), "memory that something else sees")
    refused(lambda: x[0].mul_(2), "memory that something else sees")
    refused(lambda: h.expand(2, 4, 3).mul_(2), "memory that something else sees")
    refused(lambda: h.detach()[0].copy_(x[0]), "memory that something else sees")
    views.clear()
    h[1] = 0.0
    h[0] *= 2
    assert (h[0] == x[0] * 4).all().item() and not h[1].any().item()
    zeros = fastnn.zeros(4, 3)
    array = zeros.numpy()
    refused(lambda: zeros.copy_(x), "memory that something else sees")
    refused(lambda: fastnn.from_numpy(array).copy_(x), "memory that something else sees")
    assert not array.any()
    with fastnn.no_grad():
        zeros[0] = x[0]
    assert not zeros.requires_grad and (array[0] == x.detach().numpy()[0]).all()


def test_what_backward_needs_as_it_was_is_missed() -> None:
    x = fastnn.tensor(numbers(4, 3), requires_grad=True)
    h = x * 2
    square = h * h
    h[0] = 0.0
    refused(square.sum().backward, "needed for the gradient was changed in place")


def test_types_and_shapes_stay() -> None:
    x = fastnn.tensor(numbers(4, 3), requires_grad=True)
    h = fastnn.zeros(4, 3, dtype=fastnn.float64)
    h[1:] = x[:3]
    h.mul_(x)
    assert h.dtype is fastnn.float64 and h.shape == (4, 3)
    h.sum().backward()
    assert x.grad.dtype is fastnn.float32
    with pytest.raises(ValueError, match="expand: shape"):
        fastnn.zeros(3).add_(x)
    with pytest.raises(TypeError, match="the result is float32, which a tensor of int64 cannot hold"):
        fastnn.zeros(4, 3, dtype=fastnn.int64).add_(x)
    with pytest.raises(IndexError, match="index"):
        h[4] = x[0]


def test_masks_and_places_are_kept_as_they_were() -> None:
    x = fastnn.tensor(numbers(4, 3), requires_grad=True)
    for rows in (fastnn.tensor([0, 2]), np.array([0, 2]), [0, 2]):
        x.grad = None
        h = x * 1
        h[rows] = fastnn.zeros(2, 3)
        rows[:] = [1, 1] if isinstance(rows, list) else 1
        h.sum().backward()
        assert x.grad.tolist() == [[0] * 3, [1] * 3, [0] * 3, [1] * 3]


def test_a_tensor_may_be_written_from_itself() -> None:
    """Where PyTorch's backward misses what z was."""
    x, y = (fastnn.tensor(numbers(4, 3, seed=seed), requires_grad=True) for seed in (1, 2))
    z = x + 0
    z.addcmul_(z, y)
    z.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 1 + y.detach().numpy())
    np.testing.assert_allclose(y.grad.numpy(), x.detach().numpy())


def written_before(f: Any, x: Any, memory: Any) -> Any:
    """A memory that outlives the step."""
    memory.detach_()
    f = f + memory.mean()  # which the recording holds from here on
    memory[0] = x * f
    memory.add_(x)
    return memory


def written_argument(f: Any, x: Any, memory: Any, argument: Any) -> Any:
    argument[1:] = x * f
    return argument * memory


@pytest.mark.parametrize("step, arguments", [(written_before, 0), (written_argument, 1)])
def test_steps_that_write_to_what_is_older_run_eagerly(step: Any, arguments: int) -> None:
    results: list[list] = []
    for captures in (False, True):
        x = fastnn.tensor(numbers(3), requires_grad=True)
        memory = fastnn.ones(4, 3)

        def whole(f: Any, *given: Any, x: Any = x, memory: Any = memory) -> Any:
            x.grad = None
            loss = (step(f, x, memory, *given) ** 2).sum()
            loss.backward()
            return loss.detach(), x.grad

        call = fastnn.capture(whole) if captures else whole
        results.append([])
        for k in range(4):
            given = [fastnn.ones(4, 3) for _ in range(arguments)]
            if captures and k == 1:
                with pytest.warns(RuntimeWarning, match="older than the step is written where a gradient flows"):
                    loss, grad = call(fastnn.tensor(k + 1.0), *given)
            else:
                loss, grad = call(fastnn.tensor(k + 1.0), *given)
            results[-1].append((loss.item(), *grad.tolist(), *(one.requires_grad for one in given)))
    assert results[0] == results[1]


@pytest.mark.parametrize("make", [fastnn.exp, fastnn.sigmoid, fastnn.tanh, fastnn.relu, lambda x: fastnn.softmax(x, 1)])
@pytest.mark.parametrize("captures", [False, True])
def test_what_an_operation_made_is_written_though_its_backward_keeps_it(make: Any, captures: bool) -> None:
    """As in probs = softmax(logits, 1); probs[range(n), y] -= 1. The operation's gradient is that of what it gave; PyTorch lets
    it be written, too, but its backward misses what it was."""

    w = fastnn.ones(3, 4, requires_grad=True)
    first = fastnn.tensor([[1.0], [0.0], [0.0]])

    def step(x: Any, write: bool) -> Any:
        w.grad = None
        y = make(x * w)
        if write:
            y[0] -= 1
            y /= 3
            y.mul_(y)
        else:
            y = ((y - first) / 3) ** 2
        y.sum().backward()
        return y.detach(), w.grad

    call = fastnn.capture(step) if captures else step
    for k in range(4):
        x = fastnn.tensor(numbers(3, 4, seed=k))
        for a, b in zip(call(x, True), call(x, False)):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-7)
    assert not captures or call.replays == 5, call.obstacle
    y = make(fastnn.tensor(numbers(3, 4), requires_grad=True))
    y[[0, 1, 2], [1, 2, 0]] -= 1
    assert y.requires_grad
    y = make(fastnn.tensor(numbers(3, 4), requires_grad=True))
    views = [y[0], y.detach()]
    while views:
        refused(lambda: y.__setitem__(1, 0.0), "memory that something else sees")
        views.pop()
    y[1] = 0.0
    assert not y[1].any().item()


def through_rows(x: Any, y: Any) -> Any:
    out = fastnn.zeros(2, 4, 3)
    out[0].add_(x)
    out[1].copy_(y)
    out[0][1].mul_(y[0])
    out[:, 2] += x[1]
    return out


def through_rows_apart(x: Any, y: Any) -> Any:
    first = fastnn.cat([x[:1], x[1:2] * y[0], x[2:3] + x[1], x[3:]])
    return fastnn.stack([first, fastnn.cat([y[:2], y[2:3] + x[1], y[3:]])])


def through_a_mask(x: Any, y: Any) -> Any:
    """d2l's masked softmax: scores are written through a view of theirs while the caller still has them."""
    scores = x @ y.T
    rows = scores.reshape(-1, 4)
    rows[fastnn.tensor(np.tri(4, dtype=bool)) == False] = -1e6  # noqa: E712
    return fastnn.softmax(rows.reshape(scores.shape), -1) * fastnn.softmax(scores, -1)


def through_a_mask_apart(x: Any, y: Any) -> Any:
    return fastnn.softmax(fastnn.where(fastnn.tensor(np.tri(4, dtype=bool)), x @ y.T, -1e6), -1)**2


def through_what_backward_keeps(x: Any, y: Any) -> Any:
    h = x.exp()  # which exp's rule needs as it was
    h.T[1].mul_(y[:, 0])
    return h


def through_what_backward_keeps_apart(x: Any, y: Any) -> Any:
    h = x.exp()
    return fastnn.stack([h[:, 0], h[:, 1] * y[:, 0], h[:, 2]], 1)


def through_channels(x: Any, y: Any) -> Any:
    """Memory whose order is not that of the axes."""
    h = fastnn.zeros(2, 2, 2, 3).permute(0, 3, 1, 2) + y[0].reshape(3, 1, 1)
    assert not h.is_contiguous()
    h[:, 1] = x[:2, :2]
    h[1].mul_(y[1].reshape(3, 1, 1))
    return h


def through_channels_apart(x: Any, y: Any) -> Any:
    h = fastnn.zeros(2, 3, 2, 2) + y[0].reshape(3, 1, 1)
    h = fastnn.stack([h[:, 0], x[:2, :2].expand(2, 2, 2), h[:, 2]], 1)
    return fastnn.stack([h[0], h[1] * y[1].reshape(3, 1, 1)])


def through_a_view_that_stays(x: Any, y: Any) -> Any:
    h = x * 2
    view = h[1]
    view.mul_(y[0])
    view.add_(y[1])
    return fastnn.cat([h * y, view.reshape(1, 3) * 3])


def through_a_view_that_stays_apart(x: Any, y: Any) -> Any:
    row = x[1:2] * 2 * y[:1] + y[1:2]
    return fastnn.cat([fastnn.cat([x[:1] * 2, row, x[2:] * 2]) * y, row * 3])


THROUGH = [(through_rows, through_rows_apart), (through_a_mask, through_a_mask_apart), (through_channels, through_channels_apart),
           (through_what_backward_keeps, through_what_backward_keeps_apart),
           (through_a_view_that_stays, through_a_view_that_stays_apart)]


@pytest.mark.parametrize("captures", [False, True])
@pytest.mark.parametrize("write, apart", THROUGH, ids=lambda f: f.__name__)
def test_writing_to_a_view_writes_to_what_it_is_one_of(write: Any, apart: Any, captures: bool) -> None:
    results = []
    for step in (write, apart):
        x, y = (fastnn.tensor(numbers(4, 3, seed=seed), requires_grad=True) for seed in (1, 2))

        def whole(x: Any = x, y: Any = y, step: Any = step) -> Any:
            x.grad = y.grad = None
            result = step(x, y)
            (result * fastnn.arange(result.numel()).reshape(result.shape)).sum().backward()
            return result.detach(), x.grad, y.grad

        call = fastnn.capture(whole, verify=True) if captures else whole
        for _ in range(4):
            found = call()
        assert not captures or call.obstacle is None and call.replays > 0
        results.append([t.numpy().copy() for t in found])
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_what_was_saved_of_a_written_base_is_missed() -> None:
    x = fastnn.tensor(numbers(4, 3), requires_grad=True)
    h = x * 2
    square = h * h
    h[1].mul_(2)
    refused(square.sum().backward, "needed for the gradient was changed in place")


@pytest.mark.parametrize("captures", [False, True])
def test_what_backward_keeps_of_a_tensor_leaves_it_writable(captures: bool) -> None:
    """As in preds[i] = net(preds[i - 2:i]): the layers keep what they read, and the places written later go into new memory."""
    w = fastnn.tensor(numbers(2, seed=1), requires_grad=True)

    def step(x: Any, write: bool) -> Any:
        w.grad = None
        if write:
            y = fastnn.zeros(6)
            y[:2] = x
            for i in range(2, 6):
                y[i] = (y[i - 2:i].reshape(1, 2).tanh() @ w.reshape(2, 1)).reshape(())
        else:
            parts = [x[0], x[1]]
            for _ in range(4):
                parts.append((fastnn.stack(parts[-2:]).reshape(1, 2).tanh() @ w.reshape(2, 1)).reshape(()))
            y = fastnn.stack(parts)
        (y ** 2).sum().backward()
        return y.detach(), w.grad

    call = fastnn.capture(step) if captures else step
    for k in range(4):
        x = fastnn.tensor(numbers(2, seed=k))
        for a, b in zip(call(x, True), call(x, False)):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
    assert not captures or call.replays == 5, call.obstacle


def test_a_view_that_somebody_has_is_no_less_seen_for_being_kept() -> None:
    w = fastnn.ones(2, requires_grad=True)
    x = fastnn.zeros(4)
    seen = x[:2]
    product = seen * w  # whose backward keeps `seen`
    refused(lambda: x.__setitem__(3, product.sum()), "memory that something else sees")
    del seen
    x[3] = product.sum() + 1
    assert x.tolist() == [0, 0, 0, 1]
