"""Reading ONNX files: every operator computes what onnxruntime computes; what is not offered, and files that are broken or mean harm."""

import numpy as np
import pytest

import fastnn
from fastnn.io import load_onnx

onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")
runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra 'test'")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

RNG = np.random.default_rng(0)


def real(*shape, least=-2.0, most=2.0):
    return RNG.uniform(least, most, shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def model_of(nodes, inputs, outputs, initializers=(), opset=17, domains=()):
    """A model of nodes; inputs are arrays by name."""
    given = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for name, a in inputs.items()]
    made = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph(nodes, "graph", given, made, [numpy_helper.from_array(a, name) for name, a in initializers])
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=max(4, helper.find_min_ir_version_for(opsets[:1])))
    made = onnx.shape_inference.infer_shapes(made)  # which gives outputs their types
    for value in made.graph.output:
        if not value.type.tensor_type.elem_type:
            value.type.CopyFrom(made.graph.input[0].type)
        elif not value.type.tensor_type.HasField("shape"):  # of an array that features are extracted from
            value.type.tensor_type.shape.dim.add(), value.type.tensor_type.shape.dim.add()
    return made


def save(path, model):
    path.write_bytes(model.SerializeToString())
    return path


class Case:
    """A node, its inputs (the first one the graph's, others initializers) and attributes."""

    def __init__(self, op, *inputs, outputs=1, opset=17, **attributes):
        self.op, self.inputs, self.outputs, self.opset, self.attributes = op, inputs, outputs, opset, attributes

    def __repr__(self):
        shapes = "_".join("x".join(map(str, a.shape)) if a is not None else "no" for a in self.inputs)
        words = "_".join(f"{k}={v}" for k, v in self.attributes.items() if not isinstance(v, onnx.TensorProto))
        return f"{self.op}-{shapes}-{words}-{self.opset}"

    def model(self):
        names = ["" if a is None else f"i{k}" for k, a in enumerate(self.inputs)]
        outputs = [f"o{k}" for k in range(self.outputs)]
        if self.opset > onnx.defs.onnx_opset_version():
            pytest.skip(f"this onnx does not know opset {self.opset}")
        domain, _, op = self.op.rpartition(".")
        node = helper.make_node(op, names, outputs, name="the node", domain=domain or None, **self.attributes)
        first = {"i0": np.asarray(self.inputs[0])} if self.inputs else {"unused": real(1)}
        rest = [(name, a) for name, a in list(zip(names, self.inputs))[1:] if a is not None]
        return model_of([node], first, outputs, rest, self.opset, [domain] if domain else [])


X = real(3, 4)
POSITIVE = real(3, 4, least=0.1)
UNIT = real(3, 4, least=-0.9, most=0.9)
SEQUENCES, MAPS = real(2, 4, 9), real(2, 4, 7, 6)
TRUTH = RNG.random((3, 4)) < 0.5
WEIRD = np.array([[1, np.nan, np.inf, -np.inf]], np.float32)


def unary():
    for op in ("Abs", "Atan", "Asinh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "HardSwish", "Identity", "Neg", "Relu", "Round",
               "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Tan", "Tanh", "Elu", "Selu", "LeakyRelu", "HardSigmoid",
               "ThresholdedRelu", "Celu", "Shrink", "Softmax", "LogSoftmax", "Size", "Shape"):
        yield Case(op, X)
    yield from (Case(op, UNIT) for op in ("Acos", "Asin", "Atanh"))
    yield from (Case(op, POSITIVE) for op in ("Log", "Sqrt", "Reciprocal"))
    yield Case("Acosh", POSITIVE + 1)
    yield Case("Round", np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32))
    yield Case("Mish", X, opset=18)
    yield from (Case("Gelu", X, opset=20, approximate=how) for how in ("none", "tanh"))
    yield from (Case(op, WEIRD) for op in ("IsNaN", "IsInf"))
    yield Case("IsInf", WEIRD, detect_positive=0)
    yield Case("IsInf", WEIRD, detect_negative=0)
    yield Case("Not", TRUTH)
    yield from [Case("Elu", X, alpha=0.5), Case("Celu", X, alpha=2.0), Case("LeakyRelu", X, alpha=0.3),
                Case("Selu", X, alpha=1.2, gamma=0.7), Case("HardSigmoid", X, alpha=0.3, beta=0.4), Case("ThresholdedRelu", X, alpha=0.2),
                Case("Shrink", X, lambd=0.4, bias=0.1), Case("PRelu", X, real(4)), Case("PRelu", MAPS, real(4, 1, 1)),
                Case("Dropout", X, np.array(0.3, np.float32)), Case("Dropout", X, ratio=0.3, opset=11)]
    yield from (Case("Softmax", MAPS, axis=axis, opset=opset) for axis in (1, 3, -1) for opset in (11, 17))
    yield Case("LogSoftmax", MAPS, opset=11)


