"""What does a batch cost, and what does it give? The same net trained with batches of each size.

Batch gradient descent (BGD) takes the whole set for each step, stochastic gradient descent (SGD)
one sample, mini-batch gradient descent (MBGD) something between. All start from the same weights.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from lab import plotting
from lab.commands import Parser, positive_int
from lab.report import Report, keeping, run_main
from lab.specs import parse_optimizer, try_optimizers
from lab.trainings import Problem, Training, silent, take_a_step

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

from data import make_dataset, make_loader
from models import Net
from settings import EPOCHS, LOSS, LR, N_SAMPLES, SEED
from training import evaluate, train

BATCH_SIZES = ["full", "32", "1"]
OPTIMIZER = "SGD"

EXAMPLES = """\
  python compare_batch_sizes.py --lr 0.1
  python compare_batch_sizes.py --batch-sizes full 256 64 16 4 1
  python compare_batch_sizes.py --optimizer "Adam(lr=0.003)" --epochs 30"""

CSV_HEADER = ("batch_size", "epoch", "seconds", "loss")


@dataclass
class Run:
    """The training with one batch size: what `compare` yields."""

    updates_per_epoch: int
    gradient_noise: float  # see `gradient_noise`
    losses: list[float]  # over the training set, at the start and after each epoch
    seconds: list[float] = field(default_factory=lambda: [0.0])  # of training until then
    steps: int = 0  # taken so far
    diverged_at: int | None = None  # the step, counted from 1, whose loss was not finite
    error: BaseException | None = None  # what ended it early
    stopped: str = ""  # where that was, and why
    remarks: tuple[str, ...] = ()


def compare(
    make_optimizer: Callable[..., Optimizer] | None = None,
    batch_sizes: Iterable[int | str] = BATCH_SIZES,
    make_data: Callable[[int], TensorDataset] = make_dataset,
    make_net: Callable[[], nn.Module] = Net,
    seed: int = SEED,
    epochs: int = EPOCHS,
    progress: Callable = silent,
) -> Iterator[tuple[int, Run]]:
    """Train one net per batch size, "full" for all there is; yield (batch size, Run) of each."""
    make_optimizer = make_optimizer or parse_optimizer(OPTIMIZER, LR)
    dataset = make_data(seed)
    for batch_size in sizes(batch_sizes, len(dataset)):
        torch.manual_seed(seed)
        net = make_net()
        noise = gradient_noise(net, dataset, batch_size)
        optimizer = make_optimizer(net.parameters())
        loader = make_loader(dataset, batch_size)
        run = Run(len(loader), noise, [evaluate(net, dataset, LOSS)])
        with keeping(run):
            for _ in progress(batch_size)(range(epochs), epochs):
                train_epoch(run, net, optimizer, loader)
                run.losses.append(evaluate(net, dataset, LOSS))
                if run.diverged_at or not math.isfinite(run.losses[-1]):
                    run.diverged_at = run.diverged_at or run.steps + 1
                    break
        yield batch_size, run


def train_epoch(run: Run, net: nn.Module, optimizer: Optimizer, loader: Iterable) -> None:
    """Train for an epoch; keep count of its steps and seconds."""
    start = time.perf_counter()
    for loss in train(net, optimizer, loader, LOSS, epochs=1):
        run.steps += 1
        if not math.isfinite(loss):
            run.diverged_at = run.steps
    run.seconds.append(run.seconds[-1] + time.perf_counter() - start)


def sizes(batch_sizes: Iterable[int | str], n_samples: int) -> list[int]:
    """Return the batch sizes as numbers, none above the number of samples."""
    return [n_samples if size == "full" else min(int(size), n_samples) for size in batch_sizes]


def gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the loss by all parameters, as one vector."""
    grads = torch.autograd.grad(LOSS(net(x), y), list(net.parameters()))
    return nn.utils.parameters_to_vector(grads)


def gradient_noise(net: nn.Module, dataset: TensorDataset, batch_size: int) -> float:
    """Return the noise of a mini-batch's gradient, relative to the full gradient's norm.

    That is √(mean of |g - G|²) / |G| for gradients g of at least 200 mini-batches and G of the
    whole set. For batches much smaller than the set it falls like 1/√batch_size.
    """
    full = gradient(net, *dataset.tensors)
    loader = make_loader(dataset, batch_size)
    square_distances = []
    while len(square_distances) < 200:
        for x, y in loader:
            if len(x) == min(batch_size, len(dataset)):  # the last one may be smaller
                square_distances.append((gradient(net, x, y) - full).square().sum())
    return (torch.stack(square_distances).mean().sqrt() / full.norm()).item()


def name_of(batch_size: int, n_samples: int) -> str:
    """Return the method's name with its batch size, as the legend has it."""
    method = {n_samples: "BGD", 1: "SGD"}.get(batch_size, "MBGD")
    return f"{method} ({batch_size})"


def draw(runs: dict[int, Run] | Iterable[tuple[int, Run]], n_samples: int = N_SAMPLES) -> Figure:
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
    plotting.legend(figure, panels[0].lines)
    return figure


def table_row(run: Run) -> tuple[str, ...]:
    """Return the cells of a row: updates, seconds, loss, noise of the gradient, and the end."""
    n_epochs = len(run.seconds) - 1
    return (
        str(run.updates_per_epoch),
        f"{run.seconds[-1] / n_epochs:.4f}" if n_epochs else "-",
        "-" if run.diverged_at else f"{run.losses[-1]:.5f}",
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
    parser.add_training()
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    n_samples, seed = options.samples, options.seed
    batch_sizes = sizes(options.batch_sizes, n_samples)
    if len(set(batch_sizes)) < len(batch_sizes):
        parser.error(f"--batch-sizes names one twice, of {n_samples} samples: {batch_sizes}")
    with parser.refusing():
        dataset = make_dataset(seed, n_samples, options.noise)
        optimizer = parse_optimizer(options.optimizer, options.lr)
        problem = Problem(Net, LOSS, options.epochs, batch_size=1)
        step = partial(take_a_step, problem, Training(seed, dataset))
        try_optimizers({optimizer.label: optimizer}, step)

    columns = {
        "method": "12",
        "updates per epoch": ">17",
        "seconds per epoch": ">17",
        "loss": ">8",
        "gradient noise": ">14",
    }
    title = f"{optimizer.call}, {options.epochs} epochs of {n_samples} samples"
    report = Report(options, columns, title)
    runs = report.collect(
        compare(
            optimizer,
            batch_sizes,
            lambda seed: dataset,
            seed=seed,
            epochs=options.epochs,
            progress=report.progress,
        ),
        lambda size, run: (name_of(size, n_samples), *table_row(run)),
    )
    rows = (
        (size, epoch, seconds, loss)
        for size, run in runs.items()
        for epoch, (seconds, loss) in enumerate(zip(run.seconds, run.losses, strict=True))
    )
    return report.save(draw(runs, n_samples), CSV_HEADER, rows)


if __name__ == "__main__":
    run_main(main)
