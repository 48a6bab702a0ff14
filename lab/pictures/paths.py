"""Paths down a surface, drawn: still and moving."""

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from lab.outcome import Progress, no_progress
from lab.pictures import animations, style
from lab.training.descent import Descent, Window, lowest, values_in, window_around

import numpy
import torch
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from surfaces import SURFACES, Point, Surface

PathLines: TypeAlias = tuple[Line2D, Line2D]  # a path, and the dot at its end

MAX_FRAMES, REST_FRAMES = 100, 12  # of an animation


def draw_contours(axes: Axes, surface: Surface, window: Window) -> None:
    """Draw the surface's contours, and its minima or its saddle."""
    x, y, z = values_in(window, surface)
    height = z - z[z.isfinite()].min()  # a place where it is undefined stays empty
    # The lines are spread over the range of heights; logarithmically where a hundredth of the
    # window lies in the lowest thousandth of it, or the floor of a valley would have no line.
    finite = height[height.isfinite()]
    low, high = finite.quantile(0.01).item(), finite.max().item()
    if low < 0.005 * high:
        levels = torch.logspace(math.log10(low), math.log10(high), 14)
    else:
        levels = torch.linspace(0, high, 12)[1:]
    axes.contour(
        x, y, height, levels=levels.tolist(), colors=[style.background_color()], linewidths=0.8
    )
    ink, ground = style.letter_color(), axes.get_facecolor()
    for point in surface.minima:
        axes.plot(*point, marker="*", markersize=15, color=ink, markeredgecolor=ground, zorder=3)
    if surface.saddle:
        axes.plot(*surface.saddle, marker="X", markersize=9, color=ink, zorder=2)
    axes.grid(visible=False)
    axes.set(xlabel="x", ylabel="y", xlim=window[0], ylim=window[1])


def draw_paths(axes: Axes, runs: Mapping[str, Descent], window: Window) -> list[PathLines]:
    """Draw each path with its steps, and a larger dot at its end; return both, per optimizer."""
    colors = style.colors_of(runs)
    artists = []
    for label, run in runs.items():
        path = drawable_path(run, window)
        (line,) = axes.plot(*path.T, color=colors[label], marker=".", markersize=4, linewidth=1.2)
        (end,) = axes.plot(*path[-1:].T, color=colors[label], marker="o", markersize=8)
        artists.append((line, end))
    start = next(iter(runs.values())).path[0]
    axes.plot(*start, marker="s", markersize=7, color=style.letter_color(), zorder=2)
    return artists


def drawable_path(run: Descent, window: Window) -> Tensor:
    """Return the points of a path (n, 2), those at infinity ten windows away, and out of sight."""
    low, high = torch.tensor(window, dtype=torch.float64).T
    far = 10 * (high - low)
    return run.path[run.path.isfinite().all(1)].clamp(low - far, high + far)


def draw_losses(
    axes: Axes, runs: Mapping[str, Descent], surface: Surface, window: Window
) -> list[Line2D]:
    """Draw each run's height above the minimum on a logarithmic axis; return the lines.

    A surface without a minimum has its plain loss drawn on a linear axis, within the window's.
    """
    floor = lowest(surface)
    low, high = heights_in(window, surface)
    colors = style.colors_of(runs)
    lines = []
    for label, run in runs.items():
        height = drawable_heights(run, surface, low, high)
        lr = None if run.has_schedule else run.lr  # the panel below shows a schedule's
        name = style.legend_label(label, lr, run.diverged_at is not None)
        lines += axes.plot(height, color=colors[label], label=name)
    axes.set(xlabel="Steps", ylabel="Loss", ylim=(low, high))
    if floor is not None:
        style.log_scale(axes.yaxis)
        axes.set(ylabel="Loss above the minimum", ylim=(1e-8 * high, 2 * high))
    draw_lr_histories(axes, runs)
    return lines


def heights_in(window: Window, surface: Surface) -> tuple[float, float]:
    """Return the lowest and the highest value of the window, above the minimum if there is one."""
    floor = lowest(surface)
    *_, z = values_in(window, surface)
    low, high = z[z.isfinite()].aminmax()
    return (low.item(), high.item()) if floor is None else (0, high.item() - floor)


