"""How a figure moves: as a .gif, a page with a slider, or an .mp4."""

import re
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from lab.outcome import Progress

import matplotlib.pyplot as plt
import numpy
from matplotlib import animation
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

MAX_PIXELS = 460_000  # of a frame: a larger one makes too large a .gif


def animation_of(
    figure: Figure,
    moving: Iterable[Artist],
    show: Callable[[int], None],
    n_frames: int,
    progress: Progress,
    fps: int = 12,
) -> animation.FuncAnimation:
    """Return an animation of the figure, in which `show(number)` moves the `moving` artists.

    The figure leaves pyplot: it is there to be saved, and opens no window.
    """
    moving = list(moving)
    freeze(figure, moving)

    def draw(number: int) -> list[Artist]:
        show(number)
        return moving

    def numbers() -> Generator[int, None, None]:
        yield from progress(range(n_frames), n_frames, "frame")

    return animation.FuncAnimation(
        figure,
        draw,
        frames=numbers,
        save_count=n_frames,
        interval=1000 / fps,
        cache_frame_data=False,
    )


class StillCanvas(FigureCanvasAgg):
    """A canvas that is drawn where it is saved, and not once before."""

    def draw_idle(self, *args: Any, **kwargs: Any) -> None:
        pass


def freeze(figure: Figure, moving: Sequence[Artist]) -> None:
    """Turn all of the figure but the `moving` artists into one image, which is quick to draw."""
    plt.close(figure)
    canvas = StillCanvas(figure)
    width, height = figure.get_size_inches()
    figure.set_dpi(min(80, (MAX_PIXELS / (width * height)) ** 0.5))
    canvas.draw()  # so that what moves has its room, too
    figure.set_layout_engine("none")
    for artist in moving:
        artist.set_visible(False)
    canvas.draw()
    background = canvas.buffer_rgba()
    for axes in figure.axes:
        for artist in axes.get_children():
            artist.set_visible(artist in moving)
    for key in figure.legends:
        key.set_visible(False)
    figure.figimage(background, zorder=-1)


class GifWriter(animation.PillowWriter):
    """A writer of .gif with one palette for all frames, which makes it far smaller.

    It is that of the last frame, and reaches its extremes: of a map it makes bands of height.
    Pillow does not always take the nearest colour: the ground has no near one, and so stays.
    """

    _frames: list[Image.Image]

    def finish(self) -> None:
        last = self._frames[-1].convert("RGB")
        ground = numpy.asarray(last)[0, 0]
        palette = last.quantize(128, Image.Quantize.MAXCOVERAGE)
        colors = numpy.array(palette.getpalette()).reshape(-1, 3)
        colors[numpy.linalg.norm(colors - ground, axis=1) < 16] = ground
        palette.putpalette(colors.flatten().tolist())
        self._frames = [
            frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self._frames
        ]
        super().finish()


def writer_for(path: Path, fps: int = 12) -> animation.AbstractMovieWriter:
    """Return the writer for a .gif, .html or .mp4; ValueError says why there is none."""
    match path.suffix.lower():
        case ".gif":
            return GifWriter(fps)
        case ".html":
            return animation.HTMLWriter(fps, embed_frames=True)
        case ".mp4":
            if not animation.FFMpegWriter.isAvailable():
                raise ValueError("an .mp4 needs ffmpeg, which is not installed")
            return animation.FFMpegWriter(fps)
    raise ValueError(f"{str(path)!r} is no .gif, .html or .mp4")


# What a page made by matplotlib's HTMLWriter fetches from elsewhere is only its icons.
ICONS = {
    "minus": "-",
    "fast-backward": "|◀",
    "step-backward": "◁",
    "play": "▶",
    "flip-horizontal": "◀",
    "pause": "||",
    "step-forward": "▷",
    "fast-forward": "▶|",
    "plus": "+",
}


def self_contained(page: str, title: str) -> str:
    """Return a page of matplotlib's HTMLWriter as one that fetches nothing."""
    rules = "".join(f'.fa-{k}::before {{content: "{v}"}} ' for k, v in ICONS.items())
    page = re.sub(r"<link[^>]*font-awesome[^>]*>", f"<style>{rules}</style>", page)
    return f'<!DOCTYPE html><meta charset="utf-8"><title>{title}</title>{page}'
