"""Data sets in memory, their file formats, and batches of them."""

from .augment import AUGMENTATIONS, Augment
from .datasets import ArrayDataset, digits, mnist
from .idx import read_idx
from .loader import DataLoader
from .mix import CutMix, Mixup
from .transforms import Normalize

__all__ = ["AUGMENTATIONS", "ArrayDataset", "Augment", "CutMix", "DataLoader", "Mixup", "Normalize", "digits", "mnist",
           "read_idx"]
