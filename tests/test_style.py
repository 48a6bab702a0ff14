"""How every figure looks."""

import math
from pathlib import Path

from lab.pictures import style

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgb


def test_an_optimizer_has_the_same_colour_in_any_company():
    alone = style.colors_of(["Adam"])["Adam"]
    assert style.colors_of(["mine", "SGD", "Adam", "other"])["Adam"] == alone


def test_ten_labels_have_ten_colours():
    labels = ["Adam", *"abcdefgh", "SGD"]
    assert len(set(style.colors_of(labels).values())) == 10
    assert list(style.colors_of([*labels, "k"])) == [*labels, "k"]


def test_colours_run_out_gracefully():
    labels = [*style.COLORS, *map(str, range(20))]
    assert list(style.colors_of(labels)) == labels


def test_legend_shows_labels_as_they_are():
    figure, (axes,) = style.new_figure()
    labels = ["_mine", "cost $\\frac", "SGD(lr=0.1)"]
    for label in labels:
        axes.plot([1, 2], label=label)
    style.legend(figure, axes.lines)
    figure.canvas.draw()  # a formula would fail here
    shown = [text.get_text().replace(r"\$", "$") for text in figure.legends[0].get_texts()]
    assert shown == labels


@pytest.mark.parametrize("n_lines", [1, 4, 5, 12])
@pytest.mark.parametrize("n_panels", [1, 2])
@pytest.mark.parametrize("word", ["SGD", "optimizer", "a very long optimizer"])
def test_legend_covers_no_panel(n_lines, n_panels, word):
    figure, panels = style.new_figure(n_panels)
    for i in range(n_lines):
        panels[0].plot([1, 2], label=f"{word} number {i}")
    style.legend(figure, panels[0].lines)
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert not figure.legends[0].get_frame_on()
    assert not any(box.overlaps(panel.get_window_extent()) for panel in panels)
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_the_legend_names_the_rate_unless_the_label_does():
    assert style.legend_label("Adam", 0.0123456) == "Adam, lr=0.0123"
    assert style.legend_label("Adam(lr=0.1)", 0.1) == "Adam(lr=0.1)"
    assert style.legend_label("Adam", None, diverged=True) == "Adam (diverged)"


def test_a_logarithmic_axis_needs_something_to_show():
    _, (axes,) = style.new_figure()
    style.log_scale(axes.yaxis)
    assert axes.get_yscale() == "linear"
    axes.plot([1, 2], [0.1, 20])
    style.log_scale(axes.yaxis)
    assert axes.get_yscale() == "log"
    assert axes.get_xscale() == "linear"


def test_a_band_lies_between_the_quartiles_and_has_the_lines_colour():
    _, (axes,) = style.new_figure()
    quartiles = torch.tensor([[1.0, 2], [3, 4], [5, math.inf]])
    style.median_band(axes, [10, 20], quartiles, "Adam", "red")
    (line,), (band,) = axes.lines, axes.collections
    assert line.get_xydata().tolist() == [[10, 3], [20, 4]]
    corners = band.get_paths()[0].vertices.tolist()
    assert [10, 1] in corners
    assert [10, 5] in corners
    assert [20, 2] in corners
    assert max(y for _, y in corners) > 1e20  # infinity, out of sight
    assert to_rgb(line.get_color()) == tuple(band.get_facecolor()[0, :3]) == to_rgb("red")


def test_panels_are_laid_out_row_by_row():
    assert [len(style.new_figure(n)[1]) for n in (1, 2)] == [1, 2]
    figure, panels = style.new_figure(8, n_rows=2)
    assert len(panels) == 8
    figure.canvas.draw()
    tops = [round(panel.get_position().y1, 2) for panel in panels]
    assert len(set(tops[:4])) == len(set(tops[4:])) == 1
    assert tops[0] > tops[4]


def test_a_font_for_chinese_is_looked_for_only_where_it_is_needed(tmp_path, monkeypatch):
    default = plt.rcParams["font.family"]
    serif = tmp_path / "wqy-zenhei.ttf"  # by its name a Chinese font
    serif.write_bytes(Path(style.font_manager.findfont("DejaVu Serif")).read_bytes())
    asked = []

    def fonts():
        asked.append(True)
        return ["/fonts/Arial.ttf", str(serif)]

    monkeypatch.setattr(style.font_manager, "findSystemFonts", fonts)

    def families_of(label):
        figure, (axes,) = style.new_figure()
        (line,) = axes.plot([0, 1], label=label)
        axes.set(title=label)
        axes.set_xticks([0, 1], [label, "Adam"])
        style.legend(figure, [line])
        texts = figure.findobj(style.Text)
        return {text.get_text(): text.get_fontfamily() for text in texts if text.get_text()}

    assert set(map(tuple, families_of("ü").values())) == {tuple(default)}
    assert not asked
    families = families_of("动量")
    assert families["动量"] == [*default, "DejaVu Serif"]
    assert families["Adam"] == default
    assert asked == [True]  # for all texts once


