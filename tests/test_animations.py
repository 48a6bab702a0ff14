"""What moves, what stands still, and how it is saved."""

from pathlib import Path

from lab.outcome import no_progress
from lab.output.files import save_animation
from lab.pictures import animations, style

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import animation as mpl
from matplotlib.colors import to_rgb
from PIL import Image


def test_what_does_not_move_is_frozen_into_one_image():
    figure, (axes,) = style.new_figure()
    (still,) = axes.plot([0, 1], [1, 2], color="blue")
    (moving,) = axes.plot([0, 1], [2, 1], color="red")
    style.legend(figure, [still, moving])
    animations.freeze(figure, [moving])
    assert moving.get_visible()
    assert not still.get_visible()
    assert not figure.legends[0].get_visible()
    assert not plt.get_fignums()
    (image,) = figure.images
    pixels = image.get_array()[..., :3].reshape(-1, 3).tolist()
    assert [0, 0, 255] in pixels
    assert pixels.count([255, 0, 0]) < 100  # its key in the legend, and not the line
    before = axes.get_position().bounds
    axes.set_title("a title that would take room")
    figure.canvas.draw()
    assert axes.get_position().bounds == before


def test_an_animation_format_needs_its_writer(monkeypatch):
    writer = mpl.FFMpegWriter
    for there in (True, False):
        monkeypatch.setattr(writer, "isAvailable", classmethod(lambda cls, there=there: there))
        if there:
            assert isinstance(animations.writer_for(Path("a.MP4"), 5), writer)
        else:
            with pytest.raises(ValueError, match="ffmpeg"):
                animations.writer_for(Path("a.mp4"), 5)
    gif = animations.writer_for(Path("a.gif"), 5)
    assert isinstance(gif, mpl.PillowWriter)
    assert gif.fps == 5
    page = animations.writer_for(Path("a.html"), 7)
    assert isinstance(page, mpl.HTMLWriter)
    assert page.embed_frames
    with pytest.raises(ValueError, match=r"'a\.avi' is no \.gif"):
        animations.writer_for(Path("a.avi"), 5)


def test_an_animation_is_saved_whole_as_a_page_that_fetches_nothing(tmp_path):
    figure, (axes,) = style.new_figure()
    (line,) = axes.plot([0, 1], [0, 1])
    style.legend(figure, [line])
    animation = animations.animation_of(
        figure, iter([line]), lambda i: line.set_data([0, i], [0, i]), 3, no_progress
    )
    assert line.get_visible()
    save_animation(animation, str(tmp_path / "a.html"))
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.startswith('<!DOCTYPE html><meta charset="utf-8"><title>a</title>')
    assert page.count("data:image/jpeg;base64,") == 3
    assert "font-awesome.min.css" not in page
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_a_gif_is_small_and_keeps_its_colours(tmp_path):
    figure, (axes,) = style.new_figure()
    height = np.hypot(*np.mgrid[-1:1:100j, -1:1:100j])
    image = axes.imshow(height)
    (line,) = axes.plot([0, 99], [0, 99], color="red", linewidth=5)
    style.legend(figure, [line])

    def show(number):
        image.set_data(np.roll(height, number, axis=0))
        sizes.append(figure.get_size_inches() * figure.dpi)

    sizes = []
    animation = animations.animation_of(figure, [image, line], show, 9, no_progress, fps=4)
    animation.save(tmp_path / "plain.gif", mpl.PillowWriter(), dpi="figure")
    save_animation(animation, tmp_path / "a.gif")
    with Image.open(tmp_path / "plain.gif") as plain, Image.open(tmp_path / "a.gif") as ours:
        assert plain.n_frames == ours.n_frames == 9
        assert ours.info["duration"] == 250
        for number in range(9):
            plain.seek(number)
            ours.seek(number)
            assert ours.size == plain.size == tuple(sizes[0].round())
            one, other = (np.asarray(gif.convert("RGB"), dtype=float) for gif in (plain, ours))
            assert np.abs(one - other).mean() < 6  # of 255
            assert (other == (255, 255, 255)).all(2).mean() > 0.3
            assert (np.abs(other - (255, 0, 0)).sum(2) < 20).any()
    assert (tmp_path / "a.gif").stat().st_size < 0.6 * (tmp_path / "plain.gif").stat().st_size


def test_the_palette_of_a_gif_is_that_of_the_last_frame(tmp_path):
    writer = animations.GifWriter()
    writer.setup(style.new_figure()[0], tmp_path / "a.gif")
    writer._frames = [Image.new("RGB", (9, 9), color) for color in ("red", "red", "lime")]
    writer.finish()
    with Image.open(tmp_path / "a.gif") as gif:
        gif.seek(gif.n_frames - 1)
        assert gif.convert("RGB").getpixel((4, 4)) == (0, 255, 0)


@pytest.mark.parametrize(("red", "shown"), [(239, 239), (241, 255)])
def test_what_is_nearly_the_ground_is_the_ground(red, shown, tmp_path):
    writer = animations.GifWriter()
    writer.setup(style.new_figure()[0], tmp_path / "a.gif")
    frame = Image.new("RGB", (90, 90), "white")
    frame.paste((red, 255, 255), (30, 0, 90, 90))
    writer._frames = [frame]
    writer.finish()
    with Image.open(tmp_path / "a.gif") as gif:
        seen = [gif.convert("RGB").getpixel((x, 45))[0] for x in (15, 60)]
    assert seen == [255, shown]


def test_a_gif_has_at_most_128_colours(tmp_path):
    writer = animations.GifWriter()
    writer.setup(style.new_figure()[0], tmp_path / "a.gif")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    writer._frames = [Image.fromarray(pixels)]
    writer.finish()
    with Image.open(tmp_path / "a.gif") as gif:
        assert len(gif.convert("RGB").getcolors(9_999)) <= 128


def test_it_opens_no_window_and_shows_twelve_frames_a_second():
    figure, (axes,) = style.new_figure()
    (line,) = axes.plot([0, 1], [0, 1])
    animation = animations.animation_of(figure, [line], lambda number: None, 1, no_progress)
    assert not plt.get_fignums()
    assert figure.images  # all that does not move
    assert animation.event_source.interval == round(1000 / 12)
    assert animations.writer_for(Path("a.gif")).fps == 12
    animation._draw_was_started = True  # it is not saved here, and matplotlib warns of that


def test_a_frame_of_many_panels_has_fewer_dots_an_inch():
    dots = []
    for n_panels in (1, 2, 4, 8):
        figure, _ = style.new_figure(n_panels)
        animations.freeze(figure, [])
        width, height = figure.get_size_inches() * figure.dpi
        assert width * height < animations.MAX_PIXELS * 1.001
        dots.append(figure.dpi)
    assert dots == sorted(dots, reverse=True)
    assert dots[0] == 80 > dots[-1]


@pytest.mark.parametrize("ground", ["white", "black", "#202020"])
def test_the_ground_of_a_gif_stays_as_it_is(ground, tmp_path):
    figure, (axes,) = style.new_figure()
    figure.set_facecolor(ground)
    axes.set_facecolor(ground)
    (line,) = axes.plot(range(9), [3, 1, 4, 1, 5, 9, 2, 6, 5], color="tab:brown")
    animation = animations.animation_of(
        figure, [line], lambda i: line.set_xdata(range(9)), 2, no_progress
    )
    save_animation(animation, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        colors = sorted(gif.convert("RGB").getcolors(99_999))
    assert colors[-1][1] == tuple(round(255 * part) for part in to_rgb(ground))
    assert colors[-1][0] > 0.8 * gif.size[0] * gif.size[1]