def binary():
    for op in ("Add", "Sub", "Mul", "Div", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"):
        yield Case(op, X, real(4))
    yield from (Case(op, TRUTH, RNG.random((3, 4)) < 0.5) for op in ("And", "Or", "Xor"))
    yield from [Case("Div", ints(7, -7, 8), ints(2, 2, -3)), Case("Pow", POSITIVE, real(4)), Case("Pow", X, ints(2)),
                Case("Mod", ints(7, -7, 8), ints(3, 3, -3)), Case("Mod", X, real(4), fmod=1), Case("Where", TRUTH, X, real(1, 4)),
                Case("Max", X, real(4), real(3, 1)), Case("Min", X, real(4)), Case("Sum", X, real(4), real(1)), Case("Mean", X, real(4),
                real(1)),
                Case("Max", X), Case("Clip", X, np.array(-0.5, np.float32), np.array(0.5, np.float32)),
                Case("Clip", X, None, np.array(0.5, np.float32)), Case("Clip", X, min=-0.5, max=0.5, opset=9), Case("Clip", X)]


def products():
    yield from [Case("MatMul", X, real(4, 5)), Case("MatMul", real(2, 3, 4), real(4, 5)), Case("MatMul", real(2, 3, 4), real(2, 4, 5)),
                Case("MatMul", X, real(4)), Case("Gemm", X, real(4, 5)), Case("Gemm", X, real(5, 4), real(5), transB=1),
                Case("Gemm", real(4, 3), real(5, 4), real(3, 1), transA=1, transB=1, alpha=0.5, beta=2.0),
                Case("Gemm", X, real(4, 5), real(1), beta=0.5), Case("Einsum", X, real(4, 5), equation="ij,jk->ki")]


def reductions():
    for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceLogSumExp", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd"):
        yield from [Case(op, MAPS, axes=[1, -1]), Case(op, MAPS, keepdims=0), Case(op, MAPS, ints(1, 2), opset=18, keepdims=0)]
    yield from [Case("ReduceLogSum", real(2, 3, 4, least=0.1), axes=[1]), Case("ReduceSum", MAPS, ints(1, -1)), Case("ReduceSum", MAPS),
                Case("ReduceSum", MAPS, axes=[1], opset=11), Case("ReduceSum", MAPS, noop_with_empty_axes=1),
                Case("ArgMax", X), Case("ArgMax", X, axis=-1, keepdims=0), Case("ArgMin", X, axis=1), Case("CumSum", X, ints(1)[0]),
                Case("CumSum", X, ints(0)[0], exclusive=1, reverse=1), Case("LpNormalization", X), Case("LpNormalization", X, p=1, axis=0),
                Case("TopK", X, ints(2), outputs=2), Case("TopK", X, ints(2), outputs=2, largest=0, axis=0)]


