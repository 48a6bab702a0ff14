"""What can be refused of a task's data before any work."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from lab.outcome import as_exceptions, describe
from lab.training.datasets import (
    IMPORTABLE,
    as_tensors,
    collated,
    first,
    holds_tensors,
    is_of_workers,
    is_plain,
    loader_of,
    make_datasets,
    moved,
    parts_of,
)
from lab.training.runs import Training

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import IterableDataset, TensorDataset

from tasks import Task

MAX_SAMPLES = 10_000  # of each data set: more are not looked at
MAX_SERVED = 500  # of those that are not tensors: each may be read from a file


def checked_data(task: Task, seed: int) -> tuple[Any, Any]:
    """Return the data of a seed; refuse what is not two sets of finite x and y."""
    training_set, held_out = data = made_data(task, seed)
    if not all(map(len, data)):
        raise ValueError("one of its data sets is empty")
    if all(map(is_plain, data)):
        check_tensors(training_set, held_out)
    else:
        for dataset in data:
            check_served(task, dataset)
    return data


def made_data(task: Task, seed: int) -> tuple[Any, Any]:
    """Return the data of a seed; refuse what is not two map-style data sets."""
    data: Any
    try:
        with as_exceptions():
            data = task.make_data(seed)
    except Exception as error:  # a user's own function may fail in any way
        raise ValueError(f"its data cannot be made: {describe(error)}") from error
    if not (isinstance(data, tuple | list) and len(data) == 2 and all(map(is_map_style, data))):
        raise ValueError(
            "make_data(seed) has to return two data sets, as two TensorDatasets, each of x and y, "
            "or others with a length that give one (x, y) for each number"
        )
    dataset, held_out = map(as_tensors, data)
    return dataset, held_out


def is_map_style(dataset: object) -> bool:
    if isinstance(dataset, TensorDataset):
        return len(dataset.tensors) == 2
    has_all = all(hasattr(dataset, name) for name in ("__len__", "__getitem__"))
    return has_all and not isinstance(dataset, Tensor | dict | str | IterableDataset)


def check_served(task: Task, dataset: Any) -> None:
    """Refuse samples that are not (x, y), or do not make a mini-batch."""
    try:
        with as_exceptions():
            batch = collated(task, dataset, 2)
    except Exception as error:
        raise ValueError(f"its data cannot be served: {describe(error)}") from error
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ValueError(
            f"its data serve mini-batches that are a {type(batch).__name__}, and not (x, y): write "
            "a collate_fn"
        )


def check_tensors(training_set: TensorDataset, held_out: TensorDataset) -> None:
    """Refuse tensors that do not match or are not finite."""
    for name, one, other in zip("xy", training_set.tensors, held_out.tensors, strict=True):
        if one.shape[1:] != other.shape[1:] or one.dtype != other.dtype:
            raise ValueError("its data sets, for training and held out, are not of one shape")
        for tensor in (one, other):
            if not (finite := tensor.isfinite()).all():
                rows = (~finite.reshape(len(tensor), -1)).any(1)
                raise ValueError(
                    f"its data are not all finite: {name} has nan or infinity in {int(rows.sum())} "
                    f"of {len(rows)} rows, first in row {int(rows.int().argmax())}"
                )


def n_checked(task: Task, dataset: Any) -> int:
    """Return how many of a data set's samples are looked at."""
    return min(len(dataset), MAX_SAMPLES if holds_tensors(task, dataset) else MAX_SERVED)


def served(task: Task, dataset: Any, which: str) -> Iterator[tuple[int, Any, Any]]:
    """Yield the mini-batches of the training set or the held-out set: how many samples, x, y."""

    def parts() -> Iterator[tuple[int, Any, Any]]:
        n_samples, size = len(dataset), min(task.batch_size, len(dataset))
        if which == "training":
            for k, (x, y) in enumerate(loader_of(task, dataset)):
                yield min(size, n_samples - k * size), x, y
        elif holds_tensors(task, dataset):  # it is evaluated in parts that are no smaller
            tensors = (tensor.tensor_split(n_samples // size) for tensor in dataset.tensors)
            for x, y in zip(*tensors, strict=True):
                yield len(x), x, y
        else:
            yield from parts_of(task, dataset, size)

    remaining = parts()
    while True:
        try:
            with as_exceptions():
                part = next(remaining, None)
        except Exception as error:
            cure = f"; {IMPORTABLE}" if is_of_workers(error) else ""
            raise ValueError(f"its data cannot be served: {describe(error)}{cure}") from error
        if not part:
            return
        yield part


def check_same_twice(task: Task, training: Training) -> None:
    """Refuse data that are others each time they are made from the same seed."""
    once = [seen(task, dataset) for dataset in (training.dataset, training.held_out)]
    torch.manual_seed(torch.initial_seed() + 1)  # another state than before
    again = [seen(task, dataset) for dataset in make_datasets(task, training.seed)]
    for one, other in zip(once, again, strict=True):
        if len(one) != len(other) or not all(map(is_same, one, other)):
            raise ValueError(
                f"make_data({training.seed}) returns other data each time: whatever is random "
                "in it has to come from a generator of the seed, as in data.split"
            )


def seen(task: Task, dataset: Any) -> list[object]:
    """Return how many samples a data set has, and a copy of what it serves, as far as is looked at.

    What it draws while it serves, as to augment, may come from torch's generator alone.
    """
    torch.manual_seed(0)
    n = n_checked(task, dataset) if holds_tensors(task, dataset) else task.batch_size
    part = moved(first(task, dataset, n), torch.device("cpu"))
    leaves = tree_leaves(part)
    copies = (x.clone() if isinstance(x, Tensor) else deepcopy(x) for x in leaves)
    return [len(dataset), *copies]


def is_same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    return type(a) is type(b) and a == b
