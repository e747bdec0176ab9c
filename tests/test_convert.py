"""Files from one format to another: what is kept, what is refused before any file is touched."""

import json
import os

import numpy as np
import pytest

import fastnn
from fastnn import io, models, nn
from fastnn.cli import main

pytest.importorskip("safetensors", reason="needs the extra 'files'")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def network():
    """A model file with statistics that are not at their first values."""
    fastnn.manual_seed(0)
    model = models.resnet20(width=4)
    with fastnn.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.uniform_(-0.5, 0.5)
    io.save_model(model, "model.safetensors")
    return model


def words(*arguments):
    return main(["convert", *arguments])


def test_weights_to_npz_and_back(network, capsys):
    assert words("model.safetensors", "w.npz") == 0
    numbers = sum(t.numel() for t in network.state_dict().values())
    assert capsys.readouterr().out == f"wrote w.npz: weights, {len(network.state_dict())} tensors, {numbers:,} numbers\n"
    loaded = np.load("w.npz", allow_pickle=False)
    state = network.state_dict()
    assert set(loaded.files) == set(state)
    assert all(np.array_equal(loaded[name], state[name].numpy()) and loaded[name].dtype == state[name].numpy().dtype for name in state)
    assert words("w.npz", "again.safetensors", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["holds"] == "weights" and told["tensors"] == len(state) and told["target"] == "again.safetensors"
    assert told["parameters"] == numbers
    again = io.load_model("again.safetensors", models.resnet20(width=4))
    assert all(np.array_equal(again.state_dict()[name].numpy(), state[name].numpy()) for name in state)


def test_names_that_savez_has_no_room_for():
    io.save_file({"file": np.arange(3), "a/b": np.float64(2.5), "layer.0": np.zeros((0, 2), np.float32)}, "w.safetensors")
    io.convert("w.safetensors", "w.npz")
    loaded = np.load("w.npz")
    assert loaded["file"].tolist() == [0, 1, 2] and loaded["a/b"].shape == () and loaded["layer.0"].shape == (0, 2)


def test_model_to_onnx_and_its_weights_back(network, capsys):
    pytest.importorskip("onnx", reason="needs the extra 'onnx'")
    assert words("model.safetensors", "m.onnx") == 0
    assert capsys.readouterr().out.startswith("wrote m.onnx: a model, ")
    assert words("m.onnx", "w.safetensors") == 0 and words("m.onnx", "w.npz") == 0
    again = models.resnet20(width=4)
    missing = io.load_model("w.safetensors", again, strict=False).named_state().keys() - io.load_file("w.safetensors").keys()
    assert missing and all(name.endswith("num_batches_tracked") for name in missing)  # which ONNX has no place for
    x = fastnn.tensor(np.random.default_rng(0).standard_normal((2, 3, 16, 16), dtype=np.float32))
    assert np.array_equal(again.eval()(x).detach().numpy(), network.eval()(x).detach().numpy())
    assert set(np.load("w.npz").files) == set(io.load_file("w.safetensors"))


def test_predict_and_inspect_take_onnx(network, capsys):
    pytest.importorskip("onnx", reason="needs the extra 'onnx'")
    io.convert("model.safetensors", "m.onnx")
    np.save("x.npy", np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8))
    assert main(["predict", "model.safetensors", "x.npy"]) == 0
    expected = capsys.readouterr().out
    assert main(["predict", "m.onnx", "x.npy"]) == 0 and capsys.readouterr().out == expected
    assert main(["inspect", "m.onnx", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "onnx" and told["metadata"]["opset"] == {"ai.onnx": 17} and told["metadata"]["not_offered"] == []
    assert told["metadata"]["inputs"] == {"input": "float (batch, 3, 32, 32)"} and told["metadata"]["operators"]["Conv"] == 21
    assert json.loads(told["metadata"]["fastnn.architecture"]) == network.architecture
    assert [tensor["name"] for tensor in told["tensors"]][:2] == ["bn1.bias", "bn1.running_mean"]
    np.save("x.npy", np.zeros((3, 5), np.float32))
    assert main(["predict", "m.onnx", "x.npy"]) == 1 and "must have 4 axes" in capsys.readouterr().err


def test_networks_of_rows(capsys):
    pytest.importorskip("onnx", reason="needs the extra 'onnx'")
    io.save_model(models.mlp((12, 3)), "mlp.safetensors")
    assert words("mlp.safetensors", "mlp.onnx") == 0
    np.save("x.npy", np.random.default_rng(0).random((5, 4, 3), dtype=np.float32))
    capsys.readouterr()
    assert main(["predict", "mlp.safetensors", "x.npy"]) == main(["predict", "mlp.onnx", "x.npy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and lines[:5] == lines[5:]


@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_takes_its_input_shape(name):
    config = {"width": 16} if name in ("resnet18", "resnet50", "resnext50_32x4d", "vgg16") else {}
    model = models.build(name, **config).eval()
    with fastnn.no_grad():
        assert model(fastnn.zeros(*models.input_shape(model.architecture))).shape[0] == 1


def test_nothing_is_overwritten_without_force(network, capsys):
    with open("w.npz", "w") as file:
        file.write("precious")
    assert words("model.safetensors", "w.npz") == 1
    assert capsys.readouterr().err == "fastnn: error: w.npz exists; use --force to overwrite it, or another name\n"
    with open("w.npz") as file:
        assert file.read() == "precious"
    assert words("model.safetensors", "w.npz", "--force") == 0 and np.load("w.npz").files


@pytest.mark.parametrize("arguments, status, message", [
    (["model.safetensors"], 2, "required: OUT"),
    (["model.safetensors", "w.pt"], 1, "there is no way from model.safetensors to w.pt"),
    (["model.safetensors", "other.safetensors"], 1, ".safetensors to .onnx or .npz"),
    (["w.npz", "m.onnx"], 1, "there is no way from w.npz to m.onnx"),
    (["absent.safetensors", "w.npz"], 1, "absent.safetensors"),
    (["model.safetensors", "m.onnx", "--input-shape", "3,0"], 2, "'3,0' is no shape"),
    (["model.safetensors", "m.onnx", "--input-shape", "3x4"], 2, "'3x4' is no shape"),
    (["model.safetensors", "m.onnx", "--input-shape", "1,5,32,32"], 1, "5"),
    (["model.safetensors", "w.npz", "--input-shape", "1,3,32,32"], 1, "only a model that becomes .onnx"),
    (["plain.safetensors", "m.onnx"], 1, "does not say which of fastnn.models it holds"),
    (["state.safetensors", "w.npz"], 1, "is state of a kind that .npz cannot hold"),
])
def test_errors(network, capsys, arguments, status, message):
    if any(word.endswith(".onnx") for word in arguments):
        pytest.importorskip("onnx", reason="needs the extra 'onnx'")
    io.save_file({"a": np.zeros(2)}, "plain.safetensors")
    io.save_file({"a": np.zeros(2), "_extra_state": {"steps": 3}}, "state.safetensors")
    before = sorted(os.listdir())
    assert words(*arguments) == status
    out, err = capsys.readouterr()
    assert message in err and "Traceback" not in err and out == ""
    assert sorted(os.listdir()) == before


def test_pickles_are_refused(capsys):
    np.savez("objects.npz", a=np.array([{"a": 1}], object))
    assert words("objects.npz", "w.safetensors") == 1
    assert "objects.npz: not a complete .npz file of numbers" in capsys.readouterr().err and not os.path.exists("w.safetensors")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", b"\x93NUMPY\x01\x00"])
def test_broken_npz(capsys, content):
    with open("w.npz", "wb") as file:
        file.write(content)
    assert words("w.npz", "w.safetensors") == 1
    assert capsys.readouterr().err.startswith("fastnn: error: w.npz: not a complete .npz file")


def test_truncated_npz(network, capsys):
    io.convert("model.safetensors", "w.npz")
    with open("w.npz", "rb") as file:
        content = file.read()
    for size in range(0, len(content), len(content) // 20):
        with open("w.npz", "wb") as file:
            file.write(content[:size])
        with pytest.raises(ValueError, match="not a complete .npz"):
            io.convert("w.npz", "w.safetensors")
    assert not os.path.exists("w.safetensors")


def test_without_onnx_it_is_said_before_any_work(network, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    for arguments in (["model.safetensors", "m.onnx"], ["m.onnx", "w.npz"]):
        assert words(*arguments) == 1
        assert "pip install 'fastnn[onnx]'" in capsys.readouterr().err
    for call in (lambda: io.save_onnx(network, "m.onnx", (1, 3, 32, 32)), lambda: io.load_onnx("m.onnx")):
        with pytest.raises(ImportError, match=r"needs the package 'onnx'.*pip install 'fastnn\[onnx\]'"):
            call()
