"""The one door: train one net, or thousands, with one optimizer."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from lab.outcome import Outcome, Progress, as_exceptions, describe, no_progress
from lab.training.adapt import MakeOptimizer, judged, lr_keyword, set_mode
from lab.training.compiled import NOT_COMPILED, give_up, is_worth_compiling
from lab.training.datasets import IMPORTABLE, is_of_workers, loader_of
from lab.training.evaluation import loss_over
from lab.training.machine import threads_for_work
from lab.training.mapped import ways
from lab.training.proof import Unlike
from lab.training.runs import (
    MOVED_NOTHING,
    Epochs,
    Runs,
    Training,
    in_a_row,
    side_by_side,
)
from lab.training.schedules import Schedule, schedulers_of
from lab.training.stack import train_stack
from lab.training.way import is_stack_quicker, stacks_of, why_in_turn, work_of

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tasks import Task
from training import train

NO_LR = "its constructor names no lr: it trains at a learning rate of its own"
IN_TURN = "trained net by net, as a stack of nets would not train like each alone"


def train_all(
    task: Task,
    trainings: Sequence[Training],
    make_optimizer: MakeOptimizer,
    progress: Progress = no_progress,
    every_epoch: bool = False,
    crew: "Alone | None" = None,
) -> Runs:
    """Train them all: at once where that is quicker and proven to be the same, or else in turn.

    With `every_epoch` the runs have the losses after each epoch, too; nothing else changes. The
    `crew` trains, by default this process alone: see crew.py. An exception that the optimizer
    raises is a result, the runs' `error`, and so is Ctrl-C: the runs are as they are by then.
    """
    crew = crew or Alone()
    start = time.perf_counter()
    runs, reason = None, ""
    if is_stack_quicker(task, trainings):
        reason = why_in_turn(task, trainings[0])
        if not reason:
            runs, reason = crew.at_once(task, trainings, make_optimizer, progress, every_epoch)
    if runs is None:
        runs = crew.in_turn(task, trainings, make_optimizer, progress, every_epoch)
        if reason and not runs.error:
            runs.remarks.append(f"{IN_TURN} ({reason})")
    if hasattr(make_optimizer, "optimizer_class") and lr_keyword(make_optimizer) is None:
        runs.remarks.append(NO_LR)
    if where := getattr(make_optimizer, "where", None):
        runs.remarks.append(where(trainings[0].make_net(task)))
    runs.seconds = runs.seconds or time.perf_counter() - start
    return runs


class Alone:
    """This process, which trains one part of the work after the other."""

    def at_once(
        self,
        task: Task,
        trainings: Sequence[Training],
        make_optimizer: MakeOptimizer,
        progress: Progress,
        every_epoch: bool,
    ) -> tuple[Runs | None, str]:
        """Train all as one stack, or return None and why that cannot be."""
        return try_stack(task, trainings, make_optimizer, progress, every_epoch)

    def in_turn(
        self,
        task: Task,
        trainings: Sequence[Training],
        make_optimizer: MakeOptimizer,
        progress: Progress,
        every_epoch: bool,
    ) -> Runs:
        """Train each for itself."""
        return train_in_turn(task, trainings, make_optimizer, progress, every_epoch)


def try_stack(
    task: Task,
    trainings: Sequence[Training],
    make_optimizer: MakeOptimizer,
    progress: Progress,
    every_epoch: bool,
) -> tuple[Runs | None, str]:
    """Train all at once, compiled where that is worth it; or return None and why it cannot be.

    Most rules treat each element for itself, and take all elements as one parameter; where one does
    not, its formula is mapped over the nets.
    """
    reason = ""
    code = [True, False] if is_worth_compiling(task, trainings) else [False]
    for compiled, is_mapped in product(code, ways(make_optimizer)):
        try:
            with as_exceptions():
                runs = train_stacks(
                    task, trainings, make_optimizer, progress, compiled, every_epoch, is_mapped
                )
        except Unlike as finding:
            reason = str(finding) or reason
        except Exception as error:  # whatever vmap or an optimizer may raise
            reason = describe(error).split(". ")[0]
        else:
            if code[0] and not compiled:
                give_up(task)
                runs.remarks.append(f"{NOT_COMPILED} ({reason})")
            return runs, ""
    return None, reason


def train_stacks(
    task: Task,
    trainings: Sequence[Training],
    make_optimizer: MakeOptimizer,
    progress: Progress,
    compiled: bool,
    every_epoch: bool,
    is_mapped: bool,
) -> Runs:
    """Train them as one stack, or as many as are quicker; of those, keep what is complete."""
    how = compiled, every_epoch, is_mapped
    stacks = stacks_of(task, trainings)
    if len(stacks) == 1:
        return train_stack(task, trainings, make_optimizer, progress, *how)
    parts: list[Runs] = []
    for stack in progress(stacks, len(stacks), "stack"):
        parts.append(train_stack(task, stack, make_optimizer, no_progress, *how))
        if error := parts[-1].error:
            stopped = parts[-1].stopped
            return replace(in_a_row(parts[:-1] or parts), error=error, stopped=stopped)
    return in_a_row(parts)


def train_in_turn(
    task: Task,
    trainings: Sequence[Training],
    make_optimizer: MakeOptimizer,
    progress: Progress,
    every_epoch: bool = False,
) -> Runs:
    """Train one net after the other, each as if there were no other."""
    nets: list[TrainedNet] = []
    with threads_for_work(lambda: work_of(task, trainings[0])):
        if len(trainings) == 1:
            nets.append(train_one(task, trainings[0], make_optimizer, progress, every_epoch))
        else:
            for training in progress(trainings, len(trainings), "training"):
                nets.append(train_one(task, training, make_optimizer, no_progress, every_epoch))
                if not nets[-1].is_trained:
                    break
    last = nets[-1]
    if last.error and not last.is_trained and len(trainings) > 1:
        last.stop(last.error, len(last.losses) + 1, trainings[len(nets) - 1].seed)
    complete = [net for net in nets if net.is_trained] or nets
    failed = next((net for net in nets if net.error), last)
    final_losses, held_out_losses = (
        torch.tensor(losses, dtype=torch.float64)
        for losses in zip(*((net.final_loss, net.held_out_loss) for net in complete), strict=True)
    )
    return Runs(
        task=task,
        trainings=list(trainings[: len(complete)]),
        losses=pad_sequence(
            [torch.tensor(net.losses, dtype=torch.float64) for net in complete],
            padding_value=math.nan,
        ),
        final_losses=final_losses,
        held_out_losses=held_out_losses,
        weights=stacked_weights([net.net for net in complete]),
        nets=[net.net for net in complete],
        steps_per_epoch=last.steps_per_epoch,
        lr=complete[0].lr,
        lr_histories=side_by_side([net.lr_history for net in complete]),
        error=failed.error,
        stopped=failed.stopped,
        remarks=remarks_on(nets, failed.error),
        epochs=epochs_of(complete, task.epochs) if every_epoch else None,
    )


def remarks_on(nets: Sequence["TrainedNet"], error: BaseException | None) -> list[str]:
    """Return what a reader has to know of nets that were trained in turn."""
    if error:
        return [IMPORTABLE] if is_of_workers(error) else []
    return [] if any(net.moved for net in nets) else [MOVED_NOTHING]


@torch.no_grad()
def stacked_weights(nets: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Return weights and buffers by name (nets, ...), of which the nets' own become the rows.

    So each is held once. What a net has beside, its gradients, goes.
    """
    states = [{**dict(net.named_parameters()), **dict(net.named_buffers())} for net in nets]
    stacked = {}
    for name in states[0]:
        stacked[name] = torch.stack([state[name].detach() for state in states])
        for state, row in zip(states, stacked[name], strict=True):
            state[name].grad, state[name].data = None, row
    return stacked


