"""The command: what it prints and writes, its exit codes, what it refuses before any work."""

import csv
import gzip
import json
import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

import fastnn
from fastnn.cli import main

LONG = ["--epochs", "6", "--batch-size", "16"]  # enough for the made-up digits
OUTPUTS = ["history.csv", "learning_curve.png", "model.safetensors"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder, without the user's settings."""
    for package in ("sklearn", "safetensors", "matplotlib"):
        pytest.importorskip(package)
    monkeypatch.delenv("FASTNN_DATA", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(os.path.dirname(fastnn.__file__)))  # for those run as a program
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mnist_folder(tmp_path):
    """Digits that say what they are by a bright row, as MNIST files."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, n in (("train", 256), ("t10k", 64)):
        labels = np.arange(n, dtype=np.uint8) % 10
        images = rng.integers(0, 40, (n, 28, 28), dtype=np.uint8)
        images[np.arange(n), 4 + 2 * labels] = 255
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return folder


def test_default_trains_lenet_on_digits(capsys, tmp_path):
    assert main(["train", "--epochs", "3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].split() == ["layer", "kind", "output", "parameters"]
    assert "61,706 parameters, 61,706 trainable, 241.0 KiB" in out and "1,438 training and 359 test samples" in out
    assert sum(line.startswith("Epoch ") for line in lines) == 3
    word, accuracy = lines[-1].rsplit(" ", 1)
    assert word == "test accuracy" and float(accuracy) > 0.8
    folder = tmp_path / "runs" / "lenet5"
    assert sorted(os.listdir(folder)) == OUTPUTS
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert f"{float(rows[-1]['val_accuracy']):.4f}" == accuracy
    assert (folder / "learning_curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    from fastnn.data import digits
    from fastnn.io import load_model
    from fastnn.train import Trainer
    again = Trainer(load_model(folder / "model.safetensors"), metrics=["accuracy"]).evaluate(digits(image_size=28)[1])
    assert f"{again['accuracy']:.4f}" == accuracy


def test_json_is_one_document(capsys, tmp_path):
    assert main(["train", "mlp", "--epochs", "2", "--json", "--out", "here", "--optimizer", "adam", "--seed", "5"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["model"] == "mlp" and result["epochs"] == 2 and 0 < result["test_accuracy"] <= 1
    assert result["test_accuracy"] == result["history"]["val_accuracy"][-1]
    assert sorted(map(os.path.basename, result["files"])) == OUTPUTS and all(map(os.path.exists, result["files"]))
    assert "Epoch 2/2" in err and "parameters" in err


def test_same_seed_same_run(capsys):
    def run(*more):
        assert main(["train", "mlp", "--epochs", "2", "--json", "--force", *more]) == 0
        return json.loads(capsys.readouterr().out)["history"]

    assert run("--threads", "1") == run("--threads", "2") != run("--seed", "1")


def test_mnist_files(capsys, mnist_folder, monkeypatch):
    assert main(["train", "--data", "mnist", "--data-dir", str(mnist_folder), *LONG]) == 0
    assert float(capsys.readouterr().out.split()[-1]) > 0.9
    monkeypatch.setenv("FASTNN_DATA", str(mnist_folder))
    assert main(["train", "mlp", "--data", "mnist", "--epochs", "1"]) == 0
    assert "test accuracy" in capsys.readouterr().out


def write_labels(path, labels):
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", len(labels)) + bytes(labels)))


@pytest.mark.parametrize("model", ["lenet5", "mlp"])
def test_data_that_cannot_be_trained_on(capsys, mnist_folder, model):
    words = ["train", model, "--data", "mnist", "--data-dir", str(mnist_folder)]
    write_labels(mnist_folder / "t10k-labels-idx1-ubyte.gz", [11] * 64)
    assert main(words) == 1 and "mnist: validation y holds 64 labels that are no class" in capsys.readouterr().err
    write_labels(mnist_folder / "t10k-labels-idx1-ubyte.gz", [])
    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", 0, 28, 28)
    (mnist_folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(head))
    assert main(words) == 1 and capsys.readouterr().err == "fastnn: error: mnist: there are no test samples\n"


def test_never_overwrites_without_force(capsys, tmp_path):
    folder = tmp_path / "runs" / "mlp"
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text("precious")
    (folder / "notes.txt").write_text("mine")
    began = time.perf_counter()
    assert main(["train", "mlp", "--epochs", "100000"]) == 1
    assert time.perf_counter() - began < 5  # before training
    out, err = capsys.readouterr()
    assert "already holds history.csv" in err and "--force" in err and "Traceback" not in err and out == ""
    assert (folder / "history.csv").read_text() == "precious"
    assert main(["train", "mlp", "--epochs", "1", "--force"]) == 0
    assert (folder / "history.csv").read_text().startswith("epoch,loss")
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("arguments, status, message", [
    ([], 2, "required"),
    (["trian"], 2, "invalid choice"),
    (["train", "alexnet"], 2, "invalid choice: 'alexnet'"),
    (["train", "--epochs", "0"], 2, "out of range, expected at least 1"),
    (["train", "--epochs", "x"], 2, "invalid int value: 'x'"),
    (["train", "--batch-size", "-4"], 2, "out of range"),
    (["train", "--lr", "nan"], 2, "out of range"),
    (["train", "--seed", str(2**63)], 2, "--seed: 9223372036854775808 is out of range"),
    (["train", "--lr", "-1"], 2, "out of range"),
    (["train", "--optimizer", "adagrad"], 2, "invalid choice"),
    (["train", "--threads", "0"], 2, "out of range"), (["train", "--threads", "1025"], 2, "at most 1024"),
    (["train", "--data", "mnist"], 1, "FASTNN_DATA"),
    (["train", "--data", "mnist", "--data-dir", "absent"], 1, "'absent' does not exist"),
    (["train", "--data", "mnist", "--data-dir", "."], 1, "missing train-images-idx3-ubyte"),
    (["train", "mlp", "--lr", "1e30", "--epochs", "3"], 1, "diverged"),
    (["train", "--model", "mlp"], 2, "[{lenet5,mlp,resnet20}]\nfastnn train: error: unrecognized arguments: --model"),
    (["inspect", "a", "b"], 2, "FILE\nfastnn inspect: error: unrecognized arguments: b"),
])
def test_errors(capsys, arguments, status, message):
    assert main(arguments) == status
    out, err = capsys.readouterr()
    assert message in err and "Traceback" not in err
    assert not os.path.exists("runs")  # nothing half-written, no folder of a run that was not


def test_folders_that_were_there_stay(capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    assert main(["train", "mlp", "--lr", "1e30", "--epochs", "3", "--out", "mine/run/one"]) == 1
    assert os.listdir("mine") == []


def test_missing_packages_stop_before_any_work(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert main(["train"]) == 1
    out, err = capsys.readouterr()
    assert "pip install 'fastnn[files]'" in err and out == "" and not os.path.exists("runs")


def test_matplotlib_is_optional(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["train", "mlp", "--epochs", "1"]) == 0
    out, err = capsys.readouterr()
    assert "pip install 'fastnn[plot]'" in err
    assert sorted(os.listdir("runs/mlp")) == ["history.csv", "model.safetensors"]


def test_full_disk(capsys, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["train", "mlp", "--epochs", "1"]) == 1
    err = capsys.readouterr().err
    assert "No space left" in err and "model.safetensors" in err and "Traceback" not in err
    assert not os.path.exists("runs")  # neither files nor an empty folder


def test_info(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"] == fastnn.__version__ and facts["numpy"] == np.__version__
    assert facts["isa"]["in_use"] in facts["isa"]["available"] and facts["isa"]["why"]
    assert facts["threads"]["in_use"] == fastnn.get_num_threads() and facts["threads"]["why"]
    for piece in (facts["version"], facts["numpy"],
                  *(facts[k][w] for k in ("isa", "threads") for w in ("in_use", "why"))):
        assert str(piece) in text


def command(*arguments, **options):
    return subprocess.Popen([sys.executable, "-m", "fastnn", *arguments], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **options)


def test_module_runs_as_a_program():
    process = command("--version")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and out.startswith("fastnn ")
    process = command("train", "--epochs", "none")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and err.startswith("usage: ")


def test_ctrl_c_saves_what_was_trained(ctrl_c):
    process = command("train", "--epochs", "100000")
    for line in process.stdout:
        if line.startswith("Epoch      2/"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in err
    assert "interrupted" in err and sorted(os.listdir("runs/lenet5")) == OUTPUTS
    rows = list(csv.DictReader(open("runs/lenet5/history.csv")))
    assert 2 <= len(rows) < 1000


def test_a_closed_pipe_is_no_error():
    process = command("info")
    process.stdout.close()
    err = process.stderr.read()
    process.wait(timeout=60)
    assert "Traceback" not in err and "Exception" not in err


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_streams_that_are_closed(closed):
    """Without one of the standard streams the command does the same, and nothing comes in its place on another one."""
    np.save("x.npy", np.zeros(2))
    for words in ("inspect x.npy --json", "inspect absent"):
        done = subprocess.run(f"{sys.executable} -m fastnn {words} {closed}", shell=True, capture_output=True, text=True, timeout=60)
        assert done.returncode == (words == "inspect absent") and "Traceback" not in done.stderr
        assert (done.stdout == "") == (words == "inspect absent" or closed == ">&-")


def test_errors_without_a_text_are_named(capsys, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("fastnn.bench.measure", fail)
    assert main(["bench", "--json"]) == 1 and capsys.readouterr().err.endswith("fastnn: error: MemoryError\n")


def test_names_that_the_terminal_cannot_show():
    np.save("é.npy", np.zeros(2))
    done = subprocess.run([sys.executable, "-m", "fastnn", "inspect", "é.npy"], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"})
    assert done.returncode == 0 and done.stdout.startswith(r"\xe9.npy: npy")


# -- doctor, inspect, predict --

def test_doctor(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is True
    found = {finding["subject"]: finding for finding in report["findings"]}
    assert found["results"]["state"] == found["fork"]["state"] == "good"
    assert {"instruction set", "threads", "OpenMP", "extras"} <= set(found) and all(name in text for name in found)


def test_doctor_finds_what_is_wrong(capsys, monkeypatch):
    from fastnn import doctor

    def wrong(x, weight):
        return fastnn.zeros(8, 16, 18, 18)

    monkeypatch.setattr(doctor.F, "conv2d", wrong)
    monkeypatch.setattr(doctor, "_allowed_cpus", lambda: 0)
    monkeypatch.setattr(doctor, "EXTRAS", {"files": "safetensors", "plot": "no_such_package"})
    monkeypatch.setattr(doctor, "_wait", lambda child: os.waitpid(child, 0) and None)
    monkeypatch.setenv("FASTNN_NUM_THREADS", "2")
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    found = {finding["subject"]: finding for finding in report["findings"]}
    assert report["healthy"] is False
    assert [name for name, finding in found.items() if finding["state"] == "bad"] == ["threads", "results", "fork"]
    assert "pip install 'fastnn[plot]'" in found["extras"]["text"] and "hangs" in found["fork"]["text"]
    assert "FASTNN_NUM_THREADS=2" in found["environment"]["text"]


@pytest.fixture
def trained(mnist_folder, capsys):
    assert main(["train", "--data", "mnist", "--data-dir", str(mnist_folder), *LONG]) == 0
    capsys.readouterr()
    return "runs/lenet5/model.safetensors"


def test_inspect(capsys, trained, mnist_folder):
    assert main(["inspect", trained, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "safetensors" and found["parameters"] == 61_706
    assert found["bytes"] == os.path.getsize(trained)
    assert found["metadata"]["architecture"]["name"] == "lenet5" and found["metadata"]["training"]["lr"] == 0.05
    assert [t["name"] for t in found["tensors"]][:3] == ["0.bias", "0.weight", "3.bias"]
    assert found["tensors"][-1]["name"] == "11.weight" and found["tensors"][1]["shape"] == [6, 1, 5, 5]
    assert main(["inspect", trained]) == 0
    assert "11.weight  float32  (10, 84)" in capsys.readouterr().out
    assert main(["inspect", str(mnist_folder / "t10k-labels-idx1-ubyte.gz")]) == 0
    assert "idx" in (text := capsys.readouterr().out) and "(64,)" in text and "0 ... 9" in text
    np.save("holes.npy", np.array([1.0, np.nan, -2.0, np.inf]))
    assert main(["inspect", "holes.npy", "--json"]) == 0
    (tensor,) = json.loads(capsys.readouterr().out)["tensors"]
    assert (tensor["least"], tensor["greatest"], tensor["not_finite"]) == (-2, 1, 2)


def test_predict(capsys, trained, mnist_folder):
    images = str(mnist_folder / "t10k-images-idx3-ubyte.gz")
    assert main(["predict", trained, images, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    right = np.mean(np.array(result["classes"]) == np.arange(64) % 10)
    assert result["samples"] == 64 and right > 0.9 and all(0.1 <= p <= 1 for p in result["probabilities"])
    assert main(["predict", trained, images]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[0]) for line in lines] == result["classes"]
    from fastnn.data import mnist
    np.save("x.npy", mnist(mnist_folder)[1].arrays[0])  # the same images as numbers
    assert main(["predict", trained, "x.npy", "--out", "y.npy"]) == 0
    assert np.load("y.npy").shape == (64, 10) and np.load("y.npy").argmax(1).tolist() == result["classes"]
    capsys.readouterr()
    assert main(["predict", trained, "x.npy", "--out", "y.npy"]) == 1 and "--force" in capsys.readouterr().err
    assert main(["predict", trained, "x.npy", "--out", "y.npy", "--force"]) == 0


def no_constant(name):
    raise ValueError(f"JSON has no {name}")


def test_json_has_null_for_what_is_no_number(capsys):
    from fastnn.io import save_file, save_model
    from fastnn.models import mlp

    save_model(mlp([3, 2]), "model")
    np.save("x.npy", np.full((1, 3), np.nan))
    save_file({"long": np.zeros(2)}, "weights", {"best": float("nan"), "all": [1.0, float("inf")]})
    np.save("long.npy", np.array([1, 2], np.longdouble))
    for arguments in (["predict", "model", "x.npy"], ["inspect", "weights"], ["inspect", "long.npy"]):
        assert main([*arguments, "--json"]) == 0
        found = json.loads(capsys.readouterr().out, parse_constant=no_constant)
        if "metadata" in found:
            assert found["metadata"]["best"] is None and found["metadata"]["all"] == [1, None]
    assert found["tensors"][0]["greatest"] == 2


def test_predict_of_a_single_output(capsys):
    from fastnn.io import save_model
    from fastnn.models import mlp

    model = mlp([3, 1])
    save_model(model, "model.safetensors")
    x = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
    np.save("x.npy", x)
    assert main(["predict", "model.safetensors", "x.npy", "--json"]) == 0
    want = model(fastnn.tensor(x)).reshape(-1).tolist()
    assert json.loads(capsys.readouterr().out)["outputs"] == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("arguments, message", [
    (["inspect", "absent"], "absent"),
    (["inspect", "text"], "neither safetensors nor .onnx nor .npy nor IDX"),
    (["inspect", "short.npy"], "not a complete .npy file"),
    (["inspect", "objects.npy"], "not a complete .npy file of numbers"),
    (["inspect", "words.npy"], "words.npy: holds <U1, expected real numbers"),
    (["inspect", "complex.npy"], "complex.npy: holds complex128, expected real numbers"),
    (["inspect", "header.npy"], "header.npy: not a complete .npy file"),
    (["predict", "text", "short.npy"], "not a complete safetensors file"),
    (["predict", "weights", "short.npy"], "does not say which of fastnn.models it holds"),
    (["predict", "model", "text"], "unknown, expected an array: .npy or IDX"),
    (["predict", "model", "wide.npy"], "wide.npy: mlp takes no float64 inputs of shape (2, 5): linear_forward: argument 'x' "),
    (["predict", "model", "whole.npy"], "whole.npy: mlp takes no int64 inputs of shape (2, 3): linear_forward: argument 'x' "),
    (["predict", "model", "words.npy"], "expected real numbers"),
    (["predict", "model", "none.npy"], "none.npy: mlp takes no float64 inputs of shape (0, 3)"),
])
def test_errors_of_files(capsys, arguments, message):
    from fastnn.io import save_file, save_model
    from fastnn.models import mlp

    with open("text", "w") as stream:
        stream.write("epoch,loss\n1,0.5\n")
    np.save("objects.npy", np.array([None, {}]), allow_pickle=True)
    np.save("wide.npy", np.zeros((2, 5)))
    np.save("whole.npy", np.zeros((2, 3), np.int64))
    np.save("words.npy", np.array(["a", "b"]))
    np.save("complex.npy", np.zeros(2, complex))
    np.save("none.npy", np.zeros((0, 3, 1)))
    with open("header.npy", "wb") as stream:
        stream.write(open("wide.npy", "rb").read().replace(b"'shape': (2, 5)", b"'shape': (2, 5("))
    with open("short.npy", "wb") as stream:
        stream.write(open("wide.npy", "rb").read()[:-8])
    save_file({"w": np.zeros(3)}, "weights")
    save_model(mlp([3, 2]), "model")
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert message in err and "Traceback" not in err and out == ""


def test_missing_packages_are_named_together(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert main(["train"]) == 1
    err = capsys.readouterr().err
    assert "fastnn[files]" in err and "fastnn[sklearn]" in err and not os.path.exists("runs")


def test_out_that_is_a_file(capsys):
    open("taken", "w").close()
    assert main(["train", "mlp", "--out", "taken"]) == 1
    assert "--out: taken cannot be made a folder" in capsys.readouterr().err


def cifar_files(folder, n=16):
    """CIFAR-10's six files of n records each, whose classes are brightness."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        labels = np.arange(n, dtype=np.uint8)[:, None] % 10
        images = rng.integers(0, 25, (n, 3072), dtype=np.uint8) + 25 * labels
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels, images], 1).tobytes())


