"""Networks that courses train, as one text for fastnn and PyTorch: attention, recurrence, convolutions, graphs, tables, factors.

Each function takes a library, its `nn` and its `functional`, and gives the model, a batch as arrays, and the loss of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Network(NamedTuple):
    """What is trained, on what."""

    model: Any
    batch: tuple[np.ndarray, ...]
    loss: Callable


def reals(*shape: int) -> np.ndarray:
    """Normally distributed numbers."""
    return np.random.default_rng(math.prod(shape)).standard_normal(shape, dtype=np.float32)


def labels(count: int, *shape: int) -> np.ndarray:
    """Integers from 0 to count - 1."""
    return np.random.default_rng(math.prod(shape) + 1).integers(0, count, shape)


# ---- attention --------------------------------------------------------------------------------------------------------


def character_transformer(L: Any, nn: Any, F: Any) -> Network:
    """A decoder of four blocks, width 128, whose attention is written by hand."""
    letters, length, width, heads, rows = 65, 64, 128, 4, 16

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            self.register_buffer("before", L.tril(L.ones(length, length)).reshape(1, 1, length, length))

        def forward(self, x: Any) -> Any:
            q, k, v = (t.reshape(rows, length, heads, width // heads).transpose(1, 2) for t in self.qkv(self.norm1(x)).split(width, 2))
            scores = (q @ k.transpose(-2, -1)) * (1 / math.sqrt(width // heads))
            scores = F.softmax(scores.masked_fill(self.before == 0, -math.inf), dim=-1)
            x = x + self.out((scores @ v).transpose(1, 2).reshape(rows, length, width))
            return x + self.feed(self.norm2(x))

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.letter, self.place = nn.Embedding(letters, width), nn.Embedding(length, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(4)))
            self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, letters))

        def forward(self, x: Any) -> Any:
            return self.head(self.blocks(self.letter(x) + self.place(L.arange(length))))

    return Network(Decoder(), (labels(letters, rows, length), labels(letters, rows, length + 1)[:, 1:].copy()),
                   lambda model, x, y: F.cross_entropy(model(x).reshape(-1, letters), y.reshape(-1)))


def vision_transformer(L: Any, nn: Any, F: Any) -> Network:
    """Patches of 4 x 4 of CIFAR's images through four encoder layers of width 96."""

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 96, 4, 4)
            self.token, self.places = nn.Parameter(L.zeros(1, 1, 96)), nn.Parameter(L.zeros(1, 65, 96))
            self.layers = nn.Sequential(*(nn.TransformerEncoderLayer(96, 3, 192, dropout=0.0, activation="gelu", batch_first=True,
                                                                     norm_first=True) for _ in range(4)))
            self.head = nn.Linear(96, 10)

        def forward(self, x: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = L.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
            return self.head(self.layers(x)[:, 0])

    return Network(Classifier(), (reals(32, 3, 32, 32), labels(10, 32)), lambda model, x, y: F.cross_entropy(model(x), y))


def translator(L: Any, nn: Any, F: Any) -> Network:
    """Recurrent encoder and decoder with attention, step by step."""
    words, width = 1000, 64

    class Translator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.source, self.target = nn.Embedding(words, width), nn.Embedding(words, width)
            self.encoder, self.cell = nn.GRU(width, width, batch_first=True), nn.GRUCell(2 * width, width)
            self.head = nn.Linear(width, words)

        def forward(self, x: Any, y: Any) -> Any:
            states, last = self.encoder(self.source(x))
            h, out = last[0], []
            for t in range(y.shape[1]):
                weights = F.softmax((states * h.unsqueeze(1)).sum(2), dim=1)
                seen = (weights.unsqueeze(2) * states).sum(1)
                h = self.cell(L.cat([self.target(y[:, t]), seen], 1), h)
                out.append(self.head(h))
            return L.stack(out, 1)

    return Network(Translator(), (labels(words, 32, 12), labels(words, 32, 13)[:, 1:].copy()),
                   lambda model, x, y: F.cross_entropy(model(x, y).reshape(-1, words), y.reshape(-1)))


# ---- recurrence -------------------------------------------------------------------------------------------------------


def text_lstm(L: Any, nn: Any, F: Any) -> Network:
    """Sentiment of texts of 80 words."""

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.lstm, self.head = nn.Embedding(5000, 64), nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 2)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(self.words(x))[0][:, -1])

    return Network(Classifier(), (labels(5000, 32, 80), labels(2, 32)), lambda model, x, y: F.cross_entropy(model(x), y))


