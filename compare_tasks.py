"""Which optimizer on which kind of problem? Train each on every task, at its own best rate.

Rates are chosen and optimizers compared by the loss on data held out, over several seeds, each
judged at the rate that the other half of the seeds chose. Where the best rate lies at an end of
the grid, the grid grows.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from lab.command_line.options import (
    add_jobs,
    add_lr_range,
    add_optimizers,
    add_seeds,
    add_tasks,
    seeds_of,
)
from lab.command_line.parser import Parser
from lab.command_line.specs import parse_optimizers
from lab.command_line.tasks import load_tasks
from lab.outcome import Outcome, ProgressOf, show_none
from lab.output.main import run_main
from lab.output.report import Report
from lab.output.table import NUMBER, QUARTILES, Column, as_numbers, name_width
from lab.pictures import curves, style
from lab.pictures.looks import looks_of
from lab.training.adapt import MakeOptimizer
from lab.training.checks import check_optimizers, take_a_step
from lab.training.crew import Crew, Job, open_crew
from lab.training.jobs import TaskResult, try_rates
from lab.training.runs import trainings_of
from lab.training.statistics import (
    describe_test,
    quartiles,
    seeds_needed,
    told_apart,
)
from lab.training.sweeps import SweepSummary, learning_rates

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

from settings import SEED
from tasks import TASKS, Task

OPTIMIZERS = {
    "SGD": "SGD()",
    "Momentum 0.9": "SGD(momentum=0.9)",
    "Adagrad": "Adagrad()",
    "RMSprop()": "RMSprop()",  # with PyTorch's own defaults; in settings.py, with the tutorial's
    "Adam()": "Adam()",
    "AdamW": "AdamW()",
    "NAdam": "NAdam()",
}
LR_RANGE = 1e-4, 3.16228
LR_COUNT = 10
SEEDS = 10

EXAMPLES = """\
  python compare_tasks.py --csv tasks.csv
  python compare_tasks.py --tasks spirals prose problem.mine
  python compare_tasks.py --optimizers Adam Lion=homework.Lion
  python compare_tasks.py --dask tcp://HOST:8786"""

CSV_HEADER = ("task", "optimizer", "lr", "seed", "final_loss", "held_out_loss")


class Place(NamedTuple):
    """Where a result stands in the table."""

    task: str
    optimizer: str

    def __str__(self) -> str:
        return f"{self.optimizer} on {self.task}"


def compare(
    optimizers: Mapping[str, MakeOptimizer] | None = None,
    tasks: Mapping[str, Task] = TASKS,
    lrs: Iterable[float] | None = None,
    seeds: Iterable[int] = range(SEED, SEED + SEEDS),
    progress: ProgressOf = show_none,
    crew: Crew | None = None,
) -> Iterator[tuple[Place, TaskResult]]:
    """Train every optimizer on every task; yield (Place, TaskResult) of each as it is done.

    `optimizers` maps a label to whatever makes the optimizer from param groups, `tasks` a name to a
    Task: this script's seven, and all of tasks.py, by default. A `crew` may train by other
    processes, and keep what is trained.

        results = dict(compare({"Adam": torch.optim.Adam}, {"mine": my_task}))
        results["mine", "Adam"].sweep.best_lr
    """
    optimizers = optimizers or parse_optimizers(OPTIMIZERS)
    lrs, seeds = tuple(lrs or learning_rates(*LR_RANGE, LR_COUNT)), tuple(seeds)
    trainings = {name: trainings_of(task, seeds, lrs) for name, task in tasks.items()}
    jobs = {
        Place(name, label): Job(task, trainings[name], make_optimizer)
        for name, task in tasks.items()
        for label, make_optimizer in optimizers.items()
    }
    yield from (crew or Crew()).each(try_rates, jobs, progress)


# ---------------------------------------------------------------- what the numbers say


