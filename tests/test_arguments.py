"""Wrong arguments are refused where they are given, by an error that names them; NumPy's integers are integers."""

import copy
import fractions
import inspect

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn, optim, testing
from fastnn.data import ArrayDataset, DataLoader, Normalize
from fastnn.testing.layers import LAYERS

FOUR = np.int64(4)
NO_TENSORS = (None, 3, 0.5, "x", [1, 2], (), {}, object(), np.ones(3), np.ones((2, 3, 4)))
REFUSALS = (TypeError, ValueError, IndexError)


def weights():
    return nn.Linear(2, 2).parameters()


@pytest.mark.parametrize("layer, arguments, message", [
    (nn.Linear, (-1, 2), "in_features is -1"),
    (nn.Linear, (2, "3"), "out_features is '3'"),
    (nn.Linear, (True, 2), "in_features is True"),
    (nn.Linear, (2.0, 2), "in_features is 2.0"),
    (nn.LazyLinear, (-2,), "LazyLinear: out_features is -2"),
    (nn.Conv2d, (0, 2, 3), "in_channels is 0"),
    (nn.Conv2d, (1, -2, 3), "out_channels is -2"),
    (nn.Conv2d, (1, 2, 0), "kernel_size is 0, but must be at least 1"),
    (nn.Conv2d, (1, 2, (3, -1)), r"kernel_size is \(3, -1\)"),
    (nn.Conv2d, (1, 2, 3.0), "kernel_size is 3.0"),
    (nn.Conv2d, (1, 2, (3, 3, 3)), "kernel_size is"),
    (nn.Conv2d, (1, 2, 3, 0), "stride is 0"),
    (nn.Conv2d, (1, 2, 3, 1, -1), "padding is -1"),
    (nn.Conv2d, (1, 2, 3, 1, "sme"), "padding is 'sme'"),
    (nn.Conv2d, (1, 2, 3, 2, "same"), "needs stride 1"),
    (nn.Conv2d, (1, 2, 3, 1, 0, 0), "dilation is 0"),
    (nn.Conv2d, (2, 2, 3, 1, 0, 1, 0), "groups is 0"),
    (nn.Conv2d, (3, 2, 3, 1, 0, 1, 2), "multiples of groups 2"),
    (nn.LazyConv2d, ("a", 3), "out_channels is 'a'"),
    (nn.MaxPool2d, (0,), "kernel_size is 0"),
    (nn.MaxPool2d, ("2",), "kernel_size is '2'"),
    (nn.MaxPool2d, (2, 0), "stride is 0"),
    (nn.MaxPool2d, (2, 2, 2), "padding is 2, but may be at most half"),
    (nn.MaxPool2d, (2, 2, 0, 0), "dilation is 0"),
    (nn.AvgPool2d, (-1,), "kernel_size is -1"),
    (nn.AvgPool2d, (2, 2, -1), "padding is -1"),
    (nn.AvgPool2d, (2, 2, 0, False, True, 0), "divisor_override is 0"),
    (nn.AdaptiveAvgPool2d, (0,), "output_size is 0"),
    (nn.AdaptiveAvgPool2d, ("x",), "output_size is 'x'"),
    (nn.AdaptiveMaxPool2d, ((1, 2, 3),), "output_size is"),
    (nn.BatchNorm1d, ("3",), "num_features is '3'"),
    (nn.BatchNorm2d, (-1,), "num_features is -1"),
    (nn.BatchNorm2d, (3, -1e-5), "eps is -1e-05"),
    (nn.BatchNorm2d, (3, 1e-5, "x"), "momentum is 'x'"),
    (nn.BatchNorm2d, (3, 1e-5, 1.5), "momentum is 1.5, but must be a number from 0 to 1"),
    (nn.LayerNorm, ((),), "must name at least one axis"),
    (nn.LayerNorm, ((3, -1),), "normalized_shape is -1"),
    (nn.Dropout, (2,), "p is 2"),
    (nn.Dropout, (None,), "p is None"),
    (nn.Dropout, (float("nan"),), "p is nan"),
    (nn.LeakyReLU, ("x",), "negative_slope is 'x'"),
    (nn.Softmax, (1.5,), "dim is 1.5"),
    (nn.Flatten, ("x",), "start_dim is 'x'"),
    (nn.Unflatten, (1, 3), "unflattened_size is 3"),
    (nn.Sequential, (nn.ReLU,), "'0' is a type"),
    (nn.CrossEntropyLoss, (None, "x"), "ignore_index is 'x'"),
    (nn.CrossEntropyLoss, (None, -100, "average"), "reduction is 'average'"),
    (nn.CrossEntropyLoss, (None, -100, "mean", 2), "label_smoothing is 2"),
    (nn.HuberLoss, ("mean", 0), "delta is 0, but must be a number above 0"),
    (nn.SmoothL1Loss, ("mean", -1), "beta is -1"),
    (lambda eps: nn.GaussianNLLLoss(eps=eps), ("x",), "eps is 'x'"),
])
def test_layers_refuse(layer, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        layer(*arguments)


@pytest.mark.parametrize("layer, x, message", [
    (lambda: nn.LazyLinear(3), 3, "input is a int, but must be a Tensor"),
    (lambda: nn.LazyLinear(3), fastnn.tensor(1.0), r"shape \(\), but must be \(..., in_features\)"),
    (lambda: nn.LazyConv2d(3, 3), fastnn.zeros(3), r"must be \(N, C, H, W\)"),
    (lambda: nn.LazyBatchNorm1d(), fastnn.zeros(3), r"must be \(N, C\)"),
    (lambda: nn.Linear(3, 2), np.zeros((4, 3)), "must be a Tensor"),
    (lambda: nn.Linear(3, 2), fastnn.zeros(4, 3, dtype=fastnn.int64), "has dtype int64"),
    (lambda: nn.Linear(3, 2), fastnn.zeros(4, 5), "in_features = 3"),
])
def test_layers_refuse_inputs(layer, x, message):
    with pytest.raises((TypeError, ValueError), match=message):
        layer()(x)


@pytest.mark.parametrize("make, message", [
    (lambda: fastnn.zeros("x"), r"shape is \('x',\), but must hold integers"),
    (lambda: fastnn.zeros(2.5), "must hold integers"),
    (lambda: fastnn.zeros(-1), "negative extent"),
    (lambda: fastnn.tensor([[1], [1, 2]]), "not an array"),
    (lambda: fastnn.tensor("abc"), "must be numbers"),
    (lambda: fastnn.randperm(-1), "n is -1"),
    (lambda: F.leaky_relu(fastnn.zeros(3), "a"), "leaky_relu_forward: attribute 'slope' is 'a', but must be a number"),
    (lambda: F.layer_norm(fastnn.zeros(3), (3,), eps=None), "attribute 'eps' is None, but must be a number"),
    (lambda: fastnn.full((2,), "a"), "fill: attribute 'value' is 'a', but must be a number"),
    (lambda: fastnn.zeros(3).__setitem__(0, "x"), "fill: attribute 'value' is 'x', but must be a number"),
    (lambda: fastnn.arange("a"), "arange: nothing can be made from 0, 'a', 1: "),
    (lambda: fastnn.arange(0, 5, 0), "arange: nothing can be made from 0, 5, 0: "),
    (lambda: fastnn.linspace(0, 1, -1), "linspace: steps is -1, but must be an integer of at least 0"),
    (lambda: fastnn.eye(-1), "eye: nothing can be made from -1, None: "),
    (lambda: fastnn.manual_seed("x"), "seed is 'x'"),
    (lambda: fastnn.rand(2, generator=3), "generator is a int"),
    (lambda: fastnn.zeros(3)[1.5], "1.5, but must be an integer"),
    (lambda: fastnn.zeros(3)["x"], "'x', but must be an integer"),
    (lambda: fastnn.zeros(3).reshape(1.5, 2), "1.5, but must be an integer"),
    (lambda: fastnn.zeros(3).size(1), "dim is 1"),
    (lambda: fastnn.matmul(fastnn.zeros(3), 2), "at least one axis"),
    (lambda: fastnn.einsum(3, fastnn.zeros(3)), "equation is 3"),
    (lambda: F.pad(fastnn.zeros(3), 1), "pad is 1"),
    (lambda: F.pad(fastnn.zeros(3), ("a", 1)), "pad is 'a'"),
    (lambda: F.dropout(fastnn.zeros(3), "x"), "p is 'x'"),
    (lambda: F.huber_loss(fastnn.zeros(3), fastnn.zeros(3), delta="x"), "delta is 'x'"),
    (lambda: fastnn.tensor([6.0]) & fastnn.tensor([3]), "bitwise_and: arguments are float32, but must be integers or bools"),
    (lambda: ~fastnn.tensor([6.0]), "bitwise_not: input is float32, but must hold integers or bools"),
    (lambda: fastnn.tensor([True]) | 2.0, "bitwise_or: arguments are float32"),
    (lambda: optim.SGD(nn.Linear(2, 2)), r"params is a Linear.*model.parameters\(\)"),
    (lambda: optim.SGD(weights(), lr="x"), "lr is 'x'"),
    (lambda: optim.SGD(weights(), lr=fastnn.tensor(0.1)), "lr is a float32 tensor"),
    (lambda: optim.Adam(weights(), eps=-1), "eps is -1"),
    (lambda: F.sum(3), "sum: input is a int, but must be a Tensor"),
    (lambda: F.softmax([1.0, 2.0], 0), "softmax: input is a list, but must be a Tensor"),
    (lambda: F.permute(np.ones((2, 2)), 1, 0), "permute: input is a ndarray, but must be a Tensor"),
    (lambda: F.scaled_dot_product_attention(fastnn.zeros(2, 3), 1, 2), "key is a int, but must be a Tensor"),
    (lambda: F.lstm(None, None, None, None, None), "lstm: input is a NoneType"),
    (lambda: F.linear_cross_entropy(fastnn.zeros(2, 3), fastnn.zeros(4), [0, 1]), r"linear_weight has shape \(4,\)"),
    (lambda: F.linear_cross_entropy(fastnn.zeros(3), fastnn.zeros(4, 2, 3), [0, 1]), r"linear_weight has shape \(4, 2, 3\)"),
    (lambda: F.linear_cross_entropy(fastnn.zeros(2, 5, 3), fastnn.zeros(5, 3), [[0] * 5] * 2), r"input has shape \(2, 5, 3\)"),
    (lambda: F.linear_cross_entropy(fastnn.zeros(2, 3), fastnn.zeros(4, 3), [0, 1], linear_bias=fastnn.zeros(3)),
     r"linear_bias has shape \(3,\), but must be \(4,\)"),
    (lambda: F.linear_cross_entropy(fastnn.zeros(2, 3), fastnn.zeros(4, 3), fastnn.zeros(2, 4), ignore_index=1),
     "ignore_index is 1"),
    (lambda: nn.LinearCrossEntropyLoss(3, 4, weight=[1.0, 2.0]), r"weight has shape \(2,\), but must be \(4,\)"),
    (lambda: F.binary_cross_entropy(fastnn.zeros(3), None), "target is a NoneType, but must be a Tensor"),
    (lambda: F.mse_loss(fastnn.zeros(3), fastnn.zeros(3), ["mean"]), r"reduction is \['mean'\]"),
    (lambda: F.flip(fastnn.zeros(3), 1.5), "dims is 1.5, but must be an integer or a sequence of them"),
    (lambda: F.gumbel_softmax(fastnn.tensor([1, 2])), "logits has dtype int64"),
    (lambda: F.var(fastnn.zeros(3), correction="x"), "correction is 'x', but must be a number"),
    (lambda: F.nll_loss(fastnn.zeros(2, 3), fastnn.tensor([0, 1]), ignore_index=[1]), r"ignore_index is \[1\]"),
    (lambda: F.sum(fastnn.zeros(3), 0, 2**63), "attribute 'keepdim' is 9223372036854775808"),
    (lambda: fastnn.tensor([1]) & 2**63, "a number is 9223372036854775808, but must fit int64"),
    (lambda: fastnn.zeros(3).as_strided((2,), (1,), 2**63), "as_strided: offset is 9223372036854775808, but must fit 64 bits"),
    (lambda: fastnn.zeros(3).as_strided((2,), (1,), float("inf")), "as_strided: offset is inf, but must be an integer"),
    (lambda: fastnn.zeros(3).as_strided((2,), (1,), -2**63), r"strides \(1,\) and offset -9223372036854775808 leaves the storage"),
    (lambda: fastnn.zeros(3).as_strided((-2**64,), (1,)), r"shape is \(-18446744073709551616,\), but must hold integers that fit"),
    (lambda: fastnn.zeros(3).as_strided((2,), (0.5,)), r"as_strided: strides is \(0.5,\), but must hold integers"),
    (lambda: fastnn.zeros(3).as_strided(2, 1), "as_strided: shape is 2 and strides 1, but must be sequences of integers"),
    (lambda: fastnn.capture(F.relu, verify=float("inf")), "capture: verify is inf, but must be an integer of at least 0"),
    (lambda: fastnn.capture(F.relu, verify=-1), "capture: verify is -1, but must be an integer of at least 0"),
    (lambda: fastnn.capture(F.relu, verify=2**63), "capture: verify is 9223372036854775808, but must be .*, below 2.*63"),
    (lambda: DataLoader(np.zeros(3), np.zeros(999)), r"batch_size is array\(\[0., 0., [0., ]{70,80} \.\.\., but must be an integer"),
    (lambda: DataLoader(np.zeros(3), 10**5000), "batch_size is an integer of 16,610 bits, but must be an integer of at least 1, below"),
    (lambda: fastnn.zeros(3) + 10**400, "a number is 1000.*, but must fit float64"),
    (lambda: fastnn.zeros(3).__setitem__(slice(2), 10**400), "fill: attribute 'value' is 1000.*, but must be a number"),
    (lambda: fastnn.zeros(3).__setitem__([0, 1], 10**400), "index: value is 1000.*, but must fit float32"),
    (lambda: fastnn.zeros(3).normal_(10**400), "normal_: mean is 1000.*, but must be a number"),
    (lambda: fastnn.zeros(3).uniform_(0, "1"), "uniform_: high is '1', but must be a number"),
    (lambda: fastnn.zeros(3).exponential_(float("inf")), "exponential_: lambd is inf, but must be a finite number above 0"),
    (lambda: F.dropout(fastnn.zeros(3), 10**400), "dropout: p is 1000.*, but must be a finite number from 0 to 1"),
    (lambda: F.dropout(fastnn.zeros(3), fractions.Fraction(10**400, 3)), "dropout: p is Fraction.*, but must be a finite number"),
    (lambda: F.scaled_dot_product_attention(*[fastnn.zeros(2, 3)] * 3, dropout_p=float("nan")), "dropout_p is nan, but must be a finite n"),
    (lambda: nn.init.xavier_normal_(fastnn.zeros(3, 3), float("inf")), "xavier_normal_: gain is inf, but must be a finite number of at"),
    (lambda: nn.init.uniform_(fastnn.zeros(3, 3), 10**400), "uniform_: a is 1000.*, but must be a number"),
    (lambda: optim.clip_grad_norm_(fastnn.zeros(2), 1.0, 10**400), "clip_grad_norm_: norm_type is 1000.*, but must be a number"),
    (lambda: optim.EMA(3), "EMA: params is a int, but must be an iterable of tensors"),
    (lambda: Normalize(10**400), "Normalize: mean is 1000.* and std 1.0, but both must be numbers, or one for each channel"),
    (lambda: Normalize(scale=float("inf")), "Normalize: scale is inf, but must be a finite number above 0"),
    (lambda: DataLoader(np.zeros(3), generator=3), "generator is a int, but must be a fastnn.Generator or None"),
    (lambda: ArrayDataset(np.zeros(3))[2**63], "ArrayDataset: index is 9223372036854775808, but there are 3 samples"),
    (lambda: fastnn.zeros(2**63), r"shape is \(9223372036854775808,\), but must hold integers that fit 64 bits"),
    (lambda: fastnn.zeros_like([1.0]), "zeros_like|empty_like: input is a list"),
    (lambda: fastnn.zeros(2).view_as(3), "view_as: other is a int"),
    (lambda: fastnn.multinomial(3, 1), "multinomial: input is a int"),
    (lambda: nn.init.xavier_uniform_("x"), "xavier_uniform_: tensor is a str, but must be a Tensor"),
    (lambda: nn.utils.weight_norm(3), "weight_norm: module is a int, but must be a Module"),
    (lambda: nn.utils.clip_grad_norm_([3], 1.0), "a parameter is a int, but must be a Tensor"),
    (lambda: nn.Linear(2, 2).get_submodule(3), "target is 3"),
    (lambda: nn.LSTM(2, 3)(fastnn.zeros(4, 1, 2), (0, 1)), "LSTM: a state is a int"),
    (lambda: nn.LazyConv1d(2, 3)(fastnn.zeros(0, 5)), "the input has 0 channels"),
    (lambda: nn.ConvTranspose1d(2, 2, 3)(fastnn.zeros(1, 2, 5), 2.5), "ConvTranspose1d: output_size is 2.5"),
])
def test_functions_refuse(make, message):
    with pytest.raises((TypeError, ValueError, IndexError), match=message):
        make()


def tensors_of(sample):
    return [a if a is None else fastnn.tensor(a, "float32" if a.dtype.kind == "f" else None) for a in sample.inputs]


@pytest.mark.parametrize("spec", [s for s in testing.specs().values() if s.function in vars(F).values()], ids=str)
def test_what_is_no_tensor_is_refused_or_taken(spec):
    """A number, an array or a list in place of a tensor: some functions take it, no other error than a refusal may come."""
    sample = next(iter(spec.samples(np.random.default_rng(0))))
    given = tensors_of(sample)
    for k in range(len(given)):
        for other in NO_TENSORS:
            try:
                spec.function(*given[:k], copy.copy(other), *given[k + 1:], **sample.options)
            except REFUSALS:
                pass


def test_functions_of_a_tensor_refuse_what_is_none():
    """Every function that takes nothing but a tensor, or needs nothing else."""
    asked = set()
    for name in F.__dict__:
        function = getattr(F, name)
        if name.startswith("_") or not inspect.isfunction(function) or function is F.identity:
            continue
        first, *others = inspect.signature(function).parameters.values()
        if first.name != "input" or any(p.default is p.empty and p.kind is not p.VAR_POSITIONAL for p in others):
            continue
        for other in (object(), "x"):
            with pytest.raises(REFUSALS):
                function(other)
        asked.add(name)
    assert asked > {"relu", "sum", "softmax", "flatten"}


@pytest.mark.parametrize("spec", LAYERS, ids=lambda spec: spec.name)
def test_layers_refuse_or_take_what_is_no_tensor(spec):
    for other in (None, 3, "x", [1.0, 2.0], object()):
        try:
            spec.make()(other)  # the identity takes anything, an embedding a number
        except REFUSALS:
            pass


def test_attribute_errors_of_users_own_forward_stay():
    class Reads(nn.Module):
        def forward(self, batch):
            return batch.images if isinstance(batch, dict) else batch.shape

    with pytest.raises(AttributeError, match="images"):
        Reads()({"images": 1})
    with pytest.raises(TypeError, match="Reads: batch is a list, but must be a Tensor"):
        Reads()([1, 2])


def test_methods_of_tensors_are_called_on_tensors_only():
    """They would read what lies behind other objects."""
    for method in (fastnn.numel, fastnn.is_floating_point, fastnn.Tensor.detach, fastnn.Tensor.item, fastnn.equal):
        for other in (3, [1, 2], None, np.ones(2)):
            with pytest.raises(TypeError):
                method(*(other,) * (2 if method is fastnn.equal else 1))


@pytest.mark.parametrize("make", [
    lambda n: nn.TransformerEncoder(nn.TransformerEncoderLayer(2, 1, 2), n),
    lambda n: nn.TransformerDecoder(nn.TransformerDecoderLayer(2, 1, 2), n),
    lambda n: nn.Transformer(2, 1, n, 1, 2), lambda n: nn.Transformer(2, 1, 1, n, 2),
    lambda n: nn.RNN(1, 1, n), lambda n: nn.GRU(1, 1, n), lambda n: nn.LSTM(1, 1, n)])
def test_layers_that_nobody_can_wait_for_are_refused(make):
    for count in (2**17, 2**31, 2**62):
        with pytest.raises(ValueError, match=f"layers is {count}, but must be at most 65536"):
            make(count)


def test_numpy_integers_are_integers():
    fastnn.manual_seed(FOUR)
    x = fastnn.zeros(FOUR, FOUR, np.int32(8), 8)
    y = nn.Sequential(nn.Conv2d(FOUR, FOUR, np.int32(3), padding=np.int8(1)), nn.BatchNorm2d(FOUR),
                      nn.MaxPool2d(np.int64(2)), nn.Flatten(np.int64(1)), nn.Linear(np.uint16(64), FOUR),
                      nn.LayerNorm(FOUR))(x)
    assert y.shape == (4, 4) and fastnn.full(FOUR, 1.0).shape == fastnn.randperm(FOUR).shape == (4,)
    assert x.size(FOUR - 4) == 4 and x.sum(np.int64(1)).shape == x[np.int64(0)].shape[:1] + (8, 8)


def test_python_types_name_dtypes_as_numpy_and_pytorch_do():
    for kind in (float, int, bool):
        assert fastnn.zeros(1, dtype=kind).dtype.name == np.dtype(kind).name
    assert fastnn.tensor([0.5]).to(float).dtype is fastnn.float64


def test_tensor_methods_are_pytorch_s():
    x = fastnn.zeros(2, 3)
    assert x.size() == (2, 3) and x.size(-1) == 3 and x.view(x.size(0), -1).shape == (2, 3)
    assert f"{fastnn.tensor(0.5)}" == "0.5" and f"{fastnn.tensor(0.25):.1e}" == "2.5e-01"
    assert f"{x}".startswith("tensor(")
    yes, no = fastnn.tensor([True, True]), fastnn.tensor([True, False])
    assert (yes & no).tolist() == (no | False).tolist() == [True, False]
    assert (True ^ no).tolist() == (~no).tolist() == [False, True]
    assert (7 // fastnn.tensor([2])).tolist() == [3] and (7 % fastnn.tensor([4])).tolist() == [3]
    assert (fastnn.ones(2, 3) @ np.ones((3, 1), np.float32)).tolist() == [[3], [3]]
    assert x.new_empty(4, dtype=fastnn.int64).shape == (4,) and x.double().new_empty((1, 2)).dtype is fastnn.float64
    assert fastnn.tensor([3.9, -1.0, 300.0]).byte().tolist() == [3, 0, 255] and x.is_floating_point()
    total = fastnn.ones(2)
    assert total.add_(1).mul_(6).sub_(2).div_(5).tolist() == [2, 2]


def test_clip_by_tensors():
    x = fastnn.tensor([-2.0, 0.5, 3.0], requires_grad=True)
    low, high = fastnn.tensor(-1.0, requires_grad=True), fastnn.tensor([1.0, 1.0, 2.0])
    y = x.clip(low, high)
    y.sum().backward()
    assert y.tolist() == [-1, 0.5, 2] and x.grad.tolist() == [0, 1, 0] and low.grad.item() == 1
    assert x.detach().clip(np.float32(0)).tolist() == [0, 0.5, 3]


def test_one_hot_integers_are_probabilities():
    x = fastnn.tensor(np.random.default_rng(0).standard_normal((4, 3)))
    labels = np.array([2, 0, 1, 2])
    want = F.cross_entropy(x, labels).item()
    assert F.cross_entropy(x, np.eye(3, dtype=np.int64)[labels]).item() == pytest.approx(want, rel=1e-12)
