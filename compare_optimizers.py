"""Which optimizer? Train the same net once per optimizer and draw every loss on one figure.

Every optimizer starts from the same weights and sees the same mini-batches in the same order.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

import cli
import plotting
from data import make_dataset, make_loader
from models import Net
from training import evaluate, steps_to_target, train

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


def draw_losses(axes: Axes, runs: dict[str, Run]) -> None:
    """Draw every run's loss against its steps on `axes`."""
    colors = plotting.colors(runs)
    for label, run in runs.items():
        steps = range(1, len(run.losses) + 1)
        name = f"{label} (diverged)" if run.diverged_at else label
        marker = "." if len(steps) == 1 else ""
        axes.plot(steps, run.losses, label=name, color=colors[label], marker=marker, linewidth=1)
    axes.set(xlabel="Steps", ylabel="Loss", ylim=(0, y_top(runs)))


def y_top(runs: dict[str, Run]) -> float:
    """Return the top of the loss axis: the tutorial's 0.2, or more where a curve needs it."""
    last_epochs = [
        statistics.median(run.losses[-run.steps_per_epoch :])
        for run in runs.values()
        if not run.diverged_at
    ]
    return max(Y_TOP, 1.2 * max(last_epochs, default=0))


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


def make_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, EXAMPLES)
    parser.add_optimizers(OPTIMIZERS, "the tutorial's four")
    parser.add("--epochs", cli.positive_int, EPOCHS, "passes over the data")
    parser.add("--batch-size", cli.positive_int, BATCH_SIZE, "samples a step, or all there are")
    parser.add("--lr", cli.positive_float, LR, "learning rate where a SPEC names none")
    parser.add("--samples", cli.positive_int, N_SAMPLES, "size of the training set")
    parser.add("--noise", cli.non_negative_float, NOISE, "standard deviation of y about its curve")
    parser.add(
        "--target",
        cli.positive_float,
        TARGET,
        "mini-batch loss, as a mean over an epoch's "
        "worth of steps, whose first step below it the table tells",
    )
    parser.add_argument(
        "--fit", action="store_true", help="also draw the data and the nets' curves"
    )
    parser.add_common_options(SEED, "compare_optimizers.png")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse(argv)
    try:
        dataset = make_dataset(args.samples, args.noise, args.seed)
        one_sample = TensorDataset(*dataset[:1])
        optimizers = cli.parse_optimizers(args.optimizers, args.lr)
        cli.try_optimizers(optimizers, lambda one: list(compare(one, one_sample, epochs=1)))
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))

    label_width = max(map(len, ["optimizer", *optimizers]))
    call_width = max(len(spec.call) for spec in optimizers.values())
    layout = f"{{:{label_width}}}  {{:{call_width}}}  {{:>18}}  {{:>14}}  {{:>7}}"
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


if __name__ == "__main__":
    cli.run(main)
