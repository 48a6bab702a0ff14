"""Which optimizer on which kind of problem? Train each on every task, at its own best rate.

A few seeds choose each one's rate, by the loss on data held out; many others judge it there. Of
each two it is said whether one is worse, and by how much, whether they are equal, or that it is not
known. Where the best rate lies at an end of the grid, the grid grows.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

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
from lab.command_line.specs import Spec, parse_optimizers
from lab.command_line.tasks import load_tasks, those_that_pass
from lab.outcome import Outcome, ProgressOf, show_none
from lab.output.in_words import amount, within
from lab.output.main import run_main
from lab.output.report import Report
from lab.output.table import NUMBER, QUARTILES, Column, as_numbers, in_digits, name_width
from lab.pictures import curves, style
from lab.pictures.looks import looks_of
from lab.training.adapt import MakeOptimizer
from lab.training.checks import check_optimizers, take_a_step
from lab.training.crew import Crew, Job, open_crew
from lab.training.jobs import Place, TaskResult, try_rates
from lab.training.runs import Training
from lab.training.statistics import quartiles
from lab.training.sweeps import SweepSummary, grid_and_judges, learning_rates
from lab.training.verdicts import EQUAL, Verdict, beside_best, describe_test, seeds_needed

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

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
SEEDS, JUDGES = 10, 40

EXAMPLES = """\
  python compare_tasks.py --csv tasks.csv
  python compare_tasks.py --tasks spirals prose problem.mine
  python compare_tasks.py --optimizers Adam Lion=homework.Lion
  python compare_tasks.py --dask tcp://HOST:8786"""

CSV_HEADER = ("task", "optimizer", "lr", "seed", "stage", "final_loss", "held_out_loss")


def compare(
    optimizers: Mapping[str, MakeOptimizer] | None = None,
    tasks: Mapping[str, Task] = TASKS,
    lrs: Iterable[float] | None = None,
    seeds: Iterable[int] = range(SEED, SEED + SEEDS),
    judges: Iterable[int] = range(SEED + SEEDS, SEED + SEEDS + JUDGES),
    progress: ProgressOf = show_none,
    crew: Crew | None = None,
) -> Iterator[tuple[Place, TaskResult]]:
    """Train every optimizer on every task; yield (Place, TaskResult) of each as it is done.

    `optimizers` maps a label to whatever makes the optimizer from param groups, `tasks` a name to a
    Task: this script's seven, and all of tasks.py, by default. The `seeds` choose a rate, and the
    `judges`, other seeds, are trained at that. A `crew` may train by other processes, and keep what
    is trained.

        results = dict(compare({"Adam": torch.optim.Adam}, {"mine": my_task}))
        results["mine", "Adam"].sweep.best_lr
    """
    optimizers = optimizers or parse_optimizers(OPTIMIZERS)
    lrs = tuple(lrs or learning_rates(*LR_RANGE, LR_COUNT))
    seeds, judges = tuple(seeds), tuple(judges)
    trainings = {name: grid_and_judges(task, seeds, lrs, judges) for name, task in tasks.items()}
    jobs = {
        Place(name, label): Job(task, trainings[name], make_optimizer)
        for name, task in tasks.items()
        for label, make_optimizer in optimizers.items()
    }
    yield from (crew or Crew()).each(try_rates, jobs, progress)


# ---------------------------------------------------------------- what the numbers say


class Table:
    """The results as tables: a row a task, a column an optimizer.

    `losses` are those of the judges, held out, and `medians` (tasks, optimizers) their medians.
    `ratios` (tasks, optimizers) says how many times the lowest loss of its row one typically has.
    They are infinite where most seeds diverged, nan where there is no result, and of tasks with
    losses that are not above 0 there are no ratios.
    """

    def __init__(self, results: Mapping[Place, Outcome], equal: float = EQUAL):
        self.equal = equal
        self.tasks = list(dict.fromkeys(place.task for place in results))
        self.optimizers = list(dict.fromkeys(place.optimizer for place in results))
        self.results: dict[Place, TaskResult] = {}
        self.losses: dict[Place, Tensor] = {}
        for place, result in trained(results).items():
            if not result.error and result.sweep.judged:
                self.results[place] = result
                self.losses[place] = result.sweep.judged.held_out_losses
        self.medians = self.of(lambda place: quartiles(self.losses[place])[1].item())
        self.found = {task: beside_best(self.row_losses(task), equal) for task in self.tasks}
        self.ratios = self.of(self.ratio)

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

    def row_losses(self, task: str) -> dict[str, Tensor]:
        """Return the judges' losses of each optimizer that has some."""
        return {
            place.optimizer: self.losses[place] for place in self.row(task) if place in self.losses
        }

    def verdict(self, place: Place) -> Verdict:
        """Return what is known of an optimizer beside the best of its task, whichever that is."""
        return self.found[place.task][place.optimizer]

    def ratio(self, place: Place) -> float:
        verdict = self.verdict(place)
        return verdict.typical if verdict.is_factor else math.nan

    def complete(self) -> "Table":
        """Return the table of those tasks on which all optimizers have a result."""
        tasks = [
            task for task in self.tasks if all(place in self.results for place in self.row(task))
        ]
        results = {place: r for place, r in self.results.items() if place.task in tasks}
        return Table(results, self.equal)


