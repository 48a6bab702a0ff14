"""Colours, and files that are whole or absent."""

import math
from pathlib import Path

from lab import plotting

import matplotlib.pyplot as plt
import pytest
import torch


def test_an_optimizer_has_the_same_colour_in_any_company():
    alone = plotting.colors(["Adam"])["Adam"]
    assert plotting.colors(["mine", "SGD", "Adam", "other"])["Adam"] == alone


def test_ten_labels_have_ten_colours():
    labels = ["Adam", *"abcdefgh", "SGD"]
    assert len(set(plotting.colors(labels).values())) == 10
    assert list(plotting.colors([*labels, "k"])) == [*labels, "k"]


def test_colours_run_out_gracefully():
    labels = [*plotting.COLORS, *map(str, range(20))]
    assert list(plotting.colors(labels)) == labels


def test_legend_shows_labels_as_they_are():
    figure, (axes,) = plotting.new_figure()
    labels = ["_mine", "cost $\\frac", "SGD(lr=0.1)"]
    for label in labels:
        axes.plot([1, 2], label=label)
    plotting.legend(figure, axes.lines)
    figure.canvas.draw()  # a formula would fail here
    shown = [text.get_text().replace(r"\$", "$") for text in figure.legends[0].get_texts()]
    assert shown == labels


@pytest.mark.parametrize("n_lines", [1, 4, 12])
def test_legend_covers_no_panel(n_lines):
    figure, panels = plotting.new_figure(2)
    for i in range(n_lines):
        panels[0].plot([1, 2], label=f"optimizer number {i}")
    plotting.legend(figure, panels[0].lines)
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert not any(box.overlaps(panel.get_window_extent()) for panel in panels)
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "numbers.csv"
    path.write_text("old")

    def fail_halfway():
        with plotting.whole_file(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with plotting.whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF")])
def test_the_extension_picks_the_format(tmp_path, name, start):
    figure, _ = plotting.new_figure()
    plotting.save_figure(figure, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_the_legend_names_the_rate_unless_the_label_does():
    assert plotting.name("Adam", 0.0123456) == "Adam, lr=0.0123"
    assert plotting.name("Adam(lr=0.1)", 0.1) == "Adam(lr=0.1)"
    assert plotting.name("Adam", None, diverged=True) == "Adam (diverged)"


def test_a_logarithmic_axis_needs_something_to_show():
    _, (axes,) = plotting.new_figure()
    plotting.log_scale(axes.yaxis)
    assert axes.get_yscale() == "linear"
    axes.plot([1, 2], [0.1, 20])
    plotting.log_scale(axes.yaxis)
    assert axes.get_yscale() == "log"
    assert axes.get_xscale() == "linear"


def test_a_band_lies_between_the_quartiles_and_has_the_lines_colour():
    _, (axes,) = plotting.new_figure()
    quartiles = torch.tensor([[1.0, 2], [3, 4], [5, math.inf]])
    plotting.median_band(axes, [10, 20], quartiles, "Adam", "red")
    (line,), (band,) = axes.lines, axes.collections
    assert line.get_xydata().tolist() == [[10, 3], [20, 4]]
    corners = band.get_paths()[0].vertices.tolist()
    assert [10, 1] in corners
    assert [10, 5] in corners
    assert [20, 2] in corners
    assert max(y for _, y in corners) > 1e20  # infinity, out of sight
    assert band.get_alpha() < 0.5


def test_panels_are_laid_out_row_by_row():
    assert [len(plotting.new_figure(n)[1]) for n in (1, 2)] == [1, 2]
    figure, panels = plotting.new_figure(8, n_rows=2)
    assert len(panels) == 8
    figure.canvas.draw()
    tops = [round(panel.get_position().y1, 2) for panel in panels]
    assert len(set(tops[:4])) == len(set(tops[4:])) == 1
    assert tops[0] > tops[4]


def test_what_does_not_move_is_frozen_into_one_image():
    figure, (axes,) = plotting.new_figure()
    (still,), (moving,) = axes.plot([1, 2]), axes.plot([2, 1])
    plotting.freeze(figure, [moving])
    assert moving.get_visible()
    assert not still.get_visible()
    assert len(figure.images) == 1
    assert not plt.get_fignums()


def save_with(label, path):
    figure, (axes,) = plotting.new_figure()
    axes.plot([1, 2], label=label)
    with plotting.missing_letters() as remarks:
        plotting.legend(figure, axes.lines)
        plotting.save_figure(figure, path)
    return remarks


def test_letters_that_no_font_has_are_told_in_one_sentence(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(plotting.font_manager, "findSystemFonts", list)
    (remark,) = save_with("动量", tmp_path / "a.png")
    assert "Noto Sans CJK" in remark
    assert save_with("Adam", tmp_path / "b.png") == []
    assert not recwarn.list


def test_a_font_for_chinese_is_looked_for_only_where_it_is_needed(tmp_path, monkeypatch):
    default = plt.rcParams["font.family"]
    serif = tmp_path / "wqy-zenhei.ttf"  # by its name a Chinese font
    serif.write_bytes(Path(plotting.font_manager.findfont("DejaVu Serif")).read_bytes())
    asked = []

    def fonts():
        asked.append(True)
        return ["/fonts/Arial.ttf", str(serif)]

    monkeypatch.setattr(plotting.font_manager, "findSystemFonts", fonts)
    assert plotting.font_families(["Adam", "ü"]) == default
    assert not asked
    assert plotting.font_families(["Adam", "动量"]) == [*default, "DejaVu Serif"]
