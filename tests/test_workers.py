"""Units of work in processes and on a cluster: the same numbers, whatever dies meanwhile."""

import math
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lab import stacking, workers
from lab.specs import parse_optimizer
from lab.trainings import without_progress
from lab.workers import Processes, Unit, default_lr_of, results, run_unit

import pytest
import torch
from conftest import FAILS, PATIENCE, SMALL, posix_only, start_script, textbook_training
from torch.nn.functional import mse_loss

import compare_tasks

ROOT = Path(__file__).parents[1]
LRS = 0.01, 0.1, 1.0
UNIT = Unit(SMALL, parse_optimizer("SGD"), LRS, (3, 4))


def held_out_loss(make_optimizer, seed):
    """Return a plain loop's loss on the held-out set."""
    train_set, held_out = SMALL.make_data(seed)
    _, net = textbook_training(
        train_set, SMALL.make_net, make_optimizer, mse_loss, seed, SMALL.epochs, SMALL.batch_size
    )
    x, y = held_out.tensors
    return mse_loss(net(x), y).item()


# ---------------------------------------------------------------- a unit


@pytest.mark.parametrize("choice", [True, False])
def test_a_unit_is_compiled_where_that_is_asked_for(choice, compiled):
    run_unit(replace(UNIT, make_optimizer=parse_optimizer("Adagrad"), compiled=choice))
    assert len(compiled) > 1  # at the default rate, too
    assert set(compiled) == {choice}


def test_or_where_the_work_of_all_optimizers_of_its_task_is_worth_it(compiled, monkeypatch):
    # 2 seeds, 3 rates, 24 steps; 4 parameter tensors; 5 optimizers.
    for worth in (180, 181):
        monkeypatch.setattr(stacking, "WORTH_COMPILING", worth)
        run_unit(replace(UNIT, n_optimizers=5))
    assert set(compiled) == {True, False}
    assert compiled[0]
    assert not compiled[-1]


def test_a_unit_has_the_numbers_of_plain_loops():
    result = run_unit(UNIT)
    assert result.sweep.lrs[:3] == list(LRS)
    assert result.sweep.runs is None
    for row, lr in enumerate(result.sweep.lrs):
        for k, seed in enumerate(UNIT.seeds):
            expected = held_out_loss(lambda params, lr=lr: torch.optim.SGD(params, lr=lr), seed)
            expected = expected if math.isfinite(expected) else math.inf
            assert result.sweep.held_out_losses[row, k].item() == pytest.approx(expected, rel=1e-3)
    assert result.seconds > 0
    assert (result.error, result.remarks) == (None, [])
    assert result.note == "2 of 6 diverged, from step 22 on"  # at the highest rate


@pytest.mark.parametrize(
    ("spec", "lr"), [("Adagrad", 0.01), ("NAdam", 0.002), ("SGD(momentum=0.9)", 0.001)]
)
def test_the_default_rate_is_tried_whether_it_is_on_the_grid_or_not(spec, lr):
    make_optimizer = parse_optimizer(spec)
    result = run_unit(Unit(SMALL, make_optimizer, LRS, (3, 4)))
    assert result.default_lr == lr == default_lr_of(make_optimizer)
    for k, seed in enumerate((3, 4)):
        expected = held_out_loss(make_optimizer, seed)  # it names no rate
        assert result.default_losses[k].item() == pytest.approx(expected, rel=1e-3)


def test_what_has_no_default_rate_has_none():
    def make(params, lr):
        return torch.optim.SGD(params, lr=lr)

    assert default_lr_of(make) is None
    assert default_lr_of(lambda params: None) is None
    assert default_lr_of(torch.optim.SGD) == 0.001


def test_an_optimizer_that_fails_is_a_result(homework):
    homework(FAILS)
    result = run_unit(Unit(SMALL, parse_optimizer("homework.Fails"), LRS, (3, 4)))
    assert "failed at step 3 of seed 3: RuntimeError: boom" in result.note
    assert isinstance(result.error, RuntimeError)
    assert result.default_losses is None


