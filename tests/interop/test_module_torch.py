"""Modules and layers beside PyTorch's over their options: outputs, all gradients, running statistics; texts, hooks."""

import inspect
import itertools

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn

torch = pytest.importorskip("torch")
TF = torch.nn.functional


def pair(name, *arguments, **options):
    """Our layer and theirs with the same parameters, in float64."""
    ours = getattr(nn, name)(*arguments, dtype="float64", **options)
    theirs = getattr(torch.nn, name)(*arguments, dtype=torch.float64, **options)
    return loaded(ours, theirs)


def loaded(ours, theirs):
    rng = np.random.default_rng(5)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if not isinstance(parameter, torch.nn.UninitializedParameter):
                parameter.copy_(torch.tensor(rng.standard_normal(parameter.shape)))
                ours.load_state_dict({n: v.detach().numpy() for n, v in theirs.state_dict().items()})
    return ours, theirs


def same(ours, theirs, *arrays, rtol=1e-9):
    """Outputs, and the gradients of inputs and parameters, and the buffers after it."""
    given = [fastnn.tensor(a, "float64", requires_grad=True) for a in arrays]
    expected_given = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, expected = ours(*given), theirs(*expected_given)
    assert y.shape == tuple(expected.shape)
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=rtol, atol=1e-10)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(fastnn.tensor(dy, "float64"))
    expected.backward(torch.tensor(dy))
    leaves, expected_leaves = list(given), list(expected_given)
    if isinstance(ours, nn.Module):
        assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
        leaves += ours.parameters()
        expected_leaves += theirs.parameters()
        for (name, a), (expected_name, b) in zip(ours.named_buffers(), theirs.named_buffers()):
            assert name == expected_name
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=rtol, atol=1e-12)
    for a, b in zip(leaves, expected_leaves):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=rtol, atol=1e-9)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


CONVOLUTIONS = [{"stride": s, "padding": p, "dilation": d, "groups": g, "bias": b, "padding_mode": m}
                for s, p, d, g, b, m in ((1, 0, 1, 1, True, "zeros"), (2, 1, 1, 2, False, "zeros"),
                                         (1, "same", 2, 1, True, "zeros"),
                                         (1, "valid", 1, 2, True, "zeros"), (2, 2, 2, 1, True, "reflect"),
                                         (1, "same", 1, 2, False, "reflect"), (3, 2, 1, 1, True, "replicate"),
                                         (1, "same", 2, 2, True, "circular"), (2, 1, 1, 4, True, "circular"))]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("axes, batch, lazy", list(itertools.product((1, 2), ((), (2,)), (False, True))))
def test_convolutions(options, axes, batch, lazy):
    if lazy:
        ours, theirs = (getattr(library, f"LazyConv{axes}d")(8, 3, **options, dtype=dtype)
                        for library, dtype in ((nn, "float64"), (torch.nn, torch.float64)))
        x = normal(*batch, 4, *(9, 8)[:axes])
        ours(fastnn.tensor(x, "float64")), theirs(torch.tensor(x))
        ours, theirs = loaded(ours, theirs)
    else:
        ours, theirs = pair(f"Conv{axes}d", 4, 8, 3, **options)
    assert repr(ours) == repr(theirs)
    same(ours, theirs, normal(*batch, 4, *(9, 8)[:axes]))


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2},
                                     {"dilation": 2, "bias": False},
                                     {"stride": 3, "output_padding": 2, "dilation": 3}], ids=str)
@pytest.mark.parametrize("axes, batch, lazy", list(itertools.product((1, 2), ((), (2,)), (False, True))))
def test_transposed_convolutions(options, axes, batch, lazy):
    x = normal(*batch, 4, *(5, 6)[:axes])
    if lazy:
        ours, theirs = (getattr(library, f"LazyConvTranspose{axes}d")(6, 3, **options, dtype=dtype)
                        for library, dtype in ((nn, "float64"), (torch.nn, torch.float64)))
        ours(fastnn.tensor(x, "float64")), theirs(torch.tensor(x))
        ours, theirs = loaded(ours, theirs)
    else:
        ours, theirs = pair(f"ConvTranspose{axes}d", 4, 6, 3, **options)
    assert repr(ours) == repr(theirs)
    same(ours, theirs, x)


NORMS = [("BatchNorm1d", (6, 4)), ("BatchNorm1d", (6, 4, 5)), ("BatchNorm2d", (3, 4, 5, 6)), ("InstanceNorm1d", (3, 4, 5)),
         ("InstanceNorm1d", (4, 5)), ("InstanceNorm2d", (3, 4, 5, 6)), ("InstanceNorm2d", (4, 5, 6))]


