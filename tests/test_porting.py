"""What scripts written for PyTorch do besides arithmetic: devices, types, grad modes, `nn.utils`, `x.data`."""

import numpy as np
import pytest

import fastnn
import fastnn.nn.functional as F
from fastnn import nn
from fastnn.nn.utils.rnn import pad_sequence


class Device:
    """As ``torch.device`` objects look."""

    def __init__(self, kind):
        self.type = kind

    def __str__(self):
        return f"{self.type}:0"


MAKERS = {
    "zeros": lambda **o: fastnn.zeros(2, **o), "ones": lambda **o: fastnn.ones(2, **o),
    "empty": lambda **o: fastnn.empty(2, **o), "full": lambda **o: fastnn.full((2,), 3.0, **o),
    "tensor": lambda **o: fastnn.tensor([1, 2], **o), "as_tensor": lambda **o: fastnn.as_tensor([1, 2], **o),
    "arange": lambda **o: fastnn.arange(2, **o), "linspace": lambda **o: fastnn.linspace(0, 1, 2, **o),
    "eye": lambda **o: fastnn.eye(2, **o), "zeros_like": lambda **o: fastnn.zeros_like(fastnn.ones(2), **o),
    "ones_like": lambda **o: fastnn.ones_like(fastnn.ones(2), **o),
    "empty_like": lambda **o: fastnn.empty_like(fastnn.ones(2), **o),
    "full_like": lambda **o: fastnn.full_like(fastnn.ones(2), 3, **o), "rand": lambda **o: fastnn.rand(2, **o),
    "randn": lambda **o: fastnn.randn(2, **o), "randint": lambda **o: fastnn.randint(3, (2,), **o),
    "randperm": lambda **o: fastnn.randperm(2, **o), "to": lambda **o: fastnn.ones(2).to(**o),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_device_is_the_cpu_or_an_error(make):
    for device in ("cpu", "cpu:0", Device("cpu"), None):
        assert len(make(device=device)) == 2
    for device in ("cuda", Device("cuda")):
        with pytest.raises(ValueError, match="device is 'cuda.*but must be 'cpu' or None"):
            make(device=device)


def test_to_takes_types_tensors_and_devices():
    x = fastnn.ones(2, requires_grad=True)
    assert x.to("cpu") is x and x.to(x) is x and x.to(Device("cpu")) is x
    assert x.to(fastnn.zeros(1, dtype=fastnn.double)).dtype is fastnn.float64
    assert x.to("cpu", fastnn.double).dtype is x.to(dtype="float64").dtype is x.type(fastnn.double).dtype is fastnn.float64
    with pytest.raises(ValueError, match="to: device is 'cuda', but must be 'cpu' or None"):
        x.to("cuda")
    with pytest.raises(TypeError, match="dtype 'float8' is not supported"):
        x.to("float8")
    x.to(fastnn.double).sum().backward()
    assert x.grad.dtype is fastnn.float32 and x.grad.tolist() == [1, 1]


def test_types_have_pytorch_s_other_names():
    assert (fastnn.float, fastnn.double, fastnn.int, fastnn.long) == (
        fastnn.float32, fastnn.float64, fastnn.int32, fastnn.int64)


@pytest.mark.parametrize("mode, recorded", [
    (fastnn.no_grad, False), (fastnn.inference_mode, False), (fastnn.enable_grad, True)])
def test_modes_as_context_managers_and_as_decorators_with_and_without_parentheses(mode, recorded):
    with fastnn.set_grad_enabled(not recorded):
        for function in (mode(fastnn.is_grad_enabled), mode()(fastnn.is_grad_enabled)):
            assert function() is recorded
            assert fastnn.is_grad_enabled() is not recorded
        with mode() as same, same:
            assert fastnn.is_grad_enabled() is recorded
        assert fastnn.is_grad_enabled() is not recorded
    assert fastnn.is_grad_enabled()


def test_set_grad_enabled_works_at_once_and_gives_back_what_was():
    try:
        fastnn.set_grad_enabled(False)
        assert not fastnn.is_grad_enabled()
        with fastnn.set_grad_enabled(True):
            assert fastnn.is_grad_enabled()
        assert not fastnn.is_grad_enabled()
        decorated = fastnn.set_grad_enabled(True)(fastnn.is_grad_enabled)
        assert not fastnn.is_grad_enabled() and decorated() and not fastnn.is_grad_enabled()
    finally:
        fastnn.set_grad_enabled(True)


def test_data_is_written_in_place():
    p = nn.Parameter(fastnn.ones(2, 2))
    memory = p.data_ptr()
    p.data -= 0.5 * fastnn.ones(2, 2)
    assert p.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    p.data = fastnn.arange(4).reshape(2, 2).float().T
    assert p.tolist() == [[0, 2], [1, 3]] and p.data_ptr() == memory and p.requires_grad
    for wrong, said in ((fastnn.ones(2), r"has shape \(2,\)"), (1.0, "is a float")):
        with pytest.raises(ValueError, match=f"data: the new value {said}, but must be a Tensor of shape \\(2, 2\\)"):
            p.data = wrong


def test_max_and_min_of_two_tensors():
    a, b = fastnn.tensor([1.0, 4.0]), fastnn.tensor([3.0, 2.0])
    assert fastnn.max(a, b).tolist() == a.max(b).tolist() == [3, 4] and fastnn.min(a, b).tolist() == [1, 2]


def test_a_function_saves_pytorch_s_way():
    class Exp(fastnn.Function):
        @staticmethod
        def forward(ctx, x):
            y = np.exp(x)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, dy):
            (y,) = ctx.saved_tensors
            return dy * y

    x = fastnn.tensor([0.0, 1.0], requires_grad=True)
    y = Exp.apply(x)
    y.sum().backward()
    assert x.grad.equal(y.detach())


