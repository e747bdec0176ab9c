"""Every distinct convolution of the named networks, and matrix products, by name: what benchmarks measure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Conv(NamedTuple):
    """One convolution; sizes of its input, its filters and its geometry (square, as in all networks here)."""

    name: str
    channels: int
    size: int
    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def out_size(self) -> int:
        """Height and width of the output."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    def flops(self, batch: int) -> float:
        """Floating-point operations of each of the three passes.

        Parameters
        ----------
        batch : int
            Images.

        Returns
        -------
        float
        """
        return 2.0 * batch * self.filters * self.out_size**2 * self.channels // self.groups * self.kernel**2


def _lenet5() -> Iterator[Conv]:
    yield Conv("conv1", 1, 28, 6, 5, padding=2)
    yield Conv("conv2", 6, 14, 16, 5)


def _alexnet() -> Iterator[Conv]:
    yield Conv("conv1", 3, 224, 64, 11, stride=4, padding=2)
    yield Conv("conv2", 64, 27, 192, 5, padding=2)
    for index, (channels, filters) in enumerate([(192, 384), (384, 256), (256, 256)], 3):
        yield Conv(f"conv{index}", channels, 13, filters, 3, padding=1)


def _vgg16() -> Iterator[Conv]:
    channels, size = 3, 224
    for stage, (filters, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], 1):
        for index in range(1, depth + 1):
            yield Conv(f"conv{stage}_{index}", channels, size, filters, 3, padding=1)
            channels = filters
        size //= 2


def _googlenet() -> Iterator[Conv]:
    yield Conv("conv1", 3, 224, 64, 7, stride=2, padding=3)
    yield Conv("conv2", 64, 56, 64, 1)
    yield Conv("conv3", 64, 56, 192, 3, padding=1)
    blocks = {"3a": (192, 28, 64, 96, 128, 16, 32, 32), "3b": (256, 28, 128, 128, 192, 32, 96, 64),
              "4a": (480, 14, 192, 96, 208, 16, 48, 64), "4b": (512, 14, 160, 112, 224, 24, 64, 64),
              "4c": (512, 14, 128, 128, 256, 24, 64, 64), "4d": (512, 14, 112, 144, 288, 32, 64, 64),
              "4e": (528, 14, 256, 160, 320, 32, 128, 128), "5a": (832, 7, 256, 160, 320, 32, 128, 128),
              "5b": (832, 7, 384, 192, 384, 48, 128, 128)}
    for name, (channels, size, one, three_in, three, five_in, five, pooled) in blocks.items():
        yield Conv(f"{name}.1x1", channels, size, one, 1)
        yield Conv(f"{name}.3x3_reduce", channels, size, three_in, 1)
        yield Conv(f"{name}.3x3", three_in, size, three, 3, padding=1)
        yield Conv(f"{name}.5x5_reduce", channels, size, five_in, 1)
        yield Conv(f"{name}.5x5", five_in, size, five, 5, padding=2)
        yield Conv(f"{name}.pool", channels, size, pooled, 1)


def _resnet18() -> Iterator[Conv]:
    yield Conv("conv1", 3, 224, 64, 7, stride=2, padding=3)
    yield Conv("layer1", 64, 56, 64, 3, padding=1)
    channels, size = 64, 56
    for stage in (2, 3, 4):
        yield Conv(f"layer{stage}.first", channels, size, 2 * channels, 3, stride=2, padding=1)
        yield Conv(f"layer{stage}.shortcut", channels, size, 2 * channels, 1, stride=2)
        channels, size = 2 * channels, size // 2
        yield Conv(f"layer{stage}", channels, size, channels, 3, padding=1)


