"""Initialisers beyond those that training relies on (test_optim.py has these)."""

import math

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn.nn import init


def test_truncated_normal_numbers_have_the_normal_distribution_between_the_bounds():
    x = np.sort(init.trunc_normal_(fastnn.empty(200_000, dtype=fastnn.float64), 1.0, 2.0, -1.0, 6.0).numpy())
    low, high = (math.erf((bound - 1) / (2 * math.sqrt(2))) for bound in (-1, 6))
    share = (np.array([math.erf((v - 1) / (2 * math.sqrt(2))) for v in x[::50]]) - low) / (high - low)
    assert x[0] >= -1 and x[-1] <= 6 and np.abs(share - np.arange(0, 1, 50 / x.size)).max() < 1.95 / math.sqrt(x.size)
    far = init.trunc_normal_(fastnn.empty(1000), 0.0, 1.0, 4.0, 4.5).numpy()
    assert far.min() >= 4 and far.max() <= 4.5 and len(set(far.tolist())) > 900
    with pytest.raises(ValueError, match="a is 2.0 and b 1.0"):
        init.trunc_normal_(fastnn.empty(3), a=2.0, b=1.0)


def test_inverse_of_the_error_function():
    x = np.concatenate((np.linspace(-0.999, 0.999, 999), 1 - np.logspace(-3, -12, 50)))
    np.testing.assert_allclose([math.erf(v) for v in init._erfinv(x)], x, rtol=1e-6)


def test_special_matrices():
    assert init.eye_(fastnn.empty(2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]
    weight = init.dirac_(fastnn.empty(4, 2, 3, 3), groups=2)
    x = fastnn.tensor(np.random.default_rng(0).normal(size=(1, 4, 5, 5)), "float32")
    np.testing.assert_array_equal(F.conv2d(x, weight, padding=1, groups=2).numpy(), x.numpy())
    x = init.sparse_(fastnn.empty(10, 30), 0.35, 2.0).numpy()
    assert ((x == 0).sum(0) == 4).all() and 1.5 < x[x != 0].std() < 2.5 and len({tuple(c) for c in (x == 0).T.tolist()}) > 20
    for wrong in (lambda: init.eye_(fastnn.empty(3)), lambda: init.sparse_(fastnn.empty(3), 0.5),
                  lambda: init.dirac_(fastnn.empty(3, 3)), lambda: init.dirac_(fastnn.empty(3, 3, 1), 2),
                  lambda: init.sparse_(fastnn.empty(3, 3), 1.5)):
        with pytest.raises(ValueError, match="must be"):
            wrong()
