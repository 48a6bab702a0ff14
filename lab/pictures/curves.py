"""How losses and learning rates are drawn against steps: smooth lines, bands, limits, captions."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

from lab.pictures.looks import FAINT, Look
from lab.pictures.style import ONCE, log_scale, make_room, once, without_frame
from lab.training.runs import Epochs, Runs
from lab.training.statistics import quartiles

import numpy
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor
from torch.nn.functional import avg_pool1d, pad

from tasks import TASKS, Task

Numbers: TypeAlias = Sequence[float] | Tensor

IN_SIGHT = 0.95  # of a line has to be inside the axes


# ---------------------------------------------------------------- lines


def running_mean(losses: Tensor, window: int) -> Tensor:
    """Return at each step the mean of the last `window` losses, of those there are: (steps, n).

    The table counts steps to a target on the same means.
    """
    columns = pad(losses.double().T, (window - 1, 0)).unsqueeze(1)
    sums = window * avg_pool1d(columns, window, stride=1).squeeze(1)
    counts = torch.arange(1, len(losses) + 1).clamp(max=window)
    return (sums / counts).T


def draw_history(
    axes: Axes, x: Numbers, losses: Tensor, window: int, label: str, look: Look
) -> None:
    """Draw mini-batch losses (steps, seeds): the mean of the last `window`, before each one, faint.

    Of several seeds, these are medians, with a band between the quartiles of the means.
    """
    if window > 1 and len(losses):
        faint = {"alpha": FAINT, "linestyle": "-", "zorder": 1.5, "label": once("each mini-batch")}
        width = 0.5 * look["linewidth"]
        axes.plot(x, finite(quartiles(losses)[1]), **look | faint | {"linewidth": width})
        losses = running_mean(losses, window)
    median_band(axes, x, quartiles(losses), label, look)


def median_band(axes: Axes, x: Numbers, bands: Tensor, label: str, look: Look) -> None:
    """Draw the median, and a band where the quartiles are finite: `bands` (3, n) over x (n,)."""
    low, median, high = map(finite, bands)
    axes.plot(x, median, label=label, **look)
    if (high > low).any():
        key = once("quartiles of the seeds")
        color = look["color"]
        axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0, label=key)


def draw_epochs(axes: Axes, x: Numbers, epochs: Epochs, label: str, look: Look) -> None:
    """Draw losses after each epoch: held out, with a band, and thin over the training set."""
    thin = {"linewidth": 0.5 * look["linewidth"], "label": once("training set")}
    axes.plot(x, finite(quartiles(epochs.losses)[1]), **look | thin)
    median_band(axes, x, quartiles(epochs.held_out), label, look)


AXES_OF_X = {"steps": "Steps", "epochs": "Epochs", "seconds": "Seconds of training a net"}


def length_of_step(run: Runs, x: str) -> float:
    """Return how long a step is on an axis of AXES_OF_X; in seconds, the mean of all it took."""
    if x == "seconds":
        return run.seconds / max(1, int(run.losses.isfinite().sum()))
    return 1 / run.steps_per_epoch if x == "epochs" else 1


def finite(values: Tensor) -> Tensor:
    """Return the values, with nan, which is not drawn, where they are infinite."""
    return values.masked_fill(~values.isfinite(), math.nan)


def named_lines(axes: Axes) -> list[Line2D]:
    """Return the lines that a legend names one by one."""
    return [line for line in axes.lines if not str(line.get_label()).startswith((ONCE, "_child"))]


# ---------------------------------------------------------------- limits


def limit_losses(axes: Axes, top: float = 0.0, log: bool = False) -> None:
    """Limit the axis of losses to its lines, and mark at its edge where one is outside.

    From 0 to `top` where nearly all of each line is there, and no end too flat. Otherwise it holds
    all lines whole, but for those that diverge; logarithmic if they span more than a decade, or if
    asked for; from zero if any comes near to it.
    """
    curves = [numpy.asarray(line.get_ydata(), dtype=float) for line in named_lines(axes)]
    calm = [curve for curve in curves if len(curve) and numpy.isfinite(curve).all()]
    values = values_in_sight(curves, calm)
    if len(values):
        low, high = values.min(), values.max()
        above = values[values > 0]
        is_small = all((curve <= top).mean() >= IN_SIGHT for curve in calm)
        is_flat = any(curve[-1] < top / 50 for curve in calm)
        if low >= 0 and calm and is_small and not is_flat and not log:
            low, high = 0.0, top
        elif low >= 0 and len(above) and (log or high > 10 * above.min()):
            log_scale(axes.yaxis)
            low, high = above.min() / 1.25, 1.25 * high
        else:
            room = 0.05 * (high - low or abs(high) or 1)
            is_far_from_zero = low < 0 or low > high / 2
            low, high = low - room if is_far_from_zero else 0.0, high + room
        axes.set_ylim(low, high, auto=True)  # a later change of scale finds limits of its own
    mark_edges(axes)


def values_in_sight(
    curves: Sequence[numpy.ndarray], calm: Sequence[numpy.ndarray]
) -> numpy.ndarray:
    """Return all values of the calm curves, and those of the others that are no higher.

    Where none is calm, those of at most twice the highest start.
    """
    values = numpy.concatenate([*curves, []])
    values = values[numpy.isfinite(values)]
    starts = [2 * curve[0] for curve in curves if len(curve) and numpy.isfinite(curve[0])]
    limit = max(numpy.concatenate(calm)) if calm else max(starts, default=math.inf)
    return values[values <= limit] if (values <= limit).any() else values


def mark_edges(axes: Axes) -> None:
    """Mark at the edge of the axes where a line begins to be above or below them, or diverges."""
    low, high = axes.get_ylim()
    for line in named_lines(axes):
        x, y = (numpy.asarray(data, dtype=float) for data in line.get_data())
        above, below = ~(y <= high), y < low
        for is_outside, edge, marker in ((above, 1, "^"), (below, 0, "v")):
            if is_outside.any():
                first = int(is_outside.argmax())
                axes.plot(
                    x[first],
                    edge,
                    marker=marker,
                    linestyle="none",
                    color=line.get_color(),
                    label=once("off the axis"),
                    transform=axes.get_xaxis_transform(),
                    clip_on=False,
                    scaley=False,
                )


# ---------------------------------------------------------------- learning rates


def draw_lrs(
    axes: Axes,
    lr_histories: Mapping[str, Sequence[float]],
    looks: Mapping[str, Look],
    xlabel: str = "",
    lengths: Mapping[str, float] | None = None,
) -> None:
    """Draw learning rates in a slim panel below `axes`, which takes over its axis of steps.

    `lr_histories` maps a label to the learning rate at each step. With an `xlabel`, the panel has
    an axis of its own; a step is so long as `lengths` says, by default 1.
    """
    place = axes.get_subplotspec()
    assert place is not None  # a panel of new_figure
    make_room(axes.figure, place.get_gridspec().nrows, 24)
    places = place.subgridspec(2, 1, height_ratios=(3, 1))
    axes.set_subplotspec(places[0])
    panel = axes.figure.add_subplot(places[1], sharex=None if xlabel else axes)
    without_frame(panel)
    for label, values in lr_histories.items():
        length = (lengths or {}).get(label, 1)
        steps = [length * step for step in range(1, len(values) + 1)]
        panel.plot(steps, values, **looks[label], drawstyle="steps-pre")
    highest = [max(values) for values in lr_histories.values() if values]
    if highest and max(highest) > 30 * min(highest):
        log_scale(panel.yaxis)
    else:
        panel.set_ylim(bottom=0)
    panel.set(xlabel=xlabel or axes.get_xlabel(), ylabel="lr")
    if not xlabel:
        axes.tick_params(labelbottom=False)
        axes.set_xlabel("")


# ---------------------------------------------------------------- words


def names_with_rates(
    lrs: Mapping[str, float | None], diverged: Collection[str] = ()
) -> tuple[dict[str, str], str]:
    """Return each label as the legend has it, and the learning rate if all share one, in words.

    Otherwise the legend names it, unless the label does.
    """
    rates = set(lrs.values())
    shared = rates.pop() if len(rates) == 1 else None
    names = {
        label: legend_label(label, None if shared else lr, label in diverged)
        for label, lr in lrs.items()
    }
    return names, f"lr {shared:.3g}" if shared else ""


def legend_label(label: str, lr: float | None, diverged: bool = False) -> str:
    """Return what the legend says of an optimizer: with its rate, unless the label names it."""
    rate = "" if lr is None or "lr=" in label else f", lr={lr:.3g}"
    return f"{label}{rate}{' (diverged)' if diverged else ''}"


def caption_of(runs: Runs, *more: str) -> str:
    """Return what is compared, in a line: task, seeds, batch size, and what else there is."""
    seeds = list(dict.fromkeys(training.seed for training in runs.trainings))
    many = f"{len(seeds)} seeds ({seeds[0]} to {seeds[-1]})"
    words = [
        name_of_task(runs.task),
        f"seed {seeds[0]}" if len(seeds) == 1 else many,
        f"batch size {runs.task.batch_size}",
        *more,
    ]
    return ", ".join(filter(None, words))


def name_of_task(task: Task) -> str:
    """Return how a task was named, or its name in tasks.py, or nothing."""
    parts = task.make_data, task.make_net
    known = (name for name, one in TASKS.items() if (one.make_data, one.make_net) == parts)
    return task.name or next(known, "")
