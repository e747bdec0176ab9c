"""Random numbers: the generator's published values, independence of ISA, threads, layout; statistics, permutations."""

import threading

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import _core, nn
from fastnn._core import launch
from fastnn.testing.checks import forced_threads

ISAS = _core.available_isas()


def state(seed=1234, number=5):
    return fastnn.tensor([seed, number])


def uniform(shape, dtype=fastnn.float32, low=0.0, high=1.0, seed=1234, out=None):
    out = _core.empty(shape, dtype, contiguous=True) if out is None else out
    return launch.uniform(state(seed), low=low, high=high, ordinal=0, out=out).numpy()


def normal(shape, dtype=fastnn.float32, seed=1234):
    return launch.normal(state(seed), mean=0.0, std=1.0, ordinal=0,
                         out=_core.empty(shape, dtype, contiguous=True)).numpy()


def test_philox_gives_its_published_values():
    # Random123's kat_vectors for philox4x32-10: counter, key -> words
    ones = 2**64 - 1
    assert _core.philox(0, 0, 0) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert _core.philox(ones, ones, ones) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 31, 511, 512, 515, 20_000])
def test_float32_takes_one_word_an_element(isa, n):
    seed, number = -3, 2**40 + 7
    words = [w for block in range((n + 3) // 4) for w in _core.philox(seed % 2**64, number, block)][:n]
    y = launch.uniform(state(seed, number - 2), low=0.0, high=1.0, ordinal=2,
                       out=_core.empty((n,), fastnn.float32)).numpy()
    np.testing.assert_array_equal(y, (np.array(words) >> 8) * np.float32(2**-24))


@pytest.mark.parametrize("n", [1, 2, 3, 17, 513])
def test_float64_takes_two_words_an_element(isa, n):
    words = np.array([w for block in range((n + 1) // 2) for w in _core.philox(1234, 5, block)], np.uint64)
    bits = (words[0::2] | words[1::2] << np.uint64(32))[:n]
    np.testing.assert_array_equal(uniform((n,), fastnn.float64), (bits >> np.uint64(11)) * 2.0**-53)


def test_each_launch_and_each_seed_gives_other_numbers():
    fastnn.manual_seed(3)
    a, b = fastnn.rand(1000).numpy(), fastnn.rand(1000).numpy()
    fastnn.manual_seed(4)
    c = fastnn.rand(1000).numpy()
    fastnn.manual_seed(3)
    np.testing.assert_array_equal(fastnn.rand(1000).numpy(), a)
    assert len({*a.tolist(), *b.tolist(), *c.tolist()}) > 2990


@pytest.mark.parametrize("dtype", [fastnn.float32, fastnn.float64])
def test_same_numbers_for_any_threads_and_isa(dtype):
    results = []
    before = _core.get_isa()
    for isa in ISAS:
        _core.set_isa(isa)
        for threads in (1, 2, 3):
            with forced_threads(threads):
                results.append((uniform((50_001,), dtype, -2.0, 3.0), normal((50_001,), dtype)))
    _core.set_isa(before)
    for u, z in results[1:]:
        np.testing.assert_array_equal(u, results[0][0])
        np.testing.assert_allclose(z, results[0][1], rtol=0, atol=16 * np.finfo(dtype.name).eps)


def test_elements_are_counted_in_canonical_order(isa):
    line = uniform((2 * 3 * 4 * 5,))
    image = uniform((2, 5, 3, 4))  # C order in memory, N H W C in counting
    np.testing.assert_array_equal(image, line.reshape(2, 3, 4, 5).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(uniform((2, 5, 3, 4), out=_core.empty((2, 5, 3, 4), fastnn.float32)), image)
    np.testing.assert_array_equal(uniform((6, 20)), line.reshape(6, 20))
    spaced = fastnn.zeros(7, 300)[1:, ::15]
    np.testing.assert_array_equal(uniform((6, 20), out=spaced), line.reshape(6, 20))


def test_uniform_statistics_and_range(isa):
    for dtype in (fastnn.float32, fastnn.float64):
        u = uniform((400_000,), dtype, low=-1.0, high=3.0).astype(np.float64)
        assert u.min() >= -1 and u.max() < 3
        assert abs(u.mean() - 1) < 4 * np.sqrt(16 / 12 / u.size)
        counts = np.histogram(u, 64, (-1, 3))[0]
        expected = u.size / 64
        assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * np.sqrt(2 * 63)
        assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / np.sqrt(u.size)


def test_uniform_stays_below_high_where_rounding_would_reach_it(isa):
    high = float(np.nextafter(np.float32(1), np.float32(2)))
    assert uniform((100_000,), low=1.0, high=high).max() == 1
    assert uniform((1000,), low=2.0, high=2.0).tolist() == [2.0] * 1000


def test_normal_statistics(isa):
    for dtype in (fastnn.float32, fastnn.float64):
        z = normal((400_000,), dtype).astype(np.float64)
        n = z.size
        assert abs(z.mean()) < 4 / np.sqrt(n)
        assert abs(z.var() - 1) < 4 * np.sqrt(2 / n)
        assert abs((z**3).mean()) < 4 * np.sqrt(15 / n)
        assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / n)
        assert abs(np.corrcoef(z[0::2], z[1::2])[0, 1]) < 4 / np.sqrt(n / 2)
        assert abs(np.mean(np.abs(z) > 2) - 0.0455) < 4 * np.sqrt(0.0455 / n)


def dropout(x, p, seed=1234):
    return launch.dropout_forward(x, state(seed), p=p, scale=2.0, shift=-0.0, dropped=0.0, ordinal=0)


def test_dropout_keeps_with_its_probability_and_masks_are_reproducible(isa):
    x = fastnn.full((100_000,), 3.0)
    for p in (0.0, 0.1, 0.5, 0.9, 1.0):
        y, mask = dropout(x, p)
        kept = mask.numpy()
        assert abs(kept.mean() - (1 - p)) <= 4 * np.sqrt(p * (1 - p) / x.numel())
        np.testing.assert_array_equal(y.numpy(), np.where(kept, np.float32(6), 0))
        np.testing.assert_array_equal(dropout(x.double(), p)[1].numpy(), kept)
    words = [w for block in range(25) for w in _core.philox(1234, 5, block)]
    np.testing.assert_array_equal(dropout(x, 0.3)[1].numpy()[:100], np.array(words) / 2**32 >= 0.3)


def test_dropout_does_not_depend_on_strides_or_threads(isa):
    x = np.random.default_rng(2).normal(size=(7, 5, 33, 31)).astype(np.float32)
    dense = fastnn.tensor(x)
    last = fastnn.tensor(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)
    spaced = fastnn.tensor(np.repeat(x, 2, 3))[..., ::2]
    expected = [t.numpy().copy() for t in dropout(dense, 0.4)]
    for t in (dense, last, spaced):
        for threads in (1, 3):
            with forced_threads(threads):
                y, mask = dropout(t, 0.4)
            np.testing.assert_array_equal(y.numpy(), expected[0])
            np.testing.assert_array_equal(mask.numpy(), expected[1])


def test_dropout_backward_uses_the_mask(isa):
    dy = np.random.default_rng(4).normal(size=(3, 77)).astype(np.float32)
    mask = np.random.default_rng(5).random((3, 77)) < 0.5
    dx = launch.dropout_backward(fastnn.tensor(dy), fastnn.tensor(mask), scale=1.25)
    np.testing.assert_array_equal(dx.numpy(), np.where(mask, dy * np.float32(1.25), 0))
    one = launch.dropout_backward(fastnn.tensor(dy[:1, :1]), fastnn.tensor(mask), scale=1.25)
    np.testing.assert_array_equal(one.numpy(), np.where(mask, dy[0, 0] * np.float32(1.25), 0))


def test_dropout_writes_other_numbers_for_what_it_drops(isa):
    x = np.random.default_rng(4).normal(size=(3, 1001)).astype(np.float32)
    x[0, :8] = [-0.0, 0.0, np.nan, np.inf, -np.inf, 1e38, -0.0, -0.0]
    y, mask = launch.dropout_forward(fastnn.tensor(x), state(), p=0.4, scale=1.5, shift=0.25, dropped=-2.0, ordinal=0)
    np.testing.assert_array_equal(y.numpy(), np.where(mask.numpy(), x * np.float32(1.5) + np.float32(0.25), -2))
    plain = dropout(fastnn.tensor(x), 0.0)[0].numpy()
    np.testing.assert_array_equal(plain.view(np.uint32), (x * np.float32(2)).view(np.uint32))  # the signs of zeros too


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_alpha_dropout_keeps_mean_and_variance(p):
    n = 400_000
    x = fastnn.randn(n, generator=fastnn.Generator(1))
    y = F.alpha_dropout(x, p, generator=fastnn.Generator(2)).numpy()
    assert abs(y.mean()) < 6 / np.sqrt(n) and abs(y.var() - 1) < 6 * np.sqrt(3 / n)
    dropped = np.unique(y, return_counts=True)[1].max()  # the one value that comes again and again
    assert abs(dropped / n - p) < 5 * np.sqrt(p * (1 - p) / n)
    assert F.alpha_dropout(x, p, training=False) is x and F.alpha_dropout(x, 0.0) is x
    assert not F.alpha_dropout(x, 1.0).numpy().any()


def test_slopes_are_random_in_training_and_the_same_for_any_threads_and_layout():
    x = np.random.default_rng(2).normal(size=(7, 5, 33, 31)).astype(np.float32)
    dense, last = fastnn.tensor(x), fastnn.tensor(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)
    results = []
    for t in (dense, last):
        for threads in (1, 3):
            with forced_threads(threads):
                t = t.detach().requires_grad_()
                y = F.rrelu(t, 0.2, 0.6, training=True, generator=fastnn.Generator(7))
                y.backward(fastnn.full(y.shape, 2.0))
            results.append((y.detach().numpy(), t.grad.numpy()))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    y, dx = results[0]
    slopes = dx[x < 0] / 2
    assert slopes.min() >= 0.2 and slopes.max() < 0.6 and len(set(slopes.tolist())) > 0.99 * slopes.size
    assert abs(slopes.mean() - 0.4) < 5 * 0.4 / np.sqrt(12 * slopes.size)
    np.testing.assert_array_equal(y, np.where(x > 0, x, x * (dx / 2)))
    np.testing.assert_array_equal(dx[x > 0], 2)


def test_gumbel_softmax_draws_each_class_with_its_probability():
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    x = fastnn.tensor(np.tile(logits[:, None], (1, 50_000)), requires_grad=True)
    hard = F.gumbel_softmax(x, 0.5, hard=True, dim=0, generator=fastnn.Generator(3))
    assert set(np.unique(hard.detach().numpy())) == {0, 1} and (hard.detach().numpy().sum(0) == 1).all()
    assert np.abs(hard.detach().numpy().mean(1) - np.exp(logits)).max() < 0.01
    soft = F.gumbel_softmax(x, 0.5, dim=0, generator=fastnn.Generator(3))
    np.testing.assert_array_equal(soft.detach().numpy().argmax(0), hard.detach().numpy().argmax(0))
    np.testing.assert_allclose(soft.detach().numpy().sum(0), 1, rtol=1e-6)
    dy, gradients = np.random.default_rng(1).normal(size=x.shape).astype(np.float32), []
    for y in (soft, hard):
        y.backward(fastnn.tensor(dy))
        gradients.append(x.grad.numpy().copy())
        x.grad = None
    np.testing.assert_array_equal(*gradients)
    expected = soft.detach().numpy()
    expected = expected * (dy - (expected * dy).sum(0)) / 0.5
    np.testing.assert_allclose(gradients[0], expected, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="tau is 0"):
        F.gumbel_softmax(x, 0)


@pytest.mark.parametrize("layer", [nn.AlphaDropout(0.4), nn.FeatureAlphaDropout(0.4), nn.RReLU(), nn.Dropout2d(0.4)], ids=str)
def test_captured_layers_draw_what_eager_ones_draw(layer):
    def run(capture):
        fastnn.manual_seed(8)
        step = fastnn.capture(layer) if capture else layer
        return np.stack([step(fastnn.full((2, 3, 4, 5), -1.0)).numpy().copy() for _ in range(5)])

    eager, captured = run(False), run(True)
    np.testing.assert_array_equal(captured, eager)
    assert (eager[0] != eager[1]).any()


def permutation(n, seed):
    return launch.randperm(state(seed), ordinal=0, out=_core.empty((n,), fastnn.int64)).numpy()


def test_randperm_permutes_and_every_order_is_as_likely(isa):
    for n in (0, 1, 2, 1000):
        assert sorted(permutation(n, 1).tolist()) == list(range(n))
    orders = {}
    for seed in range(2400):
        order = tuple(permutation(4, seed).tolist())
        orders[order] = orders.get(order, 0) + 1
    assert len(orders) == 24
    assert sum((c - 100) ** 2 / 100 for c in orders.values()) < 23 + 5 * np.sqrt(2 * 23)


def test_randperm_is_the_same_on_every_isa():
    before = _core.get_isa()
    results = []
    for isa in ISAS:
        _core.set_isa(isa)
        results.append(permutation(1001, 9).tolist())
    _core.set_isa(before)
    assert all(r == results[0] for r in results)


def test_errors_name_what_was_given():
    with pytest.raises(ValueError, match=r"low is 2 and high 1"):
        uniform((3,), low=2.0, high=1.0)
    with pytest.raises(ValueError, match=r"p is 1.5"):
        dropout(fastnn.zeros(3), 1.5)
    with pytest.raises(TypeError, match="output that the caller gives"):
        launch.normal(state(), mean=0.0, std=1.0, ordinal=0)
    with pytest.raises(TypeError, match="output 'y' is int64"):
        launch.normal(state(), mean=0.0, std=1.0, ordinal=0, out=_core.empty((3,), fastnn.int64))
    with pytest.raises(ValueError, match=r"'generator' has shape \(3,\)"):
        launch.dropout_forward(fastnn.zeros(3), fastnn.tensor([1, 2, 3]), p=0.5, scale=2.0, shift=-0.0, dropped=0.0,
                               ordinal=0)


def test_a_generator_must_be_dense_and_writable():
    whole = fastnn.tensor([7, 0, 7, 0])
    for wrong in (whole[::2], whole.as_strided((2,), (-1,), 3), whole[:1].expand(2)):
        with pytest.raises(ValueError, match="'generator' has shape"):
            launch.uniform(wrong, low=0.0, high=1.0, ordinal=0, out=fastnn.zeros(3))
    constant = np.array([7, 0])
    constant.flags.writeable = False
    with pytest.raises(ValueError, match="'generator' is read-only"):
        launch.uniform(fastnn.from_numpy(constant), low=0.0, high=1.0, ordinal=0, out=fastnn.zeros(3))
    assert whole.tolist() == [7, 0, 7, 0] and constant.tolist() == [7, 0]


def test_a_generator_inside_a_larger_tensor_cannot_be_captured():
    whole = fastnn.tensor([3, 4, 7, 0])
    step = fastnn.capture(lambda x: launch.dropout_forward(x, whole[2:], p=0.5, scale=2.0, shift=-0.0, dropped=0.0,
                                                           ordinal=0)[0])
    with pytest.warns(RuntimeWarning, match="part of a larger tensor"):
        for _ in range(3):
            step(fastnn.ones(8))
    assert whole.tolist() == [3, 4, 7, 3]


@pytest.mark.parametrize("low, high", [(-3e38, 3e38), (0.0, 1e39), (-1e39, -1e38)])
def test_uniform_bounds_must_be_finite_in_the_dtype(low, high):
    with pytest.raises(ValueError, match="finite in the dtype"):
        uniform((5,), low=low, high=high)
    x = uniform((5,), low=low, high=high, dtype=fastnn.float64)
    assert len(set(x)) == 5 and np.all((low <= x) & (x < high))


def test_a_captured_step_draws_the_numbers_that_eager_steps_draw():
    def run(capture):
        fastnn.manual_seed(8)
        seen = []

        def step(x):
            draws = {"shift": -0.0, "dropped": 0.0, "ordinal": 0}
            y, mask = launch.dropout_forward(x, fastnn.random.default_generator.state, p=0.5, scale=2.0, **draws)
            z, _ = launch.dropout_forward(y, fastnn.random.default_generator.state, p=0.2, scale=1.25, **draws)
            return z

        step = fastnn.capture(step) if capture else step
        for _ in range(5):
            seen.append(step(fastnn.ones(300)).numpy().copy())
        return seen, fastnn.random.default_generator.get_state().tolist()

    eager, captured = run(False), run(True)
    assert eager[1] == captured[1]
    for a, b in zip(eager[0], captured[0]):
        np.testing.assert_array_equal(a, b)
    assert len({a.tobytes() for a in eager[0]}) == 5


def test_randint_is_as_likely_to_be_each_of_its_integers():
    fastnn.manual_seed(5)
    counts = np.bincount(fastnn.randint(-2, 3, (50000,)).numpy() + 2, minlength=5)
    assert len(counts) == 5 and abs(counts - 10000).max() < 5 * np.sqrt(10000 * 4 / 5)
    assert fastnn.randint(1, (3, 2)).tolist() == [[0, 0]] * 3 and fastnn.randint(7, (2,), dtype=fastnn.uint8).dtype is fastnn.uint8
    far = fastnn.randint(2**62, 2**62 + 2, (1000,)).numpy()
    assert set(far) == {2**62, 2**62 + 1}


@pytest.mark.parametrize("low, high", [(3, 3), (4, 3), (0, 2**53 + 1)])
def test_randint_without_an_integer_between_is_refused(low, high):
    with pytest.raises(ValueError, match=f"randint: low is {low} and high {high}, but there must be 1 to 2"):
        fastnn.randint(low, high, (2,))


@pytest.mark.parametrize("like, plain", [(fastnn.rand_like, fastnn.rand), (fastnn.randn_like, fastnn.randn)])
def test_random_numbers_like_a_tensor_are_those_of_its_shape(like, plain):
    x = fastnn.zeros(2, 3, 4, 5, dtype=fastnn.float64)
    fastnn.manual_seed(3)
    drawn = like(x)
    fastnn.manual_seed(3)
    assert drawn.equal(plain(2, 3, 4, 5, dtype=fastnn.float64))
    assert like(x, dtype=fastnn.float32).dtype is fastnn.float32
    assert plain(2, requires_grad=True).requires_grad


def test_a_generator_goes_on_from_a_state():
    generator = fastnn.Generator(-3)
    assert generator.initial_seed() == -3 and fastnn.manual_seed(11).initial_seed() == fastnn.initial_seed() == 11
    fastnn.rand(3, generator=generator)
    state = generator.get_state()
    first = fastnn.rand(3, generator=generator)
    assert not first.equal(fastnn.rand(3, generator=generator))
    generator.set_state(state)
    assert first.equal(fastnn.rand(3, generator=generator))
    for wrong in (fastnn.zeros(2), fastnn.zeros(3, dtype=fastnn.int64)):
        with pytest.raises(ValueError, match=r"set_state: state is \w+ \(\d,\), but must be int64 \(2,\)"):
            generator.set_state(wrong)


def test_threads_never_get_the_same_numbers_of_one_generator():
    fastnn.manual_seed(0)
    drawn, start = {}, threading.Barrier(2)

    def draw(k):
        for turn in range(20):
            start.wait()
            drawn[k, turn] = fastnn.rand(200_000).numpy()[:4].tobytes()  # long enough for the other thread to come in

    threads = [threading.Thread(target=draw, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fastnn.manual_seed(0)
    assert len(drawn) == 40 and set(drawn.values()) == {fastnn.rand(200_000).numpy()[:4].tobytes() for _ in range(40)}


@pytest.mark.parametrize("weights", ([1.0, -5.0, 2.0], [-5.0, 1.0, 1.0], [-1.0, -2.0, -3.0], [1.0, float("nan"), 2.0], [0.0, 0.0, 0.0]))
def test_multinomial_draws_places_that_exist(weights):
    for count, replacement in ((50, True), (1, False)):
        places = fastnn.multinomial(fastnn.tensor(weights), count, replacement=replacement).numpy()
        assert ((0 <= places) & (places < 3)).all()
        if weights[1] == -5:
            assert not (places == 1).any()
