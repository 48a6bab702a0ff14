"""One optimizer on one task with many settings, from every seed: what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lab.outcome import Outcome, Progress, describe, no_progress
from lab.training.adapt import MakeOptimizer, make, scratch
from lab.training.checks import UnusableError, take_a_step
from lab.training.evaluation import loss_over
from lab.training.guess import constant_guess
from lab.training.runs import Runs, Training
from lab.training.train import Alone, train_all

import torch
from torch import Tensor

from tasks import Task


@dataclass(frozen=True)
class Trial:
    """A setting to try: a learning rate, other hyperparameters, and what makes the optimizer."""

    name: str  # a number, "rate 1" and so on, or "default"
    written: str  # the settings as one could type them
    make_optimizer: MakeOptimizer  # which these are handed to; it may have a schedule
    lr: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    place: tuple[float, ...] = ()  # in the space, from 0 to 1 in each dimension

    def goes_with(self, other: "Trial") -> bool:
        """Tell whether both are made by the same, from hyperparameters of the same names."""
        return (
            self.make_optimizer == other.make_optimizer
            and self.settings.keys() == other.settings.keys()
            and (self.lr is None) == (other.lr is None)
        )

    def training(self, training: Training) -> Training:
        """Return a training with these settings."""
        return replace(training, lr=self.lr, settings=self.settings)


@dataclass
class Trials(Outcome):
    """What became of trials on a task."""

    trials: Sequence[Trial]
    seeds: Sequence[int]
    final_losses: Tensor  # (trials, seeds), over the training set; infinite where one diverged
    held_out_losses: Tensor  # likewise
    metrics: Tensor | None = None  # likewise, where there is a metric
    metric: str = ""  # its name
    limits: Tensor | None = None  # (seeds,): see `limits_of`
    seconds: float = 0.0

    def numbers(self, kind: str = "") -> list[int]:
        """Return which trials are drawn from the space, or those whose names begin so."""
        names = [trial.name for trial in self.trials]
        return [
            k for k, name in enumerate(names) if (name.startswith(kind) if kind else name.isdigit())
        ]

    def losses(self, kind: str = "") -> Tensor:
        """Return the held-out losses (trials, seeds) of `numbers`, none above its seed's limit."""
        losses = self.held_out_losses[self.numbers(kind)]
        return losses if self.limits is None else losses.minimum(self.limits)


def why_not(trial: Trial) -> str:
    """Return why an optimizer with these settings cannot be made; nothing if it can."""
    try:
        make(trial.make_optimizer, scratch(), trial.lr, trial.settings)
    except Exception as error:  # as of a momentum of 2
        return describe(error)
    return ""


def check_trials(task: Task, training: Training, trials: Sequence[Trial]) -> None:
    """Refuse settings that cannot be, and an optimizer that fails at its first step."""
    for trial in trials:
        if reason := why_not(trial):
            raise UnusableError(f"of its space, {trial.written} cannot be ({reason})")
    for some in sharing_an_optimizer(trials):
        first = trials[some[0]]
        take_a_step(task, first.training(training), first.make_optimizer)


def try_trials(
    task: Task,
    trainings: Sequence[Training],
    trials: Sequence[Trial],
    progress: Progress = no_progress,
    crew: Alone | None = None,
) -> Trials:
    """Train all trials, each from every seed; together those that can.

    `trainings` are those of the first trial from all seeds, then of the second, and so on.
    """
    n_seeds = len(trainings) // len(trials)
    parts: list[tuple[list[int], Runs]] = []
    for some in sharing_an_optimizer(trials):
        own = [training for k in some for training in trainings[k * n_seeds : (k + 1) * n_seeds]]
        runs = train_all(task, own, trials[some[0]].make_optimizer, progress, crew=crew)
        parts.append((some, runs))
        if runs.error:
            break
    failed = next((runs for _, runs in parts if runs.error), None)
    if failed:
        empty = torch.empty(0, n_seeds, dtype=torch.float64)
        return Trials((), (), empty, empty, error=failed.error, stopped=failed.note)
    order = torch.tensor([k for some, _ in parts for k in some]).argsort()
    seeds = [training.seed for training in trainings[:n_seeds]]
    metric = trainings[0].metric(task)

    def of_all(values: Sequence[Tensor]) -> Tensor:
        return torch.cat([value.unflatten(0, (-1, n_seeds)) for value in values])[order]

    n_diverged = sum(int(runs.held_out_losses.isinf().sum()) for _, runs in parts)
    return Trials(
        trials,
        seeds,
        of_all([runs.final_losses for _, runs in parts]),
        of_all([runs.held_out_losses for _, runs in parts]),
        of_all([runs.measured(metric) for _, runs in parts]) if metric else None,
        metric.name if metric else "",
        seconds=sum(runs.seconds for _, runs in parts),
        stopped=f"{n_diverged} of {len(trainings)} diverged" if n_diverged else "",
        remarks=list(dict.fromkeys(remark for _, runs in parts for remark in runs.remarks)),
    )


def sharing_an_optimizer(trials: Sequence[Trial]) -> list[list[int]]:
    """Return the numbers of trials, those together that go with each other."""
    groups: list[list[int]] = []
    for k, trial in enumerate(trials):
        same = (group for group in groups if trials[group[0]].goes_with(trial))
        group = next(same, None)
        if group is None:
            groups.append(group := [])
        group.append(k)
    return groups


def limits_of(task: Task, trainings: Sequence[Training]) -> Tensor:
    """Return what an engineer has at worst (trainings,): the held-out loss of a constant guess.

    A training that ends above it, or diverges, is no better than that guess. Where there is none,
    it is the loss of the net as it was before training.
    """
    limits = []
    for training in trainings:
        guess = constant_guess(task, training)
        if guess is None:
            guess = loss_over(task, training.make_net(task), training.held_out)
        limits.append(float(guess))
    return torch.tensor(limits, dtype=torch.float64)
