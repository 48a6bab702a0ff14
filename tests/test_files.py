"""A file is whole or not there, and its numbers read back exactly."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

from lab.output import files
from lab.output.files import write_csv
from lab.pictures import style

import matplotlib.pyplot as plt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "numbers.csv"
    path.write_text("old")

    def fail_halfway():
        with files.whole_file(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with files.whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_what_it_names_is_written(tmp_path):
    (tmp_path / "there.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("there.csv")
    with files.whole_file(tmp_path / "link.csv") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "there.csv").read_text() == "new"


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF")])
def test_the_extension_picks_the_format(tmp_path, name, start):
    figure, _ = style.new_figure()
    files.save_figure(figure, str(tmp_path / name))
    assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize(("dots", "seen"), [("figure", 150), (40, 40)])
def test_a_figure_has_150_dots_an_inch_or_as_many_as_a_style_sheet_says(tmp_path, dots, seen):
    figure, _ = style.new_figure()
    with plt.rc_context({"savefig.dpi": dots}):
        files.save_figure(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == pytest.approx(tuple(seen * figure.get_size_inches()), abs=1)


def test_figures_are_shown_by_whatever_can(monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    files.show_figures()
    assert shown


def save_with(label, path):
    figure, (axes,) = style.new_figure()
    axes.plot([1, 2], label=label)
    with files.missing_letters() as remarks:
        style.legend(figure, axes.lines)
        files.save_figure(figure, path)
    return remarks


def test_letters_that_no_font_has_are_told_in_one_sentence(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(style.font_manager, "findSystemFonts", list)
    (remark,) = save_with("动量", tmp_path / "a.png")
    assert "Noto Sans CJK" in remark
    assert save_with("Adam", tmp_path / "b.png") == []
    assert len(save_with("动量", tmp_path / "c.png")) == 1  # each time
    assert not recwarn.list


@given(st.lists(st.floats(), max_size=5))
def test_floats_in_a_csv_read_back_exactly(tmp_path_factory, losses):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    write_csv(str(path), ("optimizer", "loss"), [("莫烦, b", loss) for loss in losses])
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["optimizer", "loss"]
    assert [row[0] for row in rows] == ["莫烦, b"] * len(losses)
    assert [repr(float(row[1])) for row in rows] == list(map(repr, losses))


def test_killed_while_it_saves_the_old_file_is_whole(workdir):
    Path("a.csv").write_text("old")
    code = (
        "import os, signal\n"
        "from lab.output.files import write_csv\n"
        "def rows():\n"
        "    yield from ([i] for i in range(100000))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_csv('a.csv', ['n'], rows())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.run([sys.executable, "-c", code], check=False, env=environment)
    assert process.returncode == -signal.SIGKILL
    assert Path("a.csv").read_text() == "old"
