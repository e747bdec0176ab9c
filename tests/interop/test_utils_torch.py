"""nn.utils, state dicts with hooks, adaptive softmax and attention from given parameters, beside PyTorch."""

import copy

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn, optim

torch = pytest.importorskip("torch")
TF = torch.nn.functional
LIBRARIES = ((fastnn, nn), (torch, torch.nn))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def numbers(t):
    return t.detach().numpy()


def alike(make):
    """The layer from either library, with PyTorch's parameters."""
    theirs = make(torch.nn)
    ours = make(nn)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return ours, theirs


# ---- parametrizations -------------------------------------------------------------------------------------------------

WRAPPERS = [
    ("weight_norm", lambda n: n.utils.parametrizations.weight_norm(n.Linear(5, 4))),
    ("weight_norm, conv", lambda n: n.utils.parametrizations.weight_norm(n.Conv2d(3, 4, 3), dim=1)),
    ("weight_norm, whole", lambda n: n.utils.parametrizations.weight_norm(n.Linear(5, 4), dim=None)),
    ("spectral_norm", lambda n: n.utils.parametrizations.spectral_norm(n.Linear(5, 4))),
    ("spectral_norm, conv", lambda n: n.utils.parametrizations.spectral_norm(n.Conv2d(3, 4, 3), n_power_iterations=2)),
    ("spectral_norm, transposed", lambda n: n.utils.parametrizations.spectral_norm(n.ConvTranspose2d(3, 4, 3))),
    ("old weight_norm", lambda n: n.utils.weight_norm(n.Linear(5, 4))),
    ("old spectral_norm", lambda n: n.utils.spectral_norm(n.Linear(5, 4))),
    ("old spectral_norm, transposed", lambda n: n.utils.spectral_norm(n.ConvTranspose2d(3, 4, 3)))]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, make", WRAPPERS, ids=[name for name, _ in WRAPPERS])
def test_wrapped_layers_train_alike(name, make):
    ours, theirs = alike(make)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    optimizers = optim.SGD(ours.parameters(), lr=0.05), torch.optim.SGD(theirs.parameters(), lr=0.05)
    x = normal(6, 5) if "onv" not in name and "trans" not in name else normal(2, 3, 6, 6)
    for _ in range(3):
        for layer, optimizer, (library, _) in zip((ours, theirs), optimizers, LIBRARIES):
            optimizer.zero_grad()
            (layer(library.tensor(x)) ** 2).mean().backward()
            optimizer.step()
    for layer in (ours, theirs):
        layer.eval()
    np.testing.assert_allclose(numbers(ours(fastnn.tensor(x))), numbers(theirs(torch.tensor(x))), rtol=2e-4, atol=2e-5)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key].numpy(), value.numpy(), rtol=2e-4, atol=2e-5, err_msg=key)


class Symmetric:
    """The same module of either library: a matrix's upper triangle, mirrored."""

    @staticmethod
    def of(library, layers):
        class Upper(layers.Module):
            def forward(self, x):
                return x.triu() + x.triu(1).transpose(-1, -2)

            def right_inverse(self, x):
                return x.triu()

        return Upper()


