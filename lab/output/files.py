"""How files are saved: whole or not at all."""

import csv
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.pictures.animations import self_contained, writer_for

import matplotlib.pyplot as plt
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure
from PIL import Image


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


@contextmanager
def missing_letters() -> Iterator[list[str]]:
    """Yield a list that says afterwards, in a sentence, if letters were drawn as empty boxes."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "Glyph .* missing from")
        warnings.filterwarnings("ignore", ".*is non-interactive, and thus cannot be shown")
        yield said
    if any("Glyph" in str(warning.message) for warning in caught):
        said.append("some letters are boxes: install a font that has them, as Noto Sans CJK")


def save_figure(figure: Figure, path: Path | str, task: str = "") -> None:
    """Save the figure whole or not at all; the extension of `path` picks the format.

    It has 150 dots an inch, or as many as a style sheet says. A .png keeps in itself of which task
    it is: see `task_of`.
    """
    path = Path(path)
    kind, dpi = path.suffix[1:].lower(), plt.rcParams["savefig.dpi"]
    metadata = {"Task": task} if kind == "png" else None
    with whole_file(path) as temporary:
        figure.savefig(
            temporary, format=kind, dpi=150 if dpi == "figure" else dpi, metadata=metadata
        )


def task_of(path: Path) -> str:
    """Return of which task a figure is that `save_figure` has saved; "" where that is unknown."""
    try:
        with Image.open(path) as image:
            return str(image.info.get("Task", ""))
    except (OSError, ValueError):  # none is there, or no picture
        return ""


def save_animation(animation: FuncAnimation, path: Path | str) -> None:
    """Save the animation whole or not at all; the extension of `path` picks the format.

    An .html is one self-contained page with play, pause and a slider.
    """
    path, fps = Path(path), round(1000 / animation.event_source.interval)
    # The frames of a page are half as large as with png.
    settings = {"animation.frame_format": "jpeg", "savefig.dpi": "figure"}
    with whole_file(path) as temporary, plt.rc_context(settings):
        animation.save(temporary, writer_for(path, fps))
        if path.suffix.lower() == ".html":
            page = temporary.read_text(encoding="utf-8")
            temporary.write_text(self_contained(page, path.stem), encoding="utf-8")


def write_csv(path: Path | str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV whole or not at all. Floats are written so that they read back exactly."""
    with (
        whole_file(Path(path)) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def show_figures() -> None:
    """Show the figures wherever matplotlib's backend can, and wait until they are closed."""
    with missing_letters():  # and without the warning that a backend shows nothing
        plt.show()
