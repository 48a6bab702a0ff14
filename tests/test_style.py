"""How every figure is laid out: panels, axes, legends, letters. By property at the end."""

from pathlib import Path

from lab.command_line.types import style_type
from lab.pictures import curves, style
from lab.pictures.looks import looks_of

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text


def test_legend_shows_labels_as_they_are():
    figure, (axes,) = style.new_figure()
    labels = ["_mine", "cost $\\frac", "SGD(lr=0.1)"]
    for label in labels:
        axes.plot([1, 2], label=label)
    style.legend(figure, curves.named_lines(axes))
    figure.canvas.draw()  # a formula would fail here
    shown = [text.get_text().replace(r"\$", "$") for text in figure.legends[0].get_texts()]
    assert shown == labels


@pytest.mark.parametrize("n_lines", [1, 6, 12])
@pytest.mark.parametrize("n_panels", [1, 2])
@pytest.mark.parametrize("word", ["SGD", "a very long optimizer"])
def test_legend_covers_no_panel(n_lines, n_panels, word):
    figure, panels = style.new_figure(n_panels)
    for i in range(n_lines):
        panels[0].plot([1, 2], label=f"{word} number {i}")
    style.legend(figure, panels[0].lines)
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert not figure.legends[0].get_frame_on()
    assert not any(box.overlaps(panel.get_window_extent()) for panel in panels)
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_bands_and_marks_are_named_once_in_the_colour_of_letters():
    figure, (axes,) = style.new_figure()
    for y in (1, 2):
        axes.plot([1, 2], [y, y], label=f"line {y}")
        axes.fill_between([1, 2], y, y + 1, label=style.once("a band"))
        axes.plot(1, y, "^", label=style.once("a mark"))
        axes.plot(1, y, "o", markerfacecolor="none", label=style.once("a ring"))
        axes.scatter([1, 2], [y, y], marker="x", s=100, label=style.once("a cross"))
    style.legend(figure, curves.named_lines(axes))
    (key,) = figure.legends
    words = [text.get_text() for text in key.get_texts()]
    assert words[:2] == ["line 1", "line 2"]
    assert sorted(words[2:]) == ["a band", "a cross", "a mark", "a ring"]
    handles = dict(zip(words, key.legend_handles, strict=True))
    assert handles["a mark"].get_marker() == "^"
    assert handles["a mark"].get_color() == handles["a cross"].get_color() == (0, 0, 0)
    assert handles["a mark"].get_markerfacecolor() == (0, 0, 0)
    assert handles["a ring"].get_markerfacecolor() == "none"
    assert handles["a cross"].get_markersize() == 10
    assert handles["a band"].get_facecolor()[:3] == (0, 0, 0)