@pytest.mark.parametrize("name, shape", NORMS)
@pytest.mark.parametrize("momentum, affine, track, bias, eps", [
    (0.1, True, True, True, 1e-5), (None, True, True, False, 1e-2), (1.0, False, True, True, 1e-5), (0.3, True, False, True, 1e-3),
    (0.0, True, True, True, 1e-5)])
@pytest.mark.parametrize("lazy", [False, True])
def test_norms(name, shape, momentum, affine, track, bias, eps, lazy):
    if momentum is None and name.startswith("Instance"):
        momentum = 0.7  # PyTorch fails there
    options = {"eps": eps, "momentum": momentum, "affine": affine, "track_running_stats": track, "bias": bias}
    if lazy:
        ours, theirs = (getattr(library, "Lazy" + name)(**options, dtype=dtype)
                        for library, dtype in ((nn, "float64"), (torch.nn, torch.float64)))
        first = normal(*shape) if name.startswith("Batch") else normal(*(3, 4, 5, 6)[:2 + int(name[-2])])
        ours(fastnn.tensor(first, "float64")), theirs(torch.tensor(first))  # PyTorch's want a batch there
        ours, theirs = loaded(ours, theirs)
    else:
        ours, theirs = pair(name, 4, **options)
    assert repr(ours) == repr(theirs)
    for k in range(3):
        ours.zero_grad(), theirs.zero_grad()
        same(ours, theirs, 2 + normal(*shape, seed=k))
    ours.eval(), theirs.eval()
    ours.zero_grad(), theirs.zero_grad()
    same(ours, theirs, 2 + normal(*shape, seed=9))
    ours.train().reset_parameters(), theirs.train().reset_parameters()
    ours.zero_grad(), theirs.zero_grad()
    same(ours, theirs, normal(*shape))


@pytest.mark.parametrize("name, arguments, options", [
    ("LayerNorm", (5,), {}), ("LayerNorm", ((4, 5),), {"bias": False}),
    ("LayerNorm", (5,), {"elementwise_affine": False, "eps": 0.1}),
    ("RMSNorm", (5,), {}), ("RMSNorm", ((4, 5),), {"eps": 1e-2}), ("RMSNorm", (5,), {"elementwise_affine": False}),
    ("GroupNorm", (2, 4), {}), ("GroupNorm", (4, 4), {"bias": False}), ("GroupNorm", (1, 4), {"affine": False, "eps": 0.1}),
    ("Linear", (5, 3), {}), ("Linear", (5, 3), {"bias": False}), ("PReLU", (), {}), ("PReLU", (4,), {"init": 0.1})])
def test_other_layers_with_parameters(name, arguments, options):
    ours, theirs = pair(name, *arguments, **options)
    if name != "PReLU":
        assert repr(ours) == repr(theirs)
    same(ours, theirs, normal(3, 4, 5))


WITHOUT_BATCH = [
    ("ZeroPad1d", (1,), 2), ("ZeroPad2d", (1,), 3), ("ConstantPad1d", (1, 2.0), 2), ("ConstantPad2d", ((1, 0, 2, 3), 2.0), 3),
    ("ReflectionPad1d", (2,), 2), ("ReflectionPad2d", ((1, 2, 3, 0),), 3), ("ReplicationPad1d", (1,), 2),
    ("ReplicationPad2d", (2,), 3), ("CircularPad1d", (1,), 2), ("CircularPad2d", (1,), 3), ("MaxPool1d", (2,), 2),
    ("MaxPool2d", (2,), 3), ("AvgPool1d", (2,), 2), ("AvgPool2d", (2,), 3), ("LPPool1d", (2, 2), 2), ("LPPool2d", (2, 2), 3),
    ("AdaptiveAvgPool1d", (3,), 2), ("AdaptiveMaxPool1d", (3,), 2), ("AdaptiveAvgPool2d", (3,), 3), ("AdaptiveMaxPool2d", (3,), 3),
    ("PixelShuffle", (2,), 3), ("PixelUnshuffle", (2,), 3), ("Softmax2d", (), 3), ("GLU", (0,), 2)]


@pytest.mark.parametrize("name, arguments, rank", WITHOUT_BATCH)
def test_inputs_without_a_batch(name, arguments, rank):
    x = np.abs(normal(*(4, 8, 6)[:rank])) + 0.1  # norms have corners at 0
    same(getattr(nn, name)(*arguments), getattr(torch.nn, name)(*arguments), x)


