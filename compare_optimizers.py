"""Which optimizer? Train the same net once per optimizer and draw every loss on one figure.

Every optimizer starts from the same weights and sees the same mini-batches in the same order. With
--seeds, each trains once per seed, and the figure shows the median and the quartiles.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from lab.command_line.options import (
    add_batch_size,
    add_curves,
    add_jobs,
    add_lr,
    add_optimizers,
    add_seeds,
    add_target,
    add_task,
    seeds_of,
)
from lab.command_line.parser import Parser
from lab.command_line.specs import parse_optimizers
from lab.command_line.tasks import load_task
from lab.command_line.types import animation_path, page_path
from lab.live.page import Page
from lab.outcome import ProgressOf, show_none
from lab.output.main import run_main
from lab.output.report import Report
from lab.output.table import (
    NUMBER,
    QUARTILES,
    SHARE,
    SHARES,
    STEPS,
    Column,
    as_numbers,
    name_columns,
)
from lab.pictures import curves, learning, style
from lab.pictures.fits import fit_for
from lab.pictures.looks import looks_of
from lab.training.adapt import MakeOptimizer
from lab.training.checks import check_optimizers, take_a_step
from lab.training.crew import Crew, Job, is_trained, open_crew
from lab.training.guess import constant_guess
from lab.training.metrics import Metric
from lab.training.runs import Runs, trainings_of
from lab.training.statistics import steps_to_target
from lab.training.train import train_all

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from settings import LR, OPTIMIZERS, SEED, TASK
from tasks import TASKS, Task

EXAMPLES = """\
  python compare_optimizers.py --fit --animate learning.gif
  python compare_optimizers.py --seeds 100
  python compare_optimizers.py --optimizers "AdamW(eps=1e-6)" "big=SGD(lr=0.5)"
  python compare_optimizers.py --optimizers SGD homework.MySGD --csv losses.csv
  python compare_optimizers.py --optimizers "SGD(lr=0.5) + StepLR(step_size=4)"
  python compare_optimizers.py --task spirals --lr 0.03 --fit
  python compare_optimizers.py --live page.html
