"""IDX files (also truncated and lying ones), array data sets, batches."""

import array
import ctypes
import gzip
import os
import resource
import struct

import numpy as np
import pytest

import fastnn
from fastnn.data import ArrayDataset, DataLoader, Normalize, digits, mnist, random_split, read_idx
from fastnn.train import Trainer

CODES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def header(code, *extents, rank=None, zeros=b"\0\0"):
    return zeros + bytes([code, len(extents) if rank is None else rank]) + struct.pack(f">{len(extents)}I", *extents)


def idx_bytes(array, code):
    return header(code, *array.shape) + array.astype(CODES[code]).tobytes()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("code", CODES)
def test_read_idx_gives_back_every_dtype(tmp_path, code, zipped):
    wanted = (np.arange(24).reshape(2, 3, 4) * 3 - (0 if code == 0x08 else 30)).astype(CODES[code])
    path = tmp_path / "data-idx"  # no suffix: gzip is told by content
    data = idx_bytes(wanted, code)
    path.write_bytes(gzip.compress(data) if zipped else data)
    found = read_idx(path)
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == wanted.dtype.newbyteorder("=") and found.dtype.isnative
    assert found.flags.writeable


def test_read_idx_accepts_an_empty_array(tmp_path):
    path = tmp_path / "empty"
    path.write_bytes(header(0x08, 0, 28, 28))
    assert read_idx(path).shape == (0, 28, 28)


BAD = {
    "no bytes": (b"", "found 0 bytes"),
    "three bytes": (b"\0\0\x08", "found 3 bytes"),
    "magic not zero": (header(0x08, 2, zeros=b"\1\0") + b"ab", "01 00 08 01"),
    "unknown type": (header(0x0A, 2) + b"ab", "00 00 0a 01"),
    "no dimensions": (header(0x08, rank=0) + b"a", "0 dimensions"),
    "too many dimensions": (header(0x08, rank=255) + bytes(2000), "255 dimensions"),
    "header cut": (header(0x08, 5, rank=3), "ends after 8 bytes, expected 16"),
    "data cut": (header(0x08, 2, 5) + b"123456789", r"\(2, 5\), 10 bytes, but only 9"),
    "nothing after the header": (header(0x0E, 2), "16 bytes, but only 0"),
    "bytes left over": (header(0x08, 2) + b"abc", "2 bytes, but more"),
    "wide elements cut": (header(0x0C, 2) + b"1234567", "8 bytes, but only 7"),
    "minus one as extent": (header(0x08, 2**32 - 1, 28) + b"abc", "4294967295, 28"),
    "larger than memory": (header(0x0E, *[2**32 - 1] * 5) + b"abc", "but only 3 bytes"),
    "no array of that shape": (header(0x08, 0, *[2**32 - 1] * 5), "impossible shape"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("case", BAD)
def test_read_idx_refuses(tmp_path, case, zipped):
    data, message = BAD[case]
    path = tmp_path / "liar.idx"
    path.write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_read_idx_refuses_damaged_gzip(tmp_path, damage):
    data = bytearray(gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, (50, 40)), 0x08)))
    if damage == "truncated":
        del data[len(data) // 2:]
    else:
        data[len(data) // 2] ^= 0xFF
        data[-6] ^= 0xFF  # the checksum too, in case the bit flip still decodes
    path = tmp_path / "damaged.gz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged gzip|but only|but more"):
        read_idx(path)


def test_lying_header_takes_no_memory(tmp_path):
    path = tmp_path / "liar"
    path.write_bytes(header(0x0E, 2**20, 2**14) + b"abc")  # 128 GiB announced
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="137,438,953,472 bytes, but only 3"):
        read_idx(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_idx(tmp_path / "absent")


@pytest.fixture
def small_mnist(tmp_path):
    """A folder with eight images, in MNIST's files."""
    rng = np.random.default_rng(1)
    for part, n in (("train", 6), ("t10k", 2)):
        images = idx_bytes(rng.integers(0, 256, (n, 28, 28)), 0x08)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(rng.integers(0, 10, n), 0x08))
    return tmp_path


