"""A file is whole or not there, and its numbers read back exactly."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

from lab.output.files import write_csv

from hypothesis import given
from hypothesis import strategies as st


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
