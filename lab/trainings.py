"""Trainings with one optimizer: a flat list of them goes in, one object comes out."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from lab.report import stop_in_words
from lab.schedules import Schedule, schedulers_of
from lab.specs import describe
from lab.statistics import infinite_where_diverged

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

from data import make_loader
from tasks import Task
from training import evaluate, train

Progress = Callable[[Iterable, int], Iterable]

MOVED_NOTHING = (
    "its steps moved nothing; a step has to change the parameters in place, "
    "as `param -= ...` does and `param = param - ...` does not"
)


def without_progress(items: Iterable, total: int) -> Iterable:
    """Return the items: a progress that shows nothing."""
    return items


def silent(label: object) -> Progress:
    """Show no progress with what is labelled so."""
    return without_progress


@dataclass(frozen=True)
class Training:
    """One net to train: a seed gives its first weights and its data, and it may have its own rate.

    Without one, it has the optimizer's.
    """

    seed: int
    dataset: TensorDataset
    held_out: TensorDataset
    lr: float | None = None
    first_nets: dict[int, tuple] = field(default_factory=dict, compare=False, repr=False)

    @property
    def has_classes(self) -> bool:
        """Whether the targets are classes, and not numbers."""
        return not self.dataset.tensors[1].is_floating_point()

    def make_net(self, task: Task) -> nn.Module:
        """Return the net with its first weights."""
        torch.manual_seed(self.seed)
        return task.make_net().to(self.dataset.tensors[0].device)

    def first_net(self, task: Task) -> nn.Module:
        """Return such a net as is made only once, for all optimizers: it has to stay as it is."""
        key = id(task.make_net)  # a callable need not be hashable
        if key not in self.first_nets:
            self.first_nets[key] = task.make_net, self.make_net(task)
        return self.first_nets[key][1]

    def make_optimizer(self, make_optimizer: Callable[..., Optimizer], net: nn.Module) -> Optimizer:
        """Return the net's optimizer, with the rate of this training."""
        if self.lr is None:
            return make_optimizer(net.parameters())
        return make_optimizer([{"params": list(net.parameters()), "lr": self.lr}])


def trainings_of(
    task: Task, seeds: Iterable[int], lrs: Iterable[float | None] = (None,)
) -> list[Training]:
    """Return the trainings from all seeds at the first rate, then from all at the second, ..."""
    data = {seed: task.make_data(seed) for seed in seeds}
    return [Training(seed, *data[seed], lr) for lr in lrs for seed in data]


def check_task(task: Task, seed: int) -> None:
    """Raise ValueError, in words, if the task's data, net and loss do not go together."""
    try:
        data = task.make_data(seed)
    except Exception as error:  # a user's own function may fail in any way
        raise ValueError(f"its data cannot be made: {describe(error)}") from error
    if not (isinstance(data, tuple) and len(data) == 2 and all(map(is_x_and_y, data))):
        raise ValueError("make_data(seed) has to return two TensorDatasets, each of x and y")
    (x, y), (held_out_x, held_out_y) = (dataset.tensors for dataset in data)
    for one, other in ((x, held_out_x), (y, held_out_y)):
        if not len(one) or not len(other):
            raise ValueError("one of its data sets is empty")
        if one.shape[1:] != other.shape[1:] or one.dtype != other.dtype:
            raise ValueError("its data sets, for training and held out, are not of one shape")
        if not one.isfinite().all() or not other.isfinite().all():
            raise ValueError("its data are not all finite")

    x, y = x[: task.batch_size], y[: task.batch_size]
    try:
        net = Training(seed, *data).make_net(task)
        outputs = net(x)
        net.eval()(held_out_x[: task.batch_size])
    except Exception as error:
        raise ValueError(f"its net cannot take the data: {describe(error)}") from error
    if outputs.numel() == y.numel() and outputs.shape != y.shape:
        shapes = f"outputs of shape {tuple(outputs.shape)} for targets of {tuple(y.shape)}"
        raise ValueError(f"its net has {shapes}")
    try:
        loss = task.loss(outputs, y)
    except Exception as error:
        raise ValueError(f"its loss cannot take outputs and targets: {describe(error)}") from error
    if not isinstance(loss, Tensor) or loss.ndim:
        shape = f" but of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else ""
        raise ValueError(f"its loss is not a scalar tensor{shape}")
    if not loss.requires_grad:
        raise ValueError("its loss does not depend on the parameters of its net")