def test_a_parametrization_of_ones_own():
    results = []
    for library, layers in LIBRARIES:
        layer = layers.Linear(4, 4)
        layer.load_state_dict({"weight": library.tensor(normal(4, 4)), "bias": library.tensor(normal(4))})
        before = layer.weight
        layers.utils.parametrize.register_parametrization(layer, "weight", Symmetric.of(library, layers))
        assert type(layer).__name__ == "ParametrizedLinear" and layers.utils.parametrize.is_parametrized(layer, "weight")
        assert layer.parametrizations.weight.original is before
        layer(library.tensor(normal(2, 4, seed=1))).sum().backward()
        results.append([repr(layer), numbers(layer.weight), before.grad.numpy()])
        layers.utils.parametrize.remove_parametrizations(layer, "weight")
        assert type(layer) is layers.Linear and not layers.utils.parametrize.is_parametrized(layer) and layer.weight is before
        results[-1] += [numbers(layer.weight), list(layer.state_dict())]
    (text, *ours, names), (expected, *theirs, expected_names) = results
    assert text == expected and sorted(names) == sorted(expected_names)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_wrong_parametrizations_are_refused():
    with pytest.raises(ValueError, match="tensor_name is 'w'"):
        nn.utils.parametrize.register_parametrization(nn.Linear(2, 2), "w", nn.Identity())
    with pytest.raises(ValueError, match=r"would become float32 \(4, 2\)"):
        nn.utils.parametrize.register_parametrization(nn.Linear(2, 2), "weight", Doubled())
    with pytest.raises(AttributeError, match="weight is computed"):
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)).weight = nn.Parameter(fastnn.ones(2, 2))
    with pytest.raises(ValueError, match="spectral_norm: name is 'bias'"):
        nn.utils.spectral_norm(nn.Linear(2, 2), "bias")
    for undo in (nn.utils.remove_spectral_norm, nn.utils.remove_weight_norm):
        with pytest.raises(ValueError, match="was not called on it"):
            undo(nn.Linear(2, 2))
    for wrap in (nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm):
        with pytest.raises(IndexError, match="_norm.*7"):
            wrap(nn.Linear(2, 2), dim=7)


def test_a_refused_parametrization_leaves_the_parameter_as_it_was():
    class Wider(nn.Module):
        def forward(self, x):
            return fastnn.cat([x, x])

        def right_inverse(self, x):
            return x * 2

    layer = nn.Linear(2, 2)
    before = numbers(layer.weight).copy()
    with pytest.raises(ValueError, match="would become"):
        nn.utils.parametrize.register_parametrization(layer, "weight", Wider())
    np.testing.assert_array_equal(numbers(layer.weight), before)


def test_copies_are_parametrized_apart():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    copied = copy.deepcopy(layer)
    nn.utils.parametrize.remove_parametrizations(copied, "weight")
    nn.utils.parametrizations.weight_norm(copied, "bias")
    np.testing.assert_allclose(numbers(layer.weight), numbers(copied.weight), rtol=1e-6)
    assert isinstance(layer.bias, nn.Parameter) and nn.utils.parametrize.is_parametrized(copied, "bias")


def test_spectral_norm_comes_off_along_its_own_axis():
    layer = nn.utils.spectral_norm(nn.Linear(5, 3), dim=1).eval()
    x = fastnn.tensor(normal(4, 5))
    before = numbers(layer(x))
    nn.utils.remove_spectral_norm(layer)
    np.testing.assert_allclose(numbers(layer(x)), before, rtol=1e-6)


class Doubled(nn.Module):
    def forward(self, x):
        return fastnn.cat([x, x])


@pytest.mark.parametrize("wrap, undo", [("weight_norm", "remove_weight_norm"), ("spectral_norm", "remove_spectral_norm")])
def test_old_wrappers_come_off(wrap, undo):
    layer = getattr(nn.utils, wrap)(nn.Linear(5, 4)).eval()
    x = fastnn.tensor(normal(3, 5))
    before = numbers(layer(x))
    getattr(nn.utils, undo)(layer)
    assert sorted(layer.state_dict()) == ["bias", "weight"] and isinstance(layer.weight, nn.Parameter)
    np.testing.assert_allclose(numbers(layer(x)), before, rtol=1e-6)


# ---- vectors, fusion, sequences ---------------------------------------------------------------------------------------


def test_parameters_as_a_vector():
    ours, theirs = alike(lambda n: n.Sequential(n.Linear(3, 2), n.Conv2d(1, 2, 2)))
    vector = nn.utils.parameters_to_vector(ours.parameters())
    np.testing.assert_array_equal(numbers(vector), numbers(torch.nn.utils.parameters_to_vector(theirs.parameters())))
    nn.utils.vector_to_parameters(vector * 2, ours.parameters())
    np.testing.assert_array_equal(numbers(ours[0].weight), 2 * numbers(theirs[0].weight))
    with pytest.raises(ValueError, match=r"vec has shape \(3,\), but must be \(18,\)"):
        nn.utils.vector_to_parameters(fastnn.ones(3), ours.parameters())


