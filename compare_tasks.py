"""Which optimizer on which kind of problem? Train each on every task, at its own best rate.

Rates are chosen and optimizers compared by the loss on data held out, over several seeds, each
judged at the rate that the other half of the seeds chose. Where the best rate lies at an end of
the grid, the grid grows.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from functools import partial
from itertools import product
from typing import NamedTuple

from lab import plotting, workers
from lab.commands import Parser
from lab.report import Report, run_main, table
from lab.specs import parse_optimizers, try_optimizers
from lab.statistics import describe_test, format_quartiles, quartiles, seeds_needed, told_apart
from lab.sweeps import learning_rates
from lab.trainings import silent, take_a_step, trainings_of
from lab.workers import Result, Unit, results

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad
from torch.optim import Optimizer

from settings import SEED
from tasks import TASKS, Task

OPTIMIZERS = [
    "SGD=SGD()",
    "Momentum=SGD(momentum=0.9)",
    "Adagrad=Adagrad()",
    "RMSprop=RMSprop()",
    "Adam=Adam()",
    "AdamW=AdamW()",
    "NAdam=NAdam()",
]
LR_RANGE = 1e-4, 3.16228
LR_COUNT = 10
SEEDS = 10

EXAMPLES = """\
  python compare_tasks.py --csv tasks.csv
  python compare_tasks.py --tasks spirals prose problem.mine --optimizers Adam Lion=homework.Lion
  python compare_tasks.py --dask tcp://HOST:8786"""

CSV_HEADER = ("task", "optimizer", "lr", "seed", "final_loss", "held_out_loss")


class Cell(NamedTuple):
    """Where a result stands in the table."""

    task: str
    optimizer: str

    def __str__(self) -> str:
        return f"{self.optimizer} on {self.task}"


def compare(
    optimizers: dict[str, Callable[..., Optimizer]] | None = None,
    tasks: dict[str, Task | str] | None = None,
    lrs: Iterable[float] | None = None,
    seeds: Iterable[int] = range(SEED, SEED + SEEDS),
    executor: Executor | None = None,
    progress: Callable = silent,
    compiled: bool | None = None,
) -> Iterator[tuple[Cell, Result]]:
    """Train every optimizer on every task; yield (Cell, Result) of each as it is done.

    `optimizers` maps a label to whatever makes the optimizer from param groups, `tasks` a name to a
    Task, or to the name of one: this script's seven, and all of tasks.py, by default. With an
    `executor`, any of concurrent.futures, its workers do the work. `compiled` is that of
    compare_learning_rates.compare.
    """
    optimizers = optimizers or parse_optimizers(OPTIMIZERS)
    tasks = tasks or {name: name for name in TASKS}
    lrs, seeds = tuple(lrs or learning_rates(*LR_RANGE, LR_COUNT)), tuple(seeds)
    units = {
        Cell(name, label): Unit(
            tasks[name], optimizers[label], lrs, seeds, compiled, n_optimizers=len(optimizers)
        )
        for name, label in product(tasks, optimizers)
    }
    yield from results(units, executor, progress("all tasks"))


# ---------------------------------------------------------------- what the numbers say


class Table:
    """The results as tables: a row a task, a column an optimizer.

    `medians` and `ratios` (tasks, optimizers) are of the held-out loss at each one's best rate; the
    ratios to the row's best. Infinite where most seeds diverged, nan where there is no result, and
    so are the ratios of a row whose best is not above 0.
    """

    def __init__(self, cells: dict[Cell, Result]):
        complete = {
            cell: result for cell, result in cells.items() if result.sweep and not result.error
        }
        self.tasks = list(dict.fromkeys(cell.task for cell in cells))
        self.optimizers = list(dict.fromkeys(cell.optimizer for cell in cells))
        self.results = complete
        self.losses = {cell: result.sweep.judged() for cell, result in complete.items()}
        self.medians = self.of(lambda cell: quartiles(self.losses[cell])[1].item())
        best = pad(self.medians.nan_to_num(math.inf, math.inf), (0, 1), value=math.inf)
        best = best.min(1, keepdim=True).values
        best = best.masked_fill(best <= 0, math.nan)
        self.ratios = (self.medians / best).masked_fill(best.isinf() & ~self.medians.isnan(), 1)

    def of(self, value: Callable[[Cell], float]) -> Tensor:
        """Return a value of each result (tasks, optimizers); nan where there is none."""
        rows = [
            [value(cell) if cell in self.results else math.nan for cell in self.row(task)]
            for task in self.tasks
        ]
        values = torch.tensor(rows, dtype=torch.float64)
        return values.reshape(len(self.tasks), len(self.optimizers))

    def row(self, task: str) -> list[Cell]:
        return [Cell(task, label) for label in self.optimizers]

    def best_of(self, task: str) -> list[str]:
        """Return the best optimizer on a task, and those that cannot be told apart from it."""
        losses = {
            cell.optimizer: self.losses[cell] for cell in self.row(task) if cell in self.losses
        }
        medians = {label: quartiles(values)[1].item() for label, values in losses.items()}
        best = min(medians, key=medians.get, default=None)
        apart = told_apart(losses)
        differ = {
            label for pair, differs in apart.items() if differs and best in pair for label in pair
        }
        return [label for label in losses if label == best or label not in differ]

    def complete(self) -> "Table":
        """Return the table of those tasks on which all optimizers have a result."""
        tasks = [
            task for task in self.tasks if all(cell in self.results for cell in self.row(task))
        ]
        return Table({cell: r for cell, r in self.results.items() if cell.task in tasks})


