"""The command line: a parser, the options that scripts share, and the types of their words."""

import argparse
import importlib.util
import inspect
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, wraps
from pathlib import Path
from typing import Any, NoReturn

from lab.movies import writer_for
from lab.specs import describe, nearest, parse_task
from lab.trainings import check_task

import matplotlib
import matplotlib.pyplot as plt
import torch
from matplotlib.backend_bases import FigureCanvasBase
from torch.utils.data import TensorDataset

import settings
from tasks import TASKS, Task

TASK_HELP = (
    "NAME[(keyword=literal, ...)], where NAME is one of tasks.py or module.name of a file of "
    "yours; list shows them all"
)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, with the options that every script has."""

    def __init__(self, description: str, examples: str, output: str):
        super().__init__(
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        # A number like -1e-3 is a value, not an option (argparse before Python 3.14 lacks the e).
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
        self.add("--seed", seed, settings.SEED, "fixes all that is random")
        self.add("--output", figure_path, output, "the figure; its extension is its format")
        self.add_argument("--csv", type=output_path, help="also write the numbers of the figure")
        self.add_argument(
            "--style",
            type=style,
            metavar="NAME",
            help="a style sheet of matplotlib or a file of yours; dark: for slides that are dark",
        )
        self.add_argument("--no-show", action="store_true", help="open no window")

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
            help="[LABEL=]NAME[(keyword=literal, ...)][ + SCHEDULE(...)], where NAME is one of "
            f"settings.py ({', '.join(settings.OPTIMIZERS)}), any class of torch.optim, or "
            "module.Class of an installed package or a file of yours, and SCHEDULE a class of "
            f"torch.optim.lr_scheduler, or likewise (default: {which})",
        )

    def add_lr(self) -> None:
        self.add("--lr", positive_float, settings.LR, "learning rate where a SPEC names none")

    def add_task(self) -> None:
        """Add what is learned: a task, and what may take the place of its own settings."""
        self.add("--task", str, settings.TASK, f"what is learned: {TASK_HELP}")
        text = "instead of the task's own"
        self.add_argument("--epochs", type=positive_int, help=f"passes over the data, {text}")
        self.add("--device", device, "cpu", "where to train: cpu, cuda, mps")

    def add_tasks(self) -> None:
        self.add_argument(
            "--tasks",
            nargs="+",
            metavar="TASK",
            default=["all"],
            help=f"what is learned: all of tasks.py (the default), or {TASK_HELP}",
        )

    def add_jobs(self) -> None:
        """Add where the work is done."""
        self.add("--jobs", positive_int, n_cores(), "processes, each with one thread")
        text = "a Dask scheduler that is running: its workers do the work (needs distributed)"
        self.add_argument("--dask", type=dask_address, metavar="ADDRESS", help=text)

    def add_compile(self) -> None:
        """Add whether to compile; `parse` makes it True, False, or None for auto."""
        self.add_argument(
            "--compile",
            choices=COMPILE,
            default="auto",
            help="compile what many nets do at each step, which needs a C++ compiler: faster, but "
            "for the first 5 to 20 seconds; auto does where the work is worth it (default: auto)",
        )

    def add_batch_size(self) -> None:
        text = "samples a step, or all there are, instead of the task's own"
        self.add_argument("--batch-size", type=positive_int, help=text)

    def add_lr_range(self, low: float, high: float, count: int) -> None:
        """Add the grid of learning rates."""
        self.add_argument(
            "--lr-range",
            type=positive_float,
            nargs=2,
            metavar=("LOW", "HIGH"),
            default=(low, high),
            help=f"ends of the grid of learning rates (default: {low:g} {high:g})",
        )
        self.add("--lr-count", positive_int, count, "learning rates, at equal ratios")

    def add_target(self) -> None:
        text = (
            "a loss, instead of the task's own; the table tells the first step at which the loss, "
            "averaged over the steps of an epoch, is below it"
        )
        self.add_argument("--target", type=positive_float, help=text)

    def add_seeds(self, default: int) -> None:
        text = "train from so many seeds, --seed and those that follow it"
        self.add("--seeds", positive_int, default, text)

    def parse(self, argv: list[str] | None) -> argparse.Namespace:
        """Parse the words, and refuse what their types cannot see.

        Where there is a `task`, it is a Task in the end, with the other options' settings.
        """
        options = self.parse_args(argv)
        if options.style:
            plt.style.use(options.style)
        paths = [path for path in vars(options).values() if isinstance(path, Path)]
        if len({path.resolve() for path in paths}) < len(paths):
            self.error(f"two outputs name the same file among {', '.join(map(str, paths))}")
        try:
            seed(str(options.seed + getattr(options, "seeds", 1) - 1))
        except argparse.ArgumentTypeError as error:
            self.error(f"--seed and --seeds: {error}")
        if "list" in (getattr(options, "task", None), *getattr(options, "tasks", ())):
            width = max(map(len, TASKS))
            print(*(f"{name:{width}}  {TASKS[name].lesson}" for name in TASKS), sep="\n")
            self.exit(0)
        if hasattr(options, "task"):
            with self.refusing():
                options.task = self.find_task(options, options.task)
        elif hasattr(options, "tasks"):
            options.tasks = self._find_tasks(options)
        else:
            self._check_size(options)
        if hasattr(options, "compile"):
            options.compile = COMPILE[options.compile]
        if options.no_show:
            matplotlib.use("agg")
        return options

    def _find_tasks(self, options: argparse.Namespace) -> dict[str, Task]:
        """Return the tasks that `options.tasks` name, each once; of all, those that are here."""
        tasks = {}
        for text in options.tasks:
            for name in TASKS if text == "all" else [text]:
                try:
                    tasks[name] = self.find_task(options, name)
                except (ValueError, RuntimeError, MemoryError) as error:
                    if text != "all":
                        self.error(str(error))
                    print(f"left out: {error}", file=sys.stderr)
        return tasks

    def find_task(self, options: argparse.Namespace, text: str) -> Task:
        """Return the Task of that name, checked, with the options' own settings."""
        options, own = argparse.Namespace(**vars(options)), {}
        for name in ("epochs", "batch_size", "target"):
            if getattr(options, name, None) is not None:
                own[name] = getattr(options, name)
        task = replace(parse_task(text), **own)
        device = getattr(options, "device", "cpu")
        options.task = replace(task, make_data=data_on(device, task.make_data))
        samples = inspect.signature(task.make_data).parameters.get("samples")
        if samples and isinstance(samples.default, int):
            self._check_size(options, samples.default)  # before there are any
        try:
            check_task(options.task, options.seed)
        except ValueError as error:
            raise ValueError(f"task {text}: {error}") from None
        self._check_size(options, *sizes_of(options.task, options.seed))
        return options.task

    def _check_size(self, options: argparse.Namespace, n_samples: int = 0, *sizes: float) -> None:
        """Refuse what would need more memory than there is; `sizes` are those of memory_needed."""
        needed, there = memory_needed(options, n_samples, *sizes), available_memory()
        if needed > 0.8 * there:
            counts = {name: getattr(options, name, None) or 0 for name in USUAL}
            counts["samples"] = n_samples
            largest = max(counts, key=lambda name: counts[name] / USUAL[name])
            word = f"--{largest.replace('_', '-')} {counts[largest]}"
            if largest == "samples":
                word = f"--task, of {n_samples} samples"
            gigabytes = f"{needed / 1e9:.3g} GB of memory, and there are {there / 1e9:.3g}"
            self.error(f"{word}: this would need about {gigabytes}")

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Say what is refused in the block, and why, in one line; exit with 2."""
        try:
            yield
        except (ValueError, RuntimeError, MemoryError) as error:  # torch's own are RuntimeErrors
            self.error(str(error))

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


COMPILE = {"yes": True, "no": False, "auto": None}
USUAL = {"samples": 1000, "seeds": 10, "lr_count": 10, "epochs": 10, "steps": 50}
LOADED = 100  # bytes for each sample while one is served: a loader's lists


def sizes_of(task: Task, seed: int) -> tuple[int, float, int]:
    """Return the number of training samples, the bytes of data for each, and of parameters."""
    train, held_out = task.make_data(seed)
    n_bytes = sum(tensor.nbytes for tensor in (*train.tensors, *held_out.tensors))
    n_parameters = sum(param.numel() for param in task.make_net().parameters())
    return len(train), n_bytes / len(train), n_parameters


def memory_needed(
    options: argparse.Namespace,
    n_samples: int = 0,
    sample_bytes: float = 0,
    n_parameters: int = 0,
) -> float:
    """Return about how many bytes a script needs for what its options ask for."""
    n_optimizers = len(getattr(options, "optimizers", [""]))
    n_seeds = getattr(options, "seeds", 1)
    n_trainings = n_seeds * getattr(options, "lr_count", 1)
    # All losses are kept, but where batch sizes are compared: there only one an epoch.
    steps = getattr(options, "steps", 1)
    if n_samples:
        steps = options.task.epochs
        if hasattr(options, "batch_size"):
            steps *= math.ceil(n_samples / options.task.batch_size)
    data = max(LOADED, sample_bytes) * n_samples * n_seeds
    return data + n_trainings * (20_000 + 40 * n_parameters + 60 * steps * n_optimizers)


def data_on(device: str, make_data: Callable) -> Callable:
    """Return `make_data` with its data on the device, made once for each seed."""

    @cache
    @wraps(make_data)
    def make(seed: int, **keywords: Any) -> Any:
        data = make_data(seed, **keywords)
        if device == "cpu":
            return data
        return tuple(
            TensorDataset(*(tensor.to(device) for tensor in dataset.tensors)) for dataset in data
        )

    return make


def n_cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> float:
    """Return how many bytes of memory are free; infinity where the system does not tell."""
    try:
        with Path("/proc/meminfo").open() as lines:
            kilobytes = dict(line.split(":") for line in lines)["MemAvailable"]
        return 1024 * float(kilobytes.split()[0])
    except (OSError, KeyError, ValueError):
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return math.inf


# ---------------------------------------------------------------- types


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


def one_of(names: list[str], what: str) -> Callable[[str], str]:
    """Return a type that takes one of the names; `what` they name is said where it is none."""

    def name(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"unknown {what} {text!r}{nearest(text, names)}")
        return text

    return name


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


def dask_address(text: str) -> str:
    """The address of a Dask scheduler, where its package is installed."""
    if importlib.util.find_spec("distributed") is None:
        raise argparse.ArgumentTypeError("it needs a package: pip install distributed")
    if not re.fullmatch(r"(\w+://)?[^\s/]+:\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address, such as tcp://HOST:8786")
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


def style(text: str) -> str:
    """A style sheet that matplotlib knows, or the path of one."""
    name = "dark_background" if text == "dark" else text
    try:
        with plt.style.context(name):
            return name
    except (OSError, ValueError):
        known = ["dark", *plt.style.available]
        hint = nearest(text, known)
        raise argparse.ArgumentTypeError(f"{text!r} is no style sheet and no file{hint}") from None


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
        writer_for(Path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return output_path(text)


def page_path(text: str) -> Path:
    """A path to write that a browser opens as a page."""
    if Path(text).suffix.lower() != ".html":
        raise argparse.ArgumentTypeError(f"{text!r} is no .html")
    return output_path(text)