def epochs_of(nets: Sequence["TrainedNet"], n_epochs: int) -> Epochs:
    """Return the losses of nets after each epoch, those missing filled up."""
    columns = []
    for net in nets:
        missing = math.inf if net.final_loss == math.inf else math.nan
        columns.append(net.epochs + [(missing, missing)] * (n_epochs - len(net.epochs)))
    losses, held_out = torch.tensor(columns, dtype=torch.float64).permute(2, 1, 0)
    return Epochs(losses, held_out)


@dataclass
class TrainedNet(Outcome):
    """What became of one training."""

    net: nn.Module
    lr: float | None
    steps_per_epoch: int
    schedule: Schedule | None = None  # None where the optimizer could not be made
    losses: list[float] = field(default_factory=list)
    final_loss: float = math.nan  # infinite where the training diverged, nan where it is unknown
    held_out_loss: float = math.nan
    epochs: list[tuple[float, float]] = field(default_factory=list)  # both losses after each
    moved: bool = False
    is_trained: bool = False

    @property
    def lr_history(self) -> Tensor | None:
        """The learning rate at each step (steps, 1); None without a schedule."""
        return self.schedule.lr_histories([1]) if self.schedule else None


def train_one(
    task: Task,
    training: Training,
    make_optimizer: MakeOptimizer,
    progress: Progress,
    every_epoch: bool = False,
) -> TrainedNet:
    """Train one net, as far as it goes."""
    net = training.make_net(task)
    loader = loader_of(task, training.dataset)
    run = TrainedNet(net, training.lr, len(loader))
    start = [param.detach().clone() for param in net.parameters()]
    try:
        optimizer = training.make_optimizer(make_optimizer, net)
        run.lr = optimizer.param_groups[0].get("lr")
        run.schedule = schedule = Schedule(schedulers_of(make_optimizer), optimizer, len(loader))
        set_mode(optimizer, "train")
        steps = train(net, optimizer, loader, task.loss, task.epochs)
        for loss in progress(steps, task.epochs * len(loader), "step"):
            run.losses.append(loss)
            schedule.step(loss)
            if every_epoch and len(run.losses) % len(loader) == 0 and math.isfinite(loss):
                with judged(optimizer):
                    run.epochs.append(losses_after(task, training, net))
        set_mode(optimizer, "eval")
        run.is_trained = True
    except BaseException as error:  # SystemExit, too
        run.stop(error, len(run.losses) + 1)
    run.moved = not all(torch.equal(a, b) for a, b in zip(start, net.parameters(), strict=True))
    try:
        if all(map(math.isfinite, run.losses[-1:])):
            with as_exceptions():
                run.final_loss, run.held_out_loss = losses_after(task, training, net)
        else:
            run.final_loss = run.held_out_loss = math.inf
    except Exception as error:  # as where the whole data set does not fit into the memory
        run.error = run.error or error
        run.stopped = run.stopped or f"its loss after training failed: {describe(error)}"
    return run


def losses_after(task: Task, training: Training, net: nn.Module) -> tuple[float, float]:
    """Return the net's losses over both data sets, infinity where one is not finite."""
    losses = (loss_over(task, net, data) for data in (training.dataset, training.held_out))
    loss, held_out_loss = (loss if math.isfinite(loss) else math.inf for loss in losses)
    return loss, held_out_loss
