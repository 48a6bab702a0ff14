"""Which optimizer? Train the same net once per optimizer and draw every loss on one figure.

Every optimizer starts from the same weights and sees the same mini-batches in the same order. With
--seeds, each trains once per seed, and the figure shows the median and the quartiles.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

import cli
import plotting
from data import make_dataset, make_loader, stack_datasets
from models import Net, make_nets
from training import (
    evaluate,
    quartiles,
    quartiles_of_steps,
    steps_to_target,
    train,
    train_many,
)

OPTIMIZERS = [
    "SGD",
    "Momentum=SGD(momentum=0.8)",
    "RMSprop=RMSprop(alpha=0.9)",
    "Adam=Adam(betas=(0.9, 0.99))",
]
LR = 0.01
EPOCHS = 12
BATCH_SIZE = 32
N_SAMPLES = 1000
NOISE = 0.1
SEED = 0
TARGET = 0.02
Y_TOP = 0.2

EXAMPLES = """\
  python compare_optimizers.py --fit
  python compare_optimizers.py --seeds 100
  python compare_optimizers.py --optimizers Adam "AdamW(weight_decay=0.1)" "big=SGD(lr=0.5)"
  python compare_optimizers.py --optimizers SGD homework.MySGD --epochs 30 --csv losses.csv
"""

CSV_HEADER = ("optimizer", "seed", "step", "loss")


class Run(NamedTuple):
    """One training: what `compare` yields for each optimizer."""

    losses: list[float]  # the mini-batch loss before each step
    steps_per_epoch: int
    final_loss: float  # over the whole training set, after training
    seconds: float  # of training
    net: torch.nn.Module  # trained

    @property
    def diverged_at(self) -> int | None:
        """The step, counted from 1, at which the loss was not finite; None if it always was."""
        if not math.isfinite(self.losses[-1]):
            return len(self.losses)
        return None if math.isfinite(self.final_loss) else len(self.losses) + 1


def compare(
    optimizers: dict[str, Callable[..., Optimizer]] | None = None,
    dataset: TensorDataset | None = None,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    seed: int = SEED,
    progress: Callable[[str], Callable] = lambda label: iter,
) -> Iterator[tuple[str, Run]]:
    """Train one net per optimizer; yield (label, Run) as each finishes.

    `optimizers` maps a label to whatever makes the optimizer from a net's parameters; the
    tutorial's four by default, and the tutorial's data. In a notebook: `runs = dict(compare())`.
    """
    if optimizers is None:
        optimizers = cli.parse_optimizers(OPTIMIZERS, LR)
    if dataset is None:
        dataset = make_dataset(N_SAMPLES, NOISE, seed)
    for label, make_optimizer in optimizers.items():
        torch.manual_seed(seed)
        net = Net()
        optimizer = make_optimizer(net.parameters())
        loader = make_loader(dataset, batch_size)
        start = time.perf_counter()
        losses = train(net, optimizer, loader, epochs, progress(label))
        seconds = time.perf_counter() - start
        yield label, Run(losses, len(loader), evaluate(net, dataset), seconds, net)


class SeedRuns(NamedTuple):
    """One optimizer from many seeds: what `compare_seeds` yields."""

    losses: Tensor  # (steps, seeds), the mini-batch loss before each step
    steps_per_epoch: int
    final_losses: Tensor  # (seeds,), infinite where it diverged
    seconds: float
    stacked: bool  # all seeds at once, or one by one


def compare_seeds(
    seeds: int,
    optimizers: dict[str, Callable[..., Optimizer]] | None = None,
    n_samples: int = N_SAMPLES,
    noise: float = NOISE,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    seed: int = SEED,
    progress: Callable[[str], Callable] = lambda label: iter,
) -> Iterator[tuple[str, SeedRuns]]:
    """Do what `compare` does for `seed`, `seed + 1`, … at once; yield (label, SeedRuns)."""
    if optimizers is None:
        optimizers = cli.parse_optimizers(OPTIMIZERS, LR)
    numbers = range(seed, seed + seeds)
    dataset = stack_datasets(make_dataset(n_samples, noise, k) for k in numbers)
    nets = make_nets(numbers)

    def loader(data: TensorDataset):
        return make_loader(data, batch_size)

    for label, make_optimizer in optimizers.items():
        start = time.perf_counter()
        torch.manual_seed(seed)
        many = train_many(nets, make_optimizer, dataset, loader, epochs, progress=progress(label))
        seconds = time.perf_counter() - start
        final_losses = many.final_losses[0].nan_to_num(math.inf)
        yield (
            label,
            SeedRuns(many.losses[:, 0], len(loader(dataset)), final_losses, seconds, many.stacked),
        )


def draw_losses(axes: Axes, runs: dict[str, Run]) -> None:
    """Draw every run's loss against its steps on `axes`."""
    colors = plotting.colors(runs)
    for label, run in runs.items():
        steps = range(1, len(run.losses) + 1)
        name = f"{label} (diverged)" if run.diverged_at else label
        marker = "." if len(steps) == 1 else ""
        axes.plot(steps, run.losses, label=name, color=colors[label], marker=marker, linewidth=1)
    last_epochs = [
        statistics.median(run.losses[-run.steps_per_epoch :])
        for run in runs.values()
        if not run.diverged_at
    ]
    axes.set(xlabel="Steps", ylabel="Loss", ylim=(0, y_top(last_epochs)))