def test_mnist(small_mnist, monkeypatch):
    train, test = mnist(small_mnist)
    x, y = train.arrays
    assert x.shape == (6, 1, 28, 28) and x.dtype == np.float32 and y.dtype == np.int64
    assert 0 <= x.min() and 0.99 < x.max() <= 1 and len(test) == 2
    raw = read_idx(small_mnist / "train-images-idx3-ubyte.gz")
    np.testing.assert_allclose(x[:, 0] * 255, raw, rtol=1e-6)
    monkeypatch.setenv("FASTNN_DATA", str(small_mnist))
    assert len(mnist()[0]) == 6
    assert mnist(dtype=np.float64)[0].arrays[0].dtype == np.float64
    raw = mnist(dtype=np.uint8)[0]
    assert raw.arrays[0].dtype == np.uint8
    np.testing.assert_array_equal(DataLoader(raw).gather(slice(0, 6))[0].numpy(), x[:6])


def test_mnist_in_its_subfolder(small_mnist, tmp_path):
    (tmp_path / "mnist").mkdir()
    for path in small_mnist.glob("*ubyte*"):
        path.rename(tmp_path / "mnist" / path.name)
    assert len(mnist(tmp_path)[0]) == 6


def test_mnist_lists_all_that_is_missing(small_mnist):
    (small_mnist / "train-labels-idx1-ubyte").unlink()
    (small_mnist / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="missing train-labels-idx1-ubyte.*t10k-images-idx3-ubyte"):
        mnist(small_mnist)


def test_mnist_folder_messages(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTNN_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="FASTNN_DATA"):
        mnist()
    with pytest.raises(FileNotFoundError, match="nowhere' does not exist"):
        mnist(tmp_path / "nowhere")


def test_mnist_refuses_files_that_do_not_belong(small_mnist):
    (small_mnist / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(3), 0x08))
    with pytest.raises(ValueError, match="2 images.*3 labels"):
        mnist(small_mnist)
    (small_mnist / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros((2, 1)), 0x08))
    with pytest.raises(ValueError, match=r"expected uint8 \(N,\)"):
        mnist(small_mnist)


def test_digits():
    pytest.importorskip("sklearn")
    train, test = digits(image_size=28)
    assert len(train) == 1438 and len(test) == 359
    x, y = test.arrays
    assert x.shape[1:] == (1, 28, 28) and x.max() == 1 and set(y.tolist()) == set(range(10))
    assert not x[:, :, :2].any() and not x[:, :, 26:].any()  # an even border
    small = digits()[1].arrays[0]
    np.testing.assert_array_equal(x[:, :, 3:26:3, 3:26:3], small)  # the middle of each 3x3 block
    with pytest.raises(ValueError, match="image_size is 7"):
        digits(image_size=7)
    for wrong in (dict(test_fraction=1.0), dict(test_fraction="x"), dict(image_size="x"), dict(dtype=int)):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            digits(**wrong)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'fastnn\[sklearn\]'"):
        digits()


def test_a_home_of_nobody_is_no_folder():
    with pytest.raises(FileNotFoundError, match="the data folder '~no such user' does not exist"):
        mnist("~no such user")


def test_array_dataset_refuses():
    with pytest.raises(ValueError, match=r"different lengths \[3, 2\]"):
        ArrayDataset(np.zeros((3, 1)), np.zeros(2))
    with pytest.raises(ValueError, match="at least one"):
        ArrayDataset()
    for wrong, message in (({"a": [1]}, "a dict"), (None, "a NoneType"), ((k for k in range(3)), "a generator"), ("ab", "a str")):
        with pytest.raises(ValueError, match=f"array 0 is {message}, expected shape"):
            ArrayDataset(wrong)
    with pytest.raises(ValueError, match="array 1 is a single number"):
        ArrayDataset(np.zeros(3), 5)


class Squares:
    """A data set as PyTorch's are: samples by number, without an IndexError behind the last."""

    def __init__(self, n, parts=2):
        self.n, self.parts = n, parts

    def __len__(self):
        return self.n

    def __getitem__(self, k):
        return (np.full((2, 3), k, np.float32), k * k, fastnn.ones(1))[: self.parts] if self.parts else [k] * (k + 1)


