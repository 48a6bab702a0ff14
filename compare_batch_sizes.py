"""What does a batch cost, and what does it give? The same net trained with batches of each size.

Batch gradient descent (BGD) takes the whole set for each step, stochastic gradient descent (SGD)
one sample, mini-batch gradient descent (MBGD) something between. All start from the same weights.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from lab import plotting
from lab.commands import Parser, positive_int
from lab.report import Report, keeping, run_main
from lab.schedules import Schedule, schedulers_of
from lab.specs import parse_optimizer, try_optimizers
from lab.trainings import Training, silent, take_a_step, trainings_of

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

from data import make_loader
from settings import LR, SEED, TASK
from tasks import TASKS, Task
from training import evaluate, train

BATCH_SIZES = ["full", "32", "1"]
OPTIMIZER = "SGD"

EXAMPLES = """\
  python compare_batch_sizes.py --lr 0.1
  python compare_batch_sizes.py --batch-sizes full 256 64 16 4 1
  python compare_batch_sizes.py --optimizer "Adam(lr=0.003)" --epochs 30
  python compare_batch_sizes.py --task spirals --optimizer Adam"""

CSV_HEADER = ("batch_size", "epoch", "seconds", "loss", "held_out_loss")


@dataclass
class Run:
    """The training with one batch size: what `compare` yields."""

    updates_per_epoch: int
    gradient_noise: float  # see `gradient_noise`
    losses: list[float] = field(default_factory=list)  # over the training set, after each epoch
    held_out_losses: list[float] = field(default_factory=list)  # likewise; the start comes first
    seconds: list[float] = field(default_factory=lambda: [0.0])  # of training until then
    steps: int = 0  # taken so far
    rates: list[list[float]] = field(default_factory=list)  # of a schedule: at each step, a group's
    diverged_at: int | None = None  # the step, counted from 1, whose loss was not finite
    error: BaseException | None = None  # what ended it early
    stopped: str = ""  # where that was, and why
    remarks: tuple[str, ...] = ()


def compare(
    make_optimizer: Callable[..., Optimizer] | None = None,
    task: Task = TASKS[TASK],
    batch_sizes: Iterable[int | str] = BATCH_SIZES,
    seed: int = SEED,
    progress: Callable = silent,
) -> Iterator[tuple[int, Run]]:
    """Train one net per batch size, "full" for all there is; yield (batch size, Run) of each."""
    make_optimizer = make_optimizer or parse_optimizer(OPTIMIZER, LR)
    (training,) = trainings_of(task, [seed])
    for batch_size in sizes(batch_sizes, len(training.dataset)):
        net = training.make_net(task)
        noise = gradient_noise(task, net, training.dataset, batch_size)
        net = training.make_net(task)
        optimizer = make_optimizer(net.parameters())
        loader = make_loader(training.dataset, batch_size)
        schedule = Schedule(schedulers_of(make_optimizer), optimizer, len(loader))
        run = Run(len(loader), noise, rates=schedule.rates)
        with keeping(run):
            evaluate_both(run, task, net, training)
            for _ in progress(batch_size)(range(task.epochs), task.epochs):
                train_epoch(run, task, net, optimizer, schedule, loader)
                evaluate_both(run, task, net, training)
                if run.diverged_at or not math.isfinite(run.losses[-1]):
                    run.diverged_at = run.diverged_at or run.steps + 1
                    break
        yield batch_size, run


def train_epoch(
    run: Run,
    task: Task,
    net: nn.Module,
    optimizer: Optimizer,
    schedule: Schedule,
    loader: Iterable,
) -> None:
    """Train for an epoch; keep count of its steps and seconds."""
    start = time.perf_counter()
    for loss in train(net, optimizer, loader, task.loss, epochs=1):
        run.steps += 1
        schedule.step(loss)
        if not math.isfinite(loss):
            run.diverged_at = run.steps
    run.seconds.append(run.seconds[-1] + time.perf_counter() - start)


def evaluate_both(run: Run, task: Task, net: nn.Module, training: Training) -> None:
    """Take down the losses over the training set and the held-out set."""
    run.losses.append(evaluate(net, training.dataset, task.loss))
    run.held_out_losses.append(evaluate(net, training.held_out, task.loss))


def sizes(batch_sizes: Iterable[int | str], n_samples: int) -> list[int]:
    """Return the batch sizes as numbers, none above the number of samples."""
    return [n_samples if size == "full" else min(int(size), n_samples) for size in batch_sizes]


def gradient(task: Task, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the loss by all parameters, as one vector."""
    grads = torch.autograd.grad(task.loss(net(x), y), list(net.parameters()))
    return torch.cat([grad.to_dense().flatten() for grad in grads])