def y_top(last_epochs: list[float]) -> float:
    """Return the top of the loss axis, given the loss of each curve in its last epoch.

    It is the tutorial's 0.2, or more where a curve needs it.
    """
    return max(Y_TOP, 1.2 * max(last_epochs, default=0))


def draw_seeds(runs: dict[str, SeedRuns]) -> Figure:
    """Return the figure of many seeds: each optimizer's median loss and its quartiles."""
    figure, (axes,) = plotting.new_figure()
    colors = plotting.colors(runs)
    last_epochs = []
    for label, run in runs.items():
        bands = quartiles(run.losses)
        steps = range(1, len(run.losses) + 1)
        plotting.median_band(axes, steps, bands, label, colors[label], linewidth=1)
        last_epochs.append(bands[1, -run.steps_per_epoch :].median().item())
    axes.set(xlabel="Steps", ylabel=f"Loss (median and quartiles of {run.losses.shape[1]} seeds)")
    axes.set(ylim=(0, y_top([loss for loss in last_epochs if loss < math.inf])))
    plotting.legend(figure, axes.lines)
    return figure


def draw_fit(axes: Axes, runs: dict[str, Run], dataset: TensorDataset) -> None:
    """Draw the data, and the curve that each net has learned, on `axes`."""
    x, y = dataset.tensors
    grid = torch.linspace(x.min(), x.max(), 200).unsqueeze(1)
    colors = plotting.colors(runs)
    axes.scatter(x, y, s=4, color="lightgrey")
    axes.set(xlabel="x", ylabel="y", ylim=axes.get_ylim())  # the data's, whatever a net does
    for label, run in runs.items():
        with torch.no_grad():
            axes.plot(grid, run.net(grid), color=colors[label], linewidth=2)


def draw(runs: dict[str, Run], dataset: TensorDataset | None = None) -> Figure:
    """Return the figure: the losses and, if the dataset is given, the fits beside them."""
    figure, axes = plotting.new_figure(1 if dataset is None else 2)
    draw_losses(axes[0], runs)
    if dataset is not None:
        draw_fit(axes[1], runs, dataset)
    plotting.legend(figure, axes[0].lines)
    return figure


def table_row(run: Run, target: float) -> tuple[str, str, str]:
    """Return a run's loss, steps to the target and seconds, as the table shows them."""
    loss = f"diverged at step {run.diverged_at}" if run.diverged_at else f"{run.final_loss:.5f}"
    steps = steps_to_target(run.losses, target, run.steps_per_epoch)
    return loss, str(steps or "-"), f"{run.seconds:.2f}"


