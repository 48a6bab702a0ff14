"""What does tuning cost? Which optimizer, if you can afford k trainings, and what to try.

Every optimizer has a space of settings (spaces.py), and equally many trials drawn from it. The
curve is the held-out loss that one may expect of the best of k: over all orders in which the trials
could have come. One seed chooses among the k, as each would be trained once, and the others judge.
"""

import math
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from lab.command_line.options import add_jobs, add_tasks, seeds_of
from lab.command_line.parser import Parser
from lab.command_line.spaces import Space, parse_spaces
from lab.command_line.tasks import load_tasks, those_that_pass
from lab.command_line.types import positive_int
from lab.outcome import Outcome, ProgressOf, show_none
from lab.output.main import run_main
from lab.output.report import Report
from lab.output.table import NUMBER, Column, as_numbers, name_width
from lab.pictures import style
from lab.pictures.looks import looks_of
from lab.training.budgets import (
    BINS,
    best_end,
    best_of,
    left_out,
    list_to_try,
    main_effect,
    quantiles_of_best,
)
from lab.training.checks import check_optimizers
from lab.training.crew import Crew, Job, open_crew
from lab.training.jobs import Place
from lab.training.runs import Training, trainings_of
from lab.training.statistics import quartiles
from lab.training.trials import Trials, check_trials, limits_of, try_trials
from lab.training.verdicts import beside_best, seeds_needed

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from settings import SEED
from spaces import SPACES
from tasks import TASKS, Task

TRIALS, RATES, SEEDS = 64, 8, 5
LIST = 5  # settings in a list to try
NEAR = 1.1  # times the best known: near enough
UNTUNED = 0.8  # where on the axis of trials that stands

EXAMPLES = """\
  python compare_budgets.py --tasks parabola spirals --trials 32
  python compare_budgets.py --optimizers SGD "AdamW(lr=log(1e-4, 1))"
  python compare_budgets.py --optimizers "Adam(lr=log(0.01, 1)) + cosine"
  python compare_budgets.py --csv budgets.csv --keep trained"""

CSV_HEADER = ("task", "optimizer", "trial", "settings", "seed", "final_loss", "held_out_loss")


def compare(
    spaces: Mapping[str, Space] | None = None,
    tasks: Mapping[str, Task] = TASKS,
    trials: int = TRIALS,
    seeds: Iterable[int] = range(SEED, SEED + SEEDS),
    progress: ProgressOf = show_none,
    crew: Crew | None = None,
) -> Iterator[tuple[Place, Trials]]:
    """Try so many settings of every optimizer on every task; yield (Place, Trials) as it is done.

    Beside those drawn from a space there are `RATES` rates, all else as it is by default, and the
    defaults themselves. The first seed draws.

        results = dict(compare(parse_spaces(["Adam"]), {"mine": my_task}))
        best_of(results["mine", "Adam"].losses())
    """
    spaces = spaces or parse_spaces(SPACES)
    seeds = tuple(seeds)
    starts = {name: trainings_of(task, seeds) for name, task in tasks.items()}
    limits = {name: limits_of(task, starts[name]) for name, task in tasks.items()}
    jobs = {}
    for name, task in tasks.items():
        for label, space in spaces.items():
            some = space.draw(trials, seeds[0], task.epochs)
            some += space.untuned(RATES, seeds[0], task.epochs)
            trainings = [trial.training(start) for trial in some for start in starts[name]]
            jobs[Place(name, label)] = Job(task, trainings, some)
    for place, result in (crew or Crew()).each(try_trials, jobs, progress):
        yield place, replace(result, limits=limits[place.task])


# ---------------------------------------------------------------- what the numbers say


