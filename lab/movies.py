"""How a figure moves, and how that is saved: as a .gif, a page with a slider, or an .mp4."""

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from lab.plotting import whole_file

import matplotlib.pyplot as plt
from matplotlib import animation
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

AREA = 460_000  # of a frame at most, in pixels: a larger one makes too large a .gif


def movie(
    figure: Figure,
    moving: Iterable[Artist],
    show: Callable[[int], None],
    n_frames: int,
    progress: Callable[[Iterable, int], Iterable],
    fps: float = 12,
) -> animation.FuncAnimation:
    """Return an animation of the figure, in which `show(number)` moves the `moving` artists.

    The figure leaves pyplot: it is there to be saved, and opens no window.
    """
    freeze(figure, moving)
    return animation.FuncAnimation(
        figure,
        show,
        frames=lambda: iter(progress(range(n_frames), n_frames)),
        save_count=n_frames,
        interval=1000 / fps,
        cache_frame_data=False,
    )


class Canvas(FigureCanvasAgg):
    """A canvas that is drawn where it is saved, and not once before."""

    def draw_idle(self, *args, **kwargs) -> None:
        pass


def freeze(figure: Figure, moving: Iterable[Artist]) -> None:
    """Turn all of the figure but the `moving` artists into one image, which is quick to draw."""
    plt.close(figure)
    Canvas(figure)
    moving = list(moving)
    width, height = figure.get_size_inches()
    figure.set_dpi(min(80, (AREA / (width * height)) ** 0.5))
    figure.canvas.draw()  # so that what moves has its room, too
    figure.set_layout_engine("none")
    for artist in moving:
        artist.set_visible(False)
    figure.canvas.draw()
    background = figure.canvas.buffer_rgba()
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

    def finish(self) -> None:
        last = self._frames[-1]
        ground = last.getpixel((0, 0))
        palette = last.quantize(128, Image.Quantize.MAXCOVERAGE)
        values = palette.getpalette()
        colors = [values[i : i + 3] for i in range(0, len(values), 3)]
        colors = [ground if math.dist(color, ground) < 16 else color for color in colors]
        palette.putpalette([value for color in colors for value in color])
        self._frames = [
            frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self._frames
        ]
        super().finish()


def writer_for(path: Path, fps: float = 12) -> animation.AbstractMovieWriter:
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


def save_movie(film: animation.FuncAnimation, path: Path | str) -> None:
    """Save the animation whole or not at all; the extension of `path` picks the format.

    An .html is one self-contained page with play, pause and a slider.
    """
    path, fps = Path(path), 1000 / film.event_source.interval
    frames = {"animation.frame_format": "jpeg"}  # of a page, half as large as png
    with whole_file(path) as temporary, plt.rc_context(frames):
        film.save(temporary, writer_for(path, fps), dpi="figure")
        if path.suffix.lower() == ".html":
            page = temporary.read_text(encoding="utf-8")
            rules = "".join(f'.fa-{k}::before {{content: "{v}"}} ' for k, v in ICONS.items())
            page = re.sub(r"<link[^>]*font-awesome[^>]*>", f"<style>{rules}</style>", page)
            head = f'<!DOCTYPE html><meta charset="utf-8"><title>{path.stem}</title>'
            temporary.write_text(head + page, encoding="utf-8")
