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


# ---- options that the list of layers leaves out ----

RNG = np.random.default_rng(0)


def real(*shape):
    return RNG.uniform(-2, 2, shape).astype(np.float32)


def states(layer, *shape):
    return [real(*shape) for _ in range(2 if isinstance(layer, nn.LSTM) else 1)]


VARIANTS = [
    (lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 3, 6, 8)), (lambda: nn.MaxPool2d(2, 3, ceil_mode=True), (2, 3, 6, 8)),
    (lambda: nn.MaxPool2d(2, 2, 1, dilation=3), (2, 3, 9, 8)), (lambda: nn.MaxPool1d(3, 2, ceil_mode=True), (2, 3, 8)),
    (lambda: nn.MaxPool2d(2, return_indices=True), (2, 3, 6, 8)), (lambda: nn.MaxPool1d(2, return_indices=True), (2, 3, 6)),
    (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True), (2, 3, 6, 8)), (lambda: nn.AvgPool2d(3, 2, 1, True, False), (2, 3, 6, 8)),
    (lambda: nn.AvgPool2d(2, 3, ceil_mode=True), (2, 3, 6, 7)), (lambda: nn.AvgPool2d(2, 3, divisor_override=3), (2, 3, 6, 8)),
    (lambda: nn.AvgPool2d((3, 2), count_include_pad=False, padding=1), (2, 3, 6, 8)),
    (lambda: nn.AvgPool1d(3, 2, 1, ceil_mode=True), (2, 3, 8)), (lambda: nn.AvgPool1d(3, 2, 1, True, False), (2, 3, 8)),
    (lambda: nn.LPPool2d(float("inf"), 2), (2, 3, 6, 8)), (lambda: nn.LPPool2d(2, 3, 2, ceil_mode=True), (2, 3, 6, 8)),
    (lambda: nn.AdaptiveAvgPool2d((None, 3)), (2, 3, 6, 8)), (lambda: nn.AdaptiveMaxPool2d(1), (2, 3, 6, 8)),
    (lambda: nn.Conv2d(4, 6, (3, 4), padding="same", dilation=(2, 1)), (2, 4, 6, 7)), (lambda: nn.Conv1d(4, 6, 3, padding="valid"),
    (2, 4, 9)),
    (lambda: nn.Conv2d(4, 4, 3, padding=2, padding_mode="reflect"), (2, 4, 6, 7)),
    (lambda: nn.Conv1d(4, 4, 3, 1, 2, padding_mode="circular"),
                                                                                    (2, 4, 9)),
    (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, dilation=2), (2, 4, 6, 7)),
    (lambda: nn.Unfold((3, 2), 2, 1, 2), (2, 3, 8, 7)), (lambda: nn.Fold((7, 8), 3, 2, 1, 2), (2, 18, 9)),
    (lambda: nn.ConstantPad2d((-1, 2, 0, -2), 0.5), (2, 4, 6, 7)), (lambda: nn.CircularPad2d((-1, 2, 0, 3)), (2, 4, 6, 7)),
    (lambda: nn.Upsample(scale_factor=(1.5, 2)), (2, 3, 4, 5)), (lambda: nn.Upsample(scale_factor=1.7, mode="bilinear"), (2, 3, 5, 6)),
    (lambda: nn.Upsample(scale_factor=1.7, mode="bicubic", recompute_scale_factor=True), (2, 3, 5, 6)),
    (lambda: nn.Upsample((9, 4), mode="bicubic", align_corners=True), (2, 3, 5, 6)), (lambda: nn.Upsample(11, mode="linear"), (2, 3, 5)),
    (lambda: nn.Upsample(scale_factor=0.5, mode="nearest-exact"), (2, 3, 6, 7)), (lambda: nn.Upsample(3, mode="area"), (2, 3, 7, 8)),
    (lambda: nn.BatchNorm1d(4, track_running_stats=False), (3, 4)), (lambda: nn.InstanceNorm2d(4, track_running_stats=True), (2, 4, 5, 6)),
    (lambda: nn.BatchNorm2d(4, bias=False), (2, 4, 5, 6)), (lambda: nn.GroupNorm(2, 6, affine=False), (2, 6, 5)),
    (lambda: nn.GroupNorm(3, 6), (2, 6)), (lambda: nn.LayerNorm((3, 5), elementwise_affine=False), (2, 3, 5)),
    (lambda: nn.RMSNorm((3, 5), 0.1), (2, 3, 5)),
    (lambda: nn.Flatten(0, 1), (2, 3, 5)), (lambda: nn.Flatten(2), (2, 3, 5, 4)), (lambda: nn.Flatten(1, 2), (2, 3, 5, 4)),
    (lambda: nn.Unflatten(-1, (-1, 2)), (3, 8)), (lambda: nn.Dropout(0.3, inverted=False), (3, 8)), (lambda: nn.PReLU(5), (3, 5)),
    (lambda: nn.Residual(nn.Linear(5, 5), nn.Linear(5, 5, bias=False)), (3, 5)), (lambda: nn.Residual(nn.Identity(), "zero"), (3, 5)),
    (lambda: nn.LSTM(3, 4, 2, bias=False, batch_first=True, bidirectional=True), (2, 5, 3)),
    (lambda: nn.RNN(3, 4, 2, "relu", batch_first=True), (2, 5, 3)),
    (lambda: nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True, proj_size=2), (2, 5, 3)), (lambda: nn.GRU(3, 4, batch_first=True),
    (2, 5, 3)),
    (lambda: nn.RNNCell(3, 4, bias=False), (2, 3)), (lambda: nn.LSTMCell(3, 4), (2, 3)), (lambda: nn.GRUCell(3, 4), (2, 3)),
    (lambda: nn.MultiheadAttention(6, 2, bias=False, batch_first=True), (2, 3, 6)),
    (lambda: nn.MultiheadAttention(6, 3, add_bias_kv=True, add_zero_attn=True, batch_first=True), (2, 3, 6)),
    (lambda: nn.MultiheadAttention(6, 2, query_network=nn.Linear(6, 6), key_network=nn.Tanh(), value_network=nn.Identity(),
    batch_first=True),
     (2, 3, 6)),
    (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=True, activation="gelu"),
    2, nn.LayerNorm(6)),
     (2, 3, 6)),
    (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, bias=False, activation=nn.SiLU()), (2, 3, 6)),
    (lambda: nn.Sequential(), (2, 3)), (lambda: nn.Sequential(nn.Identity(), nn.Identity()), (2, 3)),
]


