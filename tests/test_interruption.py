"""Ctrl-C and SIGTERM at every moment."""

import csv
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.output import interruption

import pytest
from conftest import PATIENCE, posix_only, start_script

LONG = [
    "--jobs",
    "1",
    "--epochs",
    "5000",
    "--csv",
    "a.csv",
    "--optimizers",
    "wild=SGD(lr=1e6)",
    "Adam()",
]


def wait_for_row(process, start):
    while not (line := process.stdout.readline()).startswith(start):
        assert line, process.stderr.read()


@posix_only
@pytest.mark.parametrize(
    "numbers",
    [
        [signal.SIGINT],
        pytest.param([signal.SIGTERM, signal.SIGINT], marks=pytest.mark.slow),
    ],
)
def test_a_signal_while_it_trains_saves_what_there_is(numbers, workdir):
    with start_script("compare_optimizers.py", *LONG) as process:
        wait_for_row(process, "wild")
        time.sleep(0.3)  # into the training of Adam
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.01)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err == "interrupted: what had finished is saved\n"
    row, *_, figure, numbers = out.splitlines()
    assert row.startswith("Adam")
    assert "interrupted at step " in row
    assert [figure, numbers] == ["saved compare_optimizers.png", "saved a.csv"]
    with Path("a.csv").open() as file:
        labels = [line["optimizer"] for line in csv.DictReader(file)]
    assert set(labels) == {"wild", "Adam()"}
    assert f"at step {labels.count('Adam()') + 1}" in row
    assert (workdir / "compare_optimizers.png").read_bytes().startswith(b"\x89PNG")


@posix_only
@pytest.mark.parametrize("n_modules", [0, 100, 700])
def test_a_signal_while_torch_is_imported_is_one_line(n_modules, workdir):
    told = {"PYTHONPROFILEIMPORTTIME": "1"}  # a line on stderr for each module, when it is there
    with start_script("compare_optimizers.py", *LONG, env=told) as process:
        while not process.stderr.readline().endswith(" lab\n"):
            assert process.poll() is None
        for _ in range(n_modules):
            process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read().splitlines()
    assert process.returncode == 130
    (said,) = [line for line in rest if not line.startswith("import time:")]
    assert said.startswith("interrupted: ")
    assert not list(workdir.glob(".*"))


# ---------------------------------------------------------------- the moments, in one process


@pytest.fixture
def signal_at(monkeypatch):
    """Return a function that has a signal come at a time, in seconds; it tells if that raised."""
    monkeypatch.setattr(interruption, "asked_at", interruption.NEVER)
    monkeypatch.setattr(interruption, "waiting", False)

    def signal_at(seconds):
        monkeypatch.setattr(interruption.time, "monotonic", lambda: seconds)
        try:
            interruption._interrupt(signal.SIGINT, None)
        except KeyboardInterrupt:
            return True
        return False

    return signal_at


def test_while_it_trains_the_first_raises_and_a_second_in_quick_succession_does_not(signal_at):
    assert not interruption.was_asked()
    assert signal_at(5.0)
    assert interruption.was_asked()
    assert not signal_at(5.9)
    assert signal_at(7.0)


def test_while_results_are_saved_the_first_waits_and_a_later_one_raises(signal_at):
    interruption.wait()
    assert not signal_at(5.0)
    assert interruption.was_asked()
    assert not signal_at(5.5)
    assert signal_at(6.6)
    interruption.go_on()
    assert signal_at(9.0)


def test_until_something_waits_nothing_does():
    code = (
        "from lab.output import interruption; print(interruption.waiting, interruption.was_asked())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False False\n"


def test_an_interrupted_training_is_saved_in_peace(signal_at):
    assert signal_at(5.0)
    interruption.wait()
    assert not signal_at(5.5)
    assert signal_at(7.0)


@pytest.fixture
def _handlers():
    before = [signal.getsignal(number) for number in interruption.SIGNALS]
    yield
    for number, handler in zip(interruption.SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    interruption.asked_at = 5.0
    interruption.start()
    assert not interruption.was_asked()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is interruption._interrupt
    interruption.end()
    assert signal.getsignal(signal.SIGTERM) is not interruption._interrupt


@pytest.mark.usefixtures("_handlers")
def test_each_time_that_it_ends_signals_do_what_they_did_before(monkeypatch):
    at_exit = []
    monkeypatch.setattr(interruption.atexit, "register", lambda *call: at_exit.append(call))
    for handler in (signal.default_int_handler, lambda number, frame: None):  # as by `%run`, twice
        signal.signal(signal.SIGINT, handler)
        interruption.start()
        assert signal.getsignal(signal.SIGINT) is interruption._interrupt
        interruption.end()
        assert signal.getsignal(signal.SIGINT) is handler
    assert at_exit == [(interruption._handle, signal.SIG_IGN)] * 2  # or the way out is disturbed


@pytest.mark.usefixtures("_handlers")
def test_another_thread_leaves_the_handlers_to_the_main_one():
    """Python would raise there."""
    before = [signal.getsignal(number) for number in interruption.SIGNALS]
    with ThreadPoolExecutor(1) as threads:
        threads.submit(interruption.start).result()
    assert [signal.getsignal(number) for number in interruption.SIGNALS] == before


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize(
    ("name", "is_ours"), [("compare_optimizers.py", True), ("tests/mine.py", False), (None, False)]
)
def test_only_scripts_of_ours_end_quietly_while_they_import(name, is_ours, monkeypatch):
    """A notebook has no file."""
    path = name and str(Path(__file__).parents[1] / name)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", path, raising=False)
    monkeypatch.setattr(interruption, "before", {})
    for number in interruption.SIGNALS:
        signal.signal(number, signal.default_int_handler)
    interruption.end_quietly_while_importing()
    expected = interruption._end if is_ours else signal.default_int_handler
    assert {signal.getsignal(number) for number in interruption.SIGNALS} == {expected}
