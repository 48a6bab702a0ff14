"""Paths beside a plane through the space of weights, drawn: still and moving."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from lab.outcome import Progress, no_progress
from lab.pictures import animations, curves, style
from lab.pictures.looks import (
    DASHES,
    Look,
    background_color,
    caption_color,
    letter_color,
    looks_of,
)
from lab.pictures.paths import DOT, n_near
from lab.training.planes import BEND, RANDOM, START, Landscape, Path, Window

import matplotlib.pyplot as plt
import torch
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

# How wide a path is drawn where it is as near to the plane as this, of the farthest that any comes.
WIDTHS = {0.05: 1.4, 0.35: 0.9, 0.7: 0.55, 1.0: 0.3}
REST_FRAMES = 12  # of an animation, at its end


class Course(NamedTuple):
    """A line that grows with the steps of a path."""

    line: Line2D
    steps: Sequence[float]
    points: Tensor  # (as many, 2)


def draw(scene: Landscape) -> Figure:
    """Return the figure of a landscape: the plane with the paths, their own losses, how far they
    are from the plane, and what lies between two ends.
    """
    return draw_race(scene)[0]


def draw_race(scene: Landscape) -> tuple[Figure, list[Course], list[Line2D]]:
    """Return the figure of `draw`, the lines in it that grow, and the dot at each path's end."""
    figure, panels = style.new_figure(4 if scene.wall else 3, n_rows=2)
    plane, losses, distances = panels[:3]
    draw_heights(plane, scene)
    farthest = max(path.distances.max().item() for path in scene.calm.values())
    lrs = {label: path.lr for label, path in scene.paths.items()}
    lost = [label for label, path in scene.paths.items() if path.diverged]
    names, rate = curves.names_with_rates(lrs, lost)
    courses: list[Course] = []
    ends: list[Line2D] = []
    feet = [foot_in(scene.window, path, -1) for path in scene.paths.values()]
    for k, (label, look) in enumerate(looks_of(scene.paths).items()):
        path = scene.paths[label]
        courses += draw_path(plane, path, farthest, look)
        size = DOT + 4 * n_near(feet[k], feet[k + 1 :], scene.window)
        alone: Look = {"linestyle": "none", "marker": "o", "markersize": size, "zorder": 2.9}
        ends += plane.plot([], [], **look | alone, clip_on=False)
        show_end(ends[-1], path, -1, scene.window)
        courses.append(draw_numbers(losses, path, path.losses, look | {"label": names[label]}))
        if path.losses_below is not None:
            thin: Look = {"linewidth": 0.5 * look["linewidth"], "zorder": 1.5}
            thin["label"] = style.once("loss of the plane below")
            courses.append(draw_numbers(losses, path, path.losses_below, look | thin))
        courses.append(draw_numbers(distances, path, path.distances, look | {"label": label}))
    draw_start(plane, scene, farthest)
    losses.set(xlabel="Steps", ylabel="Loss over the training set")
    limit_losses(losses, scene)
    distances.set(xlabel="Steps", ylabel="Distance from the plane")
    distances.set_ylim(0, 1.05 * farthest or 1)
    for axes in (losses, distances):
        curves.mark_edges(axes)
        marks = (line for line in axes.lines if line.get_label() == style.once("off the axis"))
        courses += map(course_of, marks)
    if scene.wall:
        draw_wall(panels[3], scene)
    style.legend(figure, curves.named_lines(losses), caption_of(scene, rate))
    return figure, courses, ends


def in_words(corner: str) -> str:
    """Return a corner's name in words."""
    return corner if corner in (START, BEND, RANDOM) else f"the end of {corner}"


def corners_in_words(scene: Landscape) -> str:
    """Return what a plane goes through."""
    *others, last = map(in_words, scene.through)
    return f"{', '.join(others)} and {last}"


def caption_of(scene: Landscape, rate: str = "") -> str:
    """Return what is drawn, in a line."""
    words = [
        curves.name_of_task(scene.task),
        f"seed {scene.training.seed}",
        f"batch size {scene.task.batch_size}",
        rate,
        f"plane through {corners_in_words(scene)}",
    ]
    if scene.heights is not None:
        rows, columns = scene.heights.shape
        words.append(f"{columns} × {rows} nets")
    return ", ".join(filter(None, words))


# ---------------------------------------------------------------- the plane


def draw_heights(axes: Axes, scene: Landscape) -> None:
    """Draw lines of equal loss, each with its number; at equal ratios over more than a decade."""
    first, second, third = map(in_words, scene.through)
    axes.set(xlabel=f"From {first} towards {second}", ylabel=f"Towards {third}")
    axes.set(xlim=scene.window[0], ylim=scene.window[1])
    axes.grid(visible=False)
    if scene.x is None or scene.y is None or scene.heights is None:
        return
    known = scene.heights[scene.heights.isfinite()]
    low, high = known.min().item(), known.quantile(0.99).item()
    levels = torch.linspace(low, high, 14)
    if 0 < 10 * low < high:
        levels = torch.logspace(math.log10(low), math.log10(high), 14)
    lines = axes.contour(
        scene.x,
        scene.y,
        scene.heights,
        levels=levels[1:-1].tolist(),
        colors=[background_color()],
        linewidths=0.8,
    )
    axes.clabel(
        lines, fmt="%.2g", fontsize=0.6 * style.points("font.size"), colors=[caption_color()]
    )


