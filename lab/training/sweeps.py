"""One optimizer at many learning rates: the grid, how it grows, and the best lr in it."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lab.outcome import Outcome, Progress, no_progress
from lab.training.adapt import MakeOptimizer
from lab.training.hyperparameter import Hyperparameter
from lab.training.metrics import Metric
from lab.training.runs import Runs, Training, joined, trainings_of
from lab.training.statistics import quartiles
from lab.training.train import Alone, train_all

import torch
from torch import Tensor

from tasks import Task

GOOD_WITHIN = 1.5  # an lr is good if its median loss is within this many times the best
MAX_GROWTH_DECADES = 3  # how far a grid may grow beyond the range that was asked for, either way


def learning_rates(low: float, high: float, count: int) -> list[float]:
    """Return `count` rates from `low` to `high`, evenly spaced by their logarithms.

    ValueError if these are not at least two different rates.
    """
    if not low < high or count < 2:
        raise ValueError("--lr-range wants LOW below HIGH, and --lr-count at least 2")
    exponents = torch.linspace(math.log10(low), math.log10(high), count, dtype=torch.float64)
    lrs = [six_digits(10**exponent) for exponent in exponents.tolist()]
    if len(set(lrs)) < count:
        raise ValueError(f"--lr-range {low:g} {high:g} is too narrow for {count} rates")
    return lrs


def six_digits(lr: float) -> float:
    """Return the learning rate, rounded to six digits."""
    return float(f"{lr:.6g}")


@dataclass
class Judged:
    """The losses of one optimizer at the learning rate that other seeds chose."""

    seeds: list[int]
    final_losses: Tensor  # (seeds,), over the training set; infinite where a run diverged
    held_out_losses: Tensor  # (seeds,), likewise


@dataclass
class SweepSummary:
    """The losses of one optimizer by learning rate and seed. They choose a rate, by those held out.

    Judged are those of other seeds, at that rate alone: a rate that is judged on the seeds that
    chose it is flattered by their luck.
    """

    lrs: list[float]
    seeds: list[int]
    final_losses: Tensor  # (lrs, seeds), over the training set; infinite where a run diverged
    held_out_losses: Tensor  # (lrs, seeds), likewise
    judged: Judged | None  # None where the work ended before

    @property
    def judged_losses(self) -> Tensor | None:
        """The held-out losses (judges,) by which an optimizer is compared with others."""
        return self.judged.held_out_losses if self.judged else None

    @cached_property
    def median(self) -> Tensor:
        """The median held-out loss at each learning rate (lrs,)."""
        return quartiles(self.held_out_losses)[1]

    @cached_property
    def best(self) -> int:
        """The index of the learning rate with the lowest median."""
        return int(self.median.argmin())

    @property
    def best_lr(self) -> float:
        return self.lrs[self.best]

    @property
    def diverged(self) -> bool:
        """Whether most seeds diverged at every learning rate."""
        return bool(self.median[self.best] == math.inf)

    @property
    def edge(self) -> int:
        """-1 if the best learning rate is the lowest one, 1 if it is the highest, else 0."""
        return {0: -1, len(self.lrs) - 1: 1}.get(self.best, 0)

    @property
    def is_only_survivor(self) -> bool:
        """Whether the best learning rate is the only one at which most seeds did not diverge."""
        return int(self.median.isfinite().sum()) == 1 < len(self.lrs)

    def good_lrs(self, best: float | None = None) -> tuple[float, float] | None:
        """Return the lowest and the highest learning rate of those around the best that are good.

        All between are good, too. Good is a median of at most GOOD_WITHIN times the best one, or
        than `best`, a loss above 0. None if there is no good one.
        """
        lowest = self.median[self.best].item()
        best = lowest if best is None else best
        if not 0 < lowest <= GOOD_WITHIN * best < math.inf:
            return None
        good = (self.median <= GOOD_WITHIN * best).tolist()
        low = high = self.best
        while low > 0 and good[low - 1]:
            low -= 1
        while high < len(good) - 1 and good[high + 1]:
            high += 1
        return self.lrs[low], self.lrs[high]

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield (lr, seed, "chosen" or "judged", final loss, held-out loss) of each run."""
        for lr, *losses in zip(self.lrs, self.final_losses, self.held_out_losses, strict=True):
            for seed, *both in zip(self.seeds, *(each.tolist() for each in losses), strict=True):
                yield lr, seed, "chosen", *both
        if self.judged:
            judged = self.judged.final_losses.tolist(), self.judged.held_out_losses.tolist()
            for seed, *both in zip(self.judged.seeds, *judged, strict=True):
                yield self.best_lr, seed, "judged", *both


