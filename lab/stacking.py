"""Many nets trained at once, and the proof, while they train, that it is the same as each alone."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from lab.machine import keep_memory, threads_for
from lab.report import Interrupted, stop_in_words
from lab.trainings import (
    MOVED_NOTHING,
    Problem,
    Progress,
    Runs,
    Training,
    train_in_turn,
    without_progress,
)

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils import parameters_to_vector
from torch.optim import SGD, Optimizer
from torch.utils.data import TensorDataset

from data import make_loader
from training import evaluate, train

IN_TURN = "trained net by net, as a stack of nets would not train like each alone"


def train_all(
    problem: Problem,
    trainings: list[Training],
    make_optimizer: Callable[..., Optimizer],
    progress: Progress = without_progress,
) -> Runs:
    """Train them all: at once where that is proven to be the same, or else in turn.

    `make_optimizer` takes parameters or param groups. An exception that its optimizer raises is a
    result, the runs' `error`. Ctrl-C raises Interrupted, with the runs as they are.
    """
    start = time.perf_counter()
    runs = None
    if len(trainings) > 1:
        try:
            runs = train_stack(problem, trainings, make_optimizer, progress)
        except Exception:  # Unlike, or whatever vmap or an optimizer may raise
            runs = None
    if runs is None:
        runs = train_in_turn(problem, trainings, make_optimizer, progress)
        if len(trainings) > 1 and not runs.error:
            runs.remarks.append(IN_TURN)
    runs.seconds = time.perf_counter() - start
    if isinstance(runs.error, KeyboardInterrupt):
        raise Interrupted(runs) from None
    return runs


class Unlike(Exception):  # noqa: N818 (a finding, not an error)
    """A stack does not train as each of its nets would alone."""


# ---------------------------------------------------------------- the stack


class Stack:
    """The nets of all trainings, as rows of one matrix, and their data.

    One forward pass runs every net; one backward pass of the summed losses gives each net its own
    gradient. The optimizer has a param group for each learning rate, whose one parameter is that
    rate's rows. So a step costs little more than for a single net.
    """

    def __init__(self, problem: Problem, trainings: list[Training]):
        # Trainings that share a seed share what it gives: one net to start from, one dataset.
        nets = {}
        for training in trainings:
            if training.seed not in nets:
                nets[training.seed] = training.make_net(problem)
        datasets = {id(t.dataset): t.dataset for t in trainings}
        net_of = positions([t.seed for t in trainings], nets)
        self.dataset_of = positions([id(t.dataset) for t in trainings], datasets)
        by_name = zip(*(dataset.tensors for dataset in datasets.values()), strict=True)
        self.x, self.y = map(torch.stack, by_name)  # (datasets, samples, ...)
        self.net = nets[trainings[0].seed]
        starts, buffers = stack_module_state(list(nets.values()))
        self.buffers = {name: buffer[net_of] for name, buffer in buffers.items()}
        matrix = torch.cat([start.detach().reshape(len(nets), -1) for start in starts.values()], 1)
        self.matrix = matrix[net_of]  # (nets, parameters of a net)
        columns = self.matrix.split([start[0].numel() for start in starts.values()], 1)
        self.weights = {  # views of the matrix, in the shapes that the net knows
            name: column.view(-1, *start.shape[1:]).requires_grad_()
            for (name, start), column in zip(starts.items(), columns, strict=True)
        }
        groups = [(lr, len(list(group))) for lr, group in groupby(t.lr for t in trainings)]
        self.sizes = [size for _, size in groups]
        self.rows = self.matrix.split(self.sizes)
        self.groups = [
            {"params": [rows]} | ({} if lr is None else {"lr": lr})
            for (lr, _), rows in zip(groups, self.rows, strict=True)
        ]

        def loss_of_one(weights: dict, buffers: dict, x: Tensor, y: Tensor) -> Tensor:
            return problem.loss_function(functional_call(self.net, weights | buffers, (x,)), y)

        self.losses_of_each = vmap(loss_of_one)

    def backward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Give all rows their gradients by the mini-batch of these samples (n,) of their data.

        Returns the losses (nets,) and the gradients (nets, parameters of a net).
        """
        x, y = self.x[:, samples], self.y[:, samples]
        if len(x) < len(self.matrix):
            x, y = x[self.dataset_of], y[self.dataset_of]
        losses = self.losses_of_each(self.weights, self.buffers, x, y)
        grads = torch.autograd.grad(losses.sum(), list(self.weights.values()))
        grads = torch.cat([grad.reshape(len(self.matrix), -1) for grad in grads], 1)
        for rows, grad in zip(self.rows, grads.split(self.sizes), strict=True):
            rows.grad = grad
        return losses.detach(), grads

    def data_of(self, k: int, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows `samples` of the k-th net's data."""
        return self.x[self.dataset_of[k], samples], self.y[self.dataset_of[k], samples]

    @torch.no_grad()
    def evaluate(self) -> Tensor:
        """Return each net's loss over its whole training set (nets,)."""
        size = max(1, 200_000 // self.x.shape[1])  # in parts, or many nets would fill the memory
        losses = []
        for first in range(0, len(self.matrix), size):
            part = slice(first, first + size)
            weights = {name: value[part] for name, value in self.weights.items()}
            buffers = {name: value[part] for name, value in self.buffers.items()}
            x, y = self.x[self.dataset_of[part]], self.y[self.dataset_of[part]]
            losses.append(self.losses_of_each(weights, buffers, x, y))
        return torch.cat(losses)


def positions(keys: list, known: dict) -> Tensor:
    """Return the position of each of the keys among the known ones."""
    numbers = {key: number for number, key in enumerate(known)}
    return torch.tensor([numbers[key] for key in keys])


def train_stack(
    problem: Problem,
    trainings: list[Training],
    make_optimizer: Callable[..., Optimizer],
    progress: Progress,
) -> Runs:
    """Train all nets at once. Raises Unlike as soon as they do not train as each would alone."""
    keep_memory()
    stack = Stack(problem, trainings)
    before = stack.matrix.clone()
    # The middle rate has a shadow throughout, the highest one for an epoch: there gradients grow
    # large, and so shows what treats large ones otherwise.
    numbers = dict.fromkeys((len(trainings) // 2, len(trainings) - 1))
    shadows = [Shadow(problem, trainings, k, make_optimizer) for k in numbers]
    optimizer = make_optimizer(stack.groups)
    lr = optimizer.param_groups[0].get("lr")
    loader = make_loader(TensorDataset(torch.arange(stack.x.shape[1])), problem.batch_size)
    steps = train_together(stack, shadows, optimizer, loader, problem.epochs)
    losses = stack.matrix.new_empty(problem.epochs * len(loader), len(trainings))
    done, error = 0, None
    with threads_for(stack.matrix.numel()):
        try:
            for row in progress(steps, len(losses)):
                losses[done] = row
                done += 1
        except KeyboardInterrupt as interrupt:
            error = interrupt
        final_losses = stack.evaluate()
    if not error:
        for shadow in shadows:
            shadow.check_end(stack.matrix, final_losses)
    losses, final_losses = cut_off(losses[:done].cpu().double(), final_losses.cpu().double())
    return Runs(
        trainings,
        losses,
        final_losses,
        net=stack.net,
        weights={name: value.detach() for name, value in stack.weights.items()} | stack.buffers,
        steps_per_epoch=len(loader),
        lr=lr,
        stacked=True,
        error=error,
        stopped=stop_in_words(error, done + 1) if error else "",
        remarks=[MOVED_NOTHING] if torch.equal(before, stack.matrix) else [],
    )


def train_together(
    stack: Stack,
    shadows: list["Shadow"],
    optimizer: Optimizer,
    loader: Iterable[tuple[Tensor]],
    epochs: int,
) -> Iterator[Tensor]:
    """Train the nets of a stack, a step at a time; yield the losses (nets,) from before each.

    `loader` serves mini-batches of row numbers. Shadows go along; after an epoch only one does, and
    the others leave the list.
    """

    def closure() -> Tensor:
        nonlocal losses, calls, total
        losses, grads = stack.backward(samples)
        for shadow in shadows:
            shadow.look(stack, losses, grads, samples if is_checked else None)
        calls, total = calls + 1, losses.sum()
        return total

    losses = total = None
    for epoch in range(epochs):
        for number, (samples,) in enumerate(loader):  # noqa: B007 (the closure reads them)
            is_checked = number == epoch % len(loader)  # once an epoch, at another of its steps
            calls = 0
            if optimizer.step(closure) is not total or calls != 1:
                raise Unlike("a step has to call its closure once and return what that returns")
            for shadow in shadows:
                shadow.step()
            yield losses
        shadows[:] = [shadow for shadow in shadows if shadow.alive][:1]


def cut_off(losses: Tensor, final_losses: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses (steps, nets) and final losses (nets,) as if each net had stopped for good.

    Alone, a net stops at its first loss that is not finite.
    """
    ended = (~losses.isfinite()).cumsum(0)
    losses = losses.masked_fill((ended > 1) | ((ended == 1) & losses.isfinite()), torch.nan)
    finite = final_losses.isfinite() & (ended[-1:] == 0).all(0)
    return losses, final_losses.masked_fill(~finite, torch.inf)


# ---------------------------------------------------------------- the proof


class Shadow:
    """The k-th net of a stack once more: trained apart, on the gradients that the stack has for it.

    It has an optimizer of its own, and separate parameters in the net's own shapes. As it is given
    the stack's gradients, no chaos can come between the two: their weights stay the same, to
    rounding, if the optimizer treats every element for itself, and part for good if it does not.
    So it is enough to look once an epoch. Then losses and gradients, too, are held against what the
    training loop gives.
    """

    def __init__(
        self,
        problem: Problem,
        trainings: list[Training],
        k: int,
        make_optimizer: Callable[..., Optimizer],
    ):
        self.k, self.problem, self.dataset = k, problem, trainings[k].dataset
        self.net = trainings[k].make_net(problem)
        self.params = list(self.net.parameters())
        self.optimizer = trainings[k].make_optimizer(make_optimizer, self.net)
        self.first_weights = parameters_to_vector(self.params).detach()
        self.grad = torch.empty_like(self.first_weights)
        parts = self.grad.split([param.numel() for param in self.params])
        self.grads = [part.view_as(p) for part, p in zip(parts, self.params, strict=True)]
        self.first = None  # loss and gradient: what is large here
        self.alive = True  # until it diverges

    def look(self, stack: Stack, losses: Tensor, grads: Tensor, samples: Tensor | None) -> None:
        """Take down what the stack has when its closure is called; with `samples`, to check it."""
        self.grad.copy_(grads[self.k])
        self.weights = None
        if samples is not None:
            self.weights, self.loss = stack.matrix[self.k].clone(), losses[self.k].clone()
            self.batch = stack.data_of(self.k, samples)
            self.alive = self.alive and bool(self.loss.isfinite() & self.grad.isfinite().all())
            self.first = self.first or (self.loss, self.grad.clone())

    def step(self) -> None:
        """Take the step that the stack has taken; raise Unlike if it was not the net's own."""
        calls = 0

        def closure() -> Tensor:
            nonlocal calls
            calls += 1
            if self.weights is not None:
                self.check_weights(self.weights)
                self.check_gradient()
            for param, grad in zip(self.params, self.grads, strict=True):
                param.grad = grad
            return self.grad

        if self.alive and (self.optimizer.step(closure) is not self.grad or calls != 1):
            raise Unlike("alone, a step calls its closure otherwise")

    @torch.enable_grad()
    def check_gradient(self) -> None:
        """Raise Unlike if the training loop has another loss or gradient than the stack."""
        inert = SGD(self.params, lr=0.0)
        (loss,) = train(self.net, inert, [self.batch], self.problem.loss_function, epochs=1)
        grad = torch.cat([param.grad.flatten() for param in self.params])
        first_loss, first_grad = self.first
        if abs(loss - self.loss) > 1e-4 * abs(self.loss) + 1e-6 * abs(first_loss):
            raise Unlike("its loss differs")
        if (grad - self.grad).norm() > 1e-3 * self.grad.norm() + 1e-5 * first_grad.norm():
            raise Unlike("its gradient differs")

    def check_weights(self, weights: Tensor) -> None:
        """Raise Unlike if these weights are not the shadow's, to rounding."""
        mine = parameters_to_vector(self.params).detach()
        bound = 1e-5 * (mine - self.first_weights).norm() + 1e-7 * mine.norm()
        if (mine - weights).norm() > bound:
            raise Unlike("its weights differ")

    def check_end(self, matrix: Tensor, final_losses: Tensor) -> None:
        """Raise Unlike if the net ended elsewhere or, over its training set, at another loss."""
        self.alive = self.alive and bool(final_losses[self.k].isfinite())
        if not self.alive:
            return
        self.check_weights(matrix[self.k])
        loss = evaluate(self.net, self.dataset, self.problem.loss_function)
        if abs(loss - final_losses[self.k]) > 1e-3 * abs(loss) + 1e-6 * abs(self.first[0]):
            raise Unlike("its final loss differs")
