"""Data sets in files of other kinds: CIFAR-10's records, tables of comma-separated values, text, folders of images."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..checks import pair, whole
from ..io.extras import require
from .datasets import ArrayDataset, data_folder, image_type
from .transforms import Normalize

_CIFAR_SIDE, _CIFAR_CLASSES = 32, 10
_CIFAR_FOLDERS = ("", "cifar-10-batches-bin", "cifar10")
_IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read_cifar10(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read one file of CIFAR-10's binary version, of any number of records.

    A record is one byte, the class, and 3,072 bytes: the red, green and blue planes of 32x32 pixels, row by row.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    images : numpy.ndarray
        uint8, (N, 3, 32, 32).
    labels : numpy.ndarray
        int64, (N,).

    Raises
    ------
    ValueError
        If the file does not consist of whole records, has none, or a class is above 9.
    OSError
        If it cannot be opened or read.

    References
    ----------
    A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009; the data set's page, section
    "Binary version".
    """
    data = np.fromfile(path, np.uint8)
    record = 1 + 3 * _CIFAR_SIDE ** 2
    if not len(data) or len(data) % record:
        raise ValueError(f"{os.fspath(path)}: found {len(data):,} bytes, expected a positive multiple of {record:,}, "
                         "CIFAR-10's record")
    data = data.reshape(-1, record)
    labels = data[:, 0].astype(np.int64)
    if labels.max() >= _CIFAR_CLASSES:
        place = int(np.argmax(labels >= _CIFAR_CLASSES))
        raise ValueError(f"{os.fspath(path)}: record {place} has class {labels[place]}, expected 0 to "
                         f"{_CIFAR_CLASSES - 1}")
    return data[:, 1:].reshape(-1, 3, _CIFAR_SIDE, _CIFAR_SIDE), labels


def cifar10(data_dir: str | os.PathLike | None = None, *, dtype: Any = np.uint8) -> tuple[ArrayDataset, ArrayDataset]:
    """CIFAR-10 from the six files of its binary version; a file may hold any number of records.

    Parameters
    ----------
    data_dir : str or path-like, optional
        Folder that holds the files, directly or in a subfolder ``cifar-10-batches-bin`` or ``cifar10``; by default the
        environment's ``FASTNN_DATA``.
    dtype : NumPy dtype
        Type of the images: uint8 keeps bytes in memory, and batches become float32 as they are gathered; or float32 or
        float64, four or eight times as large.

    Returns
    -------
    train, test : ArrayDataset
        Each with images (N, 3, 32, 32), in batches scaled to [0, 1], and labels (N,) as int64.

    Raises
    ------
    FileNotFoundError
        If files are missing; all missing ones are listed.
    ValueError
        If a file is not what it should be, or `dtype` is another.
    """
    dtype, folder = image_type("cifar10", dtype, np.uint8), data_folder(data_dir)
    names = {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]}
    places = [folder / name for name in _CIFAR_FOLDERS]
    found = {name: next((place / name for place in places if (place / name).is_file()), None)
             for part in names.values() for name in part}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise FileNotFoundError(f"CIFAR-10 in {os.fspath(folder)!r}: missing {', '.join(missing)}")
    read = [zip(*(read_cifar10(found[name]) for name in part)) for part in names.values()]
    train, test = (_image_dataset(*(np.concatenate(pieces) for pieces in part), dtype) for part in read)
    return train, test


def _image_dataset(images: np.ndarray, labels: np.ndarray, dtype: np.dtype) -> ArrayDataset:
    """Bytes (N, C, H, W) as they are, scaled batch by batch, or as floating-point numbers in [0, 1]."""
    if dtype == np.uint8:
        return ArrayDataset(images, labels, transform=Normalize())
    return ArrayDataset(np.divide(images, dtype.type(255), dtype=dtype), labels)


class ImageFolder(NamedTuple):
    """What `image_folder` returns.

    Parameters
    ----------
    dataset : ArrayDataset
        Images (N, C, H, W) and class indices (N,).
    classes : list of str
        The subfolders' names; class k is the k-th.
    """

    dataset: ArrayDataset
    classes: list[str]


