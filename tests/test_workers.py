"""Jobs in processes and on a cluster: the same numbers, whatever dies meanwhile."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path

from lab.training import crew, workers
from lab.training.workers import Processes

import pytest
from conftest import PATIENCE, posix_only, start_script

import compare_budgets
import compare_tasks

ROOT = Path(__file__).parents[1]


# ---------------------------------------------------------------- processes


# What a process does when it is sent `exec` and this: it dies as long as few did so before it.
DIE = """
import os, signal
with open("deaths", "a+") as file:
    file.write("x")
    if file.tell() <= {deaths}:
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().split(")")[1].split()[0] != "Z"


def wait_until_dead(pid, seconds=10):
    end = time.monotonic() + seconds
    while is_alive(pid):
        assert time.monotonic() < end
        time.sleep(0.05)


@posix_only
def test_a_process_that_dies_costs_its_own_job_only(workdir):
    with Processes(2) as executor:
        other = executor.submit(os.getpid)
        again = executor.submit(exec, DIE.format(deaths=1))
        assert other.result(timeout=PATIENCE) != os.getpid()
        again.result(timeout=PATIENCE)
        assert Path("deaths").read_text() == "xx"  # the second one lives
        pids = [child.pid for child in multiprocessing.active_children()]
        assert other.result() in pids
        assert len(pids) == 2
    for pid in pids:
        wait_until_dead(pid)


@posix_only
def test_a_job_that_kills_its_process_is_given_up(workdir, monkeypatch):
    monkeypatch.setattr(Processes, "TRIES", 2)
    with Processes(1) as executor:
        future = executor.submit(exec, DIE.format(deaths=9))
        with pytest.raises(RuntimeError, match="killed 2 times"):
            future.result(timeout=PATIENCE)
        assert executor.submit(abs, -1).result(timeout=PATIENCE) == 1
    assert Path("deaths").read_text() == "xx"


def test_the_end_of_the_block_ends_all_at_once():
    with Processes(2) as executor:
        assert executor.submit(abs, -1).result(timeout=PATIENCE) == 1
        futures = [executor.submit(time.sleep, 60) for _ in range(5)]
        time.sleep(0.2)
        start = time.monotonic()
    assert time.monotonic() - start < 10
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(timeout=5)


@posix_only
def test_a_process_ends_with_its_parent():
    code = (
        "import os, time\n"
        "from lab.training.workers import Processes\n"
        "if __name__ == '__main__':\n"
        "    executor = Processes(1)\n"
        "    print(executor.submit(os.getpid).result(), flush=True)\n"
        "    executor.submit(time.sleep, 60)\n"
        "    time.sleep(60)\n"
    )
    command, environment = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_until_dead(pid)


@posix_only
def test_the_threads_that_feed_processes_leave_ctrl_c_to_the_main_thread():
    masks = []

    def look():
        workers.leave_signals_to_the_main_thread()
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, set()))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert signal.SIGINT in masks[0]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


# ---------------------------------------------------------------- whole scripts

PROBLEMS = """
import torch
from dataclasses import replace
from tasks import TASKS

small = replace(TASKS["sine"], epochs=1)
long = replace(TASKS["sine"], epochs=12)
"""
FEW = ["--optimizers", "SGD=SGD()", "Adam=Adam()", "--lr-count", "3", "--seeds", "3"]
FEW += ["--judges", "8", "--no-show"]
SMALL_TASKS = ["--tasks", "problems.small", "parabola(samples=64)"]
LONG_TASKS = ["--tasks", "problems.small", "problems.long", "--seeds", "30"]


# Runs a script in which any work is worth sharing; no figure is rendered, which would take long.
SHARING = """
import sys
from importlib import import_module
from lab.output.main import run_main
from lab.training import crew
if __name__ == "__main__":
    from pathlib import Path
    import matplotlib.pyplot as plt
    plt.Figure.savefig = lambda figure, path, **style: Path(path).touch()
    crew.WORTH_SHARING = 0
    run_main(import_module(sys.argv.pop(1)).main)
"""


def start(*words, script="compare_tasks", options=FEW, **streams):
    Path("problems.py").write_text(PROBLEMS)
    Path("sharing.py").write_text(SHARING)
    words = [script, *options, "--csv", "a.csv", *words]
    return start_script(
        Path("sharing.py").absolute(), *words, env={"PYTHONPATH": str(ROOT)}, **streams
    )


def finish(process, status=0):
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, err
    return out, err


@pytest.fixture
def csv_of(homework, workdir, unrendered, monkeypatch):
    """Return the CSV that so many jobs of this process give."""
    homework(PROBLEMS, name="problems")
    monkeypatch.setattr(crew, "WORTH_SHARING", 0)

    def csv_of(jobs):
        words = [*FEW, *SMALL_TASKS, "--jobs", str(jobs), "--csv", "it.csv"]
        assert compare_tasks.main(words) == 0
        return Path("it.csv").read_bytes()

    return csv_of


def test_many_processes_give_the_same_bytes(csv_of, capsys, monkeypatch):
    reference = csv_of(jobs=1)
    capsys.readouterr()
    monkeypatch.delattr(crew.Order, "train")  # by which this process would do it
    assert csv_of(jobs=2) == reference
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("problems.small") >= 2