@pytest.mark.parametrize("make, shape", VARIANTS, ids=lambda value: repr(value()).replace("\n", "")[:70] if callable(value) else None)
def test_options(tmp_path, make, shape):
    fastnn.manual_seed(0)
    layer = make()
    for part in layer.modules():
        if getattr(part, "running_mean", None) is not None:
            part.running_mean.uniform_(-1, 1), part.running_var.uniform_(0.5, 2)
    x = abs(real(*shape)) if isinstance(layer, nn.LPPool2d) else real(*shape)
    check(tmp_path / "layer.onnx", layer, x)


@pytest.mark.parametrize("name", sorted(fastnn.ACTIVATIONS))
def test_activations_by_name(tmp_path, name):
    check(tmp_path / "layer.onnx", nn.Activation(name), real(3, 8))


@pytest.mark.parametrize("layer, shape", [
    (nn.Conv2d(3, 4, 3), (3, 6, 7)), (nn.ConvTranspose1d(3, 4, 3), (3, 6)), (nn.MaxPool2d(2), (3, 6, 7)), (nn.AvgPool1d(2), (3, 6)),
    (nn.AdaptiveAvgPool2d(2), (3, 6, 7)), (nn.InstanceNorm2d(3), (3, 6, 7)), (nn.Linear(3, 4), (3,)), (nn.LSTM(3, 4), (5, 3)),
    (nn.MultiheadAttention(6, 2, add_bias_kv=True), (5, 6)), (nn.PixelShuffle(2), (4, 3, 2)), (nn.LearnedPositionalEncoding(6),
    (5, 6))], ids=repr)
