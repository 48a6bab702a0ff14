"""Which optimizer? Train the same net once per optimizer and draw every loss on one figure.

Every optimizer starts from the same weights and sees the same mini-batches in the same order. With
--seeds, each trains once per seed, and the figure shows the median and the quartiles.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from lab.command_line.options import (
    add_batch_size,
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
from lab.pictures import learning, style
from lab.pictures.fits import fit_for
from lab.training.adapt import MakeOptimizer
from lab.training.checks import check_optimizers, take_a_step
from lab.training.crew import Crew, Job, open_crew
from lab.training.guess import constant_guess
from lab.training.metrics import Metric
from lab.training.runs import Runs, trainings_of
from lab.training.statistics import quartiles, steps_to_target
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
Y_TOP = 0.2  # of the tutorial's figure


def compare(
    optimizers: Mapping[str, MakeOptimizer] | None = None,
    task: Task = TASKS[TASK],
    seeds: Iterable[int] = (SEED,),
    progress: ProgressOf = show_none,
    crew: Crew | None = None,
) -> Iterator[tuple[str, Runs]]:
    """Train a net from each seed once per optimizer; yield (label, Runs) as each finishes.

    `optimizers` maps a label to whatever makes the optimizer from a net's parameters; those of
    settings.py by default. A seed gives the data and the first weights: see `Task` in tasks.py. A
    `crew` may train by other processes, and keep what is trained.

        runs = dict(compare({"Adam": torch.optim.Adam}, TASKS["spirals"], seeds=range(10)))
        runs["Adam"].held_out_losses.median()
    """
    optimizers = optimizers or parse_optimizers(OPTIMIZERS, LR)
    trainings = trainings_of(task, seeds)
    jobs = {label: Job(task, trainings, optimizers[label]) for label in optimizers}
    yield from (crew or Crew()).each(train_all, jobs, progress)


def draw(runs: Mapping[str, Runs] | Iterable[tuple[str, Runs]], fit: bool = False) -> Figure:
    """Return the figure of what `compare` yields: the losses and, if asked for, the fits."""
    runs = dict(runs)
    if not fit:
        figure, (losses,) = style.new_figure(1)
    else:
        first = next(iter(runs.values()))
        how = fit_for(first.task, first.trainings[0])
        figure, (losses, *panels) = style.new_figure(1 + how.n_panels(len(runs)))
        how.draw(panels, runs)
    draw_losses(losses, runs)
    style.legend(figure, losses.lines)
    return figure


def draw_losses(axes: Axes, runs: Mapping[str, Runs]) -> None:
    """Draw each optimizer's loss against steps: the median of its seeds, and their quartiles."""
    colors = style.colors_of(runs)
    ends = []
    for width, (label, run) in zip(style.widths(len(runs)), runs.items(), strict=True):
        bands = quartiles(run.losses)
        steps = range(1, len(run.losses) + 1)
        lr = run.lr if run.lr_histories is None else None  # the panel below shows a schedule's
        name = style.legend_label(label, lr, bool(run.diverged_at()))
        style.median_band(axes, steps, bands, name, colors[label], width)
        if bands[1, -1:].isfinite().any():
            ends.append(bands[1, -run.steps_per_epoch :].quantile(0.5).item())
    axes.set(xlabel="Steps", ylabel="Loss")
    style.limit_losses(axes, Y_TOP, ends)
    if any(run.lr_histories is not None for run in runs.values()):
        everyone = {label: run.lr_history(range(len(run.trainings))) for label, run in runs.items()}
        style.draw_lrs(axes, everyone, colors)


def steps_to(run: Runs, target: float) -> torch.Tensor:
    """Return after how many steps the loss is below the target, of each training; or infinity."""
    histories = (run.history(k) for k in range(len(run.trainings)))
    steps = [steps_to_target(history, target, run.steps_per_epoch) for history in histories]
    return torch.tensor(steps)


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
    if target := task.target:
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
    with open_crew(options.jobs, options.dask, options.keep) as crew:
        comparison = compare(optimizers, task, seeds_of(options), report.progress, crew)
        for label, run in report.collect(comparison):
            runs[label] = run
            report.row(label, run)
    report.explain(optimizers, constant_guess(task, training))

    losses = (
        (label, training.seed, step, loss)
        for label, run in runs.items()
        for k, training in enumerate(run.trainings)
        for step, loss in enumerate(run.history(k), start=1)
    )
    animations = {}
    if options.animate:
        animations[options.animate] = lambda: learning.animate(
            draw(runs, fit=True), runs, optimizers, report.progress("animation")
        )
    if page:
        report.save_as(options.live, page.save)
    figure, less = partial(draw, runs, options.fit), partial(draw, runs)
    return report.save(figure, CSV_HEADER, losses, animations, draw_less=less)


if __name__ == "__main__":
    run_main(main)
