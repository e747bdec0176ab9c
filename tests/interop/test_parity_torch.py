"""Every name and every argument of PyTorch's that a layer, function, optimiser or tensor has is here too, or is listed with the
reason why not. A name that is neither present nor listed fails, and so does a list that has gone stale."""

import enum
import inspect
import re
import types
import warnings

import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn, optim
from fastnn.nn import utils

torch = pytest.importorskip("torch")
import torch.nn.utils.parametrizations  # noqa: E402
import torch.nn.utils.parametrize  # noqa: E402
import torch.nn.utils.prune  # noqa: E402
import torch.optim.swa_utils  # noqa: E402

PAIRS = {
    "nn": (torch.nn, nn), "functional": (torch.nn.functional, F), "optim": (torch.optim, optim),
    "lr_scheduler": (torch.optim.lr_scheduler, optim.lr_scheduler), "swa_utils": (torch.optim.swa_utils, optim.swa_utils),
    "init": (torch.nn.init, nn.init), "utils": (torch.nn.utils, utils), "rnn": (torch.nn.utils.rnn, utils.rnn),
    "prune": (torch.nn.utils.prune, utils.prune),
    "parametrize": (torch.nn.utils.parametrize, utils.parametrize), "parametrizations": (torch.nn.utils.parametrizations,
                                                                                         utils.parametrizations),
    "Module": (torch.nn.Module, nn.Module), "Tensor": (torch.Tensor, fastnn.Tensor)}

# Names that are knowingly absent, as patterns, by reason.
ABSENT = {
    "three dimensions, which are not offered": r".*3d(_with_indices|_weight_memory_format)?",
    "PyTorch's own machinery, not meant for users": (
        r"assert_int_or_pair|boolean_dispatch|(has|handle)_torch_function.*|factory_kwargs|Uninitialized\w+|skip_init|"
        r"PackedSequence_|bind|"
        r"copy_method_params|swap_in_optimizer_params_and_state|type_before_parametrizations|transfer_parametrizations_and_params|"
        r"get_swap_module_params_on_conversion|is_opaque_reference_type|is_traceable_wrapper_subclass|OpaqueBase|cached|"
        r"RNN(Cell)?Base|"
        r"invert_permutation|is_inference|as_subclass|module_load|hash_tensor|dim_order|const_data_ptr|nonzero_static|"
        r"unsafe_\w+|slice_inverse|index|"
        r"reinforce|record_stream|new_empty_strided|native_channel_shuffle|swap_tensors|conv_tbc|grouped_mm|"
        r"scaled_(grouped_)?mm|ScalingType|SwizzleType"),
    "how a loss is cut into parts to save memory: its logits are made whole": r"LinearCrossEntropyOptions",
    "ways of pruning as classes: functions and masks say them": (
        r"BasePruningMethod|CustomFromMask|Identity|LnStructured|PruningContainer|RandomStructured"),
    "deprecated by PyTorch": (
        r"Container|NLLLoss2d|upsample(_bilinear|_nearest)?|clip_grad_norm|(constant|dirac|eye|kaiming_\w+|normal|orthogonal|"
        r"sparse|uniform|"
        r"xavier_\w+)(?<!_)|register_backward_hook|eig|symeig|lstsq|qr|solve|lu|svd|cholesky\w*|triangular_solve|geqrf|"
        r"or[gm]qr|lu_solve|"
        r"new|storage\w*|untyped_storage|resize(_as)?_?|ger|volatile"),
    "what return_indices=True gives": r"(adaptive_|fractional_)?max_pool[12]d_with_indices",
    "inplace=True or the tensor's own method do that": r"(celu|elu|hardtanh|leaky_relu|relu|rrelu|selu|threshold)_",
    "other devices, processes and memory": (
        r"DataParallel|SyncBatchNorm|ipu|mtia|xpu|share_memory_?|to_empty|pin_memory|is_pinned|is_shared|is_distributed|to_mkldnn|"
        r"convert_conv2d_weight_memory_format"),
    "sparse tensors, which are not offered": (
        r"SparseAdam|to_sparse\w*|sparse_\w+|ccol_indices|crow_indices|(col|row)_indices|coalesce|is_coalesced|indices|"
        r"values|dense_dim|"
        r"to_dense|smm|sspaddmm|resize_as_sparse_|to_padded_tensor"),
    "complex numbers, which are not offered": (
        r"angle|conj\w*|resolve_(conj|neg)|is_(complex|conj|neg)|isreal|real|imag|cdouble|cfloat|chalf|adjoint|i?stft"),
    "quantised numbers and types beyond the six": r"dequantize|q_\w+|qscheme|int_repr|char|short",
    "linear algebra and number theory, which are not offered": (
        r"orthogonal|cross|det|inverse|pinverse|logdet|slogdet|matrix_(exp|power)|gcd_?|lcm_?|renorm_?|"
        r"addbmm_?|addr_?|addmv_|"
        r"baddbmm_"),
    "special functions that training does not meet": (
        r"erfc_|i0_?|igammac?_?|mvlgamma_?|polygamma_?|frexp|ldexp_?|nextafter_?|heaviside_?|"
        r"sinc_?|signbit|"
        r"logaddexp2|bitwise_(left|right)_shift_?|float_power_"),
    "statistics that training does not meet": r"histogram\w*|mode|nanquantile|cauchy_|geometric_|log_normal_|random_",
    "views changed in place: an assignment of the view does that": (
        r"(as_strided|set)_"),
    "comparisons written into a tensor's own memory": r"(eq|ge|greater|greater_equal|gt|le|less|less_equal|lt|ne|not_equal)_",
    "x[key] and x[key] = value do that": (
        r"(as_strided|diagonal|select|slice)_scatter|put_?|take|index_put|index_reduce_?"),
    "short ways of writing others": r"[dhv]split|split_with_sizes|sum_to_size|vdot|hardshrink|prelu|is_set_to|retains_grad",
    "functions of Python applied element by element": r"(apply|map2?)_",
}

