"""ONNX files: every layer is written, checked by onnx, and computes in onnxruntime what it computes here."""

import numpy as np
import pytest

import fastnn
from fastnn import models, nn
from fastnn.io import load_onnx, onnx_writer, save_onnx
from fastnn.testing import layers as specs
from fastnn.testing.layers import LAYERS

onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")
runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra 'test'")

# Losses are for training, which an ONNX file of a model is not; regions of fractional pooling are drawn at every call; the rest
# holds what its module goes through.
NOT_IN_FILES = {name for name, value in vars(nn).items() if name.endswith("Loss")} | {
    "AdaptiveLogSoftmaxWithLoss", "FractionalMaxPool2d", "Module", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict"}


# The wrappers that make layers of several inputs or outputs ones of one.


@onnx_writer(specs._First)
def _first(graph, layer, x):
    return graph.call(layer.layer, x)[0]


@onnx_writer(specs._Decoded)
def _decoded(graph, layer, x):
    return graph.call(layer.decoder, x, x)


@onnx_writer(specs._Tokens)
def _tokens(graph, layer, x):
    return graph.node("Add", x, graph.call(layer.embedding, graph.constant(layer.tokens)))


@onnx_writer(specs._Unpooled)
def _unpooled(graph, layer, x):
    return graph.call(layer.layer, x, graph.constant(layer.indices))


@onnx_writer(specs._Loss)
def _loss(graph, layer, x):
    return graph.call(layer.loss, x, *(graph.constant(t, x.dtype if t.dtype.kind == "f" else None) for t in layer.targets))


def flat(y):
    return [y] if not isinstance(y, tuple) else [part for parts in y for part in flat(parts) if part is not None]


def run(path, arrays):
    """onnxruntime's outputs."""
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {given.name: array for given, array in zip(session.get_inputs(), arrays)})


def assert_same(actual, expected, rtol=1e-4, atol=1e-5):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
        b = np.asarray(b.detach() if isinstance(b, fastnn.Tensor) else b)
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol, atol)


def check(path, model, *arrays, batch_axis=0):
    """Writes the model; onnx finds no fault; outputs of onnxruntime and of what is read again are its own, for a larger batch, too."""
    given = [a if a.dtype.kind == "i" else a.shape for a in arrays]
    save_onnx(model, path, given, batch_axis=batch_axis)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    again = load_onnx(path)
    larger = [] if batch_axis is None else [[np.concatenate((a, np.flip(a, batch_axis), a), batch_axis) for a in arrays]]
    model.eval()
    for inputs in [arrays, *larger]:
        expected = flat(model(*map(fastnn.tensor, inputs)))
        assert_same(run(path, inputs), expected)
        assert_same([y.detach().numpy() for y in flat(again(*map(fastnn.tensor, inputs)))], expected)


def writable(spec):
    return not {type(part).__name__ for part in spec.make().modules()} & (NOT_IN_FILES - {"_Loss"})


@pytest.mark.parametrize("spec", [spec for spec in LAYERS if writable(spec)], ids=lambda spec: repr(spec.make())[:60])
def test_layers(tmp_path, spec):
    fastnn.manual_seed(0)
    layer = spec.make()
    is_fixed = isinstance(layer, (specs._Tokens, specs._Unpooled, specs._Loss))
    axis = 1 if isinstance(layer, specs._First) and not getattr(layer.layer, "batch_first", True) else 0
    check(tmp_path / "layer.onnx", layer, spec.input().astype(np.float32), batch_axis=None if is_fixed else axis)


def test_every_layer_is_written_or_known_not_to_be():
    from fastnn.io.onnx import writers  # noqa: F401
    from fastnn.io.onnx.registry import WRITERS
    layers = {name: value for name, value in vars(nn).items() if isinstance(value, type) and issubclass(value, nn.Module)}
    lazy = {name for name, value in layers.items() if value._is_lazy}  # other layers by the time they are written
    without = {name for name, value in layers.items() if value not in WRITERS} - lazy
    assert without == NOT_IN_FILES & set(layers)
    for name in lazy:
        assert layers[name].__bases__[-1] in WRITERS


CASES = [("mlp", {"sizes": (20, 16, 10)}, (2, 20)), ("lenet5", {}, (1, 1, 28, 28)), ("lenet5", {"image_size": 32}, (2, 1, 32, 32)),
         ("resnet20", {"width": 4}, (2, 3, 16, 16)), ("resnet18", {"width": 4, "num_classes": 10}, (2, 3, 64, 64)),
         ("resnet50", {"width": 4, "num_classes": 10}, (1, 3, 64, 64)),
         ("resnext50_32x4d", {"width": 16, "num_classes": 10}, (2, 3, 64, 64)),
         ("vgg16", {"width": 4, "num_classes": 10}, (2, 3, 50, 47)), pytest.param("alexnet", {"num_classes": 10}, (1, 3, 64, 64),
         marks=pytest.mark.slow)]


def test_every_named_network_is_among_the_cases():
    assert {getattr(case, "values", case)[0] for case in CASES} == set(models.MODELS)


@pytest.mark.parametrize("name, config, shape", CASES)
def test_named_networks(tmp_path, name, config, shape):
    fastnn.manual_seed(1)
    model = models.build(name, **config)
    with fastnn.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.uniform_(-0.5, 0.5), layer.running_var.uniform_(0.5, 2)
    x = np.random.default_rng(2).standard_normal(shape, dtype=np.float32)
    check(tmp_path / "model.onnx", model, x)
    kept = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "model.onnx").graph.initializer}
    state = {key: value.numpy() for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert kept.keys() == state.keys() and all(np.array_equal(kept[key], state[key]) for key in state)
