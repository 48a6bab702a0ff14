"""One optimizer at many learning rates and many values of one more hyperparameter."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from lab.outcome import Progress, no_progress, saying
from lab.training.adapt import MakeOptimizer, lr_keyword, make, scratch
from lab.training.checks import take_a_step
from lab.training.hyperparameter import Hyperparameter, in_short, named
from lab.training.runs import Runs, Training, picked
from lab.training.schedules import schedulers_of
from lab.training.sharpness import curvature_of_quadratic, stable_lr
from lab.training.statistics import quartiles
from lab.training.sweeps import Sweep
from lab.training.train import Alone, train_all

import torch
from torch import Tensor

from tasks import Task


class Map(Sweep):
    """The runs of one optimizer, by value, lr and seed.

    `sweeps` has the rates at each value. As a sweep it is the one at the best `value`, that of the
    lowest median. A value that has not all rates is left out.
    """

    default: tuple[float, Any] | None = None  # the lr and the value that the optimizer has untuned
    curvature: float | None = None  # the largest eigenvalue of the Hessian, of a quadratic alone
    limits: list[float] | None = None  # there, the lr up to which each value is stable

    def __init__(self, over: Hyperparameter, runs: Runs, judging: Runs | None = None):
        self.over: Hyperparameter = over
        rows: dict[Any, list[int]] = {}
        for k, training in enumerate(runs.trainings):
            rows.setdefault(over.value_in(training.settings), []).append(k)
        sweeps = {value: Sweep(picked(runs, numbers)) for value, numbers in rows.items()}
        grids = {value: (sweep.lrs, sweep.seeds) for value, sweep in sweeps.items()}
        whole = max(grids.values(), key=lambda grid: len(grid[0]) * len(grid[1]))
        self.sweeps = {value: sweeps[value] for value, grid in grids.items() if grid == whole}
        medians = {value: sweep.median.min().item() for value, sweep in self.sweeps.items()}
        self.value = min(medians, key=lambda value: medians[value])
        self.best_value = in_short(self.value)
        self.setting = f", {over.name}={self.best_value}"
        own = self.sweeps[self.value].runs
        super().__init__(own, judging)
        of_judges = self.stopped.removeprefix(own.note).removeprefix("; ")
        self.stopped = "; ".join(filter(None, (runs.note, of_judges)))

    @property
    def medians(self) -> Tensor:
        """The median held-out losses (values, lrs)."""
        return torch.stack([sweep.median for sweep in self.sweeps.values()])

    @property
    def shares_diverged(self) -> Tensor:
        """Of the seeds, the share that diverged (values, lrs)."""
        losses = [sweep.held_out_losses for sweep in self.sweeps.values()]
        return torch.stack(losses).isinf().double().mean(2)

    @property
    def has_full_batches(self) -> bool:
        """Whether a step sees all samples."""
        return self.runs.task.batch_size >= len(self.runs.trainings[0].dataset)

    @property
    def edge(self) -> int:
        """0: a map does not grow; see `ends`."""
        return 0

    @property
    def ends(self) -> list[str]:
        """The names of those at whose end the best cell lies; beyond 0 there is nothing."""
        values = [*self.sweeps]
        is_outermost = self.value in (values[0], values[-1]) and self.value != 0
        names = {"lr": super().edge != 0, self.over.name: is_outermost and self.over.has_numbers}
        return [name for name, is_there in names.items() if is_there]

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield (lr, value, seed, stage, final loss, held-out loss) of each run."""
        for value, sweep in self.sweeps.items():
            yield from ((lr, value, *row) for lr, *row in sweep.rows())
        judged = (row for row in super().rows() if row[2] == "judged")
        yield from ((lr, self.value, *row) for lr, *row in judged)


def take_steps(
    over: Hyperparameter | None, task: Task, training: Training, make_optimizer: MakeOptimizer
) -> None:
    """Take a step, as `take_a_step` does, with each of the values, if there are any."""
    for one in over.spread([training], make_optimizer) if over else [training]:
        take_a_step(task, one, make_optimizer)


def map_and_judge(
    over: Hyperparameter,
    task: Task,
    trainings: Sequence[Training],
    make_optimizer: MakeOptimizer,
    progress: Progress = no_progress,
    crew: Alone | None = None,
) -> Map:
    """Train those that have an lr; then the others, the judges, as the best of them are."""
    grid = [training for training in trainings if training.lr is not None]
    curvature, limits = stability(over, task, grid, make_optimizer)
    runs = train_all(task, grid, make_optimizer, progress, crew=crew)
    found = Map(over, runs)
    best = found.runs.trainings[found.best * len(found.seeds)]
    judges = [
        replace(training, lr=best.lr, settings=best.settings)
        for training in trainings
        if training.lr is None
    ]
    if judges and not found.error:
        found = Map(over, runs, train_all(task, judges, make_optimizer, progress, crew=crew))
    found.curvature, found.limits = curvature, limits
    lr, value = named(make_optimizer, lr_keyword(make_optimizer)), over.default(make_optimizer)
    if isinstance(lr, int | float) and value is not None:
        found.default = lr, value
    return found


def stability(
    over: Hyperparameter, task: Task, trainings: Sequence[Training], make_optimizer: MakeOptimizer
) -> tuple[float | None, list[float] | None]:
    """Return the curvature of a loss that is a quadratic, and the lr up to which SGD is stable.

    The curvature is the median over the seeds, the limits are those at each value. None of other
    losses, of other optimizers, and where a schedule moves the lr.
    """
    own = [over.settings(make_optimizer, value) for value in over.values]
    optimizers = [make(make_optimizer, scratch(), trainings[0].lr, settings) for settings in own]
    if schedulers_of(make_optimizer) or any(stable_lr(each, 1.0) is None for each in optimizers):
        return None, None
    seeds = {training.seed: training for training in trainings}
    with saying("measuring how steep the loss is"):
        found = [curvature_of_quadratic(task, training) for training in seeds.values()]
    known = [curvature for curvature in found if curvature is not None]
    if len(known) < len(found):
        return None, None
    curvature = quartiles(torch.tensor(known))[1].item()
    limits = [stable_lr(optimizer, curvature) for optimizer in optimizers]
    return curvature, [limit for limit in limits if limit is not None]