POOLS = [("MaxPool1d", {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2}),
         ("MaxPool1d", {"kernel_size": 4, "ceil_mode": True}),
         ("MaxPool2d", {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
         ("MaxPool2d", {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
         *[("AvgPool1d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": c, "count_include_pad": i})
           for c, i in itertools.product((False, True), (False, True))],
         *[("AvgPool2d", {"kernel_size": (3, 2), "stride": 2, "padding": 1, "ceil_mode": c, "count_include_pad": i,
                          "divisor_override": d})
           for c, i, d in itertools.product((False, True), (False, True), (None, 5))],
         ("LPPool1d", {"norm_type": 3, "kernel_size": 3, "stride": 2, "ceil_mode": True}),
         ("LPPool2d", {"norm_type": 2, "kernel_size": (2, 3), "stride": 2, "ceil_mode": True})]


@pytest.mark.parametrize("name, options", POOLS, ids=str)
def test_pools_over_their_options(name, options):
    x = np.abs(normal(2, 3, 9, 8)) + 0.1
    same(getattr(nn, name)(**options), getattr(torch.nn, name)(**options), x if name.endswith("2d") else x[:, :, :, 0])


@pytest.mark.parametrize("dimensions, window", [(1, {}), (1, {"stride": 3, "padding": 1}), (2, {}), (2, {"stride": 3})])
def test_pooled_places_and_back(dimensions, window):
    x = normal(2, 3, 9, 8)[(slice(None),) * 3 + ((slice(None),) if dimensions == 2 else (0,))]
    made = [getattr(library, f"MaxPool{dimensions}d")(3, **window, return_indices=True) for library in (nn, torch.nn)]
    back = [getattr(library, f"MaxUnpool{dimensions}d")(3, **window) for library in (nn, torch.nn)]
    size = x.shape
    y, indices = made[0](fastnn.tensor(x, "float64"))
    z, expected = made[1](torch.tensor(x))
    np.testing.assert_array_equal(indices.numpy(), expected.numpy())
    same(lambda t: back[0](t, indices, output_size=size), lambda t: back[1](t, expected, output_size=size), z.numpy())


def test_slopes_of_evaluation():
    same(nn.RReLU(0.1, 0.5).eval(), torch.nn.RReLU(0.1, 0.5).eval(), normal(4, 5))
    for name in ("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout"):
        x = normal(2, 3, 4) if "1" in name else normal(2, 3, 4, 5)
        same(getattr(nn, name)(0.3).eval(), getattr(torch.nn, name)(0.3).eval(), x)


@pytest.mark.parametrize("name", ["alpha_dropout", "feature_alpha_dropout"])
def test_alpha_dropout_has_the_two_values_that_pytorch_has(name):
    x = torch.ones(200, 50, 2, dtype=torch.float64)
    theirs = np.unique(getattr(TF, name)(x, 0.3, training=True).numpy())
    ours = np.unique(getattr(F, name)(fastnn.ones(200, 50, 2, dtype=fastnn.float64), 0.3).numpy())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_softmax_in_another_type():
    x = normal(3, 5).astype(np.float32)
    for name in ("softmax", "log_softmax", "softmin"):
        given, expected = fastnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = getattr(F, name)(given, 1, dtype="float64"), getattr(TF, name)(expected, 1, dtype=torch.float64)
        assert y.dtype is fastnn.float64
        np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-12)
        y.backward(fastnn.tensor(normal(3, 5), "float64"))
        z.backward(torch.tensor(normal(3, 5)))
        np.testing.assert_allclose(given.grad.numpy(), expected.grad.numpy(), rtol=1e-5, atol=1e-7)


INPLACE = [name for name, value in vars(F).items()
           if inspect.isfunction(value) and "inplace" in inspect.signature(value).parameters]


@pytest.mark.parametrize("name", INPLACE)
def test_functions_take_inplace_and_leave_the_input(name):
    x, arguments = normal(2, 3, 4).astype(np.float32), {"threshold": (0.5, 2.0)}.get(name, ())
    off = {"training": False} if "training" in inspect.signature(getattr(F, name)).parameters else {}
    given = fastnn.tensor(x)
    y = getattr(F, name)(given, *arguments, **off, inplace=True)
    z = getattr(TF, name)(torch.tensor(x), *arguments, **off, inplace=True)
    np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(given.numpy(), x)


def test_given_vectors_and_stacks():
    table = normal(6, 4)
    ours = nn.Embedding.from_pretrained(fastnn.tensor(table, "float64"), freeze=False, padding_idx=2)
    theirs = torch.nn.Embedding.from_pretrained(torch.tensor(table), freeze=False, padding_idx=2)
    index = np.array([[1, 2, 5], [0, 2, 2]])
    same(lambda w: (ours(index) * w), lambda w: theirs(torch.tensor(index)) * w, normal(2, 3, 4))
    np.testing.assert_allclose(ours.weight.grad.numpy(), theirs.weight.grad.numpy())
    assert not nn.Embedding.from_pretrained(fastnn.ones(2, 3)).weight.requires_grad
    with pytest.raises(ValueError, match="must be a matrix"):
        nn.Embedding.from_pretrained(fastnn.ones(2))
    layers = [library.Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True, custom_encoder=library.TransformerEncoder(
        library.TransformerEncoderLayer(8, 2, 4, 0.0, batch_first=True), 2)) for library in (nn, torch.nn)]
    ours, theirs = loaded(layers[0].double(), layers[1].double())
    same(ours, theirs, normal(2, 3, 8), normal(2, 4, 8, seed=1))
    with pytest.raises(TypeError, match="custom_decoder is 3"):
        nn.Transformer(8, 2, custom_decoder=3)


# ---- modules -----------------------------------------------------------------------------------------------------------


def network(library):
    layers = library.ModuleList([library.Linear(4, 4), library.Linear(4, 4), library.ReLU()])
    return library.Sequential(library.Conv1d(2, 4, 3, padding=1), library.BatchNorm1d(4), library.ModuleDict({"a": layers}),
                              library.Sequential(library.Dropout(0.25), library.Flatten(), library.LSTM(3, 4, proj_size=2)))


def test_texts_and_names_of_networks():
    ours, theirs = network(nn), network(torch.nn)
    assert repr(ours) == repr(theirs)
    for walk in ("named_modules", "named_children", "named_parameters", "named_buffers", "state_dict"):
        a, b = getattr(ours, walk)(), getattr(theirs, walk)()
        assert [n for n in a] == [n for n in b] if walk == "state_dict" else [n for n, _ in a] == [n for n, _ in b]
    keys = [net.load_state_dict({"0.bias": torch.zeros(4), "what": torch.zeros(1)}, strict=False) for net in (ours, theirs)]
    assert list(map(list, keys[0])) == list(map(list, keys[1]))


def test_layers_of_transformers_hold_parts_in_the_same_order():
    for name in ("TransformerEncoderLayer", "TransformerDecoderLayer"):
        ours, theirs = getattr(nn, name)(4, 2, 8), getattr(torch.nn, name)(4, 2, 8)
        assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]


