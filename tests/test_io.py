"""Weights in files: round trips, mismatches, damaged files, a full disk."""

import errno
import os
import stat
import subprocess
import sys

import numpy as np
import pytest

import fastnn
from fastnn import io, nn
from fastnn.io.describe import table
from fastnn.models import lenet5, mlp

safetensors = pytest.importorskip("safetensors")


def values(model):
    return {name: np.array(value) for name, value in model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_tensors_and_metadata_come_back(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "matrix": rng.normal(size=(3, 4)).astype(np.float32), "wide": rng.normal(size=5),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32), "labels": np.arange(4), "bytes": np.arange(3, dtype=np.uint8),
        "mask": np.array([True, False]), "turned": rng.normal(size=(3, 4)).T, "tensor": fastnn.tensor([[1.0, 2.0]]),
        "channels last": np.moveaxis(rng.normal(size=(2, 4, 5, 3)), 3, 1),
    }
    path = tmp_path / "t.safetensors"
    io.save_file(tensors, path, metadata={"note": "été", "list": [1, 2.5, None]})
    assert_same(io.load_file(path), {name: np.asarray(value) for name, value in tensors.items()})
    assert io.read_metadata(path)["note"] == "été" and io.read_metadata(path)["list"] == [1, 2.5, None]


def test_other_programs_read_it(tmp_path):
    path = tmp_path / "t.safetensors"
    io.save_file({"w": np.eye(2, dtype=np.float32)}, path)
    from safetensors.numpy import load_file
    np.testing.assert_array_equal(load_file(path)["w"], np.eye(2))


def test_foreign_metadata_is_kept(tmp_path):
    from safetensors.numpy import save_file
    save_file({"w": np.ones(2)}, tmp_path / "foreign", metadata={"format": "pt", "author": "x"})
    assert io.read_metadata(tmp_path / "foreign") == {"format": "pt", "author": "x"}


@pytest.mark.parametrize("build", [lambda: lenet5(image_size=32), lambda: mlp([7, 5, 3])])
def test_model_is_rebuilt_from_its_file(tmp_path, build):
    model = build()
    path = tmp_path / "m.safetensors"
    io.save_model(model, path, metadata={"training": {"epochs": 3}})
    assert_same(values(io.load_model(path)), values(model))
    other = build()
    assert io.load_model(path, other) is other
    assert_same(values(other), values(model))
    metadata = io.read_metadata(path)
    assert metadata["version"] == fastnn.__version__ and metadata["training"] == {"epochs": 3}
    assert metadata["architecture"] == model.architecture


