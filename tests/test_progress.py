"""How far the work has come is shown on a terminal, and leaves nothing there."""

import sys
import time

from lab.outcome import saying
from lab.output import progress
from lab.output.progress import ERASE, show_progress

import pytest


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(progress, "is_terminal", lambda stream: True)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by hand: `clock.append(seconds)`."""
    seconds = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: sum(seconds))
    return seconds


def shown(capsys):
    """Return the lines that were shown, one in the place of the other."""
    return capsys.readouterr().err.split(ERASE)[1:]


def test_progress_shows_on_a_terminal_only_and_leaves_nothing(monkeypatch, capsys):
    def show(patience):
        return list(show_progress("ab", 2, name="Adam", patience=patience, pause=-1))

    assert show(-1) == ["a", "b"]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert show(1e6) == ["a", "b"]
    assert capsys.readouterr() == ("", "")
    assert show(0.0) == ["a", "b"]
    assert shown(capsys)[-3:] == ["Adam: 1 of 2", "Adam: 2 of 2", ""]


def test_the_time_left_is_counted_from_the_first_item_that_is_done(terminal, clock, capsys):
    for _ in show_progress(range(5), 5, "step", name="Adam", patience=10):
        clock.append(100 if len(clock) == 1 else 6)  # the first one compiles
    assert shown(capsys) == [
        "Adam: step 1 of 5",
        "Adam: step 2 of 5, about 18 s left",
        "Adam: step 3 of 5, about 12 s left",
        "Adam: step 4 of 5, about 6 s left",
        "Adam: step 5 of 5, about 0 s left",
        "",
    ]


def test_of_less_than_a_second_no_time_is_told_and_of_more_it_is_in_minutes():
    assert progress.time_left(0.99, 2, 9) == ""
    assert progress.time_left(1.0, 2, 9) == ", about 7 s left"
    assert progress.time_left(33, 2, 5) == ", about 99 s left"
    assert progress.time_left(50, 2, 5) == ", about 2 min left"


def test_the_line_is_written_anew_every_pause(terminal, clock, capsys):
    for _ in show_progress(range(6), 6, name="Adam", patience=2, pause=2):
        clock.append(1)
    assert [line.split(" of")[0] for line in shown(capsys)] == ["Adam: 3", "Adam: 6", ""]


def test_while_nothing_is_done_yet_it_says_what_takes_so_long(terminal, capsys):
    def slow():
        time.sleep(0.15)
        with saying("compiling"):
            time.sleep(0.15)
            yield 1

    list(show_progress(slow(), 1, name="Adam", patience=0.05))
    assert shown(capsys) == ["Adam: starting ...", "Adam: 1 of 1", ""]
    list(show_progress(slow(), 1, name="Adam", patience=0.22))
    assert shown(capsys)[0] == "Adam: compiling ..."
    list(show_progress(slow(), 1, name="Adam", patience=9))
    time.sleep(0.1)
    assert shown(capsys) == []
