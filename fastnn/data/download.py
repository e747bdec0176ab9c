"""Files from the network, kept only if their checksum is right."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..checks import among

_BLOCK = 1 << 20
_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_FASHION = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"

# For each data set its subfolder, and its files: address, and MD5 as the data sets' authors publish it.
SOURCES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "mnist": ("mnist", [
        (_MNIST + "train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        (_MNIST + "train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432"),
        (_MNIST + "t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3"),
        (_MNIST + "t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c")]),
    "fashion_mnist": ("fashion-mnist", [
        (_FASHION + "train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        (_FASHION + "train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
        (_FASHION + "t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
        (_FASHION + "t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310")]),
    "cifar10": ("cifar-10-batches-bin", [
        ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530")]),
}


def fetch(url: str, path: str | os.PathLike, checksum: str, *, opener: Callable[[str], Any] | None = None) -> Path:
    """Download one file, unless it is there already and right.

    Parameters
    ----------
    url : str
        Its address.
    path : str or path-like
        Where to put it; it appears there whole and checked, or not at all.
    checksum : str
        ``"md5:..."`` or ``"sha256:..."``, the digest in hexadecimal digits.
    opener : callable, optional
        ``opener(url)`` gives an open binary stream and context manager; by default ``urllib.request.urlopen``.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ValueError
        If `checksum` has another form, or what came does not have it.
    OSError
        If the network (ConnectionError, which names address and place) or the disk fails.
    """
    kind, _, digest = checksum.partition(":")
    if kind not in ("md5", "sha256") or len(digest) != 2 * hashlib.new(kind, usedforsecurity=False).digest_size:
        raise ValueError(f"fetch: checksum is {checksum!r}, but must be 'md5:' or 'sha256:' and the digest in "
                         "hexadecimal")
    path = Path(path)
    if path.is_file():
        with open(path, "rb") as file:
            if _digest(kind, file) == digest.lower():
                return path
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        found = _receive(opener or _open, url, part, kind)
        if found != digest.lower():
            raise ValueError(f"{url}: found {kind} {found}, expected {digest}; nothing was kept")
        os.replace(part, path)
    except ConnectionError as error:
        raise ConnectionError(f"{error}; if it came by another way, its place is {path}") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _receive(opener: Callable[[str], Any], url: str, path: Path, kind: str) -> str:
    """Writes what is behind an address into a file; returns its digest. All that networks raise becomes a ConnectionError."""
    try:
        with opener(url) as stream, open(path, "wb") as file:
            digest, missing = _digest(kind, stream, file), getattr(stream, "length", None)
            if missing:  # an HTTPResponse that ends too early says nothing else of it
                raise ConnectionError(f"the connection ended {missing:,} bytes before the file does")
            return digest
    except Exception as error:  # urllib's errors have a reason; the disk's name a file and go on as they are
        from http.client import HTTPException  # what a broken answer raises

        if not (hasattr(error, "reason") and isinstance(error, OSError)
                or isinstance(error, (ConnectionError, TimeoutError, HTTPException))):
            raise
        raise ConnectionError(f"{url} cannot be fetched ({getattr(error, 'reason', error)})") from error


def _open(url: str) -> Any:
    """The stream behind an address; a server that says nothing for half a minute is an error."""
    from urllib.request import urlopen  # costs as much to import as all of fastnn.data

    return urlopen(url, timeout=30)


def _digest(kind: str, stream: Any, copy: Any = None) -> str:
    """The digest of all that is left of a stream, which goes to `copy` too."""
    state = hashlib.new(kind, usedforsecurity=False)
    while block := stream.read(_BLOCK):
        state.update(block)
        if copy is not None:
            copy.write(block)
    return state.hexdigest()


def download(name: str, data_dir: str | os.PathLike | None = None, *,
             opener: Callable[[str], Any] | None = None) -> Path:
    """Download a data set into a subfolder of the data folder, where `mnist`, `fashion_mnist` or `cifar10` finds it.

    Parameters
    ----------
    name : {"mnist", "fashion_mnist", "cifar10"}
        Which one.
    data_dir : str or path-like, optional
        The data folder, made if need be; by default the environment's ``FASTNN_DATA``.
    opener : callable, optional
        As for `fetch`.

    Returns
    -------
    pathlib.Path
        The subfolder.

    Raises
    ------
    ValueError
        If the name is another, or a file does not have its checksum.
    FileNotFoundError
        If neither `data_dir` nor ``FASTNN_DATA`` is given.
    OSError
        If the network or the disk fails.
    """
    among("download: name", name, SOURCES)
    data_dir = data_dir or os.environ.get("FASTNN_DATA")
    if not data_dir:
        raise FileNotFoundError("no data folder: pass data_dir (--data-dir) or set FASTNN_DATA")
    subfolder, files = SOURCES[name]
    folder = Path(os.path.expanduser(data_dir)) / subfolder
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for url, checksum in files:
            path = fetch(url, folder / url.rpartition("/")[2], checksum, opener=opener)
            if path.name.endswith(".tar.gz"):
                _unpack(path, folder)
    finally:
        if made and not any(folder.iterdir()):  # the first file did not come
            folder.rmdir()
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    """The archive's plain files, all into one folder, whatever folders their names have."""
    import tarfile

    with tarfile.open(archive) as pack:
        for member in pack:
            name = Path(member.name).name
            if not member.isfile() or not name:
                continue
            part = folder / f"{name}.{os.getpid()}.part"
            try:
                with pack.extractfile(member) as source, open(part, "wb") as file:
                    while block := source.read(_BLOCK):
                        file.write(block)
                os.replace(part, folder / name)
            finally:
                part.unlink(missing_ok=True)