def _resnet50(groups: int = 1, wider: int = 1) -> Iterator[Conv]:
    yield Conv("conv1", 3, 224, 64, 7, stride=2, padding=3)
    channels, size = 64, 56
    for stage, (filters, depth) in enumerate([(256, 3), (512, 4), (1024, 6), (2048, 3)], 1):
        width = filters * wider // 4
        for block in range(depth):
            stride = 2 if block == 0 and stage > 1 else 1
            yield Conv(f"layer{stage}.{block}.conv1", channels, size, width, 1)
            yield Conv(f"layer{stage}.{block}.conv2", width, size, width, 3, stride=stride, padding=1, groups=groups)
            yield Conv(f"layer{stage}.{block}.conv3", width, size // stride, filters, 1)
            if block == 0:
                yield Conv(f"layer{stage}.0.shortcut", channels, size, filters, 1, stride=stride)
            channels, size = filters, size // stride


def _resnext50() -> Iterator[Conv]:
    """ResNeXt-50 of 32 groups of 4 channels and more."""
    yield from _resnet50(groups=32, wider=2)


def _mobilenetv2() -> Iterator[Conv]:
    yield Conv("stem", 3, 224, 32, 3, stride=2, padding=1)
    channels, size = 32, 112
    settings = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
                (6, 320, 1, 1)]
    for stage, (expansion, filters, depth, first_stride) in enumerate(settings, 1):
        for block in range(depth):
            stride, hidden = first_stride if block == 0 else 1, expansion * channels
            if expansion > 1:
                yield Conv(f"block{stage}.{block}.expand", channels, size, hidden, 1)
            yield Conv(f"block{stage}.{block}.depthwise", hidden, size, hidden, 3, stride=stride, padding=1,
                       groups=hidden)
            size //= stride
            yield Conv(f"block{stage}.{block}.project", hidden, size, filters, 1)
            channels = filters
    yield Conv("head", channels, size, 1280, 1)


def _resnet20() -> Iterator[Conv]:
    yield Conv("conv1", 3, 32, 16, 3, padding=1)
    yield Conv("layer1", 16, 32, 16, 3, padding=1)
    channels, size = 16, 32
    for stage in (2, 3):
        yield Conv(f"layer{stage}.first", channels, size, 2 * channels, 3, stride=2, padding=1)
        channels, size = 2 * channels, size // 2
        yield Conv(f"layer{stage}", channels, size, channels, 3, padding=1)


def _small() -> Iterator[Conv]:
    """The networks with which courses begin: of digits with 3x3 and 5x5 windows, of small colour images with 3x3 ones."""
    yield Conv("digits3.conv1", 1, 28, 32, 3)
    yield Conv("digits3.conv2", 32, 13, 64, 3)
    yield Conv("digits5.conv1", 1, 28, 20, 5)
    yield Conv("digits5.conv2", 20, 12, 50, 5)
    yield Conv("colour.conv1", 3, 32, 32, 3, padding=1)
    yield Conv("colour.conv2", 32, 32, 32, 3, padding=1)
    yield Conv("colour.conv3", 32, 16, 64, 3, padding=1)
    yield Conv("colour.conv4", 64, 16, 64, 3, padding=1)


def _distinct(layers: Iterator[Conv]) -> list[Conv]:
    """The layers without those that differ from an earlier one in name only."""
    return list({layer[1:]: layer for layer in reversed(list(layers))}.values())[::-1]


CONVOLUTIONS = {name: _distinct(layers()) for name, layers in {
    "lenet5": _lenet5, "alexnet": _alexnet, "vgg16": _vgg16, "googlenet": _googlenet, "resnet18": _resnet18,
    "resnet50": _resnet50, "resnext50": _resnext50, "mobilenetv2": _mobilenetv2, "resnet20": _resnet20, "small": _small}.items()}


class Product(NamedTuple):
    """One matrix product: "square", or one of a linear layer's passes; rows (or batch), inputs, outputs."""

    which: str
    batch: int
    inputs: int
    outputs: int

    @property
    def name(self) -> str:
        """Such as "forward-64x784x256"."""
        return f"{self.which}-{self.batch}x{self.inputs}x{self.outputs}"

    @property
    def flops(self) -> float:
        """Floating-point operations."""
        return 2.0 * self.batch * self.inputs * self.outputs


SQUARES = [Product("square", n, n, n) for n in (256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)]
LAYERS = [Product(which, batch, *sizes) for batch in (4, 64, 200) for sizes in ((784, 256), (256, 10), (784, 50))
          for which in ("forward", "backward_input", "backward_weight")]
