"""What happens to results: told as they come, saved whole, whatever happens meanwhile."""

import argparse
import csv
import errno
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab import interruption, plotting, report
from lab.report import Interrupted, Report, keeping, show_progress, write_csv

import pytest
from conftest import PATIENCE, posix_only, start_script
from hypothesis import given
from hypothesis import strategies as st

import compare_optimizers

ROOT = Path(compare_optimizers.__file__).parent


@dataclass
class Run:
    """The least that a report asks of a run."""

    value: int = 0
    steps: int = 0
    error: BaseException | None = None
    stopped: str = ""
    remarks: tuple = ()


def row(label, run):
    return label, run.value, run.stopped


@pytest.fixture
def make_report(workdir):
    options = argparse.Namespace(output=Path("a.png"), csv=Path("a.csv"), no_show=True)
    return lambda: Report(options, {"label": "<6", "value": ">6"})


def save(reporter, runs):
    figure, _ = plotting.new_figure()
    rows = ((label, run.value) for label, run in runs.items())
    return reporter.save(figure, ("label", "value"), rows)


# ---------------------------------------------------------------- in one process


def test_rows_come_one_by_one_and_all_is_saved(make_report, workdir, capsys):
    reporter = make_report()
    assert capsys.readouterr().out == "label    value\n"
    seen = []

    def runs():
        yield "a", Run(1)
        seen.append(capsys.readouterr().out)
        yield "b", Run(2, remarks=("by the way",))

    collected = reporter.collect(runs(), row)
    assert seen == ["a            1\n"]
    assert capsys.readouterr().out == "b            2\nb: by the way\n"
    assert save(reporter, collected) == 0
    assert capsys.readouterr() == ("saved a.png\nsaved a.csv\n", "")
    assert (workdir / "a.csv").read_text() == "label,value\na,1\nb,2\n"
    assert (workdir / "a.png").read_bytes().startswith(b"\x89PNG")


def test_that_nothing_is_compiled_is_said_once_and_other_remarks_of_each(make_report, capsys):
    remarks = f"{report.NOT_COMPILED} (no space)", "by the way"
    make_report().collect([("a", Run(1, remarks=remarks)), ("b", Run(2, remarks=remarks))], row)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[1::2] == [f"a: {remarks[0]}", "b            2"]
    assert lines[2::2] == ["a: by the way", "b: by the way"]


def test_a_run_that_failed_is_saved_and_the_status_is_one(make_report, workdir, capsys):
    reporter, bad = make_report(), Run(steps=100)
    with keeping(bad):
        raise ValueError("no\nmore")
    runs = reporter.collect([("bad", bad), ("good", Run(2))], row)
    assert "bad          0  failed at step 101: ValueError: no more\n" in capsys.readouterr().out
    assert save(reporter, runs) == 1
    assert (workdir / "a.csv").read_text() == "label,value\nbad,0\ngood,2\n"


def test_an_interruption_keeps_what_is_finished_and_what_had_begun(make_report, workdir, capsys):
    reporter, begun = make_report(), Run(7, steps=3)

    def runs():
        yield "a", Run(1)
        reporter.progress("b")
        with keeping(begun):
            raise KeyboardInterrupt
        yield "c", Run(3)

    collected = reporter.collect(runs(), row)
    assert collected == {"a": Run(1), "b": begun}
    assert save(reporter, collected) == 130
    out, err = capsys.readouterr()
    assert "b            7  interrupted at step 4\n" in out
    assert err == "interrupted: what had finished is saved\n"
    assert (workdir / "a.csv").read_text() == "label,value\na,1\nb,7\n"


def test_an_interruption_before_anything_had_begun_goes_on_up(make_report):
    def runs():
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        make_report().collect(runs(), row)


def test_an_interruption_carries_its_run():
    run = Run()
    with pytest.raises(Interrupted) as stop, keeping(run):
        raise KeyboardInterrupt
    assert stop.value.run is run


