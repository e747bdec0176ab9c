"""What benchmarks time: convolutions, products, operations and large streams of data, each as a call, with what it has
to compute and to move, and the same in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import get_float32_matmul_precision, optim
from .. import functional as F
from .._core import launch
from ..ops.create import tensor, zeros
from .shapes import CONVOLUTIONS, LAYERS, SQUARES, Conv, Product
from .spec import OpSpec, Sample, specs

PASSES = ("forward", "backward_input", "backward_weight")


class Case(NamedTuple):
    """One thing to time."""

    ours: Callable[[], Any]
    peers: Callable[[Any], list[Callable[[], Any]]]  # given PyTorch: its ways of doing the same
    flops: float = 0.0  # floating-point operations, where arithmetic bounds it
    bytes: float = 0.0  # that cannot but be moved, where memory bounds it
    algorithm: str = "direct"  # as the engine says


# -- convolutions --

def batch_of(network: str) -> int:
    """Images in a batch.

    Parameters
    ----------
    network : str
        Its name.

    Returns
    -------
    int
    """
    return 64 if network in ("lenet5", "resnet20", "small") else 16


def channels_last(array: np.ndarray) -> Any:
    """A fastnn tensor in N, H, W, C order.

    Parameters
    ----------
    array : array
        (N, C, H, W).

    Returns
    -------
    Tensor
    """
    return tensor(np.ascontiguousarray(array.transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)


def convolution(layer: Conv, batch: int, which: str) -> Case:
    """One pass of a layer; PyTorch's contiguous and channels-last.

    Parameters
    ----------
    layer : Conv
        Its sizes.
    batch : int
        Images.
    which : str
        "forward", "backward_input" or "backward_weight".

    Returns
    -------
    Case
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, layer.channels, layer.size, layer.size), dtype=np.float32)
    shape = (layer.filters, layer.channels // layer.groups, layer.kernel, layer.kernel)
    weight = rng.standard_normal(shape, dtype=np.float32)
    dy = rng.standard_normal((batch, layer.filters, layer.out_size, layer.out_size), dtype=np.float32)
    options = {"stride": (layer.stride,) * 2, "padding": (layer.padding,) * 4, "dilation": (1, 1),
               "groups": layer.groups}
    fx, fweight, fdy = channels_last(x), tensor(weight), channels_last(dy)
    op, inputs, sizes = {"forward": (launch.conv2d_forward, (fx, fweight, None), {}),
                         "backward_input": (launch.conv2d_backward_input, (fdy, fweight), {"input": x.shape[2:]}),
                         "backward_weight": (launch.conv2d_backward_weight, (fdy, fx), {"kernel": shape[2:]})}[which]

    def peers(torch: Any) -> list[Callable[[], Any]]:
        functions: list[Callable[[], Any]] = []
        for layout in (torch.contiguous_format, torch.channels_last):
            tx, tweight, tdy = (torch.from_numpy(a).contiguous(memory_format=layout) for a in (x, weight, dy))
            pair = (layer.stride,) * 2, (layer.padding,) * 2, (1, 1)

            def forward(tx=tx, tweight=tweight):
                return torch.conv2d(tx, tweight, None, layer.stride, layer.padding, 1, layer.groups)

            def backward(tx=tx, tweight=tweight, tdy=tdy):
                mask = (which == "backward_input", which == "backward_weight", False)
                rest = (None, *pair, False, (0, 0), layer.groups, mask)
                return torch.ops.aten.convolution_backward(tdy, tx, tweight, *rest)[mask.index(True)]

            functions.append(forward if which == "forward" else backward)
        return functions

    return Case(lambda: op(*inputs, **sizes, **options), peers, layer.flops(batch),
                algorithm=op.algorithm(*inputs, **sizes, **options))


# -- products --

def product(shape: Product) -> Case:
    """A matrix product by fastnn and by PyTorch, each into memory of its own that it has used before.

    Parameters
    ----------
    shape : Product
        Its sizes.

    Returns
    -------
    Case
    """
    which, batch, inputs, outputs = shape
    rng = np.random.default_rng(0)
    shapes = ((batch, inputs), (outputs, inputs), (outputs,), (batch, outputs))
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    x, weight, bias, dy = map(tensor, arrays)
    result = {"backward_input": (batch, inputs), "backward_weight": (outputs, inputs)}.get(which, (batch, outputs))
    y = zeros(result)
    op, operands = {"square": (launch.matmul, (x, weight)), "forward": (launch.linear_forward, (x, weight, bias)),
                    "backward_input": (launch.linear_backward_input, (dy, weight)),
                    "backward_weight": (launch.linear_backward_weight, (dy, x))}[which]

    def peers(torch: Any) -> list[Callable[[], Any]]:
        dtype = torch.bfloat16 if get_float32_matmul_precision() == "medium" else torch.float32
        tx, tw, tb, tdy = (torch.from_numpy(a).to(dtype, copy=True) for a in arrays)
        ty = torch.zeros(result, dtype=dtype)
        return [{"square": lambda: torch.mm(tx, tw, out=ty), "forward": lambda: torch.addmm(tb, tx, tw.t(), out=ty),
                 "backward_input": lambda: torch.mm(tdy, tw, out=ty),
                 "backward_weight": lambda: torch.mm(tdy.t(), tx, out=ty)}[which]]

    return Case(lambda: op(*operands, out=y), peers, shape.flops, algorithm=op.algorithm(*operands))


# -- operations of the OpSpec list --

def operation(spec: OpSpec, sample: Sample) -> Case:
    """A call of an operation on a sample of realistic size.

    Parameters
    ----------
    spec : OpSpec
        The operation.
    sample : Sample
        Its inputs.

    Returns
    -------
    Case
    """
    arrays = [a.astype(np.float32) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a for a in sample.inputs]
    ours = [tensor(a) if isinstance(a, np.ndarray) else a for a in arrays]
    shapes = [np.shape(a) for a in arrays]

    def peers(torch: Any) -> list[Callable[[], Any]]:
        name = spec.peer or spec.name
        peer = getattr(torch.nn.functional, name, None) or getattr(torch, name, None)
        if peer is None or sample.options:
            return []
        theirs = [torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arrays]
        return [lambda: peer(*theirs)]

    return Case(lambda: spec.function(*ours, **sample.options), peers,
                spec.flops(*shapes, **sample.options) if spec.flops else 0.0,
                spec.bytes(*shapes, **sample.options) if spec.bytes else 0.0)


# -- streams: data larger than the caches --

def _made(torch: Any, *tensors: Any) -> list[Any]:
    """PyTorch's copies of tensors, in the same order in memory."""
    made = []
    for t in tensors:
        copy = torch.from_numpy(t.numpy().copy())
        made.append(copy.contiguous(memory_format=torch.channels_last) if copy.ndim == 4 else copy)
    return made


def _random(*shape: int) -> Any:
    """Random numbers, four axes in N, H, W, C order; a few different ones serve any size."""
    size = shape if len(shape) != 4 else (shape[0], *shape[2:], shape[1])
    numbers = np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32)
    made = tensor(np.resize(numbers, size))
    return made.permute(0, 3, 1, 2) if len(shape) == 4 else made


