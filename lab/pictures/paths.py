"""Paths down a surface, drawn: still and moving."""

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from lab.outcome import Progress, no_progress
from lab.pictures import animations, curves, style
from lab.pictures.looks import Look, background_color, ground_color, letter_color, looks_of
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
DOT = 8  # points, the size of the one at the end of a path


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
    axes.contour(x, y, height, levels=levels.tolist(), colors=[background_color()], linewidths=0.8)
    alone: Look = {"linestyle": "none", "color": letter_color(), "markeredgecolor": ground_color()}
    for point in surface.minima:
        label = style.once("minimum")
        axes.plot(*point, **alone, marker="*", markersize=15, zorder=3, label=label)
    if surface.saddle:
        label = style.once("saddle")
        axes.plot(*surface.saddle, **alone, marker="X", markersize=11, zorder=2, label=label)
    axes.grid(visible=False)
    axes.set(xlabel="x", ylabel="y", xlim=window[0], ylim=window[1])


def draw_paths(axes: Axes, runs: Mapping[str, Descent], window: Window) -> list[PathLines]:
    """Draw each path with its steps, and a larger dot at its end; return both, per optimizer.

    The dot of a path that ends outside the window is hollow, and at its edge. Where others will
    cover it, it is a ring around them.
    """
    artists = []
    ends = {label: end_in(run, window) for label, run in runs.items()}
    for k, (label, look) in enumerate(looks_of(runs).items()):
        points, end = drawable_path(runs[label], window), ends[label]
        size = DOT + 4 * n_near(end, list(ends.values())[k + 1 :], window)
        (line,) = axes.plot(*points.T, **look | {"marker": ".", "markersize": 5})
        alone = look | {"linestyle": "none", "marker": "o", "markersize": size, "zorder": 2.9}
        (dot,) = axes.plot(*end.unsqueeze(1), **alone, clip_on=False)
        show_end(dot, runs[label], window)
        artists.append((line, dot))
    start = next(iter(runs.values())).path[0]
    square: Look = {"linestyle": "none", "marker": "s", "markersize": 7, "color": letter_color()}
    axes.plot(*start, **square, zorder=2.5, label=style.once("start"))
    return artists


def show_end(dot: Line2D, run: Descent, window: Window) -> None:
    """Move the dot to the end of a path; it is hollow where that is outside the window."""
    end = end_in(run, window)
    is_inside = torch.equal(end, run.path[-1])
    dot.set_data(*end.unsqueeze(1))
    dot.set_markerfacecolor(dot.get_color() if is_inside else "none")
    if dot.get_markersize() == DOT:  # the legend shows a plain one
        dot.set_label(style.once("end" if is_inside else "end, outside"))


def end_in(run: Descent, window: Window) -> Tensor:
    """Return the end of a path (2,), or the point of the window that is nearest to it."""
    low, high = torch.tensor(window, dtype=torch.float64).T
    return run.path[run.path.isfinite().all(1)][-1].clamp(low, high)


def n_near(point: Tensor, others: list[Tensor], window: Window) -> int:
    """Count those that a dot at the point would cover: within a hundredth of the window."""
    low, high = torch.tensor(window, dtype=torch.float64).T
    return sum(bool(((point - other).abs() < (high - low) / 100).all()) for other in others)


def drawable_path(run: Descent, window: Window) -> Tensor:
    """Return the points of a path (n, 2), those far outside at most a window away.

    Between two of those there is nan, which is not drawn, or a path that jumps to and fro out there
    would cover the window.
    """
    low, high = torch.tensor(window, dtype=torch.float64).T
    path = run.path[run.path.isfinite().all(1)]
    near = path.clamp(2 * low - high, 2 * high - low)
    is_far = (near != path).any(1)
    near[1:][is_far[1:] & is_far[:-1]] = math.nan
    return near


