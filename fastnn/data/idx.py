"""The IDX file format of MNIST and its relatives.

An IDX file is two zero bytes, one byte naming the element type, one byte holding the number of
dimensions, that many big-endian unsigned 32-bit extents, then the elements in C order, big-endian.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from typing import BinaryIO

import numpy as np

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_RANK = 32  # NumPy 1.x's own limit
_BLOCK = 1 << 20


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read one IDX file, plain or compressed with gzip (told apart by content, not by name).

    The header is not trusted: memory is taken only as data really arrives, and the number of bytes
    found must be exactly the number the header announces.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    numpy.ndarray
        Array of the shape the header gives, in native byte order: uint8, int8, int16, int32,
        float32 or float64. It is writable and owns its memory.

    Raises
    ------
    ValueError
        If the file is not IDX, is truncated, has bytes left over, or its gzip stream is damaged.
        The message names the file, what was found and what was expected.
    OSError
        If the file cannot be opened or read.

    References
    ----------
    Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten digits,
    section "File formats".
    """
    name = os.fspath(path)
    with open(name, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            if not zipped:
                return _read_stream(raw, name)
            with gzip.GzipFile(fileobj=raw) as stream:
                return _read_stream(stream, name)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{name}: damaged gzip stream ({error}); expected a complete IDX file") from error


def _read_stream(stream: BinaryIO, name: str) -> np.ndarray:
    """Read header and elements from an open binary stream."""
    dtype, shape = _read_header(stream, name)
    expected = math.prod(shape) * dtype.itemsize
    data = _read_at_most(stream, expected + 1)
    if len(data) != expected:
        found = f"only {len(data):,}" if len(data) < expected else "more"
        raise ValueError(f"{name}: the header announces {dtype.name} data of shape {shape}, "
                         f"{expected:,} bytes, but {found} bytes follow it")
    try:
        array = np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:  # extents such as (0, 2**32 - 1, ...): no bytes, yet no array either
        raise ValueError(f"{name}: the header announces the impossible shape {shape} ({error})") from error
    return array if array.dtype.isnative else array.astype(dtype.newbyteorder("="))


def _read_header(stream: BinaryIO, name: str) -> tuple[np.dtype, tuple[int, ...]]:
    """Element type and shape; every byte is checked."""
    magic = stream.read(4)
    if len(magic) < 4:
        raise ValueError(f"{name}: found {len(magic)} bytes, expected an IDX header of at least 4")
    if magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        allowed = ", ".join(f"{code:02x}" for code in _DTYPES)
        raise ValueError(f"{name}: found the first bytes {magic.hex(' ')}, expected an IDX header: "
                         f"00 00, a type among {allowed}, the number of dimensions")
    rank = magic[3]
    if not 1 <= rank <= _MAX_RANK:
        raise ValueError(f"{name}: the header announces {rank} dimensions, expected 1 to {_MAX_RANK}")
    extents = stream.read(4 * rank)
    if len(extents) < 4 * rank:
        raise ValueError(f"{name}: the header ends after {4 + len(extents)} bytes, "
                         f"expected {4 + 4 * rank} for {rank} dimensions")
    return np.dtype(_DTYPES[magic[2]]), tuple(np.frombuffer(extents, ">u4").tolist())


def _read_at_most(stream: BinaryIO, limit: int) -> bytearray:
    """Up to `limit` bytes, growing with what really arrives so that a lying header costs nothing."""
    data = bytearray()
    while len(data) < limit:
        block = stream.read(min(_BLOCK, limit - len(data)))
        if not block:
            break
        data += block
    return data