def draw_start(axes: Axes, scene: Landscape, farthest: float) -> None:
    """Mark the start, hollow where it is not in the plane; have the legend name the widths."""
    width: float = 4 / 3 * plt.rcParams["lines.linewidth"]
    for share, words in ((1.4, "path in the plane"), (0.3, f"path {farthest:.2g} from it")):
        ink: Look = {"color": letter_color(), "linewidth": share * width}
        axes.plot([], [], **ink, label=style.once(words))
    path = next(iter(scene.paths.values()))
    square: Look = {"linestyle": "none", "marker": "s", "markersize": 7, "color": letter_color()}
    if START not in scene.through:
        square["markerfacecolor"] = "none"
    axes.plot(*path.feet[0], **square, zorder=2.5, label=style.once("start"))


def draw_path(axes: Axes, path: Path, farthest: float, look: Look) -> list[Course]:
    """Draw a path above the plane: the farther away a piece of it is, the thinner."""
    away = torch.maximum(path.distances[1:], path.distances[:-1]) / (farthest or 1)
    away = away.clamp(max=1)  # of one that diverged
    widths = [next(width for near, width in WIDTHS.items() if d <= near) for d in away.tolist()]
    courses = []
    for width in WIDTHS.values():
        numbers: list[int] = []  # of the points that such a line goes through; -1 is a gap
        for k in (k for k, other in enumerate(widths) if other == width):
            numbers += [k + 1] if numbers[-1:] == [k] else [-1, k, k + 1]
        if numbers:
            points = torch.cat([path.feet, torch.full((1, 2), math.nan)])[numbers]
            (line,) = axes.plot(*points.T, **look | {"linewidth": width * look["linewidth"]})
            courses.append(Course(line, [path.steps[max(0, k)] for k in numbers], points))
    return courses


def show_end(dot: Line2D, path: Path, k: int, window: Window) -> None:
    """Move the dot to the k-th point of a path; it is hollow where that is not in the plane."""
    foot = foot_in(window, path, k)
    size = max(high - low for low, high in window)
    is_there = torch.equal(foot, path.feet[k]) and path.distances[k] <= 1e-6 * size
    dot.set_data(*foot.unsqueeze(1))
    dot.set_markerfacecolor(dot.get_color() if is_there else "none")
    if dot.get_markersize() == DOT:  # the legend shows a plain one
        dot.set_label(style.once("end" if is_there else "end, not in the plane"))


def foot_in(window: Window, path: Path, k: int) -> Tensor:
    """Return the foot of the k-th point of a path (2,), or what is nearest to it in the window."""
    low, high = torch.tensor(window, dtype=path.feet.dtype).T
    return path.feet[k].clamp(low, high)


# ---------------------------------------------------------------- the numbers beside it


def draw_numbers(axes: Axes, path: Path, numbers: Tensor, look: Look) -> Course:
    """Draw a number for each point of a path, against steps."""
    (line,) = axes.plot(path.steps, curves.finite(numbers), **look)
    return course_of(line)


def course_of(line: Line2D) -> Course:
    """Return a line whose x are steps, as it is, as one that grows with them."""
    points = torch.tensor(line.get_xydata())
    return Course(line, points[:, 0].tolist(), points)


def limit_losses(axes: Axes, scene: Landscape) -> None:
    """Limit the axis to the paths' own losses, with room for the plane's up to ten times that."""
    own = torch.cat([path.losses for path in scene.calm.values()])
    below = [path.losses_below for path in scene.calm.values() if path.losses_below is not None]
    every = torch.cat([own, *below])
    every = every[every.isfinite()]
    low, high = every.min().item(), min(every.max().item(), 10 * own.max().item())
    if 0 < 10 * low < high:
        style.log_scale(axes.yaxis)
        axes.set_ylim(low / 1.25, 1.25 * high)
    elif low >= 0:
        axes.set_ylim(0, 1.05 * high)


def draw_wall(axes: Axes, scene: Landscape) -> None:
    """Draw the losses on the straight line between two corners, as they are and matched."""
    assert scene.wall is not None
    one, other = map(in_words, scene.ends)
    straight, matched, _ = scene.wall
    ink: Look = {"color": letter_color(), "linewidth": 4 / 3 * plt.rcParams["lines.linewidth"]}
    draw_numbers(axes, straight, straight.losses, ink | {"label": style.once("straight line")})
    if matched:
        label = style.once("hidden units matched")
        draw_numbers(axes, matched, matched.losses, ink | {"linestyle": DASHES[1], "label": label})
    axes.set(xlabel=f"From {one} to {other}", ylabel="Loss between them", ylim=(0, None))


def animate(
    scene: Landscape,
    progress: Progress = no_progress,
) -> FuncAnimation:
    """Return an animation in which all paths grow, look by look, with a rest at its end."""
    figure, courses, ends = draw_race(scene)
    steps = sorted({step for path in scene.paths.values() for step in path.steps})
    frames = [*steps, *[steps[-1]] * REST_FRAMES]
    title = figure.axes[0].set_title(f"Step {steps[-1]}", y=1.0)

    def show(number: int) -> None:
        now = frames[number]
        title.set_text(f"Step {now}")
        for line, when, points in courses:
            line.set_data(*points[torch.tensor(when) <= now].T)
        for dot, path in zip(ends, scene.paths.values(), strict=True):
            show_end(dot, path, bisect_right(path.steps, now) - 1, scene.window)

    moving = [title, *ends, *(course.line for course in courses)]
    return animations.animation_of(figure, moving, show, len(frames), progress)
