"""One optimizer on one task, at every learning rate from every seed: what came of it."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lab.outcome import Outcome, Progress, no_progress
from lab.training.adapt import MakeOptimizer
from lab.training.runs import Training
from lab.training.sweeps import SweepSummary, choose_and_judge
from lab.training.train import Alone, train_all

from torch import Tensor

from tasks import Task


class Place(NamedTuple):
    """Where a result stands in the table."""

    task: str
    optimizer: str

    def __str__(self) -> str:
        return f"{self.optimizer} on {self.task}"


@dataclass
class TaskResult(Outcome):
    """What became of a job."""

    sweep: SweepSummary
    default_lr: float | None = None  # the optimizer's own
    default_losses: Tensor | None = None  # held out (seeds,), at that learning rate
    lr_history: list[float] = field(default_factory=list)  # at each step, from the best lr on
    seconds: float = 0.0


def try_rates(
    task: Task,
    trainings: Sequence[Training],
    make_optimizer: MakeOptimizer,
    progress: Progress = no_progress,
    crew: Alone | None = None,
) -> TaskResult:
    """Train them all, as `choose_and_judge` does, and each seed at the optimizer's own rate."""
    swept = choose_and_judge(task, trainings, make_optimizer, progress, crew)
    result = TaskResult(
        error=swept.error,
        stopped=swept.note,
        remarks=swept.remarks,
        sweep=swept.summary(),
        default_lr=default_lr_of(make_optimizer),
        lr_history=swept.lr_history(),
        seconds=swept.seconds,
    )
    if swept.error or result.default_lr is None:
        return result
    if result.default_lr in swept.lrs:
        result.default_losses = swept.held_out_losses[swept.lrs.index(result.default_lr)]
        return result
    first = [training for training in trainings if training.lr == trainings[0].lr]
    again = [replace(training, lr=result.default_lr) for training in first]
    at_default = train_all(task, again, make_optimizer, progress, crew=crew)
    result.seconds += at_default.seconds
    if at_default.error:
        result.error, result.stopped = at_default.error, at_default.stopped
    else:
        result.default_losses = at_default.held_out_losses
    return result


def default_lr_of(make_optimizer: MakeOptimizer) -> float | None:
    """Return the learning rate that an optimizer has if none is named; None if there is none."""
    named = getattr(make_optimizer, "optimizer_class", make_optimizer)
    lr = inspect.signature(named).parameters.get("lr")
    return float(lr.default) if lr and isinstance(lr.default, int | float) else None