class Table:
    """The results: a curve for each task and optimizer, and what they say together.

    `best` is the best known of a task, the lowest mean loss of any trial here. Where all losses are
    above 0, one counts as so many times that; `tasks` are those with such factors for all
    optimizers.
    """

    def __init__(self, results: Mapping[Place, Outcome]):
        self.results = {
            place: result
            for place, result in results.items()
            if isinstance(result, Trials) and not result.error
        }
        self.optimizers = list(dict.fromkeys(place.optimizer for place in results))
        self.all_tasks = list(dict.fromkeys(place.task for place in self.results))
        losses = {
            task: [
                result.losses(kind)
                for place, result in self.results.items()
                if place.task == task
                for kind in ("", "rate", "default")
                if result.numbers(kind)
            ]
            for task in self.all_tasks
        }
        self.best = {
            task: min(each.mean(1).min().item() for each in losses[task]) for task in losses
        }
        self.above_0 = [task for task in losses if all(each.min() > 0 for each in losses[task])]
        self.tasks = [
            task
            for task in self.above_0
            if all(Place(task, label) in self.results for label in self.optimizers)
        ]
        self.n_trials = max((len(r.losses()) for r in self.results.values()), default=0)

    def curve(self, place: Place, kind: str = "") -> Tensor:
        """Return the expected loss of the best of k; of a space of one point, always the same."""
        curve = best_of(self.results[place].losses(kind))
        n = self.n_trials if not kind else len(curve)
        return torch.cat([curve, curve[-1:].expand(n - len(curve))])

    def band(self, place: Place) -> Tensor:
        """Return what a quarter and three quarters of all orders are below, at each k: (2, n)."""
        band = quantiles_of_best(self.results[place].losses(), (0.25, 0.75))
        return torch.cat([band, band[:, -1:].expand(2, self.n_trials - band.shape[1])], 1)

    def logs(self, label: str, kind: str = "") -> Tensor:
        """Return the logarithms of the factors (tasks, k) of an optimizer."""
        rows = [self.curve(Place(t, label), kind) / self.best[t] for t in self.tasks]
        return torch.stack(rows).log()

    def has(self, label: str, kind: str) -> bool:
        return all(self.results[Place(task, label)].numbers(kind) for task in self.tasks)

    @cached_property
    def factors(self) -> dict[str, Tensor]:
        """The geometric mean over tasks (k,) of each optimizer."""
        return {label: self.logs(label).mean(0).exp() for label in self.optimizers}

    def order(self, k: int) -> list[str]:
        """Return the optimizers, the best with k trials first."""
        return sorted(self.optimizers, key=lambda label: self.factors[label][k - 1].item())


def conclusions(results: Mapping[Place, Outcome], spaces: Mapping[str, Space]) -> list[str]:
    """Return what the numbers allow one to say, a sentence each."""
    table = Table(results)
    if not table.tasks:
        return []
    sentences = []
    if len(table.optimizers) > 1:
        sentences = [who(table, k) for k in sorted({1, min(5, table.n_trials), table.n_trials})]
        sentences.append(when_it_stays(table))
    return [
        *sentences,
        how_many(table),
        *what_defaults_cost(table),
        *what_mattered(table, spaces),
        *edges(table, spaces),
        *lists_in_words(table),
    ]


def many(n: int, things: str) -> str:
    return f"{n} {things}" + "s" * (n != 1)


def who(table: Table, k: int) -> str:
    """Return who is first with k trials, and what is known of the others beside the best."""
    values = {label: table.logs(label)[:, k - 1].exp() for label in table.optimizers}
    ranked = [f"{label} {table.factors[label][k - 1]:.3g}" for label in table.order(k)]
    sentence = (
        f"With {many(k, 'trial')}, times the best known, as a geometric mean over "
        f"{many(len(table.tasks), 'task')}: {', '.join(ranked)}."
    )
    if len(table.tasks) < seeds_needed(len(values) - 1):
        return sentence
    found = beside_best(values)
    words = {
        "worse than the best": [a for a in table.order(k) if found[a].word == "worse"],
        "best or equal to it": [a for a in table.order(k) if found[a].word == "equal"],
        "not known": [a for a in table.order(k) if found[a].word == "not known"],
    }
    told = "; ".join(f"{word}: {', '.join(names)}" for word, names in words.items() if names)
    return f"{sentence} By a signed-rank test over the tasks, {told}."