@pytest.mark.parametrize("make, transpose", [
    (lambda n: (n.Conv2d(3, 4, 3), n.BatchNorm2d(4)), False), (lambda n: (n.Conv1d(3, 4, 3, bias=False),
                                                                          n.BatchNorm1d(4, affine=False)), False),
    (lambda n: (n.ConvTranspose2d(3, 4, 3), n.BatchNorm2d(4)), True), (lambda n: (n.Linear(3, 4), n.BatchNorm1d(4)), None)])
def test_batch_norm_goes_into_the_layer_before(make, transpose):
    layer, norm = make(nn)
    shape = (5, 3) if transpose is None else (5, 3, 6) if isinstance(layer, nn.Conv1d) else (5, 3, 6, 6)
    x = fastnn.tensor(normal(*shape))
    norm(layer(x))
    layer.eval(), norm.eval()
    fused = nn.utils.fuse_linear_bn_eval(layer, norm) if transpose is None else nn.utils.fuse_conv_bn_eval(layer, norm, transpose)
    np.testing.assert_allclose(numbers(fused(x)), numbers(norm(layer(x))), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="evaluation mode"):
        nn.utils.fuse_conv_bn_eval(layer.train(), norm)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_sequences_are_padded(batch_first, side):
    parts = [normal(n, 3, seed=n) for n in (4, 2, 1)]
    ours, theirs = (layers.utils.rnn.pad_sequence([library.tensor(p) for p in parts], batch_first, -1.0, side) for library,
                    layers in LIBRARIES)
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    if side == "right":
        back = nn.utils.rnn.unpad_sequence(ours, [4, 2, 1], batch_first)
        for a, b in zip(back, parts):
            np.testing.assert_array_equal(a.numpy(), b)


def test_packed_sequences():
    parts = [normal(n, 3, seed=n) for n in (4, 2, 1)]
    for options in ({}, {"batch_first": True}, {"padding_value": -2.0}, {"total_length": 6, "padding_value": 1.0,
                                                                         "batch_first": True}):
        packed = [layers.utils.rnn.pack_sequence([library.tensor(p) for p in parts]) for library, layers in LIBRARIES]
        (y, n), (z, m) = (layers.utils.rnn.pad_packed_sequence(p, **options) for p, (_, layers) in zip(packed, LIBRARIES))
        np.testing.assert_array_equal(y.numpy(), z.numpy())
        np.testing.assert_array_equal(n.numpy(), m.numpy())
    for a, b in zip(nn.utils.rnn.unpack_sequence(packed[0]), parts):
        np.testing.assert_array_equal(a.numpy(), b)
    with pytest.raises(ValueError, match="lengths must not rise"):
        nn.utils.rnn.pack_sequence([fastnn.ones(1, 2), fastnn.ones(2, 2)])


def test_clipping_by_a_known_norm():
    for error in (False, True):
        layers = [nn.Linear(2, 2), torch.nn.Linear(2, 2)]
        norms = []
        for layer, (library, part) in zip(layers, LIBRARIES):
            for p in layer.parameters():
                p.grad = library.tensor(normal(*p.shape)) * (float("inf") if error else 1.0)
            if error:
                with pytest.raises(RuntimeError, match="norm"):
                    part.utils.clip_grad_norm_(layer.parameters(), 1.0, error_if_nonfinite=True)
                continue
            norms.append(part.utils.get_total_norm([p.grad for p in layer.parameters()]))
            part.utils.clip_grads_with_norm_(layer.parameters(), 0.5, norms[-1])
        if not error:
            np.testing.assert_allclose(norms[0].item(), norms[1].item(), rtol=1e-6)
            np.testing.assert_allclose(layers[0].weight.grad.numpy(), layers[1].weight.grad.numpy(), rtol=1e-6)


# ---- state dicts ------------------------------------------------------------------------------------------------------


