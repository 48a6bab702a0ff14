"""Many nets trained at once, as one stack."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate, groupby
from typing import Any

from lab.outcome import Outcome, Progress, saying
from lab.training.adapt import MakeOptimizer, judged, make, set_mode
from lab.training.compiled import NOT_COMPILED, compiled_pass, give_up, loss_of_one
from lab.training.datasets import device_of, joined
from lab.training.evaluation import PART_BYTES, bytes_per_sample
from lab.training.machine import keep_memory, threads_for
from lab.training.mapped import Mapped
from lab.training.proof import Shadow, Unlike
from lab.training.runs import MOVED_NOTHING, Epochs, Runs, Training
from lab.training.schedules import Schedule, schedulers_of
from lab.training.statistics import infinite_where_diverged

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from data import make_loader
from tasks import Task
from training import evaluating


class Stack:
    """The nets of all trainings, as rows of one matrix, and their data.

    One forward pass runs every net; one backward pass of the summed losses gives each net its own
    gradient. The optimizer has a param group for each learning rate, and for all settings that come
    with it, whose one parameter is their rows. So a step costs little more than for a single net.
    Where rates change net by net, the groups come `apart`: each net has one.
    """

    def __init__(
        self,
        task: Task,
        trainings: Sequence[Training],
        compiled: bool = False,
        apart: bool = False,
    ):
        self.task, self.is_compiled = task, compiled
        self.remarks: list[str] = []
        # Trainings that share a seed share what it gives: one net to start from, one dataset.
        firsts: dict[int, Training] = {}
        for training in trainings:
            firsts.setdefault(training.seed, training)
        nets = [training.make_net(task) for training in firsts.values()]
        numbers = {seed: number for number, seed in enumerate(firsts)}
        device = device_of(trainings[0].dataset)
        self.seed_of = torch.tensor([numbers[t.seed] for t in trainings], device=device)
        self.data = stack_data([training.dataset for training in firsts.values()])
        self.held_out = stack_data([training.held_out for training in firsts.values()])
        self.net = trainings[0].make_net(task)  # its code, with the weights of each in turn
        starts, buffers = stack_module_state(nets)
        self.buffers = {name: buffer[self.seed_of] for name, buffer in buffers.items()}
        matrix = torch.cat([start.detach().reshape(len(nets), -1) for start in starts.values()], 1)
        self.matrix = matrix[self.seed_of]  # (nets, parameters of a net)
        columns = self.matrix.split([start[0].numel() for start in starts.values()], 1)
        self.weights = {  # views of the matrix, in the shapes that the net knows
            name: column.view(-1, *start.shape[1:]).requires_grad_()
            for (name, start), column in zip(starts.items(), columns, strict=True)
        }
        own = [hyperparameters(training) for training in trainings]
        if any(one.keys() != own[0].keys() for one in own):
            raise Unlike("not all of them set the same hyperparameters")
        groups = [[one] for one in own] if apart else [list(same) for _, same in groupby(own)]
        self.sizes = [len(group) for group in groups]
        self.rows = self.matrix.split(self.sizes)
        self.groups: list[dict[str, Any]] = [
            {"params": [rows]} | group[0] for group, rows in zip(groups, self.rows, strict=True)
        ]
        self.losses_of_each = vmap(partial(loss_of_one, self.net, task.loss))
        with evaluating(self.net):
            largest = bytes_per_sample(self.net, self.data[0][0, : task.batch_size])
        self.samples_at_once = max(1, int(PART_BYTES / max(1.0, largest)))
        self.batch_size = min(task.batch_size, self.data[0].shape[1])
        if compiled:  # one code for any number of nets and seeds, where torch can make such a one
            for tensor in (self.matrix, self.seed_of, *self.data, *self.buffers.values()):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)

    def backward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Give all rows their gradients by the mini-batch of these samples (n,) of their data.

        Returns the losses (nets,) and the gradients (nets, parameters of a net).
        """
        losses, grads = self.losses_and_gradients(samples.to(self.seed_of.device))
        self.matrix.grad = grads
        for rows, grad in zip(self.rows, grads.split(self.sizes), strict=True):
            rows.grad = grad
        return losses, grads

    def losses_and_gradients(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what `backward` gives, by compiled code where there is some."""
        if self.is_compiled and len(samples) == self.batch_size:  # not for a smaller last one
            try:
                return self.run_compiled(samples)
            except Exception as error:  # no C++ compiler, no space left, a net that it cannot take
                self.is_compiled = False
                give_up(self.task)
                error = getattr(error, "inner_exception", error)  # what torch.compile wraps
                reason = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0]
                self.remarks.append(f"{NOT_COMPILED} ({reason})")
        # index_select takes a third of the time that brackets take.
        x, y = (tensor.index_select(1, samples) for tensor in self.data)
        if len(x) < len(self.matrix):
            x, y = (tensor.index_select(0, self.seed_of) for tensor in (x, y))
        losses = self.losses_of_each(self.weights, self.buffers, x, y)
        parts = torch.autograd.grad(losses.sum(), list(self.weights.values()))
        grads = torch.cat([part.reshape(len(self.matrix), -1) for part in parts], 1)
        return losses.detach(), grads

    @torch.no_grad()
    def run_compiled(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        compute = compiled_pass(self.task.make_net, self.task.loss)
        with saying("compiling"):  # which happens in the first call
            return compute(self.matrix, self.buffers, self.data, self.seed_of, samples)

    def batch_of(self, k: int, samples: Tensor) -> tuple[Tensor, ...]:
        """Return the rows `samples` of the k-th net's data."""
        return tuple(tensor[self.seed_of[k], samples] for tensor in self.data)

    def buffers_of(self, k: int) -> dict[str, Tensor]:
        """Return the k-th net's buffers as they are now."""
        return {name: value[k].clone() for name, value in self.buffers.items()}

    def evaluate_both(self) -> Tensor:
        """Return each net's losses over the training set and the held-out set (2, nets)."""
        return torch.stack([self.evaluate(self.data), self.evaluate(self.held_out)])

    @torch.no_grad()
    def evaluate(self, data: tuple[Tensor, Tensor]) -> Tensor:
        """Return each net's loss (nets,) over the whole of its `data` (datasets, samples, ...)."""
        # In parts, or many nets would fill the memory, or one that is large inside.
        n_samples = data[0].shape[1]
        size = max(1, min(50_000, self.samples_at_once) // n_samples)
        # Allocate the result once: small tensors kept between large temporaries fragment memory.
        losses = self.matrix.new_empty(len(self.matrix))
        with evaluating(self.net):
            for first in range(0, len(self.matrix), size):
                part = slice(first, first + size)
                weights = {name: value[part] for name, value in self.weights.items()}
                buffers = {name: value[part] for name, value in self.buffers.items()}
                x, y = (tensor[self.seed_of[part]] for tensor in data)
                losses[part] = vmap(self.loss_in_parts)(weights, buffers, x, y)
        return losses

    def loss_in_parts(
        self, weights: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> Tensor:
        """Return what `loss_of_one` does; not all samples go through the net at once."""
        parts = x.split(self.samples_at_once)
        outputs = [functional_call(self.net, weights | buffers, (part,)) for part in parts]
        return self.task.loss(joined(outputs, [len(part) for part in parts]), y)


def hyperparameters(training: Training) -> dict[str, Any]:
    """Return those that a training has of its own, as a param group holds them."""
    return ({} if training.lr is None else {"lr": training.lr}) | {**training.settings}


def shadowed(trainings: Sequence[Training]) -> list[int]:
    """Return the numbers of those that train apart, too: the first one for the whole run.

    That has the middle lr. For one epoch there are those with the most of each hyperparameter that
    they do not share: the large gradients of the highest lr expose what treats those otherwise, as
    clipping does, and a hyperparameter that is not read from the param groups shows.
    """
    own = [hyperparameters(training) for training in trainings]
    ranked = sorted(range(len(own)), key=lambda k: own[k].get("lr", 0))
    numbers = [ranked[len(ranked) // 2], ranked[-1]]
    for name in own[0]:
        others = [k for k in range(len(own)) if own[k][name] != own[0][name]]
        numbers += [max(others, key=lambda k: own[k][name])] if others and name != "lr" else []
    return list(dict.fromkeys(numbers))


def stack_data(datasets: Sequence[TensorDataset]) -> tuple[Tensor, Tensor]:
    """Return the x and the y of all data sets, each as one tensor (datasets, samples, ...)."""
    x, y = (torch.stack(tensors) for tensors in zip(*(d.tensors for d in datasets), strict=True))
    return x, y


def train_stack(
    task: Task,
    trainings: Sequence[Training],
    make_optimizer: MakeOptimizer,
    progress: Progress,
    compiled: bool = False,
    every_epoch: bool = False,
    is_mapped: bool = False,
) -> Runs:
    """Train all nets at once. Raises Unlike as soon as they do not train as each would alone.

    The optimizer steps over all elements as if they were one parameter; if it `is_mapped`, over
    those of each net in their own shapes.
    """
    keep_memory()
    schedulers = schedulers_of(make_optimizer)
    apart = any(spec.goes_by_loss for spec in schedulers)
    stack = Stack(task, trainings, compiled, apart)
    start = stack.matrix.clone()
    shadows = [Shadow(task, trainings[k], k, make_optimizer) for k in shadowed(trainings)]
    optimizer: Optimizer
    if is_mapped:
        firsts = [trainings[number] for number in accumulate([0, *stack.sizes[:-1]])]
        optimizer = Mapped(stack.matrix, stack.sizes, stack.net, firsts, make_optimizer)
    else:
        optimizer = make(make_optimizer, stack.groups, trainings[0].lr, trainings[0].settings)
    set_mode(optimizer, "train")
    lr = optimizer.param_groups[0].get("lr")
    loader = make_loader(TensorDataset(torch.arange(len(trainings[0].dataset))), task.batch_size)
    schedule = Schedule(schedulers, optimizer, len(loader))
    steps = train_together(stack, shadows, optimizer, loader, task.epochs)
    losses = stack.matrix.new_empty(task.epochs * len(loader), len(trainings))
    epochs = stack.matrix.new_full((2, task.epochs, len(trainings)), torch.nan)
    done, outcome = 0, Outcome(remarks=stack.remarks)
    with threads_for(stack.matrix.numel()):
        try:
            for row in progress(steps, len(losses), "step"):
                losses[done] = row
                done += 1
                schedule.step(row)
                if every_epoch and done % len(loader) == 0:
                    with judged(optimizer):
                        epochs[:, done // len(loader) - 1] = stack.evaluate_both()
            for every in (optimizer, *(shadow.optimizer for shadow in shadows)):
                set_mode(every, "eval")
        except KeyboardInterrupt as error:
            outcome.stop(error, done + 1)
        final_losses, held_out_losses = stack.evaluate_both()
    if not outcome.error:
        for shadow in shadows:
            shadow.check_end(stack, final_losses, held_out_losses)
    if done and torch.equal(start, stack.matrix):
        outcome.remarks.append(MOVED_NOTHING)
    losses, diverged = cut_off(losses[:done].cpu().double())
    final_losses, held_out_losses = (
        infinite_where_diverged(end.cpu().double()).masked_fill(diverged, torch.inf)
        for end in (final_losses, held_out_losses)
    )
    return Runs(
        task,
        list(trainings),
        losses,
        final_losses,
        held_out_losses,
        weights={name: value.detach() for name, value in stack.weights.items()} | stack.buffers,
        steps_per_epoch=len(loader),
        lr=lr,
        lr_histories=schedule.lr_histories(stack.sizes),
        stacked=True,
        error=outcome.error,
        stopped=outcome.stopped,
        remarks=outcome.remarks,
        epochs=after_epochs(epochs.cpu().double(), losses, len(loader)) if every_epoch else None,
    )


def train_together(
    stack: Stack,
    shadows: list[Shadow],
    optimizer: Optimizer,
    loader: DataLoader[tuple[Tensor, ...]],
    epochs: int,
) -> Iterator[Tensor]:
    """Train the nets of a stack, a step at a time; yield the losses (nets,) from before each.

    `loader` serves mini-batches of row numbers. Shadows go along; after an epoch only one does, and
    the others leave the list.
    """
    for epoch in range(epochs):
        for number, (samples,) in enumerate(loader):
            is_checked = number == epoch % len(loader)  # once an epoch, at another of its steps
            passes: list[Tensor] = []
            totals: list[Tensor] = []

            def closure() -> Tensor:
                if is_checked:
                    for shadow in shadows:
                        shadow.record_start(stack, samples)
                losses, grads = stack.backward(samples)
                for shadow in shadows:
                    shadow.record_pass(stack, losses, grads, is_checked)
                passes.append(losses)
                totals.append(losses.sum())
                return totals[-1]

            step: Callable[..., object] = optimizer.step
            returned = step(closure)
            if len(totals) != 1 or returned is not totals[0]:
                raise Unlike("a step has to call its closure once and return what that returns")
            for shadow in shadows:
                shadow.step()
                if is_checked or number == len(loader) - 1:
                    shadow.look(stack)
            yield passes[0]
        shadows[:] = [shadow for shadow in shadows if shadow.is_alive][:1]


def after_epochs(ends: Tensor, losses: Tensor, steps_per_epoch: int) -> Epochs:
    """Return the losses after each epoch, given them as computed (2, epochs, nets), nan for none.

    `losses` (steps, nets) end as `cut_off` leaves them: each net is infinite from that epoch on.
    """
    n_done = len(losses) // steps_per_epoch
    ends[:, :n_done] = infinite_where_diverged(ends[:, :n_done])
    diverged = ~losses.isfinite()
    last = torch.where(diverged.any(0), diverged.int().argmax(0) // steps_per_epoch, ends.shape[1])
    is_after = torch.arange(ends.shape[1]).unsqueeze(1) >= last
    return Epochs(*ends.masked_fill(is_after, torch.inf))


def cut_off(losses: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses (steps, nets) as if each net had stopped for good, and which (nets,) did.

    Alone, a net stops at its first loss that is not finite.
    """
    ended = (~losses.isfinite()).cumsum(0)
    losses = losses.masked_fill((ended > 1) | ((ended == 1) & losses.isfinite()), torch.nan)
    return losses, (ended[-1:] > 0).any(0)