def test_a_unit_uses_one_thread_and_gives_it_back(two_threads):
    seen = []

    class Looks(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(torch.get_num_threads())
            return super().step(closure)

    run_unit(Unit(SMALL, Looks, (0.01,), (3, 4)))
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


def test_threads_do_not_mix_up_their_units():
    units = {k: Unit(SMALL, parse_optimizer("Adam"), LRS, (k, k + 1)) for k in range(4)}
    with ThreadPoolExecutor(4) as executor:
        together = dict(results(units, executor, without_progress))
    alone = dict(results(units, None, without_progress))
    assert together.keys() == alone.keys()
    for k, result in alone.items():
        assert torch.equal(result.sweep.held_out_losses, together[k].sweep.held_out_losses)


def test_what_a_worker_dies_of_is_a_row():
    class Bad(Executor):
        def submit(self, function, *args):
            future = Future()
            future.set_exception(TypeError("cannot\npickle"))
            return future

    ((key, result),) = results({"a": UNIT}, Bad(), without_progress)
    assert key == "a"
    assert result.sweep is None
    assert result.note == "failed: TypeError: cannot pickle"
    assert isinstance(result.error, TypeError)


def test_of_workers_that_are_lost_the_finished_results_are_taken_first():
    class Lost(Executor):
        def submit(self, function, unit):
            future = Future()
            if unit is UNIT:
                future.set_result("done")
            else:
                future.cancel()
                future.set_running_or_notify_cancel()
            return future

    taken = results({"b": None, "a": UNIT}, Lost(), without_progress)
    assert next(taken) == ("a", "done")
    with pytest.raises(ConnectionError, match="the workers are gone"):
        next(taken)


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
def test_a_process_that_dies_costs_its_own_unit_only(workdir):
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
def test_a_unit_that_kills_its_process_is_given_up(workdir, monkeypatch):
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
        "from lab.workers import Processes\n"
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
FEW = ["--optimizers", "SGD=SGD()", "Adam=Adam()", "--lr-count", "3", "--seeds", "3", "--no-show"]


SMALL_TASKS = ["--tasks", "problems.small", "parabola(samples=64)"]
LONG_TASKS = ["--tasks", "problems.small", "problems.long", "--seeds", "30"]


def start(*words):
    Path("problems.py").write_text(PROBLEMS)
    return start_script("compare_tasks.py", *FEW, "--csv", "a.csv", *words)


def finish(process, status=0):
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, err
    return out, err


@pytest.fixture
def reference(homework, workdir):
    """The CSV of this one process."""
    homework(PROBLEMS, name="problems")
    assert compare_tasks.main([*FEW, *SMALL_TASKS, "--jobs", "1", "--csv", "reference.csv"]) == 0
    return Path("reference.csv").read_bytes()


def test_many_processes_give_the_same_bytes(reference, workdir):
    out, err = finish(start(*SMALL_TASKS, "--jobs", "2"))
    assert Path("a.csv").read_bytes() == reference
    assert err == ""
    assert out.count("problems.small") >= 2


def children_of(pid):
    listed = subprocess.run(
        ["ps", "-o", "pid=,ppid=", "-e"], capture_output=True, text=True, check=True
    )
    pairs = (map(int, line.split()) for line in listed.stdout.splitlines())
    return [child for child, parent in pairs if parent == pid]


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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


def test_a_cluster_may_lose_a_worker_and_not_its_scheduler(cluster, reference):
    address, scheduler, (victim, _) = cluster
    process = start(*SMALL_TASKS, "--dask", address)
    for _ in range(2):
        process.stdout.readline()
    victim.kill()
    _, err = finish(process)
    assert err == ""
    assert Path("a.csv").read_bytes() == reference

    process = start(*LONG_TASKS, "--dask", address)
    for _ in range(2):
        process.stdout.readline()
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
            calls.append(("pure", pure))  # or equal units would run once
            return self

        def shutdown(self, wait):
            calls.append(("wait", wait))

        def close(self):
            calls.append("close")

    monkeypatch.setitem(sys.modules, "distributed", types.SimpleNamespace(Client=Client))
    with suppress(KeyboardInterrupt), workers.open_executor(2, "tcp://there:1") as executor:
        assert isinstance(executor, Client)
        raise KeyboardInterrupt
    assert calls == [("tcp://there:1", False), ("pure", False), ("wait", False), "close"]


def test_one_job_is_done_here_and_more_in_processes():
    with workers.open_executor(1, None) as executor:
        assert executor is None
    with workers.open_executor(3, None) as executor:
        assert isinstance(executor, Processes)


def test_a_scheduler_that_is_not_there_is_a_line(workdir):
    out, err = finish(start("--tasks", "parabola", "--dask", "127.0.0.1:9"), status=1)
    assert out == ""
    assert err.startswith("error: ConnectionError: no scheduler answers at 127.0.0.1:9: ")
    assert err.count("\n") == 1