def trained(results: Mapping[Place, Outcome]) -> dict[Place, TaskResult]:
    """Return the results that are some: those whose workers were not lost."""
    return {place: r for place, r in results.items() if isinstance(r, TaskResult)}


def conclusions(results: Mapping[Place, Outcome], equal: float = EQUAL) -> list[str]:
    """Return what the numbers allow one to say, a sentence each."""
    lost = [
        str(place)
        for place, result in trained(results).items()
        if result.sweep.diverged and not result.error  # which may have cut the grid short
    ]
    sentences = [f"At every rate diverged: {', '.join(lost)}."] if lost else []
    table = Table(results, equal).complete()
    if len(table.optimizers) < 2 or not table.tasks:
        return sentences
    sentences += verdicts_in_words(table)
    if not table.ratios.isnan().all():
        sentences += [costs_in_words(table), rates_in_words(table)]
    return [*sentences, *defaults_in_words(table)]


def verdicts_in_words(table: Table) -> list[str]:
    """Return on how many tasks each optimizer is best or equal to it, worse, or not known."""
    n_seeds = min(map(len, table.losses.values()))
    n_pairs = len(table.optimizers) - 1  # with the best
    if n_seeds < (needed := seeds_needed(n_pairs)):
        return [f"Nothing is known: {n_seeds} judges are too few for a test; {needed} would do."]
    sentences = [
        f"Beside the best of each of {len(table.tasks)} tasks, judged by {n_seeds} seeds that "
        f"chose no rate ({describe_test(n_pairs)}, for each task):"
    ]
    for label in table.optimizers:
        places = [Place(task, label) for task in table.tasks]
        found = {place: table.verdict(place) for place in places}
        words = [verdict.word for verdict in found.values()]
        good, worse = words.count("equal"), words.count("worse")
        sentence = f"{label} is best or {within(table.equal)} on {good}, worse on {worse}"
        by = {k: each for k, each in found.items() if each.word == "worse" and each.is_factor}
        if by:
            most = max(by, key=lambda place: by[place].typical)
            sentence += f" (at most {amount(by[most])}, on {most.task})"
        sentences.append(f"{sentence}, not known on {words.count('not known')}.")
    return [*sentences, *unknown_in_words(table)]


def unknown_in_words(table: Table) -> list[str]:
    """Return which cells are not known, and about how many seeds would settle them."""
    needed = {
        place: verdict.seeds or math.inf
        for place in table.results
        if (verdict := table.verdict(place)).word == "not known"
    }
    if not needed:
        return []
    each = ", ".join(
        f"{place} ({n:.0f})" if n < math.inf else str(place)
        for place, n in sorted(needed.items(), key=lambda item: item[1])
    )
    return [
        f"Not known: {len(needed)} of {len(table.results)}. So many judges, about, would settle "
        f"them, by the spread seen: {each}."
    ]


def costs_in_words(table: Table) -> str:
    """Return what it costs to take one optimizer for all tasks, and how sure that is."""
    ratios = table.ratios[~table.ratios.isnan().any(1)]
    means, lows, highs = costs(ratios).tolist()
    ranked = sorted(range(len(means)), key=lambda k: means[k])
    each = ", ".join(
        f"{table.optimizers[k]} {factor_in_words(means[k])} [{lows[k]:.3g}, {highs[k]:.3g}]"
        for k in ranked
    )
    return (
        f"Always to take one costs, against the lowest loss of each task, as a geometric mean over "
        f"{len(ratios)} tasks [95 %, by a bootstrap over the tasks]: {each}."
    )


def costs(ratios: Tensor, n_samples: int = 10_000) -> Tensor:
    """Return the geometric means of (tasks, optimizers), and the ends of 95 % intervals (3, ...).

    They tell how much it matters which tasks there are: each sample draws as many of them again,
    with replacement. Efron, "Bootstrap methods: another look at the jackknife", Annals of
    Statistics 7, 1979.
    """
    logs = ratios.log().clamp(max=1e6)  # a mean with infinity in it stays beyond any float
    drawn = torch.randint(
        len(logs), (n_samples, len(logs)), generator=torch.Generator().manual_seed(SEED)
    )
    ends = logs[drawn].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=logs.dtype), dim=0)
    return torch.cat([logs.mean(0, keepdim=True), ends]).exp()


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
MARKS = {"equal": "=", "worse": "", "not known": "?"}


