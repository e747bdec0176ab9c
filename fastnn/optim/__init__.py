"""Optimisers, with PyTorch's names, signatures and formulas."""

from . import lr_scheduler
from .adam import Adam, AdamW
from .adaptive import Adadelta, Adagrad, RMSprop
from .lbfgs import LBFGS
from .moments import Lion, NAdam, RAdam
from .optimizer import Optimizer, ParamGroup
from .regularize import (EMA, ClipGradNorm, ClipGradValue, ElasticNet, MaxNorm, Proximal, clip_each_grad_norm_,
                         clip_grad_norm_, clip_grad_value_, get_total_norm)
from .search import RandomLocalSearch, RandomSearch
from .sgd import SGD

__all__ = ["EMA", "LBFGS", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "ClipGradNorm", "ClipGradValue", "ElasticNet",
           "Lion", "MaxNorm", "NAdam", "Optimizer", "ParamGroup", "Proximal", "RAdam", "RMSprop", "RandomLocalSearch",
           "RandomSearch", "clip_each_grad_norm_", "clip_grad_norm_", "clip_grad_value_", "get_total_norm",
           "lr_scheduler"]