class Table:
    """The results as tables: a row a task, a column an optimizer.

    `medians` and `ratios` (tasks, optimizers) are of the held-out loss at each one's best rate; the
    ratios to the row's best. Infinite where most seeds diverged, nan where there is no result, and
    so are the ratios of a row whose best is not above 0.
    """

    def __init__(self, results: Mapping[Place, Outcome]):
        self.tasks = list(dict.fromkeys(place.task for place in results))
        self.optimizers = list(dict.fromkeys(place.optimizer for place in results))
        self.results = {
            place: result for place, result in trained(results).items() if not result.error
        }
        self.losses = {
            place: result.sweep.cross_validated_losses() for place, result in self.results.items()
        }
        self.medians = self.of(lambda place: quartiles(self.losses[place])[1].item())
        best = pad(self.medians.nan_to_num(math.inf, math.inf), (0, 1), value=math.inf)
        best = best.min(1, keepdim=True).values
        best = best.masked_fill(best <= 0, math.nan)
        self.ratios = (self.medians / best).masked_fill(best.isinf() & ~self.medians.isnan(), 1)

    def of(self, value: Callable[[Place], float]) -> Tensor:
        """Return a value of each place (tasks, optimizers); nan where there is no result."""
        rows = [
            [value(place) if place in self.results else math.nan for place in self.row(task)]
            for task in self.tasks
        ]
        values = torch.tensor(rows, dtype=torch.float64)
        return values.reshape(len(self.tasks), len(self.optimizers))

    def row(self, task: str) -> list[Place]:
        return [Place(task, label) for label in self.optimizers]

    def best_of(self, task: str) -> list[str]:
        """Return the best optimizer on a task, and those that cannot be told apart from it."""
        losses = {
            place.optimizer: self.losses[place] for place in self.row(task) if place in self.losses
        }
        medians = {label: quartiles(values)[1].item() for label, values in losses.items()}
        best = min(medians, key=lambda label: medians[label], default=None)
        apart = told_apart(losses)
        differ = {
            label for pair, differs in apart.items() if differs and best in pair for label in pair
        }
        return [label for label in losses if label == best or label not in differ]

    def complete(self) -> "Table":
        """Return the table of those tasks on which all optimizers have a result."""
        tasks = [
            task for task in self.tasks if all(place in self.results for place in self.row(task))
        ]
        return Table({place: r for place, r in self.results.items() if place.task in tasks})


def trained(results: Mapping[Place, Outcome]) -> dict[Place, TaskResult]:
    """Return the results that are some: those whose workers were not lost."""
    return {place: r for place, r in results.items() if isinstance(r, TaskResult)}


def conclusions(results: Mapping[Place, Outcome]) -> list[str]:
    """Return what the numbers allow one to say, a sentence each."""
    lost = [str(place) for place, result in trained(results).items() if result.sweep.diverged]
    sentences = [f"At every rate diverged: {', '.join(lost)}."] if lost else []
    table = Table(results).complete()
    if len(table.optimizers) < 2 or not table.tasks:
        return sentences
    sentences.append(best_in_words(table))
    ratios = table.ratios[~table.ratios.isnan().any(1)]
    if len(ratios):
        sentences += [worst_case_in_words(table), rates_in_words(table)]
    return [*sentences, *defaults_in_words(table)]


def best_in_words(table: Table) -> str:
    """Return on how many tasks each optimizer is best, or not to be told apart from the best."""
    n_seeds = min(map(len, table.losses.values()))
    if n_seeds < (needed := seeds_needed(len(table.optimizers))):
        return f"{n_seeds} seeds are too few to tell any two apart; {needed} would do."
    best = [label for task in table.tasks for label in table.best_of(task)]
    counts = {label: best.count(label) for label in table.optimizers}
    ranked = sorted(counts, key=lambda label: -counts[label])
    return (
        f"Best, or not to be told apart from the best, of {len(table.tasks)} in all: "
        f"{', '.join(f'{label} on {counts[label]}' for label in ranked)} "
        f"(over {n_seeds} seeds; {describe_test(len(table.optimizers))}, for each task)."
    )


def worst_case_in_words(table: Table) -> str:
    """Return which optimizer loses least in its worst case, and what choosing would still gain."""
    worst, where = table.ratios.nan_to_num(1).max(0)
    k = int(worst.argmin())
    label, task = table.optimizers[k], table.tasks[int(where[k])]
    if worst[k] == 1:
        return f"{label} ends lowest on every task."
    gain = 1 - 1 / table.ratios[:, k].nanquantile(0.5).item()
    return (
        f"{label} loses least in its worst case: {factor_in_words(worst[k].item())} the best loss, "
        f"on {task}. To choose the best of all {len(table.optimizers)} for each task instead would "
        f"lower its loss by {gain:.0%}, as a median over tasks."
    )


def rates_in_words(table: Table) -> str:
    """Return how much the learning rate matters beside the optimizer."""
    spreads = table.of(lambda place: spread_over_rates(table.results[place].sweep))
    by_rate = middle(torch.stack([middle(row) for row in spreads])).item()
    by_optimizer = middle(table.ratios.nan_to_num(1).max(1).values).item()
    return (
        f"Within a factor of ten of its best rate, an optimizer's loss varies by "
        f"{factor_in_words(by_rate)}; among the optimizers, each at its best rate, by "
        f"{factor_in_words(by_optimizer)} (medians over tasks)."
    )