def draw(
    results: Mapping[Place, Outcome] | Iterable[tuple[Place, Outcome]], equal: float = EQUAL
) -> Figure:
    """Return the figure of what `compare` yields: a table as a picture, performance profiles."""
    table = Table(dict(results), equal)
    figure, (upper, lower) = style.new_figure(2, n_rows=2)
    width, height = 3 + 1.15 * len(table.optimizers), 1.6 + 0.5 * len(table.tasks)
    draw_table(upper, table)
    draw_profiles(lower, table.complete())
    below = 3.2 + draw_schedules(lower, table)
    grid = upper.get_gridspec()
    assert grid
    grid.set_height_ratios((height, below))
    figure.set_size_inches(max(7, width), height + below)
    if lower.lines:
        style.legend(figure, lower.lines)
    return figure


def draw_table(axes: Axes, table: Table) -> None:
    """Draw each median loss, how many times the best's it is, and what is known of that.

    The ground is darker the more times that is.
    """
    shades = table.ratios.nan_to_num(1, DARKEST).clamp(1, DARKEST).log10()
    highest = math.log10(DARKEST)
    image = axes.imshow(shades.numpy(), cmap="Blues", vmin=0, vmax=1.2 * highest, aspect="auto")
    for i, task in enumerate(table.tasks):
        for k, place in enumerate(table.row(task)):
            if place in table.results:
                is_dark = shades[i, k] > 0.6 * highest
                draw_cell(axes, k, i, table, place, "white" if is_dark else "black")
    axes.set_xticks(range(len(table.optimizers)), table.optimizers)
    axes.set_yticks(range(len(table.tasks)), table.tasks)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.grid(visible=False)
    axes.set_frame_on(False)
    axes.set(
        xlabel="Held-out loss at the best rate, and how many times the row's lowest it is\n"
        f"= best, or {within(table.equal)}   ? not known   no mark: worse"
    )
    key = axes.figure.colorbar(image, ax=axes, pad=0.01)
    key.set_ticks([0, 1, 2], labels=["1×", "10×", "100×"])
    key.ax.set_ylim(0, highest)
    key.ax.spines["outline"].set_visible(False)


def draw_cell(axes: Axes, x: int, y: int, table: Table, place: Place, color: str) -> None:
    """Write a cell: its mark, the loss, and below it the ratio."""
    loss, ratio = quartiles(table.losses[place])[1].item(), table.ratio(place)
    text = "diverged" if math.isinf(loss) else in_digits(loss, 3)
    if math.isfinite(ratio):
        text += f"\n{ratio:.0f}×" if ratio >= 100 else f"\n{in_digits(ratio, 3)}×"
    axes.text(x + 0.08, y, text, ha="center", va="center", fontsize=9, color=color)
    mark = MARKS[table.verdict(place).word]
    axes.text(x - 0.36, y, mark, ha="center", va="center", fontsize=15, weight="bold", color=color)


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
    axes.set(xlabel="Factor τ: times the best loss", ylabel="Share of tasks within τ")


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
            cell_of(lambda r: r.sweep.judged_losses),
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


def check(optimizers: Mapping[str, Spec], lr: float, task: Task, training: Training) -> None:
    """Have each take a step on a task."""
    check_optimizers(optimizers, partial(take_a_step, task, replace(training, lr=lr)))


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_tasks.png")
    add_tasks(parser)
    add_optimizers(parser, OPTIMIZERS, "seven, with PyTorch's own defaults")
    add_lr_range(parser, *LR_RANGE, LR_COUNT)
    add_judges(parser, JUDGES, SEEDS)
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
        tasks = those_that_pass(options, tasks, partial(check, optimizers, lrs[0]))

    named = {name: task for name, (task, _) in tasks.items()}
    results = {}
    with open_crew(options.jobs, options.dask, options.keep) as crew:
        words = f"--tasks {' '.join(options.tasks)}"
        columns = columns_of(tasks, optimizers)
        report = Report(options.output, options.csv, columns, task=words)
        seeds, judges = seeds_of(options), judges_of(options)
        comparison = compare(optimizers, named, lrs, seeds, judges, report.progress, crew)
        for place, result in report.collect(comparison):
            results[place] = result
            report.row(place, result)
    report.explain(optimizers)

    report.conclude(partial(conclusions, results, options.equal))
    losses = (
        (*place, *row) for place, result in trained(results).items() for row in result.sweep.rows()
    )
    return report.save(partial(draw, results, options.equal), CSV_HEADER, losses)


if __name__ == "__main__":
    run_main(main)
