"""The options that several scripts share."""

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

from lab.command_line.parser import Parser
from lab.command_line.specs import texts_of
from lab.command_line.types import (
    dask_address,
    device_type,
    finite_float,
    folder_path,
    positive_float,
    positive_int,
)
from lab.training.verdicts import EQUAL

from settings import LR, OPTIMIZERS, TASK
from tasks import TASKS

TASK_HELP = 'as spirals, or "spirals(noise=0.3)" in quotes, or my_file.my_task; list shows them'


def add_optimizers(parser: Parser, default: Mapping[str, str], which: str) -> None:
    parser.add_argument(
        "--optimizers",
        nargs="+",
        metavar="NAME",
        default=texts_of(default),
        help=f'as SGD Adam, or "AdamW(lr=0.1)" in quotes, or my_file.MyClass; "mine=Adam(lr=0.1)" '
        'has a label; "Adam + StepLR(step_size=4)" has a schedule; "Muon(lr=0.02) | '
        'AdamW(lr=0.003)" has the first move matrices of hidden layers, the second the rest: in a '
        "sweep the "
        "ratio of their rates stays, or the rate that the second alone names. today: those since "
        f"2020. Names are those of settings.py ({', '.join(OPTIMIZERS)}), of torch.optim and its "
        f"lr_scheduler (default: {which})",
    )


def add_lr(parser: Parser) -> None:
    parser.add(
        "--lr",
        positive_float,
        LR,
        "the learning rate, where a NAME in brackets has no lr of its own",
    )


def add_task(parser: Parser, has_epochs: bool = True, default: str = TASK) -> None:
    """Add what is learned: a task, and what may take the place of its own settings."""
    parser.add_argument(
        "--task",
        action=TaskNames,
        default=default,
        metavar="NAME",
        help=f"the problem, data and net and loss: {TASK_HELP} (default: {default})",
    )
    if has_epochs:
        text = "how often to go through the data (default: the task's own)"
        parser.add_argument("--epochs", type=positive_int, help=text)
    parser.add("--device", device_type, "cpu", "where to train: cpu, cuda or mps")
    add_rotate(parser)


def add_tasks(parser: Parser, default: Sequence[str] = ("all",), may_turn: bool = True) -> None:
    parser.add_argument(
        "--tasks",
        action=TaskNames,
        nargs="+",
        metavar="NAME",
        default=list(default),
        help=f"the problems, data and net and loss: {TASK_HELP} (default: {' '.join(default)})",
    )
    if may_turn:
        add_rotate(parser)


def add_rotate(parser: Parser) -> None:
    text = "turn the axes: each number that an optimizer moves is a mixture of all weights"
    parser.add_argument("--rotate", action="store_true", help=text)


def turned_by(options: argparse.Namespace) -> int | None:
    """Return the seed of the rotation, None if the axes stay as they are."""
    return options.seed if getattr(options, "rotate", False) else None


class TaskNames(argparse.Action):
    """Takes the names of tasks; for `list` it shows them all, and ends."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option: str | None = None,
    ) -> None:
        if values == "list" or (isinstance(values, list) and "list" in values):
            width = max(map(len, TASKS))
            print(*(f"{name:{width}}  {TASKS[name].lesson}" for name in TASKS), sep="\n")
            parser.exit(0)
        setattr(namespace, self.dest, values)


def add_batch_size(parser: Parser) -> None:
    text = "how many samples to take for a step (default: the task's own)"
    parser.add_argument("--batch-size", type=positive_int, help=text)


def add_lr_range(parser: Parser, low: float, high: float, count: int) -> None:
    """Add the grid of learning rates."""
    parser.add_argument(
        "--lr-range",
        type=positive_float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=(low, high),
        help=f"the lowest and the highest learning rate to try (default: {low:g} {high:g})",
    )
    text = "how many to try, each the same factor above the last"
    parser.add("--lr-count", positive_int, count, text)


def add_target(parser: Parser) -> None:
    text = (
        "the column `steps to` counts the steps until the training loss, as a mean over an epoch, "
        "is below this (default: the task's own)"
    )
    parser.add_argument("--target", type=finite_float, help=text)


def add_seeds(parser: Parser, default: int) -> None:
    text = "how many times to train, each time from another random seed"
    parser.add("--seeds", positive_int, default, text)


def add_curves(parser: Parser) -> None:
    """Add how losses are drawn."""
    text = "losses over held-out and training data after each epoch, in the figure and the CSV"
    parser.add_argument("--held-out", action="store_true", help=text)
    parser.add_argument("--log", action="store_true", help="a logarithmic axis of losses")
    text = "a line is the mean of the last N steps; 1: each by itself (default: those of an epoch)"
    parser.add_argument("--smooth", type=positive_int, metavar="N", help=text)
    text = "what losses are drawn against: steps (the default), epochs or seconds"
    parser.add_argument("--x", choices=("steps", "epochs", "seconds"), default="steps", help=text)


def add_judges(parser: Parser, default: int, choosing: int, has_equal: bool = True) -> None:
    """Add how many seeds choose the rates, how many others judge, and what is equal."""
    text = "at each rate, how many times to train, each time from another seed: these choose a rate"
    parser.add("--seeds", positive_int, choosing, text)
    text = "how many other seeds judge the optimizers, each at the rate that was chosen"
    parser.add("--judges", positive_int, default, text)
    if has_equal:
        text = "the share by which two losses may differ and be called equal"
        parser.add("--equal", positive_float, EQUAL, text)


def judges_of(options: argparse.Namespace) -> range:
    """Return the seeds that judge: those after the ones that choose."""
    first = options.seed + options.seeds
    return range(first, first + options.judges)


def seeds_of(options: argparse.Namespace) -> range:
    """Return the seeds that the options name."""
    return range(options.seed, options.seed + options.seeds)


def add_jobs(parser: Parser) -> None:
    """Add where the work is done, and where it is kept."""
    parser.add("--jobs", positive_int, n_cores(), "how many processes share work that takes long")
    text = "a Dask scheduler whose workers do that work, as tcp://HOST:8786"
    parser.add_argument("--dask", type=dask_address, metavar="ADDRESS", help=text)
    text = "a folder that keeps each training: what is there is not trained again"
    parser.add_argument("--keep", type=folder_path, metavar="FOLDER", help=text)


def n_cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