def test_inputs_without_a_batch(tmp_path, layer, shape):
    check(tmp_path / "layer.onnx", layer, real(*shape), batch_axis=None)


@pytest.mark.parametrize("layer, shapes", [
    (nn.LSTM(3, 4, 2), [(5, 2, 3), (2, 2, 4), (2, 2, 4)]), (nn.GRU(3, 4, 1, bidirectional=True), [(5, 2, 3), (2, 2, 4)]),
    (nn.MultiheadAttention(6, 2, kdim=4, vdim=5), [(3, 2, 6), (7, 2, 4), (7, 2, 5)]), (nn.MultiheadAttention(6, 2), [(3, 2, 6), (7, 2, 6)]),
    (nn.TransformerDecoder(nn.TransformerDecoderLayer(6, 2, 8), 2), [(3, 2, 6), (4, 2, 6)]), (nn.Transformer(6, 2, 1, 2, 8), [(3, 2, 6),
    (4, 2, 6)])],
    ids=lambda value: type(value).__name__)
def test_several_inputs(tmp_path, layer, shapes):
    class Flat(nn.Module):
        """First states, which PyTorch has as a tuple, one by one."""

        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, *more):
            return self.layer(x, more) if isinstance(layer, nn.LSTM) else self.layer(x, *more)

    onnx_writer(Flat)(lambda graph, module, *inputs: graph.call(module.layer, *inputs))
    check(tmp_path / "layer.onnx", Flat(), *(real(*shape) for shape in shapes), batch_axis=1)


@pytest.mark.parametrize("layer", [nn.RNNCell(3, 4), nn.GRUCell(3, 4)], ids=repr)
def test_cells_with_a_state(tmp_path, layer):
    check(tmp_path / "layer.onnx", layer, real(2, 3), real(2, 4))


@pytest.mark.parametrize("layer", [nn.CosineSimilarity(), nn.PairwiseDistance(3.0), nn.PairwiseDistance(1.0),
nn.PairwiseDistance(float("inf")),
                                   nn.Bilinear(5, 5, 3)], ids=repr)
def test_two_inputs(tmp_path, layer):
    check(tmp_path / "layer.onnx", layer, real(3, 5), real(3, 5))


@pytest.mark.parametrize("layer, tokens", [(nn.Embedding(9, 4, padding_idx=2), RNG.integers(0, 9, (2, 5))),
                                           (nn.EmbeddingBag(9, 4), RNG.integers(0, 9, (2, 5))),
                                           (nn.EmbeddingBag(9, 4, mode="max"), RNG.integers(0, 9, (2, 5), dtype=np.int32)),
                                           (nn.Sequential(nn.Embedding(9, 4), nn.LSTM(4, 3, batch_first=True)),
                                           RNG.integers(0, 9, (2, 5)))],
                         ids=repr)
def test_tokens(tmp_path, layer, tokens):
    check(tmp_path / "layer.onnx", layer, tokens)


def test_float64(tmp_path):
    fastnn.manual_seed(0)  # not an element near zero, whose rounding would be large beside it
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
    nn.Linear(12, 2)).double()
    x = np.random.default_rng(0).uniform(-2, 2, (2, 2, 7, 7))
    save_onnx(model, tmp_path / "m.onnx", x.shape)
    y = load_onnx(tmp_path / "m.onnx")(fastnn.tensor(x))
    assert str(y.dtype) == "float64"
    np.testing.assert_allclose(y.detach().numpy(), model.eval()(fastnn.tensor(x)).detach().numpy(), 1e-12)


def test_computed_weights_are_written_as_they_are(tmp_path):
    from fastnn.nn.utils import parametrizations, prune, spectral_norm
    layers = [nn.Linear(6, 6) for _ in range(5)]
    nn.weight_norm(layers[0])
    prune.random_unstructured(layers[1], "weight", 0.5)
    parametrizations.spectral_norm(layers[2])
    parametrizations.weight_norm(layers[3])
    spectral_norm(layers[4])
    check(tmp_path / "m.onnx", nn.Sequential(*layers), real(3, 6))


# ---- names, modes, users' own layers ----


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(np.array([2.0], np.float32))

    def forward(self, x):
        return x * self.gain


