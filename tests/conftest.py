"""What the tests of the scripts share."""

import matplotlib.pyplot as plt
import pytest
from hypothesis import settings

settings.register_profile("no clock", parent=settings.default, deadline=None)
settings.load_profile("no clock")


@pytest.fixture(autouse=True)
def _no_windows():
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exit_status(main, words):
    """Return the exit status of a script's main, whichever way it ends."""
    try:
        return main(words)
    except SystemExit as stop:
        return stop.code


def assert_refused(main, words, message, workdir, capsys):
    """Assert exit status 2, one line on stderr with `message` in it, and nothing written."""
    before = {path: path.read_bytes() for path in workdir.iterdir()}
    assert exit_status(main, words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert {path: path.read_bytes() for path in workdir.iterdir()} == before