def _maps(nbytes: int) -> tuple[int, int, int, int]:
    return max(nbytes // (64 * 56 * 56 * 4), 1), 64, 56, 56


def _max_pool(nbytes: int, backward: bool) -> Case:
    n, c, h, w = _maps(nbytes)
    x = _random(n, c, h, w)
    geometry = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": 0}
    y, argmax = launch.max_pool2d_forward(x, **geometry)

    def peers(torch: Any) -> list[Callable[[], Any]]:
        tx, ty = _made(torch, x, y)
        _, indices = torch.nn.functional.max_pool2d(tx, 2, return_indices=True)
        if backward:
            scatter = torch.ops.aten.max_pool2d_with_indices_backward
            return [lambda: scatter(ty, tx, [2, 2], [2, 2], [0, 0], [1, 1], False, indices)]
        return [lambda: torch.nn.functional.max_pool2d(tx, 2, return_indices=True)]

    moved = x.nbytes + y.nbytes + argmax.nbytes
    if backward:
        return Case(lambda: launch.max_pool2d_backward(y, argmax, input=(h, w), **geometry), peers, bytes=moved)
    return Case(lambda: launch.max_pool2d_forward(x, **geometry), peers, bytes=moved)


def _avg_pool(nbytes: int, backward: bool) -> Case:
    n, c, h, w = _maps(nbytes)
    x = _random(n, c, h, w)
    geometry = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": 0, "count_include_pad": 1,
                "divisor": 0}
    y = launch.avg_pool2d_forward(x, **geometry)

    def peers(torch: Any) -> list[Callable[[], Any]]:
        tx, ty = _made(torch, x, y)
        if backward:
            return [lambda: torch.ops.aten.avg_pool2d_backward(ty, tx, [2, 2], [2, 2], [0, 0], False, True, None)]
        return [lambda: torch.nn.functional.avg_pool2d(tx, 2)]

    if backward:
        return Case(lambda: launch.avg_pool2d_backward(y, input=(h, w), **geometry), peers, bytes=x.nbytes + y.nbytes)
    return Case(lambda: launch.avg_pool2d_forward(x, **geometry), peers, bytes=x.nbytes + y.nbytes)


