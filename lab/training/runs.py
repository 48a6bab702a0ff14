"""What goes into a training, and what comes out of many: Training and Runs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lab.outcome import Outcome
from lab.training.adapt import MakeOptimizer, make_for
from lab.training.datasets import device_of, first, holds_tensors, make_datasets
from lab.training.evaluation import value_over
from lab.training.metrics import Metric, metric_of
from lab.training.statistics import quartiles

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.optim import Optimizer

from tasks import Task
from training import evaluating

MOVED_NOTHING = (
    "its steps moved nothing; a step has to change the parameters in place, "
    "as `param -= ...` does and `param = param - ...` does not"
)


@dataclass(frozen=True)
class Training:
    """One net to train: a seed gives its data and its first weights; it may have its own lr.

    So it may have other hyperparameters, its `settings`. What it has not, it has of the optimizer.
    """

    seed: int
    dataset: Any  # map-style, of (x, y) pairs: see datasets.py
    held_out: Any
    lr: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # as the optimizer names them

    def make_net(self, task: Task) -> nn.Module:
        """Return the net with its first weights."""
        torch.manual_seed(self.seed)
        return task.make_net().to(device_of(self.dataset))

    @torch.no_grad()
    def metric(self, task: Task) -> Metric | None:
        """Return what stands beside the loss, if anything does: see `metric_of`."""
        x, y = first(task, self.dataset, task.batch_size)
        if holds_tensors(task, self.dataset):
            _, y = self.dataset[:1000]
        with evaluating(self.make_net(task)) as net:
            return metric_of(task, net(x), y)

    def make_optimizer(self, make_optimizer: MakeOptimizer, net: nn.Module) -> Optimizer:
        """Return the net's optimizer, with the lr and the settings of this training."""
        return make_for(make_optimizer, net, self.lr, self.settings)


def trainings_of(
    task: Task, seeds: Iterable[int], lrs: Iterable[float | None] = (None,)
) -> list[Training]:
    """Make each seed's data; return the trainings from all seeds at the first lr, then the next."""
    data = {seed: make_datasets(task, seed) for seed in seeds}
    return [Training(seed, *data[seed], lr) for lr in lrs for seed in data]


@dataclass
class Epochs:
    """The losses over both data sets after each epoch, each (epochs, trainings).

    Infinite from where a training diverged; nan where it was stopped before.
    """

    losses: Tensor  # over the training set
    held_out: Tensor


@dataclass(repr=False)
class Runs(Outcome):
    """What became of trainings with one optimizer.

    Where one diverged, its losses end with one that is not finite. If Ctrl-C or an exception ended
    them early, here is what was complete by then; if nothing was, the one that had begun.
    """

    task: Task
    trainings: list[Training]
    losses: Tensor  # (steps, trainings), the mini-batch loss before each step; nan after the last
    final_losses: Tensor  # (trainings,), over the training set; infinite where one diverged
    held_out_losses: Tensor  # (trainings,), over the held-out set; infinite likewise
    weights: dict[str, Tensor]  # and buffers, as trained, by name; (trainings, ...)
    steps_per_epoch: int
    lr: float | None  # that the first training was given; None if the optimizer has none
    lr_histories: Tensor | None = None  # (steps, trainings), at each step; None without a schedule
    nets: list[nn.Module] = field(default_factory=list)  # as trained in turn; none of a stack
    stacked: bool = False  # all at once, or in turn
    seconds: float = 0.0
    epochs: Epochs | None = None  # only if they are asked for

    def __repr__(self) -> str:
        """Return the run in three lines: a notebook shows them."""
        n_steps, n_trainings = self.losses.shape
        seeds = sorted({training.seed for training in self.trainings})
        ends = ("final_losses", self.final_losses), ("held_out_losses", self.held_out_losses)
        medians = (f"{name} {quartiles(losses)[1]:.4g}" for name, losses in ends)
        return (
            f"{type(self).__name__} of {n_trainings} trainings, {n_steps} steps each, "
            f"seeds {seeds[0]} to {seeds[-1]}\n"
            f"median {', '.join(medians)}; {self.seconds:.2f} seconds"
            f"{f'; {self.note}' if self.note else ''}\n"
            "has: losses, final_losses, held_out_losses, weights, net(k), predict(x, k)"
        )

    def history(self, k: int) -> list[float]:
        """Return the losses of the k-th training, to its end."""
        losses = self.losses[:, k].tolist()
        ends = (step for step, loss in enumerate(losses, start=1) if not math.isfinite(loss))
        return losses[: next(ends, len(losses))]

    def lr_history(self, numbers: Sequence[int]) -> list[float]:
        """Return the learning rate at each step of these trainings, their median if they differ."""
        if self.lr_histories is not None:
            return self.lr_histories[:, numbers].nanquantile(0.5, 1).tolist()
        lr = self.trainings[numbers[0]].lr
        lr = self.lr if lr is None else lr
        return [] if lr is None else [lr] * len(self.losses)

    def diverged_at(self) -> list[int]:
        """Return the steps, counted from 1, at which a loss was not finite: of those that diverged.

        A last step that leaves weights whose loss is not finite counts as one more.
        """
        infinite = torch.cat([~self.losses.isfinite(), self.final_losses.isinf().unsqueeze(0)])
        return (infinite.int().argmax(0)[infinite.any(0)] + 1).tolist()

    @property
    def note(self) -> str:
        """What a reader of the numbers has to know of their end: divergence, or a stop."""
        steps = self.diverged_at()
        diverged = f"diverged at step {min(steps)}" if steps else ""
        if steps and len(self.trainings) > 1:
            diverged = f"{len(steps)} of {len(self.trainings)} diverged, from step {min(steps)} on"
        return "; ".join(filter(None, (diverged, self.stopped)))

    def net(self, k: int) -> nn.Module:
        """Return the k-th net, as trained."""
        if self.nets:
            return self.nets[k]
        net = self.trainings[k].make_net(self.task)
        with torch.no_grad():
            for name, tensor in state_of(net).items():
                tensor.copy_(self.weights[name][k])
        return net

    @torch.no_grad()
    def predict(self, x: Tensor, k: int) -> Any:
        """Return the outputs of the k-th net for inputs x."""
        with evaluating(self.net(k)) as net:
            return net(x)

    def measured(self, metric: Metric, numbers: Iterable[int] | None = None) -> Tensor:
        """Return the metric over the held-out set of each of these nets, by default of all."""
        return torch.tensor(
            [
                value_over(self.task, self.net(k), self.trainings[k].held_out, metric.value)
                for k in (range(len(self.trainings)) if numbers is None else numbers)
            ],
            dtype=torch.float64,
        )