def gradient_noise(task: Task, net: nn.Module, dataset: TensorDataset, batch_size: int) -> float:
    """Return the noise of a mini-batch's gradient, relative to the full gradient's norm.

    That is √(mean of |g - G|²) / |G| for gradients g of at least 200 mini-batches and G of the
    whole set. For batches much smaller than the set it falls like 1/√batch_size. Dropout and the
    like, which add noise of their own, are off.
    """
    net.eval()
    full = gradient(task, net, *dataset.tensors)
    loader = make_loader(dataset, batch_size)
    square_distances = []
    while len(square_distances) < 200:
        for x, y in loader:
            if len(x) == min(batch_size, len(dataset)):  # the last one may be smaller
                square_distances.append((gradient(task, net, x, y) - full).square().sum())
    return (torch.stack(square_distances).mean().sqrt() / full.norm()).item()


def name_of(batch_size: int, n_samples: int) -> str:
    """Return the method's name with its batch size, as the legend has it."""
    method = {n_samples: "BGD", 1: "SGD"}.get(batch_size, "MBGD")
    return f"{method} ({batch_size})"


def draw(runs: dict[int, Run] | Iterable[tuple[int, Run]], n_samples: int = 1000) -> Figure:
    """Return the figure: the loss against epochs, and against seconds of training."""
    runs = dict(runs)
    figure, panels = plotting.new_figure(2)
    colors = plotting.colors(name_of(batch_size, n_samples) for batch_size in runs)
    for batch_size, run in runs.items():
        name = name_of(batch_size, n_samples)
        label = name if run.diverged_at is None else f"{name} (diverged)"
        for axes, x in zip(panels, (range(len(run.losses)), run.seconds), strict=True):
            axes.plot(x, run.losses, label=label, color=colors[name], marker=".")
    finite = [loss for run in runs.values() for loss in run.losses if math.isfinite(loss)]
    first = next(iter(runs.values())).losses[0]
    plotting.log_scale(panels[1].xaxis)  # the start, at 0 seconds, is in the left panel only
    for axes, xlabel in zip(panels, ("Epochs", "Seconds of training"), strict=True):
        plotting.log_scale(axes.yaxis, subs=(1, 2, 5))
        axes.set(xlabel=xlabel, ylabel="Loss on the training set")
        axes.set(ylim=(0.8 * min(finite), 2 * first))
    named = {name_of(batch_size, n_samples): run for batch_size, run in runs.items()}
    if any(run.rates for run in named.values()):
        rates = {name: [lr for lr, *_ in run.rates] for name, run in named.items()}
        lengths = {name: 1 / run.updates_per_epoch for name, run in named.items()}
        plotting.draw_rates(panels[0], rates, colors, lengths=lengths)
    plotting.legend(figure, panels[0].lines)
    return figure


def table_row(run: Run) -> tuple[str, ...]:
    """Return the cells of a row: updates, seconds, losses, noise of the gradient, and the end."""
    n_epochs = len(run.seconds) - 1
    return (
        str(run.updates_per_epoch),
        f"{run.seconds[-1] / n_epochs:.4f}" if n_epochs else "-",
        *("-" if run.diverged_at else f"{x[-1]:.5f}" for x in (run.losses, run.held_out_losses)),
        f"{run.gradient_noise:.3f}",
        f"diverged at step {run.diverged_at}" if run.diverged_at else run.stopped,
    )


def batch_size(text: str) -> int | str:
    return text if text == "full" else positive_int(text)


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_batch_sizes.png")
    parser.add_argument(
        "--batch-sizes",
        nargs="+",
        type=batch_size,
        metavar="N",
        default=BATCH_SIZES,
        help=f"samples a step; full is all there are (default: {' '.join(BATCH_SIZES)})",
    )
    parser.add("--optimizer", str, OPTIMIZER, "SPEC, as in compare_optimizers.py")
    parser.add_lr()
    parser.add_task()
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    task = options.task
    (training,) = trainings_of(task, [options.seed])
    n_samples = len(training.dataset)
    batch_sizes = sizes(options.batch_sizes, n_samples)
    if len(set(batch_sizes)) < len(batch_sizes):
        parser.error(f"--batch-sizes names one twice, of {n_samples} samples: {batch_sizes}")
    with parser.refusing():
        optimizer = parse_optimizer(options.optimizer, options.lr)
        step = partial(take_a_step, replace(task, batch_size=min(batch_sizes)), training)
        try_optimizers({optimizer.label: optimizer}, step)

    columns = {
        "method": "12",
        "updates per epoch": ">17",
        "seconds per epoch": ">17",
        "loss": ">8",
        "held-out loss": ">13",
        "gradient noise": ">14",
    }
    title = f"{optimizer.call}, {task.epochs} epochs of {n_samples} samples"
    report = Report(options, columns, title)
    runs = report.collect(
        compare(optimizer, task, batch_sizes, options.seed, report.progress),
        lambda size, run: (name_of(size, n_samples), *table_row(run)),
    )
    rows = (
        (size, epoch, *values)
        for size, run in runs.items()
        for epoch, values in enumerate(
            zip(run.seconds, run.losses, run.held_out_losses, strict=True)
        )
    )
    return report.save(draw(runs, n_samples), CSV_HEADER, rows)


if __name__ == "__main__":
    run_main(main)
