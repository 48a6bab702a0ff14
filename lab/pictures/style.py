"""How every figure looks: panels, colours, axes, legends."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import matplotlib.pyplot as plt
import numpy
from matplotlib import color_sequences, font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

# Ten colours that people with any colour vision can tell apart (Petroff 2021, arXiv:2107.02270).
Color: TypeAlias = tuple[float, float, float]
PALETTE: list[Color] = [to_rgb(color) for color in color_sequences["petroff10"]]

# The same optimizer has the same colour in every figure. Those whose curves come to lie on each
# other, RMSprop's and Adam's, differ in lightness too, for prints in grey.
COLORS = dict(zip(("SGD", "Momentum", "Adagrad", "RMSprop", "Adam"), PALETTE, strict=False))
COLORS |= {"Momentum 0.5": PALETTE[6], "Momentum 0.9": COLORS["Momentum"]}


def new_figure(n_panels: int = 1, n_rows: int | None = None) -> tuple[Figure, list[Axes]]:
    """Return a figure in our style and its panels, row by row: at most four in a row."""
    n_rows = n_rows or -(-n_panels // 4)
    n_columns = -(-n_panels // n_rows)
    width = 7 if n_panels == 1 else 11 if n_columns == 2 else 4 * n_columns
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        figsize=(width, 4.5 if n_rows == 1 else 3.7 * n_rows),
        layout="constrained",
        squeeze=False,
    )
    panels, others = list(grid.flat)[:n_panels], list(grid.flat)[n_panels:]
    for panel in others:
        panel.remove()
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def letter_color() -> str:
    """Return the colour of letters: black, or as the style sheet has it."""
    return plt.rcParams["text.color"]


def background_color() -> Color:
    """Return a colour near that of the ground, for what lies behind."""
    ground, letters = (to_rgb(plt.rcParams[name]) for name in ("axes.facecolor", "text.color"))
    red, green, blue = (0.83 * a + 0.17 * b for a, b in zip(ground, letters, strict=True))
    return red, green, blue


def colors_of(labels: Iterable[str]) -> dict[str, Color]:
    """Return a colour for each label: its own, or else one that no label here has.

    Colours that belong to no optimizer are given out first.
    """
    labels = list(labels)
    own: dict[str, Color] = {}
    for label in labels:
        color = COLORS.get(label.removesuffix("()"))
        if color and color not in own.values():
            own[label] = color
    free = [color for color in PALETTE if color not in own.values()] or PALETTE
    free = sorted(free, key=list(COLORS.values()).__contains__)
    others = [label for label in labels if label not in own]
    given = {label: free[i % len(free)] for i, label in enumerate(others)}
    return {label: (own | given)[label] for label in labels}


def log_scale(axis: Axis, subs: Sequence[int] = (1,)) -> None:
    """Make an axis logarithmic, with plain numbers at its ticks: `subs` times powers of ten.

    It stays linear where nothing drawn so far is above zero.
    """
    if not axis.get_minpos() < float("inf"):
        return
    set_scale = axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale
    set_scale("log", nonpositive="mask")
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())  # drawing them would take longer than all the rest


def median_band(
    axes: Axes,
    x: Sequence[float] | Tensor,
    quartiles: Tensor,
    label: str,
    color: Color,
    linewidth: float = 1.5,
) -> None:
    """Draw the median and a band between the quartiles: `quartiles` (3, n) over x (n,)."""
    low, median, high = quartiles.clamp(max=1e30)  # infinity, out of sight
    axes.plot(x, median, label=label, color=color, linewidth=linewidth)
    axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


def legend_label(label: str, lr: float | None, diverged: bool = False) -> str:
    """Return what the legend says of an optimizer: with its rate, unless the label names it."""
    rate = "" if lr is None or "lr=" in label else f", lr={lr:.3g}"
    return f"{label}{rate}{' (diverged)' if diverged else ''}"


def widths(n_lines: int) -> list[float]:
    """Return line widths for curves that may lie on each other: each later one is thinner."""
    return [0.8 + 0.7 * (n_lines - 1 - i) / max(1, n_lines - 1) for i in range(n_lines)]


def draw_lrs(
    axes: Axes,
    lr_histories: Mapping[str, Sequence[float]],
    colors: Mapping[str, Color],
    xlabel: str = "",
    lengths: Mapping[str, float] | None = None,
) -> None:
    """Draw learning rates in a slim panel below `axes`, which takes over its axis of steps.

    `lr_histories` maps a label to the learning rate at each step. With an `xlabel`, the panel has
    an axis of its own; a step is so long as `lengths` says, by default 1.
    """
    place = axes.get_subplotspec()
    assert place is not None  # a panel of new_figure
    places = place.subgridspec(2, 1, height_ratios=(4, 1))
    axes.set_subplotspec(places[0])
    panel = axes.figure.add_subplot(places[1], sharex=None if xlabel else axes)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    for (label, values), width in zip(lr_histories.items(), widths(len(lr_histories)), strict=True):
        length = (lengths or {}).get(label, 1)
        steps = [length * step for step in range(1, len(values) + 1)]
        panel.plot(steps, values, color=colors[label], linewidth=width, drawstyle="steps-pre")
    highest = [max(values) for values in lr_histories.values() if values]
    if highest and max(highest) > 30 * min(highest):
        log_scale(panel.yaxis)
    else:
        panel.set_ylim(bottom=0)
    panel.set(xlabel=xlabel or axes.get_xlabel(), ylabel="lr")
    if not xlabel:
        axes.tick_params(labelbottom=False)
        axes.set_xlabel("")


def limit_losses(axes: Axes, top: float, ends: Sequence[float]) -> None:
    """Limit the axis of losses: from 0 to `top`, or as far as the highest of the ends needs.

    Where the lowest end would lie flat on it, the axis is logarithmic instead. Losses that go below
    zero are drawn whole.
    """
    if any(end < 0 for end in ends):
        show_whole(
            axes, [value for line in axes.lines for value in numpy.asarray(line.get_ydata())]
        )
        return
    top = max(top, 1.2 * max(ends, default=0))
    lowest = min((end for end in ends if end > 0), default=top)
    if lowest < top / 50:
        log_scale(axes.yaxis, subs=(1, 2, 5))
        axes.set_ylim(lowest / 3, 10 * top)
    else:
        axes.set_ylim(0, top)


def show_whole(axes: Axes, losses: Iterable[float]) -> None:
    """Limit the axis of losses to all that are finite, on a linear scale."""
    finite = [loss for loss in losses if abs(loss) < 1e29]
    low, high = min(finite), max(finite)
    room = 0.05 * (high - low or 1)
    axes.set_yscale("linear")
    axes.set_ylim(low - room, high + room)


def legend(figure: Figure, lines: Sequence[Line2D]) -> None:
    """Name the lines above the panels, where the legend covers nothing.

    The letters of a wide figure, which is shown smaller, are larger. This is the last thing to
    draw: it gives a font to all that is written in Chinese.
    """
    width = figure.get_figwidth()
    size = plt.rcParams["font.size"] * max(1, width / 11)
    labels = [str(line.get_label()).replace("$", r"\$") for line in lines]  # no formulas
    key = figure.legend(
        lines,
        labels,
        loc="outside upper left",
        ncols=legend_columns([width_of(label) for label in labels], 10 * width / size),
        frameon=False,
        fontsize=size,
        handlelength=1.5,
        columnspacing=1.5,
    )
    for line in key.get_lines():
        line.set_linewidth(max(2.5, line.get_linewidth()))  # seen from the back row
    texts = [text for text in figure.findobj(Text) if is_chinese(text.get_text())]
    if texts:
        families = chinese_families()
        for text in texts:
            text.set_fontfamily(families)


def is_chinese(text: str) -> bool:
    """Whether it has any letters that are as wide as they are high."""
    return width_of(text) > len(text)


def width_of(text: str) -> int:
    """Return how many Latin letters wide a text is."""
    return sum(2 if letter >= "\u2e80" else 1 for letter in text)


# Files of fonts that hold Chinese letters, and most others.
CJK_FONTS = re.compile(
    "noto.*cjk|sourcehan|wqy|simhei|simsun|msyh|pingfang|stheiti|hiragino|arialuni|droidsansfall",
    re.IGNORECASE,
)


def chinese_families() -> list[str]:
    """Return the font families, and one with Chinese letters, if there is any.

    It is looked for among the files, since matplotlib's own list may be older than the font.
    """
    families = list(plt.rcParams["font.family"])
    for path in sorted(font_manager.findSystemFonts()):
        if CJK_FONTS.search(Path(path).name):
            font_manager.fontManager.addfont(path)
            return [*families, font_manager.FontProperties(fname=path).get_name()]
    return families


def legend_columns(lengths: Sequence[int], inches: float) -> int:
    """Return how many columns a legend of labels so long may have, to fit into the width."""
    for columns in range(len(lengths), 1, -1):
        each = numpy.array_split(lengths, columns)  # as matplotlib does
        if sum(max(column) + 6 for column in each) <= 12 * inches:
            return columns
    return 1
