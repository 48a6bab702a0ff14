"""How a script ends: its exit status, and a line where something is wrong."""

import errno
import sys
from functools import partial

from lab.output import main as main_module
from lab.output.main import run_main

import pytest


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
    for name in ("start", "end"):
        monkeypatch.setattr(main_module.interruption, name, partial(calls.append, name))
    monkeypatch.setattr(main_module, "silence", calls.append)
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "reconfigure", lambda **_: None, raising=False)

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