def test_nn_utils():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    vector = nn.utils.parameters_to_vector(model.parameters())
    assert vector.shape == (11,) and vector[:6].tolist() == model[0].weight.reshape(-1).tolist()
    vector.sum().backward()
    assert all((p.grad.numpy() == 1).all() for p in model.parameters())
    nn.utils.vector_to_parameters(fastnn.arange(11.0), model.parameters())
    assert model[0].bias.tolist() == [6, 7] and model[1].bias.tolist() == [10]
    assert nn.utils.clip_grad_norm_(model.parameters(), 1.0).item() == pytest.approx(11 ** 0.5)
    with pytest.raises(ValueError, match=r"vec has shape \(10,\), but must be \(11,\)"):
        nn.utils.vector_to_parameters(fastnn.ones(10), model.parameters())
    assert nn.functional.relu is F.relu is fastnn.functional.relu


def test_pad_sequence():
    parts = [fastnn.ones(n, 2, requires_grad=True) for n in (3, 1)]
    padded = pad_sequence(parts, padding_value=-1.0)
    assert padded.shape == (3, 2, 2) and padded[1:, 1].tolist() == [[-1, -1], [-1, -1]]
    assert pad_sequence(parts, batch_first=True, padding_value=-1.0).equal(padded.transpose(0, 1))
    (padded * padded).sum().backward()
    assert [part.grad.tolist() for part in parts] == [[[2, 2]] * 3, [[2, 2]]]
    with pytest.raises(TypeError, match="sequences holds a list"):
        pad_sequence([[1, 2]])
    with pytest.raises(ValueError, match="pad_sequence: sequences holds a tensor without axes"):
        pad_sequence([fastnn.tensor(1.0)])
    with pytest.raises(ValueError, match="pad_sequence: sequences is empty"):
        pad_sequence([])


def test_what_is_missing_on_purpose_is_told():
    for name, said in {"cuda": "computes on the CPU", "save": "fastnn.io.save_file", "load": "nothing is unpickled",
                       "autograd": "fastnn.Function", "utils": "fastnn.data", "compile": "fastnn.capture",
                       "jit": "fastnn.capture", "distributions": "multinomial", "linalg": "fastnn.norm", "amp": "float32",
                       "histogram": "numpy.histogram", "profiler": "fastnn.profile",
                       "set_default_dtype": "float32", "get_default_dtype": "float32", "func": "fastnn.vjp"}.items():
        with pytest.raises(AttributeError, match=f"module 'fastnn' has no attribute '{name}': .*{said}"):
            getattr(fastnn, name)
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'$"):
        fastnn.no_such_name


@pytest.mark.parametrize("name", ["cat", "stack"])
def test_what_cannot_be_joined_is_refused_by_name(name):
    join = getattr(fastnn, name)
    for wrong, error, said in (
            (5, TypeError, "tensors is a int, but must hold tensors"), ([], ValueError, "tensors is empty"),
            ([fastnn.ones(2), 3.0], TypeError, "tensors holds a float"),
            ([fastnn.ones(2, 3), fastnn.ones(3, 3)[:, :2]], ValueError, r"shapes \(2, 3\) and \(3, 2\) differ")):
        with pytest.raises(error, match=f"{name}: {said}"):
            join(wrong)


def test_a_buffer_takes_the_place_of_what_had_its_name():
    module = nn.Module()
    module.x = None
    module.x = nn.Buffer(fastnn.ones(2))
    assert [name for name, _ in module.named_buffers()] == ["x"]


def test_recording_is_turned_off_by_name():
    with fastnn.set_grad_enabled(mode=False):
        assert not fastnn.is_grad_enabled()
    assert fastnn.is_grad_enabled()


def test_inference_mode_may_be_off():
    x = fastnn.ones(2, requires_grad=True)
    with fastnn.inference_mode():
        assert not (x * 2).requires_grad
        with fastnn.inference_mode(False):
            assert (x * 2).requires_grad
    assert fastnn.inference_mode(mode=False)(lambda: x * 2)().requires_grad


