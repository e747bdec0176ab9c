"""The model as a table, and the learning curve as a picture."""

import numpy as np
import pytest

from fastnn import nn
from fastnn.models import lenet5, mlp
from fastnn.plot import gradient_norms, learning_curve
from fastnn.summary import summary
from fastnn.train import History, Trainer


def rows(text):
    """Lines between the rules, split into cells."""
    lines = text.splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("---")]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[rules[0] + 1:rules[1]]]


@pytest.mark.parametrize("wrong", ["x", 4])
def test_input_shape_is_a_sequence(wrong):
    with pytest.raises(TypeError, match=f"summary: input_shape is {wrong!r}, but must be a sequence of integers"):
        summary(nn.Linear(4, 2), wrong)


def test_summary_of_lenet5():
    text = summary(lenet5(image_size=32), (2, 1, 32, 32))
    table = rows(text)
    assert len(table) == 12 and table[0] == ["0", "Conv2d", "(2, 6, 28, 28)", "156"]
    assert table[7] == ["7", "Linear", "(2, 120)", "48,120"] and table[6][1:] == ["Flatten", "(2, 400)", "0"]
    assert text.splitlines()[-1] == "61,706 parameters, 61,706 trainable, 241.0 KiB"
    assert len({len(line) for line in text.splitlines()[:-1]}) == 1  # columns are aligned


def test_summary_without_running():
    assert [row[-1] for row in rows(summary(mlp([784, 16, 16, 10])))] == ["12,560", "0", "272", "0", "170"]


def test_summary_counts_tied_parameters_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    text = summary(model, (1, 4))
    assert [row[-1] for row in rows(text)] == ["20", "4 (tied)"]
    assert "24 parameters" in text


def test_summary_counts_what_trains_and_memory():
    model = mlp([3, 2, 1])
    model[0].requires_grad_(False)
    assert summary(model).splitlines()[-1] == "11 parameters, 3 trainable, 44 bytes"
    assert summary(model.double(), (5, 3), dtype="float64").splitlines()[-1] == "11 parameters, 3 trainable, 88 bytes"


def test_summary_gives_lazy_layers_their_shape_and_changes_nothing_else():
    model = nn.Sequential(nn.Dropout(0.5), nn.LazyLinear(3))
    assert rows(summary(model, (2, 7)))[1] == ["1", "Linear", "(2, 3)", "24"]
    assert all(module.training for module in model.modules()) and not model[0]._hooks
    with pytest.raises(ValueError):
        summary(model, (2, 8))
    assert all(module.training for module in model.modules()) and not model[0]._hooks


def test_trainer_prints_it(capsys):
    Trainer(mlp([3, 2])).summary((1, 3))
    assert "8 parameters" in capsys.readouterr().out


@pytest.fixture
def history():
    pytest.importorskip("matplotlib")
    history = History()
    history.params["higher_is_better"] = ["accuracy"]
    for epoch, (loss, accuracy) in enumerate([(2.0, 0.3), (0.5, 0.8), (np.nan, 0.7)]):
        history.append(epoch,
                       {"loss": loss, "accuracy": accuracy, "val_loss": loss + 0.1, "val_accuracy": accuracy - 0.1,
                               "confusion_matrix": np.eye(2)})
    return history


@pytest.mark.parametrize("suffix, start", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_learning_curve(tmp_path, history, suffix, start):
    path = tmp_path / f"curve.{suffix}"
    learning_curve(history, path, title="a run")
    assert path.read_bytes().startswith(start) and len(list(tmp_path.iterdir())) == 1
    if suffix == "svg":
        import re
        assert len(re.findall(r'id="axes_\d+"', path.read_text())) == 2  # loss and accuracy, not the matrix


def test_learning_curve_refuses(tmp_path, history):
    with pytest.raises(ValueError, match="holds no epochs"):
        learning_curve(History(), tmp_path / "c.png")
    with pytest.raises(OSError, match="nowhere"):
        learning_curve(history, tmp_path / "nowhere" / "c.png")
    for draw in (learning_curve, gradient_norms):
        with pytest.raises(TypeError, match=f"{draw.__name__}: history is a dict, but must be the History that Trainer.fit returns"):
            draw(history.history, tmp_path / "c.png")
    assert not any(tmp_path.iterdir())


def drawn(monkeypatch, draw):
    """The axes of the figure that `draw` saves."""
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: figures.append(figure))
    draw()
    figures[0].draw_without_rendering()  # lays it out
    return figures[0].axes


def test_one_epoch_is_one_tick(monkeypatch, tmp_path, history):
    history.epoch = history.epoch[:1]
    history.history = {name: values[:1] for name, values in history.history.items()}
    for axes in drawn(monkeypatch, lambda: learning_curve(history, tmp_path / "c.png")):
        assert axes.get_xlabel() == "epoch" and axes.get_ylabel() in ("loss", "accuracy")
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_layers_of_a_deep_network_have_a_colour_each_and_a_place_in_the_legend(monkeypatch, tmp_path, history):
    for norms in ("gradient_norms", "update_norms"):
        setattr(history, norms, {f"layer{k}.conv": [1.0 + k, 2.0, 3.0] for k in range(40)})
    axes = drawn(monkeypatch, lambda: gradient_norms(history, tmp_path / "g.png"))
    assert [a.get_ylabel() for a in axes] == ["gradient norm (L2)", "update norm (L2)"]
    assert len({line.get_color() for line in axes[0].lines}) == 40
    legend, figure = axes[1].get_legend().get_window_extent(), axes[1].figure.bbox
    assert legend.height <= figure.height and legend.x1 <= figure.width
    assert all(a.get_window_extent().width > 0.2 * figure.width for a in axes)  # room for the lines themselves


def test_a_run_without_a_finite_number_says_so(monkeypatch, tmp_path, history):
    history.history = {"loss": [np.nan] * 3, "val_loss": [np.inf] * 3}
    (axes,) = drawn(monkeypatch, lambda: learning_curve(history, tmp_path / "c.png"))
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1, 2, 3] and len(axes.get_yticks()) == 0
    assert [text.get_text() for text in axes.texts] == ["no finite number"]


@pytest.mark.parametrize("least, most", [(0.65, 1.7), (0.3, 2.0), (0.9, 1.1), (1e-3, 20.0)])
def test_norms_can_be_read_off(monkeypatch, tmp_path, history, least, most):
    """Over less than a decade too, where matplotlib labelled 1 alone."""
    history.gradient_norms = history.update_norms = {"0": [least, most, least]}
    for axes in drawn(monkeypatch, lambda: gradient_norms(history, tmp_path / "g.png")):
        low, high = axes.get_ylim()
        ticks = [*axes.yaxis.get_major_ticks(), *axes.yaxis.get_minor_ticks()]
        assert len([t for t in ticks if t.label1.get_text() and low <= t.get_loc() <= high]) > 1


def test_what_lazy_layers_will_have_is_not_counted():
    model = nn.Sequential(nn.Linear(3, 4), nn.LazyBatchNorm1d(), nn.LazyLinear(2))
    *rows, total = summary(model).splitlines()
    assert [row.split()[-1] for row in rows[2:5]] == ["16", "lazy", "lazy"]
    assert total == ("16 parameters, 16 trainable, 64 bytes; without those of lazy layers (2), which the first input gives their "
                     "shapes")
    assert summary(model, (1, 3)).splitlines()[-1] == "34 parameters, 34 trainable, 136 bytes"
