"""Which optimizer? Train the same net once per optimizer and draw every loss on one figure.

Every optimizer starts from the same weights and sees the same mini-batches in the same order. With
--seeds, each trains once per seed, and the figure shows the median and the quartiles.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

from lab import plotting
from lab.commands import Parser
from lab.report import Report, run_main, table
from lab.specs import parse_optimizers, try_optimizers
from lab.stacking import train_all
from lab.statistics import format_quartiles, quartiles, steps_to_target
from lab.trainings import Problem, Runs, Training, silent, take_a_step

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

from data import make_dataset
from models import Net
from settings import BATCH_SIZE, EPOCHS, LOSS, LR, OPTIMIZERS, SEED

EXAMPLES = """\
  python compare_optimizers.py --fit
  python compare_optimizers.py --seeds 100
  python compare_optimizers.py --optimizers Adam "AdamW(weight_decay=0.1)" "big=SGD(lr=0.5)"
  python compare_optimizers.py --optimizers SGD homework.MySGD --epochs 30 --csv losses.csv
"""
CSV_HEADER = ("optimizer", "seed", "step", "loss")
Y_TOP = 0.2  # of the tutorial's figure


def compare(
    optimizers: dict[str, Callable[..., Optimizer]] | None = None,
    make_data: Callable[[int], TensorDataset] = make_dataset,
    make_net: Callable[[], nn.Module] = Net,
    seeds: Iterable[int] = (SEED,),
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    progress: Callable = silent,
) -> Iterator[tuple[str, Runs]]:
    """Train a net from each seed once per optimizer; yield (label, Runs) as each finishes.

    `optimizers` maps a label to whatever makes the optimizer from a net's parameters; those of
    settings.py by default. A seed gives the data, `make_data(seed)`, and the first weights,
    `make_net()` right after `torch.manual_seed(seed)`.
    """
    problem = Problem(make_net, LOSS, epochs, batch_size)
    trainings = [Training(seed, make_data(seed)) for seed in seeds]
    for label, make_optimizer in (optimizers or parse_optimizers(OPTIMIZERS, LR)).items():
        yield label, train_all(problem, trainings, make_optimizer, progress(label))


def draw(runs: dict[str, Runs] | Iterable[tuple[str, Runs]], fit: bool = False) -> Figure:
    """Return the figure of what `compare` yields: the losses and, if asked for, the fits."""
    runs = dict(runs)
    figure, panels = plotting.new_figure(2 if fit else 1)
    draw_losses(panels[0], runs)
    if fit:
        draw_fits(panels[1], runs)
    plotting.legend(figure, panels[0].lines)
    return figure


def draw_losses(axes: Axes, runs: dict[str, Runs]) -> None:
    """Draw each optimizer's loss against steps: the median of its seeds, and their quartiles."""
    colors = plotting.colors(runs)
    ends = []
    for width, (label, run) in zip(plotting.widths(len(runs)), runs.items(), strict=True):
        bands = quartiles(run.losses)
        steps = range(1, len(run.losses) + 1)
        name = plotting.name(label, run.lr, bool(run.diverged_at()))
        plotting.median_band(axes, steps, bands, name, colors[label], width)
        if bands[1, -1:].isfinite().any():
            ends.append(bands[1, -run.steps_per_epoch :].quantile(0.5).item())
    axes.set(xlabel="Steps", ylabel="Loss")
    plotting.limit_losses(axes, Y_TOP, ends)


def draw_fits(axes: Axes, runs: dict[str, Runs]) -> None:
    """Draw the data of the first seed, and the curves that the nets have learned."""
    x, y = next(iter(runs.values())).trainings[0].dataset.tensors
    grid = torch.linspace(x.min(), x.max(), 200).unsqueeze(1)
    axes.scatter(x, y, s=4, color="lightgrey")
    axes.set(xlabel="x", ylabel="y", ylim=axes.get_ylim())  # the data's, whatever a net does
    for label, color in plotting.colors(runs).items():
        curves = runs[label].predict(grid).squeeze(2)
        plotting.median_band(axes, grid.flatten(), quartiles(curves.T), label, color, linewidth=2)


def table_row(run: Runs, target: float) -> tuple[str, ...]:
    """Return the cells of a row: loss, steps to the target, seconds, and what else to know."""
    histories = (run.history(k) for k in range(len(run.trainings)))
    steps = [steps_to_target(history, target, run.steps_per_epoch) for history in histories]
    return (
        format_quartiles(run.final_losses, ".5f"),
        format_quartiles(torch.tensor(steps), ".0f"),
        f"{run.seconds:.2f}",
        run.note(),
    )


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_optimizers.png")
    parser.add_optimizers(list(OPTIMIZERS), "the tutorial's four")
    parser.add_lr()
    parser.add_training()
    parser.add_batch_size()
    parser.add_seeds(1)
    parser.add_target()
    parser.add_argument(
        "--fit", action="store_true", help="also draw the data and the nets' curves"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    make_data = cache(partial(make_dataset, n_samples=options.samples, noise=options.noise))
    seeds = range(options.seed, options.seed + options.seeds)
    with parser.refusing():
        optimizers = parse_optimizers(options.optimizers, options.lr)
        problem = Problem(Net, LOSS, options.epochs, options.batch_size)
        training = Training(options.seed, make_data(options.seed))
        try_optimizers(optimizers, partial(take_a_step, problem, training))
        if options.fit and any(data.shape[1:] != (1,) for data in training.dataset.tensors):
            raise ValueError("--fit draws a curve: it needs data of one input and one output")

    columns = {"loss": ">27", f"steps to {options.target:g}": ">17", "seconds": ">7"}
    report = Report(options, table(optimizers, **columns))
    runs = report.collect(
        compare(
            optimizers,
            make_data,
            Net,
            seeds,
            options.epochs,
            options.batch_size,
            report.progress,
        ),
        lambda label, run: (label, optimizers[label].call, *table_row(run, options.target)),
    )
    rows = (
        (label, training.seed, step, loss)
        for label, run in runs.items()
        for k, training in enumerate(run.trainings)
        for step, loss in enumerate(run.history(k), start=1)
    )
    return report.save(draw(runs, options.fit), CSV_HEADER, rows)


if __name__ == "__main__":
    run_main(main)
