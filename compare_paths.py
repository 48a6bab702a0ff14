"""What path does each optimizer take down a surface? Descend from one start and draw them all.

The gradients are exact or, with --noise, stochastic, with the same draws for every optimizer.
"""

import math
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from lab import movies, plotting
from lab.commands import (
    Parser,
    animation_path,
    finite_float,
    non_negative_float,
    one_of,
    positive_float,
    positive_int,
)
from lab.report import Report, keeping, run_main
from lab.schedules import Schedule, schedulers_of
from lab.specs import parse_optimizer, parse_optimizers, try_optimizers
from lab.trainings import MOVED_NOTHING, silent, without_progress

import torch
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.optim import Optimizer

from settings import SEED
from surfaces import SURFACES, Point, Surface

SURFACE = "valley"
OPTIMIZERS = [
    "SGD=optimizers.SGD",
    "Momentum 0.5=optimizers.SGD(momentum=0.5)",
    "Adagrad=optimizers.Adagrad",
    "RMSprop=optimizers.RMSprop(alpha=0.9)",
    "Adam=optimizers.Adam(betas=(0.9, 0.99))",
]
STEPS = 50
NOISE = 0.0
TARGET = 0.01
TUNING_LRS = [float(f"{10 ** (i / 8):.2g}") for i in range(-32, 9)]  # 0.0001 to 10, 8 a decade
FRAMES = 100  # of an animation, at most

EXAMPLES = """\
  python compare_paths.py --noise 1 --optimizers SGD Momentum --lr 0.1
  python compare_paths.py --surface rosenbrock --tune --steps 200 --animate race.gif
  python compare_paths.py --surface all"""

CSV_HEADER = ("optimizer", "step", "x", "y", "loss")
Window = tuple[Point, Point]  # (lowest x, highest x), (lowest y, highest y)


@dataclass
class Descent:
    """One optimizer's way down: what `compare` yields."""

    formula: Callable[[Tensor], Tensor]
    points: Tensor  # (steps at most + 1, 2), the start first
    lr: float | None = None  # as tuned; None if the optimizer's own was used
    steps: int = 0  # taken
    rates: list[float | None] = field(default_factory=list)  # the learning rate at each step
    error: BaseException | None = None  # what ended it early
    stopped: str = ""  # where that was, and why

    @cached_property
    def path(self) -> Tensor:
        """The points that were reached (steps + 1, 2)."""
        return self.points[: self.steps + 1]

    @cached_property
    def losses(self) -> Tensor:
        """The losses there (steps + 1,)."""
        return self.formula(self.path)

    @property
    def diverged_at(self) -> int | None:
        """The step after which the point or its loss was not finite; None if they always were."""
        return first(~(self.path.isfinite().all(1) & self.losses.isfinite()))

    @property
    def has_schedule(self) -> bool:
        """Whether its learning rate changed."""
        return len(set(self.rates)) > 1

    @property
    def remarks(self) -> list[str]:
        moved = (self.path[1:] != self.path[0]).any()
        return [] if self.error or moved else [MOVED_NOTHING]


def compare(
    surface: Surface,
    optimizers: dict[str, Callable[..., Optimizer]] | None = None,
    start: Point | None = None,
    steps: int = STEPS,
    noise: float = NOISE,
    seed: int = SEED,
    tune: Collection[str] = (),
    progress: Callable = silent,
) -> Iterator[tuple[str, Descent]]:
    """Descend `surface` once per optimizer; yield (label, Descent) as each arrives.

    `optimizers` maps a label to whatever makes the optimizer from param groups; this script's five
    by default, at the surface's own learning rate. `noise` is the standard deviation of what is
    added to each element of the gradient. Those labelled in `tune` get their own best rate, and so
    do the five where the surface has no rate of its own.
    """
    if optimizers is None:
        optimizers = parse_optimizers(OPTIMIZERS, surface.lr)
        tune = tune if surface.lr else optimizers
    start = start or surface.start
    generator = torch.Generator().manual_seed(seed)
    draws = noise * torch.randn(steps, 2, generator=generator, dtype=torch.float64)
    for label, make_optimizer in optimizers.items():
        torch.manual_seed(seed)
        run = Descent(surface.formula, torch.tensor([start] * (steps + 1), dtype=torch.float64))
        with keeping(run):
            if label in tune:
                run.lr = best_lr(surface, start, make_optimizer, draws)
            lrs = [run.lr] if run.lr else None
            path = descend(surface.formula, start, make_optimizer, draws, lrs)
            for points, rates in progress(label)(path, steps):
                run.steps += 1
                run.points[run.steps] = points[0]
                run.rates.append(rates[0])
        yield label, run


