"""How steep may it be? The sharpness of the loss along each training, against what is stable.

The sharpness is the largest eigenvalue of the Hessian, the curvature of the loss where it is most
curved. Gradient descent is stable up to 2/lr. Below that, training makes the loss sharper, until it
is there; above, it diverges, or jumps to where it is flatter.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

from lab.command_line.options import (
    add_lr_range,
    add_optimizers,
    add_seeds,
    add_task,
    seeds_of,
)
from lab.command_line.parser import Parser
from lab.command_line.specs import parse_optimizers
from lab.command_line.tasks import load_task
from lab.command_line.types import positive_int
from lab.outcome import Outcome, ProgressOf, show_none
from lab.output.main import run_main
from lab.output.report import Report
from lab.output.table import NUMBER, Column, as_numbers, in_digits, name_width
from lab.pictures import curves, style
from lab.pictures.looks import sheet_colors
from lab.training.adapt import MakeOptimizer
from lab.training.checks import check_optimizers, take_a_step
from lab.training.runs import Training, trainings_of
from lab.training.sharpness import Descent, check_curvature, descend
from lab.training.statistics import infinite_where_diverged, quartiles
from lab.training.sweeps import learning_rates

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from settings import SEED, TASK
from tasks import TASKS, Task

OPTIMIZERS = {"SGD": "SGD()"}
LR_RANGE = 0.05, 1.6
LR_COUNT = 6
STEPS = 800
NEAR = 0.85, 1.15  # times the limit: there the sharpness is at it
ALL = 10**9  # a batch size above any number of samples: the full batch

EXAMPLES = """\
  python compare_sharpness.py --task sine --lr-range 0.05 0.2 --lr-count 3
  python compare_sharpness.py --optimizers SGD "SGD(momentum=0.9)"
  python compare_sharpness.py --optimizers "Adam()" --lr-range 0.01 0.1
  python compare_sharpness.py --batch-size 32"""

CSV_HEADER = ("optimizer", "lr", "seed", "step", "loss", "sharpness", "limit")
NO_THEORY = (
    "These are mini-batches, and the theory is of the full batch: their noise may keep the "
    "sharpness below the limit, and no line says by how much."
)


class Place(NamedTuple):
    """Which curve it is: an optimizer at a rate, which may be its own."""

    optimizer: str
    lr: float | None

    def __str__(self) -> str:
        return self.optimizer if self.lr is None else f"{self.optimizer} at {self.lr:.3g}"


@dataclass
class Curve(Outcome):
    """The trainings of one optimizer at one rate, one from each seed: what `compare` yields."""

    runs: list[Descent]

    @cached_property
    def sharpness(self) -> Tensor:
        """The sharpness (moments, seeds); nan from where one diverged."""
        return side_by_side([run.sharpness for run in self.runs])

    @cached_property
    def losses(self) -> Tensor:
        """The losses (steps, seeds), likewise."""
        return side_by_side([run.losses for run in self.runs])

    @property
    def limits(self) -> list[float | None]:
        return max((run.limits for run in self.runs), key=len)

    @property
    def starts(self) -> Tensor:
        """The sharpness (seeds,) before the first step."""
        return self.sharpness[0] if len(self.sharpness) else torch.full((len(self.runs),), math.nan)

    @property
    def ends(self) -> Tensor:
        """Of each seed the median over the last quarter of the moments; infinite if it diverged."""
        last = self.sharpness[-max(1, len(self.sharpness) // 4) :].nanquantile(0.5, 0)
        diverged = torch.tensor([run.diverged for run in self.runs])
        return last.masked_fill(diverged, math.inf)

    @property
    def final_losses(self) -> Tensor:
        """The last loss of each seed; infinite if it diverged."""
        losses = [run.losses[-1] if run.losses else math.nan for run in self.runs]
        return infinite_where_diverged(torch.tensor(losses))

    @property
    def predicted(self) -> str:
        """What the sharpness before the first step, beside the limit there, says will happen."""
        limit = self.limits[0] if self.limits else None
        if limit is None:
            return ""
        return "unstable" if quartiles(self.starts)[1].item() > limit else "stable"

    @property
    def found(self) -> str:
        """What happened, of half of the seeds or more."""
        diverged = [run for run in self.runs if run.diverged]
        if 2 * len(diverged) >= len(self.runs):
            return f"diverged at step {min(run.steps for run in diverged)}"
        limit = self.limits[-1] if self.limits else None
        if limit is None:
            return "trained"
        ratio = quartiles(self.ends)[1].item() / limit
        where = "below" if ratio < NEAR[0] else "at" if ratio <= NEAR[1] else "above"
        is_flatter = self.predicted == "unstable" and where != "above"
        flattened = "flattened, " if is_flatter else ""
        return f"{flattened}{where} the limit"


def side_by_side(columns: Iterable[list[float]]) -> Tensor:
    """Return columns as one tensor, nan where one ended earlier."""
    tensors = [torch.tensor(column, dtype=torch.float64) for column in columns]
    return torch.nn.utils.rnn.pad_sequence(tensors, padding_value=math.nan)


def compare(
    optimizers: Mapping[str, MakeOptimizer] | None = None,
    task: Task = TASKS[TASK],
    lrs: Iterable[float] | None = None,
    seeds: Iterable[int] = (SEED,),
    steps: int = STEPS,
    batch_size: int = ALL,
    progress: ProgressOf = show_none,
) -> Iterator[tuple[Place, Curve]]:
    """Train each optimizer at each rate from each seed; yield (Place, Curve) as each is done.

    `optimizers` maps a label to whatever makes the optimizer; one that names its own lr has one
    curve. All samples are in a batch unless `batch_size` says otherwise.

        curves = dict(compare({"SGD": torch.optim.SGD}, lrs=[0.1, 0.2]))
        curves["SGD", 0.2].sharpness
    """
    optimizers = optimizers or parse_optimizers(OPTIMIZERS)
    task, lrs = replace(task, batch_size=batch_size), list(lrs or default_lrs())
    trainings = trainings_of(task, seeds)
    for label, make_optimizer in optimizers.items():
        for lr in [None] if getattr(make_optimizer, "has_own_lr", False) else lrs:
            place = Place(label, lr)
            curve = train_from_each(task, trainings, make_optimizer, steps, lr, progress(place))
            yield place, curve
            curve.raise_if_interrupted()


def train_from_each(
    task: Task,
    trainings: list[Training],
    make_optimizer: MakeOptimizer,
    steps: int,
    lr: float | None,
    progress: Any,
) -> Curve:
    """Train from each seed at this rate, until one fails."""
    curve = Curve([])
    for training in trainings:
        run = descend(task, replace(training, lr=lr), make_optimizer, steps, progress)
        curve.runs.append(run)
        if run.error:
            curve.error, curve.stopped = run.error, run.stopped
            break
    return curve


def default_lrs() -> list[float]:
    return learning_rates(*LR_RANGE, LR_COUNT)


# ---------------------------------------------------------------- what the numbers say


def conclusions(found: Mapping[Place, Curve], is_full: bool = True) -> list[str]:
    """Return for each optimizer what the first sharpness predicts, and what then happened."""
    sentences = []
    for label in dict.fromkeys(place.optimizer for place in found):
        row = {place: curve for place, curve in found.items() if place.optimizer == label}
        known = {place: curve for place, curve in row.items() if curve.predicted}
        if not known:
            sentences.append(f"{label}: no limit is known, so nothing is predicted.")
            continue
        (place, curve), *_ = known.items()
        start = quartiles(curve.starts)[1].item()
        words = f"{label}: before the first step the sharpness is {in_digits(start, 3)}"
        if curve.limits[0] and start > 0:
            edge = rate_of(place, curve) * curve.limits[0] / start
            words += f", so that no rate above {in_digits(edge, 3)} is stable"
        sentences.append(f"{words}.")
        for predicted in ("stable", "unstable"):
            cases: dict[str, list[str]] = {}
            for place, curve in known.items():
                if curve.predicted == predicted:
                    rate = "its rate" if place.lr is None else f"{place.lr:.3g}"
                    cases.setdefault(curve.found.partition(" at step")[0], []).append(rate)
            each = "; ".join(f"{case} (at {', '.join(rates)})" for case, rates in cases.items())
            if each:
                sentences.append(f"Predicted {predicted}, and found: {each}.")
    return sentences + [NO_THEORY] * (not is_full)


# ---------------------------------------------------------------- the figure

MARKERS = "os^Dvp*Xh"


def draw(found: Mapping[Place, Curve] | Iterable[tuple[Place, Curve]], caption: str = "") -> Figure:
    """Return the figure of what `compare` yields: losses above, sharpness and limits below."""
    every: dict[Place, Curve] = dict(found)
    labels = list(dict.fromkeys(place.optimizer for place in every))
    rates = sorted({rate_of(*item) for item in every.items()})
    colors = sheet_colors()
    figure, panels = style.new_figure(2 * len(labels), n_rows=2)
    lines: dict[str, Line2D] = {}
    for k, label in enumerate(labels):
        upper, lower = panels[k], panels[k + len(labels)]
        row = {place: curve for place, curve in every.items() if place.optimizer == label}
        for place, curve in row.items():
            rate = rate_of(place, curve)
            n = rates.index(rate)
            look = {
                "color": colors[n % len(colors)],
                "marker": MARKERS[n % len(MARKERS)],
                "markersize": 4,
                "linewidth": 1.4,
            }
            draw_curve(upper, lower, curve, f"lr {rate:.3g}", look)
        lines |= {str(line.get_label()): line for line in curves.named_lines(upper)}
        curves.limit_losses(upper, log=True)
        limit_sharpness(lower, row.values())
        is_divided = any(curve.runs[0].is_divided for curve in row.values())
        upper.set(title=label, ylabel="Loss")
        lower.set(xlabel="Steps", ylabel="Preconditioned sharpness" if is_divided else "Sharpness")
        lower.set_xlim(upper.get_xlim())
    style.legend(figure, [lines[f"lr {rate:.3g}"] for rate in rates], caption)
    return figure


def rate_of(place: Place, curve: Curve) -> float:
    """Return the rate that a curve starts with."""
    return float(place.lr or curve.runs[0].lr or math.nan)


def draw_curve(upper: Axes, lower: Axes, curve: Curve, label: str, look: dict[str, Any]) -> None:
    """Draw one rate: the median of its seeds and their quartiles; the limit is dashed."""
    moments = max((run.moments for run in curve.runs), key=len)
    every = moments[1] if len(moments) > 1 else 1
    steps = range(len(curve.losses))
    curves.median_band(upper, steps, quartiles(curve.losses), label, look | {"markevery": every})
    bands = quartiles(curve.sharpness.nan_to_num(math.inf))
    curves.median_band(lower, moments, bands, label, look)
    limits = [math.nan if limit is None else limit for limit in curve.limits]
    (dashed,) = lower.plot(moments, limits, "--", color=look["color"], linewidth=1.2)
    dashed.set_label(style.once("limit of this rate"))


def limit_sharpness(axes: Axes, row: Iterable[Curve]) -> None:
    """Make the axis logarithmic, high enough for limits, starts, and what does not diverge."""
    parts = []
    for curve in row:
        parts += [curve.starts, torch.tensor([limit for limit in curve.limits if limit])]
        parts += [curve.sharpness.flatten()] * (not any(run.diverged for run in curve.runs))
    values = torch.cat([part.double() for part in parts])
    values = values[values.isfinite() & (values > 0)]
    if len(values):
        style.log_scale(axes.yaxis)
        axes.set_ylim(values.min().item() / 1.4, 1.4 * values.max().item())
    curves.mark_edges(axes)


# ---------------------------------------------------------------- the table and the command line


def columns_of(optimizers: Iterable[str]) -> list[Column[Place, Curve]]:
    """Return the columns of the table."""
    return [
        Column("optimizer", name_width(optimizers), lambda place, curve: place.optimizer),
        Column("lr", ">5", rate_of, ".3g"),
        Column("limit", ">6", lambda place, curve: limit_at_start(curve), ".3g"),
        Column("at start", ">8", lambda place, curve: middle(curve.starts), ".3g"),
        Column("predicted", "<9", lambda place, curve: curve.predicted or "-"),
        Column("at end", ">6", lambda place, curve: middle(curve.ends), ".3g"),
        Column("loss", NUMBER, lambda place, curve: middle(curve.final_losses), goes=1),
        Column("found", "<28", lambda place, curve: curve.found),
    ]


def middle(values: Tensor) -> float:
    return quartiles(values)[1].item()


def limit_at_start(curve: Curve) -> float | None:
    return curve.limits[0] if curve.limits else None


def rows(
    found: Mapping[Place, Curve] | Iterable[tuple[Place, Curve]],
) -> list[dict[str, Any]]:
    """Return the table of what `compare` yields as numbers, which pandas.DataFrame takes."""
    every: dict[Place, Curve] = dict(found)
    return as_numbers(columns_of(place.optimizer for place in every), every)


def rows_of(place: Place, curve: Curve) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the CSV: each step, and the sharpness where it was measured."""
    for run in curve.runs:
        measured = dict(zip(run.moments, zip(run.sharpness, run.limits, strict=True), strict=True))
        for step, loss in enumerate(run.losses):
            sharpness, limit = measured.get(step, (None, None))
            yield (place.optimizer, rate_of(place, curve), run.seed, step, loss, sharpness, limit)


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_sharpness.png")
    add_optimizers(parser, OPTIMIZERS, "SGD")
    add_lr_range(parser, *LR_RANGE, LR_COUNT)
    add_task(parser, has_epochs=False)
    parser.add("--steps", positive_int, STEPS, "how many steps to take")
    text = "how many samples to take for a step (default: all of them)"
    parser.add_argument("--batch-size", type=positive_int, help=text)
    add_seeds(parser, 1)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    with parser.refusing():
        low, high = options.lr_range
        lrs = learning_rates(low, high, options.lr_count)
        task, training = load_task(options, options.task)
        batch_size = options.batch_size or len(training.dataset)
        is_full = batch_size >= len(training.dataset)
        task = replace(task, batch_size=batch_size)
        optimizers = parse_optimizers(options.optimizers)
        check_optimizers(optimizers, partial(take_a_step, task, replace(training, lr=lrs[0])))
        check_curvature(task, training)

    report = Report(
        options.output, options.csv, columns_of(optimizers), task=f"--task {options.task}"
    )
    found = {}
    seeds = seeds_of(options)
    comparison = compare(optimizers, task, lrs, seeds, options.steps, batch_size, report.progress)
    for place, curve in report.collect(comparison):
        found[place] = curve
        report.row(place, curve)
    report.explain(optimizers)
    report.conclude(partial(conclusions, found, is_full))

    numbers = (row for place, curve in found.items() for row in rows_of(place, curve))
    many = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
    size = "all samples in a batch" if is_full else f"batch size {batch_size}"
    caption = f"{options.task}, {many}, {size}"
    return report.save(partial(draw, found, caption), CSV_HEADER, numbers)


if __name__ == "__main__":
    run_main(main)