def test_cifar10_trains_resnet20_on_augmented_images(capsys, tmp_path):
    cifar_files(tmp_path / "cifar")
    command = ["train", "--data", "cifar10", "--data-dir", "cifar", "--epochs", "1", "--batch-size", "20", "--augment"]
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["model"] == "resnet20" and "80 training and 16 test samples of shape (3, 32, 32)" in err
    assert sorted(os.listdir(tmp_path / "runs" / "resnet20")) == OUTPUTS
    assert main(["train", "lenet5", *command[1:]]) == 0


@pytest.mark.parametrize("words, message", [
    (["resnet20"], "resnet20 takes colour images"), (["mlp", "--augment"], "--augment changes images"),
    (["--download"], "nothing is to be fetched"), (["--data", "cifar10"], "FASTNN_DATA")])
def test_train_refuses_what_does_not_go_together(capsys, words, message):
    assert main(["train", *words]) == 1
    assert message in capsys.readouterr().err


QUICK = ["--seconds", "0", "--threads", "1"]


@pytest.fixture
def same_threads():
    before = fastnn.get_num_threads()
    yield
    fastnn.set_num_threads(before)


def test_bench_prints_speed_share_and_way(capsys, same_threads):
    assert main(["bench", "--layers", "lenet5,gemm", "--only", "forward", *QUICK]) == 0
    head, *rows, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["group", "case", "ms", "speed", "of", "best", "way"]
    assert [row.split()[:3] for row in rows[:2]] == [["lenet5", "conv1", "forward"], ["lenet5", "conv2", "forward"]]
    assert rows[2].split()[:2] == ["gemm", "forward-4x784x256"] and "inner products" in rows[2]
    assert all("GFLOP/s" in row for row in rows)
    assert last == f"{fastnn._core.get_isa()}, 1 threads"


