"""What the benchmarks share, from the package: timing in turns, and this machine's best."""

from fastnn.testing.peak import copy_bandwidth, gflops
from fastnn.testing.timing import Turns, calls_for, conditions, in_turns, use_threads

__all__ = ["Turns", "calls_for", "conditions", "copy_bandwidth", "gflops", "in_turns", "use_threads"]