def spread_over_rates(sweep: SweepSummary) -> float:
    """Return the highest loss within a factor of ten of the best rate, against the lowest."""
    is_near = torch.tensor([0.099 < lr / sweep.best_lr < 10.1 for lr in sweep.lrs])
    near = sweep.median[is_near]
    return (near.max() / near.min()).item() if near.min() < math.inf else math.nan


def defaults_in_words(table: Table) -> list[str]:
    """Return what each optimizer's default rate would have cost."""
    costs = {}
    for label in table.optimizers:
        column = [table.results[Place(task, label)] for task in table.tasks]
        at_default = [
            quartiles(result.default_losses)[1]
            for result in column
            if result.default_losses is not None
        ]
        if len(at_default) == len(column):
            best = table.medians[:, table.optimizers.index(label)]
            ratios = (torch.stack(at_default) / best)[best > 0]  # of others a ratio says nothing
            if len(ratios):
                costs[f"{label} (lr={column[0].default_lr:g})"] = middle(ratios).item()
    if not costs:
        return []
    each = ", ".join(f"{label} {factor_in_words(cost)}" for label, cost in costs.items())
    return [f"The loss at the default rate, against that at the best, as a median: {each}."]


def middle(values: Tensor) -> Tensor:
    """Return the median of those values that are numbers or infinite."""
    return quartiles(values[~values.isnan()])[1]


def factor_in_words(factor: float) -> str:
    """Return a factor in words."""
    return f"{factor:.3g} times" if factor < math.inf else "more than any factor (it diverges)"


def profile(ratios: Tensor, factors: Tensor) -> Tensor:
    """Return the share of tasks on which a column's ratio is at most each factor.

    `ratios` (tasks, optimizers) to the best of each task and `factors` (n,) give (n, optimizers).
    Dolan and Moré, "Benchmarking optimization software with performance profiles", Mathematical
    Programming 91, 2002.
    """
    return (ratios <= factors.view(-1, 1, 1)).double().mean(1)


# ---------------------------------------------------------------- the figure

DARKEST = 100.0  # times the best loss of a task


def draw(results: Mapping[Place, Outcome] | Iterable[tuple[Place, Outcome]]) -> Figure:
    """Return the figure of what `compare` yields: a table as a picture, performance profiles."""
    table = Table(dict(results))
    figure, (left, right) = style.new_figure(2)
    width, height = 8 + 1.1 * len(table.optimizers), max(4, 2 + 0.36 * len(table.tasks))
    draw_table(left, table)
    draw_profiles(right, table.complete())
    height += draw_schedules(right, table)
    figure.set_size_inches(width, height)
    if right.lines:
        style.legend(figure, right.lines)
    return figure


def draw_table(axes: Axes, table: Table) -> None:
    """Draw each median loss on a ground that is darker the more times the row's best it is.

    Those that cannot be told apart from the best of their row have a dot.
    """
    shades = table.ratios.nan_to_num(1, DARKEST).clamp(1, DARKEST).log10()
    highest = math.log10(DARKEST)
    image = axes.imshow(shades.numpy(), cmap="Blues", vmin=0, vmax=1.2 * highest, aspect="auto")
    for i, task in enumerate(table.tasks):
        best = table.best_of(task)
        for k, label in enumerate(table.optimizers):
            loss = table.medians[i, k].item()
            text = "" if math.isnan(loss) else "diverged" if math.isinf(loss) else f"{loss:.3g}"
            dot = "● " if label in best else ""
            color = "white" if shades[i, k] > 0.6 * highest else "black"
            axes.text(k, i, dot + text, ha="center", va="center", fontsize=9, color=color)
    axes.set_xticks(range(len(table.optimizers)), table.optimizers)
    axes.set_yticks(range(len(table.tasks)), table.tasks)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.grid(visible=False)
    axes.set_frame_on(False)
    axes.set(
        xlabel="Held-out loss at the best rate. Darker: more times the row's best.\n"
        "●: not to be told apart from the best"
    )
    key = axes.figure.colorbar(image, ax=axes, pad=0.01)
    key.set_ticks([0, 1, 2], labels=["1×", "10×", "100×"])
    key.ax.set_ylim(0, highest)
    key.ax.spines["outline"].set_visible(False)


