"""Module's own interface: walking, hooks, state, types, lazy shapes; lists and dictionaries of modules and parameters."""

import copy

import numpy as np
import pytest

import fastnn
from fastnn import nn
from fastnn.nn import utils

X = np.linspace(-1, 1, 24, dtype=np.float32)


def network():
    shared = nn.Linear(3, 3)
    return nn.Sequential(nn.Linear(4, 3), nn.Sequential(shared, nn.BatchNorm1d(3)), shared)


# ---- walking -----------------------------------------------------------------------------------------------------------


def test_shared_modules_are_met_once_unless_asked_otherwise():
    net = network()
    assert [name for name, _ in net.named_modules()] == ["", "0", "1", "1.0", "1.1"]
    assert [name for name, _ in net.named_modules(prefix="a", remove_duplicate=False)][-1] == "a.2"
    assert len(list(net.parameters())) == 6 and len(list(net.named_parameters(remove_duplicate=False))) == 8
    assert list(net[1].named_parameters(recurse=False)) == [] and len(list(net[0].parameters(recurse=False))) == 2
    assert [name for name, _ in net.named_buffers("b")] == [f"b.1.1.{n}" for n in ("running_mean", "running_var",
                                                                                   "num_batches_tracked")]
    assert list(net[1].buffers(recurse=False)) == []


def test_parts_are_found_and_replaced_by_name():
    net = network()
    assert net.get_submodule("1.0") is net[2] and net.get_submodule("") is net
    assert net.get_parameter("1.1.weight") is net[1][1].weight and net.get_buffer("1.1.running_var") is net[1][1].running_var
    net.set_submodule("1.1", nn.ReLU())
    assert isinstance(net[1][1], nn.ReLU)
    for find, name, message in ((net.get_submodule, "1.7", "no sub-module '7'"), (net.get_parameter, "1.0.scale", "'scale'"),
                                (net.get_buffer, "0.weight", "no buffer 'weight'"), (net.get_parameter, "9.weight", "'9'")):
        with pytest.raises(AttributeError, match=message):
            find(name)
    with pytest.raises(AttributeError, match="no sub-module '7'"):
        net.set_submodule("7", nn.ReLU(), strict=True)
    net.set_submodule("7", nn.ReLU())
    assert isinstance(net.get_submodule("7"), nn.ReLU)


def test_apply_visits_children_first_and_returns_the_module():
    seen = []
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert net.apply(lambda module: seen.append(type(module).__name__)) is net
    assert seen == ["Linear", "ReLU", "Sequential"]


# ---- state -------------------------------------------------------------------------------------------------------------


def test_buffers_that_are_not_saved():
    layer = nn.Linear(2, 2)
    layer.register_buffer("scratch", fastnn.zeros(3), persistent=False)
    layer.register_buffer("kept", fastnn.ones(1))
    assert list(layer.state_dict()) == ["weight", "bias", "kept"] and [n for n, _ in layer.named_buffers()] == ["scratch", "kept"]
    assert layer.load_state_dict(layer.state_dict()) == ([], [])
    layer.scratch = fastnn.ones(3)
    assert "scratch" not in layer.state_dict()
    del layer.scratch
    layer.register_buffer("scratch", fastnn.zeros(3))
    assert "scratch" in layer.state_dict()


def test_state_dict_fills_what_it_is_given():
    layer, found = nn.Linear(2, 1), {"other": 1}
    assert layer.state_dict(found, "a.") is found and list(found) == ["other", "a.weight", "a.bias"]
    assert layer.state_dict(keep_vars=True)["weight"] is layer.weight and not layer.state_dict()["weight"].requires_grad


