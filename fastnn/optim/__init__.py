"""Optimisers, with PyTorch's names, signatures and formulas."""

from . import lr_scheduler
from .adam import Adam, AdamW
from .adaptive import Adadelta, Adagrad, RMSprop
from .moments import Lion, NAdam, RAdam
from .optimizer import Optimizer, ParamGroup
from .sgd import SGD

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Lion", "NAdam", "Optimizer", "ParamGroup", "RAdam",
           "RMSprop", "lr_scheduler"]