def conclusions(cells: dict[Cell, Result]) -> list[str]:
    """Return what the numbers allow one to say, a sentence each."""
    lost = [str(cell) for cell, result in cells.items() if result.sweep and result.sweep.diverged]
    sentences = [f"At every rate diverged: {', '.join(lost)}."] if lost else []
    table = Table(cells).complete()
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
        f"{label} loses least in its worst case: {in_times(worst[k].item())} the best loss, on "
        f"{task}. To choose the best of all {len(table.optimizers)} for each task instead would "
        f"lower its loss by {gain:.0%}, as a median over tasks."
    )


def rates_in_words(table: Table) -> str:
    """Return how much the learning rate matters beside the optimizer."""
    by_rate = table.of(lambda cell: spread_over_rates(table.results[cell]))
    by_rate = middle(torch.stack([middle(row) for row in by_rate])).item()
    by_optimizer = middle(table.ratios.nan_to_num(1).max(1).values).item()
    return (
        f"Within a factor of ten of its best rate, an optimizer's loss varies by "
        f"{in_times(by_rate)}; among the optimizers, each at its best rate, by "
        f"{in_times(by_optimizer)} (medians over tasks)."
    )


def spread_over_rates(result: Result) -> float:
    """Return the highest loss within a factor of ten of the best rate, against the lowest."""
    best = result.sweep.lrs[result.sweep.best]
    near = torch.tensor([0.099 < lr / best < 10.1 for lr in result.sweep.lrs])
    near = result.sweep.median[near]
    return (near.max() / near.min()).item() if near.min() < math.inf else math.nan


def defaults_in_words(table: Table) -> list[str]:
    """Return what each optimizer's default rate would have cost."""
    costs = {}
    for label in table.optimizers:
        column = [table.results[Cell(task, label)] for task in table.tasks]
        if all(result.default_losses is not None for result in column):
            at_default = [quartiles(result.default_losses)[1] for result in column]
            k = table.optimizers.index(label)
            ratios = torch.stack(at_default) / table.medians[:, k]
            costs[f"{label} (lr={column[0].default_lr:g})"] = middle(ratios).item()
    if not costs:
        return []
    each = ", ".join(f"{label} {in_times(cost)}" for label, cost in costs.items())
    return [f"The loss at the default rate, against that at the best, as a median: {each}."]


def middle(values: Tensor) -> Tensor:
    """Return the median of those values that are numbers or infinite."""
    return quartiles(values[~values.isnan()])[1]


def in_times(factor: float) -> str:
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


def draw(cells: dict[Cell, Result] | Iterable[tuple[Cell, Result]]) -> Figure:
    """Return the figure of what `compare` yields: a table as a picture, performance profiles."""
    table = Table(dict(cells))
    figure, (left, right) = plotting.new_figure(2)
    width, height = 8 + 1.1 * len(table.optimizers), max(4, 2 + 0.36 * len(table.tasks))
    draw_table(left, table)
    draw_profiles(right, table.complete())
    height += draw_schedules(right, table)
    figure.set_size_inches(width, height)
    if right.lines:
        plotting.legend(figure, right.lines)
    return figure


