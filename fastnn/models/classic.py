"""Networks of the first decades: the multilayer perceptron and LeNet-5."""

from __future__ import annotations

from collections.abc import Sequence

from fastnn import nn

from ..checks import whole
from .naming import named


@named
def lenet5(num_classes: int = 10, image_size: int = 28, in_channels: int = 1) -> nn.Sequential:
    """LeNet-5 in its modern form: max-pooling, ReLU, and a plain linear output.

    6 maps of 5x5, pool 2, 16 maps of 5x5, pool 2, then 120, 84 and `num_classes` units. Images of 28x28
    are padded by 2, which makes them the 32x32 of the paper: 61,706 parameters either way.

    Parameters
    ----------
    num_classes : int
        Width of the output.
    image_size : {28, 32}
        Side of the images.
    in_channels : int
        Channels of the images.

    Returns
    -------
    fastnn.nn.Sequential
        (N, in_channels, image_size, image_size) -> logits (N, num_classes).

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to document
    recognition. Proceedings of the IEEE 86 (1998), 2278-2324.
    """
    num_classes = whole("lenet5: num_classes", num_classes, 1)
    in_channels = whole("lenet5: in_channels", in_channels, 1)
    if image_size not in (28, 32):
        raise ValueError(f"lenet5: image_size is {image_size!r}, expected 28 or 32")
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 5, padding=2 if image_size == 28 else 0), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, num_classes),
    )


@named
def mlp(sizes: Sequence[int] = (784, 128, 10)) -> nn.Sequential:
    """A multilayer perceptron: linear layers with ReLU between them.

    Parameters
    ----------
    sizes : sequence of int
        Widths from input to output, at least two. The model has the sum of
        ``(sizes[l - 1] + 1) * sizes[l]`` parameters: 13,002 for 784-16-16-10.

    Returns
    -------
    fastnn.nn.Sequential
        (N, sizes[0]) -> (N, sizes[-1]).

    Raises
    ------
    ValueError
        If there are fewer than two sizes, or one is not a positive integer.
    """
    if isinstance(sizes, int):
        raise ValueError(f"mlp: sizes is {sizes}, expected at least an input and an output width")
    sizes = [whole("mlp: a size", size, 1) for size in sizes]
    if len(sizes) < 2:
        raise ValueError(f"mlp: sizes is {sizes}, expected at least an input and an output width")
    layers: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
    for inputs, outputs in zip(sizes[1:], sizes[2:]):
        layers += [nn.ReLU(), nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers)
