"""Writing a file so that it is either complete or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[str]:
    """Give a temporary name to write to; rename it to `path` if the block succeeds.

    The temporary file lies in the folder of `path`, is flushed to the disk before the rename, and is
    removed when anything fails (a full disk, an exception, Ctrl-C); an older `path` is then untouched.

    Parameters
    ----------
    path : str or path-like
        The file to create or replace. A symbolic link is followed, not replaced.

    Yields
    ------
    str
        Name of an empty file to write, with the suffix of `path` (of at most 16 characters).

    Raises
    ------
    OSError
        If the file cannot be written, or `path` is there and is a device or a pipe; the message names `path`.
    """
    shown = os.fspath(path)
    target = os.path.realpath(shown)
    folder, name = os.path.split(target)
    stem, suffix = os.path.splitext(name)
    suffix = suffix if len(suffix) <= 16 else ""
    temporary = os.path.join(folder, f".{stem[:32]}.{os.getpid()}-{os.urandom(4).hex()}{suffix}")  # names have at most 255 bytes
    try:
        if os.path.exists(target) and not (os.path.isfile(target) or os.path.isdir(target)):
            raise OSError(errno.EINVAL, "Not a regular file")  # a device or pipe would be replaced by one
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            yield temporary
            _finish(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise _named(error, shown) from error
    _sync_folder(folder)


def write_atomic(path: str | os.PathLike, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, completely or not at all.

    Parameters
    ----------
    path : str or path-like
        The file to create or replace.
    data : bytes or str
        Its content.

    Raises
    ------
    OSError
        If the file cannot be written; the message names `path`, and an older file is untouched.
    """
    content = data.encode() if isinstance(data, str) else data
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        stream.write(content)


def write_array(path: str | os.PathLike, array: np.ndarray) -> None:
    """Write an array as a ``.npy`` file, completely or not at all.

    Parameters
    ----------
    path : str or path-like
        The file to create or replace, under this very name.
    array : numpy.ndarray
        Numbers.

    Raises
    ------
    OSError
        If the file cannot be written; the message names `path`, and an older file is untouched.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, array, allow_pickle=False)


def _finish(temporary: str, target: str) -> None:
    """Bring the temporary file to the disk, then give it its name (and the old file's permissions)."""
    handle = os.open(temporary, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    if os.path.exists(target):
        shutil.copymode(target, temporary)
    os.replace(temporary, target)


def _sync_folder(folder: str) -> None:
    """Make the rename itself durable, where the system can (not on Windows, not on every file system)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _named(error: OSError, path: str) -> OSError:
    """The same error, naming the file the user asked for instead of the temporary one."""
    reason = error.strerror or str(error)
    return type(error)(error.errno, f"{reason} (while writing; nothing was changed)", path)