def test_subsets_keep_rows_together():
    data = ArrayDataset(np.arange(10), np.arange(10) * 2, transform=lambda x: x + 1)
    for indices, expected in (([3, 1], [3, 1]), (-1, [9]), (np.arange(10) > 7, [8, 9]), (range(3), [0, 1, 2]), ([], [])):
        part = data.subset(indices)
        assert part.arrays[0].tolist() == expected and part.arrays[1].tolist() == [2 * k for k in expected]
        assert part.transform is data.transform
    assert ArrayDataset(np.arange(1)).subset([True]).arrays[0].tolist() == [0]
    assert np.shares_memory(data.subset(slice(2, 4)).arrays[0], data.arrays[0])
    for wrong, error, text in (([10], IndexError, "reach from 10 to 10, but there are 10 samples"),
                               ([-11], IndexError, "from -11 to -11"),
                               ([True] * 11, IndexError, "are 11 booleans, but there are 10 samples"),
                               ([True] * 9, IndexError, "are 9 booleans, but there are 10 samples"),
                               ([0.5], TypeError, "indices is \\[0.5\\], but must be a slice"),
                               ([[1]], TypeError, "must be a slice")):
        with pytest.raises(error, match=text):
            data.subset(wrong)


def test_random_split_deals_every_sample_once():
    data = ArrayDataset(np.arange(10), np.arange(10) * 2)
    for lengths, counts in (([7, 3], [7, 3]), ([0.5, 0.25, 0.25], [6, 2, 2]), ([1 / 3] * 3, [4, 3, 3]), ([10, 0], [10, 0])):
        fastnn.manual_seed(4)
        parts = random_split(data, lengths)
        assert [len(part) for part in parts] == counts
        x = np.concatenate([part.arrays[0] for part in parts])
        assert sorted(x) == list(range(10)) and list(x) != list(range(10))
        assert all((part.arrays[1] == 2 * part.arrays[0]).all() for part in parts)
        again = random_split(data, lengths, generator=fastnn.Generator().manual_seed(4))
        assert [part.arrays[0].tolist() for part in again] == [part.arrays[0].tolist() for part in parts]
    for wrong, text in (([7, 4], "add up to 11, but must add up to 10"), ([-1, 11], "lengths is -1"), ([], "add up to 0")):
        with pytest.raises(ValueError, match=text):
            random_split(data, wrong)
    with pytest.raises(TypeError, match="data is a list, but must be an ArrayDataset"):
        random_split([1], [1])
    with pytest.raises(TypeError, match="lengths is 5, but must be a sequence of numbers"):
        random_split(data, 5)


def test_a_data_set_of_samples_becomes_arrays():
    data = ArrayDataset.from_samples(Squares(4, parts=3), transform=lambda x: x + 1)
    x, y, z = data.arrays
    assert x.shape == (4, 2, 3) and x[:, 0, 0].tolist() == [0, 1, 2, 3] and y.tolist() == [0, 1, 4, 9] and z.shape == (4, 1)
    assert next(iter(DataLoader(data, 4)))[0][:, 1, 1].tolist() == [1, 2, 3, 4]
    assert ArrayDataset.from_samples([[1.0, 2.0], [3.0, 4.0]]).arrays[1].tolist() == [2, 4]
    assert ArrayDataset.from_samples(np.arange(3)).arrays[0].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="samples is empty"):
        ArrayDataset.from_samples([])
    with pytest.raises(ValueError, match=r"samples have \[1, 2, 3\] parts, but must have as many each"):
        ArrayDataset.from_samples(Squares(3, parts=0))


@pytest.mark.parametrize("use, name", [
    (DataLoader, "ArrayDataset: array 0"), (ArrayDataset, "ArrayDataset: array 0"), (fastnn.tensor, "tensor: data"),
    (fastnn.as_tensor, "tensor: data"), (lambda data: Trainer(fastnn.nn.Linear(2, 2)).fit(data), "x")])