def draw_table(axes: Axes, table: Table) -> None:
    """Draw each median loss on a ground that is darker the more times the row's best it is.

    Those that cannot be told apart from the best of their row have a dot.
    """
    shades = table.ratios.nan_to_num(1, DARKEST).clamp(1, DARKEST).log10()
    highest = math.log10(DARKEST)
    style = {"cmap": "Blues", "vmin": 0, "vmax": 1.2 * highest, "aspect": "auto"}
    image = axes.imshow(shades.numpy(), **style)
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
    axes.spines[:].set_visible(False)
    axes.set(
        xlabel="Held-out loss at the best rate. Darker: more times the row's best.\n"
        "●: not to be told apart from the best"
    )
    key = axes.figure.colorbar(image, ax=axes, pad=0.01)
    key.set_ticks([0, 1, 2], labels=["1×", "10×", "100×"])
    key.ax.set_ylim(0, highest)
    key.outline.set_visible(False)


def draw_profiles(axes: Axes, table: Table) -> None:
    """Draw the share of tasks on which an optimizer is within a factor of the best."""
    ratios = table.ratios[~table.ratios.isnan().any(1)]
    colors = plotting.colors(table.optimizers)
    styles = ["-", "--", "-.", ":"]
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
                color=colors[label],
                linestyle=styles[k % len(styles)],
                linewidth=plotting.widths(len(table.optimizers))[k] + 1,
            )
    axes.set(xlim=(1, DARKEST), ylim=(0, 1.02))
    plotting.log_scale(axes.xaxis, subs=(1, 2, 5))
    axes.set(xlabel="Factor τ", ylabel="Share of tasks within τ times the best loss")


def draw_schedules(axes: Axes, table: Table) -> float:
    """Draw the learning rates on the first task below, where any optimizer has a schedule.

    Returns how much room that takes, in inches.
    """
    for task in table.tasks[:1]:
        rates = {
            cell.optimizer: table.results[cell].rates
            for cell in table.row(task)
            if cell in table.results
        }
        if any(len(set(values)) > 1 for values in rates.values()):
            colors = plotting.colors(table.optimizers)
            plotting.draw_rates(axes, rates, colors, f"Steps on {task}, from the best rates")
            return 1.2
    return 0


# ---------------------------------------------------------------- the table and the command line


def table_row(result: Result) -> tuple[str, ...]:
    """Return the cells of a row: best rate, held-out loss there, at the default rate, the end."""
    sweep = result.sweep
    if sweep is None:
        return ("-", "-", "-", "-", result.note)
    default = "-"
    if result.default_losses is not None:
        default = format_quartiles(quartiles(result.default_losses)[1:2], ".5g")
    return (
        "-" if sweep.diverged else f"{sweep.lrs[sweep.best]:.3g}",
        format_quartiles(sweep.judged(), ".4g"),
        default,
        f"{result.seconds:.1f}",
        result.note,
    )


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_tasks.png")
    parser.add_tasks()
    parser.add_optimizers(OPTIMIZERS, "SGD, Momentum 0.9, Adagrad, RMSprop, Adam, AdamW and NAdam")
    parser.add_lr_range(*LR_RANGE, LR_COUNT)
    parser.add_seeds(SEEDS)
    parser.add_jobs()
    parser.add_compile()
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    seeds = range(options.seed, options.seed + options.seeds)
    with parser.refusing():
        lrs = learning_rates(*options.lr_range, options.lr_count)
        optimizers = parse_optimizers(options.optimizers, sweeping=True)
        for task in options.tasks.values():
            (training,) = trainings_of(task, [options.seed], lrs[:1])
            try_optimizers(optimizers, partial(take_a_step, task, training))

    columns = {
        "task": f"<{max(map(len, ['task', *options.tasks]))}",
        **table(optimizers),
        "best lr": ">8",
        "held-out loss": ">30",
        "at default lr": ">13",
        "seconds": ">7",
    }
    names = {name: name for name in options.tasks}
    with workers.open_executor(options.jobs, options.dask) as executor:
        report = Report(options, columns)
        collected = report.collect(
            compare(optimizers, names, lrs, seeds, executor, report.progress, options.compile),
            lambda cell, result: (*cell, optimizers[cell.optimizer].call, *table_row(result)),
        )
    order = [Cell(*words) for words in product(options.tasks, optimizers)]
    cells = {cell: collected[cell] for cell in order if cell in collected}
    for sentence in conclusions(cells):
        report.say(sentence)
    rows = (
        (*cell, lr, seed, final, held_out)
        for cell, result in cells.items()
        if result.sweep
        for lr, *row in zip(
            result.sweep.lrs, result.sweep.final_losses, result.sweep.held_out_losses, strict=True
        )
        for seed, final, held_out in zip(
            result.sweep.seeds, *(losses.tolist() for losses in row), strict=True
        )
    )
    return report.save(draw(cells), CSV_HEADER, rows)


if __name__ == "__main__":
    run_main(main)