def shapes():
    yield from [Case("Reshape", MAPS, ints(0, -1)), Case("Reshape", MAPS, ints(4, 2, 0, -1)), Case("Flatten", MAPS),
                Case("Flatten", MAPS, axis=-2),
                Case("Flatten", MAPS, axis=0), Case("Transpose", MAPS), Case("Transpose", MAPS, perm=[0, 2, 3, 1]),
                Case("Squeeze", real(1, 3, 1), ints(0, -1)), Case("Squeeze", real(1, 3, 1)), Case("Squeeze", real(1, 3, 1),
                axes=[0], opset=11),
                Case("Unsqueeze", X, ints(0, -1)), Case("Unsqueeze", X, axes=[1, 3], opset=11), Case("Expand", real(3, 1), ints(2, 1, 4)),
                Case("Tile", X, ints(2, 3)), Case("Concat", X, real(3, 2), axis=1), Case("Concat", X, real(2, 4), axis=-2),
                Case("Split", MAPS, outputs=2, axis=1), Case("Split", MAPS, ints(1, 3), outputs=2, axis=1),
                Case("Split", MAPS, outputs=2, axis=2, split=[5, 2], opset=11),
                Case("Split", MAPS, outputs=3, axis=2, opset=18, num_outputs=3),
                Case("Slice", MAPS, ints(1, -3), ints(99, -1), ints(2, 3)), Case("Slice", MAPS, ints(-1), ints(-99), ints(2), ints(-2)),
                Case("Slice", MAPS, ints(0), ints(4), ints(-1), ints(3)),
                Case("Slice", MAPS, starts=[1, 2], ends=[2, 5], axes=[0, 2], opset=9),
                Case("Slice", MAPS, starts=[1], ends=[2], opset=9), Case("Gather", X, ints(2, 0, -1)),
                Case("Gather", MAPS, ints(1)[0], axis=1),
                Case("Gather", X, ints([1, 0], [3, 3]), axis=1), Case("GatherElements", X, ints([0, 1, 2, 2]), axis=0),
                Case("ScatterElements", X, ints([2, 0, 1, 1]), real(1, 4)), Case("Scatter", X, ints([2, 0, 1, 1]), real(1, 4), opset=9),
                Case("ScatterElements", X, ints([1], [0], [1]), real(3, 1), axis=1, reduction="add", opset=16),
                Case("GatherND", MAPS, ints([1, 2], [0, -1])), Case("GatherND", MAPS, ints([[1, 2]], [[0, 0]]), batch_dims=1),
                Case("GatherND", MAPS, ints([[[2, 5]]] * 4, [[[0, 1]]] * 4), batch_dims=2), Case("GatherND", X, ints([2, 1], [0, 0])),
                Case("ScatterND", X, ints([2], [0]), real(2, 4)), Case("ScatterND", X, ints([2, 1], [0, 3]), real(2)),
                Case("ScatterND", X, ints([2], [2]), real(2, 4), reduction="add", opset=16),
                Case("Trilu", X), Case("Trilu", X, ints(1)[0], upper=0), Case("DepthToSpace", MAPS, blocksize=2),
                Case("DepthToSpace", MAPS, blocksize=2, mode="CRD"), Case("SpaceToDepth", real(1, 2, 4, 6), blocksize=2),
                Case("Pad", X, ints(0, 1, 2, 0)), Case("Pad", X, ints(0, 1, 2, 0), np.array(1.5, np.float32)),
                Case("Pad", MAPS, ints(0, 0, 2, 1, 0, 0, 1, 3), mode="reflect"), Case("Pad", MAPS, ints(0, 0, 2, 1, 0, 0, 1, 3),
                mode="edge"),
                Case("Pad", X, ints(1, 1), np.array(0, np.float32), ints(1), opset=18),
                Case("Pad", X, pads=[0, 1, 2, 0], value=0.5, opset=9),
                Case("Pad", MAPS, ints(0, 0, -1, 1, 0, 0, 0, -2)), Case("Pad", MAPS, ints(0, 0, 2, 1, 0, 0, 1, 3), mode="wrap", opset=19),
                Case("Shape", MAPS, start=1, end=-1), Case("OneHot", ints(1, 0, -1), ints(4), real(2)),
                Case("OneHot", ints([1, 0]), ints(4)[0], real(2), axis=1), Case("NonZero", np.where(TRUTH, X, 0).astype(np.float32))]


def constants():
    yield from [Case("Constant", value=numpy_helper.from_array(real(2, 2))), Case("Constant", value_float=1.5),
                Case("Constant", value_ints=[1, 2]),
                Case("Constant", value_floats=[1.5, 2.5]), Case("Constant", value_int=3), Case("ConstantOfShape", ints(2, 3)),
                Case("ConstantOfShape", ints(2), value=numpy_helper.from_array(ints(7))),
                Case("Range", ints(1)[0], ints(9)[0], ints(3)[0]), Case("Range", *(np.array(v, np.float32) for v in (1, 0, -0.3)))]
    yield from (Case("Cast", X, to=number) for number in (2, 6, 7, 9, 11) if number != 2)
    yield from [Case("Cast", abs(X) * 50, to=2), Case("Cast", ints(0, 3), to=1), Case("CastLike", X, ints(1))]


def convolutions():
    one, two = real(6, 4, 3), real(6, 4, 3, 2)
    yield from [Case("Conv", SEQUENCES, one), Case("Conv", MAPS, two, real(6), strides=[2, 1], pads=[1, 1, 1, 1], dilations=[2, 1]),
                Case("Conv", MAPS, real(6, 2, 3, 3), group=2), Case("Conv", MAPS, two, pads=[0, 1, 2, 0], kernel_shape=[3, 2]),
                Case("Conv", SEQUENCES, one, pads=[2, 0])]
    yield from (Case("Conv", MAPS, two, auto_pad=how, strides=[2, 2]) for how in ("VALID", "SAME_UPPER", "SAME_LOWER"))
    one, two = real(4, 3, 3), real(4, 3, 3, 2)
    yield from [Case("ConvTranspose", SEQUENCES, one, strides=[2]), Case("ConvTranspose", MAPS, two, real(3), pads=[1, 0, 1, 0]),
                Case("ConvTranspose", MAPS, two, strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 2]),
                Case("ConvTranspose", MAPS, two, strides=[2, 2], auto_pad="SAME_UPPER"),
                Case("ConvTranspose", MAPS, real(4, 1, 3, 3), group=2, dilations=[2, 2]),
                Case("ConvTranspose", MAPS, two, strides=[2, 2], output_shape=[14, 12])]