def test_a_data_set_of_samples_is_refused_where_arrays_are_wanted(use, name):
    """NumPy would ask it for samples for ever."""
    with pytest.raises(TypeError, match=f"{name} is a Squares, .*ArrayDataset.from_samples"):
        use(Squares(4))


def test_memory_is_an_array():
    for memory in (memoryview(b"ab"), (ctypes.c_ubyte * 2)(97, 98), array.array("B", b"ab"), np.frombuffer(b"ab", np.uint8)):
        assert fastnn.tensor(memory).tolist() == [97, 98]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
def test_loader_visits_every_sample_once(shuffle, drop_last):
    x = np.arange(20, dtype=np.float32).reshape(10, 2)
    y = np.arange(10)
    loader = DataLoader((x, y), batch_size=4, shuffle=shuffle, drop_last=drop_last)
    batches = [(bx.numpy(), by.numpy()) for bx, by in loader]
    assert [len(by) for _, by in batches] == [4, 4] + [2] * (not drop_last)
    assert len(loader) == len(batches) and loader.samples == sum(len(by) for _, by in batches)
    seen = np.concatenate([by for _, by in batches])
    assert len(set(seen.tolist())) == len(seen)
    assert (seen.tolist() == list(range(len(seen)))) != shuffle
    for bx, by in batches:
        np.testing.assert_array_equal(bx, x[by])


def test_loader_order_follows_the_seed():
    def orders(threads):
        fastnn.manual_seed(3)
        fastnn.set_num_threads(threads)
        loader = DataLoader((np.arange(1000),), batch_size=300, shuffle=True)
        return [np.concatenate([batch.numpy() for (batch,) in loader]) for _ in range(2)]

    threads = fastnn.get_num_threads()
    try:
        first, second = orders(1), orders(4)
    finally:
        fastnn.set_num_threads(threads)
    np.testing.assert_array_equal(first, second)
    assert (first[0] != first[1]).any()  # a new order for every pass


def test_loader_keeps_four_dimensional_data():
    x = np.random.default_rng(0).normal(size=(6, 3, 5, 4)).astype(np.float32)
    for shuffle in (False, True):
        (bx, by), = DataLoader((x, np.arange(6)), batch_size=6, shuffle=shuffle)
        np.testing.assert_array_equal(bx.numpy(), x[by.numpy()])


@pytest.mark.parametrize("size", [0, -1, 2.5, "8", True, None])
def test_loader_refuses_batch_size(size):
    with pytest.raises(ValueError, match="batch_size is"):
        DataLoader((np.zeros(3),), batch_size=size)


@pytest.mark.skipif(not os.environ.get("FASTNN_DATA"), reason="FASTNN_DATA does not say where MNIST is")
def test_real_mnist():
    train, test = mnist()
    assert len(train) == 60000 and len(test) == 10000
    assert np.bincount(test.arrays[1]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_normalize():
    x = np.arange(48, dtype=np.uint8).reshape(2, 3, 2, 4)
    mean, std = [1.0, 2.0, 3.0], [0.5, 2.0, 4.0]
    wanted = (x / 10 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    found = Normalize(mean, std, scale=10, dtype="float64")(fastnn.from_numpy(x))
    np.testing.assert_array_equal(found.numpy(), wanted)
    rows = Normalize(mean, 2.0)(fastnn.tensor(np.ones((2, 3), np.float32)))
    np.testing.assert_allclose(rows.numpy(), [(1 / 255 - np.array(mean)) / 2] * 2, rtol=1e-6)
    for wrong, message in (({"std": 0.0}, "std is 0.0"), ({"scale": -1}, "scale is -1"), ({"mean": np.nan}, "mean is nan"),
                           ({"mean": [0, 1], "std": [1, 1, 1]}, "mean has 2 channels, but std has 3")):
        with pytest.raises(ValueError, match=message):
            Normalize(**wrong)
    with pytest.raises(TypeError, match="dtype is 'uint8'"):
        Normalize(dtype="uint8")
    with pytest.raises(TypeError, match="ArrayDataset: transform is 3, but must be callable"):
        ArrayDataset(x, transform=3)
