"""Data sets in memory, their file formats, and batches of them."""

from .datasets import ArrayDataset, digits, mnist
from .idx import read_idx
from .loader import DataLoader

__all__ = ["ArrayDataset", "DataLoader", "digits", "mnist", "read_idx"]