def test_loading_says_all_that_is_wrong():
    layer, before = nn.Linear(3, 2), None
    before = layer.weight.tolist()
    with pytest.raises(RuntimeError) as error:
        layer.load_state_dict({"weight": np.ones((2, 4)), "scale": np.ones(2)})
    for part in ("for Linear", "Missing key(s) in state_dict: 'bias'", "Unexpected key(s) in state_dict: 'scale'",
                 "size mismatch for weight", "(2, 4)", "(2, 3)"):
        assert part in str(error.value)
    assert layer.weight.tolist() == before
    with pytest.raises(RuntimeError, match="size mismatch"):
        layer.load_state_dict({"weight": np.ones((2, 4))}, strict=False)
    keys = layer.load_state_dict({"weight": np.ones((2, 3)), "scale": np.ones(2)}, strict=False)
    assert keys.missing_keys == ["bias"] and keys.unexpected_keys == ["scale"] and layer.weight.tolist() == [[1, 1, 1]] * 2
    assert "bias" in repr(keys) and repr(layer.load_state_dict(layer.state_dict())) == "<All keys matched successfully>"
    with pytest.raises(TypeError, match="state_dict is a list"):
        layer.load_state_dict([1])


def test_assigned_values_keep_their_memory_and_type():
    layer = nn.Linear(2, 1)
    weight, values = layer.weight, np.ones((1, 2))
    layer.load_state_dict({"weight": values, "bias": np.zeros(1)}, assign=True)
    assert layer.weight is weight and weight.dtype is fastnn.float64 and isinstance(weight, nn.Parameter)
    values[0, 0] = 5
    assert weight.tolist() == [[5, 1]]
    layer.load_state_dict({"weight": np.zeros((1, 2)), "bias": np.zeros(1)})
    assert values.tolist() == [[0, 0]]  # copied, in place


# ---- types -------------------------------------------------------------------------------------------------------------


def test_modules_move_to_a_type_with_their_gradients():
    layer = nn.Linear(2, 1)
    layer(fastnn.ones(3, 2)).sum().backward()
    assert layer.to("cpu", dtype=fastnn.float64) is layer and layer.weight.grad.dtype is fastnn.float64
    layer(fastnn.ones(3, 2, dtype=fastnn.float64)).sum().backward()
    assert layer.weight.grad.tolist() == [[6, 6]]
    assert layer.to(fastnn.ones(1)).bias.dtype is layer.type("float32").weight.dtype is fastnn.float32
    assert layer.cpu() is layer.to(device="cpu") is layer
    for arguments in (("cuda",), ("cuda:0",)):
        with pytest.raises(ValueError, match="device is 'cuda.*must be 'cpu' or None"):
            layer.to(*arguments)


TYPED = {
    "Linear": (3, 4), "Conv1d": (2, 4, 3), "Conv2d": (2, 4, 3), "ConvTranspose1d": (2, 4, 3), "ConvTranspose2d": (2, 4, 3),
    "BatchNorm1d": (3,), "BatchNorm2d": (3,), "InstanceNorm1d": (3,), "InstanceNorm2d": (3,), "GroupNorm": (2, 4),
    "LayerNorm": (3,), "RMSNorm": (3,), "PReLU": (), "Embedding": (4, 3), "RNN": (3, 4), "LSTM": (3, 4), "GRU": (3, 4),
    "RNNCell": (3, 4), "LSTMCell": (3, 4), "GRUCell": (3, 4), "MultiheadAttention": (4, 2), "TransformerEncoderLayer": (4, 2),
    "TransformerDecoderLayer": (4, 2), "Transformer": (4, 2, 1, 1), "LazyLinear": (3,), "LazyConv1d": (3, 2),
    "LazyConv2d": (3, 2), "LazyConvTranspose1d": (3, 2), "LazyConvTranspose2d": (3, 2), "LazyBatchNorm1d": (),
    "LazyBatchNorm2d": (), "LazyInstanceNorm1d": (), "LazyInstanceNorm2d": (),
}


@pytest.mark.parametrize("name", TYPED)
def test_layers_are_made_in_a_type(name):
    make, arguments = getattr(nn, name), TYPED[name]
    fastnn.manual_seed(3)
    plain = make(*arguments)
    fastnn.manual_seed(3)
    layer = make(*arguments, device="cpu", dtype="float64")
    assert all(v.dtype is fastnn.float64 for v in layer.state_dict().values() if v.dtype.is_floating)
    for ours, theirs in zip(layer.parameters(), plain.parameters()) if not name.startswith("Lazy") else ():
        np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy())
    with pytest.raises(ValueError, match=f"{name}: device is 'cuda', but must be 'cpu' or None"):
        make(*arguments, device="cuda")
    with pytest.raises(TypeError, match=f"{name}: dtype is 'int64', but must be float32 or float64"):
        make(*arguments, dtype="int64")