class Sweep(SweepSummary, Outcome):
    """The runs of one optimizer, by lr and seed. An lr that not all seeds have is left out."""

    over: Hyperparameter | None = None  # what is tried beside the lr, in a Map: see maps.py
    best_value = setting = ""  # the best of it, and as one could type it after a label

    def __init__(self, runs: Runs, judging: Runs | None = None):
        """Take runs of all seeds at the first lr, then of all at the second, and so on.

        `judging` are those of other seeds at the best one.
        """
        self.runs = runs
        lrs = [training.lr for training in runs.trainings]
        seeds: dict[float | None, list[int]] = {}
        for training in runs.trainings:
            seeds.setdefault(training.lr, []).append(training.seed)
        most = max(seeds.values(), key=len)
        n_seeds = len(most)
        complete = [lr for lr, some in seeds.items() if some == most]
        kept = [k for k, lr in enumerate(lrs) if lr in complete]
        super().__init__(
            lrs=[lr for lr in complete if lr is not None],
            seeds=[runs.trainings[k].seed for k in kept[:n_seeds]],
            final_losses=runs.final_losses[kept].unflatten(0, (-1, n_seeds)),
            held_out_losses=runs.held_out_losses[kept].unflatten(0, (-1, n_seeds)),
            judged=None,
        )
        losses = runs.losses if len(kept) == len(lrs) else runs.losses[:, kept]  # large: no copy
        self.losses = losses.unflatten(1, (-1, n_seeds))  # (steps, lrs, seeds)
        self.error, self.stopped, self.remarks = runs.error, runs.note, runs.remarks
        self.seconds = runs.seconds
        self.at_best, self.numbers = runs, kept[self.best * n_seeds :][:n_seeds]
        if judging:
            self.error = judging.error
            of_judges = judging.note and f"judging: {judging.note}"
            self.stopped = "; ".join(filter(None, (runs.note, of_judges)))
            said = {remark.partition(" (")[0] for remark in runs.remarks}  # with whatever reason
            more = [remark for remark in judging.remarks if remark.partition(" (")[0] not in said]
            self.remarks = [*runs.remarks, *more]
            self.seconds += judging.seconds
        if judging and not judging.error:
            self.at_best, self.numbers = judging, list(range(len(judging.trainings)))
            self.judged = Judged(
                [training.seed for training in judging.trainings],
                judging.final_losses,
                judging.held_out_losses,
            )

    def __repr__(self) -> str:
        """Return the sweep in three lines: a notebook shows them."""
        loss = (
            self.median[self.best]
            if self.judged_losses is None
            else quartiles(self.judged_losses)[1]
        )
        return (
            f"{type(self).__name__} of {len(self.lrs)} rates from {self.lrs[0]:.3g} to "
            f"{self.lrs[-1]:.3g}, {len(self.seeds)} seeds\n"
            f"best_lr {self.best_lr:.3g}, median held-out loss {loss:.4g}\n"
            "has: lrs, seeds, final_losses, held_out_losses, best_lr, good_lrs(), judged, runs"
        )

    def summary(self) -> SweepSummary:
        """Return the same without what grows with steps and nets: small enough to be sent."""
        return SweepSummary(
            self.lrs, self.seeds, self.final_losses, self.held_out_losses, self.judged
        )

    # What follows is of the judges, or of the seeds that chose where the work ended before.

    def losses_at_best(self) -> Tensor:
        """Return the loss of each step (steps, seeds) at the best lr."""
        return self.at_best.losses[:, self.numbers]

    def final_losses_at_best(self) -> Tensor:
        """Return the losses over the training set (seeds,) at the best lr."""
        return self.at_best.final_losses[self.numbers]

    def measured(self, metric: Metric) -> Tensor:
        """Return the metric over the held-out set (seeds,) at the best lr."""
        return self.at_best.measured(metric, self.numbers)

    def lr_history(self) -> list[float]:
        """Return the learning rate at each step, where it starts from the best one."""
        return self.at_best.lr_history(self.numbers)


def grid_and_judges(
    task: Task, seeds: Iterable[int], lrs: Iterable[float], judges: Iterable[int]
) -> list[Training]:
    """Return the trainings from all seeds at each lr; then those of the judges, who have none."""
    return [*trainings_of(task, seeds, lrs), *trainings_of(task, judges)]


def choose_and_judge(
    task: Task,
    trainings: Sequence[Training],
    make_optimizer: MakeOptimizer,
    progress: Progress = no_progress,
    crew: Alone | None = None,
) -> Sweep:
    """Train those that have an lr, as `sweep` does; then the others, the judges, at the best."""
    grid = [training for training in trainings if training.lr is not None]
    chosen = Sweep(sweep(task, grid, make_optimizer, progress, crew))
    judges = [replace(t, lr=chosen.best_lr) for t in trainings if t.lr is None]
    if chosen.error or not judges:
        return chosen
    return Sweep(chosen.runs, train_all(task, judges, make_optimizer, progress, crew=crew))


def sweep(
    task: Task,
    trainings: Sequence[Training],
    make_optimizer: MakeOptimizer,
    progress: Progress = no_progress,
    crew: Alone | None = None,
) -> Runs:
    """Train them all, and more at higher or lower rates while the best lr is at an end.

    `trainings` come lr by lr, in ascending order and evenly spaced, and so do the runs. The
    other arguments are those of `train_all`.
    """
    lrs = list(dict.fromkeys(training.lr for training in trainings if training.lr is not None))
    at_one_lr = trainings[: len(trainings) // len(lrs)]
    runs = train_all(task, trainings, make_optimizer, progress, crew=crew)
    while not runs.error and (more := next_lrs(lrs, Sweep(runs))):
        others = [replace(training, lr=lr) for lr in more for training in at_one_lr]
        grown = train_all(task, others, make_optimizer, progress, crew=crew)
        if grown.error:
            return replace(runs, error=grown.error, stopped=grown.stopped)
        runs = joined(runs, grown)
    return runs


def next_lrs(lrs: list[float], result: SweepSummary) -> list[float]:
    """Return the next rates, a decade of them, beyond the end where the best lr is, if any.

    None are left where the grid has grown beyond that end of `lrs`, its first rates, by
    MAX_GROWTH_DECADES.
    """
    edge = result.edge
    step = math.log10(lrs[-1] / lrs[0]) / (len(lrs) - 1) if len(lrs) > 1 else math.inf
    start, end = (lrs[-1], result.lrs[-1]) if edge > 0 else (lrs[0], result.lrs[0])
    grown = abs(math.log10(end / start))
    if not edge or grown > MAX_GROWTH_DECADES - step / 2:
        return []
    count = max(1, round(1 / step))
    return sorted(six_digits(end * 10 ** (edge * step * (k + 1))) for k in range(count))
