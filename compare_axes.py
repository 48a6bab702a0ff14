"""Does it see the axes? Train each optimizer on each task as it is, and with its axes turned.

Turned, every number that an optimizer moves is a mixture of all weights, and the loss is the same
function. Each optimizer has its own best rate, before and after, chosen by some seeds and judged by
others.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from lab.command_line.options import (
    add_jobs,
    add_judges,
    add_lr_range,
    add_optimizers,
    add_tasks,
    judges_of,
    seeds_of,
)
from lab.command_line.parser import Parser
from lab.command_line.specs import parse_optimizers
from lab.command_line.tasks import load_tasks
from lab.outcome import ProgressOf, show_none
from lab.output.main import run_main
from lab.output.report import Report
from lab.output.table import QUARTILES, Column, as_numbers, in_digits, name_width
from lab.pictures import style
from lab.pictures.looks import looks_of
from lab.training.adapt import MakeOptimizer
from lab.training.checks import check_optimizers, take_a_step
from lab.training.crew import Crew, Job, open_crew
from lab.training.rotation import turned_task
from lab.training.statistics import quartiles
from lab.training.sweeps import Sweep, choose_and_judge, grid_and_judges, learning_rates

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from settings import SEED
from tasks import TASKS, Task

OPTIMIZERS = {
    "SGD": "SGD()",
    "Momentum 0.9": "SGD(momentum=0.9)",
    "RMSprop()": "RMSprop()",
    "Adam()": "Adam()",
}
TASKS_SHOWN = ["scales"]
LR_RANGE = 1e-3, 1.0
LR_COUNT = 7
SEEDS, JUDGES = 5, 20
SEEN = 1.1  # times the loss, or one over that: by more, turned axes are said to matter
AXES = "as they are", "turned"

EXAMPLES = """\
  python compare_axes.py --tasks scales spirals deep parabola
  python compare_axes.py --optimizers SGD Adam Adagrad homework.MyAdam"""

CSV_HEADER = ("task", "axes", "optimizer", "lr", "seed", "stage", "final_loss", "held_out_loss")


class Place(NamedTuple):
    """Where a result stands in the table."""

    task: str
    axes: str
    optimizer: str

    def __str__(self) -> str:
        return f"{self.optimizer} on {self.task}, axes {self.axes}"


def compare(
    optimizers: Mapping[str, MakeOptimizer] | None = None,
    tasks: Mapping[str, tuple[Task, Task]] | None = None,
    lrs: Iterable[float] | None = None,
    seeds: Iterable[int] = range(SEED, SEED + SEEDS),
    judges: Iterable[int] = range(SEED + SEEDS, SEED + SEEDS + JUDGES),
    progress: ProgressOf = show_none,
    crew: Crew | None = None,
) -> Iterator[tuple[Place, Sweep]]:
    """Train every optimizer on every task, as it is and turned; yield (Place, Sweep) of each.

    `tasks` maps a name to a task and the same with its axes turned; `optimizers` a label to
    whatever makes the optimizer.

        turned = lab.training.rotation.turned_task(my_task, seed=0)
        sweeps = dict(compare({"Adam": torch.optim.Adam}, {"mine": (my_task, turned)}))
        sweeps["mine", "turned", "Adam"].judged_losses.median()
    """
    optimizers = optimizers or parse_optimizers(OPTIMIZERS)
    tasks = tasks or {name: (TASKS[name], turned_task(TASKS[name], SEED)) for name in TASKS_SHOWN}
    lrs = tuple(lrs or learning_rates(*LR_RANGE, LR_COUNT))
    seeds, judges = tuple(seeds), tuple(judges)
    jobs = {}
    for name, both in tasks.items():
        trainings = grid_and_judges(both[0], seeds, lrs, judges)
        for label, make_optimizer in optimizers.items():
            for axes, task in zip(AXES, both, strict=True):
                jobs[Place(name, axes, label)] = Job(task, trainings, make_optimizer)
    yield from (crew or Crew()).each(choose_and_judge, jobs, progress)


# ---------------------------------------------------------------- what the numbers say


def medians(sweeps: Mapping[Place, Sweep]) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the median losses of (task, optimizer), as it is and turned, where both are there."""
    losses = {
        place: quartiles(sweep.judged_losses)[1].item()
        for place, sweep in sweeps.items()
        if sweep.judged_losses is not None
    }
    pairs = {}
    for place, before in losses.items():
        other = place._replace(axes=AXES[1])
        if place.axes == AXES[0] and other in losses:
            pairs[place.task, place.optimizer] = before, losses[other]
    return pairs


def conclusions(sweeps: Mapping[Place, Sweep]) -> list[str]:
    """Return for each task whose losses turned axes change, and by how much."""
    pairs, sentences = medians(sweeps), []
    for task in dict.fromkeys(task for task, _ in pairs):
        changed, same = [], []
        for (name, label), (before, after) in pairs.items():
            if name != task:
                continue
            ratio = after / before if before > 0 and math.isfinite(before) else math.nan
            if 1 / SEEN <= ratio <= SEEN or before == after:
                same.append(label)
            else:
                changed.append(
                    f"{label} from {in_digits(before, 3)} to {in_digits(after, 3)}"
                    + (f", {in_digits(ratio, 3)} times" if math.isfinite(ratio) else "")
                )
        if changed:
            sentences.append(f"Turned axes on {task} take {'; '.join(changed)}.")
        if same:
            sentences.append(f"Within {SEEN - 1:.0%} of what it was on {task}: {', '.join(same)}.")
    return sentences


