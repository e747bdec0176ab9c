"""Data sets in memory, their file formats, and batches of them."""

from .datasets import ArrayDataset, digits, mnist
from .idx import read_idx
from .loader import DataLoader
from .mix import CutMix, Mixup
from .transforms import Normalize

__all__ = ["ArrayDataset", "CutMix", "DataLoader", "Mixup", "Normalize", "digits", "mnist", "read_idx"]