# Arguments that are knowingly absent: pattern of names (area.name), arguments, reason.
ARGUMENTS = [
    (r".*", {"size_average", "reduce"}, "deprecated: reduction says it"),
    (r".*", {"foreach", "fused", "capturable", "differentiable"}, "all updates are one launch, and captured; no derivatives "
                                                                  "of updates"),
    (r".*", {"sparse"}, "sparse gradients are not offered"),
    (r".*", {"out", "_stacklevel", "_weight", "_freeze"}, "PyTorch's own machinery"),
    (r"swa_utils\..*", {"device"}, "there is one device"),
    (r"nn\.Hardtanh", {"min_value", "max_value"}, "deprecated: min_val and max_val"),
    (r"nn\.TransformerEncoder", {"enable_nested_tensor", "mask_check"}, "nested tensors are not offered"),
    (r"(functional\.linear_cross_entropy|nn\.LinearCrossEntropyLoss)", {"options"}, "logits are made whole"),
    (r"functional\.gumbel_softmax", {"eps"}, "deprecated"),
    (r"parametrize\.ParametrizationList", {"unsafe"}, "register_parametrization checks what it is given"),
    (r"Tensor\.split", {"split_size"}, "split_size_or_sections, as the function's"),
    (r"prune\.(L1|Random)Unstructured", {"amount"}, "global_unstructured takes it"),
    (r"Tensor\.norm", {"dtype"}, "convert the tensor first"),
]


def is_public(area, theirs, name):
    """Whether it is a function, class or method of this part of PyTorch, not one that it imports from elsewhere."""
    if name.startswith("_"):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = getattr(theirs, name)
    if isinstance(value, (types.ModuleType, enum.EnumMeta)) or not callable(value) or value in (torch.Tensor, torch.dtype):
        return False
    home = getattr(value, "__module__", None) or "torch"
    return inspect.isclass(theirs) or home.startswith("torch" if area == "functional" else theirs.__name__)


NAMES = [(area, name) for area, (theirs, _) in PAIRS.items() for name in dir(theirs) if is_public(area, theirs, name)]


def reason_for(name):
    return next((reason for reason, pattern in ABSENT.items() if re.fullmatch(pattern, name)), None)


@pytest.mark.parametrize("area", PAIRS)
def test_names(area):
    left = [name for where, name in NAMES if where == area and not hasattr(PAIRS[area][1], name) and reason_for(name) is None]
    assert not left, f"neither present nor listed as absent: {left}"