"""
CSV_HEADER = ("optimizer", "seed", "step", "loss")
EPOCHS_HEADER = ("optimizer", "seed", "epoch", "loss", "held_out_loss")  # with --held-out
Y_TOP = 0.2  # of the tutorial's figure


def compare(
    optimizers: Mapping[str, MakeOptimizer] | None = None,
    task: Task = TASKS[TASK],
    seeds: Iterable[int] = (SEED,),
    progress: ProgressOf = show_none,
    crew: Crew | None = None,
    held_out: bool = False,
) -> Iterator[tuple[str, Runs]]:
    """Train a net from each seed once per optimizer; yield (label, Runs) as each finishes.

    `optimizers` maps a label to whatever makes the optimizer from a net's parameters; those of
    settings.py by default. A seed gives the data and the first weights: see `Task` in tasks.py. A
    `crew` may train by other processes, and keep what is trained. With `held_out`, both losses
    after each epoch come along, and the figure shows those.

        runs = dict(compare({"Adam": torch.optim.Adam}, TASKS["spirals"], seeds=range(10)))
        runs["Adam"].held_out_losses.median()
    """
    optimizers = optimizers or parse_optimizers(OPTIMIZERS, LR)
    trainings = trainings_of(task, seeds)
    jobs = {label: Job(task, trainings, optimizers[label]) for label in optimizers}
    do = partial(train_all, every_epoch=held_out)
    yield from (crew or Crew()).each(do, jobs, progress)


def draw(
    runs: Mapping[str, Runs] | Iterable[tuple[str, Runs]],
    fit: bool = False,
    log: bool = False,
    smooth: int | None = None,
    x: str = "steps",
) -> Figure:
    """Return the figure of what `compare` yields: the losses and, if asked for, the fits.

    `log` makes the axis of losses logarithmic, `smooth` is how many steps a line is the mean of,
    instead of an epoch's, and `x` is what it is drawn against: steps, epochs or seconds.
    """
    runs = dict(runs)
    first = next(iter(runs.values()))
    if not fit:
        figure, (losses,) = style.new_figure(1)
    else:
        how = fit_for(first.task, first.trainings[0])
        figure, (losses, *panels) = style.new_figure(1 + how.n_panels(len(runs)))
        how.draw(panels, runs)
    window = smooth or first.steps_per_epoch
    rate = draw_losses(losses, runs, window, x)
    curves.limit_losses(losses, 0 if first.epochs else Y_TOP, log)
    means = "" if window == 1 or first.epochs else f"lines: means of {window} steps"
    style.legend(figure, curves.named_lines(losses), curves.caption_of(first, rate, means))
    return figure


def draw_losses(axes: Axes, runs: Mapping[str, Runs], window: int, x: str) -> str:
    """Draw each optimizer's loss: the median of its seeds, and their quartiles.

    Returns the learning rate in words, if all have the same one.
    """
    looks = looks_of(runs)
    lengths = {label: curves.length_of_step(run, x) for label, run in runs.items()}
    # The panel below shows the rates of a schedule.
    lrs = {label: run.lr if run.lr_histories is None else None for label, run in runs.items()}
    diverged = [label for label, run in runs.items() if run.diverged_at()]
    names, rate = curves.names_with_rates(lrs, diverged)
    for label, run in runs.items():
        look, steps = (names[label], looks[label]), torch.arange(1, len(run.losses) + 1)
        if run.epochs:
            ends = run.steps_per_epoch * torch.arange(1, len(run.epochs.losses) + 1)
            curves.draw_epochs(axes, lengths[label] * ends, run.epochs, *look)
        else:
            curves.draw_history(axes, lengths[label] * steps, run.losses, window, *look)
    is_by_epoch = any(run.epochs for run in runs.values())
    loss = "Held-out loss" if is_by_epoch else "Mini-batch loss"
    axes.set(xlabel=curves.AXES_OF_X[x], ylabel=loss)
    if any(run.lr_histories is not None for run in runs.values()):
        everyone = {label: run.lr_history(range(len(run.trainings))) for label, run in runs.items()}
        curves.draw_lrs(axes, everyone, looks, lengths=lengths)
    return rate


def steps_to(run: Runs, target: float) -> torch.Tensor | None:
    """Return after how many steps the loss is below the target, of each training; or infinity.

    None where they ended early, and one might have come there.
    """
    histories = (run.history(k) for k in range(len(run.trainings)))
    steps = torch.tensor(
        [steps_to_target(history, target, run.steps_per_epoch) for history in histories]
    )
    return steps if is_trained(run) or steps.isfinite().all() else None


def rows_of(run: Runs, k: int) -> Iterator[tuple[float, ...]]:
    """Yield the numbers of the k-th training for the CSV: by step or, if it has them, by epoch."""
    if not run.epochs:
        yield from enumerate(run.history(k), start=1)
        return
    both = run.epochs.losses[:, k].tolist(), run.epochs.held_out[:, k].tolist()
    for epoch, losses in enumerate(zip(*both, strict=True), start=1):
        if not any(map(math.isnan, losses)):  # it was stopped before
            yield (epoch, *losses)


def columns_of(
    optimizers: Iterable[str], task: Task, n_seeds: int, metric: Metric | None
) -> list[Column[str, Runs]]:
    """Return the columns of the table."""
    many = n_seeds > 1
    loss, share, steps = (QUARTILES, SHARES, STEPS) if many else (NUMBER, SHARE, NUMBER)
    columns: list[Column[str, Runs]] = [
        *name_columns(optimizers),
        Column("loss", loss, lambda label, run: run.final_losses, infinite="diverged", goes=3),
        Column("held-out loss", loss, lambda label, run: run.held_out_losses, infinite="diverged"),
    ]
    if metric:
        columns.append(
            Column(metric.name, share, lambda label, run: run.measured(metric), metric.format)
        )
    if (target := task.target) is not None:
        title = f"steps to {target:g}"
        columns.append(
            Column(title, steps, lambda label, run: steps_to(run, target), ".0f", "never", goes=2)
        )
    columns.append(Column("seconds", ">7", lambda label, run: run.seconds, ".2f", goes=1))
    return columns


def rows(runs: Mapping[str, Runs] | Iterable[tuple[str, Runs]]) -> list[dict[str, Any]]:
    """Return the table of what `compare` yields as numbers, which pandas.DataFrame takes."""
    runs = dict(runs)
    first = next(iter(runs.values()))
    metric = first.trainings[0].metric(first.task)
    return as_numbers(columns_of(runs, first.task, len(first.trainings), metric), runs)


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_optimizers.png")
    add_optimizers(parser, OPTIMIZERS, "the tutorial's four")
    add_lr(parser)
    add_task(parser)
    add_batch_size(parser)
    add_seeds(parser, 1)
    add_target(parser)
    add_jobs(parser)
    add_curves(parser)
    parser.add_argument("--fit", action="store_true", help="also draw what the nets have learned")
    text = "also a film of the nets while they learn, as .gif, .html or .mp4"
    parser.add_argument("--animate", type=animation_path, metavar="PATH", help=text)
    text = "also a page with sliders, as page.html: the nets train again at every movement"
    parser.add_argument("--live", type=page_path, metavar="PATH", help=text)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    if options.animate and options.seeds > 1:
        parser.error("--animate shows one seed: leave --seeds out")
    if options.live and options.rotate:
        parser.error("--live has no turned axes: leave --rotate out")
    with parser.refusing():
        task, training = load_task(options, options.task)
        optimizers = parse_optimizers(options.optimizers, options.lr)
        check_optimizers(optimizers, partial(take_a_step, task, training))
        if options.fit or options.animate:
            fit_for(task, training)
        page = options.live and Page(task, optimizers, options.seed, options.seeds)

    columns = columns_of(optimizers, task, options.seeds, training.metric(task))
    report = Report(options.output, options.csv, columns, task=f"--task {options.task}")
    runs = {}
    seeds = seeds_of(options)
    with open_crew(options.jobs, options.dask, options.keep) as crew:
        found = compare(optimizers, task, seeds, report.progress, crew, options.held_out)
        for label, run in report.collect(found):
            runs[label] = run
            report.row(label, run)
    report.explain(optimizers, constant_guess(task, training))

    losses = (
        (label, training.seed, *row)
        for label, run in runs.items()
        for k, training in enumerate(run.trainings)
        for row in rows_of(run, k)
    )
    header = EPOCHS_HEADER if options.held_out else CSV_HEADER
    less = partial(draw, runs, log=options.log, smooth=options.smooth)
    animations = {}
    if options.animate:
        animations[options.animate] = lambda: learning.animate(
            less(fit=True), runs, optimizers, report.progress("animation")
        )
    if page:
        report.save_as(options.live, page.save)
    figure = partial(less, fit=options.fit, x=options.x)
    return report.save(figure, header, losses, animations, draw_less=less)


if __name__ == "__main__":
    run_main(main)