def test_a_logarithmic_axis_needs_something_to_show():
    _, (axes,) = style.new_figure()
    style.log_scale(axes.yaxis)
    assert axes.get_yscale() == "linear"
    axes.plot([1, 2], [0.1, 20])
    style.log_scale(axes.yaxis)
    assert axes.get_yscale() == "log"
    assert axes.get_xscale() == "linear"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.011, 0.9, ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"]),
        (0.3, 0.9, ["0.4", "0.6", "0.8"]),  # within a decade
        (1e-3, 1e4, ["0.001", "0.01", "0.1", "1", "10", "100", "1000", "10000"]),
        (1e-5, 1, ["$10^{-5}$", "$10^{-4}$", "$10^{-3}$", "$10^{-2}$", "$10^{-1}$", "$10^{0}$"]),
        (3e5, 9e5, ["$4\\times10^{5}$", "$6\\times10^{5}$", "$8\\times10^{5}$"]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_plain_numbers_or_all_powers(low, high, expected):
    figure, (axes,) = style.new_figure()
    axes.plot([1, 2], [low, high])
    style.log_scale(axes.yaxis)
    figure.draw_without_rendering()
    low, high = axes.get_ylim()
    ticks = zip(axes.get_yticks(), axes.yaxis.get_major_ticks(), strict=True)
    shown = [tick.label1.get_text() for y, tick in ticks if low <= y <= high]
    assert shown == expected
    assert axes.yaxis.get_minorticklocs().size == 0


def test_a_logarithmic_axis_of_any_length_has_ticks():
    for decades in range(1, 60):
        figure, (axes,) = style.new_figure()
        axes.plot([1, 2], [1e-5, 10.0 ** (decades - 5)])
        style.log_scale(axes.yaxis)
        low, high = axes.get_ylim()
        seen = [y for y in axes.get_yticks() if low <= y <= high]
        assert 2 <= len(seen) <= axes.yaxis.get_tick_space(), decades
        plt.close(figure)


def test_panels_are_laid_out_row_by_row():
    assert [len(style.new_figure(n)[1]) for n in (1, 2)] == [1, 2]
    figure, panels = style.new_figure(8, n_rows=2)
    assert len(panels) == 8
    figure.draw_without_rendering()
    tops = [round(panel.get_position().y1, 2) for panel in panels]
    assert len(set(tops[:4])) == len(set(tops[4:])) == 1
    assert tops[0] > tops[4]


@pytest.mark.parametrize("n_panels", range(1, 12))
def test_no_place_of_a_figure_stays_empty(n_panels):
    figure, panels = style.new_figure(n_panels)
    grid = panels[0].get_subplotspec().get_gridspec()
    cells = [place for panel in panels for place in cells_of(panel)]
    assert sorted(cells) == [(i, k) for i in range(grid.nrows) for k in range(grid.ncols)]
    assert figure.axes == panels


def cells_of(panel):
    place = panel.get_subplotspec()
    return [(i, k) for i in place.rowspan for k in place.colspan]


@pytest.mark.filterwarnings("ignore:Glyph")
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
        style.legend(figure, [line], caption="of " + label)
        texts = figure.findobj(Text)
        return {text.get_text(): text.get_fontfamily() for text in texts if text.get_text()}

    assert set(map(tuple, families_of("ü").values())) == {tuple(default)}
    assert not asked
    families = families_of("动量")
    assert families["动量"] == families["of 动量"] == [*default, "DejaVu Serif"]
    assert families["Adam"] == default
    assert asked == [True]  # for all texts once


def test_a_chinese_letter_is_as_wide_as_two():
    assert style.width_of("动量=SGD") == 8
    assert style.is_chinese("SGD 动")
    assert not style.is_chinese("SGD ü")


def test_the_legend_of_a_wide_figure_has_larger_letters():
    sizes = []
    for n_panels in (2, 8):
        figure, panels = style.new_figure(n_panels)
        style.legend(figure, panels[0].plot([[0, 1], [1, 2]], label=["a", "b"]))
        (key,) = figure.legends
        sizes.append(key.get_texts()[0].get_fontsize() / figure.get_figwidth())
    assert sizes[1] == pytest.approx(sizes[0])  # shown at one width, they are equally large


def test_the_size_of_a_figure_grows_with_its_panels():
    sizes = {n: style.new_figure(n)[0].get_size_inches() for n in (1, 2, 3, 4, 8)}
    widths, heights = ({n: size[i] for n, size in sizes.items()} for i in (0, 1))
    assert widths[1] < widths[2] < widths[3] < widths[4] == widths[8]  # at most four in a row
    assert heights[1] == heights[4] < heights[8]


def test_a_style_sheet_sets_the_size_and_the_panels_follow():
    with plt.style.context({"figure.figsize": (3.4, 2.6), "font.size": 8}):
        figure, panels = style.new_figure(2)
        assert figure.get_size_inches() == pytest.approx([3.4, 2 * 15 * 8 / 72])
        assert cells_of(panels[1]) == [(1, 0)]  # below, as there is no room beside
    with plt.style.context({"figure.figsize": (13.3, 7.5), "font.size": 20}):
        figure, panels = style.new_figure(2)
        assert figure.get_size_inches() == pytest.approx([13.3, 7.5])
        assert cells_of(panels[1]) == [(0, 1)]


def test_panels_have_a_grid_and_no_frame_above_or_to_the_right():
    _, (axes,) = style.new_figure()
    shown = {side for side, spine in axes.spines.items() if spine.get_visible()}
    assert shown == {"left", "bottom"}
    assert all(line.get_visible() for line in axes.get_xgridlines())


def test_a_legend_has_as_many_columns_as_fit():
    def columns(lengths, width):  # of letters an inch wide; a column has 3.4 more, and 1.4 between
        return style.columns_that_fit(lengths, width, 1)

    assert columns([10] * 4, 4 * 13.4 + 3 * 1.4 + 2.2) == 4
    assert columns([10] * 4, 4 * 13.4 + 3 * 1.4 + 2.1) == 3
    assert columns([70, 9], 80) == 1
    assert columns([9, 1, 1, 1], 30) == 3  # 2, 1 and 1, as matplotlib parts them, and not 2 and 2
    assert columns([1, 9, 1, 9], 30) == 2
    assert columns([5], 1) == 1


def test_a_caption_is_small_quiet_and_broken_into_lines():
    figure, (axes,) = style.new_figure()
    style.legend(figure, axes.plot([1, 2], label="a"), "word " * 60)
    text = figure._supxlabel
    assert text.get_text().count("\n") >= 2
    assert text.get_text().split() == ["word"] * 60
    assert style.inches(text)[0] <= figure.get_figwidth()
    assert text.get_fontsize() < plt.rcParams["font.size"]
    figure, (axes,) = style.new_figure()
    style.legend(figure, axes.plot([1, 2], label="a"))
    assert figure._supxlabel is None


def test_names_of_axes_are_smaller_where_they_are_longer_than_their_panel():
    figure, panels = style.new_figure(2)
    for axes, name in zip(panels, ("y", "a long name " * 9), strict=True):
        axes.set(xlabel=name, ylabel=name, title=name)
    style.legend(figure, panels[0].plot([1, 2], label="a"))
    figure.draw_without_rendering()
    (short, long) = ((axes.title, axes.xaxis.label, axes.yaxis.label) for axes in panels)
    assert [text.get_fontsize() for text in short] == [12, 10, 10]
    for text in long:
        box = text.get_window_extent()
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height


# ---------------------------------------------------------------- by property

LABELS = st.one_of(
    st.sampled_from(["SGD", "Adam", "动量", "Momentum 0.9", "AdamW(weight_decay=0.1)"]),
    st.text("abcxyz动量优化器学习率() =.", min_size=1, max_size=40).filter(str.strip),
)


def texts_of(figure):
    """Return the texts that are drawn: not those of ticks that lie outside of their axis."""
    texts = [figure._supxlabel, *(text for key in figure.legends for text in key.get_texts())]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
        ticks = [tick for axis in (axes.xaxis, axes.yaxis) for tick in axis._update_ticks()]
        texts += [tick.label1 for tick in ticks if tick.label1.get_visible()]
    return [text for text in texts if text and text.get_text().strip()]


def assert_all_fits(figure):
    """Assert that no text is cut and no two overlap, and that the legend is inside the figure."""
    figure.draw_without_rendering()
    boxes = [(text, text.get_window_extent()) for text in texts_of(figure)]
    width, height = figure.bbox.width, figure.bbox.height
    for i, (text, box) in enumerate(boxes):
        assert -1 <= box.x0 <= box.x1 <= width + 1, (text, box, width)
        assert -1 <= box.y0 <= box.y1 <= height + 1, (text, box, height)
        for other, another in boxes[:i]:
            wide = min(box.x1, another.x1) - max(box.x0, another.x0)
            high = min(box.y1, another.y1) - max(box.y0, another.y0)
            assert wide < 1 or high < 1, (text, other)


def made_up_losses(seed, n_steps, kind):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n_steps, 1, generator=generator).exp()
    steps = torch.arange(1.0, n_steps + 1).unsqueeze(1)
    level = {"falls": 10 / steps, "flat": 0 * steps + 3, "small": 0.1 / steps, "negative": -steps}
    return level[kind] * (0.5 + noise)


