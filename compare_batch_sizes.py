"""What does a batch cost, and what does it give? The same net trained with batches of each size.

Batch gradient descent (BGD) takes the whole set for each step, stochastic gradient descent (SGD)
one sample, mini-batch gradient descent (MBGD) something between. All start from the same weights.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from lab.command_line.options import add_lr, add_task
from lab.command_line.parser import Parser
from lab.command_line.specs import parse_optimizer, parse_optimizers
from lab.command_line.tasks import load_task
from lab.command_line.types import positive_int
from lab.outcome import Outcome, ProgressOf, keeping, show_none
from lab.output.main import run_main
from lab.output.report import Report
from lab.output.table import NUMBER, Column, as_numbers
from lab.pictures import curves, style
from lab.pictures.looks import looks_of
from lab.training.adapt import MakeOptimizer, make_for, set_mode
from lab.training.checks import check_last_batch, check_optimizers, take_a_step
from lab.training.datasets import first, loader_of
from lab.training.evaluation import loss_over
from lab.training.guess import constant_guess
from lab.training.runs import Training, trainings_of
from lab.training.schedules import Schedule, schedulers_of

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim import Optimizer

from settings import LR, SEED, TASK
from tasks import TASKS, Task
from training import evaluating, train

BATCH_SIZES = ["full", "32", "1"]
OPTIMIZER = "SGD"

EXAMPLES = """\
  python compare_batch_sizes.py --lr 0.1
  python compare_batch_sizes.py --batch-sizes full 256 64 16 4 1
  python compare_batch_sizes.py --optimizer "Adam(lr=0.003)" --epochs 30
  python compare_batch_sizes.py --task spirals --optimizer Adam"""

CSV_HEADER = ("batch_size", "epoch", "seconds", "loss", "held_out_loss")


@dataclass
class BatchSizeRun(Outcome):
    """The training with one batch size: what `compare` yields."""

    updates_per_epoch: int
    gradient_noise: float  # see `gradient_noise`
    losses: list[float] = field(default_factory=list)  # over the training set, after each epoch
    held_out_losses: list[float] = field(default_factory=list)  # likewise; the start comes first
    seconds: list[float] = field(default_factory=lambda: [0.0])  # of training until then
    steps: int = 0  # taken so far
    lrs: list[list[float]] = field(default_factory=list)  # of a schedule: at each step, a group's
    diverged_at: int | None = None  # the step, counted from 1, whose loss was not finite

    @property
    def note(self) -> str:
        return f"diverged at step {self.diverged_at}" if self.diverged_at else self.stopped


def compare(
    make_optimizer: MakeOptimizer | None = None,
    task: Task = TASKS[TASK],
    batch_sizes: Iterable[int | str] = BATCH_SIZES,
    seed: int = SEED,
    progress: ProgressOf = show_none,
) -> Iterator[tuple[int, BatchSizeRun]]:
    """Train one net per batch size, "full" for all there is; yield (batch size, run) of each.

    for batch_size, run in compare(torch.optim.Adam, batch_sizes=[64, 8]):
        print(batch_size, run.held_out_losses[-1])
    """
    make_optimizer = make_optimizer or parse_optimizer(OPTIMIZER, LR)
    (training,) = trainings_of(task, [seed])
    for batch_size in sizes(batch_sizes, len(training.dataset)):
        noise = gradient_noise(task, training.make_net(task), training.dataset, batch_size)
        net = training.make_net(task)
        optimizer = make_for(make_optimizer, net)
        loader = loader_of(task, training.dataset, batch_size)
        schedule = Schedule(schedulers_of(make_optimizer), optimizer, len(loader))
        run = BatchSizeRun(len(loader), noise, lrs=schedule.lrs)
        with keeping(run):
            evaluate_both(run, task, net, training)
            for _ in progress(batch_size)(range(task.epochs), task.epochs, "epoch"):
                set_mode(optimizer, "train")
                train_epoch(run, task, net, optimizer, schedule, loader)
                set_mode(optimizer, "eval")
                evaluate_both(run, task, net, training)
                if run.diverged_at or not math.isfinite(run.losses[-1]):
                    run.diverged_at = run.diverged_at or run.steps + 1
                    break
        yield batch_size, run
        run.raise_if_interrupted()


def train_epoch(
    run: BatchSizeRun,
    task: Task,
    net: nn.Module,
    optimizer: Optimizer,
    schedule: Schedule,
    loader: Iterable[tuple[Tensor, ...]],
) -> None:
    """Train for an epoch; keep count of its steps and seconds."""
    start = time.perf_counter()
    for loss in train(net, optimizer, loader, task.loss, epochs=1):
        run.steps += 1
        schedule.step(loss)
        if not math.isfinite(loss):
            run.diverged_at = run.steps
    run.seconds.append(run.seconds[-1] + time.perf_counter() - start)


def evaluate_both(run: BatchSizeRun, task: Task, net: nn.Module, training: Training) -> None:
    """Take down the losses over the training set and the held-out set."""
    run.losses.append(loss_over(task, net, training.dataset))
    run.held_out_losses.append(loss_over(task, net, training.held_out))


def sizes(batch_sizes: Iterable[int | str], n_samples: int) -> list[int]:
    """Return the batch sizes as numbers, none above the number of samples."""
    return [n_samples if size == "full" else min(int(size), n_samples) for size in batch_sizes]


def gradient(task: Task, net: nn.Module, x: Any, y: Any) -> Tensor:
    """Return the gradient of the loss by all parameters, as one vector."""
    params = [param for param in net.parameters() if param.requires_grad]
    grads = torch.autograd.grad(
        task.loss(net(x), y), params, allow_unused=True, materialize_grads=True
    )
    return torch.cat([grad.to_dense().flatten() for grad in grads])


def gradient_noise(task: Task, net: nn.Module, dataset: Any, batch_size: int) -> float:
    """Return the noise of a mini-batch's gradient, relative to the full gradient's norm.

    That is √(mean of |g - G|²) / |G| for gradients g of at least 200 mini-batches and G of the
    whole set. For batches much smaller than the set it falls like 1/√batch_size. Dropout and the
    like, which add noise of their own, are off.
    """
    square_distances: list[Tensor] = []
    with evaluating(net):
        full = gradient(task, net, *first(task, dataset, len(dataset)))
        loader = loader_of(task, dataset, batch_size)
        n_whole = max(1, len(dataset) // batch_size)  # mini-batches: the last one may be smaller
        while len(square_distances) < 200:
            for number, (x, y) in enumerate(loader):
                if number < n_whole:
                    square_distances.append((gradient(task, net, x, y) - full).square().sum())
    return (torch.stack(square_distances).mean().sqrt() / full.norm()).item()


def name_of(batch_size: int, run: BatchSizeRun) -> str:
    """Return the method's name with its batch size, as the legend has it."""
    method = "BGD" if run.updates_per_epoch == 1 else "SGD" if batch_size == 1 else "MBGD"
    return f"{method} ({batch_size})"


