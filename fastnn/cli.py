"""The command ``fastnn`` (also ``python -m fastnn``): train a named network, apply it, look at files, time the machine.

Exit status: 0 on success, 1 when something failed, 2 for wrong usage. Errors are one line on stderr;
with ``--json`` stdout carries one JSON document, in which null stands for NaN and infinities, and progress goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .threads import MOST_THREADS

_RATES = {"sgd": 0.05, "adam": 0.002, "adamw": 0.002}  # the first that were tried, not tuned
_OUTPUTS = ("model.safetensors", "history.csv", "learning_curve.png")


class CommandError(Exception):
    """Something the user should read, without a traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after ``fastnn``; those of the process by default.

    Returns
    -------
    int
        The exit status: 0, 1, or 2.
    """
    if arguments is None:
        _make_streams_writable()
    try:
        options, unknown = _parser().parse_known_args(arguments)
        if unknown:  # told by the command's own usage, not by the list of commands
            options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        options.is_program = arguments is None
    except SystemExit as stop:  # argparse has printed usage or help
        return int(stop.code or 0)
    try:
        status = options.run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        _complain("interrupted")
    except BrokenPipeError:  # the reader of our output has gone: no message, and none from Python's last flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CommandError, ImportError, OSError, ValueError, MemoryError) as error:
        _complain(f"error: {str(error) or type(error).__name__}")
    return 1


def _complain(message: str) -> None:
    """Says why the command ends, and ends the other ranks where there are some."""
    distributed = sys.modules.get("fastnn.distributed.world")
    has_world = distributed is not None and distributed.world.cache_info().currsize
    rank, size = (distributed.get_rank(), distributed.get_world_size()) if has_world else (0, 1)
    if rank > 0:
        time.sleep(1)  # what befalls all ranks, rank 0 says for them: then it ends this one
    print(f"fastnn: {message}", file=sys.stderr)
    if size > 1:
        distributed.abort(f"rank {rank} of {size} ends all ranks")


def _make_streams_writable() -> None:
    """Lets every print do: into nothing where who called closed a stream, escaped what its encoding has no character for."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # print(file=None) would write to the other one
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _json(value: Any, indent: int | None = None) -> str:
    """As one JSON document."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    """With None for NaN and infinities, for which JSON has no words."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    import fastnn

    parser = argparse.ArgumentParser(prog="fastnn", description="Train neural networks on CPUs, fast.")
    parser.add_argument("--version", action="version", version=f"fastnn {fastnn.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__.strip("_"), help=summary, description=run.__doc__)
        added.add_argument("--json", action="store_true", help="print one JSON document; all else goes to stderr")
        added.set_defaults(run=run, parser=added)
        return added

    _add_train(command(_train, "train a named network and save it"))
    predict = command(_predict, "apply a saved network to data")
    predict.add_argument("model", metavar="FILE", help="weights that 'fastnn train' or save_model wrote, or .onnx")
    predict.add_argument("data", metavar="X", help=".npy or IDX file of inputs (N, ...)")
    predict.add_argument("--out", metavar="Y.npy", help="write the network's outputs (logits) there")
    predict.add_argument("--force", action="store_true", help="overwrite --out")
    command(_inspect, "say what a file holds").add_argument("file", metavar="FILE", help="safetensors, .onnx, .npy or IDX")
    convert = command(_convert, "write what a file holds in another format")
    convert.add_argument("source", metavar="IN", help="a model or weights: .safetensors, .onnx or .npz")
    convert.add_argument("target", metavar="OUT", help="the file to write; its suffix says the format")
    convert.add_argument("--input-shape", metavar="N,...", type=_shape,
                         help="of an .onnx file's input, the batch first (default: what the network was made for)")
    convert.add_argument("--force", action="store_true", help="overwrite OUT")
    command(_info, "say what runs here and why")
    command(_doctor, "try what training relies on")
    _add_bench(command(_bench, "time named layers, products and operations here"))
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    """Options of ``fastnn train``."""
    parser.add_argument("model", nargs="?", choices=["lenet5", "mlp", "resnet20"],
                        help="the network (default: resnet20 for cifar10, else lenet5)")
    parser.add_argument("--data", default="digits", choices=["digits", "mnist", "fashion_mnist", "cifar10"],
                        help="digits: scikit-learn's 1,797, no files needed; mnist and fashion_mnist: IDX files, "
                             "cifar10: the binary version's files, in --data-dir (default: %(default)s)")
    parser.add_argument("--download", action="store_true", help="fetch files that --data-dir lacks, checked")
    parser.add_argument("--augment", action="store_true",
                        help="change training images at random, in ways that leave the data set's labels true")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the data files (default: $FASTNN_DATA)")
    parser.add_argument("--epochs", type=_number(int, 1), default=12,
                        help="passes over the data (default: %(default)s)")
    parser.add_argument("--batch-size", type=_number(int, 1), default=64, help="samples a step (default: %(default)s)")
    parser.add_argument("--optimizer", default="sgd", choices=list(_RATES), help="update rule (default: %(default)s)")
    rates = ", ".join(f"{name} {rate}" for name, rate in _RATES.items())
    parser.add_argument("--lr", type=_number(float, 0),
                        help=f"first learning rate, which falls to 0 along a cosine (default: {rates})")
    parser.add_argument("--momentum", type=_number(float, 0), default=0.9,
                        help="of sgd, Nesterov's (default: %(default)s)")
    parser.add_argument("--seed", type=_number(int, -2**63 + 1, 2**63 - 1), default=0,
                        help="the same seed gives the same run (default: %(default)s)")
    parser.add_argument("--threads", type=_number(int, 1, MOST_THREADS), help="number of threads (default: as 'fastnn info' says)")
    parser.add_argument("--out", metavar="DIR", help="folder for weights, history and learning curve "
                        "(default: runs/MODEL)")
    parser.add_argument("--force", action="store_true", help="overwrite files in --out")


def _add_bench(parser: argparse.ArgumentParser) -> None:
    """Options of ``fastnn bench``."""
    from .bench import DEFAULT
    from .testing.shapes import CONVOLUTIONS

    parser.add_argument("--layers", metavar="NAMES", default=",".join(DEFAULT),
                        help=f"networks ({', '.join(CONVOLUTIONS)}), gemm, ops or stream (operations on data larger than the caches), "
                             "separated by commas (default: %(default)s)")
    parser.add_argument("--only", metavar="TEXT", default="", help="cases whose names contain this")
    parser.add_argument("--threads", type=_number(int, 1, MOST_THREADS), help="number of threads (default: as 'fastnn info' says)")
    parser.add_argument("--seconds", type=_number(float, 0), default=0.2, help="for each case (default: %(default)s)")
    parser.add_argument("--megabytes", type=_number(int, 1), default=64,
                        help="how large the data of 'stream' is (default: %(default)s)")
    parser.add_argument("--peers", action="store_true", help="time PyTorch beside, in turns")


def _shape(text: str) -> tuple[int, ...]:
    """An argparse type: positive integers between commas."""
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape, expected positive integers such as 1,3,224,224")
    return shape


def _number(kind: Callable[[str], Any], least: float, most: float = float("inf")) -> Callable[[str], Any]:
    """An argparse type: a finite number of at least `least`, at most `most`."""

    def convert(text: str) -> Any:
        value = kind(text)
        if not least <= value <= most or value == float("inf"):
            limit = f" and at most {most}" if most < float("inf") else ""
            raise argparse.ArgumentTypeError(f"{text} is out of range, expected at least {least}{limit}")
        return value

    convert.__name__ = kind.__name__  # argparse names the type in "invalid int value"
    return convert


# -- this machine, and files --

def _info(options: argparse.Namespace) -> int:
    """Say version, instruction set, threads and why."""
    from .config import get_config, show_config

    if options.json:
        print(_json(get_config(), 2))
    else:
        show_config()
    return 0


def _doctor(options: argparse.Namespace) -> int:
    """Try what training relies on: kernels, threads, fork, optional packages. Exit status 1 if something is bad."""
    from .doctor import examine

    findings = examine()
    healthy = all(finding.state != "bad" for finding in findings)
    if options.json:
        print(_json({"healthy": healthy, "findings": [finding._asdict() for finding in findings]}, 2))
    else:
        for subject, state, text in findings:
            print(f"{state:5} {subject + ':':17}{text}")
    return 0 if healthy else 1


def _bench(options: argparse.Namespace) -> int:
    """Time named layers, products and operations: GFLOP/s or, where memory bounds them, GB/s of the bytes that cannot
    but be moved; the share of what this machine can do at best (multiply-adds in registers, copying as many bytes), and
    the way the engine takes. With --peers also PyTorch's speed, and its time / fastnn's."""
    from . import bench, set_num_threads

    groups = bench.groups_of(options.layers)
    torch = bench.torch_or_explain() if options.peers else None
    if options.peers and options.is_program:
        bench.start_anew_for_peers()
    if options.threads is not None:
        set_num_threads(options.threads)
        if torch is not None:
            torch.set_num_threads(options.threads)
    rows, report = [], sys.stderr if options.json else sys.stdout
    print(bench.header(options.peers), file=report, flush=True)
    for row in bench.measure(groups, seconds=options.seconds, nbytes=options.megabytes << 20, torch=torch,
                             only=options.only):
        rows.append(row)
        print(bench.line(row, options.peers), file=report, flush=True)
    if not rows:
        raise CommandError(f"--only: no case of {options.layers} has {options.only!r} in its name")
    print(bench.summary(rows), file=report)
    if options.json:
        print(_json([row._asdict() for row in rows], 2))
    return 0


def _inspect(options: argparse.Namespace) -> int:
    """Say what a file holds: each tensor's type, shape and range, and what is written beside them."""
    from .io import describe
    from .io.describe import table

    found = describe(options.file)
    print(_json(found, 2) if options.json else table(found))
    return 0


def _convert(options: argparse.Namespace) -> int:
    """Write what a file holds in another format. A model file becomes .onnx; of .onnx come its weights, as .safetensors or .npz;
    weights go from .safetensors to .npz and back."""
    from .io import convert

    _refuse_existing(options.target, options.force, "name")
    done = convert(options.source, options.target, options.input_shape)
    if options.json:
        print(_json(done))
    else:
        print(f"wrote {done['target']}: {'a model' if done['holds'] == 'model' else 'weights'}, {done['tensors']:,} tensors, "
              f"{done['parameters']:,} numbers")
    return 0


def _refuse_existing(path: str, force: bool, other: str) -> None:
    """Raises where a file would be overwritten that may not be."""
    if os.path.exists(path) and not force:
        raise CommandError(f"{path} exists; use --force to overwrite it, or another {other}")


def _predict(options: argparse.Namespace) -> int:
    """Apply a saved network: one line a sample, its class and that class's probability (a single output as it is).
    Bytes are taken for images and scaled to 0 ... 1, as in training."""
    from .io import read_array, write_array
    from .train import Trainer

    if options.out is not None:
        _refuse_existing(options.out, options.force, "--out")
    model, name, flat = _saved_network(options.model)
    x = _as_inputs(read_array(options.data), flat)
    try:
        outputs = Trainer(model).predict(x)
    except (TypeError, ValueError) as error:
        raise CommandError(f"{options.data}: {name} takes no {x.dtype} inputs of shape {x.shape}: {error}") from error
    if options.out is not None:
        write_array(options.out, outputs)
    result = _decisions(outputs)
    if options.json:
        print(_json({"model": options.model, "data": options.data, "samples": len(outputs), "out": options.out, **result}))
    elif options.out is not None:
        print(f"wrote {options.out}: {outputs.dtype} {outputs.shape}")
    else:
        for row in zip(*result.values()):
            print(*(f"{value:.4f}" if isinstance(value, float) else value for value in row))
    return 0


def _saved_network(path: str) -> tuple[Any, str, bool]:
    """A file's network, its name, and whether it takes rows of numbers."""
    from .io import load_model, load_onnx

    if not path.lower().endswith(".onnx"):
        model = load_model(path)
        return model, model.architecture["name"], model.architecture["name"] == "mlp"
    model = load_onnx(path)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise CommandError(f"{path} has {len(model.inputs)} inputs and {len(model.outputs)} outputs, but must have one of each")
    return model, "the network", model.inputs[0].shape is not None and len(model.inputs[0].shape) == 2


def _as_inputs(array: Any, flat: bool) -> Any:
    """Data as networks take them: bytes scaled to 0 ... 1, images (N, H, W) with a channel, rows for an mlp."""
    if array.dtype == "uint8":
        array = array.astype("float32") / 255
    if flat:
        return array.reshape(len(array), math.prod(array.shape[1:])) if array.ndim > 1 else array
    return array[:, None] if array.ndim == 3 else array


def _decisions(outputs: Any) -> dict[str, list]:
    """From logits (N, C) the classes and their probabilities; a single output (N, 1) or (N,) as it is."""
    from . import from_numpy

    if outputs.ndim < 2 or outputs.shape[1] == 1:
        return {"outputs": outputs.reshape(-1).tolist()}
    probabilities = from_numpy(outputs).softmax(1).numpy()
    return {"classes": outputs.argmax(1).tolist(), "probabilities": probabilities.max(1).tolist()}


# -- train --

def _train(options: argparse.Namespace) -> int:
    """Train a network; write weights, history and learning curve. The test set is evaluated after every epoch (the
    columns val_...); nothing is chosen by it. Under mpiexec the processes share the work of every step."""
    from .distributed import get_rank

    _require_packages(options)
    if options.model is None:
        options.model = "resnet20" if options.data == "cifar10" else "lenet5"
    _check_choice(options)
    if options.lr is None:
        options.lr = _RATES[options.optimizer]
    if get_rank() == 0:
        with _claimed_outputs(options) as folder:
            return _train_into(folder, options, sys.stderr if options.json else sys.stdout)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        _train_into(None, options, nowhere)
    return 0


def _train_into(folder: Path | None, options: argparse.Namespace, report: Any) -> int:
    """`_train`, with the folder for what comes of it; without one on ranks that write nothing."""
    from . import manual_seed, set_num_threads

    if options.threads is not None:
        set_num_threads(options.threads)
    manual_seed(options.seed)
    model, train, test = _model_and_data(options)
    _introduce(options, model, train, test, report)
    began = time.perf_counter()
    trainer, finished = _fit(options, model, train, test, report)
    seconds = time.perf_counter() - began
    history = trainer.history
    if not history.epoch:
        raise CommandError("interrupted before the first epoch ended; nothing was written")
    if folder is None:
        return 0
    files = _write(options, folder, model, history)
    loss, accuracy = (history.history[name][-1] for name in ("val_loss", "val_accuracy"))
    print("wrote " + ", ".join(files), file=report)
    if options.json:
        print(_json({"model": options.model, "data": options.data, "epochs": len(history.epoch), "seconds": seconds,
                     "test_loss": loss, "test_accuracy": accuracy, "files": files, "history": history.history}))
    elif finished:
        print(f"test accuracy {accuracy:.4f}")
    if not finished:
        raise CommandError(f"interrupted in epoch {len(history.epoch) + 1} of {options.epochs}; saved the weights as "
                           f"they are, and the epochs before (test accuracy {accuracy:.4f})")
    return 0


def _check_choice(options: argparse.Namespace) -> None:
    """Refuses what does not go together, before any work."""
    from .distributed import get_world_size

    if options.model == "resnet20" and options.data != "cifar10":
        raise CommandError(f"resnet20 takes colour images of 32x32 pixels, --data cifar10, not {options.data}")
    if options.model == "mlp" and options.augment:
        raise CommandError("--augment changes images, but an mlp takes rows of numbers; use another network")
    if options.download and options.data == "digits":
        raise CommandError("--download: digits come with scikit-learn; nothing is to be fetched")
    if options.batch_size % get_world_size():
        raise CommandError(f"--batch-size is {options.batch_size}, but must be a multiple of the {get_world_size()} processes that "
                           "share a batch")


def _require_packages(options: argparse.Namespace) -> None:
    """Asks for all optional packages that the run needs, before any work and in one message."""
    from .io import require

    needs = {"safetensors": ("files", "saving the trained weights")}
    if options.data == "digits":
        needs["sklearn.datasets"] = ("sklearn", "the data set 'digits'")
    problems = []
    for module, (extra, feature) in needs.items():
        try:
            require(module, extra=extra, feature=feature)
        except ImportError as error:
            problems.append(str(error))
    if problems:
        raise CommandError("\n".join(problems))


@contextlib.contextmanager
def _claimed_outputs(options: argparse.Namespace) -> Iterator[Path]:
    """The output folder, made and checked before any work: writable, and nothing in it would be overwritten. Folders that
    this made and nothing was written to are removed again."""
    folder = Path(options.out or Path("runs", options.model))
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        _check_outputs(folder, options)
        yield folder
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()


def _check_outputs(folder: Path, options: argparse.Namespace) -> None:
    """Makes the output folder, or says why nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"--out: {folder} cannot be made a folder ({error.strerror})") from error
    taken = [name for name in _OUTPUTS if (folder / name).exists()]
    if taken and not options.force:
        raise CommandError(f"{folder} already holds {', '.join(taken)}; use --force to overwrite, or another --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"{folder} is not writable")


def _model_and_data(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The model, and the training and test data in the shape it takes."""
    from . import data, distributed
    from .models import build

    flat = options.model == "mlp"
    if options.download:
        if distributed.get_rank() == 0:
            data.download(options.data, options.data_dir)
        distributed.barrier()
    if options.data == "digits":
        parts = data.digits(image_size=8 if flat else 28)
    else:
        parts = getattr(data, options.data)(options.data_dir)
    for name, part in zip(("training", "test"), parts):
        if not len(part):
            raise CommandError(f"{options.data}: there are no {name} samples")
    if flat:
        parts = tuple(data.ArrayDataset(part.arrays[0].reshape(len(part), -1), part.arrays[1],
                                        transform=part.transform) for part in parts)
    x, y = parts[0].arrays
    classes = int(y.max()) + 1
    if flat:
        return build("mlp", sizes=[x.shape[1], 128, classes]), *parts
    if options.model == "resnet20":
        return build("resnet20", num_classes=classes), *parts
    return build(options.model, image_size=x.shape[2], in_channels=x.shape[1], num_classes=classes), *parts


def _introduce(options: argparse.Namespace, model: Any, train: Any, test: Any, report: Any) -> None:
    """Print what will be trained, on what, by what."""
    from . import _core
    from .distributed import get_world_size
    from .summary import summary

    shape, threads, processes = (1, *train.arrays[0].shape[1:]), _core.get_num_threads(), get_world_size()
    print(summary(model, shape), file=report)
    print(f"{options.model} on {options.data}: {len(train):,} training and {len(test):,} test samples of shape "
          f"{shape[1:]}; {_core.get_isa()}, {f'{processes} processes of ' if processes > 1 else ''}{threads} "
          f"thread{'s' if threads > 1 else ''}", file=report)
    report.flush()


def _fit(options: argparse.Namespace, model: Any, train: Any, test: Any, report: Any) -> tuple[Any, bool]:
    """Train; returns the trainer, and whether it came to the end (else Ctrl-C was pressed)."""
    from . import optim
    from .data import Augment, DataLoader
    from .train import DistributedTrainer, LearningRateScheduler, ProgressBar, TerminateOnNaN

    rate = options.lr
    if options.optimizer == "sgd":
        optimizer = optim.SGD(model.parameters(), lr=rate, momentum=options.momentum, nesterov=options.momentum > 0)
    else:
        optimizer = {"adam": optim.Adam, "adamw": optim.AdamW}[options.optimizer](model.parameters(), lr=rate)
    decay = LearningRateScheduler(lambda epoch, _: rate * 0.5 * (1 + math.cos(math.pi * epoch / options.epochs)))
    guard = TerminateOnNaN(every_step=False)
    trainer = DistributedTrainer(model, loss="cross_entropy", optimizer=optimizer, metrics=["accuracy"])
    loader = DataLoader(train, options.batch_size, shuffle=True,
                        transform=Augment.for_data(options.data) if options.augment else None)
    try:
        trainer.fit(loader, epochs=options.epochs, validation_data=test, verbose=0,
                    callbacks=[decay, guard, ProgressBar(file=report)])
    except KeyboardInterrupt:
        return trainer, False
    except IndexError as error:  # labels that are no class, in damaged or exchanged files
        raise CommandError(f"{options.data}: {error}") from error
    if guard.stopped_at is not None:
        raise CommandError("training diverged; try a smaller --lr. Nothing was written")
    return trainer, True


def _write(options: argparse.Namespace, folder: Path, model: Any, history: Any) -> list[str]:
    """Write weights, history and, where matplotlib is installed, the learning curve; returns their names."""
    from .io import save_model
    from .plot import learning_curve

    weights, table, picture = (folder / name for name in _OUTPUTS)
    names = ("data", "augment", "epochs", "batch_size", "optimizer", "lr", "momentum", "seed")
    settings = {name: getattr(options, name) for name in names}
    save_model(model, weights, metadata={"training": {**settings, "epochs_done": len(history.epoch)}})
    history.to_csv(table)
    written = [str(weights), str(table)]
    try:
        learning_curve(history, picture, title=f"{options.model} on {options.data} (validation: the test set)")
        written.append(str(picture))
    except ImportError as missing:
        print(f"no learning curve: {missing}", file=sys.stderr)
    return written
