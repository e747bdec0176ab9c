"""Mixup and CutMix: shares, targets, rectangles, seeds, captured steps, loaders and Trainer, errors."""

import numpy as np
import pytest

import fastnn
from fastnn import nn
from fastnn.data import ArrayDataset, Augment, CutMix, DataLoader, Mixup, RandomChoice, digits
from fastnn.data.mix import beta_quantiles
from fastnn.program import capture
from fastnn.testing.checks import forced_threads
from fastnn.train import LambdaCallback, Trainer


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 2.0, 5.0])
def test_quantiles_of_beta(alpha):
    q = beta_quantiles(alpha)
    assert q[0] == 0 and q[-1] == 1 and q[512] == pytest.approx(0.5) and (np.diff(q) >= 0).all()
    draws = np.sort(np.random.default_rng(0).beta(alpha, alpha, 400_000))
    below = np.searchsorted(draws, q[1:513]) / draws.size
    np.testing.assert_allclose(below, np.arange(1, 513) / 1024, atol=0.004)  # 5 standard deviations of that count
    np.testing.assert_allclose(q, 1 - q[::-1], atol=1e-15)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("alpha", [2e3, 1e6, 1e12])
def test_quantiles_of_a_great_alpha(alpha):
    """Nearly normal about 0.5, with the variance 1 / (8 alpha + 4)."""
    q = beta_quantiles(alpha)
    assert np.isfinite(q).all() and q[512] == pytest.approx(0.5) and (np.diff(q) >= 0).all()
    assert q[870] - 0.5 == pytest.approx(1.036 / np.sqrt(8 * alpha + 4), rel=0.03, abs=2e-5)


def batch(n=6, shape=(3, 8, 10), seed=0):
    """Every pixel of image i is i + 1, so that a mixture says where it comes from."""
    x = np.broadcast_to(np.arange(1.0, n + 1).reshape(n, *(1,) * len(shape)), (n, *shape)).astype(np.float32)
    return fastnn.tensor(np.ascontiguousarray(x)), fastnn.tensor(np.arange(n) % 4)


def test_mixup_mixes_values_and_targets_alike():
    fastnn.manual_seed(3)
    x, y = batch()
    mix, shares = Mixup(4, alpha=1.0), []
    for _ in range(200):
        mixed, target = (t.numpy() for t in mix(x, y))
        assert mixed.shape == (6, 3, 8, 10) and target.shape == (6, 4)
        np.testing.assert_allclose(target.sum(1), 1, rtol=1e-6)
        values = mixed.reshape(6, -1)
        assert np.ptp(values, axis=1).max() < 1e-5  # all pixels of an image in one proportion
        other = [k for k in range(6) if abs(values[k, 0] - (k + 1)) > 1e-3]
        if other and 0.05 < target[0].max() < 0.95:
            shares.append(target[0].max())
        np.testing.assert_allclose(values[:, 0].sum(), 21, rtol=1e-5)  # the other order is a permutation
    assert len(shares) > 50 and np.ptp(shares) > 0.3


def test_cutmix_replaces_a_rectangle_and_counts_its_area():
    fastnn.manual_seed(4)
    x, y = batch()
    mix, areas = CutMix(4), []
    for _ in range(200):
        mixed, target = (t.numpy() for t in mix(x, y))
        foreign = mixed[0, 0] != 1
        rows, columns = foreign.any(1), foreign.any(0)
        np.testing.assert_array_equal(foreign, rows[:, None] & columns)
        assert (np.diff(np.flatnonzero(rows)) == 1).all() and (np.diff(np.flatnonzero(columns)) == 1).all()
        assert (mixed == mixed[:, :1]).all()
        if foreign.any() and int(mixed[0, 0][foreign][0] - 1) % 4:
            assert target[0, 0] == pytest.approx(1 - foreign.mean(), abs=1e-6)
            areas.append(foreign.mean())
    assert len(areas) > 50 and np.ptp(areas) > 0.4


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_captured_mixing_draws_what_eager_mixing_draws(kind):
    x, y = batch()

    def run(wrap):
        fastnn.manual_seed(5)
        mix = kind(4)
        step = wrap(lambda x, y: mix(x, y))
        return [tuple(t.numpy().tobytes() for t in step(x, y)) for _ in range(6)]

    eager = run(lambda step: step)
    assert run(capture) == eager and len(set(eager)) == 6
    assert run(lambda step: step) == eager


