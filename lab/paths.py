"""Paths down a surface: each as data, and all of them drawn, still and moving."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from lab import movies, plotting
from lab.trainings import MOVED_NOTHING, Progress, without_progress

import torch
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from surfaces import SURFACES, Point, Surface

FRAMES = 100  # of an animation, at most

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
    style = {"colors": [plotting.faint()], "linewidths": 0.8}
    axes.contour(x, y, height, levels=levels.tolist(), **style)
    ink, ground = plotting.ink(), axes.get_facecolor()
    for point in surface.minima:
        axes.plot(*point, marker="*", markersize=15, color=ink, markeredgecolor=ground, zorder=3)
    if surface.saddle:
        axes.plot(*surface.saddle, marker="X", markersize=9, color=ink, zorder=2)
    axes.grid(visible=False)
    axes.set(xlabel="x", ylabel="y", xlim=window[0], ylim=window[1])


def draw_paths(axes: Axes, runs: dict[str, Descent], window: Window) -> list:
    """Draw each path with its steps, and a larger dot at its end; return both, per optimizer."""
    colors = plotting.colors(runs)
    artists = []
    for label, run in runs.items():
        path = drawable_path(run, window)
        (line,) = axes.plot(*path.T, color=colors[label], marker=".", markersize=4, linewidth=1.2)
        (end,) = axes.plot(*path[-1:].T, color=colors[label], marker="o", markersize=8)
        artists.append((line, end))
    start = next(iter(runs.values())).path[0]
    axes.plot(*start, marker="s", markersize=7, color=plotting.ink(), zorder=2)
    return artists


def drawable_path(run: Descent, window: Window) -> Tensor:
    """Return the points of a path (n, 2), those at infinity ten windows away, and out of sight."""
    low, high = torch.tensor(window, dtype=torch.float64).T
    far = 10 * (high - low)
    return run.path[run.path.isfinite().all(1)].clamp(low - far, high + far)


def draw_losses(axes: Axes, runs: dict[str, Descent], surface: Surface, window: Window) -> list:
    """Draw each run's height above the minimum on a logarithmic axis; return the lines.

    A surface without a minimum has its plain loss drawn on a linear axis, within the window's.
    """
    floor = lowest(surface)
    low, high = heights_in(window, surface)
    colors = plotting.colors(runs)
    lines = []
    for label, run in runs.items():
        height = drawable_heights(run, surface, low, high)
        lr = None if run.has_schedule else run.lr  # the panel below shows a schedule's
        name = plotting.name(label, lr, run.diverged_at is not None)
        lines += axes.plot(height, color=colors[label], label=name)
    axes.set(xlabel="Steps", ylabel="Loss", ylim=(low, high))
    if floor is not None:
        plotting.log_scale(axes.yaxis)
        axes.set(ylabel="Loss above the minimum", ylim=(1e-8 * high, 2 * high))
    draw_rates(axes, runs)
    return lines


def heights_in(window: Window, surface: Surface) -> tuple[float, float]:
    """Return the lowest and the highest value of the window, above the minimum if there is one."""
    floor = lowest(surface)
    *_, z = values_in(window, surface)
    return (z.min().item(), z.max().item()) if floor is None else (0, z.max().item() - floor)


def drawable_heights(run: Descent, surface: Surface, low: float, high: float) -> Tensor:
    """Return the losses of a path (n,), above the minimum if there is one, none of them too far."""
    return (run.losses - (lowest(surface) or 0)).clamp(low - 9 * (high - low), 10 * high)


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
    progress: Progress = without_progress,
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


def animate_rates(
    surface: Surface,
    runs: dict[float, dict[str, Descent]],
    start: Point | None = None,
    progress: Progress = without_progress,
) -> FuncAnimation:
    """Return an animation with a frame for each learning rate: all paths and losses at that rate.

    `runs` maps each rate to what `draw` takes.
    """
    lrs, each = list(runs), list(runs.values())
    figure, racers = draw_race(surface, each[0], start)
    window = window_around(surface, start)
    low, high = heights_in(window, surface)
    title = figure.axes[0].set_title(f"lr = {lrs[-1]:g}", fontsize=22, y=1.0)

    def show(number: int) -> None:
        title.set_text(f"lr = {lrs[number]:g}")
        for (path, end, loss), run in zip(racers, each[number].values(), strict=True):
            points, heights = drawable_path(run, window), drawable_heights(run, surface, low, high)
            path.set_data(points.T)
            end.set_data(points[-1:].T)
            loss.set_data(range(len(heights)), heights)

    moving = [title, *(line for racer in racers for line in racer)]
    return movies.movie(figure, moving, show, len(runs), progress, fps=4)