def _batch_norm(nbytes: int, backward: bool) -> Case:
    """Counted: x twice, as its statistics are needed before its first result, and y; backward dy and x twice, dx."""
    x, dy = _random(*_maps(nbytes)), _random(*_maps(nbytes)) if backward else None
    weight, bias = _random(64), _random(64)
    _, mean, _, rstd = launch.batch_norm_forward(x, weight, bias, eps=1e-5)

    def peers(torch: Any) -> list[Callable[[], Any]]:
        tx, tw, tb, tm, tr = _made(torch, x, weight, bias, mean, rstd)
        if backward:
            tdy, = _made(torch, dy)
            return [lambda: torch.ops.aten.native_batch_norm_backward(tdy, tx, tw, None, None, tm, tr, True, 1e-5,
                                                                      [True] * 3)]
        return [lambda: torch.native_batch_norm(tx, tw, tb, None, None, True, 0.1, 1e-5)]

    if backward:
        return Case(lambda: launch.batch_norm_backward(dy, x, mean, rstd, weight, training=1), peers,
                    bytes=5 * x.nbytes)
    return Case(lambda: launch.batch_norm_forward(x, weight, bias, eps=1e-5), peers, bytes=3 * x.nbytes)


def _relu(nbytes: int, backward: bool) -> Case:
    x = _random(nbytes // 4)
    if not backward:
        return Case(lambda: launch.relu_forward(x), lambda torch: [partial(torch.relu, *_made(torch, x))],
                    bytes=2 * x.nbytes)
    y, dy = launch.relu_forward(x), _random(nbytes // 4)
    return Case(lambda: launch.relu_backward(dy, y),
                lambda torch: [partial(torch.ops.aten.threshold_backward, *_made(torch, dy, y), 0)], bytes=3 * x.nbytes)


def _adam(nbytes: int) -> Case:
    p, g = _random(nbytes // 4), _random(nbytes // 4)
    p.requires_grad, p.grad = True, g
    optimizer = optim.Adam([p])

    def peers(torch: Any) -> list[Callable[[], Any]]:
        tp, tg = _made(torch, p.detach(), g)
        tp.requires_grad, tp.grad = True, tg
        return [torch.optim.Adam([tp], fused=True).step]

    return Case(optimizer.step, peers, bytes=7 * p.nbytes)


def _bias(nbytes: int, backward: bool) -> Case:
    x, bias = _random(nbytes // 4096, 1024), _random(1024)
    if backward:
        return Case(lambda: launch.sum(x, axes=1, keepdim=0, divisor=1.0),
                    lambda torch: [partial(torch.sum, *_made(torch, x), 0)], bytes=x.nbytes)
    return Case(lambda: launch.add(x, bias), lambda torch: [partial(torch.add, *_made(torch, x, bias))],
                bytes=2 * x.nbytes)


def _softmax(nbytes: int, backward: bool) -> Case:
    x = _random(nbytes // 4000, 1000)
    if not backward:
        return Case(lambda: launch.softmax_forward(x, axis=1),
                    lambda torch: [partial(torch.softmax, *_made(torch, x), 1)], bytes=2 * x.nbytes)
    y, dy = launch.softmax_forward(x, axis=1), _random(nbytes // 4000, 1000)
    return Case(lambda: launch.softmax_backward(dy, y, axis=1),
                lambda torch: [partial(torch._softmax_backward_data, *_made(torch, dy, y), 1, torch.float32)],
                bytes=3 * x.nbytes)


def _cross_entropy(nbytes: int) -> Case:
    """Forward and backward: logits are read, their logarithms of probabilities written and read, gradients written."""
    x = _random(nbytes // 4000, 1000)
    target = tensor(np.arange(len(x)) % 1000)
    x.requires_grad = True

    def step() -> Any:
        x.grad = None
        F.cross_entropy(x, target).backward()
        return x.grad

    def peers(torch: Any) -> list[Callable[[], Any]]:
        tx, ty = _made(torch, x.detach(), target)
        tx.requires_grad = True

        def theirs() -> Any:
            tx.grad = None
            torch.nn.functional.cross_entropy(tx, ty).backward()
            return tx.grad

        return [theirs]

    return Case(step, peers, bytes=4 * x.nbytes)


def streams(nbytes: int) -> Iterator[tuple[str, Callable[[], Case]]]:
    """Operations bound by memory.

    Parameters
    ----------
    nbytes : int
        How large their data is.

    Yields
    ------
    tuple
        A name, and a function that makes the `Case`.
    """
    for name, make in (("max_pool2d", _max_pool), ("avg_pool2d", _avg_pool), ("batch_norm", _batch_norm),
                       ("relu", _relu), ("bias", _bias), ("softmax", _softmax)):
        yield f"{name} forward", partial(make, nbytes, False)
        yield f"{name} backward", partial(make, nbytes, True)
    yield "cross_entropy with gradient", partial(_cross_entropy, nbytes)
    yield "adam", partial(_adam, nbytes)


GROUPS = (*CONVOLUTIONS, "gemm", "ops", "stream")


def cases_of(group: str, nbytes: int = 64 << 20) -> Iterator[tuple[str, Callable[[], Case]]]:
    """Names and makers of a group's cases.

    Parameters
    ----------
    group : str
        One of `GROUPS`: a network's convolutions, matrix products, single operations, or operations on large data.
    nbytes : int
        How large.

    Yields
    ------
    tuple
        A name, and a function that makes the `Case`.

    Raises
    ------
    ValueError
        If there is no such group.
    """
    if group in CONVOLUTIONS:
        for layer in CONVOLUTIONS[group]:
            for which in PASSES:
                yield f"{layer.name} {which}", partial(convolution, layer, batch_of(group), which)
    elif group == "gemm":
        for shape in SQUARES + LAYERS:
            yield shape.name, partial(product, shape)
    elif group == "ops":
        for spec in specs().values():
            if spec.benchmarks and (spec.flops or spec.bytes):
                for k, sample in enumerate(spec.benchmarks(np.random.default_rng(0))):
                    yield f"{spec.name}-{k}", partial(operation, spec, sample)
    elif group == "stream":
        yield from streams(nbytes)
    else:
        raise ValueError(f"there is no group of benchmarks {group!r}; there are {', '.join(GROUPS)}")
