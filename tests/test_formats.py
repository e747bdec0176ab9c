"""CIFAR-10's records, Fashion-MNIST, tables, text, folders of images, and downloads that are checked."""

import gzip
import hashlib
import io
import os
import tarfile
from http.client import BadStatusLine, HTTPResponse, IncompleteRead

import numpy as np
import pytest

from fastnn.data import (CharacterText, DataLoader, cifar10, download, fashion_mnist, fetch, image_folder, mnist,
                         read_cifar10, read_csv)
from fastnn.data.download import SOURCES  # the module: fastnn.data.download is the function


def records(n, seed=0):
    data = np.random.default_rng(seed).integers(0, 256, (n, 3073), dtype=np.uint8)
    data[:, 0] %= 10
    return data


@pytest.fixture
def cifar_folder(tmp_path):
    """Six files of one to six records."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        (folder / f"{name}.bin").write_bytes(records(k + 1, k).tobytes())
    return tmp_path


def test_cifar10(cifar_folder, monkeypatch):
    train, test = cifar10(cifar_folder)
    assert len(train) == 15 and len(test) == 6
    expected = records(2, 1)[1]
    np.testing.assert_array_equal(train.arrays[0][2].ravel(), expected[1:])
    assert train.arrays[1][2] == expected[0] and train.arrays[0].shape == (15, 3, 32, 32)
    batch = next(iter(DataLoader(train, batch_size=4)))[0].numpy()
    np.testing.assert_allclose(batch, train.arrays[0][:4] / 255, rtol=1e-6)
    assert batch.dtype == np.float32
    monkeypatch.setenv("FASTNN_DATA", str(cifar_folder / "cifar-10-batches-bin"))
    floats = cifar10(dtype=np.float64)[1].arrays[0]
    np.testing.assert_allclose(floats, test.arrays[0] / 255)


def test_cifar10_refuses(cifar_folder):
    folder = cifar_folder / "cifar-10-batches-bin"
    cut = records(2).tobytes()[:-1]
    for data, message in ((b"", "found 0 bytes"), (cut, "6,145 bytes, expected a positive multiple of 3,073"),
                          (bytes([10]) * 3073, "record 0 has class 10")):
        (folder / "test_batch.bin").write_bytes(data)
        with pytest.raises(ValueError, match=f"test_batch.bin.*{message}"):
            read_cifar10(folder / "test_batch.bin")
    (folder / "data_batch_3.bin").unlink()
    (folder / "test_batch.bin").unlink()
    with pytest.raises(FileNotFoundError, match="missing data_batch_3.bin, test_batch.bin"):
        cifar10(cifar_folder)
    with pytest.raises(ValueError, match="dtype is"):
        cifar10(cifar_folder, dtype=int)


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def idx_files(folder, value):
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(np.full((2, 28, 28), value)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(2)))


def test_fashion_mnist_and_mnist_are_told_apart(tmp_path):
    idx_files(tmp_path / "mnist", 51)
    with pytest.raises(FileNotFoundError, match="Fashion-MNIST.*missing train-images"):
        fashion_mnist(tmp_path)
    idx_files(tmp_path / "fashion-mnist", 102)
    assert mnist(tmp_path)[0].arrays[0].max() == np.float32(0.2)
    assert fashion_mnist(tmp_path)[1].arrays[0].max() == np.float32(0.4)
    assert len(fashion_mnist(tmp_path / "fashion-mnist")[0]) == 2


def test_read_csv(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,kind,b\n1,cat,2.5\n\n-3e1,ant,4\n5,cat,nan\n")
    x, y, names, classes = read_csv(path, "kind")
    np.testing.assert_array_equal(x, np.array([[1, 2.5], [-30, 4], [5, np.nan]], np.float32))
    assert y.tolist() == [1, 0, 1] and y.dtype == np.int64 and names == ["a", "b"] and classes == ["ant", "cat"]
    path.write_text("1;2\n3;4\n")
    x, y, names, classes = read_csv(path, delimiter=";", dtype=np.float64)
    assert x.tolist() == [[1], [3]] and y.tolist() == [2, 4] and names == ["column 0"] and classes is None
    assert len(read_csv(path, delimiter=";", header=True).x) == 1
    assert read_csv(path, np.int64(0), delimiter=";").y.tolist() == [1, 3]


@pytest.mark.parametrize("text, target, message", [
    ("", -1, "no lines"), ("a,b\n1,2\n3\n", -1, "line 3: found 1 fields, expected 2"),
    ("a,b\n1,2\nx,4\n", -1, "line 3, column 'a': found 'x'"),
    ("a,b\n1,2\n", "c", "target is 'c', expected .* one of a, b"),
    ("a,b\n1,2\n", 2, "target is 2, expected a number from -2 to 1"),
    ("a,b\n,2\n", -1, "line 2, column 'a': found ''"),
    ("a,b\n1,2\n3,\n", -1, "line 3, column 'b': found '', expected a target"),
    ("1,x\n2, \n", -1, "line 2, column 'column 1': found '', expected a target"),
    ("a,b\n1,NA\n3,4\n", -1, "line 2, column 'b': found 'NA', expected a target"),
    ("a,b\n", -1, "found names only"), ("a;b\n1;2\n", -1, "found one column, .* delimiter, which is ','")])
def test_read_csv_refuses(tmp_path, text, target, message):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_csv(path, target)


def test_read_csv_refuses_what_is_no_text(tmp_path):
    path = tmp_path / "table.csv"
    for data in ("größe,b\n1,2\n".encode("latin-1"), "a,b\n1,2\n".encode("utf-16"), b"\x93NUMPY"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="table.csv: not a table of UTF-8 text"):
            read_csv(path)
    for delimiter in ("", ";;", None):
        with pytest.raises(ValueError, match=f"delimiter is {delimiter!r}, but must be one character"):
            read_csv(path, delimiter=delimiter)
    path.write_text("a,b\n1,NA\n2,none\n")  # texts among texts
    assert read_csv(path).classes == ["NA", "none"]


def test_character_text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("Größe: groß.\r\n".encode())
    text = CharacterText.read(path)
    assert text.decode(text.codes) == "Größe: groß.\n" and len(text) == 13
    assert list(text.vocabulary) == sorted(set("Größe: groß.\n"))
    x, y = text.sequences(4, step=3).arrays
    assert x.shape == y.shape == (3, 4) and text.decode(x[1]) == "ße: " and text.decode(y[1]) == "e: g"
    path.write_bytes(b"\xef\xbb\xbfab")
    assert CharacterText.read(path).vocabulary == "ab"
    path.write_bytes(b"\xe9")
    with pytest.raises(ValueError, match=f"{path.name}: not UTF-8 text"):
        CharacterText.read(path)
    for code in (-1, 20):
        with pytest.raises(IndexError, match=f"codes hold {code}, expected 0 to {len(text.vocabulary) - 1}"):
            text.decode([0, code])
    other = CharacterText("gr", text.vocabulary)
    assert other.decode(other.codes) == "gr"
    with pytest.raises(ValueError, match="lacks 'x'"):
        text.encode("x")
    with pytest.raises(ValueError, match="length is 13, but must be below the text's 13"):
        text.sequences(13)
    assert len(text.sequences(12)) == 1
    for wrong, message in ((lambda: CharacterText(""), "empty"), (lambda: text.sequences(0), "length is 0"),
                           (lambda: text.sequences(2, 0), "step is 0")):
        with pytest.raises(ValueError, match=message):
            wrong()


def test_image_folder(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / name).mkdir()
        for k in range(2):
            image.new("RGB", (7, 5 + k), colour).save(tmp_path / name / f"{k}.png")
        (tmp_path / name / "notes.txt").write_text("not an image")
    dataset, classes = image_folder(tmp_path, (4, 6))
    x, y = dataset.arrays
    assert classes == ["blue", "red"] and y.tolist() == [0, 0, 1, 1] and x.shape == (4, 3, 4, 6)
    assert (x[0] == np.array([0, 0, 255])[:, None, None]).all() and (x[3, 0] == 255).all()
    assert image_folder(tmp_path, 4, grey=True, dtype=np.float32).dataset.arrays[0].shape == (4, 1, 4, 4)
    image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "red" / "2.png")  # of 65,535, black nearly
    assert (image_folder(tmp_path, 4).dataset.arrays[0][-1] == 1).all()
    image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "red" / "2.tiff")
    with pytest.raises(ValueError, match="2.tiff cannot be read as an image .its pixels are 32-bit numbers"):
        image_folder(tmp_path, 4)
    (tmp_path / "red" / "2.tiff").unlink()
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="0.png cannot be read as an image .*bomb"):
        patch.setattr(image, "MAX_IMAGE_PIXELS", 4)
        image_folder(tmp_path, 4)
    (tmp_path / "red" / "2.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="2.png cannot be read as an image"):
        image_folder(tmp_path, 4)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no images in none"):
        image_folder(tmp_path, 4)
    with pytest.raises(ValueError, match="no subfolders"):
        image_folder(tmp_path / "none", 4)


def test_image_folder_without_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"pip install 'fastnn\[images\]'"):
        image_folder(tmp_path, 4)


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_fetch_keeps_only_what_is_right(tmp_path, kind):
    data = os.urandom(3 << 20)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    digest = hashlib.new(kind, data).hexdigest()
    assert fetch(source.as_uri(), target, f"{kind}:{digest}").read_bytes() == data
    source.unlink()  # what is there and right is not fetched again
    fetch(source.as_uri(), target, f"{kind}:{digest.upper()}")
    source.write_bytes(data[:-1])
    target.write_bytes(b"old and wrong")
    with pytest.raises(ValueError, match=f"found {kind} .*expected {digest}"):
        fetch(source.as_uri(), target, f"{kind}:{digest}")
    assert target.read_bytes() == b"old and wrong" and sorted(os.listdir(tmp_path)) == ["source", "target"]
    with pytest.raises(ConnectionError, match=r"/absent cannot be fetched \(.*; if it came by another way, its place is .*target"):
        fetch((tmp_path / "absent").as_uri(), target, f"{kind}:{digest}")
    with pytest.raises(FileNotFoundError, match="nowhere"):  # the disk's own
        fetch(source.as_uri(), tmp_path / "nowhere" / "target", f"{kind}:{digest}")
    for wrong in (digest, f"crc32:{digest}", f"{kind}:12"):
        with pytest.raises(ValueError, match="checksum is"):
            fetch(source.as_uri(), target, wrong)


class Broken(io.BytesIO):
    """A stream that ends in an error after its bytes."""

    def __init__(self, data, error):
        super().__init__(data)
        self.error = error

    def read(self, size=-1):
        data = super().read(size)
        if not data:
            raise self.error
        return data


@pytest.mark.parametrize("error", [TimeoutError("timed out"), ConnectionResetError(104, "reset"), KeyboardInterrupt(),
                                   IncompleteRead(b"begin", 9), BadStatusLine("?")])
def test_a_download_that_breaks_off_leaves_nothing(tmp_path, error):
    wanted = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ConnectionError
    with pytest.raises(wanted) as caught:
        download("mnist", tmp_path / "data", opener=lambda url: Broken(b"begin", error))
    if wanted is ConnectionError:
        assert "train-images-idx3-ubyte.gz cannot be fetched (" in str(caught.value)
    assert os.listdir(tmp_path / "data") == []


def test_a_connection_that_ends_early_is_told_as_such(tmp_path):
    """By what is left of an answer's announced length: a wrong checksum would say that there is another file."""
    answer = HTTPResponse(FakeSocket(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nbegin"))
    answer.begin()
    with pytest.raises(ConnectionError, match=r"cannot be fetched \(the connection ended 895 bytes before the file does\)"):
        fetch("http://there/file", tmp_path / "file", "md5:" + "0" * 32, opener=lambda url: answer)
    assert not os.listdir(tmp_path)


class FakeSocket(io.BytesIO):
    """What an HTTPResponse reads from."""

    def makefile(self, mode):
        return self


def test_download_puts_files_where_readers_look(tmp_path, monkeypatch):
    pack = io.BytesIO()
    with tarfile.open(fileobj=pack, mode="w:gz") as archive:
        for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
            entry = tarfile.TarInfo(f"../../bin/{name}.bin")  # such a name must not lead out of the folder
            entry.size = 3073
            archive.addfile(entry, io.BytesIO(records(1, k).tobytes()))
    served = {}

    def serve(name, files):
        monkeypatch.setitem(SOURCES, name, (SOURCES[name][0], [(url, f"md5:{hashlib.md5(data).hexdigest()}")
                                                               for url, data in files]))
        served.update(files)

    serve("cifar10", [("https://there/cifar-10-binary.tar.gz", pack.getvalue())])
    idx_files(tmp_path / "source", 51)
    files = (tmp_path / "source").iterdir()
    serve("fashion_mnist", [(f"https://there/{path.name}", path.read_bytes()) for path in files])
    folder = tmp_path / "data"
    for name in ("cifar10", "fashion_mnist"):
        found = download(name, folder, opener=lambda url: io.BytesIO(served[url]))
        assert found.parent == folder
    assert len(cifar10(folder)[0]) == 5 and len(fashion_mnist(folder)[0]) == 2
    assert sorted(os.listdir(tmp_path)) == ["data", "source"]
    with pytest.raises(ValueError, match="one of mnist, fashion_mnist, cifar10"):
        download("imagenet", folder)
    monkeypatch.delenv("FASTNN_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="FASTNN_DATA"):
        download("mnist")