def test_hypot_neither_overflows_nor_vanishes():
    x, y = fastnn.tensor([3e38, 3e-30, float("inf"), 3.0]), fastnn.tensor([1e38, 4e-30, 1.0, 4.0])
    np.testing.assert_allclose(fastnn.hypot(x, y).numpy(), np.hypot(x.numpy(), y.numpy()), rtol=1e-6)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_exponential_wants_a_rate(rate):
    with pytest.raises(ValueError, match="exponential_: lambd is .*, but must be a (finite )?number above 0"):
        fastnn.zeros(3).exponential_(rate)


@pytest.mark.parametrize("lengths, message", [
    ([1, 1, 1], "lengths has 3 numbers, but there are 2 sequences"), ([2, 5], r"lengths\[1\] is 5, but must be from 0 to 4"),
    ([-1, 2], r"lengths\[0\] is -1, but must be from 0 to 4")])
def test_unpad_sequence_wants_lengths_that_fit(lengths, message):
    with pytest.raises(ValueError, match=message):
        nn.utils.rnn.unpad_sequence(fastnn.zeros(4, 2), lengths)


def test_memory_formats():
    x = fastnn.tensor(np.random.default_rng(0).random((2, 3, 4, 5)), requires_grad=True)
    last = x.contiguous(memory_format=fastnn.channels_last)
    assert x.is_contiguous() and not x.is_contiguous(memory_format=fastnn.channels_last)
    assert last.is_contiguous(memory_format=fastnn.channels_last) and not last.is_contiguous()
    assert last.contiguous(memory_format=fastnn.preserve_format) is last.to(memory_format=fastnn.channels_last) is last
    assert x.to("cpu", memory_format=fastnn.channels_last).is_channels_last() and last.contiguous().equal(x)
    assert last.clone(memory_format=fastnn.contiguous_format).is_contiguous() and x.clone(memory_format=fastnn.channels_last
                                                                                          ).is_channels_last()
    assert fastnn.zeros_like(last, memory_format=fastnn.contiguous_format).is_contiguous()
    assert fastnn.ones_like(x, memory_format=fastnn.channels_last).is_channels_last()
    (last * last).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * x.detach().numpy())
    with pytest.raises(ValueError, match="contiguous: memory_format is fastnn.channels_last, which has four axes, but the tensor has 2"):
        fastnn.ones(2, 3).contiguous(memory_format=fastnn.channels_last)
    with pytest.raises(TypeError, match="is_contiguous: memory_format is 'channels_last', but must be one of fastnn's"):
        x.is_contiguous("channels_last")
    for call in (x.to, x.clone, x.contiguous, lambda **o: fastnn.zeros_like(x, **o), nn.Linear(2, 3).to):
        with pytest.raises(TypeError, match="memory_format is 'NHWC', but must be fastnn.channels_last"):
            call(memory_format="NHWC")


def test_a_model_in_channels_last_computes_the_same():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    x = fastnn.rand(5, 3, 4, 4)
    want = model(x)
    assert model.to(memory_format=fastnn.channels_last) is model.to("cpu", non_blocking=True) is model
    assert model(x.to(memory_format=fastnn.channels_last)).equal(want)


def test_to_copies_where_it_is_asked_to():
    x = fastnn.ones(2)
    assert x.to("cpu", non_blocking=True) is x.to("cpu", True) is x
    y = x.to("cpu", copy=True)
    y += 1
    assert x.tolist() == [1, 1] and y.tolist() == [2, 2]


@pytest.mark.parametrize("make", [fastnn.tensor, fastnn.as_tensor, fastnn.from_numpy, fastnn.Tensor])
def test_masked_arrays_are_refused_where_a_mask_would_be_lost(make):
    hidden = np.ma.masked_array([1.0, 2.0, 3.0], [False, True, False])
    with pytest.raises(TypeError, match="is a masked array, whose mask would be lost"):
        make(hidden)
    assert make(np.ma.masked_array([1.0, 2.0])).tolist() == [1, 2]


@pytest.mark.parametrize("make", [
    lambda **o: fastnn.arange(2.0, **o), lambda **o: fastnn.linspace(0, 1, 2, **o), lambda **o: fastnn.eye(2, **o),
    lambda **o: fastnn.zeros_like(fastnn.ones(2), **o), lambda **o: fastnn.ones_like(fastnn.ones(2), **o),
    lambda **o: fastnn.empty_like(fastnn.ones(2), **o), lambda **o: fastnn.full_like(fastnn.ones(2), 3.0, **o),
    lambda **o: fastnn.rand(2, **o), lambda **o: fastnn.randn(2, **o), lambda **o: fastnn.randn_like(fastnn.ones(2), **o),
    lambda **o: fastnn.rand_like(fastnn.ones(2), **o)])
def test_what_makes_tensors_can_have_them_collect_gradients(make):
    x = make(requires_grad=True)
    (3 * x).sum().backward()
    assert (x.grad == 3).all() and not make().requires_grad
