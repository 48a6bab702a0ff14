"""The options that several scripts share."""

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

from lab.command_line.parser import Parser
from lab.command_line.specs import texts_of
from lab.command_line.types import dask_address, device_type, positive_float, positive_int

from settings import LR, OPTIMIZERS, TASK
from tasks import TASKS

TASK_HELP = (
    "NAME[(keyword=literal, ...)], where NAME is one of tasks.py or module.name of a file of "
    "yours; list shows them all"
)


def add_optimizers(parser: Parser, default: Mapping[str, str], which: str) -> None:
    parser.add_argument(
        "--optimizers",
        nargs="+",
        metavar="SPEC",
        default=texts_of(default),
        help="[LABEL=]NAME[(keyword=literal, ...)][ + SCHEDULE(...)], where NAME is one of "
        f"settings.py ({', '.join(OPTIMIZERS)}), any class of torch.optim, or "
        "module.Class of an installed package or a file of yours, and SCHEDULE a class of "
        f"torch.optim.lr_scheduler, or likewise (default: {which})",
    )


def add_lr(parser: Parser) -> None:
    parser.add("--lr", positive_float, LR, "learning rate where a SPEC names none")


def add_task(parser: Parser) -> None:
    """Add what is learned: a task, and what may take the place of its own settings."""
    parser.add_argument(
        "--task",
        action=TaskNames,
        default=TASK,
        help=f"what is learned: {TASK_HELP} (default: {TASK})",
    )
    text = "passes over the data, instead of the task's own"
    parser.add_argument("--epochs", type=positive_int, help=text)
    parser.add("--device", device_type, "cpu", "where to train: cpu, cuda, mps")


def add_tasks(parser: Parser) -> None:
    parser.add_argument(
        "--tasks",
        action=TaskNames,
        nargs="+",
        metavar="TASK",
        default=["all"],
        help=f"what is learned: all of tasks.py (the default), or {TASK_HELP}",
    )


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
    text = "samples a step, or all there are, instead of the task's own"
    parser.add_argument("--batch-size", type=positive_int, help=text)


def add_lr_range(parser: Parser, low: float, high: float, count: int) -> None:
    """Add the grid of learning rates."""
    parser.add_argument(
        "--lr-range",
        type=positive_float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=(low, high),
        help=f"ends of the grid of learning rates (default: {low:g} {high:g})",
    )
    parser.add("--lr-count", positive_int, count, "learning rates, at equal ratios")


def add_target(parser: Parser) -> None:
    text = (
        "a loss, instead of the task's own; the table tells the first step at which the loss, "
        "averaged over the steps of an epoch, is below it"
    )
    parser.add_argument("--target", type=positive_float, help=text)


def add_seeds(parser: Parser, default: int) -> None:
    text = "train from so many seeds, --seed and those that follow it"
    parser.add("--seeds", positive_int, default, text)


def seeds_of(options: argparse.Namespace) -> range:
    """Return the seeds that the options name."""
    return range(options.seed, options.seed + options.seeds)


def add_jobs(parser: Parser) -> None:
    """Add where the work is done."""
    parser.add("--jobs", positive_int, n_cores(), "processes, each with one thread")
    text = "a Dask scheduler that is running: its workers do the work (needs distributed)"
    parser.add_argument("--dask", type=dask_address, metavar="ADDRESS", help=text)


def n_cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
