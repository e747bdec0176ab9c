"""`fastnn.functional` where PyTorch has it: ``import fastnn.nn.functional as F``."""

from ..functional import *
