"""Command-line words into objects, or a one-line error and exit status 2."""

import argparse
import ast
import csv
import difflib
import gc
import importlib
import inspect
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import matplotlib
import torch
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from plotting import animation_writer, save_figure, show_figure, whole_file

# ---------------------------------------------------------------- optimizers by name

# The tutorial's four, by the names in its legend.
PRESETS = {
    "SGD": "SGD()",
    "Momentum": "SGD(momentum=0.8)",
    "RMSprop": "RMSprop(alpha=0.9)",
    "Adam": "Adam(betas=(0.9, 0.99))",
}

TORCH_OPTIMIZERS = {
    name: value
    for name, value in vars(torch.optim).items()
    if isinstance(value, type)
    and issubclass(value, torch.optim.Optimizer)
    and value is not torch.optim.Optimizer
}


@dataclass(frozen=True)
class Spec:
    """An optimizer as named on the command line. Called with a net's parameters, it is made.

    `label` stands in tables and legends; `call` is the full call, and parses back.
    """

    label: str
    call: str
    optimizer_class: type
    keywords: dict[str, Any]

    def __call__(self, params: Iterable) -> torch.optim.Optimizer:
        return self.optimizer_class(params, **self.keywords)


def parse_optimizers(texts: Iterable[str], lr: float | None = None) -> dict[str, Spec]:
    """Parse specs into {label: Spec}, in order. ValueError names what is wrong, in one line."""
    specs = {}
    for text in texts:
        spec = parse_optimizer(text, lr)
        if spec.label in specs:
            raise ValueError(f"two optimizers are labelled {spec.label!r}; write LABEL={text}")
        specs[spec.label] = spec
    return specs


def parse_optimizer(text: str, lr: float | None = None) -> Spec:
    """Parse one `[LABEL=]NAME[(keyword=literal, ...)]`.

    NAME alone is a preset, or else a class of torch.optim, or `module.Class`; a call spells out
    its hyperparameters and takes no preset. `lr` is used where the call names none and the class
    takes one. Only literals are accepted and nothing is evaluated; `module` is imported.
    """
    before, equals, after = text.partition("=")
    has_label = bool(equals) and "(" not in before
    label, source = (before.strip(), after.strip()) if has_label else (text.strip(), text.strip())
    if not label or not label.isprintable():
        raise ValueError(f"{text!r} has no printable label")

    name, arguments = _split_call(PRESETS.get(source, source), text)
    optimizer_class = _find_class(name)
    if lr is not None and "lr" in inspect.signature(optimizer_class).parameters:
        arguments = {"lr": ast.Constant(lr)} | arguments
    try:
        keywords = {key: ast.literal_eval(value) for key, value in arguments.items()}
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{text!r}: only literal values are accepted") from error
    if "lr" in keywords:
        check_lr(keywords["lr"])
    call = ", ".join(f"{key}={ast.unparse(value)}" for key, value in arguments.items())
    return Spec(label, f"{name}({call})", optimizer_class, keywords)


def _split_call(source: str, text: str) -> tuple[str, dict[str, ast.expr]]:
    """Split `NAME(keyword=value, ...)` or `NAME` into its name and its unevaluated values."""
    form = f"{text!r} is not of the form NAME(keyword=value, ...)"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # `1or 2` and the like would print a warning
            tree = ast.parse(source, mode="eval").body
        keywords = tree.keywords if isinstance(tree, ast.Call) else []
        name = ast.unparse(tree.func if isinstance(tree, ast.Call) else tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(form) from error
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(form)
    arguments = {keyword.arg: keyword.value for keyword in keywords}
    if getattr(tree, "args", None) or None in arguments:
        raise ValueError(f"{text!r}: every hyperparameter needs its keyword")
    if len(arguments) < len(keywords):
        raise ValueError(f"{text!r} gives a hyperparameter twice")
    return name, arguments


def _find_class(name: str) -> type:
    """Return the optimizer class called `name`: one of torch.optim, or `module.Class`."""
    module_name, _, class_name = name.rpartition(".")
    if not module_name:
        if name in TORCH_OPTIMIZERS:
            return TORCH_OPTIMIZERS[name]
        if name in PRESETS:
            raise ValueError(f"{name} is a preset and takes no arguments: write {PRESETS[name]}")
        known = list(dict.fromkeys([*PRESETS, *TORCH_OPTIMIZERS]))
        raise ValueError(f"unknown optimizer {name!r}{nearest(name, known)}")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a learner's own file may fail in any way
        raise ValueError(f"cannot import {module_name}: {describe(error)}") from error
    found = getattr(module, class_name, None)
    if found is None:
        names = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise ValueError(f"{module_name} has no class {class_name!r}{nearest(class_name, names)}")
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise ValueError(f"{name} is not a torch.optim.Optimizer")
    return found


def nearest(word: str, known: list[str]) -> str:
    """Return a hint that offers the known names nearest to `word`, or else all of them."""
    names = {name.lower(): name for name in reversed(known)}
    close = [names[name] for name in difflib.get_close_matches(word.lower(), names)]
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(known)}"