def draw_profiles(axes: Axes, table: Table) -> None:
    """Draw the share of tasks on which an optimizer is within a factor of the best."""
    ratios = table.ratios[~table.ratios.isnan().any(1)]
    looks = looks_of(table.optimizers)
    if len(ratios):
        factors = torch.cat([torch.ones(1), ratios[ratios.isfinite()], torch.tensor([DARKEST])])
        factors = factors.clamp(max=DARKEST).unique()
        shares = profile(ratios, factors)
        for k, label in enumerate(table.optimizers):
            axes.step(
                factors,
                shares[:, k],
                where="post",
                label=label,
                **looks[label],
            )
    axes.set(xlim=(1, DARKEST), ylim=(0, 1.02))
    style.log_scale(axes.xaxis)
    axes.set(xlabel="Factor τ", ylabel="Share of tasks within τ times the best loss")


def draw_schedules(axes: Axes, table: Table) -> float:
    """Draw the learning rates on the first task below, where any optimizer has a schedule.

    Returns how much room that takes, in inches.
    """
    for task in table.tasks[:1]:
        lr_histories = {
            place.optimizer: table.results[place].lr_history
            for place in table.row(task)
            if place in table.results
        }
        if any(len(set(lrs)) > 1 for lrs in lr_histories.values()):
            looks = looks_of(table.optimizers)
            curves.draw_lrs(axes, lr_histories, looks, f"Steps on {task}, from the best rates")
            return 1.2
    return 0


# ---------------------------------------------------------------- the table and the command line


def cell_of(value: Callable[[TaskResult], object]) -> Callable[[Place, Outcome], object]:
    """Return what makes a cell: a value of a result; nothing where a worker was lost."""
    return lambda place, result: value(result) if isinstance(result, TaskResult) else None


def columns_of(tasks: Iterable[str], optimizers: Iterable[str]) -> list[Column[Place, Outcome]]:
    """Return the columns of the table."""
    return [
        Column("task", name_width(tasks), lambda place, result: place.task),
        Column("optimizer", name_width(optimizers), lambda place, result: place.optimizer),
        Column(
            "best lr",
            ">8",
            cell_of(lambda r: None if r.sweep.diverged else r.sweep.best_lr),
            ".3g",
        ),
        Column(
            "held-out loss",
            QUARTILES,
            cell_of(lambda r: r.sweep.cross_validated_losses()),
            infinite="diverged",
        ),
        Column(
            "at default lr",
            NUMBER,
            cell_of(
                lambda r: (
                    None if r.default_losses is None else quartiles(r.default_losses)[1].item()
                )
            ),
            infinite="diverged",
            goes=2,
        ),
        Column("seconds", ">7", cell_of(lambda r: r.seconds), ".1f", goes=1),
    ]


def rows(
    results: Mapping[Place, Outcome] | Iterable[tuple[Place, Outcome]],
) -> list[dict[str, Any]]:
    """Return the table of what `compare` yields as numbers, which pandas.DataFrame takes."""
    places: dict[Place, Outcome] = dict(results)
    return as_numbers(columns_of(*zip(*places, strict=True)), places)


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_tasks.png")
    add_tasks(parser)
    add_optimizers(parser, OPTIMIZERS, "seven, with PyTorch's own defaults")
    add_lr_range(parser, *LR_RANGE, LR_COUNT)
    add_seeds(parser, SEEDS)
    add_jobs(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    with parser.refusing():
        tasks = load_tasks(options)
        low, high = options.lr_range
        lrs = learning_rates(low, high, options.lr_count)
        optimizers = parse_optimizers(options.optimizers, sweeping=True)
        for task, training in tasks.values():
            first = replace(training, lr=lrs[0])
            check_optimizers(optimizers, partial(take_a_step, task, first))

    named = {name: task for name, (task, _) in tasks.items()}
    results = {}
    with open_crew(options.jobs, options.dask, options.keep) as crew:
        words = f"--tasks {' '.join(options.tasks)}"
        columns = columns_of(tasks, optimizers)
        report = Report(options.output, options.csv, columns, task=words)
        comparison = compare(optimizers, named, lrs, seeds_of(options), report.progress, crew)
        for place, result in report.collect(comparison):
            results[place] = result
            report.row(place, result)
    report.explain(optimizers)

    report.conclude(partial(conclusions, results))
    losses = (
        (*place, lr, seed, final, held_out)
        for place, result in trained(results).items()
        for lr, *both in zip(
            result.sweep.lrs, result.sweep.final_losses, result.sweep.held_out_losses, strict=True
        )
        for seed, final, held_out in zip(
            result.sweep.seeds, *(values.tolist() for values in both), strict=True
        )
    )
    return report.save(partial(draw, results), CSV_HEADER, losses)


if __name__ == "__main__":
    run_main(main)
