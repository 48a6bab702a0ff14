"""What happens to results: told as they come, saved whole, whatever happens meanwhile."""

import errno
import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from lab.command_line.specs import parse_optimizers
from lab.outcome import Outcome, keeping
from lab.output import interruption, report
from lab.output.main import run_main
from lab.output.report import Report
from lab.output.table import Column
from lab.pictures import style

import pytest
from conftest import PATIENCE, posix_only, start_script

import compare_optimizers


@dataclass
class Run(Outcome):
    """The least that a report asks of a run."""

    value: int = 0
    steps: int = 0


COLUMNS = [
    Column("label", "<6", lambda label, run: label),
    Column("value", ">6", lambda label, run: str(run.value)),
]


@pytest.fixture
def make_report(workdir):
    return lambda output=Path("a.png"): Report(output, Path("a.csv"), COLUMNS)


def collect(reporter, runs):
    """Do with the runs what the scripts do; return {label: run}."""
    collected = {}
    for label, run in reporter.collect(runs):
        collected[label] = run
        reporter.row(label, run)
    return collected


def save(reporter, runs):
    figure, _ = style.new_figure()
    rows = ((label, run.value) for label, run in runs.items())
    return reporter.save(lambda: figure, ("label", "value"), rows)


# ---------------------------------------------------------------- in one process