def is_x_and_y(dataset: object) -> bool:
    return isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2


def take_a_step(task: Task, training: Training, make_optimizer: Callable[..., Optimizer]) -> None:
    """Take one step, on one mini-batch: whatever an optimizer has against it, raises.

    Its schedule is taken to the end, since it may not reach so far.
    """
    net = training.make_net(task)
    optimizer = training.make_optimizer(make_optimizer, net)
    steps_per_epoch = math.ceil(len(training.dataset) / task.batch_size)
    schedule = Schedule(schedulers_of(make_optimizer), optimizer, steps_per_epoch)
    batches = [training.dataset[: task.batch_size]]
    (loss,) = train(net, optimizer, batches, task.loss, epochs=1)
    for _ in range(task.epochs * steps_per_epoch if schedule.schedulers else 0):
        schedule.step(loss)


@dataclass
class Runs:
    """What became of the trainings. Where one diverged, its losses end with one that is not finite.

    If Ctrl-C or an exception ended them early, here is what was complete by then; if nothing was,
    the one that had begun.
    """

    trainings: list[Training]
    losses: Tensor  # (steps, trainings), the mini-batch loss before each step; nan after the last
    final_losses: Tensor  # (trainings,), over the training set; infinite where one diverged
    held_out_losses: Tensor  # (trainings,), over the held-out set; infinite likewise
    net: nn.Module  # one of their shape, to hold any of the weights
    weights: dict[str, Tensor]  # and buffers, as trained, by name; (trainings, ...)
    steps_per_epoch: int
    lr: float | None  # that the first training was given; None if the optimizer has none
    rates: Tensor | None = None  # (steps, trainings), at each step; None without a schedule
    stacked: bool = False  # all at once, or in turn
    seconds: float = 0.0
    error: BaseException | None = None  # what ended them early
    stopped: str = ""  # where that was, and why, in words
    remarks: list[str] = field(default_factory=list)

    def history(self, k: int) -> list[float]:
        """Return the losses of the k-th training, to its end."""
        losses = self.losses[:, k].tolist()
        ends = (step for step, loss in enumerate(losses, start=1) if not math.isfinite(loss))
        return losses[: next(ends, len(losses))]

    def rate_history(self, numbers: Sequence[int] | slice, lr: float | None) -> list[float]:
        """Return the learning rate at each step of these nets, their median where it differs.

        Without a schedule it is `lr` throughout.
        """
        if self.rates is None:
            return [] if lr is None else [lr] * len(self.losses)
        return self.rates[:, numbers].nanquantile(0.5, 1).tolist()

    def diverged_at(self) -> list[int]:
        """Return the steps, counted from 1, at which a loss was not finite: of those that diverged.

        A last step that leaves weights whose loss is not finite counts as one more.
        """
        infinite = torch.cat([self.losses, self.final_losses.to(self.losses).unsqueeze(0)])
        infinite = ~infinite.isfinite()
        return (infinite.int().argmax(0)[infinite.any(0)] + 1).tolist()

    def note(self) -> str:
        """Return what a reader of the numbers has to know of their end: divergence, or a stop."""
        steps = self.diverged_at()
        diverged = f"diverged at step {min(steps)}" if steps else ""
        if steps and len(self.trainings) > 1:
            diverged = f"{len(steps)} of {len(self.trainings)} diverged, from step {min(steps)} on"
        return "; ".join(filter(None, (diverged, self.stopped)))

    @torch.no_grad()
    def predict(self, x: Tensor, k: int) -> Tensor:
        """Return the outputs of the k-th net for inputs x."""
        self.net.load_state_dict({name: value[k] for name, value in self.weights.items()})
        return self.net.eval()(x)

    def accuracies(self, numbers: Iterable[int]) -> Tensor | None:
        """Return the share of the held-out set that nets of these numbers classify right.

        None if the targets are no classes.
        """
        if not self.trainings[0].has_classes:
            return None
        right = []
        for k in numbers:
            x, y = self.trainings[k].held_out.tensors
            right.append((self.predict(x, k).argmax(1) == y).double().mean().item())
        return torch.tensor(right)


