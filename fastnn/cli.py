"""The command ``fastnn`` (also ``python -m fastnn``): train a named network, say what runs here.

Exit status: 0 on success, 1 when something failed, 2 for wrong usage. Errors are one line on stderr;
with ``--json`` stdout carries one JSON document and progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_RATES = {"sgd": 0.05, "adam": 0.002, "adamw": 0.002}  # tuned for LeNet-5 on MNIST, batch 64, cosine decay
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
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as stop:  # argparse has printed usage or help
        return int(stop.code or 0)
    try:
        status = options.run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("fastnn: interrupted", file=sys.stderr)
    except BrokenPipeError:  # the reader of our output has gone: no message, and none from Python's last flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CommandError, ImportError, OSError, ValueError, MemoryError) as error:
        print(f"fastnn: error: {error}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    import fastnn

    parser = argparse.ArgumentParser(prog="fastnn", description="Train neural networks on CPUs, fast.")
    parser.add_argument("--version", action="version", version=f"fastnn {fastnn.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="train a named network and save it", description=_train.__doc__,
                                   formatter_class=argparse.ArgumentDefaultsHelpFormatter))
    info = commands.add_parser("info", help="say what runs here and why", description=_info.__doc__)
    info.add_argument("--json", action="store_true", help="print one JSON document")
    info.set_defaults(run=_info)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    """Options of ``fastnn train``."""
    parser.add_argument("model", nargs="?", default="lenet5", choices=["lenet5", "mlp"], help="the network")
    parser.add_argument("--data", default="digits", choices=["digits", "mnist"],
                        help="digits: scikit-learn's 1,797, no files needed; mnist: IDX files in --data-dir")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the data files (default: $FASTNN_DATA)")
    parser.add_argument("--epochs", type=_number(int, 1), default=12, help="passes over the data")
    parser.add_argument("--batch-size", type=_number(int, 1), default=64, help="samples a step")
    parser.add_argument("--optimizer", default="sgd", choices=list(_RATES), help="update rule")
    rates = ", ".join(f"{name} {rate}" for name, rate in _RATES.items())
    parser.add_argument("--lr", type=_number(float, 0),
                        help=f"first learning rate, which falls to 0 along a cosine (default: {rates})")
    parser.add_argument("--momentum", type=_number(float, 0), default=0.9, help="of sgd (Nesterov's)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same run")
    parser.add_argument("--threads", type=_number(int, 1), help="number of threads (default: as 'fastnn info' says)")
    parser.add_argument("--out", metavar="DIR", help="folder for weights, history and learning curve "
                        "(default: runs/MODEL)")
    parser.add_argument("--force", action="store_true", help="overwrite files in --out")
    parser.add_argument("--json", action="store_true", help="print one JSON document; progress goes to stderr")
    parser.set_defaults(run=_train)


def _number(kind: Callable[[str], Any], least: float) -> Callable[[str], Any]:
    """An argparse type: a finite number of at least `least`."""

    def convert(text: str) -> Any:
        value = kind(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is out of range, expected at least {least}")
        return value

    convert.__name__ = kind.__name__  # argparse names the type in "invalid int value"
    return convert


# -- info --

def _info(options: argparse.Namespace) -> int:
    """Say version, instruction set, threads and why."""
    from .config import get_config, show_config

    if options.json:
        print(json.dumps(get_config(), indent=2))
    else:
        show_config()
    return 0


# -- train --

def _train(options: argparse.Namespace) -> int:
    """Train a network; write weights, history and learning curve. The test set is evaluated after every epoch (the
    columns val_...); nothing is chosen by it."""
    from . import manual_seed, set_num_threads
    from .io import require

    require("safetensors", extra="files", feature="saving the trained weights")
    folder = _claim_outputs(options)
    if options.threads is not None:
        set_num_threads(options.threads)
    manual_seed(options.seed)
    model, train, test = _model_and_data(options)
    report = sys.stderr if options.json else sys.stdout
    _introduce(options, model, train, test, report)
    began = time.perf_counter()
    trainer, finished = _fit(options, model, train, test, report)
    seconds = time.perf_counter() - began
    history = trainer.history
    if not history.epoch:
        raise CommandError("interrupted before the first epoch ended; nothing was written")
    files = _write(options, folder, model, history)
    loss, accuracy = (history.history[name][-1] for name in ("val_loss", "val_accuracy"))
    print("wrote " + ", ".join(files), file=report)
    if options.json:
        print(json.dumps({"model": options.model, "data": options.data, "epochs": len(history.epoch),
                          "seconds": seconds, "test_loss": loss, "test_accuracy": accuracy, "files": files,
                          "history": history.history}))
    elif finished:
        print(f"test accuracy {accuracy:.4f}")
    if not finished:
        raise CommandError(f"interrupted in epoch {len(history.epoch) + 1} of {options.epochs}; saved the weights as "
                           f"they are, and the epochs before (test accuracy {accuracy:.4f})")
    return 0


def _claim_outputs(options: argparse.Namespace) -> Path:
    """The output folder, made and checked before any work: writable, and nothing in it would be overwritten."""
    folder = Path(options.out or Path("runs", options.model))
    folder.mkdir(parents=True, exist_ok=True)
    taken = [name for name in _OUTPUTS if (folder / name).exists()]
    if taken and not options.force:
        raise CommandError(f"{folder} already holds {', '.join(taken)}; use --force to overwrite, or another --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"{folder} is not writable")
    return folder


def _model_and_data(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The model, and the training and test data in the shape it takes."""
    from .data import ArrayDataset, digits, mnist
    from .models import build

    flat = options.model == "mlp"
    if options.data == "mnist":
        parts = mnist(options.data_dir)
    else:
        parts = digits(image_size=8 if flat else 28)
    if flat:
        parts = tuple(ArrayDataset(part.arrays[0].reshape(len(part), -1), part.arrays[1]) for part in parts)
    x, y = parts[0].arrays
    classes = int(y.max()) + 1
    if flat:
        return build("mlp", sizes=[x.shape[1], 128, classes]), *parts
    return build(options.model, image_size=x.shape[2], in_channels=x.shape[1], num_classes=classes), *parts


