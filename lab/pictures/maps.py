"""A map of the loss over the learning rate and one more hyperparameter, for each optimizer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lab.pictures import style
from lab.pictures.looks import ground_color, letter_color
from lab.training.hyperparameter import in_short
from lab.training.maps import Map

import matplotlib.pyplot as plt
import numpy
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patheffects import withStroke

COLORS = "viridis_r"  # the lower a loss, the lighter; what diverged has none


def draw_maps(panels: Sequence[Axes], maps: Mapping[str, Map]) -> None:
    """Draw a map for each optimizer, and one bar that says what loss a colour is.

    A value has a row, with its loss at each rate: a median over the seeds that choose. Losses above
    that before training have one colour. Where half of the seeds diverged there is none; a cross is
    the larger, the more of them did.
    """
    every = numpy.concatenate([found.medians.flatten() for found in maps.values()])
    before = next(iter(maps.values())).losses[:1].nanmedian().item()
    low, high = limits_of(every[numpy.isfinite(every)], before)
    norm = LogNorm(low, high) if low > 0 else Normalize(low, high)
    for axes, (label, found) in zip(panels, maps.items(), strict=True):
        mesh = draw_cells(axes, found, norm)
        draw_marks(axes, found)
        axes.set_title(label, parse_math=False)
        axes.set(xlabel="Learning rate", ylabel=found.over.name)
    place = panels[0].get_subplotspec()
    assert place is not None  # a panel of new_figure
    most = max(len(found.sweeps) for found in maps.values())
    style.make_room(panels[0].figure, place.get_gridspec().nrows, 10 + 2 * most)
    seeds = len(found.seeds)
    words = "Held-out loss" if seeds == 1 else f"Held-out loss, median of {seeds} seeds"
    log: Any = {"ticks": style.LogTicks(), "format": style.PlainNumbers()} if low > 0 else {}
    bar = panels[0].figure.colorbar(mesh, ax=list(panels), label=words, extend="max", **log)
    bar.ax.minorticks_off()


def limits_of(losses: numpy.ndarray, before: float) -> tuple[float, float]:
    """Return the lowest and the highest loss that have a colour of their own."""
    low = losses.min() if len(losses) else 1.0
    high = min(losses.max(), before) if math.isfinite(before) and len(losses) else low
    return low, high if high > low else low + (abs(low) or 1)


def draw_cells(axes: Axes, found: Map, norm: Normalize) -> QuadMesh:
    """Draw a cell for each rate and value: rates on a logarithmic axis, values a row each."""
    lrs = numpy.asarray(found.lrs)
    step = (lrs[-1] / lrs[0]) ** (0.5 / (len(lrs) - 1)) if len(lrs) > 1 else 2
    edges = [lrs[0] / step, *(lrs[1:] * lrs[:-1]) ** 0.5, lrs[-1] * step]
    values = list(found.sweeps)
    losses = numpy.ma.masked_invalid(found.medians.numpy())
    rows = numpy.arange(len(values) + 1) - 0.5
    mesh = axes.pcolormesh(edges, rows, losses, norm=norm, cmap=COLORS)
    axes.grid(visible=False)
    style.log_scale(axes.xaxis)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(rows[0], rows[-1]))
    axes.set_yticks(range(len(values)), [in_short(v) for v in values], parse_math=False)
    return mesh


def draw_marks(axes: Axes, found: Map) -> None:
    """Mark the best cell, the default, what diverged, and the limit of stability."""
    ink = letter_color()
    width = plt.rcParams["lines.linewidth"]
    halo = [withStroke(linewidth=2.5 * width, foreground=ground_color())]
    look: Any = {"color": ink, "path_effects": halo, "scalex": False, "scaley": False}
    letter = plt.rcParams["font.size"]
    mark: Any = look | {"linestyle": "none", "markersize": 0.9 * letter, "clip_on": False}
    values = list(found.sweeps)
    shares = found.shares_diverged.flatten()
    if shares.any():
        x, y = numpy.meshgrid(found.lrs, range(len(values)))
        words = style.once("some diverged")
        axes.scatter(
            x, y, s=0.45 * letter**2 * shares, marker="x", color=ink, path_effects=halo, label=words
        )
    if found.limits:
        words = style.once("limit of full-batch SGD")
        rows = [k for k, value in enumerate(found.over.values) if value in values]
        limits = [found.limits[k] for k in rows]
        axes.plot(limits, range(len(rows)), **look, linewidth=1.4 * width, label=words)
    if not found.diverged:
        words = style.once("best")
        axes.plot(found.best_lr, values.index(found.value), "o", **mark, label=words)
    if (row := row_of(found, values)) is not None:
        assert found.default
        words = style.once("default")
        axes.plot(found.default[0], row, "s", **mark, markerfacecolor="none", label=words)


def row_of(found: Map, values: Sequence[Any]) -> float | None:
    """Return at which height the default lies: between two rows, if need be; None if beyond."""
    if not found.default or not found.lrs[0] <= found.default[0] <= found.lrs[-1]:
        return None
    value = found.default[1]
    if value in values:
        return values.index(value)
    if not found.over.has_numbers or not isinstance(value, int | float):
        return None
    row = float(numpy.interp(value, values, range(len(values)), math.nan, math.nan))
    return row if math.isfinite(row) else None