def draw(
    runs: Mapping[int, BatchSizeRun] | Iterable[tuple[int, BatchSizeRun]], caption: str = ""
) -> Figure:
    """Return the figure: the loss against epochs, and against seconds of training."""
    named = {name_of(batch_size, run): run for batch_size, run in dict(runs).items()}
    figure, panels = style.new_figure(2)
    looks = looks_of(named)
    for name, run in named.items():
        label = curves.legend_label(name, None, run.diverged_at is not None)
        for axes, x in zip(panels, (range(len(run.losses)), run.seconds), strict=True):
            axes.plot(x, run.losses, label=label, marker=".", **looks[name])
    style.log_scale(panels[1].xaxis)  # the start, at 0 seconds, is in the left panel only
    xlabels = "Epochs", "Seconds of training, from epoch 1 on"
    for axes, xlabel in zip(panels, xlabels, strict=True):
        axes.set(xlabel=xlabel, ylabel="Loss on the training set")
        curves.limit_losses(axes, log=True)
    if any(run.lrs for run in named.values()):
        lr_histories = {name: [lr for lr, *_ in run.lrs] for name, run in named.items()}
        lengths = {name: 1 / run.updates_per_epoch for name, run in named.items()}
        curves.draw_lrs(panels[0], lr_histories, looks, lengths=lengths)
    style.legend(figure, curves.named_lines(panels[0]), caption)
    return figure