def tied(library):
    net = library.Sequential(library.Linear(3, 3), library.Linear(3, 3), library.Sequential(library.Linear(3, 3)))
    net[1].weight = net[0].weight
    net.add_module("again", net[2])
    return net


def test_tied_parameters_are_there_under_all_their_names():
    ours, theirs = tied(nn), tied(torch.nn)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    assert ours[1].weight is ours[0].weight
    np.testing.assert_array_equal(numbers(ours[0].weight), numbers(theirs[0].weight))


def counting(library, layers):
    class Counting(layers.Module):
        def __init__(self):
            super().__init__()
            self.part, self.count = layers.Linear(2, 2), 7

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    return layers.Sequential(layers.Linear(2, 2), Counting())


def test_extra_state():
    nets = [counting(library, layers) for library, layers in LIBRARIES]
    states = [net.state_dict() for net in nets]
    assert list(states[0]) == list(states[1])
    fresh = counting(*LIBRARIES[0])
    fresh[1].count = 0
    fresh.load_state_dict(states[0])
    assert fresh[1].count == 7
    with pytest.raises(RuntimeError, match="Missing.*_extra_state"):
        fresh.load_state_dict({name: value for name, value in states[0].items() if not name.endswith("_extra_state")})
    with pytest.raises(TypeError, match="Linear has no extra state"):
        nn.Linear(2, 2).get_extra_state()


def test_tied_parameters_in_files(tmp_path):
    """Stored once by both, each reads the other's, and what is tied stays so."""
    theirs_in_files = pytest.importorskip("safetensors.torch")
    nets = []
    for _, layers in LIBRARIES:
        net = layers.Sequential(layers.Linear(3, 3), layers.Linear(3, 3))
        net[1].weight = net[0].weight
        nets.append(net)
    ours, theirs = nets
    fastnn.io.save_model(ours, tmp_path / "ours")
    theirs_in_files.load_model(theirs, tmp_path / "ours")
    np.testing.assert_array_equal(theirs[1].weight.detach().numpy(), ours[0].weight.detach().numpy())
    theirs[0].weight.data.fill_(3.0)
    theirs_in_files.save_model(theirs, tmp_path / "theirs")
    assert fastnn.io.describe(tmp_path / "theirs")["tied"] == {"1.weight": "0.weight"}
    fastnn.io.load_model(tmp_path / "theirs", ours)
    assert ours[1].weight is ours[0].weight and ours[0].weight.detach().numpy().min() == 3


def test_hooks_on_state_dicts():
    logs = []
    for library, layers in LIBRARIES:
        log, net = [], layers.Sequential(layers.Linear(2, 2), layers.ReLU())
        net[0].register_state_dict_pre_hook(lambda m, prefix, keep_vars, log=log: log.append(("pre", prefix, keep_vars)))
        net[0].register_state_dict_post_hook(lambda m, state, prefix, _: state.update({prefix + "more": library.ones(1)}))
        state = net.state_dict()
        log.append(list(state))

        def rename(m, state, prefix, metadata, strict, missing, unexpected, errors, log=log):
            log.append(("load", prefix, strict, sorted(state)))
            state[prefix + "bias"] = state.pop(prefix + "old_bias")

        handle = net[0].register_load_state_dict_pre_hook(rename)
        net.register_load_state_dict_post_hook(lambda m, keys, log=log: log.append(sorted(keys.unexpected_keys))
                                               or keys.unexpected_keys.clear())
        given = {"0.weight": library.tensor(normal(2, 2)), "0.old_bias": library.tensor(normal(2, seed=1)), "what": library.ones(1)}
        log.append([sorted(k) for k in net.load_state_dict(given)])
        log.append(numbers(net[0].bias).tolist())
        assert sorted(given) == ["0.old_bias", "0.weight", "what"]
        handle.remove()
        with pytest.raises(RuntimeError, match="Missing"):
            net.load_state_dict(given)
        logs.append(log)
    assert logs[0] == logs[1]


