"""Many nets trained at once, and the proof, while they train, that it is the same as each alone."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import groupby

from lab.machine import keep_memory, threads_for
from lab.report import NOT_COMPILED, Interrupted, stop_in_words
from lab.schedules import Schedule, schedulers_of
from lab.specs import describe
from lab.statistics import infinite_where_diverged
from lab.trainings import (
    MOVED_NOTHING,
    Progress,
    Runs,
    Training,
    train_in_turn,
    without_progress,
)

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn.utils import parameters_to_vector
from torch.optim import SGD, Optimizer
from torch.utils.data import TensorDataset

from data import make_loader
from tasks import Task
from training import evaluate, train

IN_TURN = "trained net by net, as a stack of nets would not train like each alone"


def train_all(
    task: Task,
    trainings: list[Training],
    make_optimizer: Callable[..., Optimizer],
    progress: Progress = without_progress,
    compiled: bool | None = None,
) -> Runs:
    """Train them all: at once where that is proven to be the same, or else in turn.

    `make_optimizer` takes parameters or param groups. `compiled` says whether to compile what a
    stack does at each step; by default where so many trainings are worth it. An exception that the
    optimizer raises is a result, the runs' `error`. Ctrl-C raises Interrupted, with the runs as
    they are.
    """
    start = time.perf_counter()
    if compiled is None:
        compiled = is_worth_compiling(task, trainings)
    runs = reason = None
    attempts = [True, False] if compiled else [False]
    for compiled in attempts if len(trainings) > 1 else []:
        try:
            runs = train_stack(task, trainings, make_optimizer, progress, compiled)
            break
        except Unlike as finding:
            reason = finding
        except Exception as error:  # whatever vmap or an optimizer may raise
            reason = describe(error).split(". ")[0]
    if runs and reason:
        runs.remarks.append(f"{NOT_COMPILED} ({reason})")
    if runs is None:
        runs = train_in_turn(task, trainings, make_optimizer, progress)
        if reason and not runs.error:
            runs.remarks.append(f"{IN_TURN} ({reason})")
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
    rate's rows. So a step costs little more than for a single net. Where rates change net by net,
    the groups come `apart`: each net has one.
    """

    def __init__(
        self, task: Task, trainings: list[Training], compiled: bool = False, apart: bool = False
    ):
        # Trainings that share a seed share what it gives: one net to start from, one dataset.
        firsts = {}
        for training in trainings:
            firsts.setdefault(training.seed, training)
        nets = [training.first_net(task) for training in firsts.values()]
        numbers = {seed: number for number, seed in enumerate(firsts)}
        device = trainings[0].dataset.tensors[0].device
        self.seed_of = torch.tensor([numbers[t.seed] for t in trainings], device=device)
        self.data = stack_data([training.dataset for training in firsts.values()])
        self.held_out = stack_data([training.held_out for training in firsts.values()])
        self.net, self.task = trainings[0].make_net(task), task
        starts, buffers = stack_module_state(nets)
        self.buffers = {name: buffer[self.seed_of] for name, buffer in buffers.items()}
        matrix = torch.cat([start.detach().reshape(len(nets), -1) for start in starts.values()], 1)
        self.matrix = matrix[self.seed_of]  # (nets, parameters of a net)
        columns = self.matrix.split([start[0].numel() for start in starts.values()], 1)
        self.weights = {  # views of the matrix, in the shapes that the net knows
            name: column.view(-1, *start.shape[1:]).requires_grad_()
            for (name, start), column in zip(starts.items(), columns, strict=True)
        }
        groups = [(lr, len(list(group))) for lr, group in groupby(t.lr for t in trainings)]
        if apart:
            groups = [(training.lr, 1) for training in trainings]
        self.sizes = [size for _, size in groups]
        self.rows = self.matrix.split(self.sizes)
        self.groups = [
            {"params": [rows]} | ({} if lr is None else {"lr": lr})
            for (lr, _), rows in zip(groups, self.rows, strict=True)
        ]

        self.losses_of_each = vmap(partial(loss_of_one, self.net, task.loss))
        self.is_compiled, self.remarks = compiled, []
        self.batch_size = min(task.batch_size, self.data[0].shape[1])
        if compiled:  # one code for any number of nets and seeds, where torch can make such a one
            for tensor in (self.matrix, self.seed_of, *self.data, *self.buffers.values()):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)

    def backward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Give all rows their gradients by the mini-batch of these samples (n,) of their data.

        Returns the losses (nets,) and the gradients (nets, parameters of a net).
        """
        losses, grads = self.losses_and_gradients(samples.to(self.seed_of.device))
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
                error = getattr(error, "inner_exception", error)  # what torch.compile wraps
                reason = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0]
                self.remarks.append(f"{NOT_COMPILED} ({reason})")
        # index_select takes a third of the time that brackets take.
        x, y = (tensor.index_select(1, samples) for tensor in self.data)
        if len(x) < len(self.matrix):
            x, y = (tensor.index_select(0, self.seed_of) for tensor in (x, y))
        losses = self.losses_of_each(self.weights, self.buffers, x, y)
        grads = torch.autograd.grad(losses.sum(), list(self.weights.values()))
        grads = torch.cat([grad.reshape(len(self.matrix), -1) for grad in grads], 1)
        return losses.detach(), grads

    @torch.no_grad()
    def run_compiled(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        compute = compiled_pass(self.task.make_net, self.task.loss)
        return compute(self.matrix, self.buffers, self.data, self.seed_of, samples)

    def batch_of(self, k: int, samples: Tensor) -> tuple[Tensor, ...]:
        """Return the rows `samples` of the k-th net's data."""
        return tuple(tensor[self.seed_of[k], samples] for tensor in self.data)

    def buffers_of(self, k: int) -> dict[str, Tensor]:
        """Return the k-th net's buffers as they are now."""
        return {name: value[k].clone() for name, value in self.buffers.items()}

    @torch.no_grad()
    def evaluate(self, data: tuple[Tensor, Tensor]) -> Tensor:
        """Return each net's loss (nets,) over the whole of its `data` (datasets, samples, ...)."""
        size = max(1, 50_000 // data[0].shape[1])  # in parts, or many nets would fill the memory
        # Made whole: small tensors that stay, made among large ones that go, would spoil the heap.
        losses = self.matrix.new_empty(len(self.matrix))
        self.net.eval()
        for first in range(0, len(self.matrix), size):
            part = slice(first, first + size)
            weights = {name: value[part] for name, value in self.weights.items()}
            buffers = {name: value[part] for name, value in self.buffers.items()}
            x, y = (tensor[self.seed_of[part]] for tensor in data)
            losses[part] = self.losses_of_each(weights, buffers, x, y)
        self.net.train()
        return losses


def stack_data(datasets: list[TensorDataset]) -> tuple[Tensor, Tensor]:
    """Return the x and the y of all data sets, each as one tensor (datasets, samples, ...)."""
    x, y = map(torch.stack, zip(*(dataset.tensors for dataset in datasets), strict=True))
    return x, y


def train_stack(
    task: Task,
    trainings: list[Training],
    make_optimizer: Callable[..., Optimizer],
    progress: Progress,
    compiled: bool = False,
) -> Runs:
    """Train all nets at once. Raises Unlike as soon as they do not train as each would alone."""
    keep_memory()
    schedulers = schedulers_of(make_optimizer)
    apart = any(spec.goes_by_loss for spec in schedulers)
    stack = Stack(task, trainings, compiled, apart)
    before = stack.matrix.clone()
    # The middle rate has a shadow throughout, the highest one for an epoch: there gradients grow
    # large, and so shows what treats large ones otherwise.
    numbers = dict.fromkeys((len(trainings) // 2, len(trainings) - 1))
    shadows = [Shadow(task, trainings, k, make_optimizer) for k in numbers]
    optimizer = make_optimizer(stack.groups)
    lr = optimizer.param_groups[0].get("lr")
    loader = make_loader(TensorDataset(torch.arange(len(trainings[0].dataset))), task.batch_size)
    schedule = Schedule(schedulers, optimizer, len(loader))
    steps = train_together(stack, shadows, optimizer, loader, task.epochs)
    losses = stack.matrix.new_empty(task.epochs * len(loader), len(trainings))
    done, error = 0, None
    with threads_for(stack.matrix.numel()):
        try:
            for row in progress(steps, len(losses)):
                losses[done] = row
                done += 1
                schedule.step(row)
        except KeyboardInterrupt as interrupt:
            error = interrupt
        ends = [stack.evaluate(data) for data in (stack.data, stack.held_out)]
    if not error:
        for shadow in shadows:
            shadow.check_end(stack, *ends)
    losses, diverged = cut_off(losses[:done].cpu().double())
    final_losses, held_out_losses = (
        infinite_where_diverged(end.cpu().double()).masked_fill(diverged, torch.inf) for end in ends
    )
    return Runs(
        trainings,
        losses,
        final_losses,
        held_out_losses,
        net=stack.net,
        weights={name: value.detach() for name, value in stack.weights.items()} | stack.buffers,
        steps_per_epoch=len(loader),
        lr=lr,
        rates=schedule.rates_of(stack.sizes),
        stacked=True,
        error=error,
        stopped=stop_in_words(error, done + 1) if error else "",
        remarks=stack.remarks
        + ([MOVED_NOTHING] if done and torch.equal(before, stack.matrix) else []),
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
        if is_checked:
            for shadow in shadows:
                shadow.take_down(stack, samples)
        losses, grads = stack.backward(samples)
        for shadow in shadows:
            shadow.look(stack, losses, grads, is_checked)
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


def cut_off(losses: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses (steps, nets) as if each net had stopped for good, and which (nets,) did.

    Alone, a net stops at its first loss that is not finite.
    """
    ended = (~losses.isfinite()).cumsum(0)
    losses = losses.masked_fill((ended > 1) | ((ended == 1) & losses.isfinite()), torch.nan)
    return losses, (ended[-1:] > 0).any(0)


def loss_of_one(
    net: nn.Module, loss: Callable, weights: dict, buffers: dict, x: Tensor, y: Tensor
) -> Tensor:
    """Return the loss that the net has with these weights and buffers."""
    return loss(functional_call(net, weights | buffers, (x,)), y)


# ---------------------------------------------------------------- compiled

# What small nets cost is many small operations, and the memory that each reads and writes. Out of
# them all torch.compile makes a few loops in C++. So the pass of 900 of the tutorial's nets takes a
# seventh of the time; larger nets gain less, some nothing. To compile takes 4 to 17 s, the longer
# the deeper the net, or 2 s where torch finds on the disk what an earlier process compiled.
#
# So many steps of single nets, for each parameter tensor of a net, repay that. It is a count, and
# not a clock, so that the same command always gives the same numbers.
WORTH_COMPILING = 3_000_000


def is_worth_compiling(task: Task, trainings: list[Training], n_optimizers: int = 1) -> bool:
    """Tell whether compiling repays if so many optimizers train all these."""
    steps = task.epochs * math.ceil(len(trainings[0].dataset) / task.batch_size)
    n_tensors = len(list(task.make_net().parameters()))
    return n_optimizers * len(trainings) * steps >= WORTH_COMPILING * n_tensors


@cache
def compiled_pass(make_net: Callable[[], nn.Module], loss: Callable) -> Callable:
    """Return compiled code for the losses and gradients of a stack of such nets.

    It is the same function for all stacks of a process, so that it is compiled once.
    """
    net = make_net()
    shapes = {name: param.shape for name, param in net.named_parameters()}
    sizes = [shape.numel() for shape in shapes.values()]
    pass_of_each = vmap(grad_and_value(partial(loss_of_one, net, loss)))

    def compute(
        matrix: Tensor, buffers: dict, data: tuple[Tensor, Tensor], seed_of: Tensor, samples: Tensor
    ) -> tuple[Tensor, Tensor]:
        x, y = (tensor.index_select(1, samples).index_select(0, seed_of) for tensor in data)
        weights = {
            name: column.view(-1, *shape)
            for (name, shape), column in zip(shapes.items(), matrix.split(sizes, 1), strict=True)
        }
        grads, losses = pass_of_each(weights, buffers, x, y)
        return losses, torch.cat([grad.reshape(len(matrix), -1) for grad in grads.values()], 1)

    torch._logging.set_logs(all=logging.CRITICAL)  # what goes wrong is told in one line
    compiled = torch.compile(
        compute,
        fullgraph=True,
        recompile_limit=4,  # for other numbers of nets, where one code does not do for all
        isolate_recompiles=True,
        options={
            # Only shapes are looked at before each call. What else a net may go by, the proof sees.
            "guard_filter_fn": torch.compiler.keep_tensor_guards_unsafe,
            # Compiling torch's headers apart, and programs that try out what the processor can do,
            # would double the time. It repays where there is more to compile.
            "cpp_cache_precompile_headers": False,
            "cpp.vec_isa_ok": True,
            # Or threads share a sum of one net, and how it is rounded depends on their number.
            "cpp.enable_loop_tail_vec": False,
        },
    )
    failures = []

    def run(*tensors):
        if failures:  # what failed once is not tried again
            raise failures[0]
        try:
            return compiled(*tensors)
        except Exception as error:
            failures.append(error)
            raise

    return run


# ---------------------------------------------------------------- the proof


class Shadow:
    """The k-th net of a stack once more: trained apart, on the gradients that the stack has for it.

    It has an optimizer of its own, and separate parameters in the net's own shapes. As it is given
    the stack's gradients, no chaos can come between the two: their weights stay the same, to
    rounding, if the optimizer treats every element for itself, and part for good if it does not.
    So it is enough to look once an epoch. Then losses, gradients and buffers, too, are held against
    what the training loop gives.
    """

    def __init__(
        self,
        task: Task,
        trainings: list[Training],
        k: int,
        make_optimizer: Callable[..., Optimizer],
    ):
        self.k, self.task, self.training = k, task, trainings[k]
        self.net = trainings[k].make_net(task)
        self.params = list(self.net.parameters())
        self.optimizer = trainings[k].make_optimizer(make_optimizer, self.net)
        steps_per_epoch = math.ceil(len(self.training.dataset) / task.batch_size)
        self.schedule = Schedule(schedulers_of(make_optimizer), self.optimizer, steps_per_epoch)
        self.first_weights = parameters_to_vector(self.params).detach()
        self.grad = torch.empty_like(self.first_weights)
        parts = self.grad.split([param.numel() for param in self.params])
        self.grads = [part.view_as(p) for part, p in zip(parts, self.params, strict=True)]
        self.first = None  # loss and gradient: what is large here
        self.alive = True  # until it diverges

    def take_down(self, stack: Stack, samples: Tensor) -> None:
        """Take down what the stack starts a step from that is to be checked."""
        self.batch = stack.batch_of(self.k, samples)
        self.buffers_before = stack.buffers_of(self.k)

    def look(self, stack: Stack, losses: Tensor, grads: Tensor, is_checked: bool) -> None:
        """Take down what the stack has made of it when its closure was called."""
        self.grad.copy_(grads[self.k])
        self.last_loss, self.weights = losses[self.k], None
        if is_checked:
            self.weights, self.loss = stack.matrix[self.k].clone(), losses[self.k].clone()
            self.buffers = stack.buffers_of(self.k)
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

        if not self.alive:
            return
        if self.optimizer.step(closure) is not self.grad or calls != 1:
            raise Unlike("alone, a step calls its closure otherwise")
        self.schedule.step(self.last_loss)

    @torch.enable_grad()
    def check_gradient(self) -> None:
        """Raise Unlike if the training loop has another loss or gradient than the stack."""
        inert = SGD(self.params, lr=0.0)
        self.net.load_state_dict(self.buffers_before, strict=False)
        (loss,) = train(self.net, inert, [self.batch], self.task.loss, epochs=1)
        grad = torch.cat([param.grad.flatten() for param in self.params])
        first_loss, first_grad = self.first
        if abs(loss - self.loss) > 1e-4 * abs(self.loss) + 1e-6 * abs(first_loss):
            raise Unlike("its loss differs")
        if (grad - self.grad).norm() > 1e-3 * self.grad.norm() + 1e-5 * first_grad.norm():
            raise Unlike("its gradient differs")
        for name, buffer in self.net.named_buffers():
            if not torch.allclose(buffer, self.buffers[name], rtol=1e-4, atol=1e-6):
                raise Unlike(f"its {name} differs")

    def check_weights(self, weights: Tensor) -> None:
        """Raise Unlike if these weights are not the shadow's, to rounding."""
        mine = parameters_to_vector(self.params).detach()
        bound = 1e-5 * (mine - self.first_weights).norm() + 1e-7 * mine.norm()
        if (mine - weights).norm() > bound:
            raise Unlike("its weights differ")

    def check_end(self, stack: Stack, final_losses: Tensor, held_out_losses: Tensor) -> None:
        """Raise Unlike if the net ended elsewhere, or at other losses over its two data sets."""
        self.alive = self.alive and bool(final_losses[self.k].isfinite())
        if not self.alive:
            return
        self.check_weights(stack.matrix[self.k])
        self.net.load_state_dict(stack.buffers_of(self.k), strict=False)
        ends = {self.training.dataset: final_losses, self.training.held_out: held_out_losses}
        for dataset, losses in ends.items():
            loss = evaluate(self.net, dataset, self.task.loss)
            if abs(loss - losses[self.k]) > 1e-3 * abs(loss) + 1e-6 * abs(self.first[0]):
                raise Unlike("its final loss differs")