def tied(value=None):
    """Two layers with one weight."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    if value is not None:
        nn.init.constant_(model[0].weight, value)
    return model


@pytest.mark.parametrize("save", [
    io.save_model, lambda model, path: io.save_checkpoint(path, model), lambda model, path: io.save_file(model.state_dict(), path),
    lambda model, path: io.save_file({name: value.numpy() for name, value in model.state_dict().items()}, path)])
def test_tied_parameters_are_stored_once(tmp_path, save):
    model, path = tied(), tmp_path / "tied"
    save(model, path)
    from safetensors.numpy import load_file
    (kept,) = [name for name in load_file(path) if "weight" in name]
    assert kept.endswith("0.weight")
    first, second = [array for name, array in io.load_file(path).items() if "weight" in name]
    assert first is second
    found, alias = io.describe(path), kept.replace("0", "1")
    assert found["tied"] == {alias: kept} and alias not in found["metadata"] and f"tied to {kept}" in table(found)


def test_tied_parameters_stay_tied(tmp_path):
    io.save_model(tied(3.0), tmp_path / "tied")
    other = tied()
    io.load_model(tmp_path / "tied", other)
    assert other[1].weight is other[0].weight and other[0].weight.detach().numpy().min() == 3
    loose = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))  # each has its copy then
    io.load_model(tmp_path / "tied", loose)
    assert_same(values(loose), values(other))
    loose[0].weight.detach().zero_()
    assert loose[1].weight.detach().numpy().min() == 3
    io.save_model(loose, tmp_path / "loose")
    assert not io.describe(tmp_path / "loose")["tied"]


def test_a_tied_parameter_may_be_there_under_any_one_name(tmp_path):
    state = values(tied(2.0))
    for name in ("0.weight", "1.weight"):
        io.save_file({key: value for key, value in state.items() if key != name}, tmp_path / "one")
        model = tied()
        io.load_model(tmp_path / "one", model)
        assert model[1].weight.detach().numpy().max() == 2
    io.save_file({key: value for key, value in state.items() if "weight" not in key}, tmp_path / "none")
    with pytest.raises(ValueError, match=r"Missing key\(s\) in state_dict: '0.weight'\."):
        io.load_model(tmp_path / "none", tied())


def test_what_shares_only_part_of_its_memory_is_stored_by_itself(tmp_path):
    x = np.arange(12.0).reshape(3, 4)
    tensors = {"all": x, "rows": x[:2], "turned": x.T, "square": x[:, :3], "square turned": x[:, :3].T, "none": x[:0],
               "nothing": x[:0], "bits": x.view(np.int64), "again": x, "format": x}
    io.save_file(tensors, tmp_path / "parts")
    assert_same(io.load_file(tmp_path / "parts"), tensors)
    assert io.describe(tmp_path / "parts")["tied"] == {"again": "all"}


class Counting(nn.Module):
    """Has state of many kinds beside its parameters."""

    def __init__(self, extra=None):
        super().__init__()
        self.part, self.extra = nn.Linear(2, 2), extra

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


EXTRA = {"count": 7, "scale": fastnn.tensor([1.0, 2.0]), 3: (True, None, ["a", 2.5]), "places": np.arange(3),
         "raw": (b"\0\xff", b""), "number": np.float32(0.5), "nested": {"scale": fastnn.tensor(4, dtype=fastnn.int64)}}


def assert_same_extra(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        a, b = list(a.values()), list(b.values())
    if isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for pair in zip(a, b):
            assert_same_extra(*pair)
    elif hasattr(a, "dtype"):
        assert a.dtype == b.dtype and a.shape == b.shape and (np.asarray(a) == np.asarray(b)).all()
    else:
        assert a == b


@pytest.mark.parametrize("extra", [EXTRA, 7, fastnn.tensor([1.5]), [fastnn.zeros(0)], None])
def test_extra_state_comes_back(tmp_path, extra):
    model, path = nn.Sequential(nn.Linear(2, 2), Counting(extra)), tmp_path / "extra"
    io.save_model(model, path, metadata={"note": 1})
    fresh = nn.Sequential(nn.Linear(2, 2), Counting("nothing"))
    io.load_model(path, fresh)
    assert_same_extra(fresh[1].extra, extra)
    assert_same(*({name: value for name, value in values(m).items() if "extra" not in name} for m in (fresh, model)))
    assert io.read_metadata(path)["note"] == 1 and io.describe(path)["metadata"].keys() == {"note", "version", "architecture",
                                                                                           "format"}
    io.save_file(Counting(extra).state_dict(), path)
    assert_same_extra(io.load_file(path)["_extra_state"], extra)


def test_extra_state_that_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match="'_extra_state.0.f' is a builtin_function_or_method, but extra state must be made of"):
        io.save_file(Counting([{"f": print}]).state_dict(), tmp_path / "x")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("entry", ['{"_extra_state": {"tensor": "absent"}}', '{"_extra_state": {"call": "w"}}', '[1]',
                                   '{"_extra_state": {}}', '{"_extra_state": {"dict": 3}}', '{"_extra_state": {"tensor": []}}'])
def test_damaged_extra_state_is_refused(tmp_path, entry):
    from safetensors.numpy import save_file
    save_file({"w": np.ones(2)}, tmp_path / "odd", metadata={"fastnn.extra_state": entry})
    with pytest.raises(ValueError, match="odd: the metadata entry 'fastnn.extra_state' is not"):
        io.load_file(tmp_path / "odd")


@pytest.mark.parametrize("change, message", [
    (lambda t: t.pop("2.bias"), r"Missing.*2\.bias"),
    (lambda t: t.update(extra=np.ones(1)), "extra"),
    (lambda t: t.update({"0.weight": np.zeros((5, 6), np.float32), "2.bias": np.zeros(4, np.float32)}),
     r"\(5, 6\).*\(4,\)"),
    (lambda t: t.update({"0.weight": t["0.weight"].astype(float)}),
     "0.weight is float64 in the file, float32 in the model"),
])
def test_a_file_that_does_not_fit_changes_nothing(tmp_path, change, message):
    tensors = values(mlp([7, 5, 3]))
    change(tensors)
    path = tmp_path / "odd.safetensors"
    io.save_file(tensors, path)
    model = mlp([7, 5, 3])
    before = values(model)
    with pytest.raises(ValueError, match=message) as caught:
        io.load_model(path, model)
    assert str(path) in str(caught.value)
    assert_same(values(model), before)


def test_not_strict(tmp_path):
    tensors = values(mlp([7, 5, 3]))
    del tensors["2.bias"]
    io.save_file({**tensors, "extra": np.ones(1)}, tmp_path / "part")
    model = mlp([7, 5, 3])
    bias = np.array(model[2].bias)
    io.load_model(tmp_path / "part", model, strict=False)
    np.testing.assert_array_equal(model[0].weight, tensors["0.weight"])
    np.testing.assert_array_equal(model[2].bias, bias)


def test_only_known_architectures_are_built(tmp_path):
    io.save_file({}, tmp_path / "none")
    with pytest.raises(ValueError, match="does not say which"):
        io.load_model(tmp_path / "none")
    io.save_file({}, tmp_path / "evil", metadata={"architecture": {"name": "os.system", "config": {}}})
    with pytest.raises(ValueError, match="name is 'os.system', but must be one of"):
        io.load_model(tmp_path / "evil")


@pytest.mark.parametrize("architecture, message", [
    ({"name": []}, "does not say which"), ({"name": "mlp", "config": [1]}, "architecture in the file cannot be built"),
    ({"name": "mlp", "config": {"bogus": 1}}, "architecture in the file cannot be built: .*bogus")])
def test_an_architecture_that_says_nothing_is_refused(tmp_path, architecture, message):
    io.save_file({}, tmp_path / "odd", metadata={"architecture": architecture})
    with pytest.raises(ValueError, match=f"odd: .*{message}"):
        io.load_model(tmp_path / "odd")


def test_metadata_that_is_nested_too_deep_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({}, tmp_path / "deep", metadata={"fastnn": "[" * 100_000})
    with pytest.raises(ValueError, match="deep: not a complete safetensors file"):
        io.load_model(tmp_path / "deep")


def test_users_may_name_their_metadata_checkpoint(tmp_path):
    model = nn.Linear(3, 2)
    io.save_model(model, tmp_path / "m", {"checkpoint": 3})
    io.load_model(tmp_path / "m", model)
    assert io.read_metadata(tmp_path / "m")["checkpoint"] == 3


@pytest.mark.parametrize("damage", ["empty", "cut header", "cut data", "huge header", "pickle", "text", "zip"])
def test_damaged_files_are_refused(tmp_path, damage):
    path = tmp_path / "m.safetensors"
    io.save_model(mlp([7, 5, 3]), path)
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "cut header": data[:40], "cut data": data[:-4],
                      "huge header": b"\xff" * 7 + b"\x7f" + data[8:],
                      "pickle": b"\x80\x04cos\nsystem\n(S'false'\ntR.",
                      "zip": b"PK\x03\x04" + data,
                      "text": b"hello world, this is no model"}[damage])
    with pytest.raises(ValueError, match="not a complete safetensors file") as caught:
        io.load_file(path)
    assert str(path) in str(caught.value) and ("as torch.save writes" in str(caught.value)) == (damage == "zip")


def test_missing_paths_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.safetensors"):
        io.load_file(tmp_path / "absent.safetensors")
    with pytest.raises(FileNotFoundError, match="no_folder") as caught:
        io.save_model(mlp([2, 2]), tmp_path / "no_folder" / "m.safetensors")
    assert str(tmp_path / "no_folder" / "m.safetensors") in str(caught.value)


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match="'names' has dtype"):
        io.save_file({"names": np.array(["a"])}, tmp_path / "x")
    if np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(TypeError, match="'long' has dtype float128, expected numbers of at most 64 bits"):
            io.save_file({"long": np.ones(2, np.longdouble)}, tmp_path / "x")
    with pytest.raises(ValueError, match="the name '__metadata__', which the file format keeps"):
        io.save_file({"__metadata__": np.ones(2)}, tmp_path / "x")
    with pytest.raises(TypeError, match="metadata must hold JSON"):
        io.save_file({}, tmp_path / "x", metadata={"f": print})
    for wrong in ([np.ones(2)], {3: np.ones(2)}):
        with pytest.raises(TypeError, match="tensors is a .*, but must be a mapping of texts to tensors or arrays"):
            io.save_file(wrong, tmp_path / "x")
    for save in (io.save_model, io.load_model):
        with pytest.raises(TypeError, match=f"{save.__name__}: model is .*Linear'>, but must be a Module"):
            io.save_file({}, tmp_path / "empty")
            save(*((nn.Linear, tmp_path / "x") if save is io.save_model else (tmp_path / "empty", nn.Linear)))
    (tmp_path / "empty").unlink()
    for save, what in ((io.save_file, {}), (io.save_model, nn.Linear(2, 2))):
        with pytest.raises(TypeError, match="metadata is a list, but must be a mapping"):
            save(what, tmp_path / "x", metadata=[1])
    assert not any(tmp_path.iterdir())


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError,
                       match=r"saving weights needs the package 'safetensors'.*pip install 'fastnn\[files\]'"):
        io.save_file({}, tmp_path / "x")


@pytest.mark.parametrize("call", ["fsync", "replace", "open", "interrupt"])
def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "m.safetensors"
    io.save_model(mlp([7, 5, 3]), path)
    before = path.read_bytes()

    def fail(*arguments, **options):
        if call == "interrupt":
            raise KeyboardInterrupt
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync" if call == "interrupt" else call, fail)
    with pytest.raises(KeyboardInterrupt if call == "interrupt" else OSError) as caught:
        io.save_model(mlp([8, 5, 3]), path)
    monkeypatch.undo()
    if call != "interrupt":
        assert caught.value.errno == errno.ENOSPC and str(path) in str(caught.value)
        assert "No space left" in str(caught.value) and "nothing was changed" in str(caught.value)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_or_device_is_not_replaced_by_a_file(tmp_path):
    path = tmp_path / "m.safetensors"
    os.mkfifo(path)
    with pytest.raises(OSError, match="Not a regular file.*nothing was changed"):
        io.save_model(mlp([7, 5, 3]), path)
    assert stat.S_ISFIFO(path.stat().st_mode) and [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full(tiny_disk):
    path = tiny_disk / "m.safetensors"
    io.save_model(mlp([10, 10]), path)
    before = path.read_bytes()
    with pytest.raises(OSError, match="No space left") as caught:
        io.save_model(mlp([200, 200]), path)
    assert caught.value.errno == errno.ENOSPC and str(path) in str(caught.value)
    assert path.read_bytes() == before and len(list(tiny_disk.iterdir())) == 1


def test_names_as_long_as_file_systems_take(tmp_path):
    path = tmp_path / ("ä" * 110 + "." + "x" * 30)
    io.save_file({"a": np.ones(2)}, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and io.load_file(path)["a"].tolist() == [1, 1]


def test_links_and_permissions_survive(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    io.write_atomic(real, "one")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(real.stat().st_mode) == 0o666 & ~mask
    real.chmod(0o640)
    link.symlink_to(real)
    io.write_atomic(link, b"two")
    assert link.is_symlink() and real.read_bytes() == b"two" and stat.S_IMODE(real.stat().st_mode) == 0o640
