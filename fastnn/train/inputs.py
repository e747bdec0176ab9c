"""What users hand to `Trainer`, checked and turned into data sets before any work is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import fastnn

from ..checks import array_like
from ..data import ArrayDataset, DataLoader, Normalize
from .losses import ValueLoss, check_signs, is_of_labels


def features(name: str, value: Any, dtype: np.dtype) -> np.ndarray:
    """A model's input: floating-point numbers and bools become the model's type, wider integers int64; bytes stay.

    Parameters
    ----------
    name : str
        Its name in messages.
    value : array_like
        Shape (N, ...), N at least 1; tensors are taken without copying.
    dtype : numpy.dtype
        The model's type.

    Returns
    -------
    numpy.ndarray
        Of type `dtype`, uint8 (to be converted batch by batch, see `conversion`), or int64 (indices for an embedding).

    Raises
    ------
    ValueError
        If it is empty, ragged, a single number, or not numbers.
    """
    array = _numbers(name, value)
    if array.dtype == np.uint8:
        return array
    return array.astype(np.int64 if array.dtype.kind in "iu" else dtype, copy=False)


def conversion(source: Any, inputs: np.ndarray, dtype: np.dtype) -> Callable[[Any], Any] | None:
    """What to do to batches of `inputs`: the data set's own transform, or else bytes become the model's type.

    Parameters
    ----------
    source : object
        Where the inputs came from: a data set, a loader, an array.
    inputs : numpy.ndarray
        As `features` gave them.
    dtype : numpy.dtype
        The model's type.

    Returns
    -------
    callable or None
        For `ArrayDataset`.
    """
    source = source.dataset if isinstance(source, DataLoader) else source
    own = source.transform if isinstance(source, ArrayDataset) else None
    return Normalize(scale=1, dtype=dtype.name) if own is None and inputs.dtype == np.uint8 else own


def own_transform(source: Any) -> Callable[[Any], Any] | None:
    """What a loader does to each batch's inputs.

    Parameters
    ----------
    source : object
        What the user gave.

    Returns
    -------
    callable or None
        For `DataLoader`; None where `source` is no loader.

    Raises
    ------
    TypeError
        If it is a loader that makes batches in a way of its own, which `Trainer` would not go.
    """
    if not isinstance(source, DataLoader):
        return None
    own = [name for name in ("__iter__", "batch", "first", "gather", "gather_array", "order")
           if getattr(type(source), name) is not getattr(DataLoader, name)]
    if own:
        raise TypeError(f"x is a {type(source).__name__} that defines {', '.join(own)}, but must be a DataLoader as it is: Trainer makes "
                        "batches itself, of a loader's data, options and transform")
    return source.transform


def targets(name: str, value: Any, dtype: np.dtype, loss: Callable[..., Any]) -> np.ndarray:
    """A target: class indices become int64, everything else the model's type.

    Parameters
    ----------
    name, value, dtype
        As for `features`.
    loss : callable
        As `get_loss` gave it: says whether integers are class indices or values to be met (a regression).

    Returns
    -------
    numpy.ndarray
        Of type `dtype` or int64.

    Raises
    ------
    ValueError
        As `features`; if bools are given where the loss takes class indices, or others than -1 and 1 where it takes these.
    """
    array = _numbers(name, value)
    if array.dtype == bool and array.ndim == 1 and is_of_labels(loss):
        raise ValueError(f"{name} has dtype bool and shape {array.shape}, but the loss takes class indices, which are integers "
                         "(y.astype(int) makes 0 and 1 of it), or a probability for each class (N, C)")
    check_signs(name, loss, array)
    labels = array.dtype.kind in "iu" and not isinstance(loss, ValueLoss)
    return array.astype(np.int64 if labels else dtype, copy=False)


def supervised(x: Any, y: Any, sample_weight: Any, dtype: np.dtype, *, loss: Callable[..., Any], prefix: str = "") -> ArrayDataset:
    """Inputs, targets and, if there are any, weights as one data set.

    Parameters
    ----------
    x : array_like, ArrayDataset or DataLoader
        Inputs (N, ...), or a data set of inputs, targets and perhaps weights.
    y : array_like or None
        Targets (N, ...); None when `x` is a data set.
    sample_weight : array_like or None
        Weights (N,), finite and not negative.
    dtype, loss
        As for `targets`.
    prefix : str
        Put before the names in messages (``"validation "``).

    Returns
    -------
    ArrayDataset
        With arrays (x, y) or (x, y, weight), the weights of type `dtype`.

    Raises
    ------
    ValueError
        If lengths differ, data are empty or not numbers, or weights are wrong.
    """
    source, (x, y, sample_weight) = x, _unpack(x, y, sample_weight, prefix)
    inputs = features(prefix + "x", x, dtype)
    wanted = targets(prefix + "y", y, dtype, loss)
    if len(inputs) != len(wanted):
        raise ValueError(f"{prefix}x has {len(inputs)} samples, but {prefix}y has {len(wanted)}")
    arrays = [inputs, wanted]
    if sample_weight is not None:
        arrays.append(_sample_weight(prefix + "sample_weight", sample_weight, len(inputs)).astype(dtype))
    return ArrayDataset(*arrays, transform=conversion(source, inputs, dtype))


def weighed_by_class(data: ArrayDataset, class_weight: Mapping[int, float] | str, dtype: np.dtype) -> ArrayDataset:
    """The same samples with the weights of their classes, multiplied with their own where they have some.

    Parameters
    ----------
    data : ArrayDataset
        As `supervised` made it.
    class_weight : mapping or "balanced"
        Weight of each class, 1 where absent.
    dtype : numpy.dtype
        The model's type.

    Returns
    -------
    ArrayDataset
        With arrays (x, y, weight).

    Raises
    ------
    ValueError
        If the targets are no class indices, or weights are wrong.
    """
    inputs, wanted, *own = data.arrays
    weight = _class_weight(class_weight, wanted)
    if own:
        weight = weight * own[0]
    return ArrayDataset(inputs, wanted, weight.astype(dtype), transform=data.transform)


def where_not_finite(data: ArrayDataset) -> str | None:
    """Says where the first NaN or infinite number of a data set is.

    Parameters
    ----------
    data : ArrayDataset
        As `supervised` made it.

    Returns
    -------
    str or None
        Which array and which sample; None if all numbers are finite.
    """
    for name, array in zip(("x", "y", "sample_weight"), data.arrays):
        if array.dtype.kind == "f":
            wrong = ~np.isfinite(array).reshape(len(array), -1).all(1)
            if wrong.any():
                return f"{name} holds NaN or infinite numbers in {wrong.sum():,} samples, the first is number {wrong.argmax()}"
    return None


def split(data: ArrayDataset, fraction: float) -> tuple[ArrayDataset, ArrayDataset | None]:
    """Keep the last `fraction` of the samples for validation (as Keras: before any shuffling).

    Parameters
    ----------
    data : ArrayDataset
        All samples.
    fraction : float
        At least 0 and below 1; 0 keeps none.

    Returns
    -------
    training, validation : ArrayDataset, ArrayDataset or None
        Both parts, as views.

    Raises
    ------
    ValueError
        If the fraction is out of range, or leaves one part without samples.
    """
    if not isinstance(fraction, (int, float, np.floating)) or not 0 <= fraction < 1:
        raise ValueError(f"validation_split is {fraction!r}, expected a number from 0 to below 1")
    if fraction == 0:
        return data, None
    cut = math.floor(len(data) * (1 - fraction))
    if not 0 < cut < len(data):
        raise ValueError(f"validation_split {fraction} of {len(data)} samples leaves one part empty")
    return data.subset(slice(cut)), data.subset(slice(cut, None))


def _numbers(name: str, value: Any) -> np.ndarray:
    """`value` as a non-empty array of numbers."""
    if value is None:
        raise ValueError(f"{name} is missing")
    array_like(name, value)
    if isinstance(value, fastnn.Tensor):
        value = value.detach().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is not an array of numbers ({error})") from error
    if array.dtype.kind not in "fiub":
        raise ValueError(_no_numbers(name, value, array))
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}, expected at least one sample")
    return array


def _no_numbers(name: str, value: Any, array: np.ndarray) -> str:
    """What to say of something else."""
    if array.ndim == 0 and array.dtype.kind == "O":
        return f"{name} is a {type(value).__name__}, expected an array of numbers"
    if name.endswith("y") and (array.dtype.kind in "US" or array.size and isinstance(array.flat[0], str)):
        return (f"{name} has dtype {array.dtype}, expected numbers: names of classes become indices of classes by "
                "np.unique(y, return_inverse=True)[1]")
    return f"{name} has dtype {array.dtype}, expected numbers"


def _unpack(x: Any, y: Any, sample_weight: Any, prefix: str) -> tuple[Any, Any, Any]:
    """Inputs, targets and weights, from a data set or as given."""
    if isinstance(x, DataLoader):
        x = x.dataset
    if not isinstance(x, ArrayDataset):
        if y is None and x is not None:
            array_like(f"{prefix}x", x)  # has a better word for data sets that give samples one by one
            kind = f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")
            raise ValueError(f"{prefix}y is missing: {prefix}x is a {kind}, which without {prefix}y must be a data set "
                             "of fastnn.data, ArrayDataset or DataLoader; ArrayDataset.from_samples makes one of single samples (x, y)")
        return x, y, sample_weight
    if y is not None or sample_weight is not None:
        raise ValueError(f"{prefix}y and sample_weight must be left out when {prefix}x is a data set")
    if not 2 <= len(x.arrays) <= 3:
        raise ValueError(f"the {prefix}data set holds {len(x.arrays)} arrays, expected x, y and perhaps weights")
    return (*x.arrays, None)[:3]


def _sample_weight(name: str, value: Any, n: int) -> np.ndarray:
    """Weights (n,) as float64."""
    weight = _numbers(name, value).astype(np.float64)
    if weight.shape != (n,):
        raise ValueError(f"{name} has shape {weight.shape}, expected ({n},)")
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError(f"{name} holds negative, infinite or NaN values")
    return weight


def _class_weight(class_weight: Mapping[int, float] | str, labels: np.ndarray) -> np.ndarray:
    """The weight of each sample's class, float64 (N,)."""
    if labels.ndim != 1 or labels.dtype.kind != "i":
        raise ValueError(f"class_weight needs class indices y of shape (N,), found {labels.dtype} {labels.shape}")
    if isinstance(class_weight, str) and class_weight == "balanced":
        _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        return (len(labels) / (len(counts) * counts))[inverse]
    if not isinstance(class_weight, Mapping):
        raise ValueError(f"class_weight is {class_weight!r}, expected a mapping from class to weight or 'balanced'")
    weight = np.ones(len(labels))
    for label, value in class_weight.items():
        if not isinstance(label, (int, np.integer)):
            raise ValueError(f"class_weight has the class {label!r}, expected class indices such as 0")
        if not (isinstance(value, (int, float, np.number)) and math.isfinite(value) and value >= 0):
            raise ValueError(f"class_weight of class {label!r} is {value!r}, expected a number of at least 0")
        weight[labels == label] = value
    return weight