def describe(error: Exception) -> str:
    """Return an exception's own message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def try_optimizers(specs: dict[str, Spec], trial: Callable[[dict[str, Spec]], object]) -> None:
    """Call `trial` with one spec at a time; ValueError passes on why one fails."""
    # The first optimizer makes torch import its compiler: with what is here already, some
    # 300,000 objects that live until the end. A garbage collector that walks over them again
    # and again, and once more at exit, costs a fifth of the start-up time.
    gc.disable()
    try:
        for label, spec in specs.items():
            trial({label: spec})
    except Exception as error:  # whatever an optimizer may raise
        raise ValueError(f"{spec.call} does not work here: {describe(error)}") from error
    finally:
        gc.freeze()
        gc.enable()


# ---------------------------------------------------------------- numbers and paths


def positive_int(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text[:20]) < 2**63):  # what torch can take
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def positive_float(text: str) -> float:
    if not 0 < _number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0")
    return float(text)


def non_negative_float(text: str) -> float:
    if not 0 <= _number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number of 0 or more")
    return float(text)


def finite_float(text: str) -> float:
    if not math.isfinite(_number(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return float(text)


def check_lr(lr: Any) -> None:
    if isinstance(lr, int | float) and not 0 < lr < math.inf:
        raise ValueError(f"lr={lr} is not a finite learning rate above 0")


def seed(text: str) -> int:
    try:
        torch.Generator().manual_seed(int(text))
    except (ValueError, RuntimeError):
        limits = "a whole number from -2**63 to 2**64 - 1"
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed: {limits}") from None
    return int(text)


def device(text: str) -> str:
    """A device that torch has here."""
    try:
        torch.zeros(1, device=text)
    except Exception as error:  # torch has many ways to say no
        reason = describe(error).split(". ")[0]
        raise argparse.ArgumentTypeError(f"torch has no device {text!r} here: {reason}") from None
    return text


def output_path(text: str) -> Path:
    """A path to write: in a folder that exists and can be written, over no folder or device."""
    path = Path(text)
    if path.exists() and not path.is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not a file")
    try:
        tempfile.TemporaryFile(dir=path.resolve().parent).close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: {error.strerror}") from None
    return path


def figure_path(text: str) -> Path:
    """A path to write whose extension is a figure format that matplotlib knows."""
    formats = FigureCanvasBase.get_supported_filetypes()
    if Path(text).suffix[1:].lower() not in formats:
        known = ", ".join(sorted(formats))
        raise argparse.ArgumentTypeError(f"{text!r} has no figure format of these: {known}")
    return output_path(text)


def animation_path(text: str) -> Path:
    """A path to write whose extension is an animation format that can be made here."""
    try:
        animation_writer(Path(text), fps=1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return output_path(text)


# ---------------------------------------------------------------- the parser and the run


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, and which has the options of every script."""

    def __init__(self, description: str, examples: str):
        super().__init__(
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add(self, flag: str, kind: Callable[[str], Any], default: Any, text: str) -> None:
        """Add an option that takes one value and says its default."""
        help_text = f"{text} (default: {default})"
        self.add_argument(flag, type=kind, default=default, help=help_text)

    def add_optimizers(self, default: list[str], which: str) -> None:
        self.add_argument(
            "--optimizers",
            nargs="+",
            metavar="SPEC",
            default=default,
            help="[LABEL=]NAME[(keyword=literal, ...)], where NAME is SGD, Momentum, RMSprop or "
            "Adam as in the tutorial, any class of torch.optim, or module.Class of an installed "
            f"package or a file of yours (default: {which})",
        )

    def add_training_options(
        self, epochs: int, batch_size: int | None, samples: int, noise: float
    ) -> None:
        self.add("--epochs", positive_int, epochs, "passes over the data")
        if batch_size:
            self.add("--batch-size", positive_int, batch_size, "samples a step, or all there are")
        self.add("--samples", positive_int, samples, "size of the training set")
        self.add("--noise", non_negative_float, noise, "standard deviation of y about its curve")

    def add_target(self, target: float) -> None:
        self.add(
            "--target",
            positive_float,
            target,
            "mini-batch loss, as a mean over an epoch's worth of steps, whose first step below it "
            "the table tells",
        )

    def add_common_options(self, default_seed: int, default_output: str) -> None:
        self.add("--seed", seed, default_seed, "fixes all that is random")
        self.add("--output", figure_path, default_output, "the figure; its extension is its format")
        self.add_argument("--csv", type=output_path, help="also write the numbers of the figure")
        self.add_argument("--no-show", action="store_true", help="open no window")

    def check_seeds(self, first: int, count: int) -> None:
        """Refuse seeds that torch cannot take."""
        try:
            seed(str(first + count - 1))
        except argparse.ArgumentTypeError as error:
            self.error(f"--seed and --seeds: {error}")

    def parse(self, argv: list[str] | None) -> argparse.Namespace:
        """Parse a command line that has the common options."""
        arguments = self.parse_args(argv)
        paths = [path for path in vars(arguments).values() if isinstance(path, Path)]
        if len({path.resolve() for path in paths}) < len(paths):
            self.error(f"two outputs name the same file among {', '.join(map(str, paths))}")
        if arguments.no_show:
            matplotlib.use("agg")
        return arguments

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


ONE_BY_ONE = "{}: trained net by net, as a stack of nets would not train like each alone"


def layout(optimizers: dict[str, Spec], *widths: int) -> str:
    """Return a format for a table's rows: label and call to the left, the others to the right."""
    label_width = max(map(len, ["optimizer", *optimizers]))
    call_width = max(len(spec.call) for spec in optimizers.values())
    others = "".join(f"  {{:>{width}}}" for width in widths)
    return f"{{:{label_width}}}  {{:{call_width}}}{others}"


def format_quartiles(quartiles: Iterable[float], kind: str) -> str:
    """Return `median [lower, upper]`, with a dash for infinity."""
    low, median, high = (format(x, kind) if x < math.inf else "-" for x in map(float, quartiles))
    return f"{median} [{low}, {high}]"


def progress(
    label: str, unit: str = "epoch", patience: float = 2.0
) -> Callable[[range], Iterator[int]]:
    """Return a wrapper of a range that shows on a terminal how far it has come.

    It starts to do so after `patience` seconds and leaves nothing behind.
    """

    def steps(numbers: range) -> Iterator[int]:
        start = time.perf_counter()
        shown = False
        try:
            for number in numbers:
                if sys.stderr.isatty() and time.perf_counter() - start > patience:
                    shown = True
                    print(
                        f"\r{label}: {unit} {number + 1} of {len(numbers)}", end="", file=sys.stderr
                    )
                    sys.stderr.flush()
                yield number
        finally:
            if shown:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    return steps


# Many nets advance by an epoch of all, or one by one by a net.
progress_of_many = partial(progress, unit="part")


def write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple]) -> None:
    """Write a CSV whole or not at all. Floats are written so that they read back exactly."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def finish(
    arguments: argparse.Namespace,
    figure: Figure,
    header: tuple[str, ...],
    rows: Iterable[tuple],
    interrupted: bool,
) -> int:
    """Save the figure and the CSV, say where, open a window; return the exit status."""
    save_figure(figure, arguments.output)
    print(f"saved {arguments.output}")
    if arguments.csv:
        write_csv(arguments.csv, header, rows)
        print(f"saved {arguments.csv}")
    if interrupted:
        print("interrupted: what had finished is saved", file=sys.stderr)
        return 130
    show_figure(figure)
    return 0


def run(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` and exit with its status; Ctrl-C outside its work ends it quietly."""
    try:
        status = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted: nothing is saved", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)