class Wide(nn.Linear):
    """A class of one's own that computes what its base does."""

    def __init__(self, width):
        super().__init__(width, 2 * width)


class Other(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


@pytest.fixture
def scaled():
    """A writer of one's own, for a while."""
    from fastnn.io.onnx.registry import WRITERS

    @onnx_writer(Scaled)
    def write(graph, layer, x):
        return graph.node("Mul", x, graph.parameter(layer, "gain"))

    yield write
    del WRITERS[Scaled]


def test_a_layer_of_ones_own(tmp_path, scaled):
    model = nn.Sequential(Wide(4), Scaled(), nn.Linear(8, 2))
    check(tmp_path / "m.onnx", model, real(3, 4))
    assert {t.name for t in onnx.load(tmp_path / "m.onnx").graph.initializer} == set(model.state_dict())


@pytest.mark.parametrize("layer, message", [
    (Scaled(), "layer '1.module' (Scaled): Scaled has no ONNX writer; give it one: @fastnn.io.onnx_writer(Scaled)"),
    (Other(4, 4), "layer '1.module' (Other): Other has no ONNX writer"),
    (nn.Activation(lambda x: x + 1), "its activation is <function"), (nn.Embedding(9, 4, max_norm=1.0), "max_norm"),
    (nn.LocalResponseNorm(4), "size is 4, but must be odd")], ids=repr)
def test_what_cannot_be_written_leaves_an_older_file(tmp_path, layer, message):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"precious")
    tokens = isinstance(layer, nn.Embedding)
    with pytest.raises(ValueError) as raised:
        save_onnx(nn.Sequential(nn.Identity(), layer if tokens else nn.Residual(layer)), path, np.zeros((2, 4),
        int) if tokens else (2, 4, 4))
    assert message in str(raised.value)
    assert path.read_bytes() == b"precious" and [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("layer, shape, axis", [
    (nn.GLU(0), (4, 3), 0), (nn.Maxout(2, 0), (4, 3), 0), (nn.Unflatten(0, (2, 2)), (4, 3), 0), (nn.MaxPool2d(2), (1, 1, 4, 4), 2),
    (nn.LearnedPositionalEncoding(3), (4, 3), 0), (nn.ChannelShuffle(2), (3, 4, 2), 1)], ids=repr)
def test_axes_that_must_be_known(tmp_path, layer, shape, axis):
    with pytest.raises(ValueError, match=rf"{type(layer).__name__}: axis {axis} of its input, .* must be known; save_onnx's batch_axis"):
        save_onnx(layer, tmp_path / "m.onnx", shape, batch_axis=axis)
    save_onnx(layer, tmp_path / "m.onnx", shape, batch_axis=None)


def test_hooks_are_refused(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2))
    handle = model[0].register_forward_hook(lambda module, inputs, y: y * 2)
    with pytest.raises(ValueError, match="layer '0' .Linear.: it has forward hooks"):
        save_onnx(model, tmp_path / "m.onnx", (1, 3))
    handle.remove()
    save_onnx(model, tmp_path / "m.onnx", (1, 3))


def test_wrong_writers_are_noticed(tmp_path, scaled):
    model = nn.Sequential(Scaled(), nn.Linear(4, 2))

    def fails(write, message, kind=ValueError):
        onnx_writer(Scaled)(write)
        with pytest.raises(kind, match=message):
            save_onnx(model, tmp_path / "m.onnx", (3, 4))

    fails(lambda graph, layer, x: graph.node("Transpose", x), r"layer '1' .Linear.: Gemm does not take its inputs|the writers give")
    fails(lambda graph, layer, x: graph.node("NoSuch", x), "layer '0' .Scaled.: NoSuch does not take its inputs or attributes: .*NoSuch")
    fails(lambda graph, layer, x: graph.node("Mul", x, 2.0), "Mul is given float 2.0, but must be given what a graph made", TypeError)
    fails(lambda graph, layer, x: graph.node("MatMul", x, graph.constant(np.zeros((3, 3), np.float32))), "MatMul does not take its inputs")
    fails(lambda graph, layer, x: None, "its writer gives None, but must give what a graph made")
    assert not list(tmp_path.iterdir())