def seeds_table_row(runs: SeedRuns, target: float) -> tuple[str, str, str, str]:
    """Return median and quartiles of loss and steps, share diverged and seconds, as shown."""
    steps = quartiles_of_steps(runs.losses, target, runs.steps_per_epoch)
    return (
        cli.format_quartiles(quartiles(runs.final_losses), ".5f"),
        cli.format_quartiles(steps, ".0f"),
        f"{runs.final_losses.isinf().double().mean():.0%}",
        f"{runs.seconds:.2f}",
    )


def make_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, EXAMPLES)
    parser.add_optimizers(OPTIMIZERS, "the tutorial's four")
    parser.add("--lr", cli.positive_float, LR, "learning rate where a SPEC names none")
    parser.add_training_options(EPOCHS, BATCH_SIZE, N_SAMPLES, NOISE)
    parser.add_target(TARGET)
    parser.add_argument(
        "--seeds", type=cli.positive_int, help="train from so many seeds, from --seed on"
    )
    parser.add_argument(
        "--fit", action="store_true", help="also draw the data and the nets' curves"
    )
    parser.add_common_options(SEED, "compare_optimizers.png")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse(argv)
    if args.fit and args.seeds:
        parser.error("--fit shows the nets of one seed: leave out --seeds")
    try:
        parser.check_seeds(args.seed, args.seeds or 1)
        dataset = make_dataset(args.samples, args.noise, args.seed)
        one_sample = TensorDataset(*dataset[:1])
        optimizers = cli.parse_optimizers(args.optimizers, args.lr)
        cli.try_optimizers(optimizers, lambda one: list(compare(one, one_sample, epochs=1)))
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))
    if args.seeds:
        return main_seeds(args, optimizers)

    layout = cli.layout(optimizers, 18, 14, 7)
    print(layout.format("optimizer", "call", "loss", f"steps to {args.target:g}", "seconds"))
    runs, interrupted = {}, False
    settings = args.epochs, args.batch_size, args.seed
    try:
        for label, run in compare(optimizers, dataset, *settings, cli.progress):
            runs[label] = run
            row = table_row(run, args.target)
            print(layout.format(label, optimizers[label].call, *row), flush=True)
    except KeyboardInterrupt:
        if not runs:
            raise
        interrupted = True

    figure = draw(runs, dataset if args.fit else None)
    rows = (
        (label, args.seed, step, loss)
        for label, run in runs.items()
        for step, loss in enumerate(run.losses, start=1)
    )
    return cli.finish(args, figure, CSV_HEADER, rows, interrupted)


def main_seeds(args: cli.argparse.Namespace, optimizers: dict[str, cli.Spec]) -> int:
    """Do the work of `main` for many seeds."""
    layout = cli.layout(optimizers, 27, 17, 8, 7)
    target = f"steps to {args.target:g}"
    print(layout.format("optimizer", "call", "loss [quartiles]", target, "diverged", "seconds"))
    runs, interrupted = {}, False
    settings = args.samples, args.noise, args.epochs, args.batch_size, args.seed
    try:
        for label, run in compare_seeds(args.seeds, optimizers, *settings, cli.progress_of_many):
            runs[label] = run
            row = seeds_table_row(run, args.target)
            print(layout.format(label, optimizers[label].call, *row), flush=True)
            if not run.stacked:
                print(cli.ONE_BY_ONE.format(label))
    except KeyboardInterrupt:
        if not runs:
            raise
        interrupted = True

    rows = (
        (label, args.seed + k, step, loss)
        for label, run in runs.items()
        for k, losses in enumerate(run.losses.T.tolist())
        for step, loss in enumerate(until_diverged(losses), start=1)
    )
    return cli.finish(args, draw_seeds(runs), CSV_HEADER, rows, interrupted)


def until_diverged(losses: list[float]) -> list[float]:
    """Return the losses up to the first that is not finite, as `train` does."""
    ends = (step for step, loss in enumerate(losses, start=1) if not math.isfinite(loss))
    return losses[: next(ends, len(losses))]


if __name__ == "__main__":
    cli.run(main)