def pools():
    for op in ("MaxPool", "AveragePool"):
        yield from [Case(op, SEQUENCES, kernel_shape=[3], strides=[2]), Case(op, MAPS, kernel_shape=[2, 3]),
                    Case(op, MAPS, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
                    Case(op, MAPS, kernel_shape=[3, 2], pads=[2, 0, 0, 1]),
                    Case(op, MAPS, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
                    Case(op, MAPS, kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
                    Case(op, MAPS, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER")]
    yield from [Case("MaxPool", MAPS, kernel_shape=[2, 2], dilations=[2, 1]),
                Case("MaxPool", MAPS, kernel_shape=[2, 2], strides=[2, 2], outputs=2),
                Case("MaxPool", SEQUENCES, kernel_shape=[3], pads=[1, 1], outputs=2),
                Case("AveragePool", MAPS, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
                Case("AveragePool", MAPS, kernel_shape=[3, 2], pads=[2, 0, 0, 1], count_include_pad=1),
                Case("LpPool", MAPS, kernel_shape=[2, 2], strides=[2, 2]),
                Case("LpPool", MAPS, kernel_shape=[3, 2], p=3, pads=[1, 0, 1, 1]),
                Case("GridSample", MAPS, real(2, 3, 5, 2), opset=16), Case("GridSample", MAPS, real(2, 3, 5, 2), opset=16, mode="nearest",
                                                                            padding_mode="border"),
                Case("GridSample", MAPS, real(2, 3, 5, 2), opset=20, padding_mode="reflection", align_corners=1),
                Case("GlobalAveragePool", MAPS), Case("GlobalMaxPool", SEQUENCES), Case("GlobalAveragePool", SEQUENCES)]


def norms():
    pairs = real(4), real(4)
    yield from [Case("BatchNormalization", MAPS, *pairs, real(4), real(4, least=0.2), epsilon=1e-3),
                Case("BatchNormalization", SEQUENCES, *pairs, real(4), real(4, least=0.2)),
                Case("BatchNormalization", X, *pairs, real(4), real(4, least=0.2), opset=9),
                Case("InstanceNormalization", MAPS, *pairs), Case("LayerNormalization", X, *pairs, epsilon=1e-3),
                Case("LayerNormalization", MAPS, real(7, 6), real(7, 6), axis=2), Case("LayerNormalization", MAPS, real(6), axis=-1),
                Case("LayerNormalization", MAPS, real(7, 1), real(6), axis=-2),
                Case("GroupNormalization", MAPS, *pairs, num_groups=2, opset=21),
                Case("ai.onnx.ml.Scaler", X, offset=[0.5, 1.0, 0.0, 2.0], scale=[2.0, 1.0, 0.5, -1.0]),
                Case("ai.onnx.ml.ArrayFeatureExtractor", X, ints(2, 0)), Case("ai.onnx.ml.ArrayFeatureExtractor", ints(7, 8, 9), ints(2, 0, 2)),
                Case("RMSNormalization", X, real(4), opset=23), Case("LRN", MAPS, size=3, alpha=0.1)]


def resizes():
    for where in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
        for mode, words in (("nearest", {"nearest_mode": "floor"}), ("nearest", {"nearest_mode": "round_prefer_ceil"}), ("linear", {}),
        ("cubic", {})):
            yield Case("Resize", MAPS, None, None, ints(2, 4, 11, 4), mode=mode, coordinate_transformation_mode=where, **words)
    floats = np.array([1, 1, 2, 1.5], np.float32)
    yield from [Case("Resize", MAPS, None, floats), Case("Resize", MAPS, None, floats, mode="linear"),
                Case("Resize", MAPS, floats, opset=10),
                Case("Resize", MAPS, None, floats, nearest_mode="ceil"),
                Case("Resize", MAPS, None, floats, mode="cubic", cubic_coeff_a=-0.5),
                Case("Resize", SEQUENCES, None, None, ints(2, 4, 20), mode="linear"),
                Case("Resize", MAPS, None, floats[2:], axes=[2, 3], opset=18),
                Case("Upsample", MAPS, floats, opset=9), Case("Upsample", MAPS, floats, mode="linear", opset=9)]


def recurrent():
    x = real(5, 2, 3)
    for op, gates, words in (("LSTM", 4, {}), ("GRU", 3, {"linear_before_reset": 1}), ("RNN", 1, {})):
        outputs = 3 if op == "LSTM" else 2
        state = [real(1, 2, 4)] * (outputs - 1)
        yield from [Case(op, x, real(1, gates * 4, 3), real(1, gates * 4, 4), hidden_size=4, outputs=outputs, **words),
                    Case(op, x, real(1, gates * 4, 3), real(1, gates * 4, 4), real(1, gates * 8), np.array([5, 3], np.int32),
                    *state, hidden_size=4,
                         outputs=outputs, **words),
                    Case(op, x, real(1, gates * 4, 3), real(1, gates * 4, 4), real(1, gates * 8), hidden_size=4, outputs=outputs,
                         direction="reverse", **words),
                    Case(op, x, real(2, gates * 4, 3), real(2, gates * 4, 4), real(2, gates * 8), hidden_size=4, outputs=outputs,
                         direction="bidirectional", **words)]
    yield Case("RNN", x, real(1, 4, 3), real(1, 4, 4), hidden_size=4, outputs=2, activations=["Relu"])


CASES = [case for family in (unary, binary, products, reductions, shapes, constants, convolutions, pools, norms, resizes, recurrent)
         for case in family()]
OTHERS = {"Swish"}  # onnxruntime has no kernel for it; test_swish


def computed(model, path):
    """onnxruntime's outputs."""
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, model)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_operators(tmp_path, case):
    path = save(tmp_path / "node.onnx", case.model())
    first = np.asarray(case.inputs[0]) if case.inputs else real(1)
    expected = computed({"i0" if case.inputs else "unused": first}, path)
    module = load_onnx(path)
    actual = module(fastnn.tensor(first))
    actual = actual if isinstance(actual, tuple) else (actual,)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
        assert tuple(a.shape) == b.shape and str(a.dtype) == str(b.dtype)
        np.testing.assert_allclose(a.detach().numpy(), b, 2e-5, 2e-5)


def test_every_operator_has_a_case():
    from fastnn.io.onnx.operators import OPERATORS, operator_of
    assert operator_of("NoSuchOperator") is None
    assert set(OPERATORS) - {case.op for case in CASES} <= OTHERS


def test_swish(tmp_path):
    path = save(tmp_path / "swish.onnx", Case("Swish", X, alpha=2.0, opset=24).model())
    np.testing.assert_allclose(load_onnx(path)(fastnn.tensor(X)).numpy(), X / (1 + np.exp(-2 * X)), 1e-5)


# ---- a graph as a module ----


def classifier():
    """As an exporter writes it: the batch's extent is read and goes into a shape."""
    nodes = [helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], pads=[1, 1, 1, 1]),
             helper.make_node("BatchNormalization", ["c", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["b"]),
             helper.make_node("Tanh", ["b"], ["r"]),
             helper.make_node("Shape", ["r"], ["s"]), helper.make_node("Gather", ["s", "zero"], ["n"]),
             helper.make_node("Concat", ["n", "rest"], ["t"], axis=0),
             helper.make_node("Reshape", ["r", "t"], ["f"]), helper.make_node("Constant", [], ["half"], value_float=0.5),
             helper.make_node("Mul", ["f", "half"], ["h"]), helper.make_node("Dropout", ["h"], ["d"]),
             helper.make_node("Gemm", ["d", "onnx::W"], ["y"])]
    weights = [("conv.weight", real(4, 1, 3, 3)), ("conv.bias", real(4)), ("bn.weight", real(4)), ("bn.bias", real(4)),
    ("bn.mean", real(4)),
               ("bn.var", real(4, least=0.5)), ("zero", ints(0)), ("rest", ints(-1)), ("onnx::W", real(4 * 36, 3))]
    made = model_of(nodes, {"x": real(1, 1, 6, 6)}, ["y"], weights)
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    for value in made.graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    return made


@pytest.fixture
def loaded(tmp_path):
    return load_onnx(save(tmp_path / "m.onnx", classifier()))


def test_parameters_and_buffers(loaded):
    assert {name for name, _ in loaded.named_parameters()} == {"conv.weight", "conv.bias", "bn.weight", "bn.bias", "onnx::W"}
    assert [name for name, _ in loaded.named_buffers()] == ["bn.mean", "bn.var"]
    assert not loaded.training and [(given.name, given.dtype, given.shape) for given in loaded.inputs] == [("x", "float32", ("N", 1, 6, 6))]
    assert "x float32 ('N', 1, 6, 6) -> y; 11 nodes" in repr(loaded)


def test_training_is_captured(loaded):
    """The step that Trainer captures reads no tensor, though the graph computes with shapes; statistics stay as they were."""
    fastnn.manual_seed(0)
    before = {name: value.numpy().copy() for name, value in loaded.state_dict().items()}
    optimizer = fastnn.optim.Adam(loaded.parameters(), lr=0.01)
    y = fastnn.tensor(np.arange(12) % 3)
    x = fastnn.tensor(real(12, 1, 6, 6))

    def step(x, y):
        loss = fastnn.functional.cross_entropy(loaded(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    run = fastnn.capture(step, verify=True)
    losses = [run(x, y).item() for _ in range(30)]
    assert run.obstacle is None and run.replays >= 25 and losses[-1] < losses[0] / 4
    changed = {name for name, value in loaded.state_dict().items() if not np.array_equal(value.numpy(), before[name])}
    assert changed == {name for name, _ in loaded.named_parameters()}


def test_gradients_are_those_of_differences(loaded):
    model = loaded.double()
    x = fastnn.tensor(RNG.uniform(-1, 1, (2, 1, 6, 6)), requires_grad=True)
    assert fastnn.gradcheck(model, (x,))
    assert str(model(x).dtype) == "float64"


def test_shapes_that_elements_decide(tmp_path):
    """Inputs of one shape, whose elements that are not 0 are fewer or more; the same as a range, and a repeated step."""
    nodes = [helper.make_node("NonZero", ["x"], ["places"]), helper.make_node("Shape", ["places"], ["s"]), helper.make_node("Cast", ["s"], ["y"], to=1),
             helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0), helper.make_node("Cast", ["most"], ["end"], to=7),
             helper.make_node("Range", ["zero", "end", "one"], ["r"]), helper.make_node("Size", ["r"], ["n"])]
    module = load_onnx(save(tmp_path / "m.onnx", model_of(nodes, {"x": real(4)}, ["y", "n"], [("zero", ints(0)[0]), ("one", ints(1)[0])])))
    for values in ([1, 0, 0, 2], [5, 1, 2, 0], [0, 0, 3, 0]):
        y, n = module(fastnn.tensor(np.array(values, np.float32)))
        assert y.tolist() == [1, np.count_nonzero(values)] and n.item() == max(values)


def test_copies_and_pickles(loaded):
    import copy
    import pickle
    x = fastnn.tensor(real(2, 1, 6, 6))
    expected = loaded(x).detach().numpy()
    for again in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert np.array_equal(again(x).detach().numpy(), expected)
        with fastnn.no_grad():
            again.get_parameter("conv.weight").mul_(2)
        assert not np.array_equal(again(x).detach().numpy(), expected)
    assert np.array_equal(loaded(x).detach().numpy(), expected)


def test_names_that_modules_cannot_have(tmp_path):
    """Each weight is found though its name is empty between dots, another's beginning, or an attribute of modules."""
    names = ["a.b", "a", "a.b.c", "training", "forward", ".", "x..y", "_modules", "a_b", "inputs.weight", "state_dict", ".".join("d" * 40)]
    nodes = [helper.make_node("Add", [["x", *(f"v{k}" for k in range(len(names)))][k], name], [f"v{k}"]) for k, name in enumerate(names)]
    weights = [(name, np.array([2.0**k], np.float32)) for k, name in enumerate(names)]
    module = load_onnx(save(tmp_path / "m.onnx", model_of(nodes, {"x": real(1)}, [f"v{len(names) - 1}"], weights)))
    assert module(fastnn.zeros(1)).item() == 2.0**len(names) - 1
    assert len(list(module.parameters())) == len(module.state_dict()) == len(names) and module.training is False


@pytest.mark.parametrize("given, kind, message", [
    ((), TypeError, "0 inputs are given, but it takes 1: x"), ((np.zeros((1, 1, 6, 6)),),
    TypeError, "x is a ndarray, but must be a Tensor"),
    ((fastnn.zeros(6, 6),), ValueError, "x has shape .6, 6., but must have 4 axes"),
    ((fastnn.zeros(1, 1, 6, 6, dtype="int64"),), TypeError, "x has dtype int64, but must be float32"),
    ((fastnn.zeros(1, 2, 6, 6),), ValueError, r"m.onnx: node 0 \(Conv\): "), ((fastnn.zeros(1, 1, 5, 6),),
    ValueError, r"m.onnx: node 10 \(Gemm\): ")])
def test_wrong_inputs(loaded, given, kind, message):
    with pytest.raises(kind, match=message):
        loaded(*given)


def test_it_can_be_trained_and_written_again(loaded, tmp_path):
    with fastnn.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(0.1)
    fastnn.io.save_onnx(loaded, tmp_path / "again.onnx", (1, 1, 6, 6))
    x = real(3, 1, 6, 6)
    expected = loaded(fastnn.tensor(x)).detach().numpy()
    np.testing.assert_allclose(computed({"input": x}, tmp_path / "again.onnx")[0], expected, 1e-4, 1e-5)
    assert np.array_equal(load_onnx(tmp_path / "again.onnx")(fastnn.tensor(x)).detach().numpy(), expected)


@pytest.mark.parametrize("opset", [9, 13, 17, 20])
def test_graphs_of_other_opsets_are_written_again(tmp_path, opset):
    """By themselves in their own opset; within other layers where the operators are the same."""
    nodes = [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(real(4))), helper.make_node("Add", ["x", "c"], ["a"]),
             helper.make_node("Softmax", ["a"], ["y"], axis=1)]
    module = load_onnx(save(tmp_path / "m.onnx", model_of(nodes, {"x": X}, ["y"], opset=opset)))
    fastnn.io.save_onnx(module, tmp_path / "again.onnx", (3, 4))
    assert onnx.load(tmp_path / "again.onnx").opset_import[0].version == opset
    np.testing.assert_allclose(computed({"input": X}, tmp_path / "again.onnx")[0], module(fastnn.tensor(X)).numpy(), 1e-5)
    model = fastnn.nn.Sequential(module, fastnn.nn.Linear(4, 2))
    if opset == 9:
        with pytest.raises(ValueError, match="layer '0' .OnnxModel.: it was read from a file of opset 9, whose Softmax is not that of opset 17"):
            fastnn.io.save_onnx(model, tmp_path / "again.onnx", (3, 4))
    else:
        fastnn.io.save_onnx(model, tmp_path / "again.onnx", (3, 4))
        np.testing.assert_allclose(computed({"input": X}, tmp_path / "again.onnx")[0], model(fastnn.tensor(X)).detach().numpy(), 1e-5)


# ---- what is refused ----


def refused(tmp_path, model, message):
    with pytest.raises(ValueError, match=message) as raised:
        load_onnx(save(tmp_path / "m.onnx", model))
    assert "m.onnx" in str(raised.value)


def test_what_is_not_offered(tmp_path):
    refused(tmp_path, Case("Det", real(2, 2)).model(), r"node 'the node' \(Det\): operator is not known; allowed are Abs, .*Xor")
    refused(tmp_path, Case("Relu", X, opset=6).model(), "its opset is 6, but must be 7 to 25")
    refused(tmp_path, Case("Relu", X.astype(np.float16)).model(), "input 'i0' has type float16, but must be a tensor of float32")
    node = helper.make_node("Trick", ["x"], ["y"], domain="com.example")
    model = model_of([node], {"x": X}, ["y"], domains=["com.example"])
    refused(tmp_path, model, r"node 0 \(Trick\): operator of domain 'com.example' is not known")


def test_values_that_are_not_offered(tmp_path):
    def fails(case, message):
        module = load_onnx(save(tmp_path / "m.onnx", case.model()))
        with pytest.raises(ValueError, match=rf"m.onnx: node 'the node' \({case.op}\): {message}"):
            module(fastnn.tensor(np.asarray(case.inputs[0])))

    fails(Case("MaxPool", MAPS, kernel_shape=[2, 2], storage_order=1), "storage_order is 1, but must be 0")
    fails(Case("Resize", MAPS, None, np.ones(4, np.float32), coordinate_transformation_mode="tf_crop_and_resize"),
          "coordinate_transformation_mode is 'tf_crop_and_resize', but must be 'half_pixel' or")
    fails(Case("GRU", real(5, 2, 3), real(1, 12, 3), real(1, 12, 4), hidden_size=4), "linear_before_reset is 0, but must be 1")
    fails(Case("LSTM", real(5, 2, 3), real(1, 16, 3), real(1, 16, 4), hidden_size=4, activations=["Relu", "Tanh", "Tanh"]),
    "activations are")
    fails(Case("LSTM", real(5, 2, 3), real(1, 16, 3), real(1, 16, 4), hidden_size=4, clip=1.0), "clip is 1.0")
    fails(Case("LRN", MAPS, size=2), "size is 2, but must be odd")
    fails(Case("Cast", X, to=10), r"to is type number 10, but must be one of 1 \(float32\)")
    fails(Case("Tile", X, ints(2**50, 2**50)), "the shape .* is asked for")


def test_graphs_within_attributes(tmp_path):
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "inner", [], [helper.make_tensor_value_info("z", 1, [3, 4])])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    model = model_of([node], {"x": X}, ["y"], [("c", np.array(True))])
    refused(tmp_path, model, r"\(If\): operator is not known")


def test_functions_of_a_files_own(tmp_path):
    model = model_of([helper.make_node("Twice", ["x"], ["y"], domain="own")], {"x": X}, ["y"], domains=["own"])
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
                                                [helper.make_opsetid("", 17)]))
    refused(tmp_path, model, "it defines functions of its own; put their nodes into the graph: onnx.inliner.inline_local_functions")
    inlined = pytest.importorskip("onnx.inliner").inline_local_functions(model)
    assert np.array_equal(load_onnx(save(tmp_path / "m.onnx", inlined))(fastnn.tensor(X)).numpy(), X + X)


def external(tmp_path, location):
    """A file whose weight lies in another one."""
    model = Case("Add", X, real(3, 4)).model()
    kept = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(kept, location, 0, 48)
    content = kept.raw_data
    kept.ClearField("raw_data")
    return save(tmp_path / "in" / "m.onnx", model), content


def test_weights_in_files_of_their_own(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for location in ("w.bin", "deep/w.bin"):
        path, content = external(tmp_path, location)
        (tmp_path / "in" / location).write_bytes(content)
        expected = X + np.frombuffer(content, np.float32).reshape(3, 4)
        assert np.array_equal(load_onnx(path)(fastnn.tensor(X)).detach().numpy(), expected)
    (tmp_path / "in" / "w.bin").write_bytes(content[:40])
    with pytest.raises(ValueError, match="m.onnx"):
        load_onnx(external(tmp_path, "w.bin")[0])


def test_weights_outside_the_folder_are_not_read(tmp_path):
    (tmp_path / "in").mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(64))
    (tmp_path / "in" / "link").symlink_to(secret)
    for location in ("../secret", str(secret), "link", "in/../../secret", "/dev/zero", "absent"):
        with pytest.raises(ValueError, match=f"weights are said to lie in {location!r}, but must lie in a file in the folder of the graph"):
            load_onnx(external(tmp_path, location)[0])


def test_constants_in_files_of_their_own_are_not_read(tmp_path, monkeypatch):
    """Neither in the working folder, where onnx would look, nor beside an initializer that may lie in a file."""
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    path, content = external(tmp_path, "w.bin")
    (tmp_path / "in" / "w.bin").write_bytes(content)
    model = onnx.load(path, load_external_data=False)
    constant = numpy_helper.from_array(real(3, 4), "k")
    onnx.external_data_helper.set_external_data(constant, "w.bin", 0, 48)
    constant.ClearField("raw_data")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=constant))
    for kept in ([], list(model.graph.initializer)):
        alone = model_of([helper.make_node("Add", ["x", "x"], ["y"])], {"x": X}, ["y"]) if not kept else model
        if not kept:
            alone.graph.node.insert(0, model.graph.node[0])
        with pytest.raises(ValueError, match=r"\(Constant\): attribute 'value' lies in a file of its own, but only initializers may"):
            load_onnx(save(path, alone))


