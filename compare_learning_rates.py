"""Which optimizer at which learning rate? Train each at every rate of a grid, over many seeds.

A seed is the data and the first weights; all optimizers share them. Some seeds choose the rates, by
the loss on data held out; others judge each optimizer at its own. Where the best rate lies at an
end of the grid, the grid grows.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from lab.command_line.options import (
    add_batch_size,
    add_jobs,
    add_judges,
    add_lr_range,
    add_optimizers,
    add_target,
    add_task,
    judges_of,
    seeds_of,
)
from lab.command_line.over import add_over, those_with
from lab.command_line.parser import Parser
from lab.command_line.specs import parse_optimizers
from lab.command_line.tasks import load_task
from lab.outcome import ProgressOf, show_none
from lab.output.in_words import maps_in_words, pairs_in_words
from lab.output.main import run_main
from lab.output.report import Report
from lab.output.table import QUARTILES, SHARES, STEPS, Column, as_numbers, name_columns
from lab.pictures import curves, style
from lab.pictures.looks import looks_of
from lab.pictures.maps import draw_maps
from lab.training.adapt import MakeOptimizer
from lab.training.checks import check_optimizers
from lab.training.crew import Crew, Job, is_trained, open_crew
from lab.training.guess import constant_guess
from lab.training.hyperparameter import Hyperparameter
from lab.training.maps import Map, map_and_judge, take_steps
from lab.training.metrics import Metric
from lab.training.statistics import quartiles, steps_to_target
from lab.training.sweeps import (
    GOOD_WITHIN,
    MAX_GROWTH_DECADES,
    Sweep,
    choose_and_judge,
    grid_and_judges,
    learning_rates,
)
from lab.training.verdicts import EQUAL, describe_test, seeds_needed, verdicts

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from settings import OPTIMIZERS, SEED, TASK
from tasks import TASKS, Task

LR_RANGE = 1e-4, 1.0
LR_COUNT = 9
SEEDS, JUDGES = 10, 40

EXAMPLES = """\
  python compare_learning_rates.py --seeds 100
  python compare_learning_rates.py --optimizers Adam NAdam --lr-range 1e-3 0.3
  python compare_learning_rates.py --optimizers Adam homework.MyAdam
  python compare_learning_rates.py --task rare_words
  python compare_learning_rates.py --over lr momentum"""

CSV_HEADER = ("optimizer", "lr", "seed", "stage", "final_loss", "held_out_loss")


def compare(
    optimizers: Mapping[str, MakeOptimizer] | None = None,
    task: Task = TASKS[TASK],
    lrs: Iterable[float] | None = None,
    seeds: Iterable[int] = range(SEED, SEED + SEEDS),
    judges: Iterable[int] = range(SEED + SEEDS, SEED + SEEDS + JUDGES),
    progress: ProgressOf = show_none,
    crew: Crew | None = None,
    over: Hyperparameter | None = None,
) -> Iterator[tuple[str, Sweep]]:
    """Train every optimizer at every rate from every seed; yield (label, Sweep) as each finishes.

    `optimizers` maps a label to whatever makes the optimizer from param groups, which name the lr;
    those of settings.py by default. There are more rates than `lrs` names, evenly spaced, where
    the best one lies at their end. With a hyperparameter to go `over`, each rate is tried at each
    of its values, there are no more rates, and each Sweep is a Map.

        for label, result in compare({"Adam": torch.optim.Adam}, lrs=[0.001, 0.01, 0.1]):
            print(label, result.best_lr, result.median)
    """
    optimizers = optimizers or parse_optimizers(OPTIMIZERS)
    lrs = lrs or learning_rates(*LR_RANGE, LR_COUNT)
    trainings = grid_and_judges(task, seeds, lrs, judges)
    jobs = {}
    for label, make_optimizer in optimizers.items():
        own = over.spread(trainings, make_optimizer) if over else trainings
        jobs[label] = Job(task, own, make_optimizer)
    do = partial(map_and_judge, over) if over else choose_and_judge
    yield from (crew or Crew()).each(do, jobs, progress)


# ---------------------------------------------------------------- what the numbers say


def conclusions(sweeps: Mapping[str, Sweep], equal: float = EQUAL) -> list[str]:
    """Return what the numbers allow one to say, a sentence each: nothing of a grid cut short."""
    whole = {label: result for label, result in sweeps.items() if not result.runs.error}
    are_whole = len(whole) == len(sweeps)
    lost = [label for label, result in whole.items() if result.diverged]
    sentences = [f"{label} diverged at every rate." for label in lost]
    sweeps = {label: result for label, result in whole.items() if label not in lost}
    judged = {label: result for label, result in sweeps.items() if result.judged}
    if len(judged) > 1:
        sentences += verdicts_in_words(judged, equal)
    if are_whole and len(sweeps) > 1 and len(next(iter(sweeps.values())).seeds) > 1:
        sentences += forgiving_in_words(sweeps)
    sentences += flattery_in_words(sweeps)
    sentences += maps_in_words(maps_of(sweeps))
    if ends := [label for label, result in sweeps.items() if result.edge]:
        sentences.append(
            f"The best rate still lies at an end of the grid for {', '.join(ends)}, which has "
            f"grown by {MAX_GROWTH_DECADES} decades."
        )
    if alone := [label for label, result in sweeps.items() if result.is_only_survivor]:
        sentences.append(
            f"The best rate of {', '.join(alone)} is the only one that did not diverge: a finer "
            "grid may hold a better one."
        )
    return sentences


def maps_of(sweeps: Mapping[str, Sweep]) -> dict[str, Map]:
    """Return those that have a second hyperparameter."""
    return {label: result for label, result in sweeps.items() if isinstance(result, Map)}


def verdicts_in_words(sweeps: Mapping[str, Sweep], equal: float) -> list[str]:
    """Return what the judges say of each two: of their losses, and of a metric beside these."""
    losses = {k: r.judged.held_out_losses for k, r in sweeps.items() if r.judged}
    n_judges, n_pairs = len(next(iter(losses.values()))), math.comb(len(losses), 2)
    if n_judges < (needed := seeds_needed(n_pairs)):
        return [f"Nothing is known: {n_judges} judges are too few for a test; {needed} would do."]
    sentences = [
        f"At the best rates, over {n_judges} seeds that chose none ({describe_test(n_pairs)}):",
        *pairs_in_words(verdicts(losses, equal), equal),
    ]
    runs = next(iter(sweeps.values())).runs
    if metric := runs.trainings[0].metric(runs.task):
        values = {label: result.measured(metric) for label, result in sweeps.items()}
        name, more = metric.name, "higher"
        if metric.chances:  # an accuracy: what is right says less than what is wrong
            name, more = "share of errors", "worse"
            values = {label: 1 - value for label, value in values.items()}
        found = verdicts(values, equal, as_factors=False)
        sentences += [f"By the {name}:", *pairs_in_words(found, equal, more)]
    return sentences


def forgiving_in_words(sweeps: Mapping[str, Sweep]) -> list[str]:
    """Return which optimizers come near to the best loss of all at the most different rates.

    Nothing where that are rates within a factor of 3.
    """
    best = min((result.median[result.best].item() for result in sweeps.values()), default=0)
    good = {label: result.good_lrs(best) for label, result in sweeps.items()}
    ratios = {label: lrs[1] / lrs[0] for label, lrs in good.items() if lrs}
    widest = max(ratios.values(), default=1)
    if widest < 3:
        return []
    labels = ", ".join(label for label, ratio in ratios.items() if ratio > 0.99 * widest)
    return [
        f"Most forgiving of a badly chosen rate: {labels}. While the rate grows "
        f"{widest:,.0f}-fold, "
        f"the loss stays within {GOOD_WITHIN:g} times the best of all."
    ]


def flattery_in_words(sweeps: Mapping[str, Sweep]) -> list[str]:
    """Return how much better the losses look on the seeds that chose the rates, if they do."""
    gains = {}
    for label, result in sweeps.items():
        if not result.judged:
            continue
        honest = quartiles(result.judged.held_out_losses)[1].item()
        flattered = result.median[result.best].item()
        if math.isfinite(honest) and honest > 1.01 * flattered > 0:
            gains[label] = 1 - flattered / honest
    each = ", ".join(f"{gain:.0%} for {label}" for label, gain in gains.items())
    if not each:
        return []
    return [
        "The held-out losses are those of seeds that did not choose the rate. On the seeds that "
        f"did, they look lower: by {each}."
    ]


# ---------------------------------------------------------------- the figure


def draw_final_losses(axes: Axes, sweeps: Mapping[str, Sweep]) -> None:
    """Draw losses against learning rate: held out, with quartiles, best rate and divergence.

    The loss on the training set is thin.
    """
    lowest = [quartiles(result.held_out_losses)[0].min().item() for result in sweeps.values()]
    lowest += [quartiles(result.final_losses)[1].min().item() for result in sweeps.values()]
    highest = [result.median.min().item() for result in sweeps.values()]
    highest.append(next(iter(sweeps.values())).losses[:1].nanmedian().item())  # before training
    lowest, highest = ([x for x in losses if x < math.inf] for losses in (lowest, highest))
    for i, (label, look) in enumerate(looks_of(sweeps).items()):
        result, color = sweeps[label], look["color"]
        lrs = result.lrs
        curves.median_band(axes, lrs, quartiles(result.held_out_losses), label, look)
        thin = look | {"linewidth": look["linewidth"] / 2, "label": style.once("training set")}
        axes.plot(lrs, curves.finite(quartiles(result.final_losses)[1]), **thin)
        best_loss = result.median[result.best].item()
        (dot,) = axes.plot(result.best_lr, best_loss, "o", markersize=9, color=color)
        dot.set_label(style.once("best rate"))
        # Runs that diverged: a cross above their rate, larger the more of the seeds did.
        share = result.held_out_losses.isinf().double().mean(1)
        if share.any():
            axes.scatter(
                lrs,
                [0.98 - 0.035 * i] * len(lrs),
                s=80 * share,
                marker="x",
                color=color,
                label=style.once("some diverged"),
                transform=axes.get_xaxis_transform(),
            )
    style.log_scale(axes.xaxis)
    if lowest and highest:
        low, high = min(lowest), max(highest)
        if low > 0:
            style.log_scale(axes.yaxis)
            axes.set(ylim=(0.8 * low, 3 * high))
        else:
            axes.set(ylim=(low - 0.05 * (high - low), high + 0.3 * (high - low)))
        curves.mark_edges(axes)
    axes.set(xlabel="Learning rate", ylabel="Held-out loss")


def draw_histories(axes: Axes, sweeps: Mapping[str, Sweep]) -> None:
    """Draw the loss against steps of each optimizer at its own best rate."""
    looks = looks_of(sweeps)
    for label, result in sweeps.items():
        losses = result.losses_at_best()
        steps = range(1, len(losses) + 1)
        name = curves.legend_label(label + result.setting, result.best_lr)
        curves.draw_history(axes, steps, losses, result.runs.steps_per_epoch, name, looks[label])
    curves.limit_losses(axes, log=True)
    axes.set(xlabel="Steps", ylabel="Mini-batch loss")
    if any(result.runs.lr_histories is not None for result in sweeps.values()):
        histories = {label: result.lr_history() for label, result in sweeps.items()}
        curves.draw_lrs(axes, histories, looks)


def draw(sweeps: Mapping[str, Sweep] | Iterable[tuple[str, Sweep]]) -> Figure:
    """Return the figure of what `compare` yields: loss against rate, histories at the best.

    Over a second hyperparameter, there is a map of the loss for each optimizer.
    """
    sweeps = dict(sweeps)
    maps = maps_of(sweeps)
    figure, (*left, right) = style.new_figure(1 + (len(maps) or 1))
    if maps:
        draw_maps(left, maps)
    else:
        draw_final_losses(left[0], sweeps)
    draw_histories(right, sweeps)
    runs = next(iter(sweeps.values())).runs
    n = runs.steps_per_epoch
    means = f"right: {f'means of {n} steps, ' if n > 1 else ''}at the best rates"
    style.legend(figure, curves.named_lines(right), curves.caption_of(runs, means))
    return figure


# ---------------------------------------------------------------- the table and the command line


def steps_to(result: Sweep, target: float) -> Tensor | None:
    """Return after how many steps the loss is below the target at the best rate, or infinity.

    None where they ended early, and one might have come there.
    """
    histories = result.losses_at_best().T
    window = result.runs.steps_per_epoch
    steps = torch.tensor([steps_to_target(history, target, window) for history in histories])
    return steps if is_trained(result.at_best) or steps.isfinite().all() else None


def columns_of(
    optimizers: Iterable[str],
    task: Task,
    metric: Metric | None,
    over: Hyperparameter | None = None,
) -> list[Column[str, Sweep]]:
    """Return the columns of the table."""
    columns: list[Column[str, Sweep]] = [
        *name_columns(optimizers),
        Column("best lr", ">8", lambda label, r: None if r.diverged else r.best_lr, ".3g"),
        Column(
            "loss",
            QUARTILES,
            lambda label, r: r.final_losses_at_best(),
            infinite="diverged",
            goes=3,
        ),
        Column(
            "held-out loss",
            QUARTILES,
            lambda label, r: r.judged_losses,
            infinite="diverged",
        ),
        Column("good rates", ">18", lambda label, r: r.good_lrs(), ".3g", goes=4),
    ]
    if over:
        columns.insert(2, Column(f"best {over.name}", ">8", lambda label, r: r.best_value))
    if metric:
        columns.append(
            Column(metric.name, SHARES, lambda label, r: r.measured(metric), metric.format)
        )
    if (target := task.target) is not None:
        title = f"steps to {target:g}"
        columns.append(
            Column(title, STEPS, lambda label, r: steps_to(r, target), ".0f", "never", goes=2)
        )
    columns.append(Column("seconds", ">7", lambda label, r: r.seconds, ".2f", goes=1))
    return columns


def rows(sweeps: Mapping[str, Sweep] | Iterable[tuple[str, Sweep]]) -> list[dict[str, Any]]:
    """Return the table of what `compare` yields as numbers, which pandas.DataFrame takes."""
    sweeps = dict(sweeps)
    first = next(iter(sweeps.values()))
    runs, over = first.runs, first.over
    metric = runs.trainings[0].metric(runs.task)
    return as_numbers(columns_of(sweeps, runs.task, metric, over), sweeps)


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_learning_rates.png")
    add_optimizers(parser, OPTIMIZERS, "the tutorial's four")
    add_lr_range(parser, *LR_RANGE, LR_COUNT)
    add_over(parser)
    add_judges(parser, JUDGES, SEEDS)
    add_task(parser)
    add_batch_size(parser)
    add_target(parser)
    add_jobs(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    with parser.refusing():
        task, training = load_task(options, options.task)
        low, high = options.lr_range
        lrs = learning_rates(low, high, options.lr_count)
        optimizers = parse_optimizers(options.optimizers, sweeping=True)
        if over := options.over:
            optimizers = those_with(over, optimizers, options.optimizers)
        first = replace(training, lr=lrs[0])
        check_optimizers(optimizers, partial(take_steps, over, task, first))

    columns = columns_of(optimizers, task, training.metric(task), over)
    report = Report(options.output, options.csv, columns, task=f"--task {options.task}")
    sweeps = {}
    with open_crew(options.jobs, options.dask, options.keep) as crew:
        seeds, judges = seeds_of(options), judges_of(options)
        comparison = compare(optimizers, task, lrs, seeds, judges, report.progress, crew, over)
        for label, result in report.collect(comparison):
            sweeps[label] = result
            report.row(label, result)
    report.explain(optimizers, constant_guess(task, training))
    report.conclude(partial(conclusions, sweeps, options.equal))

    header = (*CSV_HEADER[:2], over.name, *CSV_HEADER[2:]) if over else CSV_HEADER
    losses = ((label, *row) for label, result in sweeps.items() for row in result.rows())
    return report.save(partial(draw, sweeps), header, losses)


if __name__ == "__main__":
    run_main(main)