# ---------------------------------------------------------------- the figure


def draw(
    sweeps: Mapping[Place, Sweep] | Iterable[tuple[Place, Sweep]], caption: str = ""
) -> Figure:
    """Return the figure of what `compare` yields: an arrow from each loss to the turned one."""
    pairs = medians(dict(sweeps))
    tasks = list(dict.fromkeys(task for task, _ in pairs))
    labels = list(dict.fromkeys(label for _, label in pairs))
    figure, panels = style.new_figure(max(1, len(tasks)))
    for axes, task in zip(panels, tasks, strict=False):
        draw_task(axes, {label: pairs[task, label] for label in labels if (task, label) in pairs})
        axes.set(title=task, ylabel="Held-out loss at the best rate")
    style.legend(figure, [], caption)
    return figure


def draw_task(axes: Axes, pairs: Mapping[str, tuple[float, float]]) -> None:
    """Draw the losses of one task: hollow as it is, full where turned, and an arrow between."""
    looks = looks_of(pairs)
    for k, (label, losses) in enumerate(pairs.items()):
        color, x = looks[label]["color"], (k - 0.2, k + 0.2)
        (before,) = axes.plot(x[0], losses[0], "o", color=color, markerfacecolor="none")
        (after,) = axes.plot(x[1], losses[1], "o", color=color)
        before.set_label(style.once("axes as they are"))
        after.set_label(style.once("axes turned"))
        if all(map(math.isfinite, losses)):
            arrow = {
                "arrowstyle": "->",
                "color": color,
                "linewidth": 1.6,
                "shrinkA": 4,
                "shrinkB": 4,
            }
            axes.annotate("", (x[1], losses[1]), (x[0], losses[0]), arrowprops=arrow)
    style.log_scale(axes.yaxis)
    axes.margins(y=0.15)
    axes.set_xlim(-0.6, len(pairs) - 0.4)
    axes.set_xticks(range(len(pairs)), list(pairs), rotation=20)


# ---------------------------------------------------------------- the table and the command line


def columns_of(tasks: Iterable[str], optimizers: Iterable[str]) -> list[Column[Place, Sweep]]:
    """Return the columns of the table."""
    return [
        Column("task", name_width(tasks), lambda place, sweep: place.task),
        Column("optimizer", name_width(optimizers), lambda place, sweep: place.optimizer),
        Column("axes", "<11", lambda place, sweep: place.axes),
        Column("best lr", ">8", lambda p, sweep: None if sweep.diverged else sweep.best_lr, ".3g"),
        Column("held-out loss", QUARTILES, lambda p, s: s.judged_losses, infinite="diverged"),
        Column("seconds", ">7", lambda place, sweep: sweep.seconds, ".1f", goes=1),
    ]


def rows(sweeps: Mapping[Place, Sweep] | Iterable[tuple[Place, Sweep]]) -> list[dict[str, Any]]:
    """Return the table of what `compare` yields as numbers, which pandas.DataFrame takes."""
    places: dict[Place, Sweep] = dict(sweeps)
    tasks, _, optimizers = zip(*places, strict=True)
    return as_numbers(columns_of(tasks, optimizers), places)


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_axes.png")
    add_tasks(parser, TASKS_SHOWN, may_turn=False)
    add_optimizers(parser, OPTIMIZERS, "four, with PyTorch's own defaults")
    add_lr_range(parser, *LR_RANGE, LR_COUNT)
    add_judges(parser, JUDGES, SEEDS, has_equal=False)
    add_jobs(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    with parser.refusing():
        plain = load_tasks(options)
        options.rotate = True
        turned = load_tasks(options)
        low, high = options.lr_range
        lrs = learning_rates(low, high, options.lr_count)
        optimizers = parse_optimizers(options.optimizers, sweeping=True)
        for task, training in plain.values():
            first = replace(training, lr=lrs[0])
            check_optimizers(optimizers, partial(take_a_step, task, first))

    tasks = {name: (plain[name][0], turned[name][0]) for name in plain if name in turned}
    words = f"--tasks {' '.join(options.tasks)}"
    report = Report(options.output, options.csv, columns_of(tasks, optimizers), task=words)
    sweeps = {}
    seeds, judges = seeds_of(options), judges_of(options)
    with open_crew(options.jobs, options.dask, options.keep) as crew:
        found = compare(optimizers, tasks, lrs, seeds, judges, report.progress, crew)
        for place, sweep in report.collect(found):
            sweeps[place] = sweep
            report.row(place, sweep)
    report.explain(optimizers)
    report.conclude(partial(conclusions, sweeps))

    numbers = ((*place, *row) for place, sweep in sweeps.items() for row in sweep.rows())
    caption = (
        f"each at its own best rate, chosen by {len(seeds)} seeds; medians of {len(judges)} others"
    )
    return report.save(partial(draw, sweeps, caption), CSV_HEADER, numbers)


if __name__ == "__main__":
    run_main(main)