def when_it_stays(table: Table) -> str:
    """Return from how many trials on the first one, and the whole order, stay."""
    orders = [table.order(k) for k in range(1, table.n_trials + 1)]

    def since(is_same: Callable[[list[str]], bool]) -> int:
        return (
            len(orders)
            - next(
                (k for k, order in enumerate(reversed(orders)) if not is_same(order)), len(orders)
            )
            + 1
        )

    first = since(lambda order: order[0] == orders[-1][0])
    whole = since(lambda order: order == orders[-1])
    return (
        f"{orders[-1][0]} is first from {many(first, 'trial')} on, and the whole order stays from "
        f"{many(whole, 'trial')} on."
    )


def how_many(table: Table) -> str:
    """Return how many trials each takes to come near the best known."""
    told = []
    for label in table.optimizers:
        reached = table.logs(label) <= math.log(NEAR)
        on = reached.any(1)
        trials = (reached.int().argmax(1) + 1).double().masked_fill(~on, math.inf)
        middle = quartiles(trials)[1].item()
        half = f"{math.ceil(middle)}" if middle < math.inf else "never"
        told.append(f"{label} {half} ({int(on.sum())})")
    return (
        f"To come within {NEAR - 1:.0%} of the best known takes so many trials, as a median over "
        f"tasks (in brackets, on how many of {len(table.tasks)} it ever does): {', '.join(told)}."
    )


def what_defaults_cost(table: Table) -> list[str]:
    """Return what the defaults cost, and what it leaves to tune the rate alone."""
    sentences = []
    if some := [label for label in table.optimizers if table.has(label, "default")]:
        told = [
            f"{label} {table.logs(label, 'default').mean(0).exp().item():.3g}" for label in some
        ]
        sentences.append(
            f"Untuned, as the library has them, times the best known: {', '.join(told)}."
        )
    if some := [label for label in table.optimizers if table.has(label, "rate")]:
        told = []
        for label in some:
            rates = table.logs(label, "rate").mean(0).exp()
            k = min(len(rates), table.n_trials)
            alike, whole = table.factors[label][k - 1], table.factors[label][-1]
            told.append(f"{label} {rates[k - 1]:.3g} against {alike:.3g} and {whole:.3g}")
        sentences.append(
            f"The best of {k} rates, all else as it is by default, against the best of {k} and of "
            f"{table.n_trials} settings: {', '.join(told)}."
        )
    return sentences


def what_mattered(table: Table, spaces: Mapping[str, Space]) -> list[str]:
    """Return which share of the variance of the log-loss each hyperparameter explains alone."""
    told = []
    for label in table.optimizers:
        names = list(spaces[label].ranges)
        if len(names) < 2:
            continue
        shares = torch.tensor(
            [
                [main_effect(*seen) for seen in dimensions(table.results[Place(task, label)])]
                for task in table.tasks
            ]
        ).mean(0)
        ranked = sorted(zip(names, shares.tolist(), strict=True), key=lambda item: -item[1])
        told.append(f"{label}: " + ", ".join(f"{name} {share:.0%}" for name, share in ranked))
    if not told or table.n_trials < 2 * BINS:
        return []
    return [
        "Of the variance of the log-loss one hyperparameter alone explains (first-order Sobol "
        f"index by bins, mean over tasks): {'; '.join(told)}."
    ]