# ---- hooks -------------------------------------------------------------------------------------------------------------


def test_hooks_see_keyword_arguments_and_keep_their_order():
    class Scaled(nn.Module):
        def forward(self, x, scale=1.0):
            return x * scale

    layer, seen = Scaled(), []
    layer.register_forward_pre_hook(lambda m, x: seen.append("second"))
    layer.register_forward_pre_hook(lambda m, x, options: (x, {"scale": options["scale"] + 1}), prepend=True, with_kwargs=True)
    layer.register_forward_hook(lambda m, x, options, y: seen.append(options["scale"]), with_kwargs=True)
    handle = layer.register_forward_hook(lambda m, x, y: y + 1, prepend=True)
    assert layer(fastnn.ones(1), scale=2.0).item() == 4 and seen == ["second", 3.0]
    handle.remove()
    with layer.register_forward_hook(lambda m, x, y: y * 10):
        assert layer(fastnn.ones(1), scale=2.0).item() == 30
    assert layer(fastnn.ones(1), scale=2.0).item() == 3
    layer.register_forward_pre_hook(lambda m, x, options: 5, with_kwargs=True)
    with pytest.raises(RuntimeError, match="must return None or a pair"):
        layer(fastnn.ones(1), scale=2.0)
    with pytest.raises(TypeError, match="hook is 3, but must be callable"):
        layer.register_forward_hook(3)


def test_a_hook_may_be_called_where_forward_fails():
    class Fails(nn.Module):
        def forward(self, x):
            raise ArithmeticError

    layer, seen = Fails(), []
    layer.register_forward_hook(lambda m, x, y: seen.append("usual"))
    layer.register_forward_hook(lambda m, x, y: seen.append(y), always_call=True)
    with pytest.raises(ArithmeticError):
        layer(fastnn.ones(1))
    assert seen == [None]


def test_backward_hooks_see_and_replace_gradients():
    layer, seen = nn.Linear(2, 1, bias=False), []
    layer.register_full_backward_hook(lambda m, dx, dy: seen.append((dx[0].tolist(), dy[0].tolist())))
    layer.load_state_dict({"weight": np.array([[0.5, -2.0]])})
    x = fastnn.ones(1, 2, requires_grad=True)
    (layer(x) * 3).sum().backward()
    assert seen == [([[1.5, -6.0]], [[3.0]])]
    assert layer.weight.grad.tolist() == [[3, 3]] and x.grad.tolist() == seen[0][0]
    layer.register_full_backward_pre_hook(lambda m, dy: (dy[0] * 2,))
    layer.register_full_backward_hook(lambda m, dx, dy: (dx[0] * 0,))
    layer.zero_grad()
    x.grad = None
    (layer(x) * 3).sum().backward()
    assert layer.weight.grad.tolist() == [[6, 6]] and x.grad.tolist() == [[0, 0]] and seen[1][1] == [[6.0]]
    layer.register_full_backward_hook(lambda m, dx, dy: (fastnn.ones(5),))
    with pytest.raises(RuntimeError, match="backward hook of Linear"):
        layer(x).sum().backward()


def test_backward_hooks_without_gradients_of_inputs():
    layer, seen = nn.Linear(2, 1), []
    layer.register_full_backward_hook(lambda m, dx, dy: seen.append((dx, dy[0].tolist())))
    layer(fastnn.ones(1, 2)).sum().backward()
    assert seen == [((None,), [[1.0]])]
    with fastnn.no_grad():
        layer(fastnn.ones(1, 2))
    assert len(seen) == 1


def test_a_captured_step_with_backward_hooks_gives_eager_gradients():
    layer = nn.Linear(3, 2)
    layer.register_full_backward_hook(lambda m, dx, dy: (dx[0] * 2,))
    x = fastnn.tensor(X[:12].reshape(4, 3), requires_grad=True)

    def step(x):
        layer.zero_grad()
        x.grad = None
        layer(x * 1).sum().backward()
        return layer.weight.grad

    expected = step(x).tolist()
    program = fastnn.capture(step)
    for _ in range(4):
        assert program(x).tolist() == expected


