"""The tasks that are named on the command line, with the options' own settings, and checked."""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial, wraps
from typing import Any

from lab.command_line.memory import check_memory_of_task
from lab.command_line.options import turned_by
from lab.command_line.specs import parameters_of, parse_task
from lab.outcome import as_exceptions, hushed, place_of, refusal
from lab.training.check_data import check_same_twice, n_checked
from lab.training.checks import check_fields, check_task
from lab.training.datasets import as_tensors, first, on_device
from lab.training.pieces import recipes
from lab.training.runs import Training

import torch
from torch import Tensor

from tasks import TASKS, Task

VERY_DIFFERENT = 100.0  # standard deviations of features, one against another


def load_task(options: Namespace, name: str) -> tuple[Task, Training]:
    """Return the task of that name, and its training from the first seed, which has been checked.

    What the options set takes the place of the task's own settings. ValueError says what is wrong.
    """
    own = {
        key: getattr(options, key)
        for key in ("epochs", "batch_size", "target")
        if getattr(options, key, None) is not None
    }
    turn = turned_by(options)
    task = replace(parse_task(name, turn), **own)
    with naming(name):
        check_fields(task)
    samples = parameters_of(task.make_data).get("samples")
    if samples and isinstance(samples.default, int):
        check_memory_of_task(options, task, samples.default)  # before there are any
    device = getattr(options, "device", "cpu")
    loaded = replace(task, make_data=data_on(device, task.make_data))
    with naming(name), hushed():
        training = check_task(loaded, options.seed)
        check_same_twice(task, training)
    n_samples = len(training.dataset)
    if (n := n_checked(task, training.dataset)) < n_samples:
        print(f"task {name}: checked on {n} of {n_samples} samples")
    if "." in name.partition("(")[0]:
        print(end=remark_on_scales(name, first(task, training.dataset, 1000)[0]))
    check_memory_of_task(options, task, len(training.dataset), training)
    recipes.append((loaded, partial(make_task, name, turn, own, device)))
    return loaded, training


def make_task(name: str, turn: int | None, own: dict[str, Any], device: str) -> Task:
    """Return what `load_task` does, unchecked, in any process."""
    task = replace(parse_task(name, turn), **own)
    return replace(task, make_data=data_on(device, task.make_data))


def remark_on_scales(name: str, x: object) -> str:
    """Return a line if the features (samples, features) of a user's task differ a lot in scale."""
    if not isinstance(x, Tensor) or x.ndim != 2 or not x.is_floating_point() or len(x) < 2:
        return ""
    scales = x.std(0)
    scales = scales[scales > 0]
    if not len(scales) or scales.max() <= VERY_DIFFERENT * scales.min():
        return ""
    low, high = scales.min().item(), scales.max().item()
    return (
        f"task {name}: the standard deviations of its features go from {low:.2g} to {high:.2g}, so "
        "no learning rate suits all.\nScale them: x = (x - x.mean(0)) / x.std(0)\n"
    )


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Have a refusal say of which task it is."""
    try:
        with as_exceptions():
            yield
    except Exception as error:  # a user's own code may fail in any way
        if not place_of(error) and not isinstance(error, ValueError):
            raise
        raise ValueError(f"task {name}: {refusal(error)}") from error


def load_tasks(options: Namespace) -> dict[str, tuple[Task, Training]]:
    """Return what `load_task` does for each name once; of `all`, those that can be had here."""
    loaded = {}
    for text in options.tasks:
        for name in TASKS if text == "all" else [text]:
            try:
                loaded[name] = load_task(options, name)
            except (ValueError, RuntimeError, MemoryError) as error:
                if text != "all":
                    raise
                print(f"left out: {error}", file=sys.stderr)
    return loaded


def those_that_pass(
    options: Namespace,
    tasks: dict[str, tuple[Task, Training]],
    check: Callable[[Task, Training], object],
) -> dict[str, tuple[Task, Training]]:
    """Return the tasks on which a check raises no ValueError; one that is named has to pass it."""
    passed: dict[str, tuple[Task, Training]] = {}
    for name, (task, training) in tasks.items():
        try:
            check(task, training)
        except ValueError as error:
            if name in options.tasks or (not passed and name == [*tasks][-1]):
                raise ValueError(f"task {name}: {error}") from error
            print(f"left out: task {name}: {error}", file=sys.stderr)
        else:
            passed[name] = task, training
    return passed


def data_on(
    device: str, make_data: Callable[..., tuple[Any, Any]]
) -> Callable[..., tuple[Any, Any]]:
    """Return `make_data` with its data on the device, made once for each seed."""

    @cache
    @wraps(make_data)
    def make(seed: int, **keywords: Any) -> tuple[Any, Any]:
        data = make_data(seed, **keywords)
        if device == "cpu":
            return data
        train, held_out = (on_device(as_tensors(part), torch.device(device)) for part in data)
        return train, held_out

    return make