def test_what_cannot_be_saved_is_told_and_the_rest_is_saved(
    make_report, workdir, capsys, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    reporter = make_report()
    runs = reporter.collect([("a", Run(1))], row)
    monkeypatch.setattr(report, "save_figure", full)
    assert save(reporter, runs) == 1
    out, err = capsys.readouterr()
    assert err == "cannot save a.png: No space left on device\n"
    assert out.endswith("saved a.csv\n")
    assert [path.name for path in workdir.iterdir()] == ["a.csv"]


def test_a_movie_is_saved_too_and_a_signal_may_end_it(make_report, workdir, capsys, monkeypatch):
    monkeypatch.setattr("lab.report.save_movie", lambda film, path: path.write_text(film))
    reporter = make_report()
    reporter.collect([("a", Run(1))], row)
    assert interruption.waiting  # so that the figure is saved whole
    seen = []

    def make():
        seen.append((interruption.waiting, Path("a.png").exists(), Path("a.csv").exists()))
        return f"movie {len(seen)}"

    def stop():
        raise KeyboardInterrupt

    def save_with(*films):
        figure, _ = plotting.new_figure()
        paths = [Path(f"{number}.gif") for number, _ in enumerate(films)]
        films = {None: stop, **dict(zip(paths, films, strict=True))}  # None: not asked for
        return reporter.save(figure, ("a",), [("b",)], films)

    assert save_with(make, make) == 0
    assert seen == [(False, True, True)] * 2
    assert Path("1.gif").read_text() == "movie 2"
    assert capsys.readouterr().out.endswith("saved a.png\nsaved a.csv\nsaved 0.gif\nsaved 1.gif\n")
    assert save_with(stop, make) == 130
    assert len(seen) == 2
    assert capsys.readouterr().err == "interrupted: what had finished is saved\n"


def test_after_a_signal_no_movie_is_begun(make_report, monkeypatch):
    reporter = make_report()
    reporter.collect([("a", Run(1))], row)
    monkeypatch.setattr(interruption, "asked_at", 5.0)
    figure, _ = plotting.new_figure()
    begun = []
    assert reporter.save(figure, ("a",), [], {Path("a.gif"): lambda: begun.append(1)}) == 130
    assert begun == []
    assert Path("a.csv").exists()


def test_a_folder_that_vanished_is_told(make_report, workdir, capsys):
    reporter = make_report()
    reporter.options.output = workdir / "gone" / "a.png"
    assert save(reporter, reporter.collect([("a", Run(1))], row)) == 1
    assert "cannot save" in capsys.readouterr().err
    assert (workdir / "a.csv").exists()


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
    monkeypatch.setattr(report.time, "perf_counter", lambda: next(clock))
    list(show_progress("abc", 3, "Adam", patience=-1))
    shown = capsys.readouterr().err
    assert "1 of 3, about 60 s left" in shown
    assert "2 of 3, about 30 s left" in shown
    assert "3 of 3, about 0 s left" in shown


def test_a_row_erases_the_progress_before_it(make_report, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    make_report().say("a row")
    assert capsys.readouterr().err == "\r\x1b[K" * 2  # the head's, too


def test_a_loss_of_all_workers_ends_it_with_what_there_is(make_report, workdir, capsys):
    reporter = make_report()

    def runs():
        yield "a", Run(1)
        raise ConnectionError("the workers are gone")

    collected = reporter.collect(runs(), row)
    assert collected == {"a": Run(1)}
    assert save(reporter, collected) == 1
    assert capsys.readouterr().err == "stopped: the workers are gone\n"

    def nothing():
        raise ConnectionError("gone")
        yield

    with pytest.raises(ConnectionError):
        make_report().collect(nothing(), row)


@given(st.lists(st.floats(), max_size=5))
def test_floats_in_a_csv_read_back_exactly(tmp_path_factory, losses):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    write_csv(str(path), ("optimizer", "loss"), [("莫烦, b", loss) for loss in losses])
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["optimizer", "loss"]
    assert [row[0] for row in rows] == ["莫烦, b"] * len(losses)
    assert [repr(float(row[1])) for row in rows] == list(map(repr, losses))


@pytest.mark.parametrize(
    ("ends", "status", "message"),
    [
        (0, 0, ""),
        (1, 1, ""),
        (SystemExit(2), 2, ""),
        (KeyboardInterrupt(), 130, "interrupted: nothing more is saved\n"),
        (OSError(errno.EIO, "bad disk"), 1, "error: OSError: [Errno 5] bad disk\n"),
    ],
)
def test_the_exit_status_says_how_it_ended(ends, status, message, capsys, monkeypatch):
    calls = []
    for name in ("start", "ignore"):
        monkeypatch.setattr(report.interruption, name, partial(calls.append, name))
    monkeypatch.setattr(report, "silence", calls.append)
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "reconfigure", lambda **_: None, raising=False)

    def main():
        if isinstance(ends, BaseException):
            raise ends
        return ends

    with pytest.raises(SystemExit) as stop:
        report.run_main(main)
    assert stop.value.code == status
    assert capsys.readouterr().err == message
    silenced = [sys.stdout] if isinstance(ends, OSError) else []  # or exit would fail once more
    assert calls == ["start", *silenced, "ignore"]


# ---------------------------------------------------------------- real processes

SMALL = ["--epochs", "1", "--task", "parabola(samples=64)", "--batch-size", "32"]
QUICK = [*SMALL, "--optimizers", "SGD()", "Adam()"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_for_the_table_loses_only_the_table(workdir):
    with Path("/dev/full").open("w") as full:
        process = start_script("compare_optimizers.py", *QUICK, "--csv", "a.csv", stdout=full)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert err == "cannot write to standard output: No space left on device\n"
    assert Path("a.csv").read_text().count("\n") == 5
    assert Path("compare_optimizers.png").exists()


@posix_only
def test_a_reader_that_leaves_loses_only_the_table(workdir):
    with start_script("compare_optimizers.py", *QUICK, "--csv", "a.csv") as process:
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 1
    assert err == "cannot write to standard output: Broken pipe\n"
    assert Path("a.csv").exists()


@posix_only
@pytest.mark.parametrize(
    ("closed", "status", "message"),
    [(">&-", 1, "standard output is closed: the table is not shown\n"), ("2>&-", 0, "")],
)
def test_a_closed_stream_loses_nothing_else(closed, status, message, workdir):
    command = f'"$0" "$@" {closed}'
    process = start_script("compare_optimizers.py", *QUICK, "--csv", "a.csv", shell=command)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (status, message)
    assert Path("a.csv").read_text().startswith("optimizer,seed,step,loss\n")
    assert Path("compare_optimizers.png").exists()


def test_a_label_that_the_output_cannot_show_is_printed_with_replacements(workdir):
    words = [*SMALL, "--optimizers", "动量=SGD()", "--csv", "a.csv"]
    process = start_script("compare_optimizers.py", *words, env={"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "\n??" in out
    assert "动量" in Path("a.csv").read_text(encoding="utf-8")


@posix_only
def test_killed_while_it_saves_the_old_file_is_whole(workdir):
    Path("a.csv").write_text("old")
    code = (
        "import os, signal\n"
        "from lab.report import write_csv\n"
        "def rows():\n"
        "    yield from ([i] for i in range(100000))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_csv('a.csv', ['n'], rows())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run([sys.executable, "-c", code], check=False, env=environment)
    assert process.returncode == -signal.SIGKILL
    assert Path("a.csv").read_text() == "old"


def test_of_two_runs_into_one_file_one_is_left_whole(workdir):
    words = [*SMALL, "--csv", "a.csv", "--optimizers"]
    both = [start_script("compare_optimizers.py", *words, spec) for spec in ("SGD()", "Adam()")]
    for process in both:
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    header, *rows = Path("a.csv").read_text().splitlines()
    assert header == "optimizer,seed,step,loss"
    assert len(rows) == 2
    assert len({line.split(",")[0] for line in rows}) == 1
    assert sorted(path.name for path in workdir.iterdir()) == ["a.csv", "compare_optimizers.png"]
