"""Where a training goes: a net's weights on the way."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeAlias

from lab.outcome import Outcome, Progress, as_exceptions, keeping, no_progress
from lab.training.adapt import MakeOptimizer, judged, set_mode
from lab.training.datasets import loader_of
from lab.training.runs import MOVED_NOTHING, Training, state_of
from lab.training.schedules import Schedule, schedulers_of

import torch
from torch import Tensor, nn

from tasks import Task
from training import train

State: TypeAlias = dict[str, Tensor]  # a net's parameters and buffers, by name


@dataclass
class Trace(Outcome):
    """A net's weights after some of the steps of a training, each where they are judged."""

    task: Task
    training: Training
    seen: dict[int, State]  # by the number of steps: the first weights at 0, the last ones at last
    lr: float | None = None
    steps: int = 0  # taken
    diverged_at: int | None = None  # the step whose loss was not finite
    losses: list[float] = field(default_factory=list)  # over the training set, where it was seen

    @property
    def note(self) -> str:
        diverged = "" if self.diverged_at is None else f"diverged at step {self.diverged_at}"
        return "; ".join(filter(None, (diverged, self.stopped)))

    @property
    def loss(self) -> float | None:
        """The last of its losses, if they were computed to the end."""
        return self.losses[-1] if len(self.losses) == len(self.seen) else None

    @property
    def moved(self) -> float:
        """How far the last weights are from the first ones: the length of the difference."""
        first, last = self.seen[0], [*self.seen.values()][-1]
        names = dict(self.training.make_net(self.task).named_parameters())
        return math.hypot(*((last[name] - first[name]).norm().item() for name in names))


def moments(n_steps: int, count: int) -> list[int]:
    """Return at most so many numbers of steps, from 0 to all: closer together at the start."""
    return sorted({round(n_steps * (k / (count - 1)) ** 2) for k in range(count)})


def trace(
    task: Task,
    training: Training,
    make_optimizer: MakeOptimizer,
    steps: Collection[int],
    progress: Progress = no_progress,
) -> Trace:
    """Train a net as `train_one` does; take down its weights after these steps, and at its end."""
    net = training.make_net(task)
    optimizer = training.make_optimizer(make_optimizer, net)
    loader = loader_of(task, training.dataset)
    schedule = Schedule(schedulers_of(make_optimizer), optimizer, len(loader))
    lr = optimizer.param_groups[0].get("lr")
    run = Trace(task, training, {0: copied(net)}, None if lr is None else float(lr))
    set_mode(optimizer, "train")
    losses = train(net, optimizer, loader, task.loss, task.epochs)
    with keeping(run), as_exceptions():
        for loss in progress(losses, task.epochs * len(loader), "step"):
            run.steps += 1
            schedule.step(loss)
            if run.steps in steps:
                with judged(optimizer):
                    run.seen[run.steps] = copied(net)
            if not math.isfinite(loss):
                run.diverged_at = run.steps
        set_mode(optimizer, "eval")
    last = run.seen.setdefault(run.steps, copied(net))
    if run.steps and all(torch.equal(start, last[name]) for name, start in run.seen[0].items()):
        run.remarks.append(MOVED_NOTHING)
    return run


def copied(net: nn.Module) -> State:
    """Return copies of a net's parameters and buffers."""
    return {name: tensor.clone() for name, tensor in state_of(net).items()}