FIGURES = {
    "labels": st.lists(LABELS, min_size=1, max_size=14, unique_by=str.strip),
    "letters": st.integers(8, 24),
    "size": st.sampled_from([(6.4, 4.8), (3.4, 2.6), (7.0, 5.0), (13.33, 7.5), (23.4, 33.1)]),
    "kind": st.sampled_from(["falls", "flat", "small", "negative"]),
    "n_panels": st.sampled_from([1, 2]),
    "has_rates": st.booleans(),
}


@settings(max_examples=15, derandomize=True)
@given(**FIGURES)
def test_any_figure_can_be_read(labels, letters, size, kind, n_panels, has_rates):
    plt.close("all")
    with plt.style.context({"font.size": letters, "figure.figsize": size}):
        figure, panels = style.new_figure(n_panels)
        looks = looks_of(labels)
        for axes in panels:
            for i, label in enumerate(labels):
                losses = made_up_losses(i, 90, kind)
                curves.draw_history(axes, range(1, 91), losses, 9, label, looks[label])
            axes.set(xlabel="Steps", ylabel="Mini-batch loss at the best rate")
            curves.limit_losses(axes, 0.2)
        if has_rates:
            rates = {label: [0.1] * 45 + [0.01] * 45 for label in labels}
            curves.draw_lrs(panels[0], rates, looks)
        caption = "spirals, 10 seeds (81 to 90), batch size 32, lr 0.01, lines: means of 32 steps"
        style.legend(figure, curves.named_lines(panels[0]), caption)
        assert_all_fits(figure)
        (key,) = figure.legends
        shown = [text.get_text().replace(r"\$", "$") for text in key.get_texts()]
        assert shown[: len(labels)] == labels
        for axes in panels:
            low, high = axes.get_ylim()
            for line in curves.named_lines(axes):
                y = torch.as_tensor(line.get_ydata())
                assert ((low <= y) & (y <= high)).double().mean() >= 0.95
        assert figure.get_figwidth() == style.new_figure(n_panels)[0].get_figwidth()


