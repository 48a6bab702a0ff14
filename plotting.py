"""How every figure looks, and how files are saved: whole or not at all."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Ten colours that people with any colour vision can tell apart (Petroff 2021, arXiv:2107.02270).
PALETTE = color_sequences["petroff10"]

# The same optimizer has the same colour in every figure.
COLORS = dict(zip(("SGD", "Momentum", "RMSprop", "Adagrad", "Adam"), PALETTE, strict=False))


def new_figure(n_panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, side by side, in our style."""
    width = 7 if n_panels == 1 else 5.5 * n_panels
    figure, axes = plt.subplots(
        1, n_panels, figsize=(width, 4.5), layout="constrained", squeeze=False
    )
    for panel in axes[0]:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, list(axes[0])


def colors(labels: Iterable[str]) -> dict[str, str]:
    """Return a colour for each label: its own if it has one, else the next one nobody has."""
    labels = list(labels)
    taken = {COLORS[label] for label in labels if label in COLORS}
    free = [color for color in PALETTE if color not in taken] or list(PALETTE)
    others = [label for label in labels if label not in COLORS]
    rest = {label: free[i % len(free)] for i, label in enumerate(others)}
    return {label: COLORS.get(label) or rest[label] for label in labels}


def legend(figure: Figure, axes: Axes) -> None:
    """Name the lines of `axes` above the panels, where the legend covers nothing."""
    labels = [line.get_label().replace("$", r"\$") for line in axes.lines]  # no formulas
    widest = max(map(len, labels), default=0) + 8
    columns = max(1, int(12 * figure.get_figwidth()) // widest)
    figure.legend(axes.lines, labels, loc="outside upper left", ncols=columns, frameon=False)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, else it is removed."""
    path = path.resolve()
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_figure(figure: Figure, path: Path) -> None:
    """Save the figure whole or not at all; the extension of `path` picks the format."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=150)


def show_figure(figure: Figure) -> None:
    """Open a window where there is a screen, and wait until it is closed."""
    if figure.canvas.required_interactive_framework:
        plt.show()