def row_gru(L: Any, nn: Any, F: Any) -> Network:
    """Digits read row by row, in both directions, by two layers."""

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.head = nn.GRU(28, 64, num_layers=2, bidirectional=True, batch_first=True), nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            return self.head(self.gru(x)[0][:, -1])

    return Network(Classifier(), (reals(64, 28, 28), labels(10, 64)), lambda model, x, y: F.cross_entropy(model(x), y))


# ---- convolutions -----------------------------------------------------------------------------------------------------


def small_vgg(L: Any, nn: Any, F: Any) -> Network:
    """Four convolutions with batch normalisation, and dropout."""

    def convolution(inputs: int, outputs: int) -> tuple:
        return nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()

    model = nn.Sequential(*convolution(3, 32), *convolution(32, 32), nn.MaxPool2d(2), nn.Dropout(0.25), *convolution(32, 64),
                          *convolution(64, 64), nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(), nn.Linear(4096, 256), nn.ReLU(),
                          nn.Dropout(0.5), nn.Linear(256, 10))
    return Network(model, (reals(64, 3, 32, 32), labels(10, 64)), lambda model, x, y: F.cross_entropy(model(x), y))


def dense_blocks(L: Any, nn: Any, F: Any) -> Network:
    """Layers of 12 channels, each of which reads all before it."""

    class Layer(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 12, 3, padding=1, bias=False)

        def forward(self, x: Any) -> Any:
            return L.cat([x, self.conv(F.relu(self.norm(x)))], 1)

    model = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), *(Layer(24 + 12 * k) for k in range(6)), nn.AvgPool2d(2),
                          *(Layer(96 + 12 * k) for k in range(6)), nn.BatchNorm2d(168), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                          nn.Flatten(), nn.Linear(168, 10))
    return Network(model, (reals(32, 3, 32, 32), labels(10, 32)), lambda model, x, y: F.cross_entropy(model(x), y))


def inverted_residuals(L: Any, nn: Any, F: Any) -> Network:
    """Depthwise convolutions between pointwise ones, as MobileNetV2's."""

    def block(inputs: int, outputs: int, stride: int) -> Any:
        wide = 4 * inputs
        return nn.Sequential(nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
                             nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
                             nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    model = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), block(16, 24, 1), block(24, 32, 2), block(32, 48, 2), nn.AdaptiveAvgPool2d(1),
                          nn.Flatten(), nn.Linear(48, 10))
    return Network(model, (reals(32, 3, 32, 32), labels(10, 32)), lambda model, x, y: F.cross_entropy(model(x), y))


def unet(L: Any, nn: Any, F: Any) -> Network:
    """Segmentation: down twice, up twice, with what was there joined."""

    def double(inputs: int, outputs: int) -> Any:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
                             nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down1, self.down2, self.bottom = double(1, 16), double(16, 32), double(32, 64)
            self.up2, self.join2 = nn.ConvTranspose2d(64, 32, 2, 2), double(64, 32)
            self.up1, self.join1 = nn.ConvTranspose2d(32, 16, 2, 2), double(32, 16)
            self.head = nn.Conv2d(16, 2, 1)

        def forward(self, x: Any) -> Any:
            a = self.down1(x)
            b = self.down2(F.max_pool2d(a, 2))
            y = self.join2(L.cat([self.up2(self.bottom(F.max_pool2d(b, 2))), b], 1))
            return self.head(self.join1(L.cat([self.up1(y), a], 1)))

    return Network(UNet(), (reals(4, 1, 64, 64), labels(2, 4, 64, 64)), lambda model, x, y: F.cross_entropy(model(x), y))


def sound(L: Any, nn: Any, F: Any) -> Network:
    """Words in sound: four 1-D convolutions."""

    def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> tuple:
        return nn.Conv1d(inputs, outputs, size, stride), nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(4)

    model = nn.Sequential(*convolution(1, 32, 80, 4), *convolution(32, 32, 3), *convolution(32, 64, 3), *convolution(64, 64, 3),
                          nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 35))
    return Network(model, (reals(16, 1, 8000), labels(35, 16)), lambda model, x, y: F.cross_entropy(model(x), y))