def children_of(pid):
    listed = subprocess.run(
        ["ps", "-o", "pid=,ppid=", "-e"], capture_output=True, text=True, check=True
    )
    pairs = (map(int, line.split()) for line in listed.stdout.splitlines())
    return [child for child, parent in pairs if parent == pid]


@posix_only
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_keeps_what_is_finished_and_leaves_no_process(number, workdir):
    process = start(*LONG_TASKS, "--jobs", "2")
    for _ in range(2):
        assert process.stdout.readline()  # the head, and a row
    children = children_of(process.pid)
    assert len(children) >= 2
    process.send_signal(number)
    begun = time.monotonic()
    _, err = finish(process, status=130)
    assert time.monotonic() - begun < 10
    assert err == "interrupted: what had finished is saved\n"
    assert Path("a.csv").read_text().count("\n") > 30
    assert Path("compare_tasks.png").exists()
    for child in children:
        wait_until_dead(child)


# ---------------------------------------------------------------- a cluster


@pytest.fixture
def cluster(workdir):
    """A Dask scheduler of its own and two workers: (address, scheduler, workers)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = f"tcp://127.0.0.1:{port}"
    started = []

    def start_dask(*words):
        command = [sys.executable, "-m", "dask", *words, "--no-dashboard"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(command, env=environment, **quiet))
        return started[-1]

    scheduler = start_dask("scheduler", "--host", "127.0.0.1", "--port", port)
    workers = [start_dask("worker", address, "--nthreads", "1", "--no-nanny") for _ in range(2)]
    yield address, scheduler, workers
    for process in started:
        process.kill()
        process.wait()


def test_a_cluster_may_lose_a_worker(cluster, csv_of):
    address, _, (victim, _) = cluster
    process = start(*SMALL_TASKS, "--dask", address)
    while not process.stdout.readline().startswith("problems.small"):  # a row
        assert process.poll() is None
    victim.kill()
    _, err = finish(process)
    assert err == ""
    assert Path("a.csv").read_bytes() == csv_of(jobs=1)


@pytest.mark.slow
def test_a_cluster_tries_settings_as_this_process_does(cluster, homework, unrendered, monkeypatch):
    words = ["--no-show", "--tasks", "problems.small", "--trials", "4", "--seeds", "2"]
    words += ["--optimizers", "Momentum", "SGD(lr=log(1e-3, 1)) + (none or cosine)"]
    _, err = finish(start("--dask", cluster[0], script="compare_budgets", options=words))
    assert err == ""
    homework(PROBLEMS, name="problems")
    monkeypatch.setattr(crew, "WORTH_SHARING", 0)
    assert compare_budgets.main([*words, "--jobs", "1", "--csv", "it.csv"]) == 0
    assert Path("a.csv").read_bytes() == Path("it.csv").read_bytes()


@pytest.mark.slow
def test_a_cluster_may_not_lose_its_scheduler(cluster):
    """In one process, by what its futures raise: tests/test_crew.py."""
    address, scheduler, _ = cluster
    process = start(*LONG_TASKS, "--dask", address)
    while not process.stdout.readline().startswith("problems.small"):  # a row
        assert process.poll() is None
    scheduler.kill()
    _, err = finish(process, status=1)
    assert err == "stopped: the workers are gone\n"
    assert Path("a.csv").read_text().count("\n") > 30


def test_the_end_of_the_block_leaves_the_cluster_and_waits_for_nothing(monkeypatch):
    calls = []

    class Client:
        def __init__(self, address, timeout, set_as_default):
            calls.append((address, set_as_default))

        def get_executor(self, pure):
            calls.append(("pure", pure))  # or equal jobs would run once
            return self

        def nthreads(self):
            return {"tcp://one": 2, "tcp://other": 3}

        def shutdown(self, wait):
            calls.append(("wait", wait))

        def close(self):
            calls.append("close")

    monkeypatch.setitem(sys.modules, "distributed", types.SimpleNamespace(Client=Client))
    with suppress(KeyboardInterrupt), workers.open_executor(2, "tcp://there:1") as executor:
        assert isinstance(executor, Client)
        assert executor.number == 5
        raise KeyboardInterrupt
    assert calls == [("tcp://there:1", False), ("pure", False), ("wait", False), "close"]


def test_one_job_is_done_here_and_more_in_processes():
    with workers.open_executor(1, None) as executor:
        assert executor is None
    with workers.open_executor(3, None) as executor:
        assert isinstance(executor, Processes)


def test_a_scheduler_that_is_not_there_is_said_before_any_work(workdir, monkeypatch, capsys):
    """As any ConnectionError it becomes a line: tests/test_main.py."""
    distributed = pytest.importorskip("distributed")

    class Hasty(distributed.Client):
        def __init__(self, address, timeout, **more):
            super().__init__(address, timeout=timeout / 20, **more)

    monkeypatch.setattr(distributed, "Client", Hasty)
    message = r"^no scheduler answers at 127\.0\.0\.1:9: [^\n]*$"
    with pytest.raises(ConnectionError, match=message):
        compare_tasks.main([*FEW, "--tasks", "parabola", "--dask", "127.0.0.1:9"])
    assert capsys.readouterr() == ("", "")