@pytest.mark.slow
@settings(max_examples=300)
@given(**FIGURES)
def test_any_of_many_figures_can_be_read(**figure):
    test_any_figure_can_be_read.hypothesis.inner_test(**figure)


@pytest.mark.parametrize("sheet", ["paper", "slide", "seaborn-v0_8-poster"])
def test_sheets_that_come_along_and_a_poster_give_figures_that_fit(sheet):
    with plt.style.context(style_type(sheet)):
        labels = ["SGD", "Momentum", "RMSprop", "Adam", "AdamW(weight_decay=0.1)", "动量"]
        looks = looks_of(labels)
        figure, panels = style.new_figure(2)
        for axes in panels:
            for i, label in enumerate(labels):
                losses = made_up_losses(i, 60, "falls")
                curves.draw_history(axes, range(60), losses, 5, label, looks[label])
            axes.set(xlabel="Steps", ylabel="Mini-batch loss at the best rate")
            curves.limit_losses(axes)
        style.legend(figure, curves.named_lines(axes), "parabola, seed 81, batch size 32")
        assert_all_fits(figure)
        width = {"paper": 3.4, "slide": 13.33}.get(sheet, 12.8)
        assert figure.get_figwidth() == pytest.approx(width)
        expected = {"paper": 0.9, "slide": 2.6}.get(sheet, plt.rcParams["lines.linewidth"])
        assert axes.lines[1].get_linewidth() == pytest.approx(4 / 3 * expected)
        (first, *_) = figure.legends[0].get_texts()
        assert first.get_fontsize() == pytest.approx(style.points("legend.fontsize"))
