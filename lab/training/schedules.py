"""Learning-rate schedules: schedulers of torch, or a user's own, and when each of them steps."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

EACH_STEP = CyclicLR, OneCycleLR  # PyTorch's documentation steps these after every mini-batch
LR_KEYWORDS: dict[type[LRScheduler], str] = {
    OneCycleLR: "max_lr"
}  # keywords that default to the optimizer's lr


@dataclass(frozen=True)
class SchedulerSpec:
    """A scheduler as named on the command line. Called with an optimizer, it is made."""

    name: str  # as typed
    scheduler_class: type[LRScheduler]
    keywords: dict[str, Any]

    def __call__(self, optimizer: Optimizer) -> LRScheduler:
        keywords = dict(self.keywords)
        if keyword := LR_KEYWORDS.get(self.scheduler_class):
            keywords.setdefault(keyword, [group["lr"] for group in optimizer.param_groups])
        return self.scheduler_class(optimizer, **keywords)

    @property
    def goes_by_loss(self) -> bool:
        return issubclass(self.scheduler_class, ReduceLROnPlateau)


class Schedule:
    """What moves an optimizer's learning rates: call `step` after each of its steps.

    The schedulers step in order, each on the rates that the one before left: after the last step of
    an epoch, or after every step if they are made so. Those that go by the loss go by an epoch's
    mean, and each param group by its own. Without any scheduler, nothing is moved.
    """

    def __init__(self, specs: Sequence[SchedulerSpec], optimizer: Optimizer, steps_per_epoch: int):
        self.optimizer, self.steps_per_epoch = optimizer, steps_per_epoch
        self.schedulers = [
            [spec(part) for part in (groups_apart(optimizer) if spec.goes_by_loss else [optimizer])]
            for spec in specs
        ]
        self.lrs: list[list[float]] = []  # of each param group, at each step
        self.losses: list[float | Tensor] = []  # of this epoch

    def step(self, losses: float | Tensor) -> None:
        """Move the rates, after a step with this loss, or with these, one for each param group."""
        if not self.schedulers:
            return
        self.lrs.append([float(group["lr"]) for group in self.optimizer.param_groups])
        self.losses.append(losses)
        is_end = len(self.losses) == self.steps_per_epoch
        for schedulers in self.schedulers:
            for group, scheduler in enumerate(schedulers):
                if not isinstance(scheduler, ReduceLROnPlateau):
                    if is_end or isinstance(scheduler, EACH_STEP):
                        scheduler.step()
                elif is_end:
                    means = mean_of(self.losses)  # one for all groups, or each group's own
                    scheduler.step(means[group % len(means)])
        if is_end:
            self.losses.clear()

    def lr_histories(self, sizes: Sequence[int]) -> Tensor | None:
        """Return each net's lr at each step (steps, nets); None without a scheduler.

        `sizes` are the numbers of nets in the param groups. An optimizer of one net may have more
        groups: the first one's lr stands for all.
        """
        if not self.schedulers:
            return None
        groups = [lrs[: len(sizes)] for lrs in self.lrs]
        lrs = torch.tensor(groups, dtype=torch.float64).reshape(-1, len(sizes))
        return lrs.repeat_interleave(torch.tensor(sizes), 1)


def mean_of(losses: Sequence[float | Tensor]) -> list[float]:
    """Return the mean loss, or of tensors (groups,) each group's."""
    rows = [torch.as_tensor(loss, dtype=torch.float64).reshape(-1) for loss in losses]
    return (sum(rows[1:], rows[0]) / len(rows)).tolist()


def groups_apart(optimizer: Optimizer) -> list[Optimizer]:
    """Return an optimizer for each param group, so that a scheduler may move it alone."""
    parts = [copy(optimizer) for _ in optimizer.param_groups]
    for part, group in zip(parts, optimizer.param_groups, strict=True):
        part.param_groups = [group]  # the same dict
    return parts


def schedulers_of(make_optimizer: Callable[[Any], Optimizer]) -> Sequence[SchedulerSpec]:
    """Return the schedulers that are named with such an optimizer, if any are."""
    return getattr(make_optimizer, "schedulers", ())


def set_the_lr(specs: Sequence[SchedulerSpec]) -> bool:
    """Tell whether these start from a rate of their own, whatever the optimizer's is."""
    if not specs:  # the first optimizer of a process takes a second: torch imports its compiler
        return False
    first = set()
    try:
        for lr in (0.1, 0.2):
            optimizer = Adam([torch.zeros(1)], lr=lr)  # OneCycleLR moves its betas, too
            for spec in specs:
                spec(optimizer)
            first.add(optimizer.param_groups[0]["lr"])
    except Exception:  # it will fail, and be refused, where a step is tried
        return False
    return len(first) == 1