def draw_losses(
    axes: Axes,
    runs: Mapping[str, Descent],
    surface: Surface,
    window: Window,
    names: Mapping[str, str],
) -> list[Line2D]:
    """Draw each run's height above the minimum on a logarithmic axis; return the lines.

    A surface without a minimum has its plain loss drawn on a linear axis, within the window's.
    Without names the axis has room for any run, down to 1e-8 of the window's height.
    """
    floor = lowest(surface)
    low, high = heights_in(window, surface)
    lines = []
    for label, look in looks_of(runs).items():
        height = drawable_heights(runs[label], surface, low, high)
        lines += axes.plot(height, **look, label=names.get(label, label))
    axes.set(xlabel="Steps", ylabel="Loss", ylim=(low, high))
    if floor is not None:
        style.log_scale(axes.yaxis)
        heights = numpy.concatenate([line.get_ydata() for line in lines])
        heights = heights[heights > 0] if names else numpy.array([0, 2 * high])
        low = max(1e-8 * high, heights.min(initial=high) / 2)
        axes.set(ylabel="Loss above the minimum", ylim=(low, min(2 * high, 2 * heights.max())))
    if names:
        curves.mark_edges(axes)
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
        curves.draw_lrs(axes, known, looks_of(runs), xlabel)


def draw(
    surface: Surface,
    runs: Mapping[str, Descent] | Iterable[tuple[str, Descent]],
    start: Point | None = None,
) -> Figure:
    """Return the figure: the paths down the surface, and beside them the losses."""
    return draw_race(surface, dict(runs), start)[0]


def draw_race(
    surface: Surface,
    runs: Mapping[str, Descent],
    start: Point | None = None,
    of_many: bool = False,
) -> tuple[Figure, list[tuple[Line2D, Line2D, Line2D]]]:
    """Return the figure of `draw`, and for each run the (path, end, loss) lines in it.

    The figure `of_many` races has room for any, and says nothing of this one.
    """
    figure, (left, right) = style.new_figure(2)
    window = window_around(surface, start)
    draw_contours(left, surface, window)
    paths = draw_paths(left, runs, window)
    names, rate = names_of(runs)
    losses = draw_losses(right, runs, surface, window, {} if of_many else names)
    known = (name for name, one in SURFACES.items() if one[1:] == surface[1:])
    words = next(known, ""), f"{steps_of(runs)} steps", "" if of_many else rate
    style.legend(figure, losses, ", ".join(filter(None, words)))
    return figure, [(*pair, loss) for pair, loss in zip(paths, losses, strict=True)]


def names_of(runs: Mapping[str, Descent]) -> tuple[dict[str, str], str]:
    """Return each label with its learning rate, or the rate that all share: see curves.py."""
    lrs: dict[str, float | None] = {}
    for label, run in runs.items():
        lrs[label] = None if run.has_schedule else next(iter(run.lr_history), None)
    lost = [label for label, run in runs.items() if run.diverged_at is not None]
    return curves.names_with_rates(lrs, lost)


def steps_of(runs: Mapping[str, Descent]) -> int:
    """Return the steps of the longest path."""
    return max(len(run.path) for run in runs.values()) - 1


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
    n_steps = max(map(steps_of, runs.values()))
    style.legend(figure, list(lines.values()), f"{n_steps} steps; x to the right, y upwards")
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
    edge = style.once("off the axis")
    marks = [line for line in figure.axes[1].lines if line.get_label() == edge]

    def show(number: int) -> None:
        now = moments[number] + 1
        for (path, end, loss), (points, heights) in zip(racers, courses, strict=True):
            path.set_data(*points[:now].T)
            end.set_data(*points[:now][-1:].T)
            loss.set_data(*heights[:now].T)
        for mark in marks:
            mark.set_visible(float(numpy.asarray(mark.get_xdata())[0]) < now)

    lines = [*marks, *(line for racer in racers for line in racer)]
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
    figure, racers = draw_race(surface, each[0], start, of_many=True)
    window = window_around(surface, start)
    low, high = heights_in(window, surface)
    title = figure.axes[0].set_title(f"lr = {lrs[-1]:g}", fontsize="xx-large", y=1.0)

    def show(number: int) -> None:
        title.set_text(f"lr = {lrs[number]:g}")
        for (path, end, loss), run in zip(racers, each[number].values(), strict=True):
            heights = drawable_heights(run, surface, low, high)
            path.set_data(*drawable_path(run, window).T)
            show_end(end, run, window)
            loss.set_data(range(len(heights)), heights)

    moving = [title, *(line for racer in racers for line in racer)]
    return animations.animation_of(figure, moving, show, len(runs), progress, fps=4)
