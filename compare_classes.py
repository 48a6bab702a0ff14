"""Which classes does it learn: the common ones, or the rare ones, too? A curve for each tenth.

The training set is put in order, the samples of the most frequent class first, and divided into
tenths. Each optimizer trains at its own best rate, by the loss over the whole training set.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from lab.command_line.options import add_lr_range, add_optimizers, add_task
from lab.command_line.parser import Parser
from lab.command_line.specs import parse_optimizers
from lab.command_line.tasks import load_task
from lab.outcome import Outcome, ProgressOf, show_none
from lab.output.main import run_main
from lab.output.report import Report
from lab.output.table import NUMBER, Column, as_numbers, in_digits, name_width
from lab.pictures import curves, style
from lab.pictures.looks import DASHES, visible
from lab.training.adapt import MakeOptimizer
from lab.training.checks import check_optimizers, take_a_step
from lab.training.datasets import first
from lab.training.runs import Training, trainings_of
from lab.training.sweeps import learning_rates
from lab.training.trace import State, Trace, trace

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.func import functional_call

from settings import SEED
from tasks import Task, zipf
from training import evaluating

OPTIMIZERS = {"SGD": "SGD()", "Momentum 0.9": "SGD(momentum=0.9)", "Adam()": "Adam()"}
DEFAULT_TASK = "tasks.zipf"
LR_RANGE = 1e-3, 3.16228
LR_COUNT = 8
TENTHS = 10

EXAMPLES = """\
  python compare_classes.py --optimizers SGD Adagrad Adam homework.MyAdam
  python compare_classes.py --task prose --lr-count 3 --lr-range 0.01 1"""

CSV_HEADER = ("optimizer", "lr", "step", "tenth", "loss")


@dataclass
class Tenths(Outcome):
    """The training of one optimizer at its best rate: what `compare` yields."""

    lr: float | None
    loss: float  # over the whole training set, at the end; infinite if it diverged at every rate
    losses: Tensor  # (steps + 1, tenths), from before the first step on
    tried: dict[float, float] = field(default_factory=dict)  # the loss at the end, at each rate


def compare(
    optimizers: Mapping[str, MakeOptimizer] | None = None,
    task: Task = zipf,
    lrs: Iterable[float] | None = None,
    seed: int = SEED,
    progress: ProgressOf = show_none,
) -> Iterator[tuple[str, Tenths]]:
    """Train with each optimizer at each rate; yield (label, Tenths) of its best one.

    for label, run in compare({"Adam": torch.optim.Adam}, lrs=[0.01, 0.1]):
        print(label, run.lr, run.losses[-1])
    """
    optimizers = optimizers or parse_optimizers(OPTIMIZERS)
    lrs = list(lrs or learning_rates(*LR_RANGE, LR_COUNT))
    (training,) = trainings_of(task, [seed])
    tenths = tenths_of(task, training)
    whole = first(task, training.dataset, len(training.dataset))
    n_steps = task.epochs * math.ceil(len(training.dataset) / task.batch_size)
    for label, make_optimizer in optimizers.items():
        has_own = getattr(make_optimizer, "has_own_lr", False)
        runs: list[tuple[float, Trace]] = []
        for lr in [None] if has_own else lrs:
            of_rate = progress(label if lr is None else f"{label}, lr={lr:.3g}")
            at_rate = replace(training, lr=lr)
            run = trace(task, at_rate, make_optimizer, range(n_steps + 1), of_rate)
            (loss,) = losses_of(task, training, run.seen[run.steps], [whole])
            runs.append((loss if math.isfinite(loss) else math.inf, run))
            if run.error:
                break
        loss, best = min(runs, key=lambda pair: pair[0])
        rows = [losses_of(task, training, state, tenths) for state in best.seen.values()]
        tried = {run.lr: loss for loss, run in runs if run.lr is not None}
        last = runs[-1][1]
        yield (
            label,
            Tenths(
                best.lr,
                loss,
                torch.tensor(rows, dtype=torch.float64),
                tried,
                error=last.error,
                stopped=last.stopped,
                remarks=best.remarks,
            ),
        )
        if last.interrupted:
            raise KeyboardInterrupt


def tenths_of(task: Task, training: Training) -> list[tuple[Any, Tensor]]:
    """Return the training set in tenths of its samples, those of the most frequent classes first.

    ValueError if its targets are no classes.
    """
    x, y = first(task, training.dataset, len(training.dataset))
    if not isinstance(x, Tensor) or y.ndim != 1 or y.is_floating_point():
        raise ValueError("its targets are no classes, whole numbers (samples,)")
    classes, numbers, counts = y.unique(return_inverse=True, return_counts=True)
    order = (-counts[numbers] * len(classes) + numbers).argsort(stable=True)
    return [(x[rows], y[rows]) for rows in order.tensor_split(TENTHS) if len(rows)]


@torch.no_grad()
def losses_of(
    task: Task, training: Training, state: State, parts: list[tuple[Any, Tensor]]
) -> list[float]:
    """Return the loss of a net with these weights over each part."""
    with evaluating(training.make_net(task)) as net:
        return [task.loss(functional_call(net, state, (x,)), y).item() for x, y in parts]


def conclusions(runs: Mapping[str, Tenths]) -> list[str]:
    """Return how far each has come with the common classes, and with the rare ones."""
    return [
        f"{label} takes the commonest tenth from {in_digits(run.losses[0, 0].item(), 3)} to "
        f"{in_digits(run.losses[-1, 0].item(), 3)}, the rarest from "
        f"{in_digits(run.losses[0, -1].item(), 3)} to {in_digits(run.losses[-1, -1].item(), 3)}."
        for label, run in runs.items()
        if math.isfinite(run.loss)
    ]


def draw(runs: Mapping[str, Tenths] | Iterable[tuple[str, Tenths]], caption: str = "") -> Figure:
    """Return the figure of what `compare` yields: a panel an optimizer, a curve a tenth."""
    runs = dict(runs)
    figure, panels = style.new_figure(len(runs))
    starts = [run.losses[0][run.losses[0].isfinite()] for run in runs.values()]
    top = 2 * max((start.max().item() for start in starts if len(start)), default=1.0)
    for axes, (label, run) in zip(panels, runs.items(), strict=True):
        n = run.losses.shape[1]
        for k, losses in enumerate(run.losses.T):
            color = visible(plt.get_cmap("cividis")(0.62 * k / max(1, n - 1))[:3])
            ends = {0: " (commonest)", n - 1: " (rarest)"}
            name = f"tenth {k + 1}{ends.get(k, '')}"
            dash = DASHES[k % len(DASHES)]
            axes.plot(curves.finite(losses), label=name, color=color, linestyle=dash, linewidth=1.6)
        axes.set(title=curves.legend_label(label, run.lr), xlabel="Steps", ylabel="Training loss")
        axes.set_ylim(0, top)
        curves.mark_edges(axes)
    style.legend(figure, curves.named_lines(panels[0]), caption)
    return figure


def columns_of(optimizers: Iterable[str]) -> list[Column[str, Tenths]]:
    """Return the columns of the table."""
    return [
        Column("optimizer", name_width(optimizers), lambda label, run: label),
        Column("best lr", ">8", lambda label, run: run.lr, ".3g"),
        Column("loss", NUMBER, lambda label, run: run.loss, infinite="diverged"),
        Column("commonest tenth", NUMBER, lambda label, run: run.losses[-1, 0].item()),
        Column("rarest tenth", NUMBER, lambda label, run: run.losses[-1, -1].item()),
    ]


def rows(runs: Mapping[str, Tenths] | Iterable[tuple[str, Tenths]]) -> list[dict[str, Any]]:
    """Return the table of what `compare` yields as numbers, which pandas.DataFrame takes."""
    every: dict[str, Tenths] = dict(runs)
    return as_numbers(columns_of(every), every)


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_classes.png")
    add_optimizers(parser, OPTIMIZERS, "SGD, Momentum 0.9 and Adam, with PyTorch's own defaults")
    add_lr_range(parser, *LR_RANGE, LR_COUNT)
    add_task(parser, default=DEFAULT_TASK)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    with parser.refusing():
        task, training = load_task(options, options.task)
        try:
            tenths_of(task, training)
        except ValueError as error:
            raise ValueError(f"task {options.task}: {error}") from error
        low, high = options.lr_range
        lrs = learning_rates(low, high, options.lr_count)
        optimizers = parse_optimizers(options.optimizers)
        check_optimizers(optimizers, partial(take_a_step, task, replace(training, lr=lrs[0])))

    columns = columns_of(optimizers)
    report = Report(options.output, options.csv, columns, task=f"--task {options.task}")
    runs = {}
    for label, run in report.collect(compare(optimizers, task, lrs, options.seed, report.progress)):
        runs[label] = run
        report.row(label, run)
    report.explain(optimizers)
    report.conclude(partial(conclusions, runs))

    numbers = (
        (label, run.lr, step, k + 1, loss)
        for label, run in runs.items()
        for step, losses in enumerate(run.losses.tolist())
        for k, loss in enumerate(losses)
    )
    caption = f"{options.task}, seed {options.seed}, each at its best rate by the training loss"
    return report.save(partial(draw, runs, caption), CSV_HEADER, numbers)


if __name__ == "__main__":
    run_main(main)
