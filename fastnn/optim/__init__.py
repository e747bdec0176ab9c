"""Optimisers, with PyTorch's names, signatures and formulas."""

from . import lr_scheduler, swa_utils
from .adafactor import Adafactor
from .adam import Adam, Adamax, AdamW
from .adaptive import Adadelta, Adagrad, RMSprop
from .lbfgs import LBFGS
from .moments import Lion, NAdam, RAdam
from .muon import Muon
from .optimizer import Optimizer, ParamGroup
from .regularize import (EMA, ClipGradNorm, ClipGradValue, ElasticNet, MaxNorm, Proximal, clip_each_grad_norm_,
                         clip_grad_norm_, clip_grad_value_, get_total_norm)
from .rprop import Rprop
from .search import RandomLocalSearch, RandomSearch
from .sgd import ASGD, SGD

__all__ = ["ASGD", "EMA", "LBFGS", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "ClipGradNorm",
           "ClipGradValue", "ElasticNet", "Lion", "MaxNorm", "Muon", "NAdam", "Optimizer", "ParamGroup", "Proximal", "RAdam",
           "RMSprop", "RandomLocalSearch", "RandomSearch", "Rprop", "clip_each_grad_norm_", "clip_grad_norm_",
           "clip_grad_value_", "get_total_norm", "lr_scheduler", "swa_utils"]
