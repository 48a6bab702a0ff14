"""How a script ends: its exit status, and a line where something is wrong."""

import errno
import importlib
import sys
from functools import partial

from lab.output import main as main_module
from lab.output.main import run_main

import pytest


@pytest.fixture
def calls(monkeypatch):
    """List what is done to the process."""
    calls = []
    for name in ("start", "end"):
        monkeypatch.setattr(main_module.interruption, name, partial(calls.append, name))
    monkeypatch.setattr(main_module, "silence", calls.append)
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "reconfigure", lambda **_: None, raising=False)
    return calls


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
def test_the_exit_status_says_how_it_ended(ends, status, message, capsys, calls):

    def main():
        if isinstance(ends, BaseException):
            raise ends
        return ends

    with pytest.raises(SystemExit) as stop:
        run_main(main)
    assert stop.value.code == status
    assert capsys.readouterr().err == message
    silenced = [sys.stdout] if isinstance(ends, OSError) else []  # or exit would fail once more
    assert calls == ["start", *silenced, "end"]


@pytest.mark.parametrize("error", ["SystemExit(0)", "GeneratorExit", "ValueError('no')"])
def test_what_only_a_users_own_code_raises_is_a_line_with_its_place(
    error, small_file, calls, capsys
):
    small_file(f"def main():\n    raise {error}\n", "its_own")
    sys.path.append(".")
    with pytest.raises(SystemExit) as stop:
        run_main(importlib.import_module("its_own").main)
    assert stop.value.code == 1
    assert capsys.readouterr().err.endswith(" (its_own.py, line 2)\n")
    assert calls == ["start", "end"]


def test_a_traceback_is_a_bug_of_ours(calls):
    with pytest.raises(KeyError):
        run_main(partial({}.__getitem__, "ours"))