def test_probabilities_are_mixed_as_they_are():
    x, _ = batch()
    p = np.random.default_rng(0).dirichlet(np.ones(4), 6).astype(np.float32)
    _, target = Mixup(alpha=1.0, generator=fastnn.Generator(1))(x, p)
    np.testing.assert_allclose(target.numpy().sum(0), p.sum(0), rtol=1e-5)
    assert np.abs(target.numpy() - p).max() > 0.01


@pytest.mark.parametrize("call, error, message", [
    (lambda x, y: Mixup(0), ValueError, "Mixup: num_classes is 0, but must be an integer of at least 1"),
    (lambda x, y: Mixup(4, 0), ValueError, "Mixup: alpha is 0, but must be a number above 0"),
    (lambda x, y: CutMix(4, -1), ValueError, "CutMix: alpha is -1"),
    (lambda x, y: CutMix(4, generator=3), TypeError, "generator is a int"),
    (lambda x, y: Mixup(4)(x.numpy(), y), TypeError, "Mixup: x is a ndarray, but must be a tensor of floating-point numbers"),
    (lambda x, y: CutMix(4)(x.to(fastnn.uint8), y), TypeError, "CutMix: x has dtype uint8, but must be a tensor of floating"),
    (lambda x, y: Mixup(4)(x, y[:3]), ValueError, r"Mixup: y has dtype int64 and shape \(3,\), but labels must be of shape \(6,\)"),
    (lambda x, y: Mixup(4)(x, np.ones((6, 5))), ValueError, r"y has shape \(6, 5\), but must be \(6,\), labels, or \(6, 4\), prob"),
    (lambda x, y: Mixup()(x, np.ones((5, 4))), ValueError, r"y has shape \(5, 4\), but must be \(6,\), labels, or \(6, num_classes\)"),
    (lambda x, y: Mixup()(x, y), ValueError, r"Mixup: num_classes is None, but must be given where y holds labels"),
    (lambda x, y: Mixup(4)(x, y.float()), TypeError, "Mixup: y has dtype float32, but labels must be integers"),
    (lambda x, y: CutMix(4)(x, y > 1), TypeError, "CutMix: y has dtype bool, but labels must be integers"),
    (lambda x, y: Mixup(3)(x, y), IndexError, "holds 3, but classes must lie between 0 and 2"),
    (lambda x, y: CutMix(4)(x.reshape(6, -1), y), ValueError,
     r"CutMix: x has shape \(6, 240\), but must be \(N, C, H, W\)")])
def test_errors_say_what_is_allowed(call, error, message):
    with pytest.raises(error, match=message):
        call(*batch())


def train(data, mix, capture=True, threads=1, callbacks=(), **options):
    """A run that mixes batches; its history and the bits of its weights."""
    fastnn.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    loader = DataLoader(data, batch_size=24, shuffle=True, transform=Augment(padding=1), batch_transform=mix)
    with forced_threads(threads):
        history = Trainer(model, optimizer="sgd", metrics=["accuracy", "perplexity"], capture=capture).fit(
            loader, epochs=5, verbose=0, callbacks=list(callbacks), **options)
    return history.history, [p.detach().numpy().tobytes() for p in model.parameters()]


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1, (101, 3, 8, 8)).astype(np.float32), rng.integers(0, 4, 101)


def lowered(x, y):
    """A user's own: integer targets."""
    return x * 0.5, (y + 1) % 4


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make", [lambda: CutMix(4), lambda: Mixup(4, 1.0), lambda: lowered,
                                  lambda: RandomChoice([CutMix(4), Mixup(4, 1.0)], p=[1, 3])])
def test_trainer_mixes_alike_eagerly_captured_and_with_any_threads(images, make):
    """Metrics too: soft targets are kept with the predictions of a replayed pass."""
    each_step = LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    eager = train(images, make(), capture=False, validation_data=images)
    assert eager != train(images, None, capture=False, validation_data=images)
    for options in ({}, {"threads": 3}, {"callbacks": [each_step]}, {"capture": False, "threads": 2}):
        assert train(images, make(), validation_data=images, **options) == eager