def test_registering_nonsense():
    for given in ((), (3,), (dict,), (nn.ReLU(),)):
        with pytest.raises(TypeError, match="onnx_writer"):
            onnx_writer(*given)
    with pytest.raises(TypeError, match="must be a function"):
        onnx_writer(Scaled)(3)


def test_names_and_modes(tmp_path):
    model = nn.Sequential(nn.Dropout(0.5), nn.LazyLinear(2), nn.BatchNorm1d(2))
    model[0].eval()
    save_onnx(model, tmp_path / "m.onnx", (3, 4), input_names="x", output_names=["y"])
    assert [layer.training for layer in model] == [False, True, True] and model[1].in_features == 4
    file = onnx.load(tmp_path / "m.onnx")
    assert (file.producer_name, file.producer_version) == ("fastnn", fastnn.__version__)
    assert [entry.version for entry in file.opset_import] == [17] and file.ir_version == 8
    assert [value.name for value in (*file.graph.input, *file.graph.output)] == ["x", "y"]
    for value, width in ((file.graph.input[0], 4), (file.graph.output[0], 2)):
        first, last = value.type.tensor_type.shape.dim
        assert first.dim_param == "batch" and last.dim_value == width
    save_onnx(model, tmp_path / "m.onnx", (3, 4), batch_axis=None)
    assert onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3


def test_saving_changes_nothing(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 16, 2))
    model(fastnn.randn(5, 1, 6, 6))
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    numbers = fastnn.get_rng_state().numpy().copy()
    save_onnx(model, tmp_path / "m.onnx", fastnn.randn(2, 1, 6, 6, generator=fastnn.Generator(3)))
    assert all(np.array_equal(value.numpy(), before[name]) for name, value in model.state_dict().items())
    assert np.array_equal(fastnn.get_rng_state().numpy(), numbers)
    assert all(p.grad is None for p in model.parameters()) and all(layer.training for layer in model.modules())


def test_tied_and_shared(tmp_path):
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(4, 4))
    model[3].weight = shared.weight
    check(tmp_path / "m.onnx", model, real(3, 4))
    assert sorted(t.name for t in onnx.load(tmp_path / "m.onnx").graph.initializer) == ["0.bias", "0.weight", "3.bias"]


@pytest.mark.parametrize("arguments, options, kind, message", [
    (("mlp", (1, 4)), {}, TypeError, "model is 'mlp'"), ((None, "1,4"), {}, TypeError, "inputs has '1,4'"),
    ((None, (1, 0)), {}, TypeError, "inputs has"), ((None, []), {}, ValueError, "inputs is empty"), ((None, (1, 5)), {}, ValueError, "5"),
    ((None, (1, 4)), {"batch_axis": 2}, ValueError, "batch_axis is 2"), ((None, (1, 4)), {"batch_axis": "x"}, TypeError, "batch_axis"),
    ((None, (1, 4)), {"input_names": ["a", "b"]}, ValueError, "input_names is"),
    ((None, (1, 4)), {"output_names": ["input"]}, ValueError, "must differ"),
    ((None, (1, 4)), {"input_names": ["weight"]}, ValueError, "which is a parameter's name")])
def test_wrong_arguments(tmp_path, arguments, options, kind, message):
    model = nn.Linear(4, 2) if arguments[0] is None else arguments[0]
    with pytest.raises(kind, match=message):
        save_onnx(model, tmp_path / "m.onnx", arguments[1], **options)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_and_a_full_disk(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="m.onnx"):
        save_onnx(nn.Linear(4, 2), tmp_path / "absent" / "m.onnx", (1, 4))
    path = tmp_path / "m.onnx"
    path.write_bytes(b"precious")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device .while writing; nothing was changed.: '.*m.onnx'"):
        save_onnx(nn.Linear(4, 2), path, (1, 4))
    assert path.read_bytes() == b"precious" and [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_importing_brings_no_onnx():
    import subprocess
    import sys
    code = "import fastnn, fastnn.io, sys; fastnn.io.save_onnx, fastnn.io.load_onnx; print('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