def _introduce(options: argparse.Namespace, model: Any, train: Any, test: Any, report: Any) -> None:
    """Print what will be trained, on what, by what."""
    from . import _core
    from .summary import summary

    shape = (1, *train.arrays[0].shape[1:])
    print(summary(model, shape), file=report)
    print(f"{options.model} on {options.data}: {len(train):,} training and {len(test):,} test samples of shape "
          f"{shape[1:]}; {_core.get_isa()}, {_core.get_num_threads()} threads", file=report)
    report.flush()


def _fit(options: argparse.Namespace, model: Any, train: Any, test: Any, report: Any) -> tuple[Any, bool]:
    """Train; returns the trainer, and whether it came to the end (else Ctrl-C was pressed)."""
    from . import optim
    from .train import LearningRateScheduler, ProgressBar, TerminateOnNaN, Trainer

    rate = _RATES[options.optimizer] if options.lr is None else options.lr
    if options.optimizer == "sgd":
        optimizer = optim.SGD(model.parameters(), lr=rate, momentum=options.momentum, nesterov=options.momentum > 0)
    else:
        optimizer = {"adam": optim.Adam, "adamw": optim.AdamW}[options.optimizer](model.parameters(), lr=rate)
    decay = LearningRateScheduler(lambda epoch, _: rate * 0.5 * (1 + math.cos(math.pi * epoch / options.epochs)))
    guard = TerminateOnNaN(every_step=False)
    trainer = Trainer(model, loss="cross_entropy", optimizer=optimizer, metrics=["accuracy"])
    try:
        trainer.fit(train, batch_size=options.batch_size, epochs=options.epochs, validation_data=test, verbose=0,
                    callbacks=[decay, guard, ProgressBar(file=report)])
    except KeyboardInterrupt:
        return trainer, False
    if guard.stopped_at is not None:
        raise CommandError("training diverged; try a smaller --lr. Nothing was written")
    return trainer, True


def _write(options: argparse.Namespace, folder: Path, model: Any, history: Any) -> list[str]:
    """Write weights, history and, where matplotlib is installed, the learning curve; returns their names."""
    from .io import save_model
    from .plot import learning_curve

    weights, table, picture = (folder / name for name in _OUTPUTS)
    names = ("data", "epochs", "batch_size", "optimizer", "lr", "momentum", "seed")
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