# ---- lazy layers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy, made, shape", [
    (lambda: nn.LazyConv1d(4, 3, groups=2), nn.Conv1d, (6, 5)), (lambda: nn.LazyConv2d(4, 3), nn.Conv2d, (6, 5, 5)),
    (lambda: nn.LazyConvTranspose1d(4, 3), nn.ConvTranspose1d, (6, 5)), (lambda: nn.LazyInstanceNorm1d(affine=True),
                                                                        nn.InstanceNorm1d, (6, 5)),
    (lambda: nn.LazyConvTranspose2d(4, 3, groups=2), nn.ConvTranspose2d, (6, 5, 5)), (
        lambda: nn.LazyLinear(4), nn.Linear, (6,)),
])
def test_lazy_layers_become_what_they_are_named_for_without_a_batch_too(lazy, made, shape):
    layer = lazy()
    assert repr(layer).startswith("Lazy")
    first = layer(fastnn.ones(*shape))
    assert type(layer) is made and first.shape == layer(fastnn.ones(*shape)).shape
    loaded = lazy()
    loaded.load_state_dict(layer.state_dict())
    assert type(loaded) is made and repr(loaded) == repr(layer)
    assert copy.deepcopy(layer)(fastnn.ones(*shape)).tolist() == first.tolist()
    with pytest.raises(ValueError, match="the input has shape"):
        lazy()(fastnn.ones(()) if made is nn.Linear else fastnn.ones(2))


def test_lazy_groups_must_divide_the_channels():
    for layer in (nn.LazyConv1d(4, 3, groups=2), nn.LazyConvTranspose1d(4, 3, groups=2)):
        with pytest.raises(ValueError, match="3 channels, which is no multiple of groups 2"):
            layer(fastnn.ones(1, 3, 5))


# ---- containers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda *m: nn.Sequential(*m), lambda *m: nn.ModuleList(m)])
def test_rows_of_modules_are_changed_as_lists_are(make):
    a, b, c, d = (nn.Linear(1, k) for k in range(1, 5))
    row = make(a, b)
    assert row.append(c) is row and row.extend([d]) is row and list(row) == [a, b, c, d] and row[-1] is d
    assert list(row.insert(1, d)) == [a, d, b, c, d] and row.pop(1) is d and row.pop() is d
    row[1] = d
    del row[0]
    assert list(row) == [d, c] and [n for n, _ in row.named_children()] == ["0", "1"]
    row += [a]
    assert list(row + [b]) == [d, c, a, b] and list(row[1:]) == [c, a] and type(row[:1]) is type(row)
    del row[::2]
    assert list(row) == [c]
    for wrong in (lambda: row[5], lambda: row.pop(5)):
        with pytest.raises(IndexError, match="index is 5, but it has 1 members"):
            wrong()
    with pytest.raises(TypeError, match="must be a Module"):
        row.insert(0, 3)
    assert list(row) == [c]


def test_dictionaries_of_modules():
    a, b = nn.Linear(1, 1), nn.ReLU()
    modules = nn.ModuleDict([("a", a)])
    modules.update({"b": b})
    assert modules.pop("a") is a and list(modules) == ["b"] and "a" not in modules
    del modules["b"]
    modules.update(nn.ModuleDict({"b": b, "a": a}))
    modules.clear()
    assert len(modules) == 0 and list(modules.modules()) == [modules]
    with pytest.raises(KeyError, match="modules have as an attribute"):
        modules["training"] = a


def test_lists_of_parameters():
    a, b = nn.Parameter(fastnn.ones(2)), fastnn.zeros(1)
    values = nn.ParameterList([a, b]).append("text")
    assert values[0] is a and isinstance(values[1], nn.Parameter) and values[-1] == "text" and len(values) == 3
    assert [n for n, _ in values.named_parameters()] == ["0", "1"] and list(values.state_dict()) == ["0", "1"]
    assert values.pop(0) is a and len(values) == 2 and [n for n, _ in values.named_parameters()] == ["0"]
    values += [a]
    values[0] = a
    assert list(values) == [a, "text", a] and list(values[1:])[1] is a
    assert repr(nn.ParameterList([a])) == "ParameterList((0): Parameter containing: [float32 of size 2])"
    with pytest.raises(IndexError, match="index is 7, but the list has 3 members"):
        values[7]
    with pytest.raises(TypeError, match="must be an iterable of tensors"):
        values.extend(a)


