"""Data sets in memory, their file formats, and batches of them."""

from .augment import AUGMENTATIONS, Augment
from .datasets import ArrayDataset, digits, fashion_mnist, mnist, random_split
from .download import download, fetch
from .formats import CharacterText, ImageFolder, Table, cifar10, image_folder, read_cifar10, read_csv
from .idx import read_idx
from .loader import DataLoader
from .mix import CutMix, Mixup
from .transforms import Normalize, RandomChoice

__all__ = ["AUGMENTATIONS", "ArrayDataset", "Augment", "CharacterText", "CutMix", "DataLoader", "ImageFolder", "Mixup",
           "Normalize", "RandomChoice", "Table", "cifar10", "digits", "download", "fashion_mnist", "fetch", "image_folder", "mnist",
           "random_split", "read_cifar10", "read_csv", "read_idx"]