def ms_per_epoch(run: BatchSizeRun) -> float | None:
    """Return the mean time of an epoch, in milliseconds."""
    n_epochs = len(run.seconds) - 1
    return 1000 * run.seconds[-1] / n_epochs if n_epochs else None


def last(losses: list[float], run: BatchSizeRun) -> float:
    """Return the last one of a run's losses."""
    return math.inf if run.diverged_at else losses[-1]


COLUMNS: list[Column[int, BatchSizeRun]] = [
    Column("method", "12", name_of),
    Column("updates/epoch", NUMBER, lambda size, run: run.updates_per_epoch, "d"),
    Column("ms/epoch", NUMBER, lambda size, run: ms_per_epoch(run), goes=1),
    Column("loss", NUMBER, lambda size, run: last(run.losses, run), infinite="diverged"),
    Column(
        "held-out loss",
        NUMBER,
        lambda size, run: last(run.held_out_losses, run),
        infinite="diverged",
    ),
    Column("gradient noise", NUMBER, lambda size, run: run.gradient_noise),
]


def rows(
    runs: Mapping[int, BatchSizeRun] | Iterable[tuple[int, BatchSizeRun]],
) -> list[dict[str, Any]]:
    """Return the table of what `compare` yields as numbers, which pandas.DataFrame takes."""
    return as_numbers(COLUMNS, runs)


def batch_size_type(text: str) -> int | str:
    return text if text == "full" else positive_int(text)


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_batch_sizes.png")
    parser.add_argument(
        "--batch-sizes",
        nargs="+",
        type=batch_size_type,
        metavar="N",
        default=BATCH_SIZES,
        help=f"how many samples to take for a step; full: all (default: {' '.join(BATCH_SIZES)})",
    )
    parser.add(
        "--optimizer", str, OPTIMIZER, 'as Adam, or "Adam(lr=0.003)" in quotes, or my_file.MyClass'
    )
    add_lr(parser)
    add_task(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    with parser.refusing():
        task, training = load_task(options, options.task)
        n_samples = len(training.dataset)
        batch_sizes = sizes(options.batch_sizes, n_samples)
        if len(set(batch_sizes)) < len(batch_sizes):
            raise ValueError(
                f"--batch-sizes names one twice, of {n_samples} samples: {batch_sizes}"
            )
        for size in batch_sizes:
            try:
                check_last_batch(replace(task, batch_size=size), training)
            except ValueError as error:
                raise ValueError(f"--batch-sizes {size}: {error}") from error
        (optimizer,) = parse_optimizers([options.optimizer], options.lr).values()
        smallest = replace(task, batch_size=min(batch_sizes))
        check_optimizers({optimizer.label: optimizer}, partial(take_a_step, smallest, training))

    title = f"{optimizer.call}, {task.epochs} epochs of {n_samples} samples"
    report = Report(options.output, options.csv, COLUMNS, title, f"--task {options.task}")
    runs = {}
    for batch_size, run in report.collect(
        compare(optimizer, task, batch_sizes, options.seed, report.progress)
    ):
        runs[batch_size] = run
        report.row(batch_size, run)
    report.explain(guess=constant_guess(task, training))

    losses = (
        (batch_size, epoch, *values)
        for batch_size, run in runs.items()
        for epoch, values in enumerate(
            zip(run.seconds, run.losses, run.held_out_losses, strict=True)
        )
    )
    caption = f"{options.task}, {optimizer.call}, seed {options.seed}; a dot is an epoch"
    return report.save(partial(draw, runs, caption), CSV_HEADER, losses)


if __name__ == "__main__":
    run_main(main)
