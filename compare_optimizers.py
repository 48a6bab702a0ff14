"""Which optimizer? Train the same net once per optimizer and draw every loss on one figure.

Every optimizer starts from the same weights and sees the same mini-batches in the same order. With
--seeds, each trains once per seed, and the figure shows the median and the quartiles.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from lab import fits, learning, plotting
from lab.commands import Parser, animation_path, page_path
from lab.live.page import Page
from lab.report import Report, run_main, table
from lab.specs import parse_optimizers, try_optimizers
from lab.stacking import train_all
from lab.statistics import format_quartiles, quartiles, steps_to_target
from lab.trainings import Runs, silent, take_a_step, trainings_of

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.optim import Optimizer

from settings import LR, OPTIMIZERS, SEED, TASK
from tasks import TASKS, Task

EXAMPLES = """\
  python compare_optimizers.py --fit --animate learning.gif
  python compare_optimizers.py --seeds 100
  python compare_optimizers.py --optimizers Adam "AdamW(weight_decay=0.1)" "big=SGD(lr=0.5)"
  python compare_optimizers.py --optimizers SGD homework.MySGD --epochs 30 --csv losses.csv
  python compare_optimizers.py --optimizers SGD "SGD(lr=0.5) + CosineAnnealingLR(T_max=12)"
  python compare_optimizers.py --task spirals --lr 0.03 --fit
  python compare_optimizers.py --live page.html
"""
CSV_HEADER = ("optimizer", "seed", "step", "loss")
Y_TOP = 0.2  # of the tutorial's figure


def compare(
    optimizers: dict[str, Callable[..., Optimizer]] | None = None,
    task: Task = TASKS[TASK],
    seeds: Iterable[int] = (SEED,),
    progress: Callable = silent,
) -> Iterator[tuple[str, Runs]]:
    """Train a net from each seed once per optimizer; yield (label, Runs) as each finishes.

    `optimizers` maps a label to whatever makes the optimizer from a net's parameters; those of
    settings.py by default. A seed gives the data and the first weights: see `Task` in tasks.py.
    """
    trainings = trainings_of(task, seeds)
    for label, make_optimizer in (optimizers or parse_optimizers(OPTIMIZERS, LR)).items():
        yield label, train_all(task, trainings, make_optimizer, progress(label))


def draw(runs: dict[str, Runs] | Iterable[tuple[str, Runs]], fit: bool = False) -> Figure:
    """Return the figure of what `compare` yields: the losses and, if asked for, the fits."""
    runs = dict(runs)
    dataset = next(iter(runs.values())).trainings[0].dataset
    n_fits, draw_fits, _ = fits.panels_of(dataset, len(runs)) if fit else (0, None, None)
    figure, panels = plotting.new_figure(1 + n_fits)
    draw_losses(panels[0], runs)
    if fit:
        draw_fits(panels[1:], runs)
    plotting.legend(figure, panels[0].lines)
    return figure


def draw_losses(axes: Axes, runs: dict[str, Runs]) -> None:
    """Draw each optimizer's loss against steps: the median of its seeds, and their quartiles."""
    colors = plotting.colors(runs)
    ends = []
    for width, (label, run) in zip(plotting.widths(len(runs)), runs.items(), strict=True):
        bands = quartiles(run.losses)
        steps = range(1, len(run.losses) + 1)
        lr = run.lr if run.rates is None else None  # the panel below shows a schedule's
        name = plotting.name(label, lr, bool(run.diverged_at()))
        plotting.median_band(axes, steps, bands, name, colors[label], width)
        if bands[1, -1:].isfinite().any():
            ends.append(bands[1, -run.steps_per_epoch :].quantile(0.5).item())
    axes.set(xlabel="Steps", ylabel="Loss")
    plotting.limit_losses(axes, Y_TOP, ends)
    if any(run.rates is not None for run in runs.values()):
        rates = {label: run.rate_history(slice(None), run.lr) for label, run in runs.items()}
        plotting.draw_rates(axes, rates, colors)


def table_row(run: Runs, target: float) -> tuple[str, ...]:
    """Return the cells of a row: losses, accuracy of classes, steps, seconds, what else to know."""
    histories = (run.history(k) for k in range(len(run.trainings)))
    steps = [steps_to_target(history, target, run.steps_per_epoch) for history in histories]
    accuracies = run.accuracies(range(len(run.trainings)))
    return (
        format_quartiles(run.final_losses, ".5f"),
        format_quartiles(run.held_out_losses, ".5f"),
        *([] if accuracies is None else [format_quartiles(accuracies, ".1%")]),
        format_quartiles(torch.tensor(steps), ".0f"),
        f"{run.seconds:.2f}",
        run.note(),
    )


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_optimizers.png")
    parser.add_optimizers(list(OPTIMIZERS), "the tutorial's four")
    parser.add_lr()
    parser.add_task()
    parser.add_batch_size()
    parser.add_seeds(1)
    parser.add_target()
    parser.add_argument("--fit", action="store_true", help="also draw what the nets have learned")
    text = "also watch the nets learn, as .gif, .html or .mp4"
    parser.add_argument("--animate", type=animation_path, metavar="PATH", help=text)
    text = "also a page, .html, in which the nets train again at every movement of a slider"
    parser.add_argument("--live", type=page_path, metavar="PATH", help=text)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    task, seeds = options.task, range(options.seed, options.seed + options.seeds)
    if options.animate and options.seeds > 1:
        parser.error("--animate shows one seed: leave --seeds out")
    with parser.refusing():
        optimizers = parse_optimizers(options.optimizers, options.lr)
        (training,) = trainings_of(task, [options.seed])
        try_optimizers(optimizers, partial(take_a_step, task, training))
        if options.fit or options.animate:
            fits.panels_of(training.dataset, len(optimizers))
        page = options.live and Page(task, optimizers, options.seed, options.seeds)

    wide = ">27" if len(seeds) > 1 else ">13"
    columns = {"loss": wide, "held-out loss": wide}
    if training.has_classes:
        columns["accuracy"] = wide.replace("13", "8")
    columns |= {f"steps to {task.target:g}": ">17", "seconds": ">7"}
    report = Report(options, table(optimizers, **columns))
    runs = report.collect(
        compare(optimizers, task, seeds, report.progress),
        lambda label, run: (label, optimizers[label].call, *table_row(run, task.target)),
    )
    rows = (
        (label, training.seed, step, loss)
        for label, run in runs.items()
        for k, training in enumerate(run.trainings)
        for step, loss in enumerate(run.history(k), start=1)
    )
    films = {
        options.animate: lambda: learning.animate(
            draw(runs, fit=True), runs, task, optimizers, report.progress("animation")
        )
    }
    if page:
        report.save_as(options.live, lambda: page.save(options.live))
    return report.save(draw(runs, options.fit), CSV_HEADER, rows, films)


if __name__ == "__main__":
    run_main(main)