def drawable_heights(run: Descent, surface: Surface, low: float, high: float) -> Tensor:
    """Return the losses of a path (n,), above the minimum if there is one, none of them too far."""
    return (run.losses - (lowest(surface) or 0)).clamp(low - 9 * (high - low), 10 * high)


def draw_lr_histories(axes: Axes, runs: Mapping[str, Descent], xlabel: str = "") -> None:
    """Draw the learning rates below, where one of them changes."""
    if any(run.has_schedule for run in runs.values()):
        known = {
            label: [lr for lr in run.lr_history if lr is not None] for label, run in runs.items()
        }
        style.draw_lrs(axes, known, style.colors_of(runs), xlabel)


def draw(
    surface: Surface,
    runs: Mapping[str, Descent] | Iterable[tuple[str, Descent]],
    start: Point | None = None,
) -> Figure:
    """Return the figure: the paths down the surface, and beside them the losses."""
    return draw_race(surface, dict(runs), start)[0]


def draw_race(
    surface: Surface, runs: Mapping[str, Descent], start: Point | None = None
) -> tuple[Figure, list[tuple[Line2D, Line2D, Line2D]]]:
    """Return the figure of `draw`, and for each run the (path, end, loss) lines in it."""
    figure, (left, right) = style.new_figure(2)
    window = window_around(surface, start)
    draw_contours(left, surface, window)
    paths = draw_paths(left, runs, window)
    losses = draw_losses(right, runs, surface, window)
    style.legend(figure, losses)
    return figure, [(*pair, loss) for pair, loss in zip(paths, losses, strict=True)]


def draw_gallery(
    runs: Mapping[str, Mapping[str, Descent]], surfaces: Mapping[str, Surface] = SURFACES
) -> Figure:
    """Return a figure with one panel of paths per surface."""
    figure, panels = style.new_figure(len(runs), n_rows=2 if len(runs) > 1 else 1)
    lines: dict[str, Line2D] = {}
    for axes, (name, descents) in zip(panels, runs.items(), strict=True):
        window = surfaces[name].window
        draw_contours(axes, surfaces[name], window)
        artists = draw_paths(axes, descents, window)
        axes.set(title=name, xlabel="", ylabel="")
        for (line, _), label in zip(artists, descents, strict=True):
            line.set_label(label)
            lines.setdefault(label, line)
        draw_lr_histories(axes, descents, "Steps")
    style.legend(figure, list(lines.values()))
    return figure


def animate(
    surface: Surface,
    runs: Mapping[str, Descent],
    start: Point | None = None,
    progress: Progress = no_progress,
) -> FuncAnimation:
    """Return an animation of the race, with a rest at its end."""
    figure, racers = draw_race(surface, runs, start)
    courses = [
        (numpy.asarray(path.get_xydata()), numpy.asarray(loss.get_xydata()))
        for path, _, loss in racers
    ]
    steps = max(len(run.path) for run in runs.values()) - 1
    moments = [*range(0, steps, -(-steps // MAX_FRAMES)), *[steps] * REST_FRAMES]

    def show(number: int) -> None:
        now = moments[number] + 1
        for (path, end, loss), (points, heights) in zip(racers, courses, strict=True):
            path.set_data(*points[:now].T)
            end.set_data(*points[:now][-1:].T)
            loss.set_data(*heights[:now].T)

    lines = [line for racer in racers for line in racer]
    return animations.animation_of(figure, lines, show, len(moments), progress)


def animate_lrs(
    surface: Surface,
    runs: Mapping[float, Mapping[str, Descent]],
    start: Point | None = None,
    progress: Progress = no_progress,
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
            path.set_data(*points.T)
            end.set_data(*points[-1:].T)
            loss.set_data(range(len(heights)), heights)

    moving = [title, *(line for racer in racers for line in racer)]
    return animations.animation_of(figure, moving, show, len(runs), progress, fps=4)
