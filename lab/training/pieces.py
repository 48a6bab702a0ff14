"""A piece of work as it is handed out, and the record that comes back, or is kept, of it.

A record holds tensors and plain values only, and neither data nor nets: these are made again.
"""

import pickle
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, TypeAlias

from lab.outcome import Progress, as_exceptions, describe, hushed, no_progress
from lab.training.adapt import MakeOptimizer
from lab.training.datasets import make_datasets
from lab.training.runs import Epochs, Runs, Training
from lab.training.train import train_in_turn, try_stack

import torch

from tasks import Task

Record = dict[str, Any]
Result: TypeAlias = Runs | str  # what became of a piece, or why it cannot be trained at once

FIELDS = (  # of Runs, in a record
    *("losses", "final_losses", "held_out_losses", "weights", "steps_per_epoch", "lr"),
    *("lr_histories", "stacked", "seconds", "remarks", "epochs", "stopped", "error"),
)
TORCH_GLOBALS_LOCK = threading.Lock()  # torch's generator and number of threads are a process's

recipes: list[tuple[Task, Callable[[], Task]]] = []  # what makes a task anew, in any process


@dataclass(frozen=True)
class Piece:
    """Some trainings with one optimizer: all at once, or each for itself."""

    task: bytes  # pickled: the task, or what makes it
    make_optimizer: bytes
    starts: tuple[tuple[int, float | None, Mapping[str, Any]], ...]  # seed, lr, settings of each
    at_once: bool
    every_epoch: bool


def pickled(task: Task) -> bytes:
    """Return what any process makes the task of: its recipe, where it has one."""
    recipe = next((recipe for known, recipe in recipes if known is task), None)
    return pickle.dumps(recipe or task)


@lru_cache(maxsize=2)
def unpickled(pickled: bytes) -> Task:
    """Return the task, whose data are made once for each seed."""
    made = pickle.loads(pickled)
    task = made if isinstance(made, Task) else made()
    return replace(task, make_data=cache(task.make_data))


def run_piece(piece: Piece) -> bytes:
    """Train the piece, on one thread of torch's: return a record of each, or one of all at once.

    They come back pickled. Of a tensor multiprocessing would share the memory, by an open file for
    each: slow, and there is an end to their number.
    """
    with TORCH_GLOBALS_LOCK, one_thread(), hushed(), as_exceptions():
        task = unpickled(piece.task)
        trainings = [
            Training(seed, *make_datasets(task, seed), lr, settings)
            for seed, lr, settings in piece.starts
        ]
        make_optimizer = pickle.loads(piece.make_optimizer)
        results: list[Result] = (
            [train_stacked(task, trainings, make_optimizer, piece.every_epoch)]
            if piece.at_once
            else [train_alone(task, each, make_optimizer, piece.every_epoch) for each in trainings]
        )
        return pickle.dumps([as_record(result) for result in results])


def train_stacked(
    task: Task,
    trainings: Sequence[Training],
    make_optimizer: MakeOptimizer,
    every_epoch: bool,
    progress: Progress = no_progress,
) -> Result:
    """Train all at once; or return why that cannot be."""
    start = time.perf_counter()
    runs, reason = try_stack(task, trainings, make_optimizer, progress, every_epoch)
    if runs is None:
        return reason
    runs.seconds = time.perf_counter() - start
    return runs


def train_alone(
    task: Task,
    training: Training,
    make_optimizer: MakeOptimizer,
    every_epoch: bool,
    progress: Progress = no_progress,
) -> Runs:
    """Train one net."""
    start = time.perf_counter()
    runs = train_in_turn(task, [training], make_optimizer, progress, every_epoch)
    runs.seconds = time.perf_counter() - start
    return runs


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread of torch's in the block."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def as_record(result: Result) -> Record:
    """Return a result as any process can read it."""
    if isinstance(result, str):
        return {"reason": result}
    record = {name: getattr(result, name) for name in FIELDS}
    record["epochs"] = result.epochs and [result.epochs.losses, result.epochs.held_out]
    record["error"] = result.error and describe(result.error)
    return record


def from_record(record: Record, task: Task, trainings: Sequence[Training]) -> Result:
    """Return the result of these trainings; any exception if the record is another's."""
    if "reason" in record:
        return str(record["reason"])
    values = record | {
        "epochs": record["epochs"] and Epochs(*record["epochs"]),
        "error": record["error"] and RuntimeError(record["error"]),
    }
    if len(values["final_losses"]) != len(trainings):
        raise ValueError("it is of other trainings")
    return Runs(task, list(trainings), **values)