@pytest.mark.parametrize("content", [b"", b"\x08", b"text", b"\x93NUMPY", b"\x08\x08", bytes(100), b"\xff" * 100])
def test_files_that_are_something_else(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="m.onnx: "):
        load_onnx(path)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(OSError):
            load_onnx(path)


def test_truncated_files(tmp_path):
    content = classifier().SerializeToString()
    path = tmp_path / "m.onnx"
    for size in range(0, len(content), 37):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="m.onnx: "):
            load_onnx(path)(fastnn.zeros(1, 1, 6, 6))


def test_damaged_files_raise_and_do_not_crash(tmp_path):
    """Bytes at random places: what can still be read computes or raises what wrong arguments raise."""
    rng = np.random.default_rng(0)
    contents = [classifier().SerializeToString(), next(recurrent()).model().SerializeToString(),
                Case("Resize", MAPS, None, np.ones(4, np.float32)).model().SerializeToString()]
    path = tmp_path / "m.onnx"
    outcomes = set()
    for _ in range(600):
        content = bytearray(contents[rng.integers(len(contents))])
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            content[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
        path.write_bytes(content)
        try:
            module = load_onnx(path)
            module(*(fastnn.zeros(*(n if isinstance(n, int) and n < 100 else 1 for n in given.shape or ())) for given in module.inputs))
            outcomes.add("ran")
        except (ValueError, TypeError, IndexError, MemoryError) as error:
            outcomes.add(type(error).__name__)
    assert {"ran", "ValueError"} <= outcomes


def test_nodes_out_of_order(tmp_path):
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Relu", ["x"], ["a"])]
    refused(tmp_path, model_of(nodes, {"x": X}, ["y"]), "not a complete ONNX file .*topologically sorted|is made by nothing before it")