# ---- layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"head_bias": True, "div_value": 2.0}])
def test_adaptive_softmax(options):
    ours, theirs = alike(lambda n: n.AdaptiveLogSoftmaxWithLoss(16, 40, [8, 20], **options))
    x, target = normal(30, 16), np.random.default_rng(1).integers(0, 40, 30)
    given, expected = fastnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(given, fastnn.tensor(target)), theirs(expected, torch.tensor(target))
    np.testing.assert_allclose(numbers(y.output), numbers(z.output), rtol=1e-5, atol=1e-6)
    y.loss.backward(), z.loss.backward()
    np.testing.assert_allclose(given.grad.numpy(), expected.grad.numpy(), rtol=1e-4, atol=1e-7)
    for a, b in zip(ours.parameters(), theirs.parameters()):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(numbers(ours.log_prob(given)), numbers(theirs.log_prob(expected)), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ours.predict(given).numpy(), theirs.predict(expected).numpy())
    one = ours(fastnn.tensor(x[0]), fastnn.tensor(int(target[0])))
    np.testing.assert_allclose(one.output.item(), numbers(z.output)[0], rtol=1e-5)
    few = ours(fastnn.tensor(x[:2]), fastnn.tensor([1, 2]))  # no cluster is asked for
    np.testing.assert_allclose(numbers(few.output), numbers(theirs(torch.tensor(x[:2]), torch.tensor([1, 2])).output), rtol=1e-5)
    with pytest.raises(ValueError, match="outside of 0 to 39"):
        ours(given, fastnn.tensor(target + 30))
    with pytest.raises(ValueError, match="cutoffs is"):
        nn.AdaptiveLogSoftmaxWithLoss(16, 40, [20, 8])


def test_attention_from_given_parameters():
    for options in ({}, {"kdim": 6, "vdim": 10}, {"add_bias_kv": True, "add_zero_attn": True, "bias": True}):
        layer = torch.nn.MultiheadAttention(8, 2, **options)
        separate = "kdim" in options
        q, k, v = normal(5, 3, 8), normal(7, 3, options.get("kdim", 8), seed=1), normal(7, 3, options.get("vdim", 8), seed=2)
        parts = {name: getattr(layer, name) for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")} if separate else {}
        results = []
        for library, function in ((fastnn, F), (torch, TF)):
            def given(t):
                return t if t is None or library is torch else fastnn.tensor(t.detach().numpy())

            y, weights = function.multi_head_attention_forward(
                *(library.tensor(t) for t in (q, k, v)), 8, 2, given(layer.in_proj_weight), given(layer.in_proj_bias),
                given(layer.bias_k),
                given(layer.bias_v), layer.add_zero_attn, 0.0, given(layer.out_proj.weight), given(layer.out_proj.bias),
                use_separate_proj_weight=separate, **{name: given(value) for name, value in parts.items()},
                key_padding_mask=library.tensor(np.arange(7) > 4).expand(3, 7))
            results.append((numbers(y), numbers(weights)))
        for a, b in zip(*results):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="static_k and static_v must be None"):
        F.multi_head_attention_forward(*[fastnn.ones(2, 1, 4)] * 3, 4, 2, None, None, None, None, False, 0.0, None, None,
                                       static_k=fastnn.ones(2, 2, 2))


def test_normalisation_across_maps():
    x = normal(2, 7, 3, 4)
    for size, x in ((3, x[:, :2]), (5, x[:, :3])):  # as many channels as PyTorch's sums are right for
        y, z = nn.CrossMapLRN2d(size, 0.1, 0.5, 2.0)(fastnn.tensor(x)), torch.nn.CrossMapLRN2d(size, 0.1, 0.5, 2.0)(torch.tensor(x))
        np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-5)
    assert repr(nn.CrossMapLRN2d(3, 0.1, 0.5, 2.0)) == repr(torch.nn.CrossMapLRN2d(3, 0.1, 0.5, 2.0))
    assert copy.deepcopy(nn.CrossMapLRN2d(3)).size == 3
    with pytest.raises(ValueError, match=r"must be \(N, C, H, W\)"):
        nn.CrossMapLRN2d(3)(fastnn.ones(2, 3, 4))
