"""Trainings with one optimizer: a flat list of them goes in, one object comes out."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lab.report import stop_in_words
from lab.statistics import infinite_where_diverged

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

from data import make_loader
from training import evaluate, train

LossFunction = Callable[[Tensor, Tensor], Tensor]
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
class Problem:
    """What trainings that are compared have in common."""

    make_net: Callable[[], nn.Module]  # called right after torch.manual_seed(seed)
    loss_function: LossFunction  # of outputs and targets
    epochs: int
    batch_size: int


@dataclass(frozen=True)
class Training:
    """One net to train: a seed gives its first weights and its data, and it may have its own rate.

    Without one, it has the optimizer's.
    """

    seed: int
    dataset: TensorDataset
    lr: float | None = None

    def make_net(self, problem: Problem) -> nn.Module:
        """Return the net with its first weights."""
        torch.manual_seed(self.seed)
        return problem.make_net().to(self.dataset.tensors[0].device)

    def make_optimizer(self, make_optimizer: Callable[..., Optimizer], net: nn.Module) -> Optimizer:
        """Return the net's optimizer, with the rate of this training."""
        if self.lr is None:
            return make_optimizer(net.parameters())
        return make_optimizer([{"params": list(net.parameters()), "lr": self.lr}])


def take_a_step(
    problem: Problem, training: Training, make_optimizer: Callable[..., Optimizer]
) -> None:
    """Take one step, on one sample: whatever is wrong with net, data or optimizer, raises."""
    net = training.make_net(problem)
    optimizer = training.make_optimizer(make_optimizer, net)
    list(train(net, optimizer, [training.dataset[:1]], problem.loss_function, epochs=1))


@dataclass
class Runs:
    """What became of the trainings. Where one diverged, its losses end with one that is not finite.

    If Ctrl-C or an exception ended them early, here is what was complete by then; if nothing was,
    the one that had begun.
    """

    trainings: list[Training]
    losses: Tensor  # (steps, trainings), the mini-batch loss before each step; nan after the last
    final_losses: Tensor  # (trainings,), over the training set; infinite where one diverged
    net: nn.Module  # one of their shape, to hold any of the weights
    weights: dict[str, Tensor]  # as trained, by name; (trainings, ...)
    steps_per_epoch: int
    lr: float | None  # at the start of the first training; None if the optimizer has none
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

    def predict(self, x: Tensor) -> Tensor:
        """Return the outputs of every net (trainings, *outputs) for inputs x."""
        outputs = []
        with torch.no_grad():
            for k in range(len(self.trainings)):
                self.net.load_state_dict({name: value[k] for name, value in self.weights.items()})
                outputs.append(self.net(x))
        return torch.stack(outputs)


def train_in_turn(
    problem: Problem,
    trainings: list[Training],
    make_optimizer: Callable[..., Optimizer],
    progress: Progress,
) -> Runs:
    """Train one net after the other, each as if there were no other."""
    if len(trainings) == 1:
        ones = [train_one(problem, trainings[0], make_optimizer, progress)]
    else:
        ones = []
        for training in progress(trainings, len(trainings)):
            ones.append(train_one(problem, training, make_optimizer, without_progress))
            if ones[-1].error:
                break
    last = ones[-1]
    complete = [one for one in ones if not one.error] or ones
    states = [one.net.state_dict() for one in complete]
    return Runs(
        trainings=trainings[: len(complete)],
        losses=nn.utils.rnn.pad_sequence(
            [torch.tensor(one.losses, dtype=torch.float64) for one in complete],
            padding_value=math.nan,
        ),
        final_losses=infinite_where_diverged(
            torch.tensor([one.final_loss for one in complete], dtype=torch.float64)
        ),
        net=complete[0].net,
        weights={name: torch.stack([state[name] for state in states]) for name in states[0]},
        steps_per_epoch=complete[0].steps_per_epoch,
        lr=complete[0].lr,
        error=last.error,
        stopped=last.stopped(len(trainings) > 1),
        remarks=[] if last.error or any(one.moved for one in ones) else [MOVED_NOTHING],
    )


@dataclass
class One:
    """What became of one training."""

    seed: int
    net: nn.Module
    lr: float | None
    steps_per_epoch: int
    losses: list[float] = field(default_factory=list)
    final_loss: float = math.nan
    moved: bool = False
    error: BaseException | None = None

    def stopped(self, among_many: bool) -> str:
        """Return where it stopped, and why, in words; nothing if it came to its end."""
        seed = self.seed if among_many else None
        return stop_in_words(self.error, len(self.losses) + 1, seed) if self.error else ""


def train_one(
    problem: Problem,
    training: Training,
    make_optimizer: Callable[..., Optimizer],
    progress: Progress,
) -> One:
    """Train one net, as far as it goes."""
    net = training.make_net(problem)
    optimizer = training.make_optimizer(make_optimizer, net)
    loader = make_loader(training.dataset, problem.batch_size)
    one = One(training.seed, net, optimizer.param_groups[0].get("lr"), len(loader))
    start = parameters_to_vector(net.parameters()).detach()
    steps = train(net, optimizer, loader, problem.loss_function, problem.epochs)
    try:
        for loss in progress(steps, problem.epochs * len(loader)):
            one.losses.append(loss)
    except (Exception, KeyboardInterrupt) as error:
        one.error = error
    one.final_loss = evaluate(net, training.dataset, problem.loss_function)
    one.moved = not torch.equal(start, parameters_to_vector(net.parameters()))
    return one