def test_a_chinese_letter_is_as_wide_as_two():
    assert style.width_of("动量=SGD") == 8
    figure, (axes,) = style.new_figure()
    columns = []
    for letters in ("abcd", "动量优化"):
        lines = [axes.plot([0, 1], label=letter * 8)[0] for letter in letters]
        style.legend(figure, lines)
        columns.append(figure.legends[-1]._ncols)
    assert columns == [4, 3]


def test_the_legend_is_read_from_the_back_row():
    sizes = []
    for n_panels in (2, 8):
        figure, panels = style.new_figure(n_panels)
        lines = panels[0].plot([[0, 1], [1, 2]], linewidth=0.8, label=["a", "b"])
        lines += panels[0].plot([1, 3], linewidth=4, label="c")
        style.legend(figure, lines)
        (key,) = figure.legends
        thin, *_, thick = (line.get_linewidth() for line in key.get_lines())
        assert 2 < thin < thick == 4
        assert [line.get_linewidth() for line in lines] == [0.8, 0.8, 4]
        sizes.append(key.get_texts()[0].get_fontsize() / figure.get_figwidth())
    assert sizes[1] == pytest.approx(sizes[0])  # shown at one width, they are equally large


@pytest.mark.parametrize(
    ("sheet", "ground", "letters"), [("default", 1, 0), ("dark_background", 0, 1)]
)
def test_colours_follow_the_style_sheet(sheet, ground, letters):
    with plt.style.context(sheet):
        assert to_rgb(style.letter_color()) == (letters,) * 3
        for part in style.background_color():  # seen, and no more
            assert 0.05 < abs(part - ground) < 0.3


def test_the_size_of_a_figure_grows_with_its_panels():
    sizes = {n: style.new_figure(n)[0].get_size_inches() for n in (1, 2, 3, 4, 8)}
    widths, heights = ({n: size[i] for n, size in sizes.items()} for i in (0, 1))
    assert widths[1] < widths[2] < widths[3] < widths[4] == widths[8]  # at most four in a row
    assert heights[1] == heights[4] < heights[8]


def test_panels_have_a_grid_and_no_frame_above_or_to_the_right():
    _, (axes,) = style.new_figure()
    shown = {side for side, spine in axes.spines.items() if spine.get_visible()}
    assert shown == {"left", "bottom"}
    assert all(line.get_visible() for line in axes.get_xgridlines())


def test_ticks_of_a_logarithmic_axis_are_plain_numbers():
    figure, (axes,) = style.new_figure()
    axes.plot([1, 2], [0.011, 0.9])
    style.log_scale(axes.yaxis, subs=(1, 2, 5))
    figure.canvas.draw()
    low, high = axes.get_ylim()
    shown = [tick.label1.get_text() for tick in axes.yaxis.get_major_ticks()]
    shown = [text for text in shown if text and low <= float(text) <= high]
    assert shown == ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"]
    assert axes.yaxis.get_minorticklocs().size == 0


def test_line_widths_fall_from_the_first_to_the_last():
    for n_lines in range(6):
        widths = style.widths(n_lines)
        assert len(set(widths)) == n_lines
        assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(
    ("ends", "scale", "limits"),
    [
        ([], "linear", (0, 0.2)),
        ([0.1, 0.16], "linear", (0, 0.2)),
        ([0.1, 3.0], "linear", (0, 3.6)),
        ([0.1, 0.004], "linear", (0, 0.2)),
        ([0.1, 0.00399], "log", (0.00133, 2)),  # below a fiftieth of the top
        ([0.1, 0.0], "linear", (0, 0.2)),  # zero is nowhere on a logarithmic axis
        ([0.1, 0.0, 0.003], "log", (0.001, 2)),
        ([5.0, 0.1], "log", (0.0333, 60)),
    ],
)
def test_the_axis_of_losses_fits_the_ends(ends, scale, limits):
    _, (axes,) = style.new_figure()
    axes.plot([1, 2], [0.5, 0.001])
    style.limit_losses(axes, 0.2, ends)
    assert axes.get_yscale() == scale
    assert axes.get_ylim() == pytest.approx(limits, rel=0.01)


def test_a_legend_has_as_many_columns_as_fit():
    assert style.legend_columns([10] * 4, inches=7) == 4
    assert style.legend_columns([23] * 4, inches=7) == 2  # three would hold 2, 1 and 1
    assert style.legend_columns([70, 9], inches=7) == 1
    assert style.legend_columns([30, 5, 5, 5, 5, 5], inches=7) == 5  # the long one has its own
    assert style.legend_columns([], inches=7) == 1
