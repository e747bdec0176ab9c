"""How many threads the engine uses."""

from __future__ import annotations

from ._core import get_num_threads, set_num_threads, threads_reason

MOST_THREADS = 1024


class num_threads:
    """A context in which parallel loops use `n` threads; results do not depend on it.

    Parameters
    ----------
    n : int
        At least 1, at most 1024.

    Raises
    ------
    ValueError
        If `n` is not such an integer.

    Examples
    --------
    >>> with fastnn.num_threads(1):
    ...     y = model(x)
    """

    def __init__(self, n: int):
        self.n = n
        self.before: list[int] = []

    def __enter__(self) -> num_threads:
        before = get_num_threads()
        set_num_threads(self.n)
        self.before.append(before)
        return self

    def __exit__(self, *error) -> None:
        set_num_threads(self.before.pop())


def take_share(sharers: int) -> None:
    """Takes this process's part of the cores, of which others do the like; a number that the user has set stays.

    Parameters
    ----------
    sharers : int
        How many processes run on the cores that this one may use, itself included.
    """
    if sharers > 1 and not threads_reason().startswith(("FASTNN_NUM_THREADS", "OMP_NUM_THREADS", "set_num_threads")):
        set_num_threads(max(get_num_threads() // sharers, 1))