# ---- autoencoders and generators --------------------------------------------------------------------------------------


def variational_autoencoder(L: Any, nn: Any, F: Any) -> Network:
    """784-400-20 and back."""

    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.mean, self.logvar = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
            self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))

    def loss(model: Any, x: Any) -> Any:
        h = F.relu(model.hidden(x))
        mean, logvar = model.mean(h), model.logvar(h)
        y = model.decoder(mean + L.randn_like(mean) * (0.5 * logvar).exp())
        return (F.binary_cross_entropy_with_logits(y, x, reduction="sum") - 0.5 * (1 + logvar - mean**2 - logvar.exp()).sum()) / len(x)

    return Network(Autoencoder(), (np.random.default_rng(0).random((128, 784), dtype=np.float32),), loss)


def generator(L: Any, nn: Any, F: Any) -> Network:
    """DCGAN's, for images of 32 x 32."""

    def convolution(inputs: int, outputs: int, *how: int) -> tuple:
        return nn.ConvTranspose2d(inputs, outputs, 4, *how, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()

    model = nn.Sequential(*convolution(100, 256, 1, 0), *convolution(256, 128, 2, 1), *convolution(128, 64, 2, 1),
                          nn.ConvTranspose2d(64, 3, 4, 2, 1), nn.Tanh())
    return Network(model, (reals(16, 100, 1, 1), reals(16, 3, 32, 32)), lambda model, x, y: F.mse_loss(model(x), y))


# ---- tables, graphs, factors ------------------------------------------------------------------------------------------


def table(L: Any, nn: Any, F: Any) -> Network:
    """Regression from 30 columns, with batch normalisation and dropout."""

    def layer(inputs: int, outputs: int) -> tuple:
        return nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(0.2)

    model = nn.Sequential(*layer(30, 128), *layer(128, 128), *layer(128, 64), nn.Linear(64, 1))
    return Network(model, (reals(256, 30), reals(256, 1)), lambda model, x, y: F.mse_loss(model(x), y))


def graph(L: Any, nn: Any, F: Any) -> Network:
    """Two graph convolutions over Cora's numbers of papers, citations and words."""
    papers, citations = 2708, 10556

    class Convolutions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(1433, 16), nn.Linear(16, 7)
            self.register_buffer("cited", L.tensor(labels(papers, citations)))
            self.register_buffer("citing", L.tensor(labels(papers, citations + 1)[1:].copy()))

        def gathered(self, x: Any) -> Any:
            return L.zeros(papers, x.shape[1]).index_add(0, self.citing, x[self.cited])

        def forward(self, x: Any) -> Any:
            return self.gathered(self.second(F.relu(self.gathered(self.first(x)))))

    words = (np.random.default_rng(0).random((papers, 1433)) < 0.01).astype(np.float32)
    return Network(Convolutions(), (words, labels(7, papers)), lambda model, x, y: F.cross_entropy(model(x), y))


def word_vectors(L: Any, nn: Any, F: Any) -> Network:
    """Skip-grams with negative samples: 10,000 words, 100 numbers each."""

    class Skipgram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centre, self.context = nn.Embedding(10000, 100), nn.Embedding(10000, 100)

        def forward(self, centre: Any, context: Any) -> Any:
            return L.bmm(self.centre(centre), self.context(context).permute(0, 2, 1))

    is_near = (np.random.default_rng(0).random((256, 1, 6)) < 0.2).astype(np.float32)
    return Network(Skipgram(), (labels(10000, 256, 1), labels(10000, 256, 6), is_near),
                   lambda model, centre, context, y: F.binary_cross_entropy_with_logits(model(centre, context), y))


def values(L: Any, nn: Any, F: Any) -> Network:
    """Deep Q-learning's step of a small network."""
    model = nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))
    return Network(model, (reals(128, 4), labels(2, 128, 1), reals(128, 1)),
                   lambda model, x, action, y: F.smooth_l1_loss(model(x).gather(1, action), y))


NETWORKS = {function.__name__: function for function in (
    character_transformer, vision_transformer, translator, text_lstm, row_gru, small_vgg, dense_blocks, inverted_residuals, unet, sound,
    variational_autoencoder, generator, table, graph, word_vectors, values)}
