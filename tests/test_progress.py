"""How far the work has come is shown on a terminal, and leaves nothing there."""

import sys

from lab.output import progress
from lab.output.progress import show_progress


def test_progress_shows_on_a_terminal_only_and_leaves_nothing(monkeypatch, capsys):
    def show(patience):
        return list(show_progress("ab", 2, "Adam", patience=patience, pause=-1))

    assert show(-1) == ["a", "b"]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert show(1e9) == ["a", "b"]
    assert capsys.readouterr() == ("", "")
    assert show(-1) == ["a", "b"]
    one, other = "Adam: 1 of 2, about 0 s left", "Adam: 2 of 2, about 0 s left"
    assert capsys.readouterr().err == f"\r\x1b[K{one}\r\x1b[K{other}\r\x1b[K"


def test_the_time_that_is_left_is_that_of_the_items_left(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    clock = iter(range(0, 1000, 30))  # thirty seconds a look: one at the start, one an item
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    list(show_progress("abc", 3, "Adam", patience=-1))
    shown = capsys.readouterr().err
    assert "1 of 3, about 60 s left" in shown
    assert "2 of 3, about 30 s left" in shown
    assert "3 of 3, about 0 s left" in shown
