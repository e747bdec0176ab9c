"""Residual networks in torchvision's parameter names.

He et al., "Deep residual learning for image recognition", CVPR 2016; Xie et al., "Aggregated residual transformations for deep
neural networks", CVPR 2017.
"""

from __future__ import annotations

from .. import nn
from ..checks import whole
from ..tensor import Tensor
from .naming import named


def _conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, groups=groups, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Parameters
    ----------
    inputs, width : int
        Channels in, and channels of both convolutions.
    stride : int
        Of the first convolution and the shortcut.
    downsample : Module, optional
        The shortcut's projection; by default the identity.
    """

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution that widens fourfold, and a shortcut.

    Parameters
    ----------
    inputs, width : int
        Channels in, and a quarter of those out.
    stride : int
        Of the 3x3 convolution and the shortcut.
    downsample : Module, optional
        The shortcut's projection; by default the identity.
    groups, width_per_group : int
        Of the 3x3 convolution: it has `groups` groups of `width` * `width_per_group` / 64 channels.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1, downsample: nn.Module | None = None, groups: int = 1,
                 width_per_group: int = 64):
        super().__init__()
        inner = width * width_per_group // 64 * groups
        self.conv1 = _conv(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _conv(inner, inner, 3, stride, groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = _conv(inner, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """The ImageNet family: a 7x7 stem, four stages, global average pooling, a linear classifier.

    Parameters
    ----------
    block : type
        `BasicBlock` or `Bottleneck`.
    layers : sequence of int
        Blocks in each of the four stages.
    num_classes : int
        Outputs.
    width : int
        Channels of the first stage; each later one doubles them.
    **options
        Of every block.
    """

    def __init__(self, block: type, layers: tuple[int, int, int, int], num_classes: int = 1000, width: int = 64, **options: int):
        super().__init__()
        self._channels = width
        self._options = options
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._stage(block, width, layers[0], 1)
        self.layer2 = self._stage(block, 2 * width, layers[1], 2)
        self.layer3 = self._stage(block, 4 * width, layers[2], 2)
        self.layer4 = self._stage(block, 8 * width, layers[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8 * width * block.expansion, num_classes)
        _initialise(self)

    def _stage(self, block: type, width: int, count: int, stride: int) -> nn.Sequential:
        outputs = width * block.expansion
        shortcut = None
        if stride != 1 or self._channels != outputs:
            shortcut = nn.Sequential(_conv(self._channels, outputs, 1, stride), nn.BatchNorm2d(outputs))
        blocks = [block(self._channels, width, stride, shortcut, **self._options)]
        self._channels = outputs
        return nn.Sequential(*blocks, *(block(outputs, width, **self._options) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, num_classes)"""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


class CifarResNet(nn.Module):
    """The CIFAR family of the paper's section 4.2: a 3x3 stem and three stages of basic blocks.

    Parameters
    ----------
    blocks : int
        Basic blocks in each stage; the network has 6 `blocks` + 2 layers with weights.
    num_classes : int
        Outputs.
    width : int
        Channels of the first stage.
    """

    def __init__(self, blocks: int, num_classes: int = 10, width: int = 16):
        super().__init__()
        self.conv1 = _conv(3, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = self._stage(width, width, blocks, 1)
        self.layer2 = self._stage(width, 2 * width, blocks, 2)
        self.layer3 = self._stage(2 * width, 4 * width, blocks, 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(4 * width, num_classes)
        _initialise(self)

    @staticmethod
    def _stage(inputs: int, width: int, count: int, stride: int) -> nn.Sequential:
        shortcut = None if stride == 1 else nn.Sequential(_conv(inputs, width, 1, stride), nn.BatchNorm2d(width))
        return nn.Sequential(BasicBlock(inputs, width, stride, shortcut),
                             *(BasicBlock(width, width) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, num_classes)"""
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc(self.avgpool(self.layer3(self.layer2(self.layer1(x)))).flatten(1))


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


@named
def resnet18(num_classes: int = 1000, width: int = 64) -> ResNet:
    """ResNet-18: 11,689,512 parameters with 1,000 classes; (N, 3, H, W) -> (N, num_classes).

    Parameters
    ----------
    num_classes : int
        Outputs.
    width : int
        Channels of the first of four stages; each later one doubles them.

    Returns
    -------
    ResNet
    """
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, width)


@named
def resnet50(num_classes: int = 1000, width: int = 64) -> ResNet:
    """ResNet-50, of bottleneck blocks: 25,557,032 parameters with 1,000 classes; see `resnet18`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, width)


@named
def resnext50_32x4d(num_classes: int = 1000, width: int = 64) -> ResNet:
    """ResNeXt-50, whose 3x3 convolutions have 32 groups, of 4 channels in the first stage: 25,028,904 parameters with 1,000 classes.

    Parameters
    ----------
    num_classes : int
        Outputs.
    width : int
        A quarter of the channels that the first of four stages gives on, at least 16; each later stage doubles them.

    Returns
    -------
    ResNet
        (N, 3, H, W) -> (N, num_classes)

    Raises
    ------
    ValueError
        If `width` is too small for groups of one channel.
    """
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, whole("resnext50_32x4d: width", width, 16), groups=32, width_per_group=4)


@named
def resnet20(num_classes: int = 10, width: int = 16) -> CifarResNet:
    """ResNet-20 for small images such as CIFAR-10's: 272,474 parameters with 10 classes; (N, 3, H, W) -> (N, num_classes).

    Parameters
    ----------
    num_classes : int
        Outputs.
    width : int
        Channels of the first of three stages; each later one doubles them.

    Returns
    -------
    CifarResNet
    """
    return CifarResNet(3, num_classes, width)
