"""Colours, and files that are whole or absent."""

import pytest

import plotting


def test_an_optimizer_has_the_same_colour_in_any_company():
    alone = plotting.colors(["Adam"])["Adam"]
    assert plotting.colors(["mine", "SGD", "Adam", "other"])["Adam"] == alone


def test_ten_labels_have_ten_colours():
    labels = ["Adam", *"abcdefgh", "SGD"]
    assert len(set(plotting.colors(labels).values())) == 10
    assert list(plotting.colors([*labels, "k"])) == [*labels, "k"]


def test_colours_run_out_gracefully():
    assert len(plotting.colors(list(plotting.COLORS) + [str(i) for i in range(20)])) == 25


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