def test_evaluation_is_without_mixing(images):
    trainer = Trainer(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), metrics=["accuracy"])
    mixing = DataLoader(images, batch_transform=CutMix(4))
    assert trainer.evaluate(mixing) == trainer.evaluate(*images)
    np.testing.assert_array_equal(trainer.predict(mixing), trainer.predict(images[0]))
    history = trainer.fit(DataLoader(images), epochs=1, validation_data=mixing, verbose=0)
    assert history.history["val_loss"] == [trainer.evaluate(*images)["loss"]]


def test_accuracy_on_soft_targets_is_that_of_the_likeliest_class(images):
    seen = []

    def spy(x, y):
        seen.append(mixed := CutMix(4)(x, y))
        return mixed

    fastnn.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    trainer = Trainer(model, optimizer=fastnn.optim.SGD(model.parameters(), lr=0.0), metrics=["accuracy"], capture=False)
    history = trainer.fit(DataLoader(images, 32, batch_transform=spy), verbose=0)
    hits = [model(x).argmax(1).eq(y.argmax(1)).float().sum().item() for x, y in seen]
    assert history.history["accuracy"] == [pytest.approx(sum(hits) / 101)]


def test_loops_of_ones_own_see_what_trainer_sees(images):
    """Batches from a loader that mixes, and batches that a captured step mixes: the same draws."""
    def loop(in_step):
        fastnn.manual_seed(3)
        model, mix = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), CutMix(4)
        optimizer = fastnn.optim.SGD(model.parameters(), lr=0.1)

        @capture
        def step(x, y):
            x, y = mix(x, y) if in_step else (x, y)
            loss = fastnn.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        loader = DataLoader(images, 20, drop_last=True, batch_transform=None if in_step else mix)
        return [step(x, y).item() for _ in range(2) for x, y in loader], model[1].weight.tolist()

    assert loop(True) == loop(False)


@pytest.mark.parametrize("mix, error, message", [
    (5, TypeError, "batch_transform is 5, but must be callable"),
    (lambda x: x, TypeError, r"batch_transform is <lambda>, but must take \(x, y\): too many positional"),
    (lambda x, y: x, TypeError, "batch_transform returned a Tensor, but must return a tuple of 2 tensors, one for each array"),
    (lambda x, y: (x, 3), TypeError, r"batch_transform returned \['Tensor', 'int'\], but must return a tuple of 2 tensors"),
    (lambda x, y: (x, y[:2]), ValueError, r"returned shape \(2,\) for array 1, but must keep the batch's 24 samples"),
    (CutMix(5), ValueError, r"target has shape \(24, 5\), but probabilities for x have its shape \(24, 4\)")])
@pytest.mark.parametrize("captured", [False, True])
def test_what_is_no_batch_transform_is_named(images, mix, error, message, captured):
    with pytest.raises(error, match=message):
        train(images, mix, captured)


def test_mixing_and_weights_of_samples_exclude_each_other(images):
    with pytest.raises(TypeError, match=r"batch_transform is Mixup, but must take \(x, y, weight\)"):
        train(images, Mixup(4), class_weight={1: 2.0})


def test_transforms_take_inputs_alone(images):
    for make in (lambda: DataLoader(images, transform=CutMix(4)), lambda: ArrayDataset(*images, transform=CutMix(4))):
        with pytest.raises(TypeError, match=r"transform is CutMix, but must take \(x\): missing a required argument: 'y'"):
            make()
    with pytest.raises(TypeError, match=r"batch_transform is <class .*CutMix'>, but must be callable, an instance: CutMix\(...\)"):
        DataLoader(images, batch_transform=CutMix)
    DataLoader(images, transform=nn.ReLU(), batch_transform=lambda *arrays: arrays)
    four = (*images, np.ones(101), np.ones(101))
    with pytest.raises(TypeError, match=r"batch_transform is CutMix, but must take \(x, y, weight, array 3\): too many"):
        DataLoader(four, batch_transform=CutMix(4))


