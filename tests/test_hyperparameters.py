"""Every constructor's arguments, each with what it cannot take: the error names the argument."""

import inspect
import math

import pytest

import fastnn
from fastnn import nn, optim
from fastnn.optim import lr_scheduler

# What constructors need, by the argument's name.
NEEDED = {
    "in_features": 4, "out_features": 4, "in1_features": 4, "in2_features": 3, "in_channels": 4, "out_channels": 4,
    "kernel_size": 2, "num_features": 4, "num_channels": 4, "num_groups": 2, "normalized_shape": 4, "num_embeddings": 5,
    "embedding_dim": 4, "input_size": 4, "hidden_size": 4, "embed_dim": 8, "d_model": 8, "nhead": 2, "num_heads": 2,
    "num_layers": 1, "size": 3, "output_size": 2, "padding": 1, "threshold": 0.5, "value": 0.25, "pieces": 2, "dim": 1,
    "groups": 2, "unflattened_size": (2, 2), "name": "relu", "scale_factor": 2, "lr": 0.1, "step_size": 2,
    "milestones": [2, 4], "gamma": 0.5, "lr_lambda": lambda step: 1.0, "T_max": 5, "T_0": 5, "max_lr": 0.1,
    "upscale_factor": 2, "downscale_factor": 2, "norm_type": 2.0, "base_lr": 0.01, "swa_lr": 0.1,
    "n_classes": 10, "cutoffs": [3, 6], "num_classes": 10,
}
MODULES = {"module": lambda: nn.Linear(3, 3), "encoder_layer": lambda: nn.TransformerEncoderLayer(8, 2, 8),
           "decoder_layer": lambda: nn.TransformerDecoderLayer(8, 2, 8)}
# A size or a factor (a share); a number of steps or two; what leaves clusters features.
ONE_OF_TWO = {**dict.fromkeys(("Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"), {"scale_factor": 1.5}),
              "lr_scheduler.OneCycleLR": {"total_steps": 10}, "FractionalMaxPool2d": {"output_ratio": 0.5},
              "AdaptiveLogSoftmaxWithLoss": {"div_value": 2.0},
              "Transformer": {"d_model": 8, "nhead": 2, "num_encoder_layers": 1, "num_decoder_layers": 1, "dim_feedforward": 8}}
WRONG = [-1, 0, -0.5, 1e300, math.nan, math.inf, "no such", None, True, 10**30, (1, 2, 3, 4, 5, 6, 7), object()]


def layers():
    return {name: kind for name, kind in vars(nn).items()
            if inspect.isclass(kind) and issubclass(kind, nn.Module) and kind is not nn.Module}


def with_parameters(kind):
    return lambda **options: kind([nn.Parameter(fastnn.zeros(3, 3))], **options)


def on_optimizer(kind):
    return lambda **options: kind(optim.SGD([nn.Parameter(fastnn.zeros(3))], lr=0.1), **options)


MAKERS = {name: (kind, kind) for name, kind in layers().items()}
MAKERS |= {f"optim.{name}": (kind, with_parameters(kind)) for name, kind in vars(optim).items()
           if inspect.isclass(kind) and issubclass(kind, optim.Optimizer) and kind is not optim.Optimizer}
MAKERS |= {f"lr_scheduler.{name}": (kind, on_optimizer(kind)) for name, kind in vars(lr_scheduler).items()
           if inspect.isclass(kind) and issubclass(kind, lr_scheduler.LRScheduler)
           and name not in ("LRScheduler", "RelativeLR") and not issubclass(kind, lr_scheduler._Schedules)}  # of those: elsewhere
MAKERS["swa_utils.SWALR"] = (optim.swa_utils.SWALR, on_optimizer(optim.swa_utils.SWALR))


def arguments_of(name, kind):
    """The constructor's parameters that are asked here, and values for those it needs."""
    asked = {p: v for p, v in inspect.signature(kind).parameters.items()
             if v.kind not in (v.VAR_POSITIONAL, v.VAR_KEYWORD) and p not in ("params", "optimizer")}
    needed = [p for p, v in asked.items() if v.default is v.empty]
    given = {p: MODULES[p]() if p in MODULES else NEEDED[p] for p in needed}
    return asked, given | ONE_OF_TWO.get(name, {})


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("name", MAKERS)
def test_wrong_values_are_refused_by_name(name):
    kind, make = MAKERS[name]
    asked, needed = arguments_of(name, kind)
    make(**needed)
    for argument, parameter in asked.items():
        usual = needed.get(argument, parameter.default)
        if isinstance(usual, bool) or argument in MODULES:
            continue
        is_number = isinstance(usual, (int, float)) or "int" in str(parameter.annotation)
        for value in WRONG:
            try:
                make(**{**needed, **{p: MODULES[p]() for p in needed if p in MODULES}, argument: value})
            except (ValueError, TypeError) as error:
                assert argument in str(error), f"{name}({argument}={value!r}): {error}"
            else:
                assert type(value) is not object, f"{name} takes any object as {argument}"
                assert not (is_number and isinstance(value, (str, bool))), f"{name} takes {argument}={value!r}"
                assert not (is_number and value is not None and value != value), f"{name} takes {argument}=nan"
                assert not (isinstance(usual, int) and value == 10**30), f"{name} takes {argument}=10**30"
                assert not (isinstance(usual, str) and value == "no such"), f"{name} takes {argument}={value!r}"
