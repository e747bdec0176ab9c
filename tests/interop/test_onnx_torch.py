"""ONNX between fastnn and PyTorch: models of the same weights, written here and run by onnxruntime, give PyTorch's results; files that
PyTorch's exporters write give its results and gradients here."""

import contextlib
import io
import warnings

import numpy as np
import pytest

import fastnn
from fastnn import nn
from fastnn.io import load_onnx, onnx_writer, save_onnx

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")
runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra 'test'")


def networks(lib):
    """Models that are made of the same words in both."""
    n = lib.nn
    encoder = n.TransformerEncoder(n.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"), 2)
    return {
        "mlp": (n.Sequential(n.Linear(6, 8), n.ReLU(), n.Dropout(0.3), n.Linear(8, 3), n.Softmax(1)), (4, 6)),
        "convolutions": (n.Sequential(
            n.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), n.BatchNorm2d(8), n.ReLU6(), n.MaxPool2d(3, 2, 1, ceil_mode=True),
            n.Conv2d(8, 8, (3, 2), groups=4, padding="same"), n.LeakyReLU(0.2), n.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
            n.AdaptiveAvgPool2d((3, 1)), n.Flatten(), n.Linear(24, 5), n.LogSoftmax(1)), (2, 3, 21, 18)),
        "autoencoder": (n.Sequential(
            n.Conv2d(1, 6, 3, 2, 1), n.GroupNorm(2, 6), n.GELU(), n.ConvTranspose2d(6, 4, 3, 2, 1, 1), n.InstanceNorm2d(4, affine=True),
            n.SiLU(),
            n.Upsample(scale_factor=2, mode="bilinear"), n.ReflectionPad2d(1), n.Conv2d(4, 4, 3), n.PixelShuffle(2), n.Sigmoid()),
            (2, 1, 8, 10)),
        "sequences": (n.Sequential(n.Conv1d(4, 6, 3, padding=1), n.BatchNorm1d(6), n.ELU(), n.MaxPool1d(2), n.LayerNorm(5), n.Tanh(),
        n.Flatten(),
                                   n.Linear(30, 2)), (3, 4, 10)),
        "transformer": (encoder, (2, 5, 8)),
        "lstm": (n.LSTM(4, 5, 2, batch_first=True, bidirectional=True), (3, 6, 4)), "gru": (n.GRU(4, 5, 2, batch_first=True), (3, 6, 4)),
        "rnn": (n.RNN(4, 5, nonlinearity="relu", batch_first=True), (3, 6, 4)),
        "attention": (n.MultiheadAttention(6, 3, batch_first=True), (2, 5, 6))}


NAMES = tuple(networks(fastnn))


