"""One optimizer at many learning rates: the grid, how it grows, and the best rate in it."""

import math
from collections import Counter
from collections.abc import Callable
from copy import copy
from dataclasses import replace

from lab.report import Interrupted
from lab.stacking import train_all
from lab.statistics import quartiles
from lab.trainings import Progress, Runs, Training, joined_rates, without_progress

import torch
from torch import Tensor
from torch.optim import Optimizer

from tasks import Task

GOOD = 1.5  # a rate is good if its median loss is within this many times the best
DECADES = 3  # how far a grid may grow beyond the range that was asked for, either way


def learning_rates(low: float, high: float, count: int) -> list[float]:
    """Return `count` rates from `low` to `high`, evenly spaced by their logarithms.

    ValueError if these are not at least two different rates.
    """
    if not low < high or count < 2:
        raise ValueError("--lr-range wants LOW below HIGH, and --lr-count at least 2")
    exponents = torch.linspace(math.log10(low), math.log10(high), count, dtype=torch.float64)
    rates = [rounded(10**exponent) for exponent in exponents.tolist()]
    if len(set(rates)) < count:
        raise ValueError(f"--lr-range {low:g} {high:g} is too narrow for {count} rates")
    return rates


def rounded(rate: float) -> float:
    """Return the rate with six digits."""
    return float(f"{rate:.6g}")


class Sweep:
    """The runs of one optimizer, by rate and seed. Rates that are not complete are left out.

    Rates are judged by the held-out loss.
    """

    def __init__(self, runs: Runs):
        """Take runs of all seeds at the first rate, then of all at the second, and so on."""
        self.runs = runs
        lrs = [training.lr for training in runs.trainings]
        counts = Counter(lrs)
        n_seeds = max(counts.values())
        self.lrs = [lr for lr, count in counts.items() if count == n_seeds]
        self.kept = kept = [k for k, lr in enumerate(lrs) if lr in self.lrs]
        self.seeds = [runs.trainings[k].seed for k in kept[:n_seeds]]
        losses = runs.losses if len(kept) == len(lrs) else runs.losses[:, kept]  # large: no copy
        self.losses = losses.unflatten(1, (-1, n_seeds))  # (steps, rates, seeds)
        # After training, over the two data sets (rates, seeds); infinite where a run diverged.
        self.final_losses = runs.final_losses[kept].unflatten(0, (-1, n_seeds))
        self.held_out_losses = runs.held_out_losses[kept].unflatten(0, (-1, n_seeds))
        self.median = quartiles(self.held_out_losses)[1]  # (rates,)
        self.best = int(self.median.argmin())  # the index of the rate with the lowest median

    def without_runs(self) -> "Sweep":
        """Return the same without what grows with steps and nets: small enough to be sent."""
        result = copy(self)
        result.runs = result.losses = result.kept = None
        return result

    @property
    def diverged(self) -> bool:
        """Whether most seeds diverged at every rate."""
        return self.median[self.best] == math.inf

    def end(self) -> int:
        """Return -1 if the best rate is the lowest one, 1 if it is the highest, else 0."""
        return {0: -1, len(self.lrs) - 1: 1}.get(self.best, 0)

    def is_only_survivor(self) -> bool:
        """Tell whether the best rate is the only one at which most seeds did not diverge."""
        return int(self.median.isfinite().sum()) == 1 < len(self.lrs)

    def good_rates(self) -> tuple[float, float]:
        """Return the lowest and the highest rate of those around the best that are good.

        All between are good, too. Good is a median of at most GOOD times the best one.
        """
        good = (self.median <= GOOD * self.median[self.best]).tolist()
        low = high = self.best
        while low > 0 and good[low - 1]:
            low -= 1
        while high < len(good) - 1 and good[high + 1]:
            high += 1
        return self.lrs[low], self.lrs[high]

    def accuracies(self) -> Tensor | None:
        """Return the held-out accuracies (seeds,) at the best rate; None without classes."""
        return self.runs.accuracies(self.numbers_at_best())

    def numbers_at_best(self) -> list[int]:
        """Return the numbers, among the runs, of those at the best rate."""
        n_seeds = self.losses.shape[2]
        return self.kept[self.best * n_seeds :][:n_seeds]

    def rate_history(self) -> list[float]:
        """Return the learning rate at each step, where it starts from the best one."""
        return self.runs.rate_history(self.numbers_at_best(), self.lrs[self.best])

    def judged(self) -> Tensor:
        """Return each seed's held-out loss (seeds,) at the best rate of seeds it is not among.

        One half of the seeds chooses the rate for the other: a rate that is judged on the seeds
        that chose it is flattered by their luck. A single seed has no other.
        """
        losses = self.held_out_losses[self.best].clone()
        if len(losses) > 1:
            even, odd = slice(0, None, 2), slice(1, None, 2)
            for half, others in ((even, odd), (odd, even)):
                best = quartiles(self.held_out_losses[:, others])[1].argmin()
                losses[half] = self.held_out_losses[best, half]
        return losses