def test_dictionaries_of_parameters():
    a, b = nn.Parameter(fastnn.ones(2)), nn.Parameter(fastnn.zeros(1))
    values = nn.ParameterDict({"a": a})
    values["b"] = b
    assert list(values.items()) == [("a", a), ("b", b)] and [n for n, _ in values.named_parameters()] == ["a", "b"]
    assert values.get("c") is None and values.setdefault("a") is a and "b" in values and list(values.values()) == [a, b]
    assert list(values | {"c": a}) == ["a", "b", "c"] and list(values.fromkeys("xy", 1).items()) == [("x", 1), ("y", 1)]
    assert values.popitem() == ("b", b) and values.pop("a") is a and list(values.parameters()) == []
    values |= {"a": a}
    copied = values.copy()
    values.clear()
    assert len(values) == 0 and copied["a"] is a
    del copied["a"]
    for wrong in ("forward", "a.b", "training", 3):
        with pytest.raises(KeyError, match="a name is"):
            copied[wrong] = a
    with pytest.raises(KeyError):
        copied["a"]


def test_equal_members_of_a_list_share_a_line():
    text = repr(nn.ModuleList([nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 2)]))
    assert text == ("ModuleList(\n  (0): ReLU()\n"
                    "  (1-2): 2 x Linear(in_features=2, out_features=2, bias=True)\n)")
    assert repr(nn.ModuleList()) == "ModuleList()"


@pytest.mark.parametrize("register, value, own", [
    ("register_parameter", lambda: nn.Parameter(fastnn.ones(1)), "weight"),
    ("register_buffer", lambda: fastnn.ones(1), "running"), ("add_module", lambda: nn.ReLU(), "inner"),
    ("register_module", lambda: nn.ReLU(), "inner")])
def test_names_are_claimed_once(register, value, own):
    """A name of two kinds would stand twice in the state; one of a method's would break the module."""
    module = nn.Linear(2, 2)
    module.register_buffer("running", fastnn.zeros(1))
    module.inner = nn.Tanh()
    before = list(module.state_dict())
    for name in {"weight", "running", "inner", "forward", "training"} - {own}:
        with pytest.raises(ValueError, match=f"name is '{name}', but Linear has an attribute of this name already"):
            getattr(module, register)(name, value())
    for name in ("", "a.b", 3):
        with pytest.raises(ValueError, match=f"name is {name!r}, but must be a text that is not empty and holds no dot"):
            getattr(module, register)(name, value())
    assert list(module.state_dict()) == before
    new = value()
    getattr(module, register)(own, new)
    getattr(module, register)("other", new)
    assert getattr(module, own) is new is module.other


@pytest.mark.parametrize("wrap, unwrap", [
    (utils.weight_norm, utils.remove_weight_norm), (utils.spectral_norm, utils.remove_spectral_norm),
    (lambda layer: utils.prune.l1_unstructured(layer, "weight", 2), lambda layer: utils.prune.remove(layer, "weight"))],
    ids=["weight_norm", "spectral_norm", "prune"])
@pytest.mark.parametrize("used", [False, True])
def test_layers_that_compute_their_weight_can_be_copied(wrap, unwrap, used):
    layer, x = nn.Linear(3, 2), fastnn.rand(4, 3)
    wrap(layer)
    if used:
        layer(x).sum().backward()
    expected = layer.eval()(x).tolist()
    copied = copy.deepcopy(layer)
    assert copied(x).tolist() == expected
    copied(x).sum().backward()
    own = dict(layer.named_parameters())
    assert all(p.grad is not None and p is not own[name] for name, p in copied.named_parameters()) and len(own) >= 2
    with fastnn.no_grad():
        for p in copied.parameters():
            p.zero_()
    unwrap(copied)
    assert layer(x).tolist() == expected and [name for name, _ in copied.named_parameters()] == ["bias", "weight"]
