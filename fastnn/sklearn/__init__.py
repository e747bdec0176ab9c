"""scikit-learn's multi-layer perceptrons on this engine: its parameters, rules and results, and what it refuses them.

Needs the extra ``sklearn``.
"""

from ..io.extras import require

require("sklearn", extra="sklearn", feature="fastnn.sklearn")

from .classifier import MLPClassifier  # noqa: E402  (after the message that says how to install what it needs)
from .regressor import MLPRegressor  # noqa: E402

__all__ = ["MLPClassifier", "MLPRegressor"]
