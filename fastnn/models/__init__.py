"""The named networks. `build` makes one by name; a model file can only hold one of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..checks import among
from .classic import lenet5, mlp
from .resnet import resnet18, resnet20, resnet50, resnext50_32x4d
from .vgg import alexnet, vgg16

MODELS: dict[str, Callable[..., Any]] = {
    "alexnet": alexnet, "lenet5": lenet5, "mlp": mlp, "resnet18": resnet18, "resnet20": resnet20, "resnet50": resnet50,
    "resnext50_32x4d": resnext50_32x4d, "vgg16": vgg16}


def build(name: str, **config: Any) -> Any:
    """Build a model of the closed list `MODELS`.

    Parameters
    ----------
    name : str
        A key of `MODELS`.
    **config
        The arguments of that function.

    Returns
    -------
    fastnn.nn.Module
        The model, with ``architecture = {"name": ..., "config": ...}``, which model files keep.

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If an argument is unknown.
    """
    return MODELS[among("build: name", name, MODELS)](**config)


def input_shape(architecture: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of one input that a network was made for.

    Parameters
    ----------
    architecture : mapping
        As models of `build` have it.

    Returns
    -------
    tuple of int
        (1, C, H, W), or (1, features) of an mlp. Networks that end in adaptive pooling take larger and smaller images, too.
    """
    name, config = architecture["name"], architecture["config"]
    if name == "mlp":
        return 1, config["sizes"][0]
    if name == "lenet5":
        return 1, config["in_channels"], config["image_size"], config["image_size"]
    side = 32 if name == "resnet20" else 224
    return 1, 3, side, side


__all__ = ["MODELS", "alexnet", "build", "input_shape", "lenet5", "mlp", "resnet18", "resnet20", "resnet50", "resnext50_32x4d",
           "vgg16"]