def state_of(net: nn.Module) -> dict[str, Tensor]:
    """Return a net's parameters and buffers by name: the tensors themselves, detached."""
    return {
        name: tensor.detach() for name, tensor in (*net.named_parameters(), *net.named_buffers())
    }


def picked(runs: Runs, numbers: Sequence[int]) -> Runs:
    """Return those of the runs that have these numbers, in this order."""
    order = list(numbers)
    return replace(
        runs,
        trainings=[runs.trainings[k] for k in order],
        losses=runs.losses[:, order],
        lr_histories=None if runs.lr_histories is None else runs.lr_histories[:, order],
        final_losses=runs.final_losses[order],
        held_out_losses=runs.held_out_losses[order],
        weights={name: weight[order] for name, weight in runs.weights.items()},
        nets=[runs.nets[k] for k in order] if runs.nets else [],
        epochs=runs.epochs and Epochs(runs.epochs.losses[:, order], runs.epochs.held_out[:, order]),
    )


def joined(one: Runs, other: Runs) -> Runs:
    """Return the runs of both, in ascending order of their learning rates."""
    runs = in_a_row([one, other])
    lrs = [training.lr or 0 for training in runs.trainings]
    order = sorted(range(len(lrs)), key=lambda k: lrs[k])
    return replace(picked(runs, order), remarks=one.remarks or other.remarks)


def in_a_row(parts: Sequence[Runs]) -> Runs:
    """Return the runs of all parts, one after the other."""
    if len(parts) == 1:
        return parts[0]
    failed = next((part for part in parts if part.error), parts[0])
    every = [remark for part in parts for remark in part.remarks]
    remarks = {remark.partition(" (")[0]: remark for remark in reversed(every)}  # with one reason
    if any(MOVED_NOTHING not in part.remarks for part in parts):
        remarks.pop(MOVED_NOTHING, None)
    epochs = [part.epochs for part in parts if part.epochs]
    return replace(
        parts[0],
        trainings=[training for part in parts for training in part.trainings],
        losses=pad_sequence(
            [column for part in parts for column in part.losses.unbind(1)], padding_value=math.nan
        ),
        lr_histories=side_by_side([part.lr_histories for part in parts]),
        final_losses=torch.cat([part.final_losses for part in parts]),
        held_out_losses=torch.cat([part.held_out_losses for part in parts]),
        weights={name: torch.cat([p.weights[name] for p in parts]) for name in parts[0].weights},
        nets=[net for part in parts for net in part.nets] if all(p.nets for p in parts) else [],
        stacked=all(part.stacked for part in parts),
        seconds=sum(part.seconds for part in parts),
        error=failed.error,
        stopped=failed.stopped,
        remarks=[*remarks.values()],
        epochs=Epochs(
            torch.cat([losses.losses for losses in epochs], 1),
            torch.cat([losses.held_out for losses in epochs], 1),
        )
        if len(epochs) == len(parts)
        else None,
    )


def side_by_side(lr_histories: Sequence[Tensor | None]) -> Tensor | None:
    """Return all columns of (steps, trainings) as one tensor, nan where one ended earlier."""
    columns: list[Tensor] = []
    for some in lr_histories:
        if some is None:
            return None
        columns += some.unbind(1)
    return pad_sequence(columns, padding_value=math.nan)
