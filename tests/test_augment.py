"""Augmentation: what the references in fastnn/testing/augment_specs.py leave open."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn
from fastnn.data import AUGMENTATIONS, Augment, DataLoader
from fastnn.testing.checks import forced_threads
from fastnn.train import Trainer

EVERYTHING = dict(padding=2, horizontal_flip=0.5, vertical_flip=0.2, degrees=20, shift=0.1, scale=(0.8, 1.2), shear=5,
                  elastic=(8.0, 2.0), brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1, mean=[0.5, 0.4, 0.3],
                  std=[0.2, 0.2, 0.3], noise=0.05, cutout=3)


@pytest.fixture
def images():
    return fastnn.tensor(np.random.default_rng(0).uniform(0, 1, (16, 3, 12, 10)).astype(np.float32))


def test_every_image_changes_anew(images):
    fastnn.manual_seed(1)
    augment = Augment(**EVERYTHING)
    first, second = augment(images).numpy(), augment(images).numpy()
    assert first.shape == (16, 3, 12, 10) and all((a != b).any() for a, b in zip(first, second))
    fastnn.manual_seed(1)
    np.testing.assert_array_equal(augment(images).numpy(), first)


def test_threads_do_not_matter(images):
    found = []
    for threads in (1, 2, 3, 8):
        fastnn.manual_seed(4)
        with forced_threads(threads):
            found.append(Augment(**EVERYTHING)(images).numpy().tobytes())
    assert len(set(found)) == 1


def test_captured_draws_anew_and_as_eager_does(images):
    augment = Augment(**EVERYTHING)

    def step(x):
        return augment(x)

    fastnn.manual_seed(7)
    eager = [step(images).numpy().copy() for _ in range(5)]
    fastnn.manual_seed(7)
    program = fastnn.capture(step)
    captured = [program(images).numpy().copy() for _ in range(5)]
    np.testing.assert_array_equal(captured, eager)
    assert (eager[3] != eager[4]).any()


def test_without_chance_it_is_what_it_says():
    x = fastnn.arange(24).float().reshape(1, 1, 4, 6)
    np.testing.assert_array_equal(Augment()(x).numpy(), x.numpy())
    np.testing.assert_array_equal(F.random_affine(x, horizontal_flip=1).numpy(), x.numpy()[..., ::-1])
    np.testing.assert_array_equal(F.random_affine(x, vertical_flip=1).numpy(), x.numpy()[..., ::-1, :])
    down = fastnn.zeros(1, 2, 4, 6)
    down[:, 0] = 1.0
    np.testing.assert_array_equal(F.random_affine(x, flow=down).numpy()[..., :3, :], x.numpy()[..., 1:, :])
    np.testing.assert_allclose(F.color_jitter(x / 24, (0.5, 0.5)).numpy(), x.numpy() / 48, rtol=1e-6)


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [None, (9, 17), (3, 1)])
def test_crops_of_planes_have_the_bits_of_crops_of_pixels(channels, size):
    x = np.random.default_rng(channels).standard_normal((40, channels, 11, 19)).astype(np.float32)
    pixels = fastnn.tensor(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)
    wide = np.full((40, channels + 1, 13, 30), np.nan, np.float32)
    wide[:, 1:, 2:, 5:24] = x
    norm = {k: fastnn.arange(1, channels + 1).float() / 7 for k in ("mean", "std")}
    found = []
    for t in (pixels, fastnn.tensor(x), fastnn.tensor(wide)[:, 1:, 2:, 5:24]):
        fastnn.manual_seed(3)
        found.append(F.random_affine(t, size=size, padding=3, horizontal_flip=0.5, vertical_flip=0.5, **norm).numpy())
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])
    one = fastnn.tensor(x[:, :1]).expand(40, channels, 11, 19)  # every plane is the same memory
    np.testing.assert_array_equal(F.random_affine(one, horizontal_flip=1).numpy()[:, -1], x[:, 0, :, ::-1])


def test_flips_come_as_often_as_asked():
    fastnn.manual_seed(0)
    x = fastnn.tensor(np.tile(np.arange(4.0, dtype=np.float32), (4000, 1, 1, 1)))
    flipped = F.random_affine(x, horizontal_flip=0.3).numpy()[:, 0, 0, 0] == 3
    assert abs(flipped.mean() - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5


def test_crops_reach_every_place():
    fastnn.manual_seed(0)
    x = fastnn.tensor(np.tile(np.arange(1.0, 7, dtype=np.float32), (600, 1, 1, 1)))
    first = F.random_affine(x, size=(1, 4), padding=(0, 1)).numpy()[:, 0, 0, 0]
    counts = np.bincount(first.astype(int))
    assert len(counts) == 5 and counts.min() > 80  # a place before the image, and four in it


@pytest.mark.parametrize("options, message", [
    (dict(size=20), "size is .20, 20."), (dict(padding=-1), "padding"),
    (dict(horizontal_flip=1.5), "horizontal_flip is 1.5"),
    (dict(degrees=-3), "degrees is -3"), (dict(scale=(1.2, 0.8)), "must not fall"), (dict(scale=0), "scale"),
    (dict(shear=90), "shear is 90"), (dict(shift=(0.1, 0.2, 0.3)), "shift is"), (dict(shift=float("nan")), "shift"),
    (dict(mean=[0.5], std=[0.5]), "mean"), (dict(hue=0.7), "hue is 0.7"), (dict(brightness=-1), "brightness is -1"),
    (dict(contrast=(2, 1)), "must not fall"), (dict(size=0), "size is 0"), (dict(elastic=(1.0, 0.0)), "sigma is 0")])
def test_refuses(images, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Augment(**options)(images)


@pytest.mark.parametrize("options", [dict(mean=[1.0]), dict(elastic=[1.0]), dict(noise=-1), dict(cutout=-2),
                                     dict(mean=[0.0], std=[0.0]), dict(mean=[np.nan], std=[1.0]), dict(elastic=5),
                                     dict(elastic=(1, 1), size=4)])
def test_refuses_before_work(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Augment(**options)


def test_flow_of_another_shape_is_refused(images):
    with pytest.raises(ValueError, match="argument 'flow'"):
        F.random_affine(images, flow=fastnn.zeros(16, 2, 3, 3))
    with pytest.raises(ValueError, match="1 or 3 channels"):
        F.color_jitter(fastnn.zeros(2, 2, 3, 3), 0.1)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_defaults_keep_labels(name):
    augment = Augment.for_data(name)
    shape = (4, 3, 32, 32) if name == "cifar10" else (4, 1, 28, 28)
    assert augment(fastnn.rand(*shape)).shape == shape
    if name in ("digits", "mnist"):
        assert augment.geometry["degrees"] <= 15 and not augment.geometry["horizontal_flip"]
        for wrong in (dict(degrees=16), dict(horizontal_flip=0.5), dict(vertical_flip=0.1)):
            with pytest.raises(ValueError, match=f"{next(iter(wrong)).split('_')[-1]}.*{name}"):
                Augment.for_data(name, **wrong)


def test_unknown_data_is_refused():
    with pytest.raises(ValueError, match="one of digits, mnist"):
        Augment.for_data("imagenet")


def test_loader_and_trainer_take_it():
    x = np.random.default_rng(0).uniform(0, 1, (40, 3, 8, 8)).astype(np.float32)
    y = np.arange(40) % 2
    weights = []
    for capture, threads in ((True, 1), (True, 3), (False, 1), (False, 2)):
        fastnn.manual_seed(3)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        loader = DataLoader((x, y), batch_size=8, shuffle=True, transform=Augment(padding=1, degrees=10, noise=0.1))
        with forced_threads(threads):
            Trainer(model, optimizer="sgd", metrics=["accuracy"], capture=capture).fit(loader, epochs=2, verbose=0)
        weights.append(model[0].weight.detach().numpy().copy())
    plain = DataLoader((x, y), batch_size=8)
    assert (next(iter(loader))[0].numpy() != next(iter(plain))[0].numpy()).any()
    for others in weights[1:]:
        np.testing.assert_array_equal(weights[0], others)
    with pytest.raises(TypeError, match="transform is 5"):
        DataLoader((x, y), transform=5)


def test_ranges_of_colours_may_be_arrays(images):
    changed = []
    for brightness in ((0.5, 0.9), np.array([0.5, 0.9])):
        fastnn.manual_seed(1)
        changed.append(Augment(brightness=brightness)(images))
    assert changed[0].equal(changed[1]) and not changed[0].equal(images)