def dimensions(result: Trials) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the log-losses (trials,) of a space, and the places in each of its dimensions."""
    logs = result.losses().mean(1).log()
    places = torch.tensor(
        [result.trials[k].place for k in result.numbers()], dtype=torch.float64
    ).reshape(len(logs), -1)
    for column in places.T:
        yield logs, column


def edges(table: Table, spaces: Mapping[str, Space]) -> list[str]:
    """Return at which ends of the spaces the best settings lie on more than one task in ten."""
    told = []
    for label in table.optimizers:
        for number, (name, dimension) in enumerate(spaces[label].ranges.items()):
            for end, value in enumerate(dimension.ends()):
                seen = [[*dimensions(table.results[Place(t, label)])][number] for t in table.tasks]
                n = sum(best_end(*both) == end for both in seen)
                if n > len(table.tasks) / 10 and value is not None:
                    told.append(f"{label} {name}={value:.5g} ({n})")
    if table.n_trials < 2 * BINS:
        return []
    if not told:
        return ["No space ends where its best settings are."]
    return [
        "Should be wider, as the best settings lie at an end (in brackets, on how many of "
        f"{len(table.tasks)} tasks): {', '.join(told)}."
    ]


def lists_in_words(table: Table) -> list[str]:
    """Return the lists to try, and how good they are on a task that they were not made on."""
    n = min(LIST, table.n_trials // 2)
    if len(table.tasks) < 2 or not n:
        return []
    sentences = []
    for label in table.optimizers:
        results = [table.results[Place(task, label)] for task in table.tasks]
        if len(results[0].losses()) < n:
            continue
        best = torch.tensor([table.best[task] for task in table.tasks], dtype=torch.float64)
        losses = [result.losses() for result in results]
        ends = torch.tensor(left_out(losses, n), dtype=torch.float64)
        by_list = (ends / best).log().mean().exp()
        beside = f"{n} at random {table.factors[label][n - 1]:.3g}"
        if table.has(label, "rate"):
            rates = table.logs(label, "rate")
            k = min(n, rates.shape[1])
            beside += f", {many(k, 'rate')} {rates[:, k - 1].mean().exp():.3g}"
        chosen = list_to_try(torch.stack([each.mean(1).log() for each in losses]), n)
        calls = [results[0].trials[results[0].numbers()[k]].written for k in chosen]
        sentences.append(
            f"{label}: {by_list:.3g} ({beside}). Try, in this order: {'; '.join(calls)}."
        )
    head = (
        f"A list of {n}, times the best known on a task that was left out when it was made, "
        f"beside {n} trials of the space:"
    )
    return [head, *sentences] if sentences else []


# ---------------------------------------------------------------- the figure


def draw(results: Mapping[Place, Outcome] | Iterable[tuple[Place, Outcome]]) -> Figure:
    """Return the figure of what `compare` yields: over all tasks, and a panel for each."""
    table = Table(dict(results))
    n_panels = len(table.all_tasks) + (len(table.tasks) > 1)
    figure, panels = style.new_figure(max(1, n_panels))
    looks = looks_of(table.optimizers)
    if len(table.tasks) > 1:
        means, panels = panels[0], panels[1:]
        for label, factors in table.factors.items():
            draw_curve(means, factors, looks[label], label)
            if table.has(label, "default"):
                untuned = table.logs(label, "default").mean().exp().item()
                look = {"color": looks[label]["color"], "label": style.once("untuned")}
                means.plot(UNTUNED, untuned, "o", fillstyle="none", **look)
        finish(means, table.n_trials, f"All {len(table.tasks)}, geometric mean", is_factor=True)
    for task, axes in zip(table.all_tasks, panels, strict=False):
        is_factor = task in table.above_0
        best = table.best[task] if is_factor else 1
        for label in table.optimizers:
            if (place := Place(task, label)) in table.results:
                draw_curve(axes, table.curve(place) / best, looks[label], label)
                low, high = table.band(place) / best
                ks = range(1, len(low) + 1)
                band = {"color": looks[label]["color"], "alpha": 0.1, "linewidth": 0}
                axes.fill_between(ks, low, high, **band, label=style.once("half of all orders"))
        finish(axes, table.n_trials, task, is_factor)
    if lines := [
        line for line in figure.axes[0].lines if not str(line.get_label()).startswith("_")
    ]:
        style.legend(figure, lines)
    return figure


def draw_curve(axes: Axes, values: Tensor, look: dict[str, Any], label: str) -> None:
    axes.plot(range(1, len(values) + 1), values, label=label, **look)


def finish(axes: Axes, n_trials: int, title: str, is_factor: bool) -> None:
    """Name a panel and its axes."""
    style.log_scale(axes.yaxis)
    style.log_scale(axes.xaxis)
    ticks = [m * 10**e for e in range(len(str(n_trials))) for m in (1, 2, 5)]
    axes.set_xticks([k for k in ticks if k <= n_trials])
    axes.set(title=title, xlabel="Trials k", ylabel="Times the best known" if is_factor else "Loss")


# ---------------------------------------------------------------- the table and the command line


def columns_of(
    tasks: Iterable[str], optimizers: Iterable[str], trials: int
) -> list[Column[Place, Outcome]]:
    """Return the columns of the table: the loss that one may expect with so many trials."""

    def with_trials(k: int, kind: str = "") -> Callable[[Place, Outcome], object]:
        def cell(place: Place, result: Outcome) -> object:
            if not isinstance(result, Trials) or result.error or not result.numbers(kind):
                return None
            curve = best_of(result.losses(kind))
            return curve[min(k, len(curve)) - 1].item()

        return cell

    return [
        Column("task", name_width(tasks), lambda place, result: place.task),
        Column("optimizer", name_width(optimizers), lambda place, result: place.optimizer),
        Column("untuned", NUMBER, with_trials(1, "default")),
        *(
            Column(f"best of {k}", NUMBER, with_trials(k), goes=0 if k in (1, trials) else 2)
            for k in sorted({1, min(5, trials), min(20, trials), trials})
        ),
        Column(
            "seconds", ">7", lambda place, result: getattr(result, "seconds", None), ".1f", goes=1
        ),
    ]


def rows(
    results: Mapping[Place, Outcome] | Iterable[tuple[Place, Outcome]], trials: int = TRIALS
) -> list[dict[str, Any]]:
    """Return the table of what `compare` yields as numbers, which pandas.DataFrame takes."""
    places: dict[Place, Outcome] = dict(results)
    return as_numbers(columns_of((), (), trials), places)


def has_metrics(results: Mapping[Place, Outcome]) -> bool:
    """Tell whether any task has a metric beside its loss."""
    return any(getattr(result, "metric", "") for result in results.values())


def rows_of_csv(results: Mapping[Place, Outcome]) -> Iterator[tuple[object, ...]]:
    """Yield a row for each training."""
    for place, result in results.items():
        if not isinstance(result, Trials) or result.error:
            continue
        for k, trial in enumerate(result.trials):
            for s, seed in enumerate(result.seeds):
                ends = result.final_losses[k, s].item(), result.held_out_losses[k, s].item()
                metric = None if result.metrics is None else result.metrics[k, s].item()
                more = (metric,) if has_metrics(results) else ()
                yield (*place, trial.name, trial.written, seed, *ends, *more)


def check(options: Namespace, spaces: Mapping[str, Space], task: Task, training: Training) -> None:
    """Refuse settings of a space that cannot be."""

    def check_space(space: Space) -> None:
        check_trials(task, training, space.draw(options.trials, options.seed, task.epochs))

    check_optimizers(spaces, check_space)


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_budgets.png")
    add_tasks(parser)
    parser.add_argument(
        "--optimizers",
        nargs="+",
        metavar="SPACE",
        default=list(SPACES),
        help="a name of spaces.py, or of torch.optim (its rate is tuned), or my_file.MyClass; or a "
        'space in quotes: "Adam(lr=log(1e-4, 1), betas=(1 - log(1e-3, 1), 0.999))", '
        '"SGD(lr=log(1e-3, 1), momentum=0 or 0.9)" (default: those of spaces.py)',
    )
    parser.add("--trials", positive_int, TRIALS, "how many settings to try of each optimizer")
    text = "how many times to train each: one seed chooses the best of k, the others judge it"
    parser.add("--seeds", positive_int, SEEDS, text)
    add_jobs(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    with parser.refusing():
        if options.seeds < 2:
            raise ValueError("--seeds wants at least 2: one chooses, another judges")
        spaces = parse_spaces(options.optimizers)
        tasks = load_tasks(options)
        tasks = those_that_pass(options, tasks, partial(check, options, spaces))
    named = {name: task for name, (task, _) in tasks.items()}
    results = {}
    with open_crew(options.jobs, options.dask, options.keep) as crew:
        words = f"--tasks {' '.join(options.tasks)}"
        columns = columns_of(tasks, spaces, options.trials)
        report = Report(options.output, options.csv, columns, task=words)
        comparison = compare(
            spaces, named, options.trials, seeds_of(options), report.progress, crew
        )
        for place, result in report.collect(comparison):
            results[place] = result
            report.row(place, result)
    report.explain(spaces)
    report.conclude(partial(conclusions, results, spaces))
    header = CSV_HEADER + ("metric",) * has_metrics(results)
    return report.save(partial(draw, results), header, rows_of_csv(results))


if __name__ == "__main__":
    run_main(main)