def train_in_turn(
    task: Task,
    trainings: list[Training],
    make_optimizer: Callable[..., Optimizer],
    progress: Progress,
) -> Runs:
    """Train one net after the other, each as if there were no other."""
    if len(trainings) == 1:
        ones = [train_one(task, trainings[0], make_optimizer, progress)]
    else:
        ones = []
        for training in progress(trainings, len(trainings)):
            ones.append(train_one(task, training, make_optimizer, without_progress))
            if ones[-1].error:
                break
    tensor = partial(torch.tensor, dtype=torch.float64)
    last = ones[-1]
    complete = [one for one in ones if not one.error] or ones
    states = [one.net.state_dict() for one in complete]
    return Runs(
        trainings=trainings[: len(complete)],
        losses=nn.utils.rnn.pad_sequence(
            [tensor(one.losses) for one in complete], padding_value=math.nan
        ),
        final_losses=infinite_where_diverged(tensor([one.final_loss for one in complete])),
        held_out_losses=infinite_where_diverged(tensor([one.held_out_loss for one in complete])),
        net=complete[0].net,
        weights={name: torch.stack([state[name] for state in states]) for name in states[0]},
        steps_per_epoch=complete[0].steps_per_epoch,
        lr=complete[0].lr,
        rates=joined_rates([one.schedule.rates_of([1]) for one in complete]),
        error=last.error,
        stopped=last.stopped(len(trainings) > 1),
        remarks=[] if last.error or any(one.moved for one in ones) else [MOVED_NOTHING],
    )


def joined_rates(rates: list[Tensor | None]) -> Tensor | None:
    """Return the rates (steps, trainings) of them all side by side, nan where one ended earlier."""
    if any(some is None for some in rates):
        return None
    columns = [column for some in rates for column in some.unbind(1)]
    return nn.utils.rnn.pad_sequence(columns, padding_value=math.nan)


@dataclass
class One:
    """What became of one training."""

    seed: int
    net: nn.Module
    lr: float | None
    schedule: Schedule
    steps_per_epoch: int
    losses: list[float] = field(default_factory=list)
    final_loss: float = math.nan  # as it stays where it diverged
    held_out_loss: float = math.nan
    moved: bool = False
    error: BaseException | None = None

    def stopped(self, among_many: bool) -> str:
        """Return where it stopped, and why, in words; nothing if it came to its end."""
        seed = self.seed if among_many else None
        return stop_in_words(self.error, len(self.losses) + 1, seed) if self.error else ""


def train_one(
    task: Task,
    training: Training,
    make_optimizer: Callable[..., Optimizer],
    progress: Progress,
) -> One:
    """Train one net, as far as it goes."""
    net = training.make_net(task)
    optimizer = training.make_optimizer(make_optimizer, net)
    loader = make_loader(training.dataset, task.batch_size)
    lr = optimizer.param_groups[0].get("lr")
    schedule = Schedule(schedulers_of(make_optimizer), optimizer, len(loader))
    one = One(training.seed, net, lr, schedule, len(loader))
    start = parameters_to_vector(net.parameters()).detach()
    steps = train(net, optimizer, loader, task.loss, task.epochs)
    try:
        for loss in progress(steps, task.epochs * len(loader)):
            one.losses.append(loss)
            schedule.step(loss)
    except (Exception, KeyboardInterrupt) as error:
        one.error = error
    if all(map(math.isfinite, one.losses[-1:])):
        one.final_loss = evaluate(net, training.dataset, task.loss)
        one.held_out_loss = evaluate(net, training.held_out, task.loss)
    one.moved = not torch.equal(start, parameters_to_vector(net.parameters()))
    return one