def sweep(
    task: Task,
    trainings: list[Training],
    make_optimizer: Callable[..., Optimizer],
    progress: Progress = without_progress,
    compiled: bool | None = None,
) -> Runs:
    """Train them all, and more at higher or lower rates while the best rate is at an end.

    `trainings` come rate by rate, in ascending order and evenly spaced, and so do the runs. The
    other arguments are those of `train_all`.
    """
    lrs = list(dict.fromkeys(training.lr for training in trainings))
    at_one_rate = trainings[: len(trainings) // len(lrs)]
    runs = train_all(task, trainings, make_optimizer, progress, compiled)
    while not runs.error and (more := next_rates(lrs, Sweep(runs))):
        others = [replace(training, lr=lr) for lr in more for training in at_one_rate]
        try:
            grown = train_all(task, others, make_optimizer, progress, compiled)
        except Interrupted as stop:
            raise Interrupted(ended_by(runs, stop.run)) from None
        runs = ended_by(runs, grown) if grown.error else joined(runs, grown)
    return runs


def next_rates(lrs: list[float], result: Sweep) -> list[float]:
    """Return the next rates, a decade of them, beyond the end where the best one is, if any.

    None are left where the grid has grown beyond that end of `lrs`, its first, by DECADES.
    """
    end = result.end()
    step = math.log10(lrs[-1] / lrs[0]) / (len(lrs) - 1) if len(lrs) > 1 else math.inf
    edge, first = (lrs[-1], result.lrs[-1]) if end > 0 else (lrs[0], result.lrs[0])
    grown = abs(math.log10(first / edge))
    if not end or grown > DECADES - step / 2:
        return []
    count = max(1, round(1 / step))
    return sorted(rounded(first * 10 ** (end * step * (k + 1))) for k in range(count))


def ended_by(runs: Runs, last: Runs) -> Runs:
    """Return the runs, which are complete, ended by what ended the last ones."""
    return replace(runs, error=last.error, stopped=last.stopped)


def joined(one: Runs, other: Runs) -> Runs:
    """Return the runs of both, in ascending order of their rates."""
    trainings = one.trainings + other.trainings
    order = sorted(range(len(trainings)), key=lambda k: trainings[k].lr)
    n_steps = max(len(one.losses), len(other.losses))
    losses = [
        torch.cat(
            [
                run.losses,
                run.losses.new_full((n_steps - len(run.losses), len(run.trainings)), math.nan),
            ]
        )
        for run in (one, other)
    ]
    return replace(
        other,
        trainings=[trainings[k] for k in order],
        losses=torch.cat(losses, 1)[:, order],
        rates=None
        if (rates := joined_rates([one.rates, other.rates])) is None
        else rates[:, order],
        final_losses=torch.cat([one.final_losses, other.final_losses])[order],
        held_out_losses=torch.cat([one.held_out_losses, other.held_out_losses])[order],
        weights={k: torch.cat([one.weights[k], other.weights[k]])[order] for k in one.weights},
        stacked=one.stacked and other.stacked,
        seconds=one.seconds + other.seconds,
        remarks=one.remarks or other.remarks,
    )
