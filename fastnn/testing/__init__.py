"""The list of operations that tests and benchmarks come from, and the checks run on each entry.

One `OpSpec` per operation says how to call it, what it should give (a float64 NumPy reference), on which inputs, how
exact it is and what it costs. From it come the forward check, the gradient checks, the checks on every instruction set,
number of threads and memory layout, and the benchmark. Shipped, so that users can check operations of their own.

Examples
--------
>>> from fastnn.testing import specs, check_forward
>>> for sample in specs()["relu"].samples(rng):
...     check_forward(specs()["relu"], sample, "float32")
"""

from .checks import (check_forward, check_gradient, check_gradient_float32, check_layouts, check_lengths,
                     check_special_values,
                     check_threads)
from .spec import OpSpec, Sample, register, specs

__all__ = ["OpSpec", "Sample", "check_forward", "check_gradient", "check_gradient_float32", "check_layouts",
           "check_lengths",
           "check_special_values", "check_threads", "register", "specs"]