def image_folder(root: str | os.PathLike, size: int | tuple[int, int], *, grey: bool = False,
                 dtype: Any = np.uint8) -> ImageFolder:
    """Images in one subfolder for each class, brought to one size; read by Pillow.

    Parameters
    ----------
    root : str or path-like
        The folder; its subfolders, in the order of their names, are the classes.
    size : int or pair of int
        Height and width that every image is resized to (bilinear).
    grey : bool
        Whether to read one channel of luminance instead of three of colour.
    dtype : NumPy dtype
        uint8, float32 or float64, as in `cifar10`.

    Returns
    -------
    ImageFolder
        The data set, in the order of classes and file names, and the names of the classes.

    Raises
    ------
    ImportError
        If the extra ``images`` is not installed.
    ValueError
        If there are no subfolders, a subfolder has no image, or a file is no image, one of more pixels than Pillow takes, or one of
        32-bit numbers, which do not say what is white; of 16-bit numbers the high bytes are taken.
    OSError
        If the folder cannot be read.
    """
    height, width = pair("image_folder", "size", size, 1)
    dtype = image_type("image_folder", dtype, np.uint8)
    pillow = require("PIL.Image", extra="images", feature="reading image files")
    folders = sorted(path for path in Path(root).iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ValueError(f"image_folder: {os.fspath(root)!r} has no subfolders, expected one for each class")
    files = [(k, file) for k, folder in enumerate(folders) for file in sorted(folder.iterdir())
             if file.suffix.lower() in _IMAGE_SUFFIXES]
    empty = [folder.name for k, folder in enumerate(folders) if all(k != other for other, _ in files)]
    if empty:
        raise ValueError(f"image_folder: no images in {', '.join(empty)}, expected files that end in "
                         f"{', '.join(_IMAGE_SUFFIXES)}")
    images = np.empty((len(files), height, width, 1 if grey else 3), np.uint8)
    for image, (_, file) in zip(images, files):
        try:
            with pillow.open(file) as picture:
                picture = _of_bytes(picture, pillow).convert("L" if grey else "RGB")
                picture = picture.resize((width, height), pillow.Resampling.BILINEAR)
        except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:  # the first two are of damaged files
            raise ValueError(f"image_folder: {file} cannot be read as an image ({error})") from error
        image[...] = np.asarray(picture, np.uint8).reshape(image.shape)
    labels = np.array([k for k, _ in files], np.int64)
    return ImageFolder(_image_dataset(images.transpose(0, 3, 1, 2), labels, dtype), [folder.name for folder in folders])


def _of_bytes(picture: Any, pillow: Any) -> Any:
    """A Pillow image of bytes: converting wider numbers would make white of all above 255."""
    if picture.mode.startswith("I;16"):
        return pillow.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers")
    return picture


_MISSING = ("", "na", "n/a", "null", "none", "?")  # what stands for a target that is not known


class Table(NamedTuple):
    """What `read_csv` returns.

    Parameters
    ----------
    x : numpy.ndarray
        The other columns, (N, F).
    y : numpy.ndarray
        The target column, (N,): numbers, or int64 indices into `classes`.
    names : list of str
        Names of the columns of `x`.
    classes : list of str or None
        The target's different texts in alphabetical order; None if it is numbers.
    """

    x: np.ndarray
    y: np.ndarray
    names: list[str]
    classes: list[str] | None


def read_csv(path: str | os.PathLike, target: int | str = -1, *, delimiter: str = ",", header: bool | None = None,
             dtype: Any = np.float32) -> Table:
    """Read a table of numbers whose target may be a number or a text.

    Parameters
    ----------
    path : str or path-like
        The file, UTF-8; empty lines are skipped.
    target : int or str
        The target's column: its number (negative: from the end), or its name.
    delimiter : str
        What separates columns.
    header : bool, optional
        Whether the first line holds names; by default it does if none of its fields is a number.
    dtype : NumPy dtype
        Of the numbers: float32 or float64.

    Returns
    -------
    Table
        Numbers, target, and names.

    Raises
    ------
    ValueError
        If there is no line or only one column, lines differ in length, a field is no number, a target is missing, or `target`
        is no column, with line and column; if the file is not UTF-8, or `delimiter` not one character.
    OSError
        If the file cannot be read.
    """
    dtype, name = image_type("read_csv", dtype), os.fspath(path)
    lines = _lines(path, delimiter)
    if not lines:
        raise ValueError(f"{name}: found no lines, expected a table")
    if header is None:
        header = not any(_number(field) is not None for field in lines[0][1])
    names = lines.pop(0)[1] if header else [f"column {k}" for k in range(len(lines[0][1]))]
    if not lines:
        raise ValueError(f"{name}: found names only, expected at least one line of numbers below them")
    if len(names) < 2:
        raise ValueError(f"{name}: found one column, expected several, separated by delimiter, which is {delimiter!r}")
    for number, row in lines:
        if len(row) != len(names):
            raise ValueError(f"{name}, line {number}: found {len(row)} fields, expected {len(names)}")
    column = _column(name, target, names)
    others = [k for k in range(len(names)) if k != column]
    x = np.empty((len(lines), len(others)), dtype)
    for k, (number, row) in enumerate(lines):
        for j, other in enumerate(others):
            value = _number(row[other])
            if value is None:
                raise ValueError(f"{name}, line {number}, column {names[other]!r}: found {row[other]!r}, "
                                 "expected a number")
            x[k, j] = value
    texts = [row[column].strip() for _, row in lines]
    values = [_number(text) for text in texts]
    has_numbers = any(value is not None for value in values)
    for (number, _), text in zip(lines, texts):
        if not text or has_numbers and text.lower() in _MISSING:
            raise ValueError(f"{name}, line {number}, column {names[column]!r}: found {text!r}, expected a target")
    features = [names[k] for k in others]
    if None not in values:
        return Table(x, np.array(values, dtype), features, None)
    classes = sorted(set(texts))
    return Table(x, np.array([classes.index(text) for text in texts], np.int64), features, classes)


def _lines(path: str | os.PathLike, delimiter: str) -> list[tuple[int, list[str]]]:
    """The fields of lines that are not empty, and the lines' numbers."""
    if not isinstance(delimiter, str) or len(delimiter) != 1:
        raise ValueError(f"read_csv: delimiter is {delimiter!r}, but must be one character")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter)
            return [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{os.fspath(path)}: not a table of UTF-8 text ({error})") from error


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _column(file: str, target: int | str, names: Sequence[str]) -> int:
    """The number of the target's column."""
    if isinstance(target, str) and target in names:
        return list(names).index(target)
    if isinstance(target, (int, np.integer)) and not isinstance(target, bool) and -len(names) <= target < len(names):
        return int(target) % len(names)
    raise ValueError(f"{file}: target is {target!r}, expected a number from {-len(names)} to {len(names) - 1} "
                     f"or one of {', '.join(names)}")


class CharacterText:
    """A text as the numbers of its characters, for models of language.

    Parameters
    ----------
    text : str
        The text.
    vocabulary : str, optional
        The characters that occur; by default those of `text`, sorted.

    Attributes
    ----------
    vocabulary : str
        Character k has the number k.
    codes : numpy.ndarray
        int64, (characters,).

    Raises
    ------
    ValueError
        If the text is empty, or has a character that `vocabulary` lacks.

    Examples
    --------
    >>> text = CharacterText("abcab")
    >>> text.codes.tolist(), text.decode([2, 0])
    ([0, 1, 2, 0, 1], 'ca')
    >>> x, y = text.sequences(2).arrays
    >>> x.tolist(), y.tolist()
    ([[0, 1], [2, 0]], [[1, 2], [0, 1]])
    """

    def __init__(self, text: str, vocabulary: str | None = None) -> None:
        if not text:
            raise ValueError("CharacterText: text is empty, expected at least one character")
        self.vocabulary = "".join(sorted(set(text))) if vocabulary is None else vocabulary
        self._numbers = {character: number for number, character in enumerate(self.vocabulary)}
        self.codes = self.encode(text)

    @classmethod
    def read(cls, path: str | os.PathLike, vocabulary: str | None = None) -> CharacterText:
        """A UTF-8 file's text, without a byte order mark; line ends become single line feeds.

        Parameters
        ----------
        path : str or path-like
            The file.
        vocabulary : str, optional
            As for the class.

        Returns
        -------
        CharacterText

        Raises
        ------
        ValueError
            If it is not UTF-8, or as for the class.
        OSError
            If it cannot be read.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{os.fspath(path)}: not UTF-8 text ({error})") from error
        return cls(text, vocabulary)

    def __len__(self) -> int:
        return len(self.codes)

    def encode(self, text: str) -> np.ndarray:
        """The numbers of a text's characters, int64."""
        try:
            return np.fromiter((self._numbers[character] for character in text), np.int64, len(text))
        except KeyError as error:
            raise ValueError(f"CharacterText: the vocabulary lacks {error.args[0]!r}") from None

    def decode(self, codes: Any) -> str:
        """The text of characters' numbers; IndexError if one is no character's."""
        numbers = [int(code) for code in codes]
        for number in numbers:
            if not 0 <= number < len(self.vocabulary):
                raise IndexError(f"CharacterText.decode: codes hold {number}, expected 0 to {len(self.vocabulary) - 1}")
        return "".join(self.vocabulary[number] for number in numbers)

    def sequences(self, length: int, step: int | None = None) -> ArrayDataset:
        """Pieces of the text, and the same pieces one character further.

        Parameters
        ----------
        length : int
            Characters a piece.
        step : int, optional
            Characters from one piece's beginning to the next's; by default `length`.

        Returns
        -------
        ArrayDataset
            Inputs and targets, both int64, (N, length): target t is the character after input t.

        Raises
        ------
        ValueError
            If a number is not positive, or the text is not longer than `length`.
        """
        length = whole("CharacterText.sequences: length", length, 1)
        step = whole("CharacterText.sequences: step", length if step is None else step, 1)
        if len(self.codes) <= length:
            raise ValueError(f"CharacterText.sequences: length is {length}, but must be below the text's "
                             f"{len(self.codes)}")
        windows = np.lib.stride_tricks.sliding_window_view(self.codes, length + 1)[::step]
        return ArrayDataset(windows[:, :-1].copy(), windows[:, 1:].copy())