def test_backward_hooks_see_what_pytorchs_see():
    x, seen = normal(3, 4), {}
    for library, make in ((nn, lambda a: fastnn.tensor(a, "float64", requires_grad=True)),
                          (torch.nn, lambda a: torch.tensor(a, requires_grad=True))):
        net = library.Sequential(library.Linear(4, 4), library.Tanh(), library.Linear(4, 2)).double()
        net.load_state_dict({n: (fastnn if library is nn else torch).tensor(normal(*v.shape)) for n, v in net.state_dict().items()})
        calls = seen.setdefault(library, [])
        for name, module in net.named_modules():
            module.register_full_backward_hook(
                lambda m, dx, dy, n=name: calls.append((n, *[np.array(t.detach().numpy()) for t in (*dx, *dy)])))
        net[1].register_full_backward_pre_hook(lambda m, dy: (dy[0] * 2,))
        net[2].register_full_backward_hook(lambda m, dx, dy: (dx[0] * 3,), prepend=True)
        given = make(x)
        (net(given) ** 2).sum().backward()
        calls.append(("x", given.grad.numpy()))
    ours, theirs = seen[nn], seen[torch.nn]
    assert sorted(call[0] for call in ours) == sorted(call[0] for call in theirs)
    for name, *values in ours:
        (expected,) = [call[1:] for call in theirs if call[0] == name]
        for a, b in zip(values, expected):
            np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize("name, arguments", [
    ("Hardshrink", ()), ("Softshrink", (0.3,)), ("Embedding", (4, 3)), ("Embedding", (4, 3, 1, 2.0, 1.0, True)),
    ("EmbeddingBag", (4, 3)),
    ("EmbeddingBag", (4, 3, 2.0)), ("ConstantPad1d", (1, 2.0)), ("ConstantPad2d", (1, 2.0)), ("Bilinear", (2, 3, 4)),
    ("LSTM", (2, 3, 2))])
def test_texts_of_layers(name, arguments):
    assert repr(getattr(nn, name)(*arguments)) == repr(getattr(torch.nn, name)(*arguments))