def test_the_lists_are_not_stale():
    missing = {name for area, name in NAMES if not hasattr(PAIRS[area][1], name)}
    for reason, pattern in ABSENT.items():
        assert any(re.fullmatch(pattern, name) for name in missing), f"nothing is absent for this reason: {reason}"
    for pattern, arguments, reason in ARGUMENTS:
        found = {argument for area, name in NAMES for argument in lacking(area, name) if re.fullmatch(pattern, f"{area}.{name}")}
        assert arguments <= found, f"{pattern} has {sorted(arguments - found)} after all, or PyTorch no longer does: {reason}"
    for pattern, argument, reason in DEFAULTS:
        assert any(argument in other_defaults(area, name) for area, name in NAMES if re.fullmatch(pattern, f"{area}.{name}")), \
            f"{argument} of {pattern} is PyTorch's after all: {reason}"
    present = {name for area, name in NAMES if hasattr(PAIRS[area][1], name)} - missing
    for name in present:
        assert reason_for(name) is None, f"{name} is listed as absent ({reason_for(name)}), but is there"


def signatures(area, name):
    """Both signatures, or None where PyTorch's is written in C or ours takes anything."""
    theirs, ours = (getattr(library, name, None) for library in PAIRS[area])
    if theirs is None or ours is None:
        return None
    try:
        pair = [inspect.signature(value.__init__ if inspect.isclass(value) else value) for value in (theirs, ours)]
    except (ValueError, TypeError):
        return None
    kinds = {p.kind for p in pair[1].parameters.values()}
    return None if {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds else pair


def named(signature):
    """Its arguments, without self, *args and **kwargs."""
    return [p for p in signature.parameters.values() if p.name not in ("self", "args", "kwargs") and p.kind not in (2, 4)]


def lacking(area, name):
    """Arguments that PyTorch's has and ours does not."""
    pair = signatures(area, name)
    if pair is None:
        return []
    theirs, ours = (named(signature) for signature in pair)
    known = {p.name for p in ours}
    return [p.name for p in theirs if p.name not in known]


@pytest.mark.parametrize("area", PAIRS)
def test_arguments(area):
    left = {}
    for where, name in NAMES:
        listed = set().union(*(arguments for pattern, arguments, _ in ARGUMENTS if re.fullmatch(pattern, f"{area}.{name}")))
        missing = [argument for argument in lacking(area, name) if argument not in listed] if where == area else []
        if missing:
            left[name] = missing
    assert not left, f"arguments neither present nor listed as absent: {left}"


@pytest.mark.parametrize("area", PAIRS)
def test_positions(area):
    """Arguments that may be given by position stand in PyTorch's order."""
    wrong = {}
    for where, name in NAMES:
        pair = signatures(area, name) if where == area else None
        if pair is None:
            continue
        theirs, ours = ([p.name for p in named(signature) if p.kind is not inspect.Parameter.KEYWORD_ONLY] for signature in pair)
        common = [n for n in theirs if n in ours], [n for n in ours if n in theirs]
        if common[0] != common[1]:
            wrong[name] = common
    assert not wrong, wrong


# Defaults that differ: pattern of names (area.name), argument, reason.
DEFAULTS = [
    (r"nn\.(LogSoftmax|Softmax|Softmin)|functional\.(log_softmax|softmax|softmin)", "dim",
     "the last axis, where PyTorch guesses and warns"),
    (r"functional\.(feature_)?alpha_dropout", "training", "functions of random things are called to be random"),
    (r"functional\.(affine_grid|grid_sample)", "align_corners", "what PyTorch's None means, and warns of"),
    (r"rnn\.pack_padded_sequence", "enforce_sorted", "lengths are not read"),
    (r"nn\.ModuleList", "modules", "nothing"), (r"nn\.ParameterList", "values", "nothing"),
    (r"Tensor\.norm", "p", "2, PyTorch's 'fro'"), (r"Tensor\.backward", "retain_graph", "False, PyTorch's None"),
    (r"functional\.pad", "value", "0, pad's None"),
    (r"nn\.Transformer(|EncoderLayer|DecoderLayer)", "activation", "each library's own relu")]


def other_defaults(area, name):
    """Arguments whose default is not PyTorch's, with both."""
    pair = signatures(area, name)
    ours = {p.name: p.default for p in named(pair[1])} if pair else {}
    return {p.name: (p.default, ours[p.name]) for p in (named(pair[0]) if pair else ())
            if p.default is not inspect.Parameter.empty and p.name in ours and ours[p.name] != p.default}


@pytest.mark.parametrize("area", PAIRS)
def test_defaults(area):
    wrong = [(name, argument, both) for where, name in NAMES if where == area
             for argument, both in other_defaults(area, name).items()
             if not any(argument == listed and re.fullmatch(pattern, f"{area}.{name}") for pattern, listed, _ in DEFAULTS)]
    assert not wrong, wrong
