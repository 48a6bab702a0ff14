"""One optimizer on one task, at every learning rate from every seed: a job, and what came of it."""

import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from lab.outcome import Outcome, describe, hushed
from lab.training.adapt import MakeOptimizer
from lab.training.runs import Runs, trainings_of
from lab.training.sweeps import Sweep, SweepSummary, sweep
from lab.training.train import train_all

import torch
from torch import Tensor

from tasks import Task


@dataclass(frozen=True)
class TaskJob:
    """One optimizer on one task, at every learning rate from every seed.

    The task, or what makes it: each worker calls that, so that tasks whose functions cannot be
    pickled are found by their names.
    """

    task: Task | Callable[[], Task]
    make_optimizer: MakeOptimizer
    lrs: tuple[float, ...]
    seeds: tuple[int, ...]


@dataclass
class TaskResult(Outcome):
    """What became of a job."""

    sweep: SweepSummary
    default_lr: float | None = None  # the optimizer's own
    default_losses: Tensor | None = None  # held out (seeds,), at that learning rate
    lr_history: list[float] = field(default_factory=list)  # at each step, from the best lr on
    seconds: float = 0.0


TORCH_GLOBALS_LOCK = threading.Lock()  # torch's generator and number of threads are a process's


def run_job(job: TaskJob) -> TaskResult:
    """Train what the job names, on one thread of torch's."""
    with TORCH_GLOBALS_LOCK:
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with hushed():
                return _run_job(job)
        finally:
            torch.set_num_threads(n_threads)


def _run_job(job: TaskJob) -> TaskResult:
    task = job.task if isinstance(job.task, Task) else job.task()
    runs = sweep(task, trainings_of(task, job.seeds, job.lrs), job.make_optimizer)
    swept = Sweep(runs)
    result = TaskResult(
        error=sendable(runs),
        stopped=runs.note,
        remarks=runs.remarks,
        sweep=swept.summary(),
        default_lr=default_lr_of(job.make_optimizer),
        lr_history=swept.lr_history(),
        seconds=runs.seconds,
    )
    if runs.error or result.default_lr is None:
        return result
    if result.default_lr in swept.lrs:
        result.default_losses = swept.held_out_losses[swept.lrs.index(result.default_lr)]
    else:
        trainings = trainings_of(task, job.seeds, [result.default_lr])
        at_default = train_all(task, trainings, job.make_optimizer)
        result.default_losses = at_default.held_out_losses
        result.seconds += at_default.seconds
    return result


def sendable(runs: Runs) -> BaseException | None:
    """Return what ended the runs as an exception that any process can read."""
    if runs.error is None or runs.interrupted:
        return runs.error
    return RuntimeError(describe(runs.error))


def default_lr_of(make_optimizer: MakeOptimizer) -> float | None:
    """Return the learning rate that an optimizer has if none is named; None if there is none."""
    named = getattr(make_optimizer, "optimizer_class", make_optimizer)
    lr = inspect.signature(named).parameters.get("lr")
    return float(lr.default) if lr and isinstance(lr.default, int | float) else None
