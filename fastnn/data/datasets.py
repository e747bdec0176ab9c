"""Data sets held in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import array_like, real, takes, whole
from ..io.extras import require
from ..random import Generator, randperm
from .idx import read_idx
from .transforms import Normalize

_PARTS = {"train": "train", "test": "t10k"}
_KINDS = {"images": ("images-idx3-ubyte", "images.idx3-ubyte"), "labels": ("labels-idx1-ubyte", "labels.idx1-ubyte")}


class ArrayDataset:
    """Arrays that share their first axis: samples and their targets.

    Parameters
    ----------
    *arrays : array_like
        One or more arrays of shape (N, ...), kept without copying where possible.
    transform : callable, optional
        Done to the rows of the first array, a tensor, when a batch is gathered; made of tensor operations (such as
        `Normalize`), so that a captured step does it, too. ``arrays`` and ``dataset[...]`` are what is stored.

    Attributes
    ----------
    arrays : tuple of numpy.ndarray
        The arrays; ``x, y = dataset.arrays``.

    Raises
    ------
    ValueError
        If there is no array, one has no axis, or the lengths differ.
    TypeError
        If `transform` cannot be called, or an array gives elements one by one (see `from_samples`).

    Examples
    --------
    >>> import numpy as np
    >>> data = ArrayDataset(np.zeros((6, 4)), np.arange(6))
    >>> len(data), data[1:3][1].tolist()
    (6, [1, 2])
    """

    def __init__(self, *arrays: Any, transform: Callable[[Any], Any] | None = None) -> None:
        if not arrays:
            raise ValueError("ArrayDataset: expected at least one array")
        self.transform = takes("ArrayDataset: transform", transform, "x")
        for position, array in enumerate(arrays):
            array_like(f"ArrayDataset: array {position}", array)
        self.arrays = tuple(np.asarray(array) for array in arrays)
        for position, array in enumerate(self.arrays):
            if array.ndim == 0:
                what = f"a {type(arrays[position]).__name__}" if array.dtype.kind in "OUS" else "a single number"
                raise ValueError(f"ArrayDataset: array {position} is {what}, expected shape (N, ...)")
        lengths = [len(array) for array in self.arrays]
        if len(set(lengths)) > 1:
            raise ValueError(f"ArrayDataset: the arrays have different lengths {lengths}")

    @classmethod
    def from_samples(cls, samples: Any, transform: Callable[[Any], Any] | None = None) -> ArrayDataset:
        """The arrays of a data set that gives one sample at a time, as PyTorch's with ``__getitem__`` and ``__len__`` do.

        Each sample is asked for once: what a data set changes at random belongs in a `DataLoader`'s transform.

        Parameters
        ----------
        samples : object
            ``samples[0]`` to ``samples[len(samples) - 1]`` are array_like, or tuples of array_like (input, target, ...);
            alike in number and shapes.
        transform : callable, optional
            As for `ArrayDataset`.

        Returns
        -------
        ArrayDataset
            One array for each part of a sample, with the samples along its first axis.

        Raises
        ------
        ValueError
            If there is no sample, or they have different numbers of parts or shapes.
        """
        rows = [samples[k] for k in range(len(samples))]
        if not rows:
            raise ValueError("from_samples: samples is empty, but needs at least one sample")
        rows = [row if isinstance(row, (tuple, list)) else (row,) for row in rows]
        if len({len(row) for row in rows}) > 1:
            raise ValueError(f"from_samples: samples have {sorted({len(row) for row in rows})} parts, but must have as many each")
        return cls(*(np.stack([np.asarray(part) for part in parts]) for parts in zip(*rows)), transform=transform)

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[np.ndarray, ...]:
        """The rows `index` (an integer, slice or index array) of every array."""
        try:
            return tuple(array[index] for array in self.arrays)
        except OverflowError:
            raise IndexError(f"ArrayDataset: index is {index!r}, but there are {len(self)} samples") from None

    def subset(self, indices: Any) -> ArrayDataset:
        """Some of the samples, with the same `transform` (what PyTorch's ``Subset(dataset, indices)`` does).

        Parameters
        ----------
        indices : slice or array_like of int or bool
            Which, in this order; a slice copies nothing.

        Returns
        -------
        ArrayDataset
            Those rows of every array.

        Raises
        ------
        TypeError
            If `indices` are not integers or booleans.
        IndexError
            If there is no such sample, or booleans are not as many as there are samples.
        """
        if not isinstance(indices, slice):
            given, indices = indices, np.atleast_1d(np.asarray(indices))
            indices = indices.astype(np.int64) if indices.size == 0 else indices
            if indices.ndim != 1 or indices.dtype.kind not in "iub":
                raise TypeError(f"subset: indices is {given!r}, but must be a slice, integers or booleans")
            if indices.dtype == bool:
                if len(indices) != len(self):
                    raise IndexError(f"subset: indices are {len(indices)} booleans, but there are {len(self)} samples")
            elif indices.size and not -len(self) <= indices.min() <= indices.max() < len(self):
                raise IndexError(f"subset: indices reach from {indices.min()} to {indices.max()}, but there are {len(self)} "
                                 "samples")
        return ArrayDataset(*self[indices], transform=self.transform)


def random_split(data: ArrayDataset, lengths: Sequence[float], generator: Generator | None = None) -> list[ArrayDataset]:
    """Share the samples out at random.

    Parameters
    ----------
    data : ArrayDataset
        All samples.
    lengths : sequence of int or float
        How many each part gets, as many as there are together; or which fractions, 1 together: rounded down, and what is
        left goes to the first parts, one each.
    generator : fastnn.Generator, optional
        Where the order comes from; the default one unless given.

    Returns
    -------
    list of ArrayDataset
        The parts, as copies with the same transform.

    Raises
    ------
    TypeError
        If `data` is no ArrayDataset, or `lengths` no sequence.
    ValueError
        If a length is negative, or they are not so many as `data` has samples and do not add up to 1.

    Notes
    -----
    Source: torch.utils.data.random_split.

    Examples
    --------
    >>> import numpy as np
    >>> train, test = random_split(ArrayDataset(np.arange(10)), [0.8, 0.2])
    >>> len(train), len(test)
    (8, 2)
    """
    if not isinstance(data, ArrayDataset):
        raise TypeError(f"random_split: data is a {type(data).__name__}, but must be an ArrayDataset")
    order, counts = randperm(len(data), generator=generator).numpy(), _counts(lengths, len(data))
    return [data.subset(part) for part in np.split(order, np.cumsum(counts)[:-1])]


def _counts(lengths: Sequence[float], total: int) -> list[int]:
    """The lengths of `random_split` as numbers of samples."""
    if np.ndim(lengths) != 1:
        raise TypeError(f"random_split: lengths is {lengths!r}, but must be a sequence of numbers")
    wanted = [real("random_split: lengths", length, 0) for length in lengths]
    whole_numbers = all(isinstance(length, (int, np.integer)) for length in lengths)
    if wanted and whole_numbers and sum(wanted) == total:
        return [int(length) for length in wanted]
    if not wanted or not math.isclose(sum(wanted), 1):
        raise ValueError(f"random_split: lengths {list(lengths)} add up to {sum(wanted):g}, but must add up to {total}, the "
                         "number of samples, or, as fractions, to 1")
    counts = [math.floor(total * fraction) for fraction in wanted]
    for k in range(total - sum(counts)):
        counts[k % len(counts)] += 1
    return counts


def data_folder(data_dir: str | os.PathLike | None = None) -> Path:
    """The folder to look for data sets in: `data_dir`, or else the environment's ``FASTNN_DATA``.

    Parameters
    ----------
    data_dir : str or path-like, optional
        The folder, if the caller named one.

    Returns
    -------
    pathlib.Path
        An existing folder.

    Raises
    ------
    FileNotFoundError
        If neither names an existing folder.
    """
    if data_dir is None:
        data_dir = os.environ.get("FASTNN_DATA")
        if not data_dir:
            raise FileNotFoundError("no data folder: pass data_dir (--data-dir) or set FASTNN_DATA")
    folder = Path(os.path.expanduser(data_dir))  # leaves the name of an unknown user's home as it is
    if not folder.is_dir():
        raise FileNotFoundError(f"the data folder {os.fspath(folder)!r} does not exist")
    return folder


def mnist(data_dir: str | os.PathLike | None = None, *, dtype: Any = np.float32) -> tuple[ArrayDataset, ArrayDataset]:
    """MNIST, or any data set in its four IDX files (Fashion-MNIST, KMNIST), plain or gzipped.

    Parameters
    ----------
    data_dir : str or path-like, optional
        Folder that holds the files, directly or in a subfolder ``mnist``; by default the
        environment's ``FASTNN_DATA``.
    dtype : NumPy dtype
        Type of the images, float32 or float64; uint8 keeps the files' bytes, and batches become float32 as they are
        gathered: the same numbers in a quarter of the memory.

    Returns
    -------
    train, test : ArrayDataset
        Each with images (N, 1, H, W) scaled to [0, 1] and labels (N,) as int64.

    Raises
    ------
    FileNotFoundError
        If files are missing; all missing ones are listed.
    ValueError
        If a file is not what it should be, images and labels differ in number, or `dtype` is another.
    """
    return _idx_parts("mnist", "MNIST", ("", "mnist"), data_dir, dtype)


def fashion_mnist(data_dir: str | os.PathLike | None = None, *,
                  dtype: Any = np.float32) -> tuple[ArrayDataset, ArrayDataset]:
    """Fashion-MNIST: MNIST's files, with pictures of clothes.

    Parameters
    ----------
    data_dir : str or path-like, optional
        Folder that holds the files in a subfolder ``fashion-mnist`` or ``fashion_mnist``, or directly; by default the
        environment's ``FASTNN_DATA``.
    dtype : NumPy dtype
        As for `mnist`.

    Returns
    -------
    train, test : ArrayDataset
        Each with images (N, 1, 28, 28) scaled to [0, 1] and labels (N,) as int64.

    Raises
    ------
    FileNotFoundError
        If files are missing; all missing ones are listed.
    ValueError
        As for `mnist`.

    References
    ----------
    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms",
    arXiv:1708.07747, 2017.
    """
    return _idx_parts("fashion_mnist", "Fashion-MNIST", ("fashion-mnist", "fashion_mnist", ""), data_dir, dtype)


def _idx_parts(name: str, title: str, subfolders: Sequence[str], data_dir: str | os.PathLike | None,
               dtype: Any) -> tuple[ArrayDataset, ArrayDataset]:
    """Training and test part of a data set in MNIST's four files, sought in the subfolders in turn."""
    dtype, folder = image_type(name, dtype, np.uint8), data_folder(data_dir)
    places = [folder / subfolder for subfolder in subfolders]
    paths, missing = {}, []
    for part, prefix in _PARTS.items():
        for kind, names in _KINDS.items():
            found = _find(places, [f"{prefix}-{name}{zipped}" for name in names for zipped in ("", ".gz")])
            paths[part, kind] = found
            if found is None:
                missing.append(f"{prefix}-{names[0]}[.gz]")
    if missing:
        raise FileNotFoundError(f"{title} in {os.fspath(folder)!r}: missing {', '.join(missing)}")
    train, test = (_mnist_part(paths[part, "images"], paths[part, "labels"], dtype) for part in _PARTS)
    return train, test


def image_type(name: str, dtype: Any, *more: type) -> np.dtype:
    """`dtype` as one that images can have.

    Parameters
    ----------
    name : str
        Who asks, in messages.
    dtype : NumPy dtype
        What the user gave.
    *more : type
        What is allowed besides float32 and float64.

    Returns
    -------
    numpy.dtype

    Raises
    ------
    ValueError
        If it is another.
    """
    try:
        result = np.dtype(dtype)
    except TypeError:
        result = None
    allowed = (np.float32, np.float64, *more)
    if result not in allowed:
        names = " or ".join(kind.__name__ for kind in allowed)
        raise ValueError(f"{name}: dtype is {dtype!r}, but must be {names}")
    return result


def _find(places: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first of `names` that exists in one of `places`."""
    candidates = (place / name for place in places for name in names)
    return next((path for path in candidates if path.is_file()), None)


def _mnist_part(images_path: Path, labels_path: Path, dtype: np.dtype) -> ArrayDataset:
    """One part of MNIST: (N, H, W) bytes and (N,) bytes, as `mnist` returns them."""
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise ValueError(f"{images_path}: found {images.dtype} data of shape {images.shape}, expected uint8 (N, H, W)")
    if labels.ndim != 1 or labels.dtype != np.uint8:
        raise ValueError(f"{labels_path}: found {labels.dtype} data of shape {labels.shape}, expected uint8 (N,)")
    if len(images) != len(labels):
        raise ValueError(f"{images_path} holds {len(images)} images, but {labels_path} holds {len(labels)} labels")
    labels = labels.astype(np.int64)
    if dtype == np.uint8:
        return ArrayDataset(images[:, None], labels, transform=Normalize())
    return ArrayDataset(np.divide(images[:, None], dtype.type(255), dtype=dtype), labels)


def digits(*, image_size: int = 8, test_fraction: float = 0.2,
           dtype: Any = np.float32) -> tuple[ArrayDataset, ArrayDataset]:
    """The 1,797 handwritten 8x8 digits that scikit-learn carries: no network and no files needed.

    The split is always the same one: drawn once with a fixed seed, so that both parts hold all writers.

    Parameters
    ----------
    image_size : int
        Side of the images, at least 8: each pixel is repeated ``image_size // 8`` times each way and
        the rest is an even border of zeros (28 gives 24 pixels of digit and a border of 2).
    test_fraction : float
        Share of the samples in the test part, between 0 and 1.
    dtype : NumPy dtype
        Type of the images, float32 or float64.

    Returns
    -------
    train, test : ArrayDataset
        Each with images (N, 1, image_size, image_size) scaled to [0, 1] and labels (N,) as int64.

    Raises
    ------
    ImportError
        If the extra ``sklearn`` is not installed.
    ValueError
        If `image_size` or `test_fraction` is out of range, or `dtype` is another.
    """
    image_size, dtype = whole("digits: image_size", image_size, 8), image_type("digits", dtype)
    if not 0 < real("digits: test_fraction", test_fraction, 0, 1) < 1:
        raise ValueError(f"digits: test_fraction is {test_fraction}, but must lie between 0 and 1")
    source = require("sklearn.datasets", extra="sklearn", feature="the data set 'digits'")
    images, labels = source.load_digits(return_X_y=True)
    factor = image_size // 8
    border = image_size - 8 * factor
    side = (border // 2, border - border // 2)
    x = (images / 16).astype(dtype).reshape(-1, 8, 8).repeat(factor, 1).repeat(factor, 2)
    x = np.pad(x, ((0, 0), side, side))[:, None]
    order = np.random.default_rng(0).permutation(len(x))
    cut = len(x) - round(test_fraction * len(x))
    y = labels.astype(np.int64)
    return ArrayDataset(x[order[:cut]], y[order[:cut]]), ArrayDataset(x[order[cut:]], y[order[cut:]])
