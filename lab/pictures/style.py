"""How every figure is laid out: panels, logarithmic axes, a legend, and letters that fit.

What a style sheet sets is obeyed: size, letters, widths of lines, colours.
"""

import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lab.pictures.looks import caption_color, letter_color

import matplotlib.pyplot as plt
import numpy
from matplotlib import font_manager, rcParamsDefault
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import Formatter, LogLocator, MaxNLocator, NullLocator

ONCE = "_once: "  # before the label of what the legend names once for all, in the letters' colour
MIN_PANEL = 20, 15  # the width and height of a panel, in letters


# ---------------------------------------------------------------- panels


def new_figure(n_panels: int = 1, n_rows: int | None = None) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, row by row: at most four in a row, or as many as have room.

    Where they do not fill the rows, the first one is wider.
    """
    letter = plt.rcParams["font.size"] / 72
    own_size = plt.rcParams["figure.figsize"]
    width, height = own_size
    in_a_row = max(1, min(4, int(width / (MIN_PANEL[0] * letter))))
    if own_size == rcParamsDefault["figure.figsize"]:
        in_a_row = 4
    n_rows = max(n_rows or 1, -(-n_panels // in_a_row))
    n_columns = -(-n_panels // n_rows)
    if own_size == rcParamsDefault["figure.figsize"]:
        width = 7 if n_columns == 1 else 11 if n_columns == 2 else 4 * n_columns
        height = 4.5 if n_rows == 1 else 3.7 * n_rows
    figure = plt.figure(figsize=(width, height), layout="constrained")
    make_room(figure, n_rows, MIN_PANEL[1])
    grid = figure.add_gridspec(n_rows, n_columns)
    spare = n_rows * n_columns - n_panels
    panels = [figure.add_subplot(grid[0, : 1 + spare])]
    panels += [figure.add_subplot(grid[divmod(spare + k, n_columns)]) for k in range(1, n_panels)]
    for panel in panels:
        without_frame(panel)
    return figure, panels


def make_room(figure: Figure | SubFigure, n_rows: int, letters: int) -> None:
    """Make a figure higher if need be, that each row is as high as so many letters."""
    height = n_rows * letters * plt.rcParams["font.size"] / 72
    if isinstance(figure, Figure):
        figure.set_figheight(max(figure.get_figheight(), height))


def without_frame(axes: Axes) -> None:
    """Give a panel a faint grid, and no frame above or to the right."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


# ---------------------------------------------------------------- logarithmic axes


class LogTicks(LogLocator):
    """As many of 1, 2 and 5 times the powers of ten as have room; plain ticks within a decade."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        assert isinstance(self.axis, Axis)
        is_wide = isinstance(self.axis, XAxis)
        room = max(2, int(self.axis.get_tick_space() * (0.6 if is_wide else 1)))
        if not 0 < vmin < vmax or vmax / vmin < 10:
            return MaxNLocator(min(room, 6), steps=[1, 2, 5, 10]).tick_values(vmin, vmax)
        for subs in ((1.0, 2.0, 5.0), (1.0,)):
            self.set_params(subs=subs, numticks=room)
            ticks = numpy.asarray(super().tick_values(vmin, vmax))
            if 2 <= ((vmin <= ticks) & (ticks <= vmax)).sum() <= room:
                break
        return ticks


class PlainNumbers(Formatter):
    """Plain numbers where all of the axis has plain ones, or else powers of ten."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        assert isinstance(self.axis, Axis)
        low, high = sorted(self.axis.get_view_interval())
        if x == 0 or (low > 5e-5 and high < 2e5):
            return f"{x:g}"
        digits, _, exponent = f"{x:.0e}".partition("e")
        factor = "" if digits == "1" else rf"{digits}\times"
        return f"${factor}10^{{{int(exponent)}}}$"


def log_scale(axis: Axis) -> None:
    """Make an axis logarithmic. It stays linear where nothing drawn so far is above zero."""
    if not axis.get_minpos() < float("inf"):
        return
    set_scale = axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale
    set_scale("log", nonpositive="mask")
    axis.set_major_locator(LogTicks())
    axis.set_major_formatter(PlainNumbers())
    axis.set_minor_locator(NullLocator())  # drawing them would take longer than all the rest


# ---------------------------------------------------------------- legend and letters


def once(words: str) -> str:
    """Return the label of what the legend names once for all lines, as a band or a mark."""
    return ONCE + words


def legend(figure: Figure, lines: Sequence[Line2D], caption: str = "") -> None:
    """Name the lines, and all that has a label of `once`, above the panels; the caption is below.

    This is the last thing to draw: all letters are made to fit, and have a font for Chinese. Where
    the legend takes more than a third of the height, the figure grows.
    """
    labels = [str(line.get_label()).replace("$", r"\$") for line in lines]  # no formulas
    for words, key in keys_of(figure).items():
        lines, labels = [*lines, key], [*labels, words]  # type: ignore[list-item]
    families = families_for(figure, [*labels, caption])
    width = figure.get_figwidth()
    taken = 0.0
    if caption:
        size = 0.85 * points("legend.fontsize")
        text = figure.supxlabel(
            caption, x=0.006, ha="left", size=size, color=caption_color(), family=families
        )
        wrap(text, 0.97 * width)
        taken = inches(text)[1]
    if labels:
        size, n_columns, height = room_for(figure, labels, families)
        key = figure.legend(
            lines,
            labels,
            loc="outside upper left",
            ncols=n_columns,
            frameon=False,
            prop=FontProperties(family=families, size=size),
            handlelength=HANDLE,
            columnspacing=BETWEEN,
        )
        taken += height
    figure.set_figheight(max(figure.get_figheight(), taken + 2 / 3 * figure.get_figheight()))
    fit_letters(figure, taken)


