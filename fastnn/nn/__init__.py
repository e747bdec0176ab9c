"""Layers by family; names, arguments and parameter layouts are PyTorch's."""

from .container import ModuleDict, ModuleList, Sequential
from .module import Module, Parameter