def test_random_choice_takes_each_as_often_as_asked():
    constants = [lambda x, k=k: x * 0 + k for k in range(3)]
    x, source = fastnn.ones(2, 3, 4, 4), fastnn.Generator(3)
    choice = RandomChoice(constants, p=[2, 0, 6], generator=source)
    found = [choice(x) for _ in range(400)]
    assert all(len(set(y.numpy().ravel().tolist())) == 1 for y in found)
    counts = [sum(y[0, 0, 0, 0].item() == k for y in found) for k in range(3)]
    assert counts[1] == 0 and 70 <= counts[0] <= 130  # 100 +- 3.5 standard deviations
    single = RandomChoice([lambda x, y: (x + 1, y)])(x, fastnn.tensor([0, 1]))
    assert single[0].equal(x + 1) and single[1].tolist() == [0, 1]


@pytest.mark.parametrize("make, error, message", [
    (lambda x: RandomChoice([]), TypeError, r"transforms is \[\], but must be a list of at least one transform"),
    (lambda x: RandomChoice(CutMix(4)), TypeError, "must be a list of at least one transform"),
    (lambda x: RandomChoice([CutMix]), TypeError, "must be a list of at least one transform"),
    (lambda x: RandomChoice([abs, abs], p=[1]), ValueError, r"p is \[1\], but must be a number for each of the 2 transforms"),
    (lambda x: RandomChoice([abs, abs], p=0.5), ValueError, "p is 0.5, but must be a number for each of the 2 transforms"),
    (lambda x: RandomChoice([abs, abs], p=[0, 0]), ValueError, r"p is \[0, 0\], but must be .*, one above 0"),
    (lambda x: RandomChoice([abs, abs], p=[0, -1]), ValueError, "RandomChoice: p is -1, but must be a number of at least 0"),
    (lambda x: RandomChoice([abs], generator=3), TypeError, "generator is a int"),
    (lambda x: RandomChoice([abs, lambda x: x.numpy()])(x), TypeError, "a transform returned a ndarray, but must return a tensor"),
    (lambda x: RandomChoice([abs, lambda x: (x,)])(x), ValueError, "transforms return a tensor, 1 in a tuple, but must return"),
    (lambda x: RandomChoice([lambda x: (x, x), lambda x: [x]])(x), ValueError, "return 2 in a tuple, 1 in a list, but must return as many"),
    (lambda x: RandomChoice([abs, lambda x: x[:1]])(x), ValueError, r"return float32 \(2, 3\), float32 \(1, 3\), but must")])
def test_random_choice_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make(fastnn.ones(2, 3))


@pytest.mark.parametrize("make", [lambda own: Mixup(4, generator=own), lambda own: RandomChoice([CutMix(4), Mixup(4, generator=own)])])
def test_first_gives_back_what_mixing_draws(images, make):
    own = fastnn.Generator(7)
    loader = DataLoader(images, 24, batch_transform=make(own))
    before = own.get_state().tolist(), fastnn.random.get_rng_state().tolist()
    x, y = loader.first(5)
    assert y.shape == (5, 4) and (own.get_state().tolist(), fastnn.random.get_rng_state().tolist()) == before


@pytest.mark.parametrize("attributes", [{"generator": np.random.default_rng(0)}, {"transforms": None}])
def test_first_leaves_what_it_cannot_give_back(images, attributes):
    """A user's own transform may draw from NumPy, or call its parts so."""
    own = type("Own", (), {"__call__": lambda self, x: x + 1, **attributes})()
    x, _ = DataLoader(images, 24, transform=own).first(5)
    np.testing.assert_array_equal(x.numpy(), images[0][:5] + 1)


@pytest.mark.parametrize("mix", [CutMix(10), Mixup(10)])
def test_digits_are_learnt_from_mixed_ones(mix):
    pytest.importorskip("sklearn")
    fastnn.manual_seed(0)
    training, test = digits()
    model = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, 10))
    history = Trainer(model, metrics=["accuracy"]).fit(DataLoader(training, 32, True, batch_transform=mix), epochs=10, verbose=0,
                                                       validation_data=test)
    assert history.history["val_accuracy"][-1] > 0.95 > history.history["accuracy"][-1]