def descend(
    formula: Callable[[Tensor], Tensor],
    start: Point,
    make_optimizer: Callable[..., Optimizer],
    noise: Tensor,
    lrs: list[float] | None = None,
) -> Iterator[tuple[Tensor, list[float | None]]]:
    """Descend a surface from `start` by its gradient plus one row of `noise` a step.

    `formula` maps points (n, 2) to values (n,), and `noise` (steps, 2) may be zeros. With `lrs`,
    all n rates descend at once, each a param group whose one parameter is a row of the points;
    without, n is 1 and the optimizer's own rate is used. A schedule takes each step for an epoch.
    Yields after each step the points (n, 2), in float64, and the n rates that moved them; ends
    early when none of the points is finite any more.
    """
    groups = [{}] if lrs is None else [{"lr": lr} for lr in lrs]
    points = torch.tensor([start] * len(groups), dtype=torch.float64)
    rows = points.unbind()
    optimizer = make_optimizer(
        [{"params": [row]} | group for row, group in zip(rows, groups, strict=True)]
    )
    schedule = Schedule(schedulers_of(make_optimizer), optimizer, steps_per_epoch=1)

    def closure() -> Tensor:
        nonlocal losses
        leaf = points.clone().requires_grad_()
        values = formula(leaf)
        losses = values.detach() if losses is None else losses
        for row, grad in zip(rows, *torch.autograd.grad(values.sum(), leaf), strict=True):
            row.grad = grad + disturbance
        return values.detach().sum()

    for disturbance in noise:  # noqa: B007 (the closure reads it)
        losses, rates = None, [group.get("lr") for group in optimizer.param_groups]
        optimizer.step(closure)
        schedule.step(losses)
        yield points.clone(), rates
        if not points.isfinite().all(1).any():
            return


