"""Writing in place where gradients flow, beside PyTorch: the same steps, the same values and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn

torch = pytest.importorskip("torch")


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def masked_scores(m: Any, x: Any, y: Any) -> Any:
    scores = x @ y.T
    scores.masked_fill_(m.triu(m.ones(4, 4), 1) > 0, -m.inf)
    return m.softmax(scores, -1) * scores.masked_fill(scores == -m.inf, 0.0)


def rows_of_outputs(m: Any, x: Any, y: Any) -> Any:
    outputs = m.zeros(6, 4, 3)
    h = x
    for t in range(1, 6):
        h = m.tanh(h * y)
        outputs[t] = h
    return outputs


def columns(m: Any, x: Any, y: Any) -> Any:
    out = x * 2
    out[:, 1:] = y[:, :2]
    out[0, :] = 5.0
    out[..., 0] = y[0, 0]
    return out * y


def masked(m: Any, x: Any, y: Any) -> Any:
    d = x - y
    d[d < 0] = 0
    return d * x


def experts(m: Any, x: Any, y: Any) -> Any:
    results = m.zeros_like(x)
    for rows in ([0, 2], [1, 3]):
        index = m.tensor(rows)
        results[index] += x[index] * y[index]
    return results


def arithmetic(m: Any, x: Any, y: Any) -> Any:
    z = x * 2
    z.mul_(y).add_(x, alpha=0.5).clamp_(-1, 2)
    z.div_(y.exp()).sub_(1)
    z.pow_(2)
    return z


def activations(m: Any, x: Any, y: Any) -> Any:
    z = x * y
    z.relu_()
    w = x + y
    w.tanh_()
    return z * w


def written_over(m: Any, x: Any, y: Any) -> Any:
    z = x * 3
    z.copy_(y[0])
    u = m.empty(4, 3)
    u.copy_(x)
    return z * u + y


def zeroed(m: Any, x: Any, y: Any) -> Any:
    z = x * 3
    z[1].sum()
    z[2:] = 0
    return z + y


def put(m: Any, x: Any, y: Any) -> Any:
    z = x * 1
    z.index_put_((m.tensor([0, 1, 1]),), y[:3], accumulate=True)
    z.index_put_((m.tensor([3]), m.tensor([2])), y[0, :1])
    z.index_add_(0, m.tensor([0, 0]), x[:2])
    z.scatter_(0, m.tensor([[0, 1, 2]]), y[:1])
    return z


def views(m: Any, x: Any, y: Any) -> Any:
    out = m.zeros(2, 4, 3)
    out[0] = x
    out[1].copy_(y)
    out[0][1].mul_(2)
    out[:, 2].add_(x[1])
    return out * out


def view_of_scores(m: Any, x: Any, y: Any) -> Any:
    scores = x @ y.T
    rows = scores.reshape(-1, 2)
    rows[rows > 0] = -1
    return m.softmax(scores, -1) * m.softmax(rows.reshape(4, 4), 0)


def view_of_four_axes(m: Any, x: Any, y: Any) -> Any:
    h = (x * 1).reshape(1, 1, 4, 3) * y
    v = h[0, 0]
    v[:, 1] = x[:, 0]
    v.mul_(y)
    return h * 2 + v


def states_by_row(m: Any, x: Any, y: Any) -> Any:
    h = m.zeros(5, 3)
    for t in range(4):
        h[t + 1].copy_((h[t] * 0.5 + x[t] * y[t]).tanh())
    return h * 1


def diagonals(m: Any, x: Any, y: Any) -> Any:
    h = x.reshape(2, 6) * y.reshape(2, 6)
    h.diagonal().fill_(0.0)
    return h * h


STEPS = [masked_scores, rows_of_outputs, columns, masked, experts, arithmetic, activations, written_over, zeroed, put, views,
         view_of_scores, view_of_four_axes, states_by_row, diagonals]


def run(m: Any, step: Any) -> tuple[np.ndarray, ...]:
    x, y = (m.tensor(numbers(4, 3, seed=seed), requires_grad=True) for seed in (1, 2))
    out = step(m, x, y)
    (out * m.arange(out.numel()).reshape(out.shape)).sum().backward()
    return out.detach().numpy(), x.grad.numpy(), y.grad.numpy()


@pytest.mark.parametrize("step", STEPS, ids=[step.__name__ for step in STEPS])
def test_values_and_gradients(step: Any) -> None:
    for got, want in zip(run(fastnn, step), run(torch, step)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("step", [masked_scores, rows_of_outputs, columns, masked, arithmetic, activations, views, view_of_four_axes,
                                  states_by_row, diagonals])
def test_captured_as_eager(step: Any) -> None:
    results = []
    for captures in (False, True):
        x, y = (fastnn.tensor(numbers(4, 3, seed=seed), requires_grad=True) for seed in (1, 2))

        def whole(factor: Any, x: Any = x, y: Any = y) -> Any:
            x.grad = y.grad = None
            loss = (step(fastnn, x, y) * factor).sum()
            loss.backward()
            return loss

        call = fastnn.capture(whole) if captures else whole
        for k in range(4):
            loss = call(fastnn.tensor(float(k + 1)))
            results.append((loss.detach().numpy().copy(), x.grad.numpy().copy(), y.grad.numpy().copy()))
    for eager, captured in zip(results[:4], results[4:]):
        for a, b in zip(eager, captured):
            np.testing.assert_array_equal(a, b)