def test_rows_come_one_by_one_and_all_is_saved(make_report, workdir, capsys):
    reporter = make_report()
    assert capsys.readouterr().out == "label    value\n"
    seen = []

    def runs():
        yield "a", Run(1)
        seen.append(capsys.readouterr().out)
        yield "b", Run(2, remarks=["by the way"])

    collected = collect(reporter, runs())
    assert seen == ["a            1\n"]
    assert capsys.readouterr().out == "b            2\nb: by the way\n"
    assert save(reporter, collected) == 0
    assert capsys.readouterr() == ("saved a.png\nsaved a.csv\n", "")
    assert (workdir / "a.csv").read_text() == "label,value\na,1\nb,2\n"
    assert (workdir / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_failed_is_saved_and_the_status_is_one(make_report, workdir, capsys):
    reporter, bad = make_report(), Run(steps=100)
    with keeping(bad):
        raise ValueError("no\nmore")
    runs = collect(reporter, [("bad", bad), ("good", Run(2))])
    assert "bad          0  failed at step 101: ValueError: no more\n" in capsys.readouterr().out
    assert save(reporter, runs) == 1
    assert (workdir / "a.csv").read_text() == "label,value\nbad,0\ngood,2\n"


def test_an_interruption_keeps_what_is_finished_and_what_had_begun(make_report, workdir, capsys):
    reporter, begun = make_report(), Run(7, steps=3)

    def runs():
        yield "a", Run(1)
        with keeping(begun):
            raise KeyboardInterrupt
        yield "b", begun
        begun.raise_if_interrupted()

    collected = collect(reporter, runs())
    assert collected == {"a": Run(1), "b": begun}
    assert save(reporter, collected) == 130
    out, err = capsys.readouterr()
    assert "b            7  interrupted at step 4\n" in out
    assert err == "interrupted: what had finished is saved\n"
    assert (workdir / "a.csv").read_text() == "label,value\na,1\nb,7\n"


def test_an_interruption_between_two_runs_keeps_the_first(make_report, capsys):
    def runs():
        yield "a", Run(1)
        raise KeyboardInterrupt

    reporter = make_report()
    collected = collect(reporter, runs())
    assert collected == {"a": Run(1)}
    assert save(reporter, collected) == 130


def test_a_signal_that_comes_while_a_row_is_told_lets_no_other_begin(make_report, monkeypatch):
    monkeypatch.setattr(interruption, "asked_at", interruption.NEVER)
    monkeypatch.setattr(interruption, "waiting", True)  # as a table before has left it
    reporter, moments = make_report(), []

    def runs():
        for label in "abc":
            moments.append((label, interruption.waiting))
            yield label, Run(1)

    for label, _ in reporter.collect(runs()):
        moments.append((label, interruption.waiting))
        if label == "b":
            interruption.asked_at = 5.0
    assert moments == [("a", False), ("a", True), ("b", False), ("b", True)]
    assert reporter.interrupted


def test_a_signal_ends_what_is_no_generator_too(make_report, monkeypatch, capsys):
    monkeypatch.setattr(interruption, "asked_at", interruption.NEVER)
    reporter, seen = make_report(), []
    for label, _ in reporter.collect(iter([("a", Run(1)), ("b", Run(2))])):
        seen.append(label)
        interruption.asked_at = 5.0
    assert seen == ["a"]
    assert reporter.interrupted
    assert capsys.readouterr().err == ""


def test_after_a_signal_all_that_is_done_is_passed_on(make_report, monkeypatch):
    monkeypatch.setattr(interruption, "asked_at", interruption.NEVER)
    reporter = make_report()

    def runs():
        try:
            yield "a", Run(1)
        except KeyboardInterrupt:  # thrown in once
            yield "b", Run(2)
            yield "c", Run(3)
            raise

    collected = {}
    for label, run in reporter.collect(runs()):
        collected[label] = run
        interruption.asked_at = 5.0
    assert collected == {"a": Run(1), "b": Run(2), "c": Run(3)}
    assert reporter.interrupted


def test_an_interruption_before_anything_had_begun_goes_on_up(make_report):
    def runs():
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        collect(make_report(), runs())


def test_what_cannot_be_saved_is_told_and_the_rest_is_saved(
    make_report, workdir, capsys, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    reporter = make_report()
    runs = collect(reporter, [("a", Run(1))])
    monkeypatch.setattr(report, "save_figure", full)
    assert save(reporter, runs) == 1
    out, err = capsys.readouterr()
    assert err == "cannot save a.png: No space left on device\n"
    assert out.endswith("saved a.csv\n")
    assert [path.name for path in workdir.iterdir()] == ["a.csv"]


def test_an_animation_is_saved_too_and_a_signal_may_end_it(make_report, capsys, monkeypatch):
    monkeypatch.setattr(interruption, "asked_at", interruption.NEVER)
    monkeypatch.setattr(report, "save_animation", lambda animation, path: path.touch())
    reporter = make_report()
    collect(reporter, [("a", Run(1))])
    assert interruption.waiting  # so that the figure is saved whole
    seen = []

    def make():
        seen.append((interruption.waiting, Path("a.png").exists(), Path("a.csv").exists()))

    def stop():
        raise KeyboardInterrupt

    def save_with(*makers):
        figure, _ = style.new_figure()
        animations = {Path(f"{number}.gif"): make for number, make in enumerate(makers)}
        return reporter.save(lambda: figure, ("a",), [("b",)], animations)

    assert save_with(make, make) == 0
    assert seen == [(False, True, True)] * 2
    assert Path("1.gif").exists()
    assert capsys.readouterr().out.endswith("saved a.png\nsaved a.csv\nsaved 0.gif\nsaved 1.gif\n")
    assert save_with(stop, make) == 130
    assert len(seen) == 2
    assert capsys.readouterr().err == "interrupted: what had finished is saved\n"


def test_after_a_signal_no_animation_is_begun(make_report, monkeypatch):
    reporter = make_report()
    collect(reporter, [("a", Run(1))])
    monkeypatch.setattr(interruption, "asked_at", 5.0)
    figure, _ = style.new_figure()
    begun = []
    assert (
        reporter.save(lambda: figure, ("a",), [], {Path("a.gif"): lambda: begun.append(1)}) == 130
    )
    assert begun == []
    assert Path("a.csv").exists()


def test_a_figure_of_another_task_is_told_before_it_is_replaced(workdir, capsys):
    def report_on(task):
        reporter = Report(Path("a.png"), None, COLUMNS, task=task)
        said = capsys.readouterr().out
        save(reporter, collect(reporter, [("a", Run(1))]))
        capsys.readouterr()
        return said.splitlines()

    head = ["label    value"]
    assert report_on("--task sine") == head
    assert report_on("--task sine") == head
    line, *rest = report_on("--task deep")
    assert line == "a.png is of --task sine and will be replaced; --output PATH saves elsewhere"
    assert rest == head
    Path("a.png").write_text("no picture")
    assert report_on("--task sine") == head


def test_a_folder_that_vanished_is_told(make_report, workdir, capsys):
    reporter = make_report(workdir / "gone" / "a.png")
    assert save(reporter, collect(reporter, [("a", Run(1))])) == 1
    assert "cannot save" in capsys.readouterr().err
    assert (workdir / "a.csv").exists()


def test_a_row_erases_the_progress_before_it(make_report, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    make_report().say("a row")
    assert capsys.readouterr().err == "\r\x1b[K" * 2  # the head's, too


def test_a_loss_of_all_workers_ends_it_with_what_there_is(make_report, workdir, capsys):
    reporter = make_report()

    def runs():
        yield "a", Run(1)
        raise ConnectionError("the workers are gone")

    collected = collect(reporter, runs())
    assert collected == {"a": Run(1)}
    assert save(reporter, collected) == 1
    assert capsys.readouterr().err == "stopped: the workers are gone\n"

    def nothing():
        raise ConnectionError("gone")
        yield

    with pytest.raises(ConnectionError):
        collect(make_report(), nothing())


def test_a_second_table_has_its_own_title_and_columns(make_report, capsys):
    reporter = make_report()
    collect(reporter, [("a", Run(1))])
    reporter.begin_table([Column("twice", ">5", lambda _, run: str(2 * run.value))], "Once more:")
    collect(reporter, [("b", Run(3))])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["label    value", "a            1", "Once more:", "twice", "    6"]


def test_below_the_table_stand_what_labels_mean_and_the_page(make_report, capsys):
    reporter = make_report()
    capsys.readouterr()
    reporter.explain(parse_optimizers({"SGD": "SGD()", "slow": "SGD(lr=0.1)"}))
    said = "In full: slow=SGD(lr=0.1)\nWhat the columns mean: docs/tables.md\n"
    assert capsys.readouterr().out == said
    reporter.explain(guess=0.5)
    line, last = capsys.readouterr().out.splitlines()
    assert line == "The best constant guess has a held-out loss of 0.5000."
    assert last == said.splitlines()[1]


def test_a_terminal_is_asked_how_wide_it_is_and_a_pipe_is_not(make_report, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    reporter = make_report()
    assert reporter.table.width == report.PIPE_WIDTH == 100
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    reporter = make_report()
    assert reporter.table.width == 40
    wide = Column("wide", ">30", lambda label, run: "x", goes=1)
    reporter.begin_table([*COLUMNS, wide], "a title that is too long for a line of that width")
    reporter.conclude(lambda: ["a sentence that is too long for a line of that width"])
    reporter.explain()
    lines = capsys.readouterr().out.splitlines()
    assert "a title that is too long for a line of" in lines
    assert "  that width" in lines
    assert lines[-2:] == ["What the columns mean: docs/tables.md", "  (no room here for wide)"]
    assert max(map(len, lines)) <= 40


def test_a_cell_that_cannot_be_made_is_a_dash_and_costs_no_other(workdir, capsys):
    odd = Column("odd", ">4", lambda label, run: 1 / 0)
    reporter = Report(Path("a.png"), None, [COLUMNS[0], odd, COLUMNS[1]])
    reporter.row("a", Run(3))
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split() == ["a", "-", "3"]
    assert err.startswith("a: no odd: ZeroDivisionError: ")
    assert reporter.status == 1


def test_without_a_csv_none_is_written_and_nothing_is_said_of_it(workdir, capsys):
    reporter = Report(Path("a.png"), None, COLUMNS)
    assert save(reporter, collect(reporter, [("a", Run(1))])) == 0
    assert capsys.readouterr() == ("label    value\na            1\nsaved a.png\n", "")
    assert [path.name for path in workdir.iterdir()] == ["a.png"]


def test_where_standard_output_is_closed_that_is_said(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    reporter = Report(Path("a.png"), None, COLUMNS)
    monkeypatch.undo()
    assert reporter.status == 1
    assert capsys.readouterr().err == "standard output is closed: the table is not shown\n"


def test_an_error_goes_to_standard_error_or_nowhere(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # it is closed
    report.say_error("no")
    monkeypatch.undo()
    assert capsys.readouterr() == ("", "")


# ---------------------------------------------------------------- real processes

SMALL = ["--epochs", "1", "--task", "parabola(samples=64)", "--batch-size", "32"]
QUICK = [*SMALL, "--optimizers", "SGD()", "Adam()"]


def status_with(stdout, monkeypatch, words=(*QUICK, "--csv", "a.csv", "--no-show")):
    """Return the exit status of the main script as a process would have it, writing there."""
    with monkeypatch.context() as patch:
        for name in ("start", "end"):  # this process keeps its handlers
            patch.setattr(interruption, name, lambda: None)
        patch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as end:
            run_main(lambda: compare_optimizers.main(words))
    return end.value.code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_for_the_table_loses_only_the_table(workdir, monkeypatch, capsys):
    with Path("/dev/full").open("w") as full:
        assert status_with(full, monkeypatch) == 1
    err = capsys.readouterr().err
    assert err == "cannot write to standard output: No space left on device\n"
    assert Path("a.csv").read_text().count("\n") == 5
    assert Path("compare_optimizers.png").exists()


@posix_only
def test_a_reader_that_leaves_loses_only_the_table(workdir, monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        assert status_with(stream, monkeypatch) == 1
    assert capsys.readouterr().err == "cannot write to standard output: Broken pipe\n"
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


def test_a_label_that_the_output_cannot_show_is_printed_with_replacements(workdir, monkeypatch):
    words = [*SMALL, "--optimizers", "动量=SGD()", "--csv", "a.csv", "--no-show"]
    printed = io.BytesIO()
    with io.TextIOWrapper(printed, encoding="ascii") as stream:
        assert status_with(stream, monkeypatch, words) == 0
        assert b"\n??" in printed.getvalue()
    assert "动量" in Path("a.csv").read_text(encoding="utf-8")


@pytest.mark.slow
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