def best_lr(
    surface: Surface, start: Point, make_optimizer: Callable[..., Optimizer], noise: Tensor
) -> float:
    """Return the rate of TUNING_LRS with the lowest loss over the last tenth of the steps.

    Of those whose path stays in the window, if there are any: a tangle teaches nothing.
    """
    way = surface.formula, start, make_optimizer, noise
    try:
        paths = [points for points, _ in descend(*way, TUNING_LRS)]
    except ValueError:  # LBFGS takes one param group only
        each = [[points for points, _ in descend(*way, [lr])] for lr in TUNING_LRS]
        paths = [torch.cat(points) for points in zip(*each, strict=False)]
    paths = torch.stack(paths)  # (steps, rates, 2)
    losses = surface.formula(paths[-max(1, len(noise) // 10) :]).mean(0)
    losses = losses.masked_fill(~losses.isfinite(), math.inf)
    low, high = torch.tensor(window_around(surface, start), dtype=paths.dtype).T
    inside = ((low <= paths) & (paths <= high)).all(2).all(0)
    if (losses[inside] < surface.formula(torch.tensor(start, dtype=torch.float64))).any():
        losses = losses.masked_fill(~inside, math.inf)
    return TUNING_LRS[int(losses.argmin())]


def first(condition: Tensor) -> int | None:
    """Return the first index at which `condition` holds, or None."""
    indices = condition.nonzero()
    return int(indices[0]) if len(indices) else None


def lowest(surface: Surface) -> float | None:
    """Return the value at the surface's minima, or None if it has none."""
    if not surface.minima:
        return None
    return surface.formula(torch.tensor(surface.minima[0], dtype=torch.float64)).item()


def window_around(surface: Surface, start: Point | None) -> Window:
    """Return the surface's window, made larger if `start` lies outside it."""
    if start is None:
        return surface.window
    return tuple(
        (min(low, value - 0.1 * (high - low)), max(high, value + 0.1 * (high - low)))
        if not low <= value <= high
        else (low, high)
        for (low, high), value in zip(surface.window, start, strict=True)
    )


def left_at(path: Tensor, window: Window) -> int | None:
    """Return the first step whose point lies outside the window, or None."""
    low, high = torch.tensor(window, dtype=path.dtype).T
    return first(((path < low) | (path > high)).any(1))


# ---------------------------------------------------------------- the figure


def values_in(window: Window, surface: Surface) -> tuple[Tensor, Tensor, Tensor]:
    """Return the coordinates x (201,) and y (201,) of a grid over the window, and z (201, 201)."""
    x, y = (torch.linspace(low, high, 201, dtype=torch.float64) for low, high in window)
    return x, y, surface.formula(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1))


def draw_contours(axes: Axes, surface: Surface, window: Window) -> None:
    """Draw the surface's contours, and its minima or its saddle."""
    x, y, z = values_in(window, surface)
    height = z - z.min()
    # The lines are spread over the range of heights; logarithmically where a hundredth of the
    # window lies in the lowest thousandth of it, or the floor of a valley would have no line.
    low, high = height.quantile(0.01).item(), height.max().item()
    if low < 0.005 * high:
        levels = torch.logspace(math.log10(low), math.log10(high), 14)
    else:
        levels = torch.linspace(0, high, 12)[1:]
    axes.contour(x, y, height, levels=levels.tolist(), colors="lightgrey", linewidths=0.8)
    for point in surface.minima:
        axes.plot(
            *point, marker="*", markersize=15, color="black", markeredgecolor="white", zorder=3
        )
    if surface.saddle:
        axes.plot(*surface.saddle, marker="X", markersize=9, color="black", zorder=2)
    axes.grid(visible=False)
    axes.set(xlabel="x", ylabel="y", xlim=window[0], ylim=window[1])


def draw_paths(axes: Axes, runs: dict[str, Descent], window: Window) -> list:
    """Draw each path with its steps, and a larger dot at its end; return both, per optimizer."""
    colors = plotting.colors(runs)
    # A point at infinity cannot be drawn; ten windows away is as good, and out of sight.
    low, high = torch.tensor(window, dtype=torch.float64).T
    far = 10 * (high - low)
    artists = []
    for label, run in runs.items():
        path = run.path[run.path.isfinite().all(1)].clamp(low - far, high + far)
        (line,) = axes.plot(*path.T, color=colors[label], marker=".", markersize=4, linewidth=1.2)
        (end,) = axes.plot(*path[-1:].T, color=colors[label], marker="o", markersize=8)
        artists.append((line, end))
    start = next(iter(runs.values())).path[0]
    axes.plot(*start, marker="s", markersize=7, color="black", zorder=2)
    return artists


def draw_losses(axes: Axes, runs: dict[str, Descent], surface: Surface, window: Window) -> list:
    """Draw each run's height above the minimum on a logarithmic axis; return the lines.

    A surface without a minimum has its plain loss drawn on a linear axis, within the window's.
    """
    floor = lowest(surface)
    *_, z = values_in(window, surface)
    low, high = (z.min().item(), z.max().item()) if floor is None else (0, z.max().item() - floor)
    colors = plotting.colors(runs)
    lines = []
    for label, run in runs.items():
        height = (run.losses - (floor or 0)).clamp(low - 9 * (high - low), 10 * high)
        lr = None if run.has_schedule else run.lr  # the panel below shows a schedule's
        name = plotting.name(label, lr, run.diverged_at is not None)
        lines += axes.plot(height, color=colors[label], label=name)
    axes.set(xlabel="Steps", ylabel="Loss", ylim=(low, high))
    if floor is not None:
        plotting.log_scale(axes.yaxis)
        axes.set(ylabel="Loss above the minimum", ylim=(1e-8 * high, 2 * high))
    draw_rates(axes, runs)
    return lines


def draw_rates(axes: Axes, runs: dict[str, Descent], xlabel: str = "") -> None:
    """Draw the learning rates below, where one of them changes."""
    if any(run.has_schedule for run in runs.values()):
        rates = {label: run.rates for label, run in runs.items() if None not in run.rates}
        plotting.draw_rates(axes, rates, plotting.colors(runs), xlabel)


def draw(
    surface: Surface,
    runs: dict[str, Descent] | Iterable[tuple[str, Descent]],
    start: Point | None = None,
) -> Figure:
    """Return the figure: the paths down the surface, and beside them the losses."""
    return draw_race(surface, dict(runs), start)[0]


def draw_race(
    surface: Surface, runs: dict[str, Descent], start: Point | None = None
) -> tuple[Figure, list[tuple]]:
    """Return the figure of `draw`, and for each run the (path, end, loss) lines in it."""
    figure, (left, right) = plotting.new_figure(2)
    window = window_around(surface, start)
    draw_contours(left, surface, window)
    paths = draw_paths(left, runs, window)
    losses = draw_losses(right, runs, surface, window)
    plotting.legend(figure, losses)
    return figure, [(*pair, loss) for pair, loss in zip(paths, losses, strict=True)]


def draw_gallery(runs: dict[str, dict[str, Descent]]) -> Figure:
    """Return a figure with one panel of paths per surface."""
    figure, panels = plotting.new_figure(len(runs), n_rows=2 if len(runs) > 1 else 1)
    lines = {}
    for axes, (name, descents) in zip(panels, runs.items(), strict=True):
        draw_contours(axes, SURFACES[name], SURFACES[name].window)
        artists = draw_paths(axes, descents, SURFACES[name].window)
        axes.set(title=name, xlabel="", ylabel="")
        for (line, _), label in zip(artists, descents, strict=True):
            line.set_label(label)
            lines.setdefault(label, line)
        draw_rates(axes, descents, "Steps")
    plotting.legend(figure, list(lines.values()))
    return figure


def animate(
    surface: Surface,
    runs: dict[str, Descent],
    start: Point | None = None,
    progress: Callable[[Iterable, int], Iterable] = without_progress,
) -> FuncAnimation:
    """Return an animation of the race, with a rest at its end."""
    figure, racers = draw_race(surface, runs, start)
    courses = [(path.get_xydata(), loss.get_xydata()) for path, _, loss in racers]
    steps = max(len(run.path) for run in runs.values()) - 1
    moments = [*range(0, steps, -(-steps // FRAMES)), *[steps] * 12]

    def show(number: int) -> None:
        now = moments[number] + 1
        for (path, end, loss), (points, heights) in zip(racers, courses, strict=True):
            path.set_data(points[:now].T)
            end.set_data(points[:now][-1:].T)
            loss.set_data(heights[:now].T)

    lines = [line for racer in racers for line in racer]
    return movies.movie(figure, lines, show, len(moments), progress)


# ---------------------------------------------------------------- the table and the command line


def table_row(surface: Surface, run: Descent, window: Window, target: float) -> tuple[str, ...]:
    """Return the cells of a row: the end, its loss and distance, steps to the target, its fate."""
    floor, end = lowest(surface), run.path[-1]
    distance, reached = "-", None
    if floor is not None:
        minima = torch.tensor(surface.minima, dtype=end.dtype)
        distance = f"{(minima - end).norm(dim=1).min():.2g}"
        reached = first(run.losses - floor < target)
    fate = run.stopped
    if run.diverged_at is not None:
        fate = f"diverged at step {run.diverged_at}"
    elif not fate and (left := left_at(run.path, window)) is not None:
        fate = f"left the window at step {left}"
    point = f"({end[0]:.3g}, {end[1]:.3g})"
    return point, f"{run.losses[-1]:.3g}", distance, "-" if reached is None else str(reached), fate


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_paths.png")
    parser.add_argument(
        "--surface",
        type=one_of([*SURFACES, "all"], "surface"),
        metavar="NAME",
        default=SURFACE,
        help=f"{', '.join(SURFACES)}, or all: a gallery (default: {SURFACE})",
    )
    parser.add_optimizers(OPTIMIZERS, "SGD, Momentum, Adagrad, RMSprop and Adam of optimizers/")
    parser.add_argument(
        "--start",
        type=finite_float,
        nargs=2,
        metavar=("X", "Y"),
        help="where every path begins (default: the surface's own start)",
    )
    parser.add("--steps", positive_int, STEPS, "steps of each optimizer")
    parser.add("--noise", non_negative_float, NOISE, "standard deviation of the gradient's noise")
    parser.add_argument(
        "--lr",
        type=positive_float,
        help="learning rate where a SPEC names none (default: the surface's, or else as --tune)",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="where a SPEC names no lr, find the one that ends lowest on this surface",
    )
    parser.add("--target", positive_float, TARGET, "height above the minimum that is near enough")
    parser.add_argument(
        "--animate", type=animation_path, metavar="PATH", help="the race, as .gif, .html or .mp4"
    )
    return parser


def parse(argv: list[str] | None) -> Namespace:
    """Parse the words into options, with `specs`: the optimizers of each surface by name."""
    parser = make_parser()
    options = parser.parse(argv)
    gallery = options.surface == "all"
    if gallery and (options.start or options.animate):
        parser.error("--start and --animate go with one surface, not with all")
    if options.tune and options.lr:
        parser.error("--lr and --tune exclude each other")
    names = list(SURFACES) if gallery else [options.surface]
    options.lrs = {k: None if options.tune else options.lr or SURFACES[k].lr for k in names}
    with parser.refusing():
        options.specs = {
            name: parse_optimizers(options.optimizers, lr) for name, lr in options.lrs.items()
        }
        surface = SURFACES[names[0]]
        if not values_in(window_around(surface, options.start), surface)[2].isfinite().all():
            raise ValueError(f"--start: {names[0]} is not finite around {options.start}")
        formula, start = surface.formula, surface.start
        try_optimizers(
            options.specs[names[0]],
            lambda spec: list(descend(formula, start, spec, torch.zeros(1, 2))),
        )
    return options


def descend_all(report: Report, options: Namespace, name: str) -> dict[str, Descent]:
    """Descend a surface with all its optimizers; fill the rows of its table."""
    surface, specs = SURFACES[name], options.specs[name]
    texts = dict(zip(specs, options.optimizers, strict=True))
    window = window_around(surface, options.start)

    def row(label: str, run: Descent) -> tuple[str, ...]:
        *cells, fate = table_row(surface, run, window, options.target)
        return label, *cells, parse_optimizer(texts[label], run.lr or options.lrs[name]).call, fate

    runs = compare(
        surface,
        specs,
        options.start,
        options.steps,
        options.noise,
        options.seed,
        tune=[label for label, spec in specs.items() if not spec.has_own_rate],
        progress=report.progress,
    )
    return report.collect(runs, row)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    first, *others = options.specs
    columns = {
        "optimizer": f"{max(map(len, ['optimizer', *options.specs[first]]))}",
        "end": "20",
        "loss": ">8",
        "distance": ">8",
        f"steps to {options.target:g}": ">15",
        "call": "",
    }
    report = Report(options, columns, f"{first}: {SURFACES[first].lesson}")
    runs = {first: descend_all(report, options, first)}
    for name in others:
        if not report.interrupted:
            report.head(f"{name}: {SURFACES[name].lesson}")
            if descents := descend_all(report, options, name):
                runs[name] = descents

    rows = (
        (*([name] if others else []), label, step, *point, loss)
        for name, descents in runs.items()
        for label, run in descents.items()
        for step, (point, loss) in enumerate(
            zip(run.path.tolist(), run.losses.tolist(), strict=True)
        )
    )
    header = ("surface", *CSV_HEADER) if others else CSV_HEADER
    if others:
        return report.save(draw_gallery(runs), header, rows)
    surface, descents = SURFACES[first], runs[first]
    films = {
        options.animate: lambda: animate(
            surface, descents, options.start, report.progress("animation")
        )
    }
    return report.save(draw(surface, descents, options.start), header, rows, films)


if __name__ == "__main__":
    run_main(main)