class Itself(nn.Module):
    """Self-attention, as a layer of one input."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x, x, x)


onnx_writer(Itself)(lambda graph, layer, x: graph.call(layer.layer, x, x, x))


def flat(y):
    return [y] if not isinstance(y, tuple) else [part for parts in y for part in flat(parts)]


@pytest.mark.parametrize("name", NAMES)
def test_what_we_write_gives_pytorchs_results(tmp_path, name):
    torch.manual_seed(0)
    theirs, shape = networks(torch)[name]
    for module in theirs.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-1, 1), module.running_var.uniform_(0.5, 2)
    ours, _ = networks(fastnn)[name]
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    x = torch.randn(*shape)
    with torch.no_grad():
        expected = flat(theirs.eval()(*(x,) * (3 if name == "attention" else 1)))
    save_onnx(Itself(ours) if name == "attention" else ours, tmp_path / "m.onnx", shape)
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    for a, b in zip(session.run(None, {"input": x.numpy()}), expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), 1e-4, 1e-5)


def export(model, inputs, path, dynamo):
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(model, inputs, str(path), dynamo=dynamo, input_names=["input"])


def check_export(path, model, x, dynamo):
    """Results and the input's gradient of what an exporter wrote; it can be written again."""
    model.eval()
    if dynamo:
        pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs it; the extra 'peers' brings it")
    export(model, (x,), path, dynamo)
    module = load_onnx(path)
    is_real = x.is_floating_point()
    ours = fastnn.tensor(x.numpy(), requires_grad=is_real)
    x.requires_grad_(is_real)
    actual, expected = flat(module(ours)), flat(model(x))
    for a, b in zip(actual, expected, strict=True):
        assert str(a.dtype) == str(b.dtype).removeprefix("torch.")
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), 1e-4, 2e-5)
    save_onnx(module, path.with_name("again.onnx"), x.detach().numpy(), batch_axis=None)
    session = runtime.InferenceSession(str(path.with_name("again.onnx")), providers=["CPUExecutionProvider"])
    for a, b in zip(session.run(None, {"input": x.detach().numpy()}), expected, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), 1e-4, 2e-5)
    if is_real:
        loss, theirs = (fastnn.functional.sum(fastnn.functional.square(actual[0])), (expected[0]**2).sum())
        loss.backward(), theirs.backward()
        np.testing.assert_allclose(ours.grad.numpy(), x.grad.numpy(), 1e-3, 1e-4)
        assert any(p.grad is not None for p in module.parameters()) or not list(model.parameters())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "attention"])
def test_what_the_older_exporter_writes(tmp_path, name):
    torch.manual_seed(0)
    model, shape = networks(torch)[name]
    check_export(tmp_path / "m.onnx", model, torch.randn(*shape), False)


@pytest.mark.parametrize("name", ["convolutions", "autoencoder", "transformer", "gru"])
def test_what_the_newer_exporter_writes(tmp_path, name):
    """Its weights lie in a file beside the graph."""
    pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs onnxscript")
    torch.manual_seed(0)
    model, shape = networks(torch)[name]
    check_export(tmp_path / "m.onnx", model, torch.randn(*shape), True)


class Functions(torch.nn.Module):
    """Functions of tensors, as models have them between layers."""

    def forward(self, x):
        a, b = x.chunk(2, 1)
        y = torch.cat([a * b.sigmoid(), a.pow(2).sum(1, keepdim=True).sqrt()], 1)
        y = y.permute(0, 2, 3, 1).reshape(x.shape[0], -1, y.shape[1])
        y = torch.where(y > 0.5, y, y.clamp(-0.3, 0.2))
        return (y.softmax(-1), y.topk(2, -1)[0], y.argmax(1), y.std(1), y.max(1)[0], torch.einsum("nij,nkj->nik", y[:, :3], y[:, :2]),
                y.unsqueeze(1).expand(-1, 2, -1, -1), torch.nn.functional.pad(y, (1, 2)), y.flip(1), y.cumsum(1), y.norm(dim=2),
                torch.nn.functional.scaled_dot_product_attention(y, y, y), torch.nn.functional.interpolate(x, scale_factor=2), y.tril(),
                torch.nn.functional.one_hot(y.argmax(1), 12).float(), y[:, 1::2, -1], (y > 0) & ~(y > 1), y.mean((1, 2)))


class Tokens(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.layer, self.out = torch.nn.Embedding(9, 6), torch.nn.LSTM(6, 5, batch_first=True), torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.layer(self.table(x))[0][:, -1])


def test_functions_between_layers(tmp_path):
    torch.manual_seed(0)
    check_export(tmp_path / "m.onnx", Functions(), torch.randn(2, 8, 3, 4), False)


def test_tokens(tmp_path):
    torch.manual_seed(0)
    check_export(tmp_path / "m.onnx", Tokens(), torch.randint(0, 9, (2, 5)), False)


def test_regions_that_overlap(tmp_path):
    """The newer exporter gathers them by indices."""
    pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs onnxscript")
    check_export(tmp_path / "m.onnx", torch.nn.AdaptiveAvgPool2d((2, 3)), torch.randn(2, 3, 7, 8), True)
