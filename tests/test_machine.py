"""How a stack uses the machine: threads by the size of the work, memory that stays."""

import os
import platform
import runpy
import subprocess
import sys
from pathlib import Path

from lab.training import machine

import pytest
import torch


def threads_in_use(n_parameters):
    with machine.threads_for(n_parameters):
        return torch.get_num_threads()


def test_a_small_stack_uses_one_thread_and_a_large_one_all(two_threads):
    assert threads_in_use(5000) == 1
    assert torch.get_num_threads() == 2
    assert threads_in_use(10**6) == 2


def test_a_net_alone_does_so_by_its_work(two_threads):
    for work, n_threads in ((1e6, 1), (29e6, 1), (1e9, 2)):
        with machine.threads_for_work(lambda work=work: work):
            assert torch.get_num_threads() == n_threads
        assert torch.get_num_threads() == 2


def test_work_is_counted_only_if_it_matters(two_threads, monkeypatch):
    def count():
        raise AssertionError

    monkeypatch.setattr(machine, "DEFAULT_THREADS", 1)
    torch.set_num_threads(1)
    with machine.threads_for_work(count):
        assert torch.get_num_threads() == 1


def test_where_threads_that_wait_do_not_fall_asleep_work_has_to_be_larger(monkeypatch):
    """As in a notebook that has imported torch before lab could set how long they wait."""

    def limits():
        module = runpy.run_path(machine.__file__)
        return module["WORTH_SHARING"], module["WORK_WORTH_SHARING"]

    monkeypatch.setenv("GOMP_SPINCOUNT", "2000")
    assert limits() == (30_000, 30e6)
    monkeypatch.delenv("GOMP_SPINCOUNT")
    assert limits() == (60_000, 60e6)


def test_the_users_own_number_of_threads_comes_first(two_threads, monkeypatch):
    torch.set_num_threads(3)
    assert threads_in_use(5000) == 3
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads_in_use(5000) == 2


@pytest.mark.parametrize(
    ("before", "chosen", "spins"),
    [("", None, "2000"), ("", "7", "7"), ("import torch", None, "None")],
)
def test_threads_that_wait_soon_sleep_unless_it_is_too_late_or_the_user_chose(
    before, chosen, spins
):
    code = f"{before}\nimport lab, os\nprint(os.environ.get('GOMP_SPINCOUNT'))"
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1])}
    if chosen:
        environment["GOMP_SPINCOUNT"] = chosen
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{spins}\n"


PAGES = """
from pathlib import Path
from lab.training.machine import keep_memory
import torch


def pages_in_use():
    return int(Path("/proc/self/statm").read_text().split()[1])


keep_memory()
before = pages_in_use()
blocks = [torch.ones(3_000_000) for _ in range(5)]  # 12 MB, some 3000 pages, each
del blocks
print(pages_in_use() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_that_is_freed_stays_with_the_process():
    def pages_kept(code):
        command = [sys.executable, "-c", code]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)

    assert pages_kept(PAGES) > 12_000
    assert pages_kept(PAGES.replace("\nkeep_memory()\n", "\n")) < 6_000


def test_where_there_is_no_glibc_nothing_happens(monkeypatch):
    def none(name):
        raise TypeError  # as on Windows

    monkeypatch.setattr(machine.ctypes, "CDLL", none)
    machine.keep_memory()