HANDLE, BETWEEN, AROUND = 2.6, 1.4, 1.2  # of a legend, in its letters


def room_for(
    figure: Figure, labels: Sequence[str], families: list[str]
) -> tuple[float, int, float]:
    """Return the size of letters, the columns and the height of a legend that fits the width.

    The letters of a wide figure, which is shown smaller, are larger; those of a label that is
    wider than the figure are smaller.
    """
    width = figure.get_figwidth()
    is_free = plt.rcParams["figure.figsize"] == rcParamsDefault["figure.figsize"]
    size = points("legend.fontsize") * (max(1, width / 11) if is_free else 1)
    probe = Text(figure=figure, size=size, family=families)
    lengths = []
    for label in labels:
        probe.set_text(label)
        lengths.append(inches(probe)[0])
    letter = size / 72
    widest = max(lengths) + (HANDLE + 0.8 + AROUND + 1) * letter
    shrink = min(1, width / widest)
    columns = columns_that_fit([shrink * x for x in lengths], width, shrink * letter)
    n_rows = -(-len(labels) // columns)
    return shrink * size, columns, (1.7 * n_rows + AROUND) * shrink * letter


def columns_that_fit(lengths: Sequence[float], width: float, letter: float) -> int:
    """Return how many columns a legend of labels so long may have, all in inches."""
    for n_columns in range(len(lengths), 1, -1):
        parts = numpy.array_split(lengths, n_columns)  # as matplotlib does
        each = sum(max(part) + (HANDLE + 0.8 + BETWEEN) * letter for part in parts)
        if each + (AROUND + 1 - BETWEEN) * letter <= width:
            return n_columns
    return 1


def keys_of(figure: Figure) -> dict[str, Artist]:
    """Return a key for each label of `once`, in the colour of letters."""
    keys: dict[str, Artist] = {}
    for artist in figure.findobj(lambda artist: str(artist.get_label()).startswith(ONCE)):
        words = str(artist.get_label()).removeprefix(ONCE)
        if words not in keys:
            ink = letter_color()
            if isinstance(artist, Line2D):
                keys[words] = line = Line2D([], [])
                line.update_from(artist)
                line.set(color=ink)
                if line.get_markerfacecolor() != "none":
                    line.set_markerfacecolor(ink)
            elif isinstance(artist, PathCollection):
                (shape, *_) = artist.get_paths()
                side = max(4, artist.get_sizes().max() ** 0.5)
                style: Any = {"marker": shape, "markersize": side, "linestyle": "none"}
                keys[words] = Line2D([], [], **style, color=ink)
            else:
                keys[words] = Patch(facecolor=ink, alpha=0.25, linewidth=0)
    return keys


def fit_letters(figure: Figure, taken: float) -> None:
    """Make titles and the names of axes smaller where they are longer than their panel.

    Legend and caption take so many inches of the height.
    """
    width, height = figure.get_size_inches()
    for axes in figure.axes:
        place = axes.get_subplotspec()
        if place is None:
            continue
        box = place.get_position(figure)
        wide, high = box.width / 0.775 * width, box.height / 0.77 * (height - taken)
        for text, room in (
            (axes.title, 0.85 * wide),
            (axes.xaxis.label, 0.85 * wide),
            (axes.yaxis.label, 0.8 * high - points("font.size") / 72),
        ):
            if text.get_text():
                length = max(inches(text)) if text is axes.yaxis.label else inches(text)[0]
                text.set_fontsize(text.get_fontsize() * min(1, room / length))


def inches(text: Text) -> tuple[float, float]:
    """Return how wide and how high a text is drawn."""
    box = text.get_window_extent()
    figure = text.get_figure(root=True)
    assert figure is not None
    return box.width / figure.dpi, box.height / figure.dpi


def points(name: str) -> float:
    """Return the size of letters that a setting of matplotlib has."""
    return FontProperties(size=plt.rcParams[name]).get_size_in_points()


def wrap(text: Text, width: float) -> None:
    """Break a text into lines no wider than `width` inches."""
    words = text.get_text()
    share = width / max(inches(text)[0], width)
    while share < 1 and inches(text)[0] > width and share > 0.05:
        text.set_text("\n".join(textwrap.wrap(words, max(1, int(share * len(words))))))
        share *= 0.9


# ---------------------------------------------------------------- Chinese


def families_for(figure: Figure, texts: Iterable[str]) -> list[str]:
    """Return the font families, with one for Chinese, which all of the figure gets, if need be."""
    families = list(plt.rcParams["font.family"])
    drawn = [text for text in figure.findobj(Text) if is_chinese(text.get_text())]
    if drawn or any(map(is_chinese, texts)):
        families = chinese_families()
        for text in drawn:
            text.set_fontfamily(families)
    return families


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
            return [*families, FontProperties(fname=path).get_name()]
    return families
