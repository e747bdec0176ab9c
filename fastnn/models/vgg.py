"""Plain deep convolutional networks: AlexNet and VGG-16, in torchvision's parameter names."""

from __future__ import annotations

from .. import nn
from ..tensor import Tensor
from .naming import named

# Channels of VGG-16's convolutions; "M" is a 2x2 max-pool.
VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


class ConvNet(nn.Module):
    """Convolutions, adaptive average pooling, fully connected layers.

    Parameters
    ----------
    features, avgpool, classifier : Module
        The three parts.
    """

    def __init__(self, features: nn.Module, avgpool: nn.Module, classifier: nn.Module):
        super().__init__()
        self.features = features
        self.avgpool = avgpool
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, num_classes)"""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


@named
def vgg16(num_classes: int = 1000, dropout: float = 0.5, width: int = 64) -> ConvNet:
    """VGG-16 (Simonyan and Zisserman, ICLR 2015): 138,357,544 parameters with 1,000 classes.

    Parameters
    ----------
    num_classes : int
        Outputs.
    dropout : float
        Probability in the classifier.
    width : int
        Channels of the first convolution; all others keep their ratio to it.

    Returns
    -------
    ConvNet
    """
    layers: list[nn.Module] = []
    channels = 3
    for item in VGG16:
        if item == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(channels, item * width // 64, 3, padding=1), nn.ReLU()]
        channels = item * width // 64
    hidden = 64 * width
    classifier = nn.Sequential(nn.Linear(channels * 49, hidden), nn.ReLU(), nn.Dropout(dropout),
                               nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout),
                               nn.Linear(hidden, num_classes))
    return ConvNet(nn.Sequential(*layers), nn.AdaptiveAvgPool2d((7, 7)), classifier)


@named
def alexnet(num_classes: int = 1000, dropout: float = 0.5) -> ConvNet:
    """AlexNet as in "One weird trick" (Krizhevsky, 2014): 61,100,840 parameters with 1,000 classes.

    Parameters
    ----------
    num_classes : int
        Outputs.
    dropout : float
        Probability in the classifier.

    Returns
    -------
    ConvNet
    """
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2))
    classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(256 * 36, 4096), nn.ReLU(), nn.Dropout(dropout),
                               nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, num_classes))
    return ConvNet(features, nn.AdaptiveAvgPool2d((6, 6)), classifier)