def test_bench_as_json(capsys, same_threads):
    assert main(["bench", "--layers", "ops, stream", "--only", "relu", "--megabytes", "1", "--json", *QUICK]) == 0
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert {row["group"] for row in rows} == {"ops", "stream"} and "relu forward" in err
    for row in rows:
        assert row["milliseconds"] > 0 and row["rate"] > 0 and row["threads"] == 1 and row["ratio"] is None
        assert row["unit"] == "GB/s" and row["share"] > 0 and row["isa"] == fastnn._core.get_isa()


def test_every_benchmark_case_runs(same_threads):
    from fastnn.testing.cases import GROUPS, cases_of

    fastnn.set_num_threads(1)
    for group in GROUPS:
        names = [name for name, _ in cases_of(group, 1 << 20)]
        assert names and len(set(names)) == len(names)
    for _, make in cases_of("stream", 1 << 20):
        case = make()
        case.ours()
        assert case.bytes > 900_000


def test_bench_refuses_unknown_layers(capsys):
    assert main(["bench", "--layers", "lenet5,lenet6"]) == 1
    err = capsys.readouterr().err
    assert "--layers: 'lenet6' is unknown; there are lenet5, alexnet, " in err and "gemm, ops, stream" in err
    assert main(["bench", "--layers", ","]) == 1 and "names nothing" in capsys.readouterr().err
    assert main(["bench", "--only", "no such case", "--layers", "lenet5"]) == 1
    assert "--only: no case of lenet5 has 'no such case' in its name" in capsys.readouterr().err
    assert main(["bench", "--seconds", "-1"]) == 2


def test_bench_without_pytorch_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["bench", "--peers", *QUICK]) == 1
    assert "--peers needs PyTorch, which is not installed: pip install torch" in capsys.readouterr().err


def test_bench_ends_cleanly_on_interrupt(ctrl_c):
    process = subprocess.Popen([sys.executable, "-m", "fastnn", "bench", "--layers", "vgg16"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    process.stdout.readline()  # the header: it is at work
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err == "fastnn: interrupted\n"
